"""The pages name the words by which the two APIs refuse, and the alert counts faults alone."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from components.alerts import alerts
from mlhub.execution.routes import ENDED
from tests.unit.recorder import ROOT

SOURCES = ROOT / "images" / "packages" / "mlhub" / "src" / "mlhub"


def problems(service: str) -> set[tuple[int, str]]:
    """Each status and word that is written in a service's program."""
    return {found for file in (SOURCES / service).glob("*.py") for found in of(file)}


def of(file: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Problem":
            given = [part.value for part in node.args[:2] if isinstance(part, ast.Constant)]
            if len(given) == 2:
                yield given[0], given[1]


def test_the_page_of_the_execution_api_names_every_refusal():
    table = (ROOT / "docs" / "execution.md").read_text().split("### Refusals")[1].split("\n## ")[0]
    rows = re.findall(r"^\| ([\d, ]+) \| (.*) \|", table, re.MULTILINE)
    told = {
        (int(status), word)
        for statuses, words in rows
        for status in statuses.split(", ")
        for word in re.findall("`([a-z-]+)`", words)
    }
    made = problems("execution") - {(409, "not-its-time")}  # to a schedule's own pod
    assert len(made) > 20
    assert sorted(made - told) == []


def test_the_run_book_of_faults_names_all_that_a_service_blames_others_for():
    page = (ROOT / "docs" / "operations.md").read_text()
    section = page.split("### MlhubServiceFaults")[1].split("\n### ")[0]
    made = problems("execution") | problems("workspaces")
    words = {word for status, word in made if status in (500, 503)}
    assert len(words) > 5
    assert [word for word in sorted(words) if f"`{word}`" not in section] == []


def test_a_run_that_goes_on_or_fails_while_somebody_waits_is_no_fault_of_the_service():
    """A person who asked for `wait=60` of a long run six times raised the alert."""
    found = alerts(
        "hub", foundation="f", execution=True, workspaces=True, verify=None, start_seconds=300
    )
    (expression,) = [a.expression for a in found if a.name == "MlhubServiceFaults"]
    counted = re.search('status=~"([^"]+)"', expression)
    assert counted
    assert [status for status in (500, 503) if not re.fullmatch(counted[1], str(status))] == []
    of_runs = {504, *ENDED.values()}
    assert [status for status in of_runs if re.fullmatch(counted[1], str(status))] == []
