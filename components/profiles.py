"""The spawn form: the stack file's profiles as KubeSpawner's `profile_list`.

Every profile states everything that a server may take. What one leaves out would come from the
profile before it or from a default that knows no quota.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pulumi

from components.config import Profile

GPU = "nvidia.com/gpu"


def override(profile: Profile, image: pulumi.Input[str]) -> dict[str, Any]:
    """`kubespawner_override`: KubeSpawner's traits for one profile.

    GPUs are a limit and a guarantee of the same number, 0 included: Kubernetes has no over-commit
    for extended resources, and a profile without the key would keep another's.
    """
    gpus = {GPU: str(profile.gpu)}
    return {
        "image": image,
        "cpu_limit": profile.cpu.limit,
        "cpu_guarantee": profile.cpu.guarantee,
        "mem_limit": profile.memory.limit,
        "mem_guarantee": profile.memory.guarantee,
        "extra_resource_limits": gpus,
        "extra_resource_guarantees": gpus,
    }


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
        }
        for profile in profiles
    ]
