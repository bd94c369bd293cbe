"""tools/suite.sh: what fails beside others runs once more, by itself."""

import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
ONCE = """
import pathlib
def test_beside_others():
    mark = pathlib.Path(__file__).with_name("mark")
    seen = mark.exists()
    mark.touch()
    assert seen
"""
NEVER = """
import pytest
@pytest.mark.parametrize("number", range({count}))
def test_never(number):
    assert number < 0
"""


def suite(tmp_path: Path, tests: str) -> tuple[int, str, list[str]]:
    """Exit status, what was printed, and the files of results."""
    (tmp_path / "test_it.py").write_text(tests)
    results = tmp_path / "results"
    done = subprocess.run(
        [CHECKOUT / "tools" / "suite.sh", results, "it", tmp_path, "-q", "--rootdir", tmp_path,
         "-c", "/dev/null"],
        cwd=CHECKOUT, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr, sorted(f.name for f in results.glob("*.xml"))


@pytest.mark.parametrize(
    ("tests", "told", "files"),
    [
        (ONCE, 0, ["it-again.xml", "it.xml"]),
        (NEVER.format(count=5), 1, ["it-again.xml", "it.xml"]),
        (NEVER.format(count=6), 1, ["it.xml"]),
    ],
    ids=["once", "five", "six"],
)
def test_few_that_fail_run_once_more_and_that_is_said(
    tmp_path: Path, tests: str, told: int, files: list[str]
) -> None:
    status, said, found = suite(tmp_path, tests)
    assert (bool(status), found) == (bool(told), files), said
    assert ("once more, by themselves" in said) == ("it-again.xml" in files)
