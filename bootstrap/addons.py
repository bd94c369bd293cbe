"""What runs inside the cluster from the start: DNS, storage, the network-policy agent.

They are pods rather than processes of the host: the kubelet restarts them, each has a service
account with only its own rights, and the Service and probes are Kubernetes' usual ones.
"""

import os
import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bootstrap.errors import BootstrapError
from bootstrap.network import GATE_QUEUE, POLICY_QUEUE
from bootstrap.node import PAUSE_IMAGE
from bootstrap.oci import Repository, layer_of
from bootstrap.paths import DNS_ADDRESS, REGISTRY, Layout, environment

MANIFESTS = Path(__file__).resolve().parent / "manifests"


@dataclass(frozen=True)
class Addon:
    """An image with one static program, its manifest, and the workload that must be ready."""

    binary: str
    manifest: str
    workload: tuple[str, str]
    beside: tuple[str, ...] = ()
    """Other programs in the image, which the first one starts."""


ADDONS = (
    Addon("netpol", "netpol.yaml", ("kube-system", "daemonset/kube-network-policies")),
    Addon("coredns", "coredns.yaml", ("kube-system", "deployment/coredns")),
    Addon(
        "local-path-provisioner",
        "storage.yaml",
        ("local-path-storage", "deployment/local-path-provisioner"),
    ),
    Addon(
        "seaweedfs-csi",
        "seaweedfs.yaml",
        ("seaweedfs-csi-driver", "deployment/provisioner"),
        beside=("weed-mount",),
    ),
)


def push_images(layout: Layout) -> dict[str, str]:
    """Pushes the add-ons' images; returns each by digest, under its manifest's name for it."""
    images = {}
    for binary, *beside in (*((addon.binary, *addon.beside) for addon in ADDONS), ("pause",)):
        files = {name: layout.bin / name for name in (binary, *beside)}
        repository = Repository(f"mlhub/{binary}", layout.registry_authority)
        tag = PAUSE_IMAGE.rpartition(":")[2]
        digest = repository.push(tag, layer_of(files), entrypoint=[f"/{binary}"])
        images[binary.replace("-", "_")] = f"{REGISTRY}/mlhub/{binary}@{digest}"
    return images


def manifest(name: str, values: dict[str, str]) -> str:
    """The manifest with its `${places}` filled; a place without a value is a KeyError."""
    text = (MANIFESTS / name).read_text()
    return re.sub(r"\$\{(\w+)\}", lambda place: values[place[1]], text)


def _kubectl(layout: Layout, *arguments: str, text: str | None = None) -> str:
    done = subprocess.run(
        [str(layout.bin / "kubectl"), *arguments],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment(layout)},
    )
    if done.returncode:
        raise BootstrapError(f"kubectl {' '.join(arguments[:2])} failed: {done.stderr.strip()}")
    return done.stdout


def apply(layout: Layout, images: dict[str, str], debian: str) -> None:
    values = {
        **images,
        "debian": debian,
        "dns_address": DNS_ADDRESS,
        "volumes": str(layout.volumes),
        "kubelet": str(layout.cluster / "kubelet"),
        "gate_queue": str(GATE_QUEUE),
        "policy_queue": str(POLICY_QUEUE),
    }
    names = ["node.yaml", "pipelines.yaml", *(addon.manifest for addon in ADDONS)]
    documents = "\n---\n".join(manifest(name, values) for name in names)
    _kubectl(
        layout,
        "apply",
        "--server-side",
        "--force-conflicts",
        "--field-manager=mlhub-bootstrap",
        "-f",
        "-",
        text=documents,
    )


def wait_ready(layout: Layout, note: Callable[[str], None], seconds: int = 180) -> None:
    """Waits for the node and for every add-on; says what is being waited for."""
    deadline = time.monotonic() + seconds
    note("node Ready")
    _wait(layout, deadline, "wait", "--for=condition=Ready", "node/local")
    for addon in ADDONS:
        namespace, workload = addon.workload
        note(workload)
        _wait(layout, deadline, "rollout", "status", "-n", namespace, workload)


def _wait(layout: Layout, deadline: float, *arguments: str) -> None:
    left = max(5, int(deadline - time.monotonic()))
    try:
        _kubectl(layout, *arguments, f"--timeout={left}s")
    except BootstrapError as error:
        pods = _kubectl(layout, "get", "pods", "-A", "-o", "wide")
        raise BootstrapError(f"{error}\nThe pods now:\n{pods}") from error
