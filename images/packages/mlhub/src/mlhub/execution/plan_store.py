"""What the service remembers of schedules and sweeps; see `store` for the manner."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import sqlalchemy as sa

from mlhub.execution.store import Store, metadata, runs

schedules = sa.Table(
    "execution_schedules",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("user", sa.String(255), nullable=False, index=True),
    sa.Column("caller", sa.String(255), nullable=False),
    sa.Column("name", sa.String(100), nullable=False),
    sa.Column("notebook", sa.String(1000), nullable=False),
    sa.Column("parameters", sa.Text, nullable=False),
    sa.Column("how", sa.Text, nullable=False),
    sa.Column("cron", sa.String(100), nullable=False),
    sa.Column("time_zone", sa.String(100), nullable=False),
    sa.Column("suspended", sa.Boolean, nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("token_hash", sa.String(64), nullable=False),
    sa.Column("armed", sa.Boolean, nullable=False),
    sa.Column("deleted", sa.Boolean, nullable=False),
    sa.Column("created", sa.Float, nullable=False),
    sa.Column("checked", sa.Float, nullable=False),
    sa.UniqueConstraint("user", "name", name="execution_one_schedule_a_name"),
)

firings = sa.Table(
    "execution_firings",
    metadata,
    sa.Column("schedule", sa.String(32), primary_key=True),
    sa.Column("at", sa.Float, primary_key=True),
    sa.Column("outcome", sa.String(20), nullable=False),
    sa.Column("reason", sa.String(50)),
    sa.Column("message", sa.Text),
    sa.Column("run_id", sa.String(32)),
)

sweeps = sa.Table(
    "execution_sweeps",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("user", sa.String(255), nullable=False, index=True),
    sa.Column("caller", sa.String(255), nullable=False),
    sa.Column("notebook", sa.String(1000), nullable=False),
    sa.Column("parameters", sa.Text, nullable=False),
    sa.Column("grid", sa.Text, nullable=False),
    sa.Column("how", sa.Text, nullable=False),
    sa.Column("parallel", sa.Integer, nullable=False),
    sa.Column("created", sa.Float, nullable=False, index=True),
    sa.Column("idempotency_key", sa.String(200)),
    sa.Column("fingerprint", sa.String(64)),
    sa.UniqueConstraint("caller", "idempotency_key", name="execution_one_sweep_a_key"),
)

points = sa.Table(
    "execution_points",
    metadata,
    sa.Column("sweep", sa.String(32), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("parameters", sa.Text, nullable=False),
    sa.Column("state", sa.String(20), nullable=False, index=True),
    sa.Column("run_id", sa.String(32)),
    sa.Column("message", sa.Text),
)

JSON_COLUMNS = ("parameters", "how", "grid")


@dataclass(frozen=True)
class Schedule:
    """`how` is profile, limits and workspace of its runs; `checked` until when missed firings have
    been looked for; `armed` whether its CronJob has the token whose hash is here."""

    id: str
    user: str
    caller: str
    name: str
    notebook: str
    parameters: dict[str, Any]
    how: dict[str, Any]
    cron: str
    time_zone: str
    suspended: bool
    reason: str | None
    token_hash: str
    armed: bool
    deleted: bool
    created: float
    checked: float


@dataclass(frozen=True)
class Firing:
    """What became of one time of a schedule: `started`, `skipped`, `refused` or `missed`."""

    schedule: str
    at: float
    outcome: str
    reason: str | None = None
    message: str | None = None
    run_id: str | None = None


@dataclass(frozen=True)
class Sweep:
    """Runs of one notebook over a grid of parameters."""

    id: str
    user: str
    caller: str
    notebook: str
    parameters: dict[str, Any]
    grid: dict[str, list[Any]]
    how: dict[str, Any]
    parallel: int
    created: float
    idempotency_key: str | None = None
    fingerprint: str | None = None


@dataclass(frozen=True)
class Point:
    """One run of a sweep: `waiting`, then `started`, `refused` or `cancelled`."""

    sweep: str
    number: int
    parameters: dict[str, Any]
    state: str = "waiting"
    run_id: str | None = None
    message: str | None = None


class TakenError(Exception):
    """A row with that name or key is there already."""


def _columns(kind: type[Any], row: Any) -> Any:
    values = {f.name: row[f.name] for f in fields(kind)}
    for column in JSON_COLUMNS:
        if values.get(column) is not None:
            values[column] = json.loads(values[column])
    return kind(**values)


def _row(item: Any) -> dict[str, Any]:
    values = asdict(item)
    for column in JSON_COLUMNS:
        if values.get(column) is not None:
            values[column] = json.dumps(values[column])
    return values


class PlanStore:
    """Every method is one short transaction; call them from a thread."""

    def __init__(self, store: Store):
        self._begin = store.begin

    def _select(self, kind: type[Any], query: sa.Select[Any]) -> list[Any]:
        with self._begin() as connection:
            return [_columns(kind, row) for row in connection.execute(query).mappings()]

    def _insert(self, table: sa.Table, items: Sequence[Any]) -> None:
        """Raises TakenError."""
        try:
            with self._begin() as connection:
                connection.execute(table.insert(), [_row(item) for item in items])
        except sa.exc.IntegrityError as error:
            raise TakenError from error

    # Schedules

    def add_schedule(self, schedule: Schedule) -> None:
        """Raises TakenError."""
        self._insert(schedules, [schedule])

    def schedule(self, schedule_id: str) -> Schedule | None:
        query = sa.select(schedules).where(schedules.c.id == schedule_id)
        return next(iter(self._select(Schedule, query)), None)

    def schedules(self, user: str | None = None) -> list[Schedule]:
        """Those of a person; without one all, the deleted that still have to be cleared among
        them."""
        query = sa.select(schedules).order_by(schedules.c.created, schedules.c.id)
        if user is not None:
            query = query.where(schedules.c.user == user, ~schedules.c.deleted)
        return self._select(Schedule, query)

    def change_schedule(self, schedule_id: str, **values: Any) -> None:
        if not values:
            return
        with self._begin() as connection:
            connection.execute(
                schedules.update()
                .where(schedules.c.id == schedule_id)
                .values({k: json.dumps(v) if k in JSON_COLUMNS else v for k, v in values.items()})
            )

    def drop_schedule(self, schedule_id: str) -> None:
        with self._begin() as connection:
            connection.execute(firings.delete().where(firings.c.schedule == schedule_id))
            connection.execute(schedules.delete().where(schedules.c.id == schedule_id))

    def note_firing(self, firing: Firing) -> None:
        """Write down what became of a firing; a refusal that was tried again gives way."""
        key = (firings.c.schedule == firing.schedule, firings.c.at == firing.at)
        with self._begin() as connection:
            connection.execute(firings.delete().where(*key, firings.c.outcome != "started"))
        try:
            self._insert(firings, [firing])
        except TakenError:  # it started meanwhile
            return

    def firing(self, schedule_id: str, at: float) -> Firing | None:
        query = sa.select(firings).where(firings.c.schedule == schedule_id, firings.c.at == at)
        return next(iter(self._select(Firing, query)), None)

    def last_firings(self, schedule_id: str, count: int) -> list[Firing]:
        """The newest first."""
        query = (
            sa.select(firings)
            .where(firings.c.schedule == schedule_id)
            .order_by(firings.c.at.desc())
            .limit(count)
        )
        return self._select(Firing, query)

    def forget(self, before: float) -> None:
        """Delete firings and whole sweeps of before then that have nothing left to do."""
        waiting = sa.select(points.c.sweep).where(points.c.state == "waiting")
        old = sa.select(sweeps.c.id).where(sweeps.c.created < before, sweeps.c.id.not_in(waiting))
        with self._begin() as connection:
            connection.execute(firings.delete().where(firings.c.at < before))
            connection.execute(points.delete().where(points.c.sweep.in_(old)))
            connection.execute(
                sweeps.delete().where(sweeps.c.created < before, sweeps.c.id.not_in(waiting))
            )

    # Sweeps

    def add_sweep(self, sweep: Sweep, made: Sequence[Point]) -> None:
        """The sweep and all its points, or nothing; raises TakenError."""
        try:
            with self._begin() as connection:
                connection.execute(sweeps.insert(), _row(sweep))
                connection.execute(points.insert(), [_row(point) for point in made])
        except sa.exc.IntegrityError as error:
            raise TakenError from error

    def sweep(self, sweep_id: str) -> Sweep | None:
        return next(
            iter(self._select(Sweep, sa.select(sweeps).where(sweeps.c.id == sweep_id))), None
        )

    def sweep_by_key(self, caller: str, key: str) -> Sweep | None:
        query = sa.select(sweeps).where(sweeps.c.caller == caller, sweeps.c.idempotency_key == key)
        return next(iter(self._select(Sweep, query)), None)

    def sweeps(self, user: str, limit: int) -> list[Sweep]:
        """The newest first."""
        query = (
            sa.select(sweeps)
            .where(sweeps.c.user == user)
            .order_by(sweeps.c.created.desc(), sweeps.c.id)
            .limit(limit)
        )
        return self._select(Sweep, query)

    def waiting_sweeps(self, user: str | None = None) -> list[Sweep]:
        """Those with points that have not started, the oldest first; without a user everybody's."""
        waiting = sa.select(points.c.sweep).where(points.c.state == "waiting")
        query = sa.select(sweeps).where(sweeps.c.id.in_(waiting)).order_by(sweeps.c.created)
        if user is not None:
            query = query.where(sweeps.c.user == user)
        return self._select(Sweep, query)

    def begun(self, user: str, since: float) -> list[float]:
        """When each sweep of a person's began that did since then, the oldest first."""
        query = (
            sa.select(sweeps.c.created)
            .where(sweeps.c.user == user, sweeps.c.created > since)
            .order_by(sweeps.c.created)
        )
        with self._begin() as connection:
            return list(connection.scalars(query))

    def counts(self, ids: Sequence[str]) -> dict[str, dict[str, int]]:
        """How many points of each sweep are what; of one that has started, what its run is."""
        # A point whose run is forgotten is what it was.
        state = sa.func.coalesce(runs.c.status, points.c.state)
        query = (
            sa.select(points.c.sweep, state, sa.func.count())
            .select_from(points.outerjoin(runs, runs.c.id == points.c.run_id))
            .where(points.c.sweep.in_(ids))
            .group_by(points.c.sweep, state)
        )
        found: dict[str, dict[str, int]] = {sweep_id: {} for sweep_id in ids}
        with self._begin() as connection:
            for sweep_id, what, count in connection.execute(query):
                found[sweep_id][what] = count
        return found

    def points(self, sweep_id: str) -> list[Point]:
        query = sa.select(points).where(points.c.sweep == sweep_id).order_by(points.c.number)
        return self._select(Point, query)

    def settle_point(self, point: Point, state: str, **values: Any) -> bool:
        """Whether it was waiting until now."""
        with self._begin() as connection:
            changed = connection.execute(
                points.update()
                .where(
                    points.c.sweep == point.sweep,
                    points.c.number == point.number,
                    points.c.state == "waiting",
                )
                .values(state=state, **values)
            )
        return changed.rowcount == 1

    def settle_points(self, sweep_id: str, state: str, message: str | None = None) -> None:
        """All that wait."""
        with self._begin() as connection:
            connection.execute(
                points.update()
                .where(points.c.sweep == sweep_id, points.c.state == "waiting")
                .values(state=state, message=message)
            )
