"""Who may talk to whom in the foundation, and with MLflow.

Policies name pods and their ports, never Services. The hub's chart brings those of the hub, the
proxy and the user pods.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
import pulumi_kubernetes as k8s

from components import names, seaweedfs
from components.config import FoundationSeaweedFS

HUB_PODS = {"app": "jupyterhub", "component": "hub"}
"""How both charts label the hub's pod."""

PROXY_PODS = {"app": "jupyterhub", "component": "proxy"}
"""How both charts label the proxy's pod."""


SEAWEEDFS_CSI_PODS = {"app": names.SEAWEEDFS_CSI}
"""How bootstrap labels the driver's pods, which are in a namespace of its name."""


def pods(
    labels: Mapping[str, str], namespace: pulumi.Input[str] | None = None
) -> k8s.networking.v1.NetworkPolicyPeerArgsDict:
    """Pods by their labels, of the policy's own namespace or of another."""
    peer: k8s.networking.v1.NetworkPolicyPeerArgsDict = {
        "pod_selector": {"match_labels": dict(labels)}
    }
    if namespace is not None:
        peer["namespace_selector"] = {"match_labels": {"kubernetes.io/metadata.name": namespace}}
    return peer


def tcp(port: int) -> k8s.networking.v1.NetworkPolicyPortArgsDict:
    return {"port": port, "protocol": "TCP"}


def dns() -> k8s.networking.v1.NetworkPolicyEgressRuleArgsDict:
    """To any resolver: in some clusters it is a pod, in others an address of the node."""
    return {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]}


def to_service(
    url: str, cidrs: Sequence[str], ports: Sequence[int] = ()
) -> k8s.networking.v1.NetworkPolicyEgressRuleArgsDict:
    """To a service that is there already: by its namespace where its address is the cluster's, for
    Cilium matches no address range with pods, and by its own addresses where they are given.

    `ports` are its pods', of which a Service may have others; without any, the address's own.
    """
    peers: list[k8s.networking.v1.NetworkPolicyPeerArgsDict] = [
        {"ip_block": {"cidr": cidr}} for cidr in cidrs
    ]
    if (space := names.namespace_of(url)) is not None:
        labels = {"kubernetes.io/metadata.name": space}
        peers.insert(0, {"namespace_selector": {"match_labels": labels}})
    if not peers:
        raise ValueError(f"{url} is outside the cluster and none of its addresses are given")
    return {"to": peers, "ports": [tcp(port) for port in ports or [names.port_of(url)]]}


@dataclass(frozen=True)
class MlflowNetwork:
    namespace: pulumi.Input[str]
    s3_endpoint: str
    s3_cidrs: Sequence[str]
    """Empty for an endpoint in the cluster."""
    s3_ports: Sequence[int]
    """Empty for those of the endpoint."""


@dataclass(frozen=True)
class NetworkArgs:
    hub_namespace: pulumi.Input[str]
    foundation_namespace: pulumi.Input[str]
    keycloak: bool
    """Whether it is in the foundation."""
    mlflow: MlflowNetwork | None = None
    seaweedfs: FoundationSeaweedFS | None = None
    """None where it is elsewhere."""


