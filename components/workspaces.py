"""A team's workspace: three Keycloak groups that say who may do what, and a volume.

`/workspaces/<slug>/{owner,editor,viewer}` are the one truth about roles; mounts, MLflow and the
hub follow them. Five resources a workspace, all of them in one component, so that a thousand
workspaces are five thousand resources and nothing beside.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
import pulumi_keycloak as keycloak
import pulumi_kubernetes as k8s

from components import names
from components.config import Workspace
from components.volume_specs import access_mode

ROLES = ("owner", "editor", "viewer")
GROUP = "workspaces"
"""The Keycloak group above all of them."""

WORKSPACE_LABEL = "mlhub.io/workspace"


def claim_name(slug: str) -> str:
    """The workspace's volume (row M8)."""
    return f"workspace-{slug}"


def group_path(slug: str, role: str) -> str:
    """A role's group by its full path, as tokens carry it."""
    return f"/{GROUP}/{slug}/{role}"


@dataclass(frozen=True)
class WorkspacesArgs:
    workspaces: Sequence[Workspace]
    realm_id: pulumi.Input[str]
    namespace: pulumi.Input[str]
    """Of the servers that mount the volumes."""
    class_name: pulumi.Input[str]
    provisioner: str


class Workspaces(pulumi.ComponentResource):
    """The groups and volumes of all workspaces of the stack file."""

    claims: list[pulumi.Output[str]]

    def __init__(self, name: str, args: WorkspacesArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("mlhub:workspaces:Workspaces", name, {}, opts)
        # With a group would go its memberships, with a claim a team's work.
        self._kept = pulumi.ResourceOptions(parent=self, protect=True, retain_on_delete=True)
        self._args = args
        top = self._group(GROUP)
        for workspace in args.workspaces:
            read = {"mlhub.name": workspace.name, "mlhub.size": workspace.size}
            above = self._group(f"{GROUP}--{workspace.slug}", top, read)
            for role in ROLES:
                self._group(f"{GROUP}--{workspace.slug}--{role}", above)
        self.claims = [self._claim(workspace) for workspace in args.workspaces]
        self.register_outputs({"claims": self.claims})

    def _group(
        self,
        path: str,
        parent: keycloak.Group | None = None,
        attributes: Mapping[str, str] | None = None,
    ) -> keycloak.Group:
        """`path` with `--` between its parts, which no slug has; `attributes` are what people read
        (`mlhub.workspaces.records`)."""
        return keycloak.Group(
            f"group-{path}",
            realm_id=self._args.realm_id,
            parent_id=parent.id if parent is not None else None,
            name=path.rpartition("--")[2],
            attributes=attributes,
            opts=self._kept,
        )

    def _claim(self, workspace: Workspace) -> pulumi.Output[str]:
        name = claim_name(workspace.slug)
        claimed = k8s.core.v1.PersistentVolumeClaim(
            name,
            metadata={
                "name": name,
                "namespace": self._args.namespace,
                "labels": names.labels(GROUP) | {WORKSPACE_LABEL: workspace.slug},
                # What people read may hold what no label may.
                "annotations": names.CLAIM_ANNOTATIONS
                | {f"{WORKSPACE_LABEL}-name": workspace.name},
            },
            spec={
                "access_modes": [access_mode(self._args.provisioner)],
                "storage_class_name": self._args.class_name,
                "resources": {"requests": {"storage": workspace.size}},
            },
            opts=pulumi.ResourceOptions.merge(
                self._kept,
                # A claim stays as it was made, of the class that the stack had then.
                pulumi.ResourceOptions(
                    ignore_changes=["spec.accessModes", "spec.storageClassName"]
                ),
            ),
        )
        return pulumi.Output.from_input(claimed.metadata.name)
