"""The workspaces' API: it changes Keycloak's groups and makes volumes, and does nothing else.

It runs beside the hub and is reached through the hub's proxy alone. In Kubernetes it may make, see
and delete claims of the hub's namespace; it deletes one only at the end of its workspace's grace,
and the class retains the volume. In Keycloak it may manage people and groups: there is no smaller
role of `realm-management` that lets anybody into a group.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_kubernetes as k8s

from components import names
from components.execution import HUB_ACCESS, SETTINGS_FOLDER
from components.network import HUB_PODS, PROXY_PODS, dns, pods, tcp
from components.pods import container_security, from_secret, pod_security
from components.secrets import fingerprint, hex_key, password, secret
from components.service_clients import grant, service_client

SETTINGS_FILE = "workspaces.json"

SECRET_VARIABLES = {
    "JUPYTERHUB_API_TOKEN": "hub-token",
    "KEYCLOAK_CLIENT_SECRET": "client-secret",
    "PGPASSWORD": "database-password",
}
"""Each with its key in the service's Secret."""

RULES: list[k8s.rbac.v1.PolicyRuleArgsDict] = [
    {
        "api_groups": [""],
        "resources": ["persistentvolumeclaims"],
        "verbs": ["create", "get", "delete"],
    },
]


def service_pod(
    image: pulumi.Input[str], pull_secrets: Sequence[str] = ()
) -> k8s.core.v1.PodSpecArgsDict:
    """The image of the execution API with another command: both are the package `mlhub`."""
    probe: k8s.core.v1.ProbeArgsDict = {
        "http_get": {"path": "/health", "port": names.WORKSPACES_PORT},
        "timeout_seconds": 5,
    }
    return {
        "service_account_name": names.WORKSPACES,
        "automount_service_account_token": True,
        "enable_service_links": False,
        "image_pull_secrets": [{"name": name} for name in pull_secrets],
        "security_context": pod_security(),
        "termination_grace_period_seconds": 30,
        "containers": [
            {
                "name": names.WORKSPACES,
                "image": image,
                "command": ["python3", "-sP", "-m", "mlhub.workspaces"],
                "env": [
                    *(
                        from_secret(variable, names.WORKSPACES_SECRET, key)
                        for variable, key in SECRET_VARIABLES.items()
                    ),
                    {
                        "name": "MLHUB_WORKSPACES_SETTINGS",
                        "value": f"{SETTINGS_FOLDER}/{SETTINGS_FILE}",
                    },
                ],
                "ports": [{"name": "http", "container_port": names.WORKSPACES_PORT}],
                # The first start waits for the database, which may be starting, too.
                "startup_probe": {**probe, "period_seconds": 2, "failure_threshold": 150},
                "readiness_probe": {**probe, "period_seconds": 10},
                "liveness_probe": {**probe, "period_seconds": 20, "failure_threshold": 6},
                "resources": {
                    "requests": {"cpu": "20m", "memory": "96Mi"},
                    "limits": {"cpu": "500m", "memory": "256Mi"},
                },
                "security_context": container_security(),
                "volume_mounts": [
                    {"name": "settings", "mount_path": SETTINGS_FOLDER, "read_only": True},
                    {"name": "tmp", "mount_path": "/tmp"},  # noqa: S108
                ],
            }
        ],
        "volumes": [
            {"name": "settings", "config_map": {"name": names.WORKSPACES}},
            {"name": "tmp", "empty_dir": {}},
        ],
    }


@dataclass(frozen=True)
class WorkspaceServiceArgs:
    realm_id: pulumi.Input[str]
    namespace: pulumi.Input[str]
    """The hub's."""
    foundation_namespace: pulumi.Input[str]
    settings: dict[str, Any]
    """`components.workspace_server.settings`."""
    image: pulumi.Input[str]
    pull_secrets: Sequence[str]
    database_password: pulumi.Input[str]
    kubernetes_api: Sequence[str]
    """Address ranges of the API server behind its Service."""
    keycloak: k8s.networking.v1.NetworkPolicyEgressRuleArgsDict
    """The way to Keycloak: to our own one's pods, or to addresses."""


