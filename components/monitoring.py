"""What a Prometheus operator and a Grafana that are there need to know of the stack.

A Service and a ServiceMonitor for each part, a PrometheusRule, a dashboard, and the one way
through the parts' network policies: from the monitoring's namespace, to the port of metrics alone.
What kubelets say of volumes is the cluster's own monitoring's to read.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import pulumi
import pulumi_kubernetes as k8s

from components import names
from components.alerts import alerts, metrics_service, rule_groups
from components.config import Monitoring as MonitoringConfig
from components.config import StackFile
from components.dashboard import dashboard, panels
from components.network import HUB_PODS, tcp

GROUP = "monitoring.coreos.com/v1"
PORT = "metrics"


@dataclass(frozen=True)
class Part:
    """Something with metrics of its own."""

    name: str
    pods: Mapping[str, str]
    """The labels of its pods."""

    @property
    def service(self) -> str:
        return metrics_service(self.name)


def parts(stack: StackFile) -> list[Part]:
    found = [Part("hub", HUB_PODS)]
    if stack.execution is not None:
        found.append(Part(names.EXECUTION, names.selector(names.EXECUTION)))
    if stack.workspace_service is not None:
        found.append(Part(names.WORKSPACES, names.selector(names.WORKSPACES)))
    return found


def service_spec(part: Part) -> dict[str, Any]:
    """Headless: each pod is asked for itself."""
    return {
        "clusterIP": "None",
        "selector": dict(part.pods),
        "ports": [{"name": PORT, "port": names.METRICS_PORT, "targetPort": names.METRICS_PORT}],
    }


def monitor_spec(part: Part) -> dict[str, Any]:
    """Of a ServiceMonitor; the Service's name becomes the label `job`."""
    return {
        "selector": {"matchLabels": names.selector(part.service)},
        "endpoints": [{"port": PORT, "interval": "30s"}],
    }


def stack_panels(stack: StackFile) -> dict[str, Any]:
    """Grafana's JSON for the stack."""
    services = stack.execution is not None or stack.workspace_service is not None
    shown = panels(stack.hub.namespace, services=services, execution=stack.execution is not None)
    return dashboard(stack.hub.namespace, shown)


def stack_rules(stack: StackFile, docs: str) -> list[dict[str, Any]]:
    found = alerts(
        stack.hub.namespace,
        foundation=stack.foundation.namespace,
        execution=stack.execution is not None,
        workspaces=stack.workspace_service is not None,
        verify=stack.verify,
        start_seconds=stack.hub.start_timeout,
    )
    return rule_groups(found, docs)


@dataclass(frozen=True)
class MonitoringArgs:
    config: MonitoringConfig
    namespace: pulumi.Input[str]
    """The hub's, in which all of it is."""
    parts: Sequence[Part]
    rules: list[dict[str, Any]]
    """`spec.groups` of the PrometheusRule."""
    dashboard: dict[str, Any]


class Monitoring(pulumi.ComponentResource):
    """Nothing of it runs: it tells Prometheus and Grafana where to look."""

    dashboard_name: pulumi.Output[str]
    """Of the dashboard's ConfigMap."""

    def __init__(self, name: str, args: MonitoringArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("mlhub:monitoring:Monitoring", name, {}, opts)
        child = pulumi.ResourceOptions(parent=self)

        def metadata(
            called: str, more: Mapping[str, str] | None = None
        ) -> k8s.meta.v1.ObjectMetaArgsDict:
            labels = {**names.labels(called), **(more or {})}
            return {"name": called, "namespace": args.namespace, "labels": labels}

        for part in args.parts:
            service = k8s.core.v1.Service(
                part.service,
                metadata=metadata(part.service),
                # In Kubernetes' own spelling, in which the tests apply it, too.
                spec=cast(k8s.core.v1.ServiceSpecArgsDict, service_spec(part)),
                opts=child,
            )
            k8s.apiextensions.CustomResource(
                f"{part.service}-monitor",
                api_version=GROUP,
                kind="ServiceMonitor",
                metadata=metadata(part.service, args.config.labels),
                spec=monitor_spec(part),
                opts=pulumi.ResourceOptions(parent=self, depends_on=[service]),
            )
            k8s.networking.v1.NetworkPolicy(
                part.service,
                metadata=metadata(part.service),
                spec={
                    "pod_selector": {"match_labels": dict(part.pods)},
                    "policy_types": ["Ingress"],
                    "ingress": [
                        {
                            "from_": [
                                {
                                    "namespace_selector": {
                                        "match_labels": {
                                            "kubernetes.io/metadata.name": args.config.namespace
                                        }
                                    }
                                }
                            ],
                            "ports": [tcp(names.METRICS_PORT)],
                        }
                    ],
                },
                opts=child,
            )
        k8s.apiextensions.CustomResource(
            "mlhub-rules",
            api_version=GROUP,
            kind="PrometheusRule",
            metadata=metadata("mlhub", args.config.labels),
            spec={"groups": args.rules},
            opts=child,
        )
        shown = k8s.core.v1.ConfigMap(
            "mlhub-dashboard",
            # The label by which Grafana's sidecar finds dashboards.
            metadata=metadata("mlhub-dashboard", {"grafana_dashboard": "1"}),
            # A file of that name among those of every namespace, where only one can be.
            data={f"{args.dashboard['uid']}.json": json.dumps(args.dashboard, indent=1)},
            opts=child,
        )
        self.dashboard_name = shown.metadata.name.apply(str)
        self.register_outputs({"dashboard_name": self.dashboard_name})
