"""The volumes of workspaces, over Kubernetes' HTTP API.

A claim is deleted only when its workspace's grace has ended; its class retains the volume, which
stays with all that is on it.
"""

from mlhub.execution.cluster import Cluster, ClusterError, Object
from mlhub.workspaces.mounts import claim_name
from mlhub.workspaces.settings import Claims as Settings

LABEL = "mlhub.io/workspace"
MANAGED_BY = "app.kubernetes.io/managed-by"
OURS = "mlhub-workspaces"
GROUP = "mlhub.io/workspace-group"
"""Annotation with Keycloak's id of the workspace that the claim was made for."""


class ClaimTakenError(Exception):
    """A claim of that name holds somebody else's data, or is on its way out."""


class Claims(Cluster):
    """The claims of one namespace."""

    def __init__(self, url: str, settings: Settings):
        super().__init__(url, settings.namespace)
        self._settings = settings
        self._claims = f"{self._core}/persistentvolumeclaims"

    async def ensure(self, slug: str, group: str, size_gib: int) -> None:
        """The claim of the workspace whose group this is.

        Raises ClaimTakenError, and ClusterError with Kubernetes' own words where there is no room.
        """
        body = self._body(slug, group, size_gib)
        try:
            await self._call("POST", self._claims, json=body)
        except ClusterError as error:
            if error.status != 409:
                raise
            found = await self._call("GET", f"{self._claims}/{claim_name(slug)}")
            if not _made_for(found, group) or "deletionTimestamp" in found["metadata"]:
                raise ClaimTakenError(slug) from error

    async def remove(self, slug: str, group: str) -> bool:
        """Delete the claim that was made for this group; False where it is not ours to delete.

        One of another class might not retain its volume.
        """
        path = f"{self._claims}/{claim_name(slug)}"
        try:
            found = await self._call("GET", path)
            if (
                not _made_for(found, group)
                or found["spec"].get("storageClassName") != self._settings.storage_class
            ):
                return False
            precondition = {"uid": found["metadata"]["uid"]}
            await self._call(
                "DELETE", path, json={"kind": "DeleteOptions", "preconditions": precondition}
            )
        except ClusterError as error:
            if error.status != 404:
                raise
        return True

    async def ping(self) -> None:
        """Whether claims can be seen. They may not be listed, so one is asked for by a name that
        none has, and its absence will do.
        """
        try:
            await self._call("GET", f"{self._claims}/none", timeout=3)
        except ClusterError as error:
            if error.status != 404:
                raise

    def _body(self, slug: str, group: str, size_gib: int) -> Object:
        return {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {
                "name": claim_name(slug),
                "labels": {
                    "app.kubernetes.io/name": "workspaces",
                    "app.kubernetes.io/part-of": "mlhub",
                    MANAGED_BY: OURS,
                    LABEL: slug,
                },
                "annotations": {GROUP: group},
            },
            "spec": {
                "accessModes": [self._settings.access_mode],
                "storageClassName": self._settings.storage_class,
                "resources": {"requests": {"storage": f"{size_gib}Gi"}},
            },
        }


def _made_for(claim: Object, group: str) -> bool:
    about = claim["metadata"]
    return (about.get("labels") or {}).get(MANAGED_BY) == OURS and (
        about.get("annotations") or {}
    ).get(GROUP) == group
