"""What the services beside the hub have in common: an API with rights in the hub's namespace.

Each is one Deployment of the image `execution`, reached through the hub's proxy alone unless its
component says more, with settings in a ConfigMap, secrets in a Secret and tables in Postgres.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_kubernetes as k8s

from components import names
from components.network import HUB_PODS, PROXY_PODS, dns, pods, tcp
from components.pods import container_security, from_secret, pod_security
from components.rights import allow
from components.secrets import fingerprint, secret

SETTINGS_FOLDER = "/etc/mlhub"

HUB_ACCESS = {"hub.jupyter.org/network-access-hub": "true"}
"""Both charts let pods with this label reach the hub."""

EgressRule = k8s.networking.v1.NetworkPolicyEgressRuleArgsDict


@dataclass(frozen=True)
class Shape:
    """How one service differs from another."""

    name: str
    """Of its Deployment, and of everything that belongs to it."""
    port: int
    secret: str
    variables: Mapping[str, str]
    """Environment variables, each with its key in the service's Secret."""
    settings_variable: str
    settings_file: str
    rules: Sequence[k8s.rbac.v1.PolicyRuleArgsDict]
    resources: k8s.core.v1.ResourceRequirementsArgsDict
    ready_seconds: int
    """Between two looks at whether it is ready."""
    alive_seconds: int
    command: Sequence[str] = ()
    """Instead of the image's own."""


def service_pod(
    shape: Shape, image: pulumi.Input[str], pull_secrets: Sequence[str] = ()
) -> k8s.core.v1.PodSpecArgsDict:
    """The service's own pod; unlike any other of ours it has a token of the cluster's."""
    probe: k8s.core.v1.ProbeArgsDict = {
        "http_get": {"path": "/health", "port": shape.port},
        "timeout_seconds": 5,
    }
    container: k8s.core.v1.ContainerArgsDict = {
        "name": shape.name,
        "image": image,
        "env": [
            *(from_secret(name, shape.secret, key) for name, key in shape.variables.items()),
            {"name": shape.settings_variable, "value": f"{SETTINGS_FOLDER}/{shape.settings_file}"},
        ],
        "ports": [
            {"name": "http", "container_port": shape.port},
            {"name": "metrics", "container_port": names.METRICS_PORT},
        ],
        # The first start waits for the database, which may be starting, too.
        "startup_probe": {**probe, "period_seconds": 2, "failure_threshold": 150},
        "readiness_probe": {**probe, "period_seconds": shape.ready_seconds},
        "liveness_probe": {
            **probe,
            "period_seconds": shape.alive_seconds,
            "failure_threshold": 6,
        },
        "resources": shape.resources,
        "security_context": container_security(),
        "volume_mounts": [
            {"name": "settings", "mount_path": SETTINGS_FOLDER, "read_only": True},
            {"name": "tmp", "mount_path": "/tmp"},  # noqa: S108
        ],
    }
    if shape.command:
        container["command"] = list(shape.command)
    return {
        "service_account_name": shape.name,
        "automount_service_account_token": True,
        "enable_service_links": False,
        "image_pull_secrets": [{"name": name} for name in pull_secrets],
        "security_context": pod_security(),
        "termination_grace_period_seconds": 30,
        "containers": [container],
        "volumes": [
            {"name": "settings", "config_map": {"name": shape.name}},
            {"name": "tmp", "empty_dir": {}},
        ],
    }


