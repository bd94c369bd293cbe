"""Where everything made at run time lies: one ignored folder of the checkout, and /run/mlhub.

What must not outlive the machine's boot, or needs a short path (a Unix socket's is at most 107
bytes), is under /run/mlhub; all else is under `.mlhub`, so that removing the checkout removes it.
"""

import os
from dataclasses import dataclass
from pathlib import Path

RUNTIME = Path("/run/mlhub")
"""Sockets, container state and the record of whose cluster runs. One a machine."""

NODE_ADDRESS = "172.31.250.1"
NODE_NETWORK = "172.31.250.0/24"
NODE_NAME = "local"
DEVICE = "mlhub0"
POD_NETWORK = "10.244.0.0/16"
SERVICE_NETWORK = "10.96.0.0/16"
API_SERVICE_ADDRESS = "10.96.0.1"
DNS_ADDRESS = "10.96.0.10"
API_PORT = 6443
REGISTRY = "localhost:5000"
REGISTRY_ADDRESS = "127.0.0.1:5000"
LOGIN_URL = "http://localhost:30888"
KUBE_CONTEXT = "mlhub-local"
BUILDER = "mlhub"
BUILDKIT_SOCKET = RUNTIME / "buildkitd.sock"


@dataclass(frozen=True)
class Layout:
    """The folders of one checkout."""

    checkout: Path

    @property
    def data(self) -> Path:
        return self.checkout / ".mlhub"

    @property
    def bin(self) -> Path:
        return self.data / "bin"

    @property
    def cluster(self) -> Path:
        return self.data / "cluster"

    @property
    def pki(self) -> Path:
        return self.cluster / "pki"

    @property
    def registry_authority(self) -> Path:
        return self.pki / "registry-ca.crt"

    @property
    def trust(self) -> Path:
        """A bundle of whom to trust: the machine's authorities and the registry's (pki.py)."""
        return self.pki / "trust.pem"

    @property
    def config(self) -> Path:
        """Configuration files of the node's processes."""
        return self.cluster / "config"

    @property
    def kubeconfig(self) -> Path:
        return self.cluster / "kubeconfig"

    @property
    def volumes(self) -> Path:
        return self.cluster / "volumes"

    @property
    def registry(self) -> Path:
        return self.data / "registry"

    @property
    def buildkit(self) -> Path:
        return self.data / "buildkit"

    @property
    def cache(self) -> Path:
        return self.data / "cache"

    @property
    def programs(self) -> Path:
        """What was built here and goes into an image: a folder for each image."""
        return self.data / "programs"

    @property
    def log(self) -> Path:
        return self.data / "log"

    @property
    def run(self) -> Path:
        return self.data / "run"

    @property
    def passphrase(self) -> Path:
        return self.data / "passphrase"

    @property
    def toolchain(self) -> Path:
        """The pinned Go modules that parts are built from."""
        return self.checkout / "bootstrap" / "toolchain"

    def make(self) -> None:
        """Creates the folders; what holds secrets or people's data is closed to other users."""
        open_folders = (self.data, self.bin, self.cache, self.log, self.run)
        closed = (self.cluster, self.pki, self.config, self.volumes, self.registry, self.buildkit)
        for folder in open_folders:
            folder.mkdir(parents=True, exist_ok=True)
        for folder in closed:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)


def here() -> Layout:
    """The checkout that this package lies in."""
    return Layout(Path(__file__).resolve().parent.parent)


def environment(layout: Layout, own_context: str | None = None) -> dict[str, str]:
    """What `pulumi`, `kubectl` and `buildctl` need to work on this checkout's stack.

    own_context: set where the person has a cluster, whose kubeconfig is then theirs.
    """
    variables = {
        "PATH": f"{layout.bin}:{layout.checkout / '.venv' / 'bin'}:{os.environ.get('PATH', '')}",
        "PULUMI_HOME": str(layout.data / "pulumi"),
        # Without the small files beside each state, which Pulumi does not replace in one step:
        # killed in between, it could not read a whole state ("failed to load checkpoint: EOF").
        "PULUMI_BACKEND_URL": f"file://{layout.data / 'state'}?metadata=skip",
        "PULUMI_CONFIG_PASSPHRASE_FILE": str(layout.passphrase),
        "PULUMI_FALLBACK_TO_STATE_SECRETS_MANAGER": "true",
        # Refreshes each resource as the program comes to it: what it rests on is mended first.
        "PULUMI_RUN_PROGRAM": "true",
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
        "BUILDX_CONFIG": str(layout.data / "buildx"),
    }
    if own_context is None:
        variables["KUBECONFIG"] = str(layout.kubeconfig)
        variables["BUILDKIT_HOST"] = f"unix://{BUILDKIT_SOCKET}"
        if layout.trust.exists():
            variables["SSL_CERT_FILE"] = str(layout.trust)
    return variables
