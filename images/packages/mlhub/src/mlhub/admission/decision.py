"""The decision itself: pure arithmetic, and the sentence that a person can act on."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mlhub.admission.holdings import Charge, Holding
from mlhub.admission.limits import Limits, Quotas
from mlhub.admission.sizes import Size, say

Hours = Mapping[Charge, float]
"""GPU-hours used this week."""

SIZES = ("cpu", "memory", "gpu")
ADMITTED, TOO_LARGE, NO_ROOM = 200, 403, 429
LARGEST = "largest"
REASONS = ("servers", *SIZES, "gpu_hours", LARGEST)


@dataclass(frozen=True)
class Ask:
    """Somebody wants a server or a run."""

    name: str
    owner: str
    size: Size
    charges: frozenset[Charge]
    profile: str = ""
    again: bool = True
    """Whether a pod of the same name ends for it, as a server's does when it starts again."""

    def amounts(self) -> dict[str, float]:
        return {"servers": 1, **self.size.plain()}

    def held(self, reservation: str) -> Holding:
        """What is held once it is admitted."""
        return Holding(
            self.name,
            self.owner,
            self.size,
            self.charges,
            reservation=reservation,
            profile=self.profile,
        )


@dataclass(frozen=True)
class Account:
    """One charge's limits and what is used of them, each by dimension."""

    charge: Charge
    limit: Mapping[str, float]
    used: Mapping[str, float]

    def remains(self, dimension: str) -> float:
        return max(0.0, self.limit[dimension] - self.used[dimension])

    def plain(self) -> dict[str, Any]:
        return {
            "of": {"kind": self.charge.kind, "name": self.charge.name},
            "limit": dict(self.limit),
            "used": dict(self.used),
            "remains": {dimension: self.remains(dimension) for dimension in self.limit},
        }


@dataclass(frozen=True)
class Answer:
    """Yes or no, and everything that a person or a program needs to ask better."""

    ask: Ask
    accounts: tuple[Account, ...]
    fits: Mapping[str, float] | None
    """The most that one more server could take now, where there is a limit; None is no room."""
    sentence: str = ""
    """Why not; empty for a yes."""
    status: int = ADMITTED
    """The HTTP status: 200, 403 for what is never allowed, 429 for what has no room now."""
    reason: str = ""
    """A word for the metrics: the dimension that lacks room, or `largest`; empty for a yes."""
    reservation: str = ""

    @property
    def admitted(self) -> bool:
        return self.status == ADMITTED

    def plain(self) -> dict[str, Any]:
        """For JSON: cores, bytes, whole GPUs, hours."""
        return {
            "admitted": self.admitted,
            "status": self.status,
            "sentence": self.sentence,
            "name": self.ask.name,
            "asked": self.ask.amounts(),
            "accounts": [account.plain() for account in self.accounts],
            "fits": None if self.fits is None else dict(self.fits),
            "reservation": self.reservation,
        }


def decide(ask: Ask, held: Collection[Holding], quotas: Quotas, hours: Hours) -> Answer:
    """The answer to `ask` while `held` is held; it changes nothing."""
    others = [holding for holding in held if not (ask.again and holding.name == ask.name)]
    return judge(ask, tuple(accounts(ask.charges, others, quotas, hours)), quotas)


def accounts(
    charges: Iterable[Charge], held: Collection[Holding], quotas: Quotas, hours: Hours
) -> Iterator[Account]:
    """The limits that concern `charges` and what is used of them, the person's own first."""
    for charge in sorted(charges, key=lambda charge: (charge.kind != "user", charge)):
        limits = limits_of(charge, quotas)
        if limits is None:
            continue
        mine = [holding for holding in held if charge in holding.charges]
        # Not by Size's own addition, which makes an object for each of a thousand servers.
        size = Size(
            sum(holding.size.cpu for holding in mine),
            sum(holding.size.memory for holding in mine),
            sum(holding.size.gpu for holding in mine),
        )
        limit = limits.amounts()
        used: dict[str, float] = {"servers": len(mine), **size.plain()}
        if limits.gpu_hours is not None:
            limit["gpu_hours"] = limits.gpu_hours
            used["gpu_hours"] = hours.get(charge, 0.0)
        yield Account(charge, limit, used)


def limits_of(charge: Charge, quotas: Quotas) -> Limits | None:
    match charge.kind:
        case "user":
            return quotas.user
        case "group":
            return quotas.groups.get(charge.name)
        case _:
            return quotas.workspace


def judge(ask: Ask, held: tuple[Account, ...], quotas: Quotas) -> Answer:
    """The answer to `ask` in view of its accounts."""
    largest = quotas.server.amounts()
    fits = _fits(held, largest)
    for dimension, most in largest.items():
        if (wanted := ask.amounts()[dimension]) > most:
            sentence = (
                f"You asked for {say(dimension, wanted)}; one server may have at most "
                f"{say(dimension, most)}."
            )
            return Answer(ask, held, fits, sentence, TOO_LARGE, LARGEST)
    for account in held:
        for dimension in account.limit:
            if sentence := _shortage(ask, account, dimension):
                if dimension in SIZES and (room := _said(fits or {})):
                    sentence += f" What fits now: {room}."
                return Answer(ask, held, fits, sentence, NO_ROOM, dimension)
    return Answer(ask, held, fits)


def _said(fits: Mapping[str, float]) -> str:
    """In words, or nothing: without cores or memory no server fits, without a GPU many do."""
    if not fits.get("cpu", 1) or not fits.get("memory", 1):
        return ""
    return ", ".join(say(*each) for each in fits.items() if each[1])


def _shortage(ask: Ask, account: Account, dimension: str) -> str:
    """The sentence when `account` has not enough of one dimension, or nothing."""
    limit, remains = account.limit[dimension], account.remains(dimension)
    of_all, have = _whose(account.charge, say(dimension, limit))
    if dimension == "gpu_hours":
        if not ask.size.gpu or remains > 0:
            return ""
        return (
            f"{have} used {account.used[dimension]:.1f} of {say(dimension, limit)} this week; new "
            "ones come on Monday, 00:00 UTC. Servers without a GPU can start."
        )
    wanted = ask.amounts()[dimension]
    # Sums of fractions of a core are not exact.
    if wanted <= remains + 1e-9:
        return ""
    if dimension == "servers":
        return (
            f"{have} {account.used[dimension]:g} of {say(dimension, limit)} running; stop one to "
            "start another."
        )
    left = f"{say(dimension, remains)} left" if remains else "nothing left"
    return f"You asked for {say(dimension, wanted)}; there is {left} of {of_all}."


def _whose(charge: Charge, limit: str) -> tuple[str, str]:
    if charge.kind == "user":
        return f"your {limit}", "You have"
    return f"the {limit} of the {charge.kind} {charge.name}", f"The {charge.kind} {charge.name} has"


def _fits(held: Iterable[Account], largest: Mapping[str, float]) -> dict[str, float] | None:
    room = dict(largest)
    for account in held:
        for dimension in account.limit:
            remains = account.remains(dimension)
            if dimension == "gpu_hours":
                if remains <= 0:
                    room["gpu"] = 0
            else:
                room[dimension] = min(room.get(dimension, remains), remains)
    if room.get("servers", 1) < 1:
        return None
    return {dimension: room[dimension] for dimension in SIZES if dimension in room}