class Network(pulumi.ComponentResource):
    """The policies of Postgres, of Keycloak where it is ours, and of MLflow."""

    def __init__(self, name: str, args: NetworkArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("mlhub:network:Network", name, {}, opts)
        self._child = pulumi.ResourceOptions(parent=self)

        keycloak, postgres = names.selector(names.KEYCLOAK), names.selector(names.POSTGRES)
        clients = [pods(keycloak), pods(HUB_PODS, args.hub_namespace)]
        if args.mlflow is not None:
            clients.append(pods(names.selector(names.MLFLOW), args.mlflow.namespace))
        self._policy(
            names.POSTGRES,
            args.foundation_namespace,
            {
                "pod_selector": {"match_labels": postgres},
                "policy_types": ["Ingress", "Egress"],
                "ingress": [
                    {
                        "from_": clients,
                        "ports": [tcp(names.POSTGRES_PORT)],
                    }
                ],
            },
        )
        if args.keycloak:
            self._keycloak(args.foundation_namespace, keycloak, postgres)
        if args.mlflow is not None:
            self._mlflow(args, args.mlflow)
        if args.seaweedfs is not None:
            self._seaweedfs(args, keeps_state=args.seaweedfs.state is not None)
        self.register_outputs({})

    def _keycloak(
        self,
        namespace: pulumi.Input[str],
        keycloak: Mapping[str, str],
        postgres: Mapping[str, str],
    ) -> None:
        self._policy(
            names.KEYCLOAK,
            namespace,
            {
                "pod_selector": {"match_labels": keycloak},
                "policy_types": ["Ingress", "Egress"],
                # From anywhere: browsers come by the node's port.
                "ingress": [{"ports": [tcp(names.KEYCLOAK_PORT)]}],
                "egress": [
                    {"to": [pods(postgres)], "ports": [tcp(names.POSTGRES_PORT)]},
                    dns(),
                ],
            },
        )

    def _mlflow(self, args: NetworkArgs, mlflow: MlflowNetwork) -> None:
        postgres = pods(names.selector(names.POSTGRES), args.foundation_namespace)
        self._policy(
            names.MLFLOW,
            mlflow.namespace,
            {
                "pod_selector": {"match_labels": names.selector(names.MLFLOW)},
                "policy_types": ["Ingress", "Egress"],
                # Servers, jobs and the proxy; who they are is for their tokens to say.
                "ingress": [
                    {"from_": [pods({}, args.hub_namespace)], "ports": [tcp(names.MLFLOW_PORT)]}
                ],
                "egress": [
                    {"to": [postgres], "ports": [tcp(names.POSTGRES_PORT)]},
                    {"to": [pods(HUB_PODS, args.hub_namespace)], "ports": [tcp(names.HUB_PORT)]},
                    to_service(mlflow.s3_endpoint, mlflow.s3_cidrs, mlflow.s3_ports),
                    dns(),
                ],
            },
        )

        self._policy(
            f"proxy-to-{names.MLFLOW}",
            args.hub_namespace,
            {
                "pod_selector": {"match_labels": PROXY_PODS},
                "policy_types": ["Egress"],
                "egress": [
                    {
                        "to": [pods(names.selector(names.MLFLOW), mlflow.namespace)],
                        "ports": [tcp(names.MLFLOW_PORT)],
                    }
                ],
            },
        )

    def _seaweedfs(self, args: NetworkArgs, *, keeps_state: bool) -> None:
        driver = pods(SEAWEEDFS_CSI_PODS, names.SEAWEEDFS_CSI)
        ingress: list[k8s.networking.v1.NetworkPolicyIngressRuleArgsDict] = [
            {"from_": [driver], "ports": [tcp(port) for port in seaweedfs.mount_ports()]}
        ]
        if args.mlflow is not None:
            client = pods(names.selector(names.MLFLOW), args.mlflow.namespace)
            ingress.append({"from_": [client], "ports": [tcp(names.SEAWEEDFS_S3_PORT)]})
        if keeps_state:
            # From anywhere: who runs Pulumi comes by the node's port. The gateway asks for keys.
            ingress.append({"ports": [tcp(names.SEAWEEDFS_S3_PORT)]})
        self._policy(
            names.SEAWEEDFS,
            args.foundation_namespace,
            {
                "pod_selector": {"match_labels": names.selector(names.SEAWEEDFS)},
                "policy_types": ["Ingress", "Egress"],
                "ingress": ingress,
                # Its parts are in one pod, and look each other up.
                "egress": [dns()],
            },
        )

    def _policy(
        self,
        name: str,
        namespace: pulumi.Input[str],
        spec: k8s.networking.v1.NetworkPolicySpecArgsDict,
    ) -> None:
        k8s.networking.v1.NetworkPolicy(
            name,
            metadata={"name": name, "namespace": namespace, "labels": names.labels(name)},
            spec=spec,
            opts=self._child,
        )
