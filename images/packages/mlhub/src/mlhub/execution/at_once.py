"""What somebody may keep open of a replica: such a request holds a connection, or asks Kubernetes
twice a second, for as long as its run goes on."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from mlhub.execution.problems import Problem

MOST_OPEN = 20


class AtOnce:
    """Requests of one kind; `open` counts them by caller."""

    def __init__(self, advice: str):
        self._advice = advice
        self.open: Counter[str] = Counter()

    @contextmanager
    def one(self, caller: str) -> Iterator[None]:
        """Raises Problem (429) where that many are open."""
        if self.open[caller] >= MOST_OPEN:
            raise Problem(
                429,
                "open",
                f"At most {MOST_OPEN} such requests of one caller are open at a time. "
                f"{self._advice}",
                headers={"Retry-After": "10"},
            )
        self.open[caller] += 1
        try:
            yield
        finally:
            self.open[caller] -= 1
            if not self.open[caller]:
                del self.open[caller]
