"""A namespace for pods, which have no privilege and nobody to talk to until something says so."""

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_kubernetes as k8s

RESTRICTED = {
    f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")
}


@dataclass(frozen=True)
class NamespaceArgs:
    namespace: str
    labels: Mapping[str, str]


class Namespace(pulumi.ComponentResource):
    """The namespace and the policy that closes it."""

    name: pulumi.Output[str]

    def __init__(self, name: str, args: NamespaceArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("mlhub:namespace:Namespace", name, {}, opts)
        self.name = k8s.core.v1.Namespace(
            name,
            metadata={"name": args.namespace, "labels": dict(args.labels) | RESTRICTED},
            # With a namespace go its claims, and everyone's work with them.
            opts=pulumi.ResourceOptions(parent=self, protect=True, retain_on_delete=True),
        ).metadata.name
        k8s.networking.v1.NetworkPolicy(
            f"{name}-nothing",
            metadata={"name": "nothing", "namespace": self.name, "labels": dict(args.labels)},
            spec={"pod_selector": {}, "policy_types": ["Ingress", "Egress"]},
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.register_outputs({"name": self.name})
