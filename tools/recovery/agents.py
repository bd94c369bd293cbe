"""Pods that mount claims, so that their files can be read or written.

One pod has up to twenty claims of one namespace. It is what a person's server is to the cluster:
uid 1000, no privilege, no network, no service account's token. A reader mounts read-only.
"""

import contextlib
from collections.abc import Iterator, Sequence

from components.pods import GID, UID
from tools.recovery.errors import RecoveryError
from tools.recovery.kube import Kubectl, Pod
from tools.recovery.place import LABELS, Claim

BATCH = 20
ROOT = "/volumes"
SELECTOR = f"app.kubernetes.io/name={LABELS['app.kubernetes.io/name']}"


def agent(
    name: str,
    claims: Sequence[Claim],
    image: tuple[str, list[dict[str, str]]],
    *,
    writes: bool,
) -> dict[str, object]:
    """The pod. It ends by itself after a day, should nobody be there to end it."""
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


@contextlib.contextmanager
def mounted(
    kubectl: Kubectl,
    claims: Sequence[Claim],
    image: tuple[str, list[dict[str, str]]],
    *,
    writes: bool = False,
) -> Iterator[Pod]:
    """A running agent with these claims, which goes afterwards."""
    name = "mlhub-recovery-write" if writes else "mlhub-recovery-read"
    pod = Pod(claims[0].namespace, name)
    gone = ["pod", name, "--namespace", pod.namespace, "--ignore-not-found", "--wait=true"]
    kubectl("delete", *gone)
    kubectl.apply(agent(name, claims, image, writes=writes))
    try:
        try:
            kubectl(
                "wait", "pod", name, "--namespace", pod.namespace,
                "--for=condition=Ready", "--timeout=180s",
            )  # fmt: skip
        except RecoveryError as error:
            told = kubectl(
                "get", "events", "--namespace", pod.namespace, "--output=jsonpath={..message}",
                f"--field-selector=involvedObject.name={name},type=Warning",
            )  # fmt: skip
            names = ", ".join(claim.name for claim in claims)
            raise RecoveryError(
                f"the volumes {names} could not be mounted: {told or error}"
            ) from None
        yield pod
    finally:
        kubectl("delete", *gone)
