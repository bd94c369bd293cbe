"""When a server that runs must stop, and how to keep it: said to the person before it happens.

The charts' culler knows one time-out for all servers. Here are the limits that a profile has of its
own, the age that a server may have, and the time for which a GPU may be held unused.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mlhub.admission import Holding
from mlhub.hub.settings import Settings

WARN_SECONDS = 900.0
"""How long before its end a server's owner is told."""


@dataclass(frozen=True)
class Use:
    """What is known of a server, in seconds."""

    age: float
    idle: float
    gpu_idle: float | None = None
    """Since a GPU of its own last computed; None where it has not said."""


@dataclass(frozen=True)
class Ending:
    seconds: float
    """From now; 0 or less is now."""
    why: str
    keep: str
    """What keeps the server longer."""

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {"seconds": round(self.seconds), "why": self.why, "keep": self.keep}


def ending(held: Holding, use: Use, settings: Settings) -> Ending | None:
    """The first limit that a server with this share meets, or None where it has none."""
    return min(_limits(held, use, settings), key=lambda end: end.seconds, default=None)


def _limits(held: Holding, use: Use, settings: Settings) -> Iterator[Ending]:
    profile = settings.profile(held.profile)
    ages = [profile.max_age if profile else None, settings.gpu.max_age if held.size.gpu else None]
    if oldest := min((limit for limit in ages if limit), default=None):
        yield Ending(
            oldest - use.age,
            f"It ran for {span(use.age)}; {span(oldest)} is the most.",
            "Nothing keeps it longer: save, and start it anew.",
        )
    if limit := (profile and profile.idle_timeout) or settings.idle_timeout:
        yield Ending(
            limit - use.idle,
            f"It was idle for {span(use.idle)}; {span(limit)} is the most.",
            "Whatever you do in it keeps it.",
        )
    unused = settings.gpu.idle_timeout
    if held.size.gpu and unused and use.gpu_idle is not None:
        yield Ending(
            unused - use.gpu_idle,
            f"Its GPU was not used for {span(use.gpu_idle)}; {span(unused)} is the most.",
            "A computation on the GPU keeps it.",
        )


def span(seconds: float) -> str:
    """A length of time as a person says it, e.g. `45 s`, `20 min`, `1.5 h`."""
    if seconds < 120:
        return f"{max(0, seconds):.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{round(seconds / 3600, 1):g} h"