class HubService:
    """Makes a service's resources, as children of the component that owns it."""

    def __init__(
        self, shape: Shape, namespace: pulumi.Input[str], child: pulumi.ResourceOptions
    ) -> None:
        self._shape, self._namespace, self._child = shape, namespace, child

    def deploy(
        self,
        *,
        image: pulumi.Input[str],
        pull_secrets: Sequence[str],
        words: Mapping[str, pulumi.Output[str]],
        settings: Mapping[str, Any],
        policies: Sequence[pulumi.Resource],
    ) -> None:
        """The Deployment and all that it needs; `words` are the Secret's, by key."""
        shape = self._shape
        credentials = secret(
            shape.secret, namespace=self._namespace, data=dict(words), opts=self._child
        )
        text = pulumi.Output.json_dumps(settings, indent=1, sort_keys=True)
        config = k8s.core.v1.ConfigMap(
            shape.name,
            metadata=self._metadata(),
            data={shape.settings_file: text},
            opts=self._child,
        )
        k8s.core.v1.Service(
            shape.name,
            metadata=self._metadata(),
            spec={
                "selector": names.selector(shape.name),
                "ports": [{"name": "http", "port": shape.port}],
            },
            opts=self._child,
        )
        marks: dict[str, pulumi.Input[str]] = {
            "mlhub/settings": text.apply(lambda told: hashlib.sha256(told.encode()).hexdigest()),
            names.FINGERPRINT: fingerprint(*words.values()),
        }
        k8s.apps.v1.Deployment(
            shape.name,
            metadata=self._metadata(),
            spec={
                "replicas": 1,
                "selector": {"match_labels": names.selector(shape.name)},
                "template": {
                    "metadata": {
                        "labels": {**names.labels(shape.name), **HUB_ACCESS},
                        "annotations": marks,
                    },
                    "spec": service_pod(shape, image, pull_secrets),
                },
            },
            opts=pulumi.ResourceOptions.merge(
                self._child,
                pulumi.ResourceOptions(
                    depends_on=[credentials, config, *self._account(), *policies]
                ),
            ),
        )

    def policies(
        self,
        *,
        foundation_namespace: pulumi.Input[str],
        kubernetes_api: EgressRule,
        more_callers: Sequence[k8s.networking.v1.NetworkPolicyPeerArgsDict] = (),
        more_egress: Sequence[EgressRule],
    ) -> list[pulumi.Resource]:
        """The service's own way in and out, and what it needs of the proxy's and Postgres'."""
        shape, here = self._shape, [tcp(self._shape.port)]
        service, postgres = names.selector(shape.name), names.selector(names.POSTGRES)
        return [
            self.policy(
                shape.name,
                {
                    "pod_selector": {"match_labels": service},
                    "policy_types": ["Ingress", "Egress"],
                    "ingress": [{"from_": [pods(PROXY_PODS), *more_callers], "ports": here}],
                    "egress": [
                        {"to": [pods(HUB_PODS)], "ports": [tcp(names.HUB_PORT)]},
                        {
                            "to": [pods(postgres, foundation_namespace)],
                            "ports": [tcp(names.POSTGRES_PORT)],
                        },
                        kubernetes_api,
                        *more_egress,
                        dns(),
                    ],
                },
            ),
            self.policy(
                f"proxy-to-{shape.name}",
                {
                    "pod_selector": {"match_labels": PROXY_PODS},
                    "policy_types": ["Egress"],
                    "egress": [{"to": [pods(service)], "ports": here}],
                },
            ),
            self.policy(
                f"{shape.name}-to-{names.POSTGRES}",
                {
                    "pod_selector": {"match_labels": postgres},
                    "policy_types": ["Ingress"],
                    "ingress": [
                        {
                            "from_": [pods(service, self._namespace)],
                            "ports": [tcp(names.POSTGRES_PORT)],
                        }
                    ],
                },
                foundation_namespace,
            ),
        ]

    def policy(
        self,
        name: str,
        spec: k8s.networking.v1.NetworkPolicySpecArgsDict,
        namespace: pulumi.Input[str] | None = None,
    ) -> pulumi.Resource:
        """One of the service's policies, in the hub's namespace or another."""
        return k8s.networking.v1.NetworkPolicy(
            name, metadata=self._metadata(name, namespace), spec=spec, opts=self._child
        )

    def _metadata(
        self, name: str | None = None, namespace: pulumi.Input[str] | None = None
    ) -> k8s.meta.v1.ObjectMetaArgsDict:
        return {
            "name": name or self._shape.name,
            "namespace": self._namespace if namespace is None else namespace,
            "labels": names.labels(self._shape.name),
        }

    def _account(self) -> list[pulumi.Resource]:
        """The service's account; its rights end with the namespace."""
        name = self._shape.name
        account = k8s.core.v1.ServiceAccount(
            name,
            metadata=self._metadata(),
            automount_service_account_token=False,
            opts=self._child,
        )
        rights = allow(
            name,
            name,
            self._namespace,
            self._shape.rules,
            labels=names.labels(name),
            opts=self._child,
        )
        return [account, *rights]
