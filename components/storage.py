"""Where volumes come from: a class of our own, for a cluster's default may delete data."""

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_kubernetes as k8s


@dataclass(frozen=True)
class StorageArgs:
    class_name: str
    provisioner: str
    parameters: Mapping[str, str]
    labels: Mapping[str, str]
    holds: str = "homes"
    grows: bool = False
    """Whether a claim may become larger."""


class Storage(pulumi.ComponentResource):
    """A StorageClass: of homes and workspaces, or of databases."""

    class_name: pulumi.Output[str]

    def __init__(self, name: str, args: StorageArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("mlhub:storage:Storage", name, {}, opts)
        made = k8s.storage.v1.StorageClass(
            f"{name}-{args.holds}",
            metadata={"name": args.class_name, "labels": dict(args.labels)},
            provisioner=args.provisioner,
            parameters=dict(args.parameters),
            # A deleted claim leaves its volume, and what is on it, behind.
            reclaim_policy="Retain",
            # Where a pod lands decides where its volume is.
            volume_binding_mode="WaitForFirstConsumer",
            allow_volume_expansion=args.grows,
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.class_name = made.metadata.name
        self.register_outputs({"class_name": self.class_name})
