"""What the service remembers: what is shared, and who among the replicas is at work on what.

Roles are not here; Keycloak has them. What is shared hangs on Keycloak's id of the workspace, so
that a later one of the same slug begins with nothing.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import sqlalchemy as sa

from mlhub.execution import store as execution
from mlhub.execution.leases import renewed
from mlhub.execution.problems import Problem

T = TypeVar("T")

WAIT_SECONDS = 20.0

metadata = sa.MetaData()
leases = execution.leases.to_metadata(metadata)

resources = sa.Table(
    "workspace_resources",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("workspace", sa.String(64), nullable=False, index=True),
    sa.Column("type", sa.String(20), nullable=False),
    sa.Column("path", sa.String(500), nullable=False),
    sa.Column("shared_by", sa.String(255), nullable=False),
    sa.Column("shared", sa.Float, nullable=False),
    sa.UniqueConstraint("workspace", "path", name="workspace_path_shared_once"),
)

ended = sa.Table(
    "workspaces_ended",
    metadata,
    sa.Column("slug", sa.String(63), primary_key=True),
    sa.Column("at", sa.Float, nullable=False),
)
"""Whose data in MLflow stay, by the slug, when all else is gone."""


@dataclass(frozen=True)
class Shared:
    """Something in a workspace that somebody has pointed the others to."""

    id: str
    type: str
    path: str
    shared_by: str
    shared: float
    """Seconds since 1970."""


class Store(execution.Store):
    """Every method but `alone` is one short transaction; call them through `db`."""

    def prepare(self) -> None:
        """Make the tables; several replicas may do so at once."""
        for attempt in range(5):
            try:
                metadata.create_all(self._engine)
            except (sa.exc.ProgrammingError, sa.exc.IntegrityError, sa.exc.OperationalError):
                if attempt == 4:
                    raise
                time.sleep(0.3 * (attempt + 1))
            else:
                return

    async def db(self, call: Callable[..., T], *given: Any) -> T:
        """A method of this one's; raises Problem (503) where the database is silent."""
        try:
            return await asyncio.to_thread(call, *given)
        except (sa.exc.OperationalError, sa.exc.TimeoutError, sa.exc.InterfaceError) as error:
            raise Problem(
                503,
                "database",
                "The service's database does not answer. Try again in a minute.",
                headers={"Retry-After": "10"},
            ) from error

    @asynccontextmanager
    async def alone(self, *names: str) -> AsyncIterator[None]:
        """Alone with these names among all replicas; raises Problem (503) after WAIT_SECONDS.

        Taken in order, so that no two wait for each other, and renewed while they are held.
        """
        holder = secrets.token_hex(16)
        deadline = time.monotonic() + WAIT_SECONDS
        async with contextlib.AsyncExitStack() as held:
            for name in sorted(set(names)):
                while not await self.db(self.take_lease, name, holder, time.time()):
                    if time.monotonic() > deadline:
                        raise Problem(
                            503,
                            "busy",
                            "Too much is asked for this at once. Try again in a minute.",
                        )
                    await asyncio.sleep(0.05)
                held.push_async_callback(self._end, name, holder)
            async with renewed(lambda: self.db(self.renew_leases, holder, time.time())):
                yield

    async def _end(self, name: str, holder: str) -> None:
        await asyncio.shield(self.db(self.end_lease, name, holder))

    # What is shared

    def share(self, workspace: str, type: str, path: str, by: str) -> Shared:
        """What is shared already stays as it is."""
        made = Shared(secrets.token_hex(8), type, path, by, time.time())
        with contextlib.suppress(sa.exc.IntegrityError), self.begin() as connection:
            connection.execute(resources.insert().values(workspace=workspace, **vars(made)))
            return made
        return next((each for each in self.shared(workspace) if each.path == path), made)

    def shared(self, workspace: str) -> list[Shared]:
        columns = [resources.c[name] for name in Shared.__dataclass_fields__]
        with self.begin() as connection:
            rows = connection.execute(
                sa.select(*columns)
                .where(resources.c.workspace == workspace)
                .order_by(resources.c.shared, resources.c.id)
            ).all()
        return [Shared(**row._mapping) for row in rows]

    def unshare(self, workspace: str, id: str) -> bool:
        """Whether it was there."""
        with self.begin() as connection:
            gone = connection.execute(
                resources.delete().where(resources.c.workspace == workspace, resources.c.id == id)
            )
        return bool(gone.rowcount)

    def end(self, workspace: str, slug: str) -> None:
        """The workspace is gone for good."""
        with self.begin() as connection:
            connection.execute(resources.delete().where(resources.c.workspace == workspace))
            connection.execute(ended.delete().where(ended.c.slug == slug))
            connection.execute(ended.insert().values(slug=slug, at=time.time()))

    def ended(self, slug: str) -> float | None:
        """When the last workspace of that slug was gone for good, in seconds since 1970."""
        with self.begin() as connection:
            return connection.scalar(sa.select(ended.c.at).where(ended.c.slug == slug))
