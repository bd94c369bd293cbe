"""The node itself: containerd, kubelet, kube-proxy."""

import json
from pathlib import Path

import yaml

from bootstrap.network import POD_LINKS
from bootstrap.paths import (
    DNS_ADDRESS,
    NODE_ADDRESS,
    NODE_NAME,
    NODE_NETWORK,
    POD_NETWORK,
    REGISTRY,
    REGISTRY_ADDRESS,
    RUNTIME,
    Layout,
)
from bootstrap.service import Service

CGROUP = "mlhub"
"""Every pod is below this control group: what is ours can be told, measured and ended."""

PAUSE_IMAGE = f"{REGISTRY}/mlhub/pause:1"
CONTAINERD_SOCKET = RUNTIME / "containerd.sock"


def cni(layout: Layout) -> str:
    """Each pod has a link of its own to the machine; see bootstrap.network."""
    assert POD_LINKS == "veth+"  # noqa: S101 - the ptp plug-in's names
    plugin = {
        "type": "ptp",
        "ipMasq": False,
        "mtu": 1500,
        "ipam": {
            "type": "host-local",
            "dataDir": str(RUNTIME / "ipam"),
            "ranges": [[{"subnet": POD_NETWORK}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    return json.dumps({"cniVersion": "1.0.0", "name": "mlhub", "plugins": [plugin]}, indent=1)


def containerd_config(layout: Layout) -> str:
    """containerd 1.6's own format (Debian 12).

    restrict_oom_score_adj: without CAP_SYS_RESOURCE runc fails otherwise.
    enable_unprivileged_ports: CoreDNS binds 53 without being root.
    """
    cri = 'plugins."io.containerd.grpc.v1.cri"'
    return f"""\
version = 2
root = "{layout.cluster / "containerd"}"
state = "{RUNTIME / "containerd"}"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.internal.v1.opt", "io.containerd.internal.v1.tracing",
]
[grpc]
  address = "{CONTAINERD_SOCKET}"
[{cri}]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true
  enable_unprivileged_ports = true
  max_concurrent_downloads = 2
  [{cri}.containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [{cri}.containerd.runtimes.runc.options]
      Root = "{RUNTIME / "runc"}"
  [{cri}.cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{layout.config / "cni"}"
  [{cri}.registry.mirrors."{REGISTRY}"]
    endpoint = ["https://{REGISTRY_ADDRESS}"]
  [{cri}.registry.configs."{REGISTRY_ADDRESS}".tls]
    ca_file = "{layout.registry_authority}"
"""


def containerd(layout: Layout) -> Service:
    config = layout.config / "containerd.toml"
    return Service(
        name="containerd",
        argv=("/usr/bin/containerd", "--config", str(config), "--log-level", "warn"),
        socket=CONTAINERD_SOCKET,
        files={
            config: containerd_config(layout),
            layout.config / "cni" / "10-mlhub.conflist": cni(layout),
        },
    )


def resolver_file(etc: Path = Path("/etc"), run: Path = Path("/run")) -> Path:
    """The name servers pods inherit: a stub on the machine's loopback would not be theirs."""
    stub = etc / "resolv.conf"
    real = run / "systemd" / "resolve" / "resolv.conf"
    text = stub.read_text() if stub.exists() else ""
    return real if "127.0.0.53" in text and real.exists() else stub


def kubelet_config(layout: Layout) -> dict[str, object]:
    """Who may ask the kubelet is decided by the API server; disk is reckoned in bytes.

    The machine's disk is shared with others, so a percentage of it says nothing: at 100 the
    image collector rests, and pods are evicted only when hardly anything is left.
    """
    reserve = {"memory.available": "200Mi", "nodefs.available": "1Gi", "imagefs.available": "1Gi"}
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE_ADDRESS,
        "healthzBindAddress": "127.0.0.1",
        "readOnlyPort": 0,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(layout.pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(layout.pki / "kubelet.crt"),
        "tlsPrivateKeyFile": str(layout.pki / "kubelet.key"),
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{CGROUP}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "clusterDNS": [DNS_ADDRESS],
        "clusterDomain": "cluster.local",
        "resolvConf": str(resolver_file()),
        "podLogsDir": str(layout.log / "pods"),
        "volumePluginDir": str(layout.cluster / "volume-plugins"),
        "evictionHard": reserve,
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "containerLogMaxSize": "10Mi",
        "containerLogMaxFiles": 2,
        "serializeImagePulls": False,
        "maxParallelImagePulls": 2,
        "seccompDefault": True,
        "enableDebuggingHandlers": True,
        "nodeStatusUpdateFrequency": "10s",
    }


def kubelet(layout: Layout) -> Service:
    config = layout.config / "kubelet.yaml"
    return Service(
        name="kubelet",
        argv=(
            str(layout.bin / "kubelet"),
            f"--config={config}",
            f"--kubeconfig={layout.config / 'node.kubeconfig'}",
            f"--root-dir={layout.cluster / 'kubelet'}",
            f"--cert-dir={layout.cluster / 'kubelet' / 'pki'}",
            f"--hostname-override={NODE_NAME}",
            f"--node-ip={NODE_ADDRESS}",
        ),
        url="http://127.0.0.1:10248/healthz",
        files={config: yaml.safe_dump(kubelet_config(layout), sort_keys=False)},
        env={"GOGC": "50"},
    )


def proxy_config(layout: Layout) -> dict[str, object]:
    """NodePorts answer on this machine alone: on loopback and the node's address."""
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clientConnection": {"kubeconfig": str(layout.config / "proxy.kubeconfig")},
        "hostnameOverride": NODE_NAME,
        "bindAddress": NODE_ADDRESS,
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        "nodePortAddresses": ["127.0.0.0/8", NODE_NETWORK],
        "clusterCIDR": POD_NETWORK,
        "detectLocalMode": "ClusterCIDR",
        "conntrack": {"maxPerCore": 0, "min": 0},
        "iptables": {"localhostNodePorts": True},
    }


def proxy(layout: Layout) -> Service:
    config = layout.config / "proxy.yaml"
    return Service(
        name="proxy",
        argv=(str(layout.bin / "kube-proxy"), f"--config={config}"),
        url="http://127.0.0.1:10249/healthz",
        files={config: yaml.safe_dump(proxy_config(layout), sort_keys=False)},
        env={"GOGC": "50"},
    )
