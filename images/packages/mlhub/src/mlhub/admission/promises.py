"""Promises that outlive the hub, in a table of its own database.

A server's promise ends with the hub that was to make its pod. A run's pod is made elsewhere, also
while no hub is there: forgotten, its share would be given away a second time.
"""

import json
import logging
from collections import UserDict
from datetime import UTC, datetime

import sqlalchemy as sa

from mlhub.admission.holdings import Charge, Holding
from mlhub.admission.ledger import Reservation
from mlhub.admission.sizes import Size

_tables = sa.MetaData()
_promises = sa.Table(
    "mlhub_promises",
    _tables,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("name", sa.String(512), nullable=False, doc="the run's, e.g. alice/run/r1"),
    sa.Column("owner", sa.String(255), nullable=False),
    sa.Column("charges", sa.Text, nullable=False),
    sa.Column("cpu", sa.Float, nullable=False),
    sa.Column("memory", sa.BigInteger, nullable=False, doc="bytes"),
    sa.Column("gpu", sa.Integer, nullable=False),
    sa.Column("expires", sa.Float, nullable=False, doc="seconds since 1970, UTC"),
)


class Promises(UserDict[str, Reservation]):
    """The reservations by their ids; those that outlive the hub are read back from `engine`."""

    def __init__(self, engine: sa.Engine, log: logging.Logger):
        super().__init__()
        self._engine = engine
        self._log = log
        _tables.create_all(engine)
        now = datetime.now(UTC).timestamp()
        with engine.begin() as connection:
            connection.execute(sa.delete(_promises).where(_promises.c.expires <= now))
            for row in connection.execute(sa.select(_promises)):
                charges = frozenset(Charge(kind, name) for kind, name in json.loads(row.charges))
                size = Size(row.cpu, row.memory, row.gpu)
                held = Holding(row.name, row.owner, size, charges, reservation=row.id)
                self.data[row.id] = Reservation(held, row.expires, outlives=True)

    def __setitem__(self, key: str, kept: Reservation) -> None:
        """Keep it, first where it lasts; raises what the database does."""
        if kept.outlives:
            held = kept.holding
            row = {
                "id": key,
                "name": held.name,
                "owner": held.owner,
                "charges": json.dumps(sorted(held.charges)),
                **held.size.plain(),
                "expires": kept.expires,
            }
            with self._engine.begin() as connection:
                connection.execute(sa.delete(_promises).where(_promises.c.id == key))
                connection.execute(sa.insert(_promises), row)
        super().__setitem__(key, kept)

    def __delitem__(self, key: str) -> None:
        kept = self.data.pop(key)
        if not kept.outlives:
            return
        try:
            with self._engine.begin() as connection:
                connection.execute(sa.delete(_promises).where(_promises.c.id == key))
        except sa.exc.SQLAlchemyError as error:
            # The row ends with its time, or with its pod at the hub's next start.
            self._log.warning("The promise %s is over and stays in the database: %r", key, error)
