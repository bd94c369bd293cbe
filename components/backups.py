"""What the hub may know of backups: when the last one was made, for Prometheus to hear of it.

Neither chart has the right. A backup is made from outside the cluster, and leaves a record in the
hub's namespace (`tools/recovery/backup.py`).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_kubernetes as k8s

from components import names
from components.nodes import HUB_ACCOUNT


@dataclass(frozen=True)
class BackupsArgs:
    namespace: pulumi.Input[str]
    """The hub's."""
    labels: Mapping[str, str]


class Backups(pulumi.ComponentResource):
    """The hub reads the record, and no other ConfigMap."""

    role_name: pulumi.Output[str]

    def __init__(self, name: str, args: BackupsArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("mlhub:backups:Backups", name, {}, opts)
        child = pulumi.ResourceOptions(parent=self)
        metadata: k8s.meta.v1.ObjectMetaArgsDict = {
            "name": names.BACKUP_RECORD,
            "namespace": args.namespace,
            "labels": dict(args.labels),
        }

        role = k8s.rbac.v1.Role(
            names.BACKUP_RECORD,
            metadata=metadata,
            rules=[
                {
                    "api_groups": [""],
                    "resources": ["configmaps"],
                    "resource_names": [names.BACKUP_RECORD],
                    "verbs": ["get"],
                }
            ],
            opts=child,
        )
        k8s.rbac.v1.RoleBinding(
            names.BACKUP_RECORD,
            metadata=metadata,
            role_ref={
                "api_group": "rbac.authorization.k8s.io",
                "kind": "Role",
                "name": names.BACKUP_RECORD,
            },
            subjects=[{"kind": "ServiceAccount", "name": HUB_ACCOUNT, "namespace": args.namespace}],
            opts=pulumi.ResourceOptions.merge(child, pulumi.ResourceOptions(depends_on=[role])),
        )
        self.role_name = role.metadata.name
        self.register_outputs({"role_name": self.role_name})
