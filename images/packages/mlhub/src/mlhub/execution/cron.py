"""When a schedule fires: five fields as Kubernetes reads them, in a zone's own time.

Kubernetes fires, by robfig/cron; here is told when. So only what that and cronsim read alike is
taken. Where clocks go forward, a time that is not there is left out; where they go back, a time
that is there twice is fired at twice (robfig/cron, `Schedule.Next`).
"""

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import islice, takewhile
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

NAMES = "(SUN|MON|TUE|WED|THU|FRI|SAT|JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC)"
VALUE = rf"([0-9]{{1,2}}|{NAMES})"
STEP = "(/[1-9][0-9]?)?"
PART = rf"(\*{STEP}|{VALUE}(-{VALUE}{STEP})?)"
FIELD = re.compile(rf"{PART}(,{PART})*", re.IGNORECASE)
LONGEST = 100
ZONE = re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+){0,2}")

MOST = 100
"""Times that are looked at in one go."""

PUT_BACK = timedelta(hours=3)
"""More than any clock is put back by."""


def expression(given: str) -> str:
    """`given`, checked; raises ValueError."""
    fields = given.split()
    shape = "five fields are required: minute, hour, day of the month, month, day of the week"
    if len(given) > LONGEST or len(fields) != 5:
        raise ValueError(f"{shape}, such as '30 6 * * MON-FRI'")
    if not all(FIELD.fullmatch(field) for field in fields):
        raise ValueError(f"{shape}, each of numbers, names, '*', ',', '-' and '/'")
    if re.search(r"(?<![0-9])7", fields[4]):
        raise ValueError("Sunday is 0 or SUN; Kubernetes knows no 7th day")
    # Where both days are restricted either may hold; what counts as restricted is not everywhere
    # the same for `*/2`.
    if "*" in (fields[2][0], fields[4][0]) and not {"*"} & {fields[2], fields[4]}:
        raise ValueError("of the two days one is '*', or neither begins with '*'")
    text = " ".join(fields).upper()
    try:
        next(CronSim(text, datetime(2026, 1, 1)))
    except CronSimError as error:
        raise ValueError(f"it is no time that comes: {error}") from None
    except StopIteration:
        raise ValueError("it is no day that ever comes") from None
    return text


def zone(given: str) -> str:
    """The name of a time zone; raises ValueError."""
    try:
        if not ZONE.fullmatch(given):
            raise ValueError
        ZoneInfo(given)
    except (KeyError, ValueError, OSError):  # KeyError: ZoneInfoNotFoundError
        raise ValueError("a zone of the IANA database is required, as Europe/Berlin") from None
    return given


def firings(text: str, zone_name: str, after: float) -> Iterator[float]:
    """The times after `after`, in seconds since 1970, earliest first; endless."""
    place = ZoneInfo(zone_name)
    start = datetime.fromtimestamp(after, place).replace(tzinfo=None) - PUT_BACK
    held: list[float] = []
    for local in CronSim(text, start):
        found = {local.replace(tzinfo=place, fold=fold).timestamp() for fold in (0, 1)}
        held += [
            moment
            for moment in found
            if moment > after
            and datetime.fromtimestamp(moment, place).replace(tzinfo=None) == local
        ]
        # Whatever comes later on the clock is later in time, but for an hour put back.
        sure = local.replace(tzinfo=place).timestamp() - PUT_BACK.total_seconds()
        held.sort()
        while held and held[0] <= sure:
            yield held.pop(0)


def following(text: str, zone_name: str, after: float, count: int) -> list[float]:
    return list(islice(firings(text, zone_name, after), count))


def between(text: str, zone_name: str, after: float, until: float) -> list[float]:
    """At most MOST of the times after `after` up to `until`, the earliest first."""
    found = islice(firings(text, zone_name, after), MOST)
    return list(takewhile(lambda moment: moment <= until, found))


def fires_at(text: str, zone_name: str, moment: float) -> bool:
    return following(text, zone_name, moment - 1, 1) == [moment]
