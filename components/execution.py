"""The notebook execution API: a service that makes Jobs in the hub's namespace, and nothing else.

It runs beside the hub and is reached through the hub's proxy, and by the pods that its schedules
call it from. What it may do in Kubernetes is to make, see and end Jobs and CronJobs, to see their
pods and logs, and whether somebody has a home. It gives each a Secret of its own and reads none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_kubernetes as k8s

from components import names
from components.hub_service import EgressRule, HubService, Shape
from components.network import dns, pods, tcp
from components.secrets import hex_key

TRIGGER_PODS = names.selector(names.EXECUTION_TRIGGER)
"""How the service labels the pods of its schedules (`mlhub.execution.cronjobs`)."""

RULES: list[k8s.rbac.v1.PolicyRuleArgsDict] = [
    {
        "api_groups": ["batch"],
        "resources": ["jobs", "cronjobs"],
        "verbs": ["create", "get", "list", "patch", "delete"],
    },
    {"api_groups": [""], "resources": ["secrets"], "verbs": ["create"]},
    {"api_groups": [""], "resources": ["pods"], "verbs": ["list"]},
    {"api_groups": [""], "resources": ["pods/log"], "verbs": ["get"]},
    {"api_groups": [""], "resources": ["persistentvolumeclaims"], "verbs": ["get"]},
]


SHAPE = Shape(
    name=names.EXECUTION,
    port=names.EXECUTION_PORT,
    secret=names.EXECUTION_SECRET,
    variables={
        "JUPYTERHUB_API_TOKEN": "hub-token",
        "PGPASSWORD": "database-password",
        "KEYCLOAK_CLIENT_SECRET": "keycloak-secret",
    },
    settings_variable="MLHUB_EXECUTION_SETTINGS",
    settings_file="execution.json",
    rules=RULES,
    resources={
        "requests": {"cpu": "50m", "memory": "128Mi"},
        "limits": {"cpu": "1", "memory": "512Mi"},
    },
    ready_seconds=5,
    alive_seconds=15,
)


@dataclass(frozen=True)
class ExecutionArgs:
    namespace: pulumi.Input[str]
    """The hub's."""
    foundation_namespace: pulumi.Input[str]
    settings: dict[str, Any]
    """`components.execution_server.settings`; the images in it may be outputs."""
    image: pulumi.Input[str]
    pull_secrets: Sequence[str]
    database_password: pulumi.Input[str]
    keycloak_secret: pulumi.Input[str]
    """Of the service's own client in the realm."""
    kubernetes_api: k8s.networking.v1.NetworkPolicyEgressRuleArgsDict
    """The way to the API server behind its Service."""
    keycloak: k8s.networking.v1.NetworkPolicyEgressRuleArgsDict
    """The way to the realm's keys: to our Keycloak's pods, or to addresses."""
    mlflow_namespace: pulumi.Input[str] | None
    """None for a stack without MLflow."""


class Execution(pulumi.ComponentResource):
    """The service, its rights, and who may talk to it."""

    hub_token: pulumi.Output[str]
    """The service's token of the Hub's; the hub reads it from its own Secret, under
    `hub.services.execution.apiToken`."""

    def __init__(self, name: str, args: ExecutionArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("mlhub:execution:Execution", name, {}, opts)
        child = pulumi.ResourceOptions(parent=self)
        service = HubService(SHAPE, args.namespace, child)

        self.hub_token = hex_key("execution-hub-token", child)
        trigger = {
            "image": args.image,
            "url": names.address(names.EXECUTION, names.EXECUTION_PORT) + names.EXECUTION_PATH,
        }
        service.deploy(
            image=args.image,
            pull_secrets=args.pull_secrets,
            words={
                "hub-token": self.hub_token,
                "database-password": pulumi.Output.from_input(args.database_password),
                "keycloak-secret": pulumi.Output.from_input(args.keycloak_secret),
            },
            settings=args.settings | {"trigger": trigger},
            policies=[
                *service.policies(
                    foundation_namespace=args.foundation_namespace,
                    kubernetes_api=args.kubernetes_api,
                    more_callers=[pods(TRIGGER_PODS)],
                    more_egress=[args.keycloak, *to_mlflow(args)],
                ),
                service.policy(
                    names.EXECUTION_TRIGGER,
                    {
                        "pod_selector": {"match_labels": TRIGGER_PODS},
                        "policy_types": ["Ingress", "Egress"],
                        "egress": [
                            {
                                "to": [pods(names.selector(names.EXECUTION))],
                                "ports": [tcp(names.EXECUTION_PORT)],
                            },
                            dns(),
                        ],
                    },
                ),
            ],
        )
        self.register_outputs({"hub_token": self.hub_token})


def to_mlflow(args: ExecutionArgs) -> list[EgressRule]:
    """To end the MLflow runs of runs that were killed."""
    if args.mlflow_namespace is None:
        return []
    server = pods(names.selector(names.MLFLOW), args.mlflow_namespace)
    return [{"to": [server], "ports": [tcp(names.MLFLOW_PORT)]}]
