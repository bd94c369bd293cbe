"""How every service shows its metrics to Prometheus: a port of its own, which no proxy leads to.

Network policies open it to the monitoring's namespace alone, so that it needs no token. No label
has a value that a person can choose, or as many values as there are people.
"""

from collections.abc import Callable, Iterable
from itertools import product

from prometheus_client import Counter, start_http_server

PORT = 9400


def serve(port: int = PORT) -> Callable[[], None]:
    """From a thread of its own, until the process ends or what is returned is called."""
    server, _ = start_http_server(port)

    def end() -> None:
        server.shutdown()
        server.server_close()

    return end


def begin(counter: Counter, **values: Iterable[str]) -> Counter:
    """The counter with a series, at 0, for each combination of labels: a rate needs one before the
    first event."""
    for each in product(*values.values()):
        counter.labels(**dict(zip(values, each, strict=True)))
    return counter
