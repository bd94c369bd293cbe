"""The values of the hub's Release, in the vocabulary of Zero to JupyterHub.

One pure function, because the same values go to two charts: the official one and
`charts/jupyterhub-lite`. Everything is literal but the images' digests, and no secret is here: the
charts read them from Secrets with fixed names.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pulumi

from components import names
from components.config import Hub, StackFile
from components.mlflow_server import tracking_uri
from components.profiles import hub_settings, profile_list
from components.volume_specs import fuse_mounts, home_access_mode, user_volumes

ACTIVITY_SECONDS = 60
"""How often a server tells the hub that it is in use; well below any idle time-out."""

REFRESH_SECONDS = 300
"""How long a group membership counts before Keycloak is asked again."""

NGINX = {
    f"nginx.ingress.kubernetes.io/proxy-{key}": value
    for key, value in [("body-size", "1024m"), ("read-timeout", "600"), ("send-timeout", "600")]
}
"""What ingress-nginx would otherwise cut off; other controllers pass over it."""

READ_ONLY = {"readOnlyRootFilesystem": True}
"""Of hub and proxy. The official chart says nothing of it; ours says the same."""

HUB_TMP = "tmp"

DNS_ONLY = {
    "cloudMetadataServer": False,
    "dnsPortsCloudMetadataServer": True,
    "dnsPortsKubeSystemNamespace": True,
    "dnsPortsPrivateIPs": True,
    "nonPrivateIPs": False,
    "privateIPs": False,
}
"""Of the chart's own rules only those to a resolver: a pod of kube-system, a private address, or
the metadata address, where Cloud DNS of GKE has port 53 (the credentials have others)."""

PRIVATE = (
    "10.0.0.0/8",
    "100.64.0.0/10",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "240.0.0.0/4",
)
"""What no address of the internet is in, and pods, nodes and agents of clusters are: RFC 1918, the
node's own links, and where EKS and GKE have pods for want of those (RFC 6598, RFC 2544, class E).
"""

INTERNET = {"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": [*PRIVATE]}}]}
"""What the chart's `nonPrivateIPs` means to be: that one leaves out RFC 1918 and one address of the
node's links. IPv6 is closed in both."""

NODE_DNS = {
    "to": [{"ipBlock": {"cidr": "169.254.20.10/32"}}],
    "ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}],
}
"""NodeLocal DNSCache, for which the chart has no rule: pods ask this address where kube-proxy is in
IPVS mode (Kubernetes, "Using NodeLocal DNSCache")."""


@dataclass(frozen=True)
class BuiltImage:
    """An image in the registry: its repository, and `tag@sha256:…`."""

    repository: str
    tag: pulumi.Input[str]

    @property
    def reference(self) -> pulumi.Output[str]:
        return pulumi.Output.concat(self.repository, ":", self.tag)

    def values(self) -> dict[str, Any]:
        """The charts join the two with a colon."""
        return {"name": self.repository, "tag": self.tag}


def hub_values(stack: StackFile, images: Mapping[str, BuiltImage]) -> dict[str, Any]:
    """Values for the Release; `images` by name: hub, proxy and those of the profiles."""
    return {
        "custom": {"mlhub": {"identity": identity_settings(stack), **hub_settings(stack)}},
        "imagePullSecrets": pull_secrets(stack),
        "ingress": ingress(stack),
        "hub": {
            "image": images["hub"].values(),
            "existingSecret": names.HUB_SECRET,
            "db": {
                "type": "postgres",
                "url": names.database_url(names.HUB_DATABASE, stack.foundation.namespace),
                "upgrade": True,
            },
            "config": {"JupyterHub": {"authenticator_class": "mlhub.hub.KeycloakAuthenticator"}},
            "extraConfig": {"mlhub": "from mlhub.hub import configure\nconfigure(c)\n"},
            "extraEnv": oauth_environment(oidc_secret(stack)),
            "resources": resources(cpu=("100m", "1"), memory=("256Mi", "1Gi")),
            "containerSecurityContext": READ_ONLY,
            "extraVolumes": [{"name": HUB_TMP, "emptyDir": {"sizeLimit": "1Gi"}}],
            "extraVolumeMounts": [{"name": HUB_TMP, "mountPath": names.TMP_MOUNTS[0]}],
            "networkPolicy": {
                "enabled": True,
                "ingress": hub_ingress(stack),
                "egress": hub_egress(stack),
                "egressAllowRules": DNS_ONLY,
            },
        },
        "proxy": {
            "service": proxy_service(stack.hub),
            "https": {"enabled": False},
            "chp": {
                "image": images["proxy"].values(),
                "resources": resources(cpu=("20m", "500m"), memory=("64Mi", "256Mi")),
                "containerSecurityContext": READ_ONLY,
                "networkPolicy": {
                    "enabled": True,
                    "egress": [NODE_DNS],
                    "egressAllowRules": DNS_ONLY,
                },
            },
        },
        "singleuser": singleuser(stack, images),
        "cull": {
            "enabled": True,
            "timeout": stack.hub.idle_timeout,
            "every": stack.hub.idle_check,
        },
        # Off: each needs images and cluster-wide objects of its own, of no use on one node.
        "scheduling": {
            "userScheduler": {"enabled": False},
            "userPlaceholder": {"enabled": False},
        },
        "prePuller": {"hook": {"enabled": False}, "continuous": {"enabled": False}},
    }


