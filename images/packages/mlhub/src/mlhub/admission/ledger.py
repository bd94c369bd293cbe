"""What is held and what is promised; one thread asks, so that no two get the same share.

The pods are the truth. Between a yes and its pod stands a reservation, which ends when the pod is
seen, when the start failed, or when its time is over. No method awaits: in the hub's event loop
each is atomic.
"""

import secrets
from collections.abc import Callable, Collection, Mapping, MutableMapping
from dataclasses import dataclass, replace

from mlhub.admission.decision import Answer, Ask, Hours, decide
from mlhub.admission.holdings import Holding
from mlhub.admission.limits import Quotas


@dataclass(frozen=True)
class Reservation:
    holding: Holding
    expires: float
    """On the clock of the ledger, in seconds."""
    outlives: bool = False
    """Whether its pod may still come when the hub that promised it has ended."""


class Ledger:
    """Decides, and keeps what it promised.

    `seen` gives what the pods hold by their uid, `hours` the GPU-hours of this week; `clock` tells
    seconds. `reserved` is where promises are kept, for this process alone where none is given.
    """

    def __init__(
        self,
        quotas: Quotas,
        seen: Callable[[], Mapping[str, Holding]],
        hours: Callable[[], Hours],
        clock: Callable[[], float],
        reserved: MutableMapping[str, Reservation] | None = None,
    ):
        self.quotas = quotas
        self.hours = hours
        self._seen = seen
        self._clock = clock
        self._reserved = {} if reserved is None else reserved

    def held(self) -> Collection[Holding]:
        """Everything that counts now, each server and run once."""
        pods = self._seen().values()
        # Promises are few and servers a thousand.
        there, now = {pod.reservation for pod in pods}, self._clock()
        for over in [k for k, kept in self._reserved.items() if k in there or kept.expires <= now]:
            del self._reserved[over]
        return [*pods, *(kept.holding for kept in self._reserved.values())]

    def ask(self, ask: Ask) -> Answer:
        """The answer as things are; an earlier promise to its name does not count."""
        held = [holding for holding in self.held() if holding.uid or holding.name != ask.name]
        return decide(ask, held, self.quotas, self.hours())

    def admit(self, ask: Ask, seconds: float, reservation: str = "") -> Answer:
        """The answer, and with a yes a promise for `seconds`.

        It replaces an earlier promise to the same name, and has the id of an earlier `reservation`
        where one is given, even of the time before the hub's restart.
        """
        answer = self.ask(ask)
        if not answer.admitted:
            return answer
        for key, kept in list(self._reserved.items()):
            if kept.holding.name == ask.name:
                del self._reserved[key]
        key = reservation or secrets.token_hex(8)
        self._reserved[key] = Reservation(ask.held(key), self._clock() + seconds, not ask.again)
        return replace(answer, reservation=key)

    def release(self, reservation: str) -> bool:
        """End a promise; False if there is none, for it is over or its pod is there."""
        return self._reserved.pop(reservation, None) is not None

    def owner_of(self, reservation: str) -> str | None:
        """Whose a promise is, or None."""
        kept = self._reserved.get(reservation)
        return kept.holding.owner if kept else None
