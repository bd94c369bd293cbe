"""Notebook servers of mlhub, from the inside and from a laptop.

What is imported here comes when it is first used: each server's start imports this package.
"""

from importlib import import_module
from typing import Any

from notebooks.errors import missing

_HOME = {
    "MLflowNotebookIntegration": "notebooks.mlflow_integration",
    "NotebookLauncher": "notebooks.launcher",
    "NotebookMetadata": "notebooks.models",
    "NotebookSession": "notebooks.models",
    "NotebookSnapshot": "notebooks.models",
    "NotebookStatus": "notebooks.models",
    "NotebookTemplate": "notebooks.models",
    "ResourceConfig": "notebooks.models",
    "SharedResource": "notebooks.workspaces",
    "Workspace": "notebooks.workspaces",
    "WorkspaceManager": "notebooks.workspaces",
    "WorkspaceMember": "notebooks.workspaces",
    "WorkspaceRole": "notebooks.workspaces",
}
"""Where each name of the package is."""

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(_HOME[name]), name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(missing(error), name=error.name) from error


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})


def load_ipython_extension(shell: Any) -> None:
    """`%load_ext notebooks`: the magics, and what a run of the execution API needs."""
    import_module("notebooks.unattended").prepare()
    import_module("notebooks.magics").load_ipython_extension(shell)
