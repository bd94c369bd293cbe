"""Which of the promised behaviours held in the last test runs, and by which tests.

    .venv/bin/python -m tools.rows .mlhub/results/*.xml

Reads pytest's JUnit files. A row (tests/rows.yaml) without a passed test, or with one that failed,
makes it exit with 1: a promise that nobody checked is not one.
"""

import argparse
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import yaml

CHECKOUT = Path(__file__).resolve().parents[1]
ROWS = CHECKOUT / "tests" / "rows.yaml"
NAMED = re.compile(r"test_((?:[TJMPV]\d+_)+)")
"""A test may hold several rows: `test_T7_V3_…`."""


@dataclass(frozen=True)
class Outcome:
    """What became of one test, parameters included."""

    test: str
    how: str
    """`passed`, `failed` or `skipped`."""


def rows() -> dict[str, str]:
    """Each row's name and sentence, in order."""
    found: dict[str, str] = yaml.safe_load(ROWS.read_text(encoding="utf-8"))
    return found


def rows_of(name: str) -> list[str]:
    """The rows that a test's name says it holds."""
    match = NAMED.match(name)
    return match[1].rstrip("_").split("_") if match else []


def outcomes(files: Iterable[Path]) -> list[Outcome]:
    """Every test case of the JUnit files."""
    found = []
    for file in files:
        # Our own pytest wrote it, so it is no stranger's XML.
        for case in ElementTree.parse(file).iter("testcase"):  # noqa: S314
            kinds = {child.tag for child in case}
            failed = kinds & {"failure", "error"}
            how = "failed" if failed else "skipped" if "skipped" in kinds else "passed"
            found.append(Outcome(case.get("name", ""), how))
    return found


def by_row(found: Iterable[Outcome]) -> dict[str, list[Outcome]]:
    held: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in found:
        for row in rows_of(outcome.test):
            held[row].append(outcome)
    return held


def table(promised: Mapping[str, str], held: Mapping[str, Sequence[Outcome]]) -> list[str]:
    """Lines of Markdown: row, what it promises, how many tests passed of how many."""
    lines = ["| row | promises | held by |", "|---|---|---|"]
    for row, sentence in promised.items():
        tests = held.get(row, [])
        passed = sum(test.how == "passed" for test in tests)
        state = f"{passed} of {len(tests)} tests" if tests else "**nothing**"
        lines.append(f"| {row} | {sentence} | {state} |")
    return lines


def broken(promised: Iterable[str], held: Mapping[str, Sequence[Outcome]]) -> list[str]:
    """A sentence for each row that did not hold, and for each test of a row that is not there."""
    said = []
    for row in promised:
        tests = held.get(row, [])
        failed = sorted({test.test for test in tests if test.how == "failed"})
        if failed:
            said.append(f"{row}: {', '.join(failed)} failed")
        elif not any(test.how == "passed" for test in tests):
            said.append(f"{row}: no test held it; name one test_{row}_…, or see why it was skipped")
    for row in sorted(held.keys() - set(promised)):
        said.append(f"{row}: {held[row][0].test} names it, and tests/rows.yaml has no such row")
    return said


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", nargs="+", type=Path, help="pytest's JUnit files")
    given = parser.parse_args(arguments)
    missing = [file for file in given.results if not file.is_file()]
    if missing:
        names = ", ".join(map(str, missing))
        print(f"{names}: not there; run `make test` and `make e2e` first", file=sys.stderr)
        return 2
    promised, held = rows(), by_row(outcomes(given.results))
    print("\n".join(table(promised, held)))
    wrong = broken(promised, held)
    for sentence in wrong:
        print(sentence, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
