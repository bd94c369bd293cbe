"""GPU-hours: how long which pod held how many GPUs, and what that makes in a week.

They are kept in a table of the hub's own database: a pod's annotations end with the pod, and the
database is backed up with the users. A row is written when a pod with GPUs is first seen, and its
end is moved on while it is seen, so that a hub that was down charges nobody for what it did not
see.
"""

import json
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from mlhub.admission.decision import Hours
from mlhub.admission.holdings import Charge, Holding

_tables = sa.MetaData()
_use = sa.Table(
    "mlhub_gpu_use",
    _tables,
    sa.Column("pod", sa.String(64), primary_key=True, doc="the pod's uid"),
    sa.Column("owner", sa.String(255), nullable=False),
    sa.Column("charges", sa.Text, nullable=False),
    sa.Column("gpus", sa.Integer, nullable=False),
    sa.Column("started", sa.DateTime, nullable=False, doc="UTC"),
    sa.Column("ended", sa.DateTime, nullable=False, index=True, doc="UTC; when last seen"),
)


def week_of(moment: datetime) -> datetime:
    """The Monday 00:00 UTC at or before `moment`."""
    day = moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return day - timedelta(days=day.weekday())


def gpu_hours(gpus: int, started: datetime, ended: datetime, since: datetime) -> float:
    """What one pod used at or after `since`."""
    return gpus * max(0.0, (ended - max(started, since)).total_seconds()) / 3600


class HourBook:
    """The table, and this week's sums by charge."""

    def __init__(self, engine: sa.Engine):
        self._engine = engine
        _tables.create_all(engine)

    def record(self, held: Iterable[Holding], now: datetime) -> None:
        """Each of `held` that has GPUs and a node used them until `now`."""
        using = {h.uid: h for h in held if h.size.gpu and h.started and h.uid}
        if not using:
            return
        with self._engine.begin() as connection:
            known = set(
                connection.execute(sa.select(_use.c.pod).where(_use.c.pod.in_(using))).scalars()
            )
            if known:
                seen = sa.update(_use).where(_use.c.pod.in_(known)).values(ended=_utc(now))
                connection.execute(seen)
            if new := [_row(using[uid], now) for uid in using if uid not in known]:
                connection.execute(sa.insert(_use), new)

    def used(self, now: datetime) -> Hours:
        """GPU-hours since the week's begin, by charge."""
        since = _utc(week_of(now))
        sums: defaultdict[Charge, float] = defaultdict(float)
        with self._engine.connect() as connection:
            for row in connection.execute(sa.select(_use).where(_use.c.ended > since)):
                hours = gpu_hours(row.gpus, row.started, row.ended, since)
                for kind, name in json.loads(row.charges):
                    sums[Charge(kind, name)] += hours
        return dict(sums)


def _row(holding: Holding, now: datetime) -> dict[str, object]:
    assert holding.started  # noqa: S101
    return {
        "pod": holding.uid,
        "owner": holding.owner,
        "charges": json.dumps(sorted(holding.charges)),
        "gpus": holding.size.gpu,
        "started": _utc(holding.started),
        "ended": _utc(now),
    }


def _utc(moment: datetime) -> datetime:
    """Without a zone, for the column."""
    return moment.astimezone(UTC).replace(tzinfo=None)
