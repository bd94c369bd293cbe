"""What the server opens with its own key of S3: what lies in the workspace of the request.

MLflow opens any place that a person names, as a model version's source or in a trace's tag (3.17,
`_get_artifact_repository_for_uri`, `_get_trace_repo_from_uri`). All of its ways meet where a place
becomes a repository, or where a path below its own destination is bound to a workspace.
"""

import os
from typing import Any
from urllib.parse import unquote

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED
from mlflow.server import handlers
from mlflow.server.constants import ARTIFACTS_DESTINATION_ENV_VAR
from mlflow.store.artifact import artifact_repository_registry

NOT_HERE = (
    "MLflow opens the artifacts of the request's own workspace alone, and this place is elsewhere."
)

_mlflow: Any = handlers
_registry: Any = artifact_repository_registry._artifact_repository_registry
_scoped = handlers._get_workspace_scoped_repo_path_if_enabled
"""MLflow's own rule. Raises MlflowException for a path in another workspace's folder."""


def open_workspaces_alone() -> None:
    """Have MLflow open nothing else in this process: it raises MlflowException, 403, instead."""
    opened = _registry.get_artifact_repository

    def open_within(uri: str, *given: Any, **named: Any) -> Any:
        if not is_within(uri, os.environ[ARTIFACTS_DESTINATION_ENV_VAR]):
            raise MlflowException(NOT_HERE, PERMISSION_DENIED)
        return opened(uri, *given, **named)

    _registry.get_artifact_repository = open_within
    _mlflow._get_workspace_scoped_repo_path_if_enabled = scoped


def is_within(uri: str, destination: str) -> bool:
    """Whether it is `destination`, all of whose paths go through `scoped`, or a place below it in
    the workspace of this request.

    Raises MlflowException where it is in another's, or the request has none.
    """
    if uri == destination:
        return True
    folder = f"{destination}/"
    path = uri.removeprefix(folder)
    return uri.startswith(folder) and scoped(path) == path


def scoped(path: str | None) -> str | None:
    """The path below the destination, in the workspace of this request; without steps upwards, to
    which an S3 service may hold.
    """
    if path is not None and ".." in _plain(path).split("/"):
        raise MlflowException(NOT_HERE, PERMISSION_DENIED)
    return _scoped(path)


def _plain(path: str) -> str:
    while (plain := unquote(path)) != path:
        path = plain
    return path
