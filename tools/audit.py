"""Looks every lock up in the advisories of PyPI and npm: `python -m tools.audit`.

The rule is SECURITY.md's. pip-audit has an environment of its own (tools/audit.txt), so that what
it brings along is not a part of what it looks at.
"""

import argparse
import datetime
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.lock import sources

ROOT = Path(__file__).resolve().parents[1]
IGNORED = ROOT / ".github" / "audit-ignore.txt"
LONGEST = datetime.timedelta(days=90)
NPM = ROOT / "images" / "proxy"


@dataclass(frozen=True)
class Ignored:
    """A finding that somebody has looked at."""

    finding: str
    until: datetime.date
    why: str


def ignored(text: str) -> list[Ignored]:
    """The list; ValueError for a line that lacks its day or its reason."""
    found = []
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        words = line.split(maxsplit=2)
        if len(words) != 3:
            raise ValueError(f"{line!r}: an id, a day such as 2027-01-31 and why are required")
        found.append(Ignored(words[0], datetime.date.fromisoformat(words[1]), words[2]))
    return found


def wrong(entries: Sequence[Ignored], today: datetime.date) -> list[str]:
    """A sentence for each entry that is past its day or reaches too far."""
    return [
        f"{entry.finding} is ignored until {entry.until}; "
        + ("that is past: look again" if entry.until < today else "at most 90 days are allowed")
        for entry in entries
        if not today <= entry.until <= today + LONGEST
    ]


def locks(root: Path = ROOT) -> list[Path]:
    """Every lock with hashes, which `tools/lock.py` keeps beside its source."""
    return [source.with_suffix(".txt") for source in sources(root)]


def commands(entries: Sequence[Ignored], python: str) -> list[list[str]]:
    """What is run. `--strict` fails for a package that the advisories do not know."""
    ignoring = [word for entry in entries for word in ("--ignore-vuln", entry.finding)]
    audit = [python, "-m", "pip_audit", "--strict", "--disable-pip", "--require-hashes"]
    return [
        *([*audit, *ignoring, "-r", str(lock.relative_to(ROOT))] for lock in locks()),
        ["npm", "audit", "--package-lock-only", "--audit-level=high", "--prefix", str(NPM)],
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", default=sys.executable, help="one that has pip-audit")
    given = parser.parse_args(arguments)
    entries = ignored(IGNORED.read_text(encoding="utf-8"))
    said = wrong(entries, datetime.datetime.now(tz=datetime.UTC).date())
    for sentence in said:
        print(sentence, file=sys.stderr)
    failed = bool(said)
    for command in commands(entries, given.python):
        print(f"::: {' '.join(command[-4:])}", flush=True)
        failed = subprocess.run(command, cwd=ROOT, check=False).returncode != 0 or failed
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
