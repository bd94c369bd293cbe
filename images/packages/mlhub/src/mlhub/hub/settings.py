"""The settings of the hub's own behaviour: `custom.mlhub` in the chart's values.

They arrive in the file where both charts mount their values, so there is one place to look.
"""

import os
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from mlhub.admission import Quotas

OF_NODE = "--"
"""Between the slug of a profile that is offered once for each node and the node's name."""

ETC = "MLHUB_HUB_ETC"
"""Environment variable that moves the folder which the chart mounts, for tests."""


class SettingsError(ValueError):
    """The values cannot configure a hub; the message names the key."""


def _url(value: str) -> str:
    scheme, _, rest = value.partition("://")
    if scheme not in ("http", "https") or not rest or value.endswith("/"):
        raise ValueError("an http(s) address without a slash at its end is required")
    return value


Url = Annotated[str, AfterValidator(_url)]
GroupPath = Annotated[str, StringConstraints(pattern=r"^(/[^/]+)+$")]
"""A Keycloak group by its full path, e.g. `/mlhub/users`."""

CALLBACK = "/hub/oauth_callback"


class Identity(BaseModel):
    """Who may log in, and the Keycloak that knows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    public_url: Url = Field(description="Keycloak as browsers reach it")
    internal_url: Url = Field(description="Keycloak as the hub reaches it")
    realm: str = Field(min_length=1)
    callback_url: Url = Field(description="the client's one redirect URI")
    access_groups: list[GroupPath] = Field(min_length=1)
    admin_groups: list[GroupPath] = []
    refresh_seconds: int = Field(
        default=300, ge=1, description="how long a membership counts before it is asked for again"
    )
    groups_claim: str = Field(default="groups", min_length=1)
    people_client: str = Field(
        default="", description="with which the hub looks people up; without, it does not"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.callback_url.endswith(CALLBACK):
            raise ValueError(f"callback_url is {self.callback_url!r}; it must end in {CALLBACK}")
        if strangers := sorted(set(self.admin_groups) - set(self.access_groups)):
            raise ValueError(
                f"admin_groups holds {strangers}, which access_groups does not; "
                "admins can log in, so list them in both"
            )
        return self

    @property
    def login_url(self) -> str:
        """The Hub's log-in page, where people land after they logged out."""
        return self.callback_url.removesuffix("/oauth_callback") + "/login"

    def public(self, endpoint: str) -> str:
        """An OpenID Connect endpoint of the realm, for the browser."""
        return f"{self.public_url}/realms/{self.realm}/protocol/openid-connect/{endpoint}"

    def internal(self, endpoint: str) -> str:
        """An OpenID Connect endpoint of the realm, for the hub."""
        return f"{self.internal_url}/realms/{self.realm}/protocol/openid-connect/{endpoint}"

    @property
    def people(self) -> str:
        """Where the realm's people are looked up."""
        return f"{self.internal_url}/admin/realms/{self.realm}/users"

    @property
    def workspaces(self) -> str:
        """Where the realm's groups of workspaces are looked up, by their slugs."""
        return f"{self.internal_url}/admin/realms/{self.realm}/group-by-path/workspaces"

    @property
    def discovery(self) -> str:
        """The realm's discovery document, as the hub reaches it."""
        return f"{self.internal_url}/realms/{self.realm}/.well-known/openid-configuration"


class Profile(BaseModel):
    """What the hub knows of a profile beside KubeSpawner's own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    groups: list[GroupPath] = Field(
        default=[], description="whose members are offered it; nobody named is everybody"
    )
    each_node: bool = Field(default=False, description="offered once for each GPU node")
    idle_timeout: int | None = Field(
        default=None, ge=60, description="seconds of idleness after which its servers stop"
    )
    max_age: int | None = Field(
        default=None, ge=60, description="seconds after which its servers stop, busy or not"
    )


class Gpu(BaseModel):
    """What holds for every server with a GPU."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_age: int | None = Field(
        default=None, ge=60, description="seconds after which they stop, busy or not"
    )
    idle_timeout: int | None = Field(
        default=None, ge=60, description="seconds without use of the GPU after which they stop"
    )


class Settings(BaseModel):
    """`custom.mlhub`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    identity: Identity
    profiles: dict[str, Profile] = Field(default={}, description="by the profile's slug")
    gpu: Gpu = Gpu()
    idle_timeout: int | None = Field(
        default=None, ge=60, description="of a server whose profile has none of its own"
    )
    git_hosts: frozenset[str] = Field(
        default=frozenset(), description="hosts, with their port where it is not 443, of git_repo"
    )
    quotas: Quotas = Quotas()
    metrics_port: int | None = Field(
        default=None, ge=1024, le=65535, description="where Prometheus reads; nowhere without it"
    )

    def profile(self, slug: str) -> Profile | None:
        """What is known of a profile by the slug that it was offered with."""
        if slug in self.profiles:
            return self.profiles[slug]
        of_nodes = (
            profile
            for stated, profile in self.profiles.items()
            if profile.each_node and slug.startswith(stated + OF_NODE)
        )
        return next(of_nodes, None)


def people_secret() -> str:
    """The secret of `people_client`, from the Secret that the chart mounted; raises OSError."""
    return (_etc() / "existing-secret" / "mlhub.people.client_secret").read_text()


def _etc() -> Path:
    return Path(os.environ.get(ETC, "/usr/local/etc/jupyterhub"))


def load() -> Settings:
    """The settings in the values that the chart mounted.

    Raises SettingsError, one sentence for each key that is wrong.
    """
    path = _etc() / "secret" / "values.yaml"
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except OSError as error:
        raise SettingsError(
            f"{path}: {error.strerror}; the chart mounts its values there"
        ) from error
    custom = values.get("custom") or {}
    if "mlhub" not in custom:
        raise SettingsError(f"{path}: custom.mlhub is missing; mlhub.hub takes its settings there")
    return parse(custom["mlhub"])


def parse(given: Any) -> Settings:
    """Settings from plain values; raises SettingsError, one sentence for each key."""
    try:
        return Settings.model_validate(given)
    except ValidationError as error:
        sentences = []
        for fault in error.errors(include_url=False):
            key = ".".join(["custom.mlhub", *map(str, fault["loc"])])
            value = "" if fault["type"] == "missing" else f" (given: {fault['input']!r})"
            message = fault["msg"].removeprefix("Value error, ")
            sentences.append(f"{key}: {message}{value}")
        raise SettingsError("\n".join(sentences)) from error
