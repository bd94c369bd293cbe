"""GPU nodes, as their device plug-in describes them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mlhub.admission import Holding
from mlhub.admission.sizes import GPU, quantity

PRESENT = "nvidia.com/gpu.present=true"
"""Selector of nodes with a GPU; NVIDIA's feature discovery sets the label."""
PRODUCT = "nvidia.com/gpu.product"

FORBIDDING = ("NoSchedule", "NoExecute")
PRESSURE = "node.kubernetes.io/memory-pressure"
"""A taint that every pod with a request of memory tolerates by itself (Kubernetes, "Taints and
Tolerations")."""

Toleration = Mapping[str, Any]
"""Kubernetes' JSON, as are taints."""


@dataclass(frozen=True)
class GpuNode:
    name: str
    gpus: int
    """Allocatable."""
    product: str
    """NVIDIA's label, e.g. `NVIDIA-A100-SXM4-80GB`; empty where it is not set."""
    taints: tuple[Mapping[str, str], ...] = ()
    """Those that keep pods off it."""

    def takes(self, tolerations: Iterable[Toleration]) -> bool:
        """Whether a pod with these may go there."""
        given = list(tolerations)
        return all(any(tolerates(one, taint) for one in given) for taint in self.taints)


def tolerates(toleration: Toleration, taint: Mapping[str, str]) -> bool:
    """As Kubernetes has it: an empty effect is every effect, and an empty key every key."""
    return (
        toleration.get("effect") in (None, "", taint["effect"])
        and toleration.get("key") in (None, "", taint["key"])
        and (
            toleration.get("operator") == "Exists"
            or (toleration.get("value") or "") == (taint.get("value") or "")
        )
    )


def gpu_node(node: Mapping[str, Any]) -> GpuNode | None:
    """A node (Kubernetes' JSON) that can take a server with a GPU, or None."""
    status, about, spec = node["status"], node["metadata"], node.get("spec") or {}
    gpus = int(quantity((status.get("allocatable") or {}).get(GPU, 0)))
    ready = any(
        condition["type"] == "Ready" and condition["status"] == "True"
        for condition in status.get("conditions") or []
    )
    if not gpus or not ready or spec.get("unschedulable"):
        return None
    taints = tuple(
        taint
        for taint in spec.get("taints") or []
        if taint["effect"] in FORBIDDING and taint["key"] != PRESSURE
    )
    return GpuNode(about["name"], gpus, (about.get("labels") or {}).get(PRODUCT, ""), taints)


def free_gpus(nodes: Iterable[GpuNode], held: Iterable[Holding]) -> dict[str, int]:
    """GPUs by node that no server or run of this hub holds; who else has some is not known."""
    free = {node.name: node.gpus for node in nodes}
    for holding in held:
        if holding.node in free:
            free[holding.node] = max(0, free[holding.node] - holding.size.gpu)
    return free


def placed(terms: list[dict[str, Any]], node: str, product: str) -> list[dict[str, Any]]:
    """Node selector terms that also ask for a node by name and a GPU by its product, where given.

    Terms are alternatives (Kubernetes, "NodeSelector"), so each gets both.
    """
    if not (node or product):
        return terms
    result = []
    for term in terms or [{}]:
        wanted = dict(term)
        if node:
            by_name = {"key": "metadata.name", "operator": "In", "values": [node]}
            wanted["matchFields"] = [*term.get("matchFields", []), by_name]
        if product:
            by_label = {"key": PRODUCT, "operator": "In", "values": [product]}
            wanted["matchExpressions"] = [*term.get("matchExpressions", []), by_label]
        result.append(wanted)
    return result
