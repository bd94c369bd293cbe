"""What somebody's role in a workspace gives a pod of theirs, server or run. Pure.

One claim for each workspace, mounted once, by the strongest role. A viewer's is read-only on the
claim and on the mount: POSIX modes tell nobody apart where everybody is uid 1000.
"""

from collections.abc import Mapping
from typing import Any

ROLES = ("owner", "editor", "viewer")
"""The strongest first; each is a Keycloak group `/workspaces/<slug>/<role>`."""

FOLDER = "/home/jovyan/workspaces"
CLAIM_PREFIX = "workspace-"
VOLUME = "workspace"


def claim_name(slug: str) -> str:
    return f"{CLAIM_PREFIX}{slug}"


def group_path(slug: str, role: str) -> str:
    """A role's group by its full path, as tokens carry it."""
    return f"/workspaces/{slug}/{role}"


def may_write(role: str) -> bool:
    return role in ("owner", "editor")


def volume(slug: str, role: str) -> dict[str, Any]:
    """An item of a pod's `volumes`."""
    source: dict[str, Any] = {"claimName": claim_name(slug)}
    if not may_write(role):
        source["readOnly"] = True
    return {"name": VOLUME, "persistentVolumeClaim": source}


def volume_mount(slug: str, role: str) -> dict[str, Any]:
    """An item of a container's `volumeMounts`."""
    mount: dict[str, Any] = {"name": VOLUME, "mountPath": f"{FOLDER}/{slug}"}
    if not may_write(role):
        mount["readOnly"] = True
    return mount


def environment(slug: str) -> dict[str, str]:
    """What every pod in the workspace is told."""
    return {"MLFLOW_WORKSPACE": slug}


def mounted(spec: Mapping[str, Any]) -> frozenset[tuple[str, bool]]:
    """The workspaces that a pod (its `spec`, Kubernetes' JSON) mounts; True where it can write."""
    claims = [v.get("persistentVolumeClaim") or {} for v in spec.get("volumes") or []]
    return frozenset(
        (claim["claimName"].removeprefix(CLAIM_PREFIX), not claim.get("readOnly"))
        for claim in claims
        if claim.get("claimName", "").startswith(CLAIM_PREFIX)
    )
