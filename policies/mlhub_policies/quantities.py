"""Amounts as Kubernetes and as KubeSpawner read them, which is not the same.

KubeSpawner's units are powers of 1024 whatever their spelling (`5G` is 5 * 2^30 bytes; kubespawner,
ByteSpecification); Kubernetes' `5G` is 5 * 10^9 and `5Gi` is 5 * 2^30. What cannot be read is an
error, never a pass.
"""

import math
import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

BINARY = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
DECIMAL = {
    "n": Fraction(1, 10**9), "u": Fraction(1, 10**6), "m": Fraction(1, 1000), "": Fraction(1),
    "k": Fraction(10**3), "M": Fraction(10**6), "G": Fraction(10**9), "T": Fraction(10**12),
    "P": Fraction(10**15), "E": Fraction(10**18),
}  # fmt: skip
KUBERNETES = DECIMAL | {f"{p}i": Fraction(1024**n) for n, p in enumerate("KMGTPE", start=1)}
NUMBER = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?P<unit>[A-Za-z]*)")


def kubernetes(value: Any) -> float | None:
    """A Kubernetes quantity in cores, bytes or pieces; None where it is none."""
    return _read(value, KUBERNETES)


def kubespawner_bytes(value: Any) -> float | None:
    """KubeSpawner's `mem_limit` in bytes; None where it is none."""
    return _read(value, BINARY)


def _read(value: Any, units: Mapping[str, int | Fraction]) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value) if math.isfinite(value) and value >= 0 else None
    found = NUMBER.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None or found["unit"] not in units:
        return None
    return float(Fraction(found["number"]) * units[found["unit"]])


def gibibytes(amount: float) -> str:
    return f"{amount / 2**30:g} GiB"
