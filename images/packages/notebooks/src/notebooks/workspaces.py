"""Workspaces of teams: make one, say who is in it, point the others to notebooks and folders.

Who may do what is decided by the service behind `/services/workspaces`, by Keycloak's groups.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from notebooks.connection import Connection
from notebooks.errors import NotebooksError

SERVICE = "/services/workspaces/workspaces"
FOLDER = Path("/home/jovyan/workspaces")
"""Where servers have them."""

SECONDS = 30
"""For an answer: a new workspace is some twenty questions to Keycloak."""


class WorkspaceRole(StrEnum):
    """Owners do everything; editors write, run and share; viewers read."""

    OWNER = "owner"
    EDITOR = "editor"
    VIEWER = "viewer"


@dataclass(frozen=True)
class Workspace:
    """A team's folder, members and experiments."""

    id: str
    """The slug: of its groups, its volume, its MLflow workspace and its folder."""
    name: str
    description: str
    role: WorkspaceRole | None
    """One's own; None for an administrator without one."""
    created_by: str
    """Empty for a workspace of the stack file."""
    created: datetime | None
    size: str
    """Of its volume, e.g. `10Gi`."""
    deleted: datetime | None = None
    restorable_until: datetime | None = None

    @property
    def folder(self) -> Path:
        """In a server that was started with the workspace."""
        return FOLDER / self.id


@dataclass(frozen=True)
class WorkspaceMember:
    """Somebody in a workspace."""

    user: str
    email: str
    role: WorkspaceRole


@dataclass(frozen=True)
class SharedResource:
    """A notebook or folder that a member has pointed the others to."""

    id: str
    workspace_id: str
    resource_type: str
    """`notebook` or `folder`."""
    resource_path: str
    """Relative to the workspace's folder."""
    shared_by: str
    shared: datetime

    def local_path(self, folder: Path | None = None) -> Path:
        """Where it is in this server; raises PathRefused for one that a link leads elsewhere."""
        return _inside(folder or FOLDER / self.workspace_id, self.resource_path)


class PathRefused(NotebooksError):  # noqa: N818 -- named for what it is, as in `notebooks.errors`
    """A path that is not in the workspace."""

    type = "path-refused"


class WorkspaceManager:
    """The workspaces of one hub; without a connection, of the hub that `Connection.find()` finds.

    Every method raises Refused with the service's sentence, or Unreachable.
    """

    def __init__(self, connection: Connection | None = None):
        self._connection = connection or Connection.find()

    def create_workspace(
        self,
        name: str,
        description: str = "",
        owner: str | None = None,
        size_gib: int | None = None,
    ) -> Workspace:
        """`owner` is one's own user name or e-mail address, or for an administrator anybody's."""
        asked = {"name": name, "description": description, "owner": owner, "size_gib": size_gib}
        return _workspace(self._ask("POST", "", **asked))

    def list_workspaces(self, *, deleted: bool = False) -> tuple[Workspace, ...]:
        """One's own; with `deleted` those that one can restore."""
        found = self._connection.request(
            "GET", SERVICE, params={"deleted": str(deleted).lower()}, timeout=SECONDS
        )
        return tuple(_workspace(each) for each in found["workspaces"])

    def get_workspace(self, workspace_id: str) -> Workspace:
        return _workspace(self._ask("GET", f"/{_part(workspace_id)}"))

    def delete_workspace(self, workspace_id: str) -> Workspace:
        """Hidden at once; `restorable_until` says how long an owner can restore it."""
        return _workspace(self._ask("DELETE", f"/{_part(workspace_id)}"))

    def restore_workspace(self, workspace_id: str) -> Workspace:
        return _workspace(self._ask("POST", f"/{_part(workspace_id)}/restore"))

    def list_members(self, workspace_id: str) -> tuple[WorkspaceMember, ...]:
        """Owners first."""
        found = self._ask("GET", f"/{_part(workspace_id)}/members")["members"]
        return tuple(_member(each) for each in found)

    def add_member(
        self,
        workspace_id: str,
        user_email: str,
        role: WorkspaceRole | str = WorkspaceRole.VIEWER,
    ) -> WorkspaceMember:
        """Add somebody by e-mail address or user name, or change their role."""
        given = WorkspaceRole(role)
        asked = {"user": user_email, "role": str(given)}
        return _member(self._ask("PUT", f"/{_part(workspace_id)}/members", **asked))

    def remove_member(self, workspace_id: str, user_email: str) -> None:
        """Never the last owner."""
        self._ask("DELETE", f"/{_part(workspace_id)}/members/{_part(user_email)}")

    def share_notebook(
        self, workspace_id: str, notebook_path: str | Path, shared_by: str | None = None
    ) -> SharedResource:
        """Point the others to a notebook in the workspace's folder.

        `notebook_path` is relative to that folder or, in a server, where the notebook is. Raises
        PathRefused for one elsewhere. `shared_by` is one's own user name or e-mail address.
        """
        return self._share(workspace_id, "notebook", notebook_path, shared_by)

    def share_folder(
        self, workspace_id: str, folder_path: str | Path, shared_by: str | None = None
    ) -> SharedResource:
        """The same for a folder with all that is in it."""
        return self._share(workspace_id, "folder", folder_path, shared_by)

    def list_shared_resources(self, workspace_id: str) -> tuple[SharedResource, ...]:
        found = self._ask("GET", f"/{_part(workspace_id)}/resources")["resources"]
        return tuple(_resource(workspace_id, each) for each in found)

    def unshare(self, workspace_id: str, resource_id: str) -> None:
        """Take it off the list; the file stays."""
        self._ask("DELETE", f"/{_part(workspace_id)}/resources/{_part(resource_id)}")

    def _share(
        self, workspace_id: str, kind: str, path: str | Path, by: str | None
    ) -> SharedResource:
        asked = {
            "resource_type": kind,
            "resource_path": relative_path(path, FOLDER / workspace_id),
            "shared_by": by,
        }
        found = self._ask("POST", f"/{_part(workspace_id)}/resources", **asked)
        return _resource(workspace_id, found)

    def _ask(self, method: str, path: str, **body: Any) -> Any:
        given = {key: value for key, value in body.items() if value is not None}
        return self._connection.request(method, SERVICE + path, json=given or None, timeout=SECONDS)


