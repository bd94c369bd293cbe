"""The last line of the quota: what the namespace itself refuses.

It holds for whatever reaches the Kubernetes API, whoever asked; it cannot explain itself, so what
can (the hub) refuses first.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_kubernetes as k8s

from components.config import NamespaceQuota


def resource_quota_hard(quota: NamespaceQuota) -> dict[str, str]:
    """`spec.hard` of the ResourceQuota, in Kubernetes quantities.

    GPUs count by request alone: Kubernetes has no over-commit for extended resources, so a
    `limits.` key would be rejected (Kubernetes, "Resource Quotas", extended resources).
    """
    return {
        "limits.cpu": str(quota.cpu),
        "limits.memory": quota.memory,
        "requests.nvidia.com/gpu": str(quota.gpu),
        "requests.storage": quota.storage,
        "pods": str(quota.pods),
    }


@dataclass(frozen=True)
class QuotasArgs:
    namespace: pulumi.Input[str]
    quota: NamespaceQuota
    labels: Mapping[str, str]


class Quotas(pulumi.ComponentResource):
    """A ResourceQuota and a LimitRange for one namespace."""

    resource_quota_name: pulumi.Output[str]

    def __init__(self, name: str, args: QuotasArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("mlhub:quotas:Quotas", name, {}, opts)
        child = pulumi.ResourceOptions(parent=self)

        resource_quota = k8s.core.v1.ResourceQuota(
            f"{name}-namespace",
            metadata={
                "name": "namespace",
                "namespace": args.namespace,
                "labels": dict(args.labels),
            },
            spec={"hard": resource_quota_hard(args.quota)},
            opts=child,
        )
        k8s.core.v1.LimitRange(
            f"{name}-container-defaults",
            metadata={
                "name": "container-defaults",
                "namespace": args.namespace,
                "labels": dict(args.labels),
            },
            spec={
                "limits": [
                    {
                        "type": "Container",
                        "max": args.quota.container_max(),
                        # Without these a container that states nothing gets the maximum.
                        "default": {"cpu": "500m", "memory": "512Mi"},
                        "default_request": {"cpu": "50m", "memory": "128Mi"},
                    }
                ]
            },
            opts=child,
        )

        self.resource_quota_name = resource_quota.metadata.name
        self.register_outputs({"resource_quota_name": self.resource_quota_name})
