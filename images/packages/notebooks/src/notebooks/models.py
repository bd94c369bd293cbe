"""What the package speaks of: sessions, sizes, notebooks, templates and snapshots.

Workspaces have their models beside their manager (`notebooks.workspaces`). Plain dataclasses, so
that a server's start and a command line import nothing heavy for them.
"""

import math
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class NotebookStatus(StrEnum):
    """Of a session."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True)
class ResourceConfig:
    """What a session needs at least: cores, GiB, whole GPUs, and NVIDIA's product label.

    What is left out does not matter. Raises ValueError for what nothing can have.
    """

    cpu_cores: float | None = None
    memory_gb: float | None = None
    gpu_count: int | None = None
    gpu_type: str | None = None

    def __post_init__(self) -> None:
        for name, unit in (("cpu_cores", "cores"), ("memory_gb", "GiB")):
            given = getattr(self, name)
            if given is not None and not (_number(given) and given > 0):
                raise ValueError(f"{name} is {given!r}; a number of {unit} above 0 is required.")
        gpus = self.gpu_count
        if gpus is not None and not (_number(gpus) and gpus >= 0 and gpus == int(gpus)):
            raise ValueError(f"gpu_count is {gpus!r}; a whole number of GPUs is required.")
        if self.gpu_type is not None and (not self.gpu_type or gpus == 0):
            raise ValueError(
                f"gpu_type is {self.gpu_type!r} and gpu_count {gpus!r}; a kind of GPU needs a name "
                "and at least 1 GPU."
            )


def _number(given: object) -> bool:
    return isinstance(given, int | float) and not isinstance(given, bool) and math.isfinite(given)


@dataclass(frozen=True)
class NotebookSession:
    """A notebook server of somebody's, running or kept."""

    session_id: str
    """`<user>/<name>`."""
    user: str
    name: str
    status: NotebookStatus
    notebook_url: str
    """For the person's browser, which logs in; it holds no token."""
    options: dict[str, str] = field(default_factory=dict)
    """What it was started with: profile, sizes, workspace …"""
    started: datetime | None = None
    last_activity: datetime | None = None


@dataclass(frozen=True)
class NotebookMetadata:
    """What is known of a notebook file beside its cells."""

    path: str
    title: str = ""
    kernel: str = "python3"
    created: datetime | None = None
    modified: datetime | None = None
    run_ids: tuple[str, ...] = ()
    """MLflow runs that it is linked to, the newest last."""


@dataclass(frozen=True)
class NotebookTemplate:
    """A notebook to begin with."""

    name: str
    title: str
    description: str
    path: str = ""
    """Of the .ipynb file."""
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class NotebookSnapshot:
    """One version of a notebook, kept as an artifact of an MLflow run."""

    notebook_path: str
    version: int
    sha256: str
    run_id: str
    artifact_path: str
    created: datetime
    created_by: str = ""
    message: str = ""
