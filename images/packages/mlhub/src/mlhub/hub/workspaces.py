"""A workspace in a server: mounted by the owner's role, and not for longer than they have it."""

from collections.abc import Collection
from typing import Any

from kubernetes_asyncio.client.models import V1Volume, V1VolumeMount
from kubespawner.utils import get_k8s_model  # type: ignore[import-untyped]

from mlhub.admission import Holding
from mlhub.hub.groups import workspace_roles
from mlhub.workspaces import mounts


def mount_in(pod: Any, slug: str, role: str) -> None:
    """Put the workspace's volume into a server's pod (Kubernetes' model), after all others."""
    container = pod.spec.containers[0]
    pod.spec.volumes = [
        *(pod.spec.volumes or []),
        get_k8s_model(V1Volume, mounts.volume(slug, role)),
    ]
    container.volume_mounts = [
        *(container.volume_mounts or []),
        get_k8s_model(V1VolumeMount, mounts.volume_mount(slug, role)),
    ]


def why_a_mount_ends(held: Holding, groups: Collection[str]) -> str:
    """Why a server must stop whose owner is in these Hub groups now, or nothing."""
    roles = workspace_roles(groups)
    for slug, writable in sorted(held.mounts):
        role = roles.get(slug)
        if not role:
            return f"Its owner is no longer a member of the workspace {slug}."
        if writable and not mounts.may_write(role):
            return f"Its owner may only read the workspace {slug} now; start it again to read."
    return ""