class WorkspaceService(pulumi.ComponentResource):
    """The service, its rights in Keycloak and Kubernetes, and who may talk to it."""

    hub_token: pulumi.Output[str]
    """The service's token of the Hub's; the hub reads it from its own Secret."""

    def __init__(
        self, name: str, args: WorkspaceServiceArgs, opts: pulumi.ResourceOptions | None = None
    ):
        super().__init__("mlhub:service:WorkspaceService", name, {}, opts)
        self._child = pulumi.ResourceOptions(parent=self)
        self._namespace = args.namespace

        client_secret = password("workspaces-keycloak-client", self._child)
        client = service_client(
            names.WORKSPACES_CLIENT, args.realm_id, client_secret, self._child, all_roles=True
        )
        grant(f"{names.WORKSPACES}-manages-groups", client, "manage-users", self._child)
        self.hub_token = hex_key("workspaces-hub-token", self._child)
        words = {
            "hub-token": self.hub_token,
            "client-secret": client_secret,
            "database-password": pulumi.Output.from_input(args.database_password),
        }
        credentials = secret(
            names.WORKSPACES_SECRET, namespace=args.namespace, data=words, opts=self._child
        )
        settings = pulumi.Output.json_dumps(args.settings, indent=1, sort_keys=True)
        config = k8s.core.v1.ConfigMap(
            names.WORKSPACES,
            metadata=self._metadata(),
            data={SETTINGS_FILE: settings},
            opts=self._child,
        )
        k8s.core.v1.Service(
            names.WORKSPACES,
            metadata=self._metadata(),
            spec={
                "selector": names.selector(names.WORKSPACES),
                "ports": [{"name": "http", "port": names.WORKSPACES_PORT}],
            },
            opts=self._child,
        )
        marks: dict[str, pulumi.Input[str]] = {
            "mlhub/settings": settings.apply(
                lambda text: hashlib.sha256(text.encode()).hexdigest()
            ),
            names.FINGERPRINT: fingerprint(*words.values()),
        }
        needed = [credentials, config, *self._account(), *self._policies(args)]
        k8s.apps.v1.Deployment(
            names.WORKSPACES,
            metadata=self._metadata(),
            spec={
                "replicas": 1,
                "selector": {"match_labels": names.selector(names.WORKSPACES)},
                "template": {
                    "metadata": {
                        "labels": {**names.labels(names.WORKSPACES), **HUB_ACCESS},
                        "annotations": marks,
                    },
                    "spec": service_pod(args.image, args.pull_secrets),
                },
            },
            opts=pulumi.ResourceOptions(parent=self, depends_on=needed),
        )
        self.register_outputs({"hub_token": self.hub_token})

    def _metadata(
        self, name: str = names.WORKSPACES, namespace: pulumi.Input[str] | None = None
    ) -> k8s.meta.v1.ObjectMetaArgsDict:
        return {
            "name": name,
            "namespace": self._namespace if namespace is None else namespace,
            "labels": names.labels(names.WORKSPACES),
        }

    def _account(self) -> list[pulumi.Resource]:
        """The service's account; its rights end with the namespace."""
        account = k8s.core.v1.ServiceAccount(
            names.WORKSPACES,
            metadata=self._metadata(),
            automount_service_account_token=False,
            opts=self._child,
        )
        role = k8s.rbac.v1.Role(
            names.WORKSPACES, metadata=self._metadata(), rules=RULES, opts=self._child
        )
        binding = k8s.rbac.v1.RoleBinding(
            names.WORKSPACES,
            metadata=self._metadata(),
            subjects=[
                {"kind": "ServiceAccount", "name": names.WORKSPACES, "namespace": self._namespace}
            ],
            role_ref={
                "api_group": "rbac.authorization.k8s.io",
                "kind": "Role",
                "name": names.WORKSPACES,
            },
            opts=self._child,
        )
        return [account, role, binding]

    def _policies(self, args: WorkspaceServiceArgs) -> list[pulumi.Resource]:
        """The service's own way in and out, and what it needs of the proxy, the hub, Postgres."""
        service, postgres = names.selector(names.WORKSPACES), names.selector(names.POSTGRES)
        from_proxy: k8s.networking.v1.NetworkPolicyIngressRuleArgsDict = {
            "from_": [pods(PROXY_PODS)],
            "ports": [tcp(names.WORKSPACES_PORT)],
        }
        return [
            self._policy(
                names.WORKSPACES,
                args.namespace,
                {
                    "pod_selector": {"match_labels": service},
                    "policy_types": ["Ingress", "Egress"],
                    "ingress": [from_proxy],
                    "egress": [
                        {"to": [pods(HUB_PODS)], "ports": [tcp(names.HUB_PORT)]},
                        {
                            "to": [pods(postgres, args.foundation_namespace)],
                            "ports": [tcp(names.POSTGRES_PORT)],
                        },
                        {
                            "to": [{"ip_block": {"cidr": cidr}} for cidr in args.kubernetes_api],
                            "ports": [tcp(443), tcp(6443)],
                        },
                        args.keycloak,
                        dns(),
                    ],
                },
            ),
            self._policy(
                f"proxy-to-{names.WORKSPACES}",
                args.namespace,
                {
                    "pod_selector": {"match_labels": PROXY_PODS},
                    "policy_types": ["Egress"],
                    "egress": [{"to": [pods(service)], "ports": [tcp(names.WORKSPACES_PORT)]}],
                },
            ),
            self._policy(
                f"{names.WORKSPACES}-to-{names.POSTGRES}",
                args.foundation_namespace,
                {
                    "pod_selector": {"match_labels": postgres},
                    "policy_types": ["Ingress"],
                    "ingress": [
                        {
                            "from_": [pods(service, args.namespace)],
                            "ports": [tcp(names.POSTGRES_PORT)],
                        }
                    ],
                },
            ),
        ]

    def _policy(
        self,
        name: str,
        namespace: pulumi.Input[str],
        spec: k8s.networking.v1.NetworkPolicySpecArgsDict,
    ) -> pulumi.Resource:
        return k8s.networking.v1.NetworkPolicy(
            name, metadata=self._metadata(name, namespace), spec=spec, opts=self._child
        )
