"""Amounts as numbers, to tell more from less."""

import re
from collections.abc import Mapping
from typing import Any

KUBERNETES = {
    "m": 1e-3, "": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15,
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50,
}  # fmt: skip
SPAWNER = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
"""KubeSpawner's units are powers of 1024 (kubespawner, `ByteSpecification`)."""


def amount(value: Any, units: Mapping[str, float] | None = None) -> float | None:
    """A quantity as a number; None for what is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value)
    found = re.fullmatch(r"([0-9.]+(?:e[0-9]+)?)([A-Za-z]*)", str(value))
    known = units or KUBERNETES
    if not found or found[2] not in known:
        return None
    return float(found[1]) * known[found[2]]
