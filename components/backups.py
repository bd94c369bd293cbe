"""What the hub may know of backups: when the last one was made, for Prometheus to hear of it.

Neither chart has the right. A backup is made from outside the cluster, and leaves a record in the
hub's namespace (`tools/recovery/backup.py`).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi

from components import names
from components.rights import HUB_ACCOUNT, allow


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
        role, _ = allow(
            names.BACKUP_RECORD,
            HUB_ACCOUNT,
            args.namespace,
            [
                {
                    "api_groups": [""],
                    "resources": ["configmaps"],
                    "resource_names": [names.BACKUP_RECORD],
                    "verbs": ["get"],
                }
            ],
            labels=args.labels,
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.role_name = role.metadata.name
        self.register_outputs({"role_name": self.role_name})
