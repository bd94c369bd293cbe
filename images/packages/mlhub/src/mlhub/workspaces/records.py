"""A workspace as Keycloak's groups say it.

`/workspaces/<slug>` with the role groups below it, and what people read in its attributes. A suffix
on the name, which no slug has, says that it does not count: nobody has a role in a group of another
path, not in the Hub, not in MLflow, not in a mount. So a rename hides, restores and publishes.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from mlhub.workspaces.directory import Group
from mlhub.workspaces.mounts import ROLES

TOP = "workspaces"
DELETED = ".deleted"
MAKING = ".making"
"""Of one that is not whole yet; whoever makes it again goes on with it."""

NAME, DESCRIPTION, SIZE = "mlhub.name", "mlhub.description", "mlhub.size"
CREATOR, CREATED, DELETED_AT = "mlhub.creator", "mlhub.created", "mlhub.deleted"


def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


@dataclass(frozen=True)
class Record:
    """One workspace; `group` is the one above its roles."""

    group: Group

    @property
    def slug(self) -> str:
        return self.group.name.removesuffix(DELETED).removesuffix(MAKING)

    @property
    def name(self) -> str:
        return self.group.attributes.get(NAME, self.slug)

    @property
    def creator(self) -> str:
        """Empty for one of the stack file."""
        return self.group.attributes.get(CREATOR, "")

    @property
    def deleted(self) -> datetime | None:
        if not self.group.name.endswith(DELETED):
            return None
        try:
            at = datetime.fromisoformat(self.group.attributes[DELETED_AT])
            return at if at.tzinfo else at.replace(tzinfo=UTC)
        except (KeyError, ValueError):
            # Somebody else's rename: its grace never ends by itself.
            return datetime.max.replace(tzinfo=UTC)

    def restorable_until(self, grace: timedelta) -> datetime | None:
        deleted = self.deleted
        if deleted is None or deleted.year == datetime.max.year:
            return deleted
        return deleted + grace

    @property
    def making(self) -> bool:
        return self.group.name.endswith(MAKING)


def roles_in(paths: list[str]) -> dict[str, str]:
    """The strongest role in each group below `/workspaces`, by that group's name."""
    found: dict[str, str] = {}
    for path in paths:
        parts = path.split("/")
        if len(parts) == 4 and parts[:2] == ["", TOP] and parts[3] in ROLES:
            name, role = parts[2], parts[3]
            found[name] = min(role, found.get(name, role), key=ROLES.index)
    return found
