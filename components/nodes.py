"""What the hub may know of the cluster's nodes: which have GPUs.

A role of the whole cluster, which neither chart can make for the hub: nodes have no namespace.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi

from components.rights import HUB_ACCOUNT, allow


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
        role, _ = allow(
            args.role_name,
            HUB_ACCOUNT,
            args.hub_namespace,
            [{"api_groups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch"]}],
            labels=args.labels,
            opts=pulumi.ResourceOptions(parent=self),
            everywhere=True,
        )
        self.role_name = role.metadata.name
        self.register_outputs({"role_name": self.role_name})
