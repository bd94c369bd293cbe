"""What the hub may know of the cluster's nodes: which have GPUs.

A role of the whole cluster, which neither chart can make for the hub: nodes have no namespace.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_kubernetes as k8s

HUB_ACCOUNT = "hub"
"""The hub's service account in both charts."""


@dataclass(frozen=True)
class NodesArgs:
    role_name: str
    hub_namespace: pulumi.Input[str]
    labels: Mapping[str, str]


class Nodes(pulumi.ComponentResource):
    """The hub reads nodes, and nothing else of the cluster."""

    role_name: pulumi.Output[str]

    def __init__(self, name: str, args: NodesArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("mlhub:nodes:Nodes", name, {}, opts)
        child = pulumi.ResourceOptions(parent=self)
        metadata: k8s.meta.v1.ObjectMetaArgsDict = {
            "name": args.role_name,
            "labels": dict(args.labels),
        }

        role = k8s.rbac.v1.ClusterRole(
            args.role_name,
            metadata=metadata,
            rules=[{"api_groups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch"]}],
            opts=child,
        )
        k8s.rbac.v1.ClusterRoleBinding(
            args.role_name,
            metadata=metadata,
            role_ref={
                "api_group": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": args.role_name,
            },
            subjects=[
                {"kind": "ServiceAccount", "name": HUB_ACCOUNT, "namespace": args.hub_namespace}
            ],
            opts=pulumi.ResourceOptions.merge(child, pulumi.ResourceOptions(depends_on=[role])),
        )
        self.role_name = role.metadata.name
        self.register_outputs({"role_name": self.role_name})
