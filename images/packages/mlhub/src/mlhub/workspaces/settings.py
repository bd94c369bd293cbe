"""The service's settings: one mounted JSON file, made by `components.workspace_server`.

Secrets are environment variables, never here.
"""

import os
from pathlib import Path

from pydantic import Field

from mlhub.execution.settings import Hub, Section, read

FILE = "MLHUB_WORKSPACES_SETTINGS"
DEFAULT_FILE = "/etc/mlhub/workspaces.json"

LARGEST_GIB = 100
"""Of one workspace's volume (row M8)."""


class Keycloak(Section):
    """Where the groups are, and the client whose service account changes them."""

    url: str = Field(description="Keycloak as this service reaches it")
    realm: str
    client_id: str
    access_groups: list[str] = Field(min_length=1, description="full paths; who may use the hub")


class Claims(Section):
    """The volumes of workspaces."""

    namespace: str = Field(description="where servers run")
    storage_class: str
    access_mode: str
    size_gib: int = Field(ge=1, le=LARGEST_GIB, description="where nobody says otherwise")
    largest_gib: int = Field(default=LARGEST_GIB, ge=1, le=LARGEST_GIB)


class Limits(Section):
    per_person: int = Field(ge=1, description="workspaces that one person may have made")
    grace_days: float = Field(ge=0, description="from the deletion to the end of the groups")
    sweep_seconds: float = Field(default=300, gt=0)


class Settings(Section):
    database_url: str = Field(description="without a password, which libpq takes from PGPASSWORD")
    base_path: str = Field(default="", description="where the hub's proxy has the service")
    kubernetes_url: str = "https://kubernetes.default.svc"
    hub: Hub
    keycloak: Keycloak
    claims: Claims
    limits: Limits


def load(file: Path | None = None) -> Settings:
    """Settings from the mounted file; raises SettingsError, one sentence for each key."""
    return read(Settings, file or Path(os.environ.get(FILE, DEFAULT_FILE)))
