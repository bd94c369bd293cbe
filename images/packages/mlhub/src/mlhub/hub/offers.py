"""Which profiles a person is offered: those of their groups, with the sizes and nodes that exist.

The chart's `profileList` states the profiles; this adds what only the running hub knows. It is
asked for each form, and again for each start: what is not offered does not start.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from mlhub.admission import Size
from mlhub.admission.sizes import GPU, say
from mlhub.hub.groups import hub_group_name
from mlhub.hub.nodes import GpuNode
from mlhub.hub.settings import OF_NODE, Settings

Profile = dict[str, Any]
"""One entry of KubeSpawner's `profile_list`, initialized."""

ANY = "any"
_BYTES = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_DIMENSIONS = ("cpu", "memory", "gpu")


def in_bytes(given: str | float) -> int:
    """Memory as KubeSpawner reads it: `5G` is 5 * 2^30 (kubespawner, `ByteSpecification`)."""
    text = str(given)
    return int(float(text[:-1]) * _BYTES[text[-1]]) if text[-1:] in _BYTES else int(float(text))


def amounts(override: Mapping[str, Any]) -> dict[str, float]:
    """The limits that a `kubespawner_override` sets, by dimension."""
    found: dict[str, float] = {}
    if override.get("cpu_limit") is not None:
        found["cpu"] = float(override["cpu_limit"])
    if override.get("mem_limit") is not None:
        found["memory"] = in_bytes(override["mem_limit"])
    if GPU in override.get("extra_resource_limits", {}):
        found["gpu"] = int(override["extra_resource_limits"][GPU])
    return found


class Offers:
    """The profiles of one hub; `stated` is the initialized list, `defaults` what none states."""

    def __init__(
        self, stated: Sequence[Profile], settings: Settings, defaults: Mapping[str, float]
    ):
        self._stated = stated
        self.defaults = dict(defaults)
        self._each_node = {slug for slug, more in settings.profiles.items() if more.each_node}
        self._groups = {
            slug: {hub_group_name(path) for path in more.groups}
            for slug, more in settings.profiles.items()
            if more.groups
        }
        self.with_gpus = any(self._most_gpus(profile) for profile in stated)
        """Whether any profile has a use for a GPU node."""

    def to(
        self, groups: Collection[str], nodes: Iterable[GpuNode], free: Mapping[str, int]
    ) -> list[Profile]:
        """What members of `groups` (Hub names) may start now; one of it is the default."""
        there = sorted(nodes, key=lambda node: node.name)
        shared: dict[tuple[str, ...], Profile] = {}
        found = [
            offered
            for profile in self._stated
            if self._may(profile["slug"], groups)
            for offered in self._on(profile, there, free, shared)
        ]
        if found and not any(profile.get("default") for profile in found):
            found[0] = found[0] | {"default": True}
        return found

    def theirs(self, groups: Collection[str]) -> list[str]:
        """The profiles, by slug, that members of `groups` (Hub names) may use, whether or not
        there is a node for one now."""
        slugs = [profile["slug"] for profile in self._stated]
        return [slug for slug in slugs if self._may(slug, groups)]

    def is_a_groups(self, slug: str) -> bool:
        """Whether a profile is for the members of some groups alone."""
        return slug in self._groups

    def least(self, profile: Profile) -> Size:
        """The smallest server of a profile."""
        size = self.defaults | amounts(profile.get("kubespawner_override", {}))
        for option in profile.get("profile_options", {}).values():
            each = [
                amounts(choice["kubespawner_override"]) for choice in option["choices"].values()
            ]
            for dimension in _DIMENSIONS:
                if given := [sizes[dimension] for sizes in each if dimension in sizes]:
                    size[dimension] = min(given)
        return Size(size.get("cpu", 0.0), int(size.get("memory", 0)), int(size.get("gpu", 0)))

    def _may(self, slug: str, groups: Collection[str]) -> bool:
        return slug not in self._groups or not self._groups[slug].isdisjoint(groups)

    def _on(
        self,
        profile: Profile,
        nodes: Sequence[GpuNode],
        free: Mapping[str, int],
        shared: dict[tuple[str, ...], Profile],
    ) -> Iterator[Profile]:
        """The profile with the nodes that exist: as it is, once a node, or not at all."""
        if not self._most_gpus(profile):
            yield profile
            return
        tolerations = [
            one for override in _overrides(profile) for one in override.get("tolerations", [])
        ]
        nodes = [node for node in nodes if node.takes(tolerations)]
        largest = max((node.gpus for node in nodes), default=0)
        options = {
            key: _within(option, largest)
            for key, option in profile.get("profile_options", {}).items()
        }
        possible = all(
            option["choices"] or not profile["profile_options"][key]["choices"]
            for key, option in options.items()
        )
        cut = profile | {"profile_options": options}
        needed = self.least(cut).gpu if possible else largest + 1
        fitting = [node for node in nodes if node.gpus >= needed]
        if not possible or (needed and not fitting):
            return
        if profile["slug"] in self._each_node:
            yield from (self._for_node(cut, node, free[node.name]) for node in fitting)
            return
        if not self._most_gpus(cut):
            yield cut
            return
        these = tuple(node.name for node in fitting)
        if these not in shared:
            shared[these] = _places(fitting, free)
        here, total = sum(free[node.name] for node in fitting), sum(node.gpus for node in fitting)
        yield cut | {
            "profile_options": options | shared[these],
            "free": f"{here} of {say('gpu', total)} free now",
        }

    @staticmethod
    def _for_node(profile: Profile, node: GpuNode, free: int) -> Profile:
        override = profile.get("kubespawner_override", {}) | {"node": node.name}
        return profile | {
            "slug": profile["slug"] + OF_NODE + node.name,
            "display_name": f"GPU on {node.name} ({say('gpu', node.gpus)})",
            "default": False,
            "kubespawner_override": override,
            "free": f"{free} of {say('gpu', node.gpus)} free now",
        }

    def _most_gpus(self, profile: Profile) -> float:
        return max(amounts(override).get("gpu", 0) for override in _overrides(profile))


