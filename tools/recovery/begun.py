"""A note on this machine: a rollback has begun and not ended.

The stack's history cannot tell. In it, an older revision whose `up` failed looks like a newer one,
and the one that it was to replace like the last that worked.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tools.recovery.state import HEAD


@dataclass(frozen=True)
class Rollback:
    revision: str
    """The one that it applies."""
    left: str
    """The one that was applied when it began; empty where none is known."""
    emptied: bool = False
    """Whether everything that DATA=drop empties is empty."""


class RollbackNote:
    """Of one stack."""

    def __init__(self, stack: str):
        self._path = Path(".mlhub") / f"rolling-back-{stack}"

    def read(self, updates: Sequence[dict[str, Any]]) -> Rollback | None:
        """The rollback, unless another revision was applied since. One whose `up` failed, too, may
        have written to what was emptied."""
        if not self._path.is_file():
            return None
        found = json.loads(self._path.read_text())
        noted = datetime.fromisoformat(found.pop("noted"))
        rollback = Rollback(**found)
        others = [
            update
            for update in updates
            if update["kind"] == "update"
            if update.get("environment", {}).get(HEAD, "") != rollback.revision
            if datetime.fromisoformat(update["endTime"]) > noted
        ]
        if any(update.get("result") == "succeeded" for update in others):
            return None
        return replace(rollback, emptied=rollback.emptied and not others)

    def leave(self, rollback: Rollback) -> None:
        """In one step: half of a note could not be read."""
        whole = asdict(rollback) | {"noted": datetime.now(UTC).isoformat()}
        fresh = self._path.with_name(f"{self._path.name}.new")
        self._path.parent.mkdir(exist_ok=True)
        fresh.write_text(json.dumps(whole))
        fresh.replace(self._path)

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)
