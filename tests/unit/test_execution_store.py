import pytest
import sqlalchemy as sa

from mlhub.execution.store import Store


class SeenError(Exception):
    """Before there is a connection."""


def test_P6_a_database_that_falls_silent_holds_a_call_for_half_a_minute_at_most():
    store, given = Store("postgresql+psycopg2://execution@postgres/execution"), {}

    @sa.event.listens_for(store._engine, "do_connect")
    def connect(_dialect, _record, _arguments, parameters):
        given.update(parameters)
        raise SeenError

    with pytest.raises(SeenError):
        store.ping()
    # A server that is gone, one whose node is, one that is stuck; milliseconds but the first.
    assert given["connect_timeout"] <= 30
    assert int(given["tcp_user_timeout"]) <= 30_000
    assert given["options"] == "-c statement_timeout=30000"