def identity_settings(stack: StackFile) -> dict[str, Any]:
    """`custom.mlhub.identity`, which `mlhub.hub.settings` reads."""
    return {
        "public_url": stack.keycloak_url,
        "internal_url": internal_keycloak_url(stack),
        "realm": stack.identity.realm,
        "callback_url": names.callback_url(stack.hub_url),
        "access_groups": list(stack.identity.access_groups),
        "admin_groups": list(stack.identity.admin_groups),
        "refresh_seconds": REFRESH_SECONDS,
        "groups_claim": names.GROUPS_CLAIM,
        **({} if stack.identity.existing_secret else {"people_client": names.PEOPLE_CLIENT}),
    }


def internal_keycloak_url(stack: StackFile) -> str:
    """Keycloak as pods reach it."""
    if stack.identity.keycloak is not None:
        return stack.identity.keycloak.internal_url or stack.identity.keycloak.url
    host = names.in_cluster(names.KEYCLOAK, stack.foundation.namespace)
    return names.address(host, names.KEYCLOAK_PORT)


def pull_secrets(stack: StackFile) -> list[str]:
    """`imagePullSecrets`: the robot account of a Harbor, nothing for a plain registry."""
    return [names.PULL_SECRET] if stack.registry.harbor is not None else []


def proxy_service(hub: Hub) -> dict[str, Any]:
    """`proxy.service`: a port of the node, or only what an ingress reaches."""
    if hub.ingress is not None:
        return {"type": "ClusterIP"}
    return {"type": "NodePort", "nodePorts": {"http": hub.node_port}}


def ingress(stack: StackFile) -> dict[str, Any]:
    """`ingress`, with TLS; uploads of 1 GiB and ten quiet minutes of a websocket pass."""
    given = stack.hub.ingress
    if given is None:
        return {"enabled": False}
    host = str(urlsplit(stack.hub_url).hostname)
    return {
        "enabled": True,
        "ingressClassName": given.class_name,
        "hosts": [host],
        "tls": [{"hosts": [host], "secretName": given.tls_secret}],
        "annotations": {**NGINX, **given.annotations},
    }


def singleuser(stack: StackFile, images: Mapping[str, BuiltImage]) -> dict[str, Any]:
    """What every user pod has; the default profile again, for what starts without the form."""
    default = stack.default_profile
    return {
        "image": images[default.image].values(),
        "cmd": "jupyterhub-singleuser",
        "defaultUrl": "/lab",
        "startTimeout": stack.hub.start_timeout,
        "cpu": default.cpu.model_dump(),
        "memory": default.memory.model_dump(),
        "uid": 1000,
        "fsGid": 100,
        "allowPrivilegeEscalation": False,
        "extraEnv": user_environment(stack),
        "storage": {
            "type": "dynamic",
            "capacity": stack.storage.home,
            "homeMountPath": "/home/jovyan",
            "dynamic": {
                "storageClass": names.home_class(stack.hub.namespace),
                "pvcNameTemplate": "claim-{username}",
                "volumeNameTemplate": "home",
                "storageAccessModes": [home_access_mode(stack.storage)],
            },
            **user_volumes(stack.storage.volumes, stack.storage.scratch, stack.storage.tmp),
        },
        # The privileged container that this would add is what Pod Security refuses; the network
        # policy keeps the metadata address away from pods instead.
        "cloudMetadata": {"blockWithIptables": False, "ip": "169.254.169.254"},
        "networkPolicy": {
            "enabled": True,
            "egress": user_egress(stack),
            "egressAllowRules": DNS_ONLY,
        },
        "profileList": profile_list(
            stack.profiles, {name: image.reference for name, image in images.items()}
        ),
    }


