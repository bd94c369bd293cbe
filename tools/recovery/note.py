"""A note on this machine: a restore makes a stack where there was none.

Once there is a namespace, its mark says so. Without the note, a restore that was killed during its
`up` could not tell what that had made from what people had.
"""

from datetime import UTC, datetime
from pathlib import Path

from tools.recovery.place import Place
from tools.recovery.state import Stack


class Note:
    """Of one stack; it names the archive and when the restore began."""

    def __init__(self, stack: Stack):
        self._stack = stack
        self._path = Path(".mlhub") / f"restoring-{stack.name}"

    def archive(self) -> str | None:
        """The archive of the restore, if there is a note."""
        return self._path.read_text().partition(" ")[2] if self._path.is_file() else None

    def holds(self, archive: str, place: Place) -> bool:
        """Whether what is there is of that restore alone: no other `up` has ended meanwhile, and
        nobody has a claim that no `up` makes."""
        if self.archive() != archive:
            return False
        left = datetime.fromisoformat(self._path.read_text().partition(" ")[0])
        ended = [
            datetime.fromisoformat(update["endTime"])
            for update in self._stack.updates()
            if (update["kind"], update.get("result")) == ("update", "succeeded")
        ]
        return max(ended, default=left) <= left and not place.of_people()

    def leave(self, archive: str) -> None:
        self._path.parent.mkdir(exist_ok=True)
        self._path.write_text(f"{datetime.now(UTC).isoformat()} {archive}")

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)
