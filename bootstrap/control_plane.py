"""The control plane of the one-node cluster: etcd, API server, controllers, scheduler.

All are the one binary `kube`, started under different names. They listen on loopback, the API
server on the node's address alone.
"""

from bootstrap.paths import (
    API_PORT,
    NODE_ADDRESS,
    POD_NETWORK,
    SERVICE_NETWORK,
    Layout,
)
from bootstrap.service import Service

ETCD = "https://127.0.0.1:2379"

UNUSED_CONTROLLERS = (
    "bootstrap-signer-controller",
    "cloud-node-lifecycle-controller",
    "device-taint-eviction-controller",
    "endpointslice-mirroring-controller",
    "horizontal-pod-autoscaler-controller",
    "node-ipam-controller",
    "node-route-controller",
    "podcertificaterequest-cleaner-controller",
    "resourceclaim-controller",
    "service-lb-controller",
    "storage-version-migrator-controller",
    "token-cleaner-controller",
)
"""Controllers of clouds, many nodes and features that are off. The rest is Kubernetes' default."""


def etcd(layout: Layout) -> Service:
    pki = layout.pki
    return Service(
        name="etcd",
        argv=(
            str(layout.bin / "etcd"),
            "--name=local",
            f"--data-dir={layout.cluster / 'etcd'}",
            f"--listen-client-urls={ETCD}",
            f"--advertise-client-urls={ETCD}",
            "--listen-peer-urls=http://127.0.0.1:2380",
            "--initial-advertise-peer-urls=http://127.0.0.1:2380",
            "--initial-cluster=local=http://127.0.0.1:2380",
            f"--cert-file={pki / 'etcd.crt'}",
            f"--key-file={pki / 'etcd.key'}",
            f"--trusted-ca-file={pki / 'etcd-ca.crt'}",
            "--client-cert-auth",
            "--quota-backend-bytes=2147483648",
            "--log-level=warn",
        ),
        url=f"{ETCD}/health",
        authority="etcd-ca",
        client="apiserver-etcd-client",
        env={"GOGC": "50"},
    )


def api_server(layout: Layout) -> Service:
    pki = layout.pki
    return Service(
        name="apiserver",
        argv=(
            str(layout.bin / "kube-apiserver"),
            f"--bind-address={NODE_ADDRESS}",
            f"--advertise-address={NODE_ADDRESS}",
            f"--secure-port={API_PORT}",
            f"--etcd-servers={ETCD}",
            f"--etcd-cafile={pki / 'etcd-ca.crt'}",
            f"--etcd-certfile={pki / 'apiserver-etcd-client.crt'}",
            f"--etcd-keyfile={pki / 'apiserver-etcd-client.key'}",
            f"--service-cluster-ip-range={SERVICE_NETWORK}",
            f"--tls-cert-file={pki / 'apiserver.crt'}",
            f"--tls-private-key-file={pki / 'apiserver.key'}",
            f"--client-ca-file={pki / 'ca.crt'}",
            f"--kubelet-certificate-authority={pki / 'ca.crt'}",
            f"--kubelet-client-certificate={pki / 'apiserver-kubelet-client.crt'}",
            f"--kubelet-client-key={pki / 'apiserver-kubelet-client.key'}",
            "--kubelet-preferred-address-types=InternalIP",
            f"--requestheader-client-ca-file={pki / 'front-proxy-ca.crt'}",
            "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            f"--proxy-client-cert-file={pki / 'front-proxy-client.crt'}",
            f"--proxy-client-key-file={pki / 'front-proxy-client.key'}",
            f"--service-account-key-file={pki / 'sa.pub'}",
            f"--service-account-signing-key-file={pki / 'sa.key'}",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--anonymous-auth=false",
            "--allow-privileged",
            "--profiling=false",
            "--max-requests-inflight=200",
            "--max-mutating-requests-inflight=100",
            "--default-watch-cache-size=50",
            "--event-ttl=2h",
        ),
        url=f"https://{NODE_ADDRESS}:{API_PORT}/readyz",
        env={"GOGC": "50"},
        seconds=120,
    )


def controller_manager(layout: Layout) -> Service:
    pki = layout.pki
    kubeconfig = layout.config / "controller-manager.kubeconfig"
    controllers = ",".join(["*", *(f"-{name}" for name in UNUSED_CONTROLLERS)])
    return Service(
        name="controller-manager",
        argv=(
            str(layout.bin / "kube-controller-manager"),
            "--bind-address=127.0.0.1",
            f"--kubeconfig={kubeconfig}",
            f"--authentication-kubeconfig={kubeconfig}",
            f"--authorization-kubeconfig={kubeconfig}",
            "--authorization-always-allow-paths=/healthz",
            "--use-service-account-credentials",
            f"--service-account-private-key-file={pki / 'sa.key'}",
            f"--root-ca-file={pki / 'ca.crt'}",
            f"--cluster-signing-cert-file={pki / 'ca.crt'}",
            f"--cluster-signing-key-file={pki / 'ca.key'}",
            f"--cluster-cidr={POD_NETWORK}",
            f"--service-cluster-ip-range={SERVICE_NETWORK}",
            f"--controllers={controllers}",
            f"--tls-cert-file={pki / 'apiserver.crt'}",
            f"--tls-private-key-file={pki / 'apiserver.key'}",
            f"--client-ca-file={pki / 'ca.crt'}",
            "--leader-elect=false",
            "--profiling=false",
        ),
        url="https://127.0.0.1:10257/healthz",
        env={"GOGC": "50"},
    )


def scheduler(layout: Layout) -> Service:
    pki = layout.pki
    kubeconfig = layout.config / "scheduler.kubeconfig"
    return Service(
        name="scheduler",
        argv=(
            str(layout.bin / "kube-scheduler"),
            "--bind-address=127.0.0.1",
            f"--kubeconfig={kubeconfig}",
            f"--authentication-kubeconfig={kubeconfig}",
            f"--authorization-kubeconfig={kubeconfig}",
            f"--tls-cert-file={pki / 'apiserver.crt'}",
            f"--tls-private-key-file={pki / 'apiserver.key'}",
            f"--client-ca-file={pki / 'ca.crt'}",
            "--leader-elect=false",
            "--profiling=false",
        ),
        url="https://127.0.0.1:10259/healthz",
        env={"GOGC": "50"},
    )
