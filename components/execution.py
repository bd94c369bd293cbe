"""The notebook execution API: a service that makes Jobs in the hub's namespace, and nothing else.

It runs beside the hub and is reached through the hub's proxy, and by the pods that its schedules
call it from. What it may do in Kubernetes is to make, see and end Jobs and CronJobs, to see their
pods and logs, and whether somebody has a home. It gives each a Secret of its own and reads none.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_kubernetes as k8s

from components import names
from components.network import HUB_PODS, PROXY_PODS, dns, pods, tcp
from components.pods import container_security, from_secret, pod_security
from components.secrets import fingerprint, hex_key, secret

SETTINGS_FILE = "execution.json"
SETTINGS_FOLDER = "/etc/mlhub"
TRIGGER_PODS = names.selector(names.EXECUTION_TRIGGER)
"""How the service labels the pods of its schedules (`mlhub.execution.cronjobs`)."""

HUB_ACCESS = {"hub.jupyter.org/network-access-hub": "true"}
"""Both charts let pods with this label reach the hub."""

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


def service_pod(
    image: pulumi.Input[str], pull_secrets: Sequence[str] = ()
) -> k8s.core.v1.PodSpecArgsDict:
    """The service's own pod; unlike any other of ours it has a token of the cluster's."""
    probe: k8s.core.v1.ProbeArgsDict = {
        "http_get": {"path": "/health", "port": names.EXECUTION_PORT},
        "timeout_seconds": 5,
    }
    return {
        "service_account_name": names.EXECUTION,
        "automount_service_account_token": True,
        "enable_service_links": False,
        "image_pull_secrets": [{"name": name} for name in pull_secrets],
        "security_context": pod_security(),
        "termination_grace_period_seconds": 30,
        "containers": [
            {
                "name": names.EXECUTION,
                "image": image,
                "env": [
                    from_secret("JUPYTERHUB_API_TOKEN", names.EXECUTION_SECRET, "hub-token"),
                    from_secret("PGPASSWORD", names.EXECUTION_SECRET, "database-password"),
                    from_secret(
                        "KEYCLOAK_CLIENT_SECRET", names.EXECUTION_SECRET, "keycloak-secret"
                    ),
                    {
                        "name": "MLHUB_EXECUTION_SETTINGS",
                        "value": f"{SETTINGS_FOLDER}/{SETTINGS_FILE}",
                    },
                ],
                "ports": [{"name": "http", "container_port": names.EXECUTION_PORT}],
                # The first start waits for the database, which may be starting, too.
                "startup_probe": {**probe, "period_seconds": 2, "failure_threshold": 150},
                "readiness_probe": {**probe, "period_seconds": 5},
                "liveness_probe": {**probe, "period_seconds": 15, "failure_threshold": 6},
                "resources": {
                    "requests": {"cpu": "50m", "memory": "128Mi"},
                    "limits": {"cpu": "1", "memory": "512Mi"},
                },
                "security_context": container_security(),
                "volume_mounts": [
                    {"name": "settings", "mount_path": SETTINGS_FOLDER, "read_only": True},
                    {"name": "tmp", "mount_path": "/tmp"},  # noqa: S108
                ],
            }
        ],
        "volumes": [
            {"name": "settings", "config_map": {"name": names.EXECUTION}},
            {"name": "tmp", "empty_dir": {}},
        ],
    }


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
    kubernetes_api: Sequence[str]
    """Address ranges of the API server behind its Service."""
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
        self._child = pulumi.ResourceOptions(parent=self)
        self._namespace = args.namespace

        self.hub_token = hex_key("execution-hub-token", self._child)
        password = pulumi.Output.from_input(args.database_password)
        keycloak_secret = pulumi.Output.from_input(args.keycloak_secret)
        credentials = secret(
            names.EXECUTION_SECRET,
            namespace=args.namespace,
            data={
                "hub-token": self.hub_token,
                "database-password": password,
                "keycloak-secret": keycloak_secret,
            },
            opts=self._child,
        )
        trigger = {
            "image": args.image,
            "url": names.address(names.EXECUTION, names.EXECUTION_PORT) + names.EXECUTION_PATH,
        }
        settings = pulumi.Output.json_dumps(
            args.settings | {"trigger": trigger}, indent=1, sort_keys=True
        )
        config = k8s.core.v1.ConfigMap(
            names.EXECUTION,
            metadata=self._metadata(),
            data={SETTINGS_FILE: settings},
            opts=self._child,
        )
        account = self._account()
        policies = self._policies(args)
        marks: dict[str, pulumi.Input[str]] = {
            "mlhub/settings": settings.apply(
                lambda text: hashlib.sha256(text.encode()).hexdigest()
            ),
            names.FINGERPRINT: fingerprint(self.hub_token, password, keycloak_secret),
        }
        k8s.core.v1.Service(
            names.EXECUTION,
            metadata=self._metadata(),
            spec={
                "selector": names.selector(names.EXECUTION),
                "ports": [{"name": "http", "port": names.EXECUTION_PORT}],
            },
            opts=self._child,
        )
        k8s.apps.v1.Deployment(
            names.EXECUTION,
            metadata=self._metadata(),
            spec={
                "replicas": 1,
                "selector": {"match_labels": names.selector(names.EXECUTION)},
                "template": {
                    "metadata": {
                        "labels": {**names.labels(names.EXECUTION), **HUB_ACCESS},
                        "annotations": marks,
                    },
                    "spec": service_pod(args.image, args.pull_secrets),
                },
            },
            opts=pulumi.ResourceOptions(
                parent=self, depends_on=[credentials, config, *account, *policies]
            ),
        )
        self.register_outputs({"hub_token": self.hub_token})

    def _metadata(
        self, name: str = names.EXECUTION, namespace: pulumi.Input[str] | None = None
    ) -> k8s.meta.v1.ObjectMetaArgsDict:
        return {
            "name": name,
            "namespace": self._namespace if namespace is None else namespace,
            "labels": names.labels(names.EXECUTION),
        }

    def _account(self) -> list[pulumi.Resource]:
        """The service's account; its rights end with the namespace."""
        account = k8s.core.v1.ServiceAccount(
            names.EXECUTION,
            metadata=self._metadata(),
            automount_service_account_token=False,
            opts=self._child,
        )
        role = k8s.rbac.v1.Role(
            names.EXECUTION, metadata=self._metadata(), rules=RULES, opts=self._child
        )
        binding = k8s.rbac.v1.RoleBinding(
            names.EXECUTION,
            metadata=self._metadata(),
            subjects=[
                {
                    "kind": "ServiceAccount",
                    "name": names.EXECUTION,
                    "namespace": self._namespace,
                }
            ],
            role_ref={
                "api_group": "rbac.authorization.k8s.io",
                "kind": "Role",
                "name": names.EXECUTION,
            },
            opts=self._child,
        )
        return [account, role, binding]

    def _policies(self, args: ExecutionArgs) -> list[pulumi.Resource]:
        """The service's own way in and out, and what it needs of the proxy's and Postgres'."""
        service, postgres = names.selector(names.EXECUTION), names.selector(names.POSTGRES)
        return [
            self._policy(
                names.EXECUTION,
                args.namespace,
                {
                    "pod_selector": {"match_labels": service},
                    "policy_types": ["Ingress", "Egress"],
                    "ingress": [
                        {
                            "from_": [pods(PROXY_PODS), pods(TRIGGER_PODS)],
                            "ports": [tcp(names.EXECUTION_PORT)],
                        }
                    ],
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
                        *self._to_mlflow(args),
                        dns(),
                    ],
                },
            ),
            self._policy(
                names.EXECUTION_TRIGGER,
                args.namespace,
                {
                    "pod_selector": {"match_labels": TRIGGER_PODS},
                    "policy_types": ["Ingress", "Egress"],
                    "egress": [
                        {"to": [pods(service)], "ports": [tcp(names.EXECUTION_PORT)]},
                        dns(),
                    ],
                },
            ),
            self._policy(
                f"proxy-to-{names.EXECUTION}",
                args.namespace,
                {
                    "pod_selector": {"match_labels": PROXY_PODS},
                    "policy_types": ["Egress"],
                    "egress": [{"to": [pods(service)], "ports": [tcp(names.EXECUTION_PORT)]}],
                },
            ),
            self._policy(
                f"{names.EXECUTION}-to-{names.POSTGRES}",
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

    def _to_mlflow(
        self, args: ExecutionArgs
    ) -> list[k8s.networking.v1.NetworkPolicyEgressRuleArgsDict]:
        """To end the MLflow runs of runs that were killed."""
        if args.mlflow_namespace is None:
            return []
        server = pods(names.selector(names.MLFLOW), args.mlflow_namespace)
        return [{"to": [server], "ports": [tcp(names.MLFLOW_PORT)]}]

    def _policy(
        self,
        name: str,
        namespace: pulumi.Input[str],
        spec: k8s.networking.v1.NetworkPolicySpecArgsDict,
    ) -> pulumi.Resource:
        return k8s.networking.v1.NetworkPolicy(
            name, metadata=self._metadata(name, namespace), spec=spec, opts=self._child
        )