def oidc_secret(stack: StackFile) -> str:
    return stack.identity.existing_secret or names.OIDC_SECRET


def oauth_environment(secret: str) -> dict[str, Any]:
    """OAuthenticator reads its client from these variables."""
    return {
        f"OAUTH_{key.upper()}": {"valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}
        for key in ("client_id", "client_secret")
    }


def hub_egress(stack: StackFile) -> list[dict[str, Any]]:
    """What the hub talks to beyond its chart's own parts. Pod ports, not Service ports."""
    space = stack.foundation.namespace
    if stack.identity.keycloak is None:
        keycloak = to_pods(space, names.KEYCLOAK, names.KEYCLOAK_PORT)
    else:
        url = internal_keycloak_url(stack)
        keycloak = to_service(url, stack.network.keycloak, stack.network.keycloak_ports)
    postgres = to_pods(space, names.POSTGRES, names.POSTGRES_PORT)
    network = stack.network
    kubernetes = to_addresses(network.kubernetes_api, network.kubernetes_api_ports)
    return [keycloak, postgres, kubernetes, NODE_DNS]


def hub_ingress(stack: StackFile) -> list[dict[str, Any]]:
    """Who asks the Hub from other namespaces: MLflow, whose token a request bears."""
    if stack.mlflow is None:
        return []
    peers = to_pods(stack.mlflow.namespace, names.MLFLOW, names.HUB_PORT)
    return [{"from": peers["to"], "ports": peers["ports"]}]


def user_egress(stack: StackFile) -> list[dict[str, Any]]:
    """What servers talk to beyond the hub."""
    mirrors = [to_addresses(one.addresses, one.ports) for one in stack.network.mirrors]
    if stack.mlflow is None:
        return [INTERNET, NODE_DNS, *mirrors]
    mlflow = to_pods(stack.mlflow.namespace, names.MLFLOW, names.MLFLOW_PORT)
    return [mlflow, INTERNET, NODE_DNS, *mirrors]


def user_environment(stack: StackFile) -> dict[str, str]:
    """Variables of every server. An MLflow that is down costs a cell seconds, not minutes."""
    environment = {
        "JUPYTERHUB_ACTIVITY_INTERVAL": str(ACTIVITY_SECONDS),
        "MLHUB_URL": stack.hub_url,
    }
    if stack.network.pip_index is not None:
        environment["PIP_INDEX_URL"] = stack.network.pip_index
    if fuse := fuse_mounts(stack.storage):
        environment["MLHUB_FUSE"] = " ".join(fuse)
    if stack.mlflow is not None:
        environment |= {
            "MLFLOW_TRACKING_URI": tracking_uri(stack.mlflow.namespace),
            "MLHUB_MLFLOW_URL": f"{stack.hub_url}{names.MLFLOW_PATH}",
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
            "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
            # By signed addresses of S3, to which servers have no way.
            "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "false",
            "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "false",
        }
    return environment


def to_pods(namespace: str, component: str, port: int) -> dict[str, Any]:
    """An egress rule to a component's pods."""
    return {
        "to": [
            {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                "podSelector": {"matchLabels": names.selector(component)},
            }
        ],
        "ports": [{"port": port, "protocol": "TCP"}],
    }


def to_addresses(cidrs: Sequence[str], ports: Sequence[int]) -> dict[str, Any]:
    """An egress rule to address ranges."""
    return {
        "to": [{"ipBlock": {"cidr": cidr}} for cidr in cidrs],
        "ports": [{"port": port, "protocol": "TCP"} for port in sorted(set(ports))],
    }


def to_service(url: str, cidrs: Sequence[str], ports: Sequence[int]) -> dict[str, Any]:
    """An egress rule as `components.network.to_service` has it, in a chart's spelling."""
    space = names.namespace_of(url)
    rule = to_addresses(cidrs, ports or [names.port_of(url)])
    if space is not None:
        labels = {"kubernetes.io/metadata.name": space}
        rule["to"].insert(0, {"namespaceSelector": {"matchLabels": labels}})
    return rule


def resources(cpu: tuple[str, str], memory: tuple[str, str]) -> dict[str, dict[str, str]]:
    """Requests and limits, each pair in that order."""
    return {
        "requests": {"cpu": cpu[0], "memory": memory[0]},
        "limits": {"cpu": cpu[1], "memory": memory[1]},
    }
