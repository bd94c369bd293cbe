"""The workspaces' API: it changes Keycloak's groups and makes volumes, and does nothing else.

It runs beside the hub and is reached through the hub's proxy alone. In Kubernetes it may make, see
and delete claims of the hub's namespace; it deletes one only at the end of its workspace's grace,
and the class retains the volume. In Keycloak it may manage people and groups: there is no smaller
role of `realm-management` that lets anybody into a group.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_kubernetes as k8s

from components import names
from components.hub_service import HubService, Shape
from components.secrets import hex_key, password
from components.service_clients import grant, service_client

RULES: list[k8s.rbac.v1.PolicyRuleArgsDict] = [
    {
        "api_groups": [""],
        "resources": ["persistentvolumeclaims"],
        "verbs": ["create", "get", "delete"],
    },
]


SHAPE = Shape(
    name=names.WORKSPACES,
    port=names.WORKSPACES_PORT,
    secret=names.WORKSPACES_SECRET,
    variables={
        "JUPYTERHUB_API_TOKEN": "hub-token",
        "KEYCLOAK_CLIENT_SECRET": "client-secret",
        "PGPASSWORD": "database-password",
    },
    settings_variable="MLHUB_WORKSPACES_SETTINGS",
    settings_file="workspaces.json",
    rules=RULES,
    resources={
        "requests": {"cpu": "20m", "memory": "96Mi"},
        "limits": {"cpu": "500m", "memory": "256Mi"},
    },
    ready_seconds=10,
    alive_seconds=20,
    command=("python3", "-sP", "-m", "mlhub.workspaces"),
)
"""The image of the execution API with another command: both are the package `mlhub`."""


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
    kubernetes_api: k8s.networking.v1.NetworkPolicyEgressRuleArgsDict
    """The way to the API server behind its Service."""
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
        child = pulumi.ResourceOptions(parent=self)
        service = HubService(SHAPE, args.namespace, child)

        client_secret = password("workspaces-keycloak-client", child)
        client = service_client(
            names.WORKSPACES_CLIENT, args.realm_id, client_secret, child, all_roles=True
        )
        grant(f"{names.WORKSPACES}-manages-groups", client, "manage-users", child)
        self.hub_token = hex_key("workspaces-hub-token", child)
        service.deploy(
            image=args.image,
            pull_secrets=args.pull_secrets,
            words={
                "hub-token": self.hub_token,
                "client-secret": client_secret,
                "database-password": pulumi.Output.from_input(args.database_password),
            },
            settings=args.settings,
            policies=service.policies(
                foundation_namespace=args.foundation_namespace,
                kubernetes_api=args.kubernetes_api,
                more_egress=[args.keycloak],
            ),
        )
        self.register_outputs({"hub_token": self.hub_token})
