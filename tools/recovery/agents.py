"""Pods that mount claims, so that their files can be read or written.

One pod has up to twenty claims of one namespace. It is what a person's server is to the cluster:
uid 1000, no privilege, no network, no service account's token. A reader mounts read-only.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from components.pods import GID, UID
from tools.recovery.errors import RecoveryError
from tools.recovery.kube import Kubectl, Pod
from tools.recovery.place import LABELS, Claim, Node

BATCH = 20
ROOT = "/volumes"
CORDONED = {"key": "node.kubernetes.io/unschedulable", "operator": "Exists", "effect": "NoSchedule"}
SELECTOR = f"app.kubernetes.io/name={LABELS['app.kubernetes.io/name']}"


def agent(
    name: str,
    claims: Sequence[Claim],
    image: tuple[str, list[dict[str, str]]],
    *,
    writes: bool,
    node: Node | None = None,
) -> dict[str, Any]:
    """The pod, on `node` where one is given. It ends by itself after a day, should nobody be there
    to end it."""
    security = {
        "runAsNonRoot": True,
        "runAsUser": UID,
        "runAsGroup": GID,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    if writes:
        # A new volume may be root's. A full one must not have the modes of its files changed.
        security |= {"fsGroup": GID, "fsGroupChangePolicy": "OnRootMismatch"}
    mounts = [
        {"name": f"v{number}", "mountPath": f"{ROOT}/{claim.name}", "readOnly": not writes}
        for number, claim in enumerate(claims)
    ]
    container = {
        "name": "agent",
        "image": image[0],
        "command": ["tini", "--", "sleep", "infinity"],
        "resources": {
            "requests": {"cpu": "10m", "memory": "32Mi"},
            "limits": {"cpu": "1", "memory": "256Mi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": claims[0].namespace, "labels": LABELS},
        "spec": {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "restartPolicy": "Never",
            "activeDeadlineSeconds": 86_400,
            **(_placed(node) if node else {}),
            "terminationGracePeriodSeconds": 1,
            "imagePullSecrets": image[1],
            "securityContext": security,
            "containers": [container],
            "volumes": [
                {"name": f"v{number}", "persistentVolumeClaim": {"claimName": claim.name}}
                for number, claim in enumerate(claims)
            ],
        },
    }


def _placed(node: Node) -> dict[str, Any]:
    """Through the scheduler, and by the node's name, which its label need not be.

    With the tolerations of the pod that is there, and not all there are: on a node that is gone,
    which is tainted, an agent would never end.
    """
    named = {"key": "metadata.name", "operator": "In", "values": [node.name]}
    terms = {"nodeSelectorTerms": [{"matchFields": [named]}]}
    return {
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}},
        "tolerations": [*node.tolerations, CORDONED],
    }


def batches(claims: Sequence[Claim]) -> list[list[Claim]]:
    """Claims that one pod can mount together."""
    spaces = {
        claim.namespace: [c for c in claims if c.namespace == claim.namespace] for claim in claims
    }
    return [
        of_one[start : start + BATCH]
        for of_one in spaces.values()
        for start in range(0, len(of_one), BATCH)
    ]


class NotMountedError(RecoveryError):
    """One of the claims, and nothing else, keeps the agent from starting."""


class NodeError(NotMountedError):
    """The only node that has the claims takes no agent: it is gone or full, for example."""


def of_volumes(event: Mapping[str, Any]) -> bool:
    """Whether an event tells of volumes; the scheduler tells of them among much else."""
    if event["reason"] == "FailedScheduling":
        return "volume" in event["message"].lower()
    return event["reason"] in ("FailedMount", "FailedAttachVolume", "FailedMapVolume")


def _warnings(kubectl: Kubectl, pod: Pod) -> list[dict[str, Any]]:
    """Of this pod alone: those of others that had its name are kept for an hour."""
    uid = kubectl.json("get", "pod", pod.name, "--namespace", pod.namespace)["metadata"]["uid"]
    return kubectl.items(
        "events", pod.namespace, f"--field-selector=involvedObject.uid={uid},type=Warning"
    )


@contextlib.contextmanager
def mounted(
    kubectl: Kubectl,
    claims: Sequence[Claim],
    image: tuple[str, list[dict[str, str]]],
    *,
    writes: bool = False,
    node: Node | None = None,
) -> Iterator[Pod]:
    """A running agent with these claims, on the node that has them where one has; it goes
    afterwards."""
    name = "mlhub-recovery-write" if writes else "mlhub-recovery-read"
    pod = Pod(claims[0].namespace, name)
    gone = ["pod", name, "--namespace", pod.namespace, "--ignore-not-found", "--wait=true"]
    kubectl("delete", *gone)
    kubectl.apply(agent(name, claims, image, writes=writes, node=node))
    try:
        try:
            kubectl(
                "wait", "pod", name, "--namespace", pod.namespace,
                "--for=condition=Ready", "--timeout=180s",
            )  # fmt: skip
        except RecoveryError as error:
            warnings = _warnings(kubectl, pod)
            told = "; ".join(one["message"] for one in warnings) or error
            names = ", ".join(claim.name for claim in claims)
            there = f" on {node.name}, where pods have them" if node else ""
            kind = NodeError if node else RecoveryError
            if any(map(of_volumes, warnings)):
                kind = NotMountedError
            raise kind(f"{names} could not be mounted{there}: {told}") from None
        yield pod
    finally:
        kubectl("delete", *gone)
