"""What was tried and how it went: a line each while it goes, JSON for machines."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Literal

from mlhub.verify.people import NotMade
from mlhub.verify.web import Unreachable

Outcome = Literal["ok", "warning", "failed", "not tried"]


class Failed(Exception):  # noqa: N818 - the stack failed, and not this program
    """A check that did not hold, in a sentence."""


class NotTried(Exception):  # noqa: N818
    """A check that cannot be made now, in a sentence; no failure, and never silent."""


class Warned(Exception):  # noqa: N818
    """A check that holds and will not for long, in a sentence; the stack works still."""


@dataclass(frozen=True)
class Line:
    what: str
    outcome: Outcome
    seconds: float
    said: str = ""


class Report:
    def __init__(self, tell: Callable[[str], None] = print):
        self.lines: list[Line] = []
        self.tell = tell

    @contextmanager
    def check(self, what: str) -> Iterator[None]:
        """Runs the block as one check; what it raises becomes the check's outcome."""
        began = time.monotonic()
        outcome: Outcome = "failed"
        said = "this program ended"
        try:
            yield
            outcome, said = "ok", ""
        except NotTried as error:
            outcome, said = "not tried", str(error)
        except Warned as error:
            outcome, said = "warning", str(error)
        except (Failed, Unreachable, NotMade) as error:
            outcome, said = "failed", str(error)
        finally:
            line = Line(what, outcome, round(time.monotonic() - began, 1), said)
            self.lines.append(line)
            self.tell(f"{outcome:>9}  {line.seconds:6.1f} s  {what}{': ' + said if said else ''}")

    @property
    def failed(self) -> list[Line]:
        return [line for line in self.lines if line.outcome == "failed"]

    @property
    def last_failed(self) -> bool:
        return self.lines[-1].outcome == "failed"

    def sentence(self) -> str:
        took = sum(line.seconds for line in self.lines)
        if not self.lines or all(line.outcome == "not tried" for line in self.lines):
            return "Nothing was verified."
        if self.failed:
            return f"{len(self.failed)} of {len(self.lines)} checks failed, in {took:.0f} s."
        warnings = sum(line.outcome == "warning" for line in self.lines)
        but = f"; warnings: {warnings}" if warnings else ""
        return f"The stack works: {len(self.lines)} checks in {took:.0f} s{but}."

    def works(self) -> bool:
        return not self.failed and any(line.outcome == "ok" for line in self.lines)

    def as_json(self) -> str:
        return json.dumps(
            {"works": self.works(), "checks": [asdict(line) for line in self.lines]}, indent=2
        )