def relative_path(path: str | Path, folder: Path) -> str:
    """`path` relative to a workspace's folder; raises PathRefused.

    Where the folder is mounted, links are followed, and what they lead to must be in it and there.
    """
    text = os.fspath(path)
    if not PurePosixPath(text).is_absolute():
        relative = text
    elif PurePosixPath(text).is_relative_to(folder):
        relative = str(PurePosixPath(text).relative_to(folder))
    else:
        raise PathRefused(
            f"{text!r} is not in the workspace's folder {folder}; copy it there to share it."
        )
    if _is_there(folder) and not _inside(folder, relative).exists():
        raise PathRefused(f"There is no {relative!r} in {folder}.")
    return relative


def _is_there(folder: Path) -> bool:
    """Whether the workspace is; a mount of an earlier server leaves an empty folder in the home."""
    return folder.is_dir() and any(folder.iterdir())


def _inside(folder: Path, relative: str) -> Path:
    real = (folder / relative).resolve()
    if real == folder.resolve() or not real.is_relative_to(folder.resolve()):
        raise PathRefused(f"{relative!r} leads out of the workspace's folder {folder}.")
    return real


def _part(text: str) -> str:
    """One part of an address, whatever it holds."""
    if text in ("", ".", ".."):
        raise PathRefused(f"{text!r} is no id.")
    return quote(text, safe="")


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _workspace(given: Mapping[str, Any]) -> Workspace:
    return Workspace(
        id=given["id"],
        name=given["name"],
        description=given["description"],
        role=WorkspaceRole(given["role"]) if given["role"] else None,
        created_by=given["created_by"],
        created=_moment(given["created"]),
        size=given["size"],
        deleted=_moment(given["deleted"]),
        restorable_until=_moment(given["restorable_until"]),
    )


def _member(given: Mapping[str, Any]) -> WorkspaceMember:
    return WorkspaceMember(given["user"], given["email"], WorkspaceRole(given["role"]))


def _resource(workspace_id: str, given: Mapping[str, Any]) -> SharedResource:
    return SharedResource(
        id=given["id"],
        workspace_id=workspace_id,
        resource_type=given["resource_type"],
        resource_path=given["resource_path"],
        shared_by=given["shared_by"],
        shared=datetime.fromisoformat(given["shared"]),
    )
