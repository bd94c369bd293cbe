"""The service's settings: one mounted JSON file, made by `components.execution`.

What a user pod is comes from the very values that the hub's chart reads (`singleuser`), so that a
run's pod and a server's are alike. Secrets are environment variables, never here.
"""

import os
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

FILE = "MLHUB_EXECUTION_SETTINGS"
DEFAULT_FILE = "/etc/mlhub/execution.json"

UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
"""KubeSpawner's `5G` is 5 * 2^30 (kubespawner, `ByteSpecification`)."""


class SettingsError(ValueError):
    """The file cannot configure a service; the message names the key."""


def _bytes(given: Any) -> Any:
    if isinstance(given, str) and given[-1:] in UNITS:
        return int(float(given[:-1]) * UNITS[given[-1]])
    return given


Bytes = Annotated[int, BeforeValidator(_bytes), Field(gt=0)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


Read = TypeVar("Read", bound=Section)


class Profile(Section):
    """One size of a run: the spawn form's, in KubeSpawner's words."""

    slug: str
    default: bool = False
    image: str
    cpu_limit: float = Field(gt=0)
    cpu_guarantee: float = Field(gt=0)
    mem_limit: Bytes
    mem_guarantee: Bytes
    extra_resource_limits: dict[str, str] = {}
    extra_resource_guarantees: dict[str, str] = {}
    node_selector: dict[str, str] = {}
    tolerations: list[dict[str, Any]] = []

    @property
    def gpus(self) -> int:
        return int(self.extra_resource_limits.get("nvidia.com/gpu", 0))


class Pod(Section):
    """What every pod of a person has."""

    namespace: str
    labels: dict[str, str]
    home_claim: str = Field(description="the claim of a home, with {username}")
    home_mount: str
    one_node: bool = Field(default=False, description="whether a home is of one node at a time")
    uid: int = Field(gt=0)
    fs_gid: int = Field(gt=0)
    environment: dict[str, str] = {}
    pull_secrets: list[str] = []
    volumes: list[dict[str, Any]] = []
    volume_mounts: list[dict[str, Any]] = []


class Hub(Section):
    """Who knows the tokens of people."""

    api_url: str = Field(description="such as http://hub:8081/hub/api")
    scope: str = Field(description="what a token must be allowed")
    cache_seconds: float = 10
    patience_seconds: float = Field(
        default=15, description="how long somebody whom it has not told of waits for it"
    )


class Keycloak(Section):
    """Who knows the tokens of services, and who is a member."""

    issuer: str = Field(description="the realm's address as its tokens say it")
    jwks_url: str = Field(description="the realm's keys as this service reaches them")
    audience: str
    clients: dict[str, list[str]] = Field(
        description="a client's id to the people for whom it may run notebooks"
    )
    token_url: str = Field(description="where this service gets a token of its own")
    admin_url: str = Field(description="the realm's admin API as this service reaches it")
    client_id: str = Field(description="this service's own client")
    members: list[str] = Field(description="the groups that may use the platform, by full path")


class Trigger(Section):
    """What a schedule's CronJob runs."""

    image: str = Field(description="this service's own image")
    url: str = Field(description="this service as its namespace's pods reach it, with base_path")


class Limits(Section):
    per_minute: int = Field(default=5, ge=1, description="runs that start for one person")
    run_seconds: int = Field(default=3600, ge=1, description="where a caller says nothing")
    longest_run_seconds: int = Field(default=24 * 3600, ge=1)
    start_seconds: int = Field(default=300, ge=1, description="for the pod to run")
    job_kept_seconds: int = Field(default=6 * 3600, ge=60, description="ttlSecondsAfterFinished")
    run_kept_days: int = Field(default=90, ge=1)
    listing_seconds: float = Field(default=15, ge=0, description="how long a listing counts")
    reconcile_seconds: float = Field(default=5, gt=0)


class Settings(Section):
    database_url: str = Field(description="without a password, which libpq takes from PGPASSWORD")
    base_path: str = Field(default="", description="where the hub's proxy has the service")
    kubernetes_url: str = "https://kubernetes.default.svc"
    pod: Pod
    profiles: list[Profile] = Field(min_length=1)
    hub: Hub
    keycloak: Keycloak | None = None
    trigger: Trigger
    limits: Limits = Limits()

    @property
    def tracked(self) -> bool:
        """Whether the platform has an MLflow that runs are recorded in."""
        return "MLFLOW_TRACKING_URI" in self.pod.environment

    def profile(self, slug: str | None) -> Profile | None:
        """The profile of that slug, or the default one; None where there is no such."""
        if slug is None:
            return next((p for p in self.profiles if p.default), self.profiles[0])
        return next((p for p in self.profiles if p.slug == slug), None)


def load(file: Path | None = None) -> Settings:
    """Settings from the mounted file; raises SettingsError, one sentence for each key."""
    return read(Settings, file or Path(os.environ.get(FILE, DEFAULT_FILE)))


def read(model: type[Read], path: Path) -> Read:
    """A service's mounted settings; raises SettingsError, one sentence for each key."""
    try:
        return model.model_validate_json(path.read_bytes())
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}; the ConfigMap is mounted there") from error
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False)
        raise SettingsError(
            "\n".join(f"{path}: {'.'.join(map(str, f['loc']))}: {f['msg']}" for f in faults)
        ) from error
