"""A home that is a disk: one node at a time can have it, so its person's pods share that node."""

from collections.abc import Mapping
from typing import Any

USERNAME = "hub.jupyter.org/username"
"""KubeSpawner's label of a server, and the execution service's of a run."""
ALIKE = ("component", USERNAME)
"""Labels that are the same on all pods that mount a home, and on no others."""
ONE_NODE = ["ReadWriteOnce"]
"""The access modes of such a home's claim."""

_LET_GO = (
    "stop your other servers and runs, or wait until they, or a backup, have ended; then start "
    "this again."
)
ELSEWHERE = f"The home is a disk, which one node at a time can have: {_LET_GO}"
PERHAPS_ELSEWHERE = f"If the home is a disk, which one node at a time can have, {_LET_GO}"
_ELSEWHERE = ("Multi-Attach error", "didn't match pod affinity rules")
"""What Kubernetes' attach-detach controller and its scheduler say of it."""


def beside(labels: Mapping[str, str]) -> dict[str, Any]:
    """A required term of `podAffinity` for a pod with these `labels`: the node of those alike.

    The first goes anywhere: Kubernetes lets a pod pass that is itself what it looks for and is not
    found ("Inter-pod affinity and anti-affinity").
    """
    return {
        "labelSelector": {"matchLabels": {key: labels[key] for key in ALIKE}},
        "topologyKey": "kubernetes.io/hostname",
    }


def is_elsewhere(message: str) -> bool:
    """Whether Kubernetes says that another node has the disk."""
    return any(said in message for said in _ELSEWHERE)
