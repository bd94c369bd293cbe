"""The spawn form: the stack file's profiles as KubeSpawner's `profile_list`, and what the hub adds.

Every profile states everything that a server may take. What one leaves out would come from the
profile before it or from a default that knows no quota.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pulumi

from components import names
from components.config import GUARANTEED, Profile, StackFile, guaranteed

GPU = "nvidia.com/gpu"

DEDICATED = tuple(
    {"key": key, "operator": "Equal", "value": "user", "effect": "NoSchedule"}
    for key in ("hub.jupyter.org/dedicated", "hub.jupyter.org_dedicated")
)
"""The taints of nodes for users' pods alone: what the official chart has all servers tolerate where
a profile states nothing (`scheduling.userPods.tolerations`)."""
TAINTED = {"key": GPU, "operator": "Exists", "effect": "NoSchedule"}
"""With it cloud providers keep pods without a GPU off GPU nodes. Where Kubernetes has the admission
plug-in ExtendedResourceToleration, it adds the same."""


def override(profile: Profile, image: pulumi.Input[str]) -> dict[str, Any]:
    """`kubespawner_override`: KubeSpawner's traits for one profile."""
    return {
        "image": image,
        "cpu_limit": profile.cpu.limit,
        "cpu_guarantee": profile.cpu.guarantee,
        "mem_limit": profile.memory.limit,
        "mem_guarantee": profile.memory.guarantee,
        **gpus(profile, profile.gpu),
    }


def gpus(profile: Profile, number: int) -> dict[str, Any]:
    """GPUs are a limit and a guarantee of the same number, 0 included, and the way to their nodes.

    Kubernetes has no over-commit for extended resources, and a profile without the key would keep
    another's.
    """
    resource = {GPU: str(number)}
    stated = [given.model_dump(exclude_none=True) for given in profile.tolerations]
    return {
        "extra_resource_limits": resource,
        "extra_resource_guarantees": resource,
        "tolerations": [*DEDICATED, *stated, *([TAINTED] if number else [])],
    }


def options(profile: Profile) -> dict[str, Any]:
    """`profile_options`: the sizes that the profile leaves to the person, each by its own name.

    A size that is chosen brings its guarantee along, or the profile's could be above its limit.
    """
    if profile.options is None:
        return {}
    given = profile.options
    found = {
        "cpu": _choices(
            "CPU",
            (
                (
                    f"{cpu:g}",
                    f"{cpu:g} CPU",
                    {"cpu_limit": cpu, "cpu_guarantee": cpu * GUARANTEED},
                )
                for cpu in given.cpu
            ),
        ),
        "memory": _choices(
            "Memory",
            (
                (
                    size,
                    f"{size[:-1]} {size[-1]}iB",
                    {"mem_limit": size, "mem_guarantee": guaranteed(size)},
                )
                for size in given.memory
            ),
        ),
        "gpu": _choices(
            "GPUs",
            (
                (str(number), str(number) if number else "none", gpus(profile, number))
                for number in given.gpu
            ),
        ),
    }
    return {name: option for name, option in found.items() if option["choices"]}


def _choices(title: str, each: Iterable[tuple[str, str, dict[str, Any]]]) -> dict[str, Any]:
    """One option, its first choice the default."""
    choices = {
        key: {"display_name": shown, "default": number == 0, "kubespawner_override": traits}
        for number, (key, shown, traits) in enumerate(each)
    }
    return {"display_name": title, "choices": choices}


def profile_list(
    profiles: Sequence[Profile], images: Mapping[str, pulumi.Input[str]]
) -> list[dict[str, Any]]:
    """`singleuser.profileList`; `images` maps an image's name to its reference by digest."""
    return [
        {
            "slug": profile.slug,
            "display_name": profile.name,
            "description": profile.description,
            "default": profile.default,
            "kubespawner_override": override(profile, images[profile.image]),
            **({"profile_options": found} if (found := options(profile)) else {}),
        }
        for profile in profiles
    ]


def hub_settings(stack: StackFile) -> dict[str, Any]:
    """`custom.mlhub` beside `identity`: what `mlhub.hub.settings` reads about profiles and quotas.

    How large one server may be is in the person's quota; what one person may hold is a number of
    those.
    """
    user, workspace = stack.quotas.user, stack.quotas.workspace
    more = {
        profile.slug: profile.model_dump(
            mode="json",
            include={"groups", "each_node", "idle_timeout", "max_age"},
            exclude_defaults=True,
        )
        for profile in stack.profiles
    }
    return {
        "profiles": {slug: given for slug, given in more.items() if given},
        "gpu": stack.gpu.model_dump(exclude_none=True),
        "git_hosts": list(stack.hub.git_hosts),
        "idle_timeout": stack.hub.idle_timeout,
        "metrics_port": names.METRICS_PORT,
        "quotas": {
            "server": user.model_dump(include={"cpu", "memory", "gpu"}),
            "user": user.model_dump(include={"servers", "gpu_hours"}, exclude_none=True),
            "groups": {
                limits.group: limits.model_dump(exclude={"group"}, exclude_none=True)
                for limits in stack.quotas.groups
            },
            **({"workspace": workspace.model_dump(exclude_none=True)} if workspace else {}),
        },
    }
