"""What the service remembers, in a database that all replicas share.

Every change of a run's status is conditional on the status it had, so that two replicas that see
the same Job end write one end. Times are seconds since 1970, from the caller's clock.
"""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import sqlalchemy as sa

ACTIVE = ("queued", "running")
FINAL = ("succeeded", "failed", "cancelled", "lost")

WINDOW_SECONDS = 60
ASKS = 6
"""As often as a run may start in a minute, so many times is asked whether there is room."""

LEASE_SECONDS = 30
LOG_CHARACTERS = 300_000

PATIENCE = {
    "connect_timeout": 5,  # seconds
    "tcp_user_timeout": 20_000,  # milliseconds, as that which follows
    "options": "-c statement_timeout=30000",
}
"""With a PostgreSQL, in libpq's words: each of the few threads that ask it comes back."""

metadata = sa.MetaData()

runs = sa.Table(
    "execution_runs",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("user", sa.String(255), nullable=False, index=True),
    sa.Column("caller", sa.String(255), nullable=False),
    sa.Column("notebook", sa.String(1000), nullable=False),
    sa.Column("output", sa.String(1100), nullable=False),
    sa.Column("replace", sa.Boolean, nullable=False),
    sa.Column("parameters", sa.Text, nullable=False),
    sa.Column("profile", sa.String(100), nullable=False),
    sa.Column("time_limit", sa.Integer, nullable=False),
    sa.Column("cell_timeout", sa.Integer),
    sa.Column("created", sa.Float, nullable=False, index=True),
    sa.Column("status", sa.String(20), nullable=False, index=True),
    sa.Column("reason", sa.String(50)),
    sa.Column("message", sa.Text),
    sa.Column("error", sa.Text),
    sa.Column("cells_done", sa.Integer),
    sa.Column("cells_total", sa.Integer),
    sa.Column("size", sa.BigInteger),
    sa.Column("mlflow_run_id", sa.String(64)),
    sa.Column("started", sa.Float),
    sa.Column("finished", sa.Float),
    sa.Column("cancel_requested", sa.Boolean, nullable=False),
    sa.Column("idempotency_key", sa.String(200)),
    sa.Column("fingerprint", sa.String(64)),
    sa.Column("log", sa.Text),
    sa.Column("origin", sa.String(40)),
    sa.Column("workspace", sa.String(63)),
    sa.Column("mlflow_pending", sa.Boolean),
    sa.Column("collect_pending", sa.Boolean),
    sa.UniqueConstraint("caller", "idempotency_key", name="execution_one_run_a_key"),
)


def _slots(name: str) -> sa.Table:
    """One row for each time that a person may do something in a minute; each takes the oldest."""
    return sa.Table(
        name,
        metadata,
        sa.Column("user", sa.String(255), primary_key=True),
        sa.Column("slot", sa.Integer, primary_key=True),
        sa.Column("taken", sa.Float, nullable=False),
    )


slots = _slots("execution_slots")
"""Of runs that start. A start that is refused gives its slot back."""

asks = _slots("execution_asks")
"""Of asks whether there is room, which bound the refusals. None is given back."""

leases = sa.Table(
    "execution_leases",
    metadata,
    sa.Column("name", sa.String(300), primary_key=True),
    sa.Column("holder", sa.String(64), nullable=False),
    sa.Column("until", sa.Float, nullable=False),
)

listings = sa.Table(
    "execution_listings",
    metadata,
    sa.Column("user", sa.String(255), primary_key=True),
    sa.Column("taken", sa.Float, nullable=False),
    sa.Column("notebooks", sa.Text, nullable=False),
)

JSON_COLUMNS = ("parameters", "error")


@dataclass(frozen=True)
class Run:
    """One run; the columns of `execution_runs` but the log."""

    id: str
    user: str
    caller: str
    notebook: str
    output: str
    replace: bool
    parameters: dict[str, Any]
    profile: str
    time_limit: int
    cell_timeout: int | None
    created: float
    origin: str | None = None
    """`sweep/<id>` or `schedule/<id>` where it was not asked for by itself."""
    workspace: str | None = None
    status: str = "queued"
    reason: str | None = None
    message: str | None = None
    error: dict[str, Any] | None = None
    cells_done: int | None = None
    cells_total: int | None = None
    size: int | None = None
    mlflow_run_id: str | None = None
    started: float | None = None
    finished: float | None = None
    cancel_requested: bool = False
    idempotency_key: str | None = field(default=None, repr=False)
    fingerprint: str | None = field(default=None, repr=False)

    @property
    def active(self) -> bool:
        return self.status in ACTIVE

    def request(self) -> dict[str, Any]:
        """What a run is known again by (`adopted`)."""
        return {name: getattr(self, name) for name in REQUEST_FIELDS}


COLUMNS = tuple(f.name for f in fields(Run))
REQUEST_FIELDS = COLUMNS[: COLUMNS.index("status")]


class KeyTakenError(Exception):
    """A run with that idempotency key is there already."""