def _overrides(profile: Profile) -> list[Mapping[str, Any]]:
    """The profile's own and those of each choice."""
    found = [profile.get("kubespawner_override", {})]
    for option in profile.get("profile_options", {}).values():
        found += [choice["kubespawner_override"] for choice in option["choices"].values()]
    return found


def _within(option: Profile, gpus: int) -> Profile:
    """The option without the choices that need more GPUs than any node has."""
    choices = {
        key: choice
        for key, choice in option["choices"].items()
        if amounts(choice["kubespawner_override"]).get("gpu", 0) <= gpus
    }
    return option | {"choices": with_default(choices)}


def with_default(choices: dict[str, Profile]) -> dict[str, Profile]:
    """The choices with one of them the default, the first where none is."""
    if not choices or any(choice.get("default") for choice in choices.values()):
        return choices
    first = next(iter(choices))
    return {**choices, first: choices[first] | {"default": True}}


def _places(nodes: Sequence[GpuNode], free: Mapping[str, int]) -> dict[str, Profile]:
    """The options of a profile with GPUs: which node, which kind of GPU."""
    places: dict[str, Profile] = {
        node.name: {
            "display_name": f"{node.name} ({say('gpu', node.gpus)}, {free[node.name]} free now)",
            "kubespawner_override": {"node": node.name},
        }
        for node in nodes
    }
    kinds: dict[str, Profile] = {
        product: {"display_name": product, "kubespawner_override": {"gpu_type": product}}
        for product in sorted({node.product for node in nodes if node.product})
    }
    found = {"node": ("Node", "Any node", "node", places)}
    if kinds:
        found["gpu_type"] = ("Kind of GPU", "Any GPU", "gpu_type", kinds)
    return {
        key: {
            "display_name": title,
            "choices": {
                ANY: {
                    "display_name": either,
                    "default": True,
                    "kubespawner_override": {trait: ""},
                },
                **choices,
            },
            "unlisted_choice": {"enabled": False},
        }
        for key, (title, either, trait, choices) in found.items()
    }


def unavailable(choice: Profile, fits: Mapping[str, float], largest: Mapping[str, float]) -> str:
    """Why a choice is out of reach, in a few words, or nothing; both limits by dimension."""
    for dimension, amount in amounts(choice["kubespawner_override"]).items():
        if amount > largest.get(dimension, amount):
            return f"one server may have at most {say(dimension, largest[dimension])}"
        if amount > fits.get(dimension, amount) + 1e-9:
            return f"{say(dimension, fits[dimension])} left"
    return ""
