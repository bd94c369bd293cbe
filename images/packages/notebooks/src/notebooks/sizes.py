"""From what a session needs to what the hub offers: the smallest size that holds it.

Offers are those of `GET /hub/api/mlhub/profiles`: profiles, each with a size and options whose
choices change it (cores, bytes, whole GPUs).
"""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from notebooks.errors import NotebooksError
from notebooks.models import ResourceConfig

GIB = 2**30
_QUANTITY = re.compile(r"([0-9]*\.?[0-9]+)([a-zA-Z]*)")
_BYTES = {
    "": 1.0,
    **{unit: 1000.0**power for power, unit in enumerate("kMGT", 1)},
    **{f"{unit}i": 1024.0**power for power, unit in enumerate("KMGT", 1)},
}
_CORES = {"": 1.0, "m": 0.001}


class NoSize(NotebooksError):  # noqa: N818 -- a refusal, as those of `notebooks.errors`
    """Nothing that the hub offers holds what was asked."""

    type = "size"


def cores(given: str) -> float:
    """`4`, `0.5` or `500m` as a number of cores; raises ValueError."""
    return _quantity(given, _CORES, "a number of cores such as 4, 0.5 or 500m")


def gib(given: str) -> float:
    """`16Gi` or `512Mi` in GiB, as Kubernetes reads it (`16G` is 14.9 GiB); raises ValueError."""
    if re.fullmatch(r"[0-9.]+", given.strip()):
        raise ValueError(f"{given} has no unit; write {given}Gi for {given} GiB")
    return _quantity(given, _BYTES, "an amount of memory such as 16Gi or 512Mi") / GIB


def _quantity(given: str, units: Mapping[str, float], what: str) -> float:
    matched = _QUANTITY.fullmatch(given.strip())
    if not matched or matched[2] not in units or not float(matched[1]):
        raise ValueError(f"{given!r} is not {what}")
    return float(matched[1]) * units[matched[2]]


@dataclass(frozen=True)
class _Candidate:
    profile: Mapping[str, Any]
    choices: Mapping[str, str]
    cpu: float
    memory: float
    gpu: int

    def __str__(self) -> str:
        gpus = f", {self.gpu} GPU{'s' if self.gpu > 1 else ''}" if self.gpu else ""
        return f"{self.cpu:g} CPU, {self.memory / GIB:g} GiB{gpus} ({self.profile['name']})"

    def holds(self, wanted: ResourceConfig) -> bool:
        return (
            self.cpu >= (wanted.cpu_cores or 0) - 1e-9
            and self.memory >= (wanted.memory_gb or 0) * GIB - 1
            and self.gpu >= (wanted.gpu_count or bool(wanted.gpu_type))
        )


def smallest(
    profiles: Sequence[Mapping[str, Any]], wanted: ResourceConfig, profile: str | None = None
) -> dict[str, str]:
    """User options for the smallest size that holds `wanted`: GPUs first, then memory, then cores.

    Nothing wanted is the hub's own default. Raises NoSize, which says what there is.
    """
    if profile is not None:
        profiles = [each for each in profiles if each["slug"] == profile] or _unknown(
            profile, profiles
        )
        if wanted == ResourceConfig():
            return {"profile": profile}
    if wanted == ResourceConfig():
        return {}
    kinds: dict[str, str] = {}
    if wanted.gpu_type:
        found = {each["slug"]: _kind(each, wanted.gpu_type) for each in profiles}
        kinds = {slug: kind for slug, kind in found.items() if kind}
        if not kinds:
            raise NoSize(_no_kind(profiles, wanted.gpu_type))
        profiles = [each for each in profiles if each["slug"] in kinds]
    every = [size for each in profiles for size in _sizes(each)]
    fitting = [size for size in every if size.holds(wanted)]
    if not fitting:
        raise NoSize(_too_large(every, wanted))
    best = min(fitting, key=lambda size: (size.gpu, size.memory, size.cpu))
    slug = best.profile["slug"]
    kind = {"gpu_type": kinds[slug]} if slug in kinds else {}
    return {"profile": slug, **best.choices, **kind}


def _sizes(profile: Mapping[str, Any]) -> Iterator[_Candidate]:
    """Every size of a profile; options that change no size are left to the hub."""
    options = {
        key: option["choices"]
        for key, option in profile["options"].items()
        if any(choice["size"] for choice in option["choices"].values())
    }
    for combination in itertools.product(*options.values()):
        size = dict(profile["size"])
        for key, chosen in zip(options, combination, strict=True):
            size |= options[key][chosen]["size"]
        choices = dict(zip(options, combination, strict=True))
        yield _Candidate(
            profile, choices, size.get("cpu", 0), size.get("memory", 0), int(size.get("gpu", 0))
        )


def _kind(profile: Mapping[str, Any], wanted: str) -> str | None:
    """The profile's choice of GPU that is meant; `nvidia-tesla-v100` means `Tesla-V100-SXM2-16GB`.

    Raises NoSize where several could be meant.
    """
    choices = list(profile["options"].get("gpu_type", {}).get("choices", {}))
    name = wanted.casefold()
    exact = [each for each in choices if each.casefold() == name]
    bare = name.removeprefix("nvidia-")
    like = [
        each
        for each in choices
        if f"{each.casefold().removeprefix('nvidia-')}-".startswith(f"{bare}-")
    ]
    found = exact or like
    if len(found) > 1:
        raise NoSize(f"{wanted} may be any of {', '.join(sorted(found))}; name one of them.")
    return found[0] if found else None


def _no_kind(profiles: Sequence[Mapping[str, Any]], wanted: str) -> str:
    there = {
        kind
        for each in profiles
        for kind in each["options"].get("gpu_type", {}).get("choices", {})
        if kind != "any"
    }
    if not there:
        return f"You asked for {wanted}; the hub offers you no kind of GPU to choose."
    return f"The hub has no GPU of the kind {wanted}. There are: {', '.join(sorted(there))}."


def _too_large(every: Sequence[_Candidate], wanted: ResourceConfig) -> str:
    asked = [
        text
        for amount, text in (
            (wanted.cpu_cores, f"{wanted.cpu_cores or 0:g} CPU"),
            (wanted.memory_gb, f"{wanted.memory_gb or 0:g} GiB"),
            (wanted.gpu_count, f"{wanted.gpu_count} GPU{'' if wanted.gpu_count == 1 else 's'}"),
        )
        if amount
    ]
    if not every:
        return "The hub offers you no profile. Ask your administrator which group you need."
    largest = max(every, key=lambda size: (size.gpu, size.memory, size.cpu))
    return f"No size that the hub offers you holds {', '.join(asked)}. The largest is {largest}."


def _unknown(profile: str, profiles: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    there = ", ".join(each["slug"] for each in profiles) or "none"
    raise NoSize(f"The hub offers you no profile {profile!r}. There are: {there}.")