class Store:
    """Every method is one short transaction; call them from a thread."""

    def __init__(self, url: str):
        connect = {"timeout": 60} if url.startswith("sqlite") else PATIENCE
        self._engine = sa.create_engine(
            url, connect_args=connect, pool_pre_ping=True, pool_size=10, max_overflow=20
        )

    def close(self) -> None:
        self._engine.dispose()

    def prepare(self) -> None:
        """Make the tables, and columns that an older service had not; several replicas may do so
        at once."""
        for attempt in range(5):
            try:
                metadata.create_all(self._engine)
                self._add_columns()
            except (sa.exc.ProgrammingError, sa.exc.IntegrityError, sa.exc.OperationalError):
                if attempt == 4:
                    raise
                time.sleep(0.3 * (attempt + 1))
            else:
                return

    def _add_columns(self) -> None:
        """Each new column is one that may be empty, so that old rows and old replicas go on."""
        known = sa.inspect(self._engine)
        for table in metadata.sorted_tables:
            have = {column["name"] for column in known.get_columns(table.name)}
            for column in table.columns:
                if column.name not in have:
                    kind = column.type.compile(self._engine.dialect)
                    with self.begin() as connection:
                        connection.execute(
                            sa.text(f"ALTER TABLE {table.name} ADD COLUMN {column.name} {kind}")
                        )

    @contextmanager
    def begin(self) -> Iterator[sa.Connection]:
        with self._engine.begin() as connection:
            yield connection

    def ping(self) -> None:
        with self.begin() as connection:
            connection.execute(sa.select(1))

    # Runs

    def add(self, run: Run) -> None:
        """Raises KeyTakenError."""
        values = asdict(run)
        for column in JSON_COLUMNS:
            values[column] = json.dumps(values[column])
        try:
            with self.begin() as connection:
                connection.execute(runs.insert().values(values))
        except sa.exc.IntegrityError as error:
            raise KeyTakenError from error

    def get(self, run_id: str) -> Run | None:
        return next(iter(self._select(runs.c.id == run_id)), None)

    def by_key(self, caller: str, key: str) -> Run | None:
        found = self._select(runs.c.caller == caller, runs.c.idempotency_key == key)
        return next(iter(found), None)

    def find(
        self, *, user: str | None, status: str | None, limit: int, before: float | None
    ) -> list[Run]:
        """The newest first."""
        conditions = [
            column == value
            for column, value in ((runs.c.user, user), (runs.c.status, status))
            if value is not None
        ]
        if before is not None:
            conditions.append(runs.c.created < before)
        return self._select(*conditions, limit=limit)

    def collect_pending(self) -> list[Run]:
        """Runs that were killed, whose partial notebook has not got its name."""
        return self._select(runs.c.collect_pending.is_(True))

    def settle_collected(self, run_id: str, **values: Any) -> None:
        with self.begin() as connection:
            connection.execute(
                runs.update().where(runs.c.id == run_id).values(collect_pending=False, **values)
            )

    def some(self, ids: list[str]) -> list[Run]:
        return self._select(runs.c.id.in_(ids)) if ids else []

    def active(self, origin: str | None = None) -> list[Run]:
        """All, or those that one schedule or sweep has started."""
        started = () if origin is None else (runs.c.origin == origin,)
        return self._select(runs.c.status.in_(ACTIVE), *started)

    def known(self, ids: list[str]) -> set[str]:
        with self.begin() as connection:
            return set(connection.scalars(sa.select(runs.c.id).where(runs.c.id.in_(ids))))

    def change(self, run_id: str, **values: Any) -> bool:
        """Change a run that has not ended; whether it had not."""
        for column in JSON_COLUMNS:
            if column in values:
                values[column] = json.dumps(values[column])
        with self.begin() as connection:
            changed = connection.execute(
                runs.update().where(runs.c.id == run_id, runs.c.status.in_(ACTIVE)).values(**values)
            )
        return changed.rowcount == 1

    def mlflow_pending(self, since: float) -> list[Run]:
        """Runs that ended since then, whose MLflow run nobody has ended."""
        return self._select(runs.c.mlflow_pending.is_(True), runs.c.finished >= since)

    def settle_mlflow(self, run_id: str, mlflow_run_id: str | None) -> None:
        with self.begin() as connection:
            connection.execute(
                runs.update()
                .where(runs.c.id == run_id)
                .values(mlflow_pending=False, mlflow_run_id=mlflow_run_id)
            )

    def log(self, run_id: str) -> str | None:
        with self.begin() as connection:
            return connection.scalar(sa.select(runs.c.log).where(runs.c.id == run_id))

    def forget(self, before: float) -> int:
        """Delete what ended before then; how many."""
        with self.begin() as connection:
            return connection.execute(
                runs.delete().where(runs.c.status.in_(FINAL), runs.c.created < before)
            ).rowcount

    def _select(self, *conditions: sa.ColumnElement[bool], limit: int | None = None) -> list[Run]:
        query = (
            sa.select(*(runs.c[name] for name in COLUMNS))
            .where(*conditions)
            .order_by(runs.c.created.desc(), runs.c.id)
        )
        with self.begin() as connection:
            rows = connection.execute(query.limit(limit) if limit else query).mappings().all()
        return [_run(dict(row)) for row in rows]

    # The rate

    def take_slot(self, user: str, per_minute: int, now: float) -> float:
        """0 when one more run may be asked for and start now, otherwise the seconds until one may.

        Both slots are taken, or neither.
        """
        for table, count in ((slots, per_minute), (asks, per_minute * ASKS)):
            self._make_slots(table, user, count)
        while True:
            try:
                with self.begin() as connection:
                    _take(connection, slots, user, per_minute, now)
                    _take(connection, asks, user, per_minute * ASKS, now)
            except _NoSlotError as none:
                if none.wait > 0:
                    return none.wait
            else:
                return 0

    def give_back_slot(self, user: str, taken: float) -> None:
        """For a start that came to nothing; that it was asked for still counts."""
        with self.begin() as connection:
            connection.execute(
                slots.update().where(slots.c.user == user, slots.c.taken == taken).values(taken=0)
            )

    def _make_slots(self, table: sa.Table, user: str, count: int) -> None:
        while True:
            with self.begin() as connection:
                have = set(connection.scalars(sa.select(table.c.slot).where(table.c.user == user)))
            missing = [
                {"user": user, "slot": slot, "taken": 0}
                for slot in range(count)
                if slot not in have
            ]
            if not missing:
                return
            # Another replica may be making them; then they are there on the next look.
            with suppress(sa.exc.IntegrityError), self.begin() as connection:
                connection.execute(table.insert(), missing)

    # Leases

    def take_lease(self, name: str, holder: str, now: float) -> bool:
        """Whether `holder` has the lease now, for LEASE_SECONDS; a dead one, which does not renew
        it, loses it."""
        until = now + LEASE_SECONDS
        with self.begin() as connection:
            if connection.execute(
                leases.update()
                .where(leases.c.name == name, leases.c.until < now)
                .values(holder=holder, until=until)
            ).rowcount:
                return True
        try:
            with self.begin() as connection:
                connection.execute(leases.insert().values(name=name, holder=holder, until=until))
        except sa.exc.IntegrityError:
            return False
        return True

    def renew_leases(self, holder: str, now: float) -> None:
        with self.begin() as connection:
            connection.execute(
                leases.update().where(leases.c.holder == holder).values(until=now + LEASE_SECONDS)
            )

    def end_lease(self, name: str, holder: str) -> None:
        with self.begin() as connection:
            connection.execute(
                leases.delete().where(leases.c.name == name, leases.c.holder == holder)
            )

    # Listings

    def keep_listing(self, user: str, notebooks: list[dict[str, Any]], now: float) -> None:
        values = {"taken": now, "notebooks": json.dumps(notebooks)}
        for _ in range(2):
            with self.begin() as connection:
                if connection.execute(
                    listings.update().where(listings.c.user == user).values(**values)
                ).rowcount:
                    return
            try:
                with self.begin() as connection:
                    connection.execute(listings.insert().values(user=user, **values))
            except sa.exc.IntegrityError:
                continue
            return

    def listing(self, user: str, since: float) -> tuple[float, list[dict[str, Any]]] | None:
        """When it was taken, and the notebooks; None where none is from `since` or later."""
        with self.begin() as connection:
            row = connection.execute(
                sa.select(listings.c.taken, listings.c.notebooks).where(
                    listings.c.user == user, listings.c.taken >= since
                )
            ).first()
        return (row.taken, json.loads(row.notebooks)) if row else None


