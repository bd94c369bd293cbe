"""What to verify, as whoever starts it knows it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

TEMPORARY = "mlhub-verify"
"""The person's name, always the same: their volume is kept and used again, so that nothing ever
deletes one."""


@dataclass(frozen=True)
class Settings:
    """`via` maps a published address to one that answers here: in a pod, `localhost` does not."""

    hub_url: str
    keycloak_url: str
    realm: str
    groups: tuple[str, ...]
    """Full paths, out of the stack's access groups."""
    login_realm: str
    """Where the account that makes the person logs in."""
    client_id: str
    client_secret: str | None = field(default=None, repr=False)
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    profiles: tuple[str, ...] = ()
    """The only ones to start, by slug; empty for each that is offered."""
    mlflow: bool = False
    execution: bool = False
    start_seconds: int = 300
    """The longest that a server or run may take to be there."""
    via: Mapping[str, str] = field(default_factory=dict)
