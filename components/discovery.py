"""What a site learns about the hub: one ConfigMap in the shape of Thinkube (row T12)."""

from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_kubernetes as k8s
import yaml

from components import names

NAME = "thinkube-service-config"
"""Thinkube's name for it, in every namespace."""
SERVICE = "jupyterhub"
TYPE = "core"
"""Thinkube's word for what its installer brings, in contrast to `optional` and `user_app`."""


@dataclass(frozen=True)
class Endpoint:
    """An address of a service; exactly one of a service's is the primary one."""

    name: str
    type: str
    url: str
    health_url: str
    description: str
    primary: bool = False


def service_labels(service: str) -> dict[str, str]:
    """By which Thinkube's own discovery finds the ConfigMap."""
    return {
        "thinkube.io/managed": "true",
        "thinkube.io/service-type": TYPE,
        "thinkube.io/service-name": service,
    }


def hub_endpoints(hub_url: str, mlflow_uri: str | None) -> list[Endpoint]:
    """The hub as browsers reach it and, where there is one, MLflow as pods do."""
    endpoints = [
        Endpoint(
            name="web",
            type="http",
            url=hub_url,
            health_url=f"{hub_url}/hub/health",
            description="Log-in and notebooks",
            primary=True,
        ),
        Endpoint(
            name="api",
            type="http",
            url=f"{hub_url}/hub/api",
            health_url=f"{hub_url}/hub/health",
            description="The Hub's REST API",
        ),
    ]
    if mlflow_uri is not None:
        endpoints.append(
            Endpoint(
                name="mlflow",
                type="http",
                url=mlflow_uri,
                health_url=f"{mlflow_uri}/health",
                description="MLflow's tracking server and registry, within the cluster",
            )
        )
    return endpoints


def service_document(
    namespace: str, endpoints: list[Endpoint], dependencies: list[str]
) -> dict[str, Any]:
    """`service.yaml`, whole. Raises ValueError unless exactly one endpoint is primary."""
    primary = [endpoint.name for endpoint in endpoints if endpoint.primary]
    if len(primary) != 1:
        raise ValueError(f"{len(primary)} endpoints are primary ({primary}); exactly one must be")
    return {
        "service": {
            "name": SERVICE,
            "display_name": "JupyterHub",
            "description": "Notebooks with GPU profiles, shared data and MLflow",
            "type": TYPE,
            "category": "ai",
            "icon": "/icons/tk_ai.svg",
            "endpoints": [
                {
                    "name": endpoint.name,
                    "type": endpoint.type,
                    "url": endpoint.url,
                    "health_url": endpoint.health_url,
                    "description": endpoint.description,
                    "primary": endpoint.primary,
                }
                for endpoint in endpoints
            ],
            "dependencies": dependencies,
            "scaling": {
                "resource_type": "deployment",
                "resource_name": "hub",
                "namespace": namespace,
                "min_replicas": 1,
                "can_disable": True,
            },
        }
    }


@dataclass(frozen=True)
class DiscoveryArgs:
    namespace: str
    """The hub's, as a text, since the document holds it."""
    hub_url: str
    """As browsers reach it."""
    mlflow_uri: str | None
    """`MLFLOW_TRACKING_URI`; None for a stack without MLflow."""
    after: tuple[pulumi.Resource, ...] = ()
    """The namespace."""


class Discovery(pulumi.ComponentResource):
    """The ConfigMap."""

    config_map: pulumi.Output[str]

    def __init__(self, name: str, args: DiscoveryArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("mlhub:discovery:Discovery", name, {}, opts)
        dependencies = ["keycloak", *(["mlflow"] if args.mlflow_uri is not None else [])]
        document = service_document(
            args.namespace, hub_endpoints(args.hub_url, args.mlflow_uri), dependencies
        )
        made = k8s.core.v1.ConfigMap(
            NAME,
            metadata={
                "name": NAME,
                "namespace": args.namespace,
                "labels": names.labels(SERVICE) | service_labels(SERVICE),
            },
            data={"service.yaml": yaml.safe_dump(document, sort_keys=False, allow_unicode=True)},
            opts=pulumi.ResourceOptions(parent=self, depends_on=list(args.after)),
        )
        self.config_map = pulumi.Output.from_input(made.metadata.name)
        self.register_outputs({"config_map": self.config_map})
