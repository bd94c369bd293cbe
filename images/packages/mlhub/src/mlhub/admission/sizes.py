"""How much a server or a run takes, and how a person reads it."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

GPU = "nvidia.com/gpu"
"""The extended resource of NVIDIA's device plug-in."""

GIB = 2**30

_QUANTITY = re.compile(r"([0-9]*\.?[0-9]+)([a-zA-Z]*)")
_UNITS = {
    "": 1.0,
    "m": 1e-3,
    "k": 1e3,
    **{unit: 10.0 ** (3 * power) for power, unit in enumerate("MGTP", 2)},
    **{f"{unit}i": 2.0 ** (10 * power) for power, unit in enumerate("KMGTP", 1)},
}


@dataclass(frozen=True)
class Size:
    """Limits of one server or run, or the sum of several: cores, bytes, whole GPUs."""

    cpu: float = 0.0
    memory: int = 0
    gpu: int = 0

    def __add__(self, other: Self) -> "Size":
        return Size(self.cpu + other.cpu, self.memory + other.memory, self.gpu + other.gpu)

    def __str__(self) -> str:
        return ", ".join(say(name, getattr(self, name)) for name in ("cpu", "memory", "gpu"))

    def plain(self) -> dict[str, float]:
        """For JSON: cores, bytes, GPUs."""
        return {"cpu": self.cpu, "memory": self.memory, "gpu": self.gpu}


def say(dimension: str, amount: float) -> str:
    """An amount with its unit, e.g. `say("memory", 2**31)` is `2 GiB`."""
    if dimension == "memory":
        return f"{round(amount / GIB, 2):g} GiB"
    number = f"{round(amount, 2):g}"
    if dimension == "cpu":
        return f"{number} CPU"
    noun = {"gpu": "GPU", "servers": "server", "gpu_hours": "GPU-hour"}[dimension]
    return f"{number} {noun}{'' if number == '1' else 's'}"


def quantity(given: str | float) -> float:
    """A Kubernetes quantity as a number, e.g. `quantity("500m")` is 0.5; raises ValueError.

    Kubernetes, "Quantity": `G` is 10^9 and `Gi` is 2^30.
    """
    matched = _QUANTITY.fullmatch(str(given))
    if not matched or matched[2] not in _UNITS:
        raise ValueError(f"{given!r} is no Kubernetes quantity")
    return float(matched[1]) * _UNITS[matched[2]]


def of_containers(containers: Iterable[dict[str, Any]]) -> Size:
    """What a pod's containers may take together, by their limits."""
    total = Size()
    for container in containers:
        limits = (container.get("resources") or {}).get("limits") or {}
        total += Size(
            quantity(limits.get("cpu", 0)),
            int(quantity(limits.get("memory", 0))),
            int(quantity(limits.get(GPU, 0))),
        )
    return total
