"""The audit trail: who did or asked what, when, and how it ended; one line of JSON each.

On a logger of its own, so that it can be told from the hub's log and shipped elsewhere. A line
holds what its caller names and nothing of a request, so no secret gets in.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

log = logging.getLogger("mlhub.audit")

LONGEST = 400
"""Of one text: what a person typed may be part of it."""


def configure() -> None:
    """Write the lines, bare, to standard output; the hub's log goes to standard error."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.handlers[:] = [handler]
    log.setLevel(logging.INFO)
    log.propagate = False


def note(event: str, who: str, outcome: str, **details: Any) -> None:
    """One line. `event` is `login`, `logout`, `session`, `server.ask`, `server.start`,
    `server.stop`, `run.ask`, `run.release`, `run.token` or a `workspace.…`; `who` is the person
    whom it is about, or who did it. Empty details are left out.
    """
    line = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "event": event,
        "who": who,
        "outcome": outcome,
    }
    shown = {key: value for key, value in details.items() if value not in (None, "", {}, [])}
    for key, value in (line | shown).items():
        line[key] = value[:LONGEST] if isinstance(value, str) else value
    log.info(json.dumps(line, ensure_ascii=False))
