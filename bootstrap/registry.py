"""The image registry and the image builder of the machine."""

import json
import secrets

from bootstrap.files import write_private
from bootstrap.node import CGROUP
from bootstrap.paths import BUILDER, BUILDKIT_SOCKET, REGISTRY, REGISTRY_ADDRESS, Layout
from bootstrap.service import Service


def registry_config(layout: Layout, secret: str) -> str:
    return f"""\
version: 0.1
log: {{level: warn, accesslog: {{disabled: true}}}}
storage:
  filesystem: {{rootdirectory: {layout.registry / "data"}}}
  delete: {{enabled: true}}
http:
  addr: {REGISTRY_ADDRESS}
  secret: {secret}
  tls:
    certificate: {layout.pki / "registry.crt"}
    key: {layout.pki / "registry.key"}
"""


def _secret(layout: Layout) -> str:
    """Signs upload sessions; kept, so that a restart does not break one under way."""
    path = layout.registry / "secret"
    if not path.exists():
        write_private(path, secrets.token_hex(32))
    return path.read_text()


def registry(layout: Layout) -> Service:
    config = layout.config / "registry.yaml"
    return Service(
        name="registry",
        argv=("/usr/bin/docker-registry", "serve", str(config)),
        url=f"https://{REGISTRY_ADDRESS}/v2/",
        authority=layout.registry_authority.stem,
        files={config: registry_config(layout, _secret(layout))},
    )


def buildkit_config(layout: Layout) -> str:
    """Build steps use the machine's network: what the machine can fetch, a build can."""
    return f"""\
root = "{layout.buildkit}"
[grpc]
  address = ["unix://{BUILDKIT_SOCKET}"]
[worker.oci]
  enabled = true
  networkMode = "host"
  defaultCgroupParent = "{CGROUP}"
  max-parallelism = 4
  gc = true
  reservedSpace = "2GB"
  maxUsedSpace = "20GB"
[worker.containerd]
  enabled = false
[registry."{REGISTRY}"]
  http = false
  ca = ["{layout.registry_authority}"]
"""


def buildkit(layout: Layout) -> Service:
    config = layout.config / "buildkitd.toml"
    return Service(
        name="buildkitd",
        argv=(str(layout.bin / "buildkitd"), "--config", str(config)),
        socket=BUILDKIT_SOCKET,
        files={config: buildkit_config(layout)},
        env={"OTEL_SDK_DISABLED": "true"},
    )


def write_builder(layout: Layout) -> None:
    """Makes buildkitd known to pulumi-docker-build as builder `mlhub` (buildx's own format)."""
    node = {
        "Name": f"{BUILDER}0",
        "Endpoint": f"unix://{BUILDKIT_SOCKET}",
        "Platforms": None,
        "DriverOpts": None,
        "Flags": None,
        "Files": None,
    }
    instance = {"Name": BUILDER, "Driver": "remote", "Nodes": [node], "Dynamic": False}
    write_private(layout.data / "buildx" / "instances" / BUILDER, json.dumps(instance))
