"""The table of promised behaviours and the tests that hold them."""

import re
from pathlib import Path

import pytest

from tools.rows import CHECKOUT, main, rows, rows_of

JUNIT = "<testsuites><testsuite>{}</testsuite></testsuites>"


def junit(folder: Path, *, without: str = "", skipped: str = "", failed: str = "") -> str:
    """Results in which every row has one test, but for those that are named."""
    cases = []
    for row in rows():
        inside = "<skipped/>" if row == skipped else "<failure/>" if row == failed else ""
        if row != without:
            cases.append(f'<testcase name="test_{row}_it_works[x]">{inside}</testcase>')
    file = folder / "results.xml"
    file.write_text(JUNIT.format("".join(cases)))
    return str(file)


def test_every_row_has_a_test_that_names_it() -> None:
    names = [
        name
        for file in (CHECKOUT / "tests").rglob("test_*.py")
        for name in re.findall(r"def (test_\w+)", file.read_text(encoding="utf-8"))
    ]
    named = {row for name in names for row in rows_of(name)}
    assert set(rows()) - named == set(), "rows that no test names"
    assert named - set(rows()) == set(), "rows that tests name and nobody promised"


def test_all_held(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([junit(tmp_path)]) == 0
    assert "| T5 | Five kinds of profile with their resources. | 1 of 1 tests |" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize("how", ["without", "skipped", "failed"])
def test_a_row_that_nothing_held_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    assert main([junit(tmp_path, **{how: "M7"})]) == 1
    assert capsys.readouterr().err.startswith("M7: ")


def test_without_results_it_says_what_to_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nowhere.xml"]) == 2
    assert "make test" in capsys.readouterr().err


def test_a_test_may_hold_several_rows() -> None:
    assert rows_of("test_T7_V3_work_survives") == ["T7", "V3"]
    assert rows_of("test_T_is_no_row") == []