class _NoSlotError(Exception):
    """`wait` is in seconds; 0 where somebody was quicker and one may be free still."""

    def __init__(self, wait: float):
        super().__init__(wait)
        self.wait = wait


def _take(connection: sa.Connection, table: sa.Table, user: str, count: int, now: float) -> None:
    """Raises _NoSlotError.

    The update checks again what it has chosen, so two replicas never take one slot twice.
    """
    old = now - WINDOW_SECONDS
    mine = table.alias()
    oldest = (
        sa.select(mine.c.slot)
        .where(mine.c.user == user, mine.c.slot < count, mine.c.taken <= old)
        .order_by(mine.c.taken, mine.c.slot)
        .limit(1)
        .scalar_subquery()
    )
    take = (
        table.update()
        .where(table.c.user == user, table.c.slot == oldest, table.c.taken <= old)
        .values(taken=now)
    )
    if connection.execute(take).rowcount == 1:
        return
    first = sa.select(sa.func.min(table.c.taken)).where(table.c.user == user, table.c.slot < count)
    raise _NoSlotError(max(0.0, float(connection.scalar(first) or 0) - old))


def _run(values: dict[str, Any]) -> Run:
    for column in JSON_COLUMNS:
        values[column] = json.loads(values[column]) if values[column] is not None else None
    return Run(**values)


def adopted(request: Mapping[str, Any]) -> Run:
    """A run from its Job's annotation; raises TypeError for what is none.

    An older service's Job lacks what runs did not have then.
    """
    return Run(**{name: request[name] for name in REQUEST_FIELDS if name in request})
