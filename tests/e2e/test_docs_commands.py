"""Commands of the pages that ask the running stack, as they are written."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.platform import Kubectl, wait_until
from tests.e2e.test_restart import workloads
from tests.pages import PAGES, Shown, shown

CHECKOUT = Path(__file__).parents[2]
BEGINNINGS = {
    "make status": "hub",
    "make password": "",
    "make preview STACK=local": "",
    "kubectl -n jupyterhub exec deploy/hub": "pkg:deb/debian/adduser@",
    "kubectl -n mlflow": "mlflow-service",
    'eval "$(': "",
}
"""Each with a word that it prints."""
COMMANDS = {
    each.command: each
    for page in PAGES
    for each in shown(page)
    if each.command.startswith(tuple(BEGINNINGS))
}
ALL = "make status"
"""Says no while any pod of the cluster is not ready, as those of tests beside it are at first."""


def at_its_time(command: str, each: Shown) -> Any:
    marks = [pytest.mark.alone] if command.startswith(ALL) else []
    return pytest.param(each, id=command, marks=marks)


@pytest.mark.parametrize("command", [at_its_time(*pair) for pair in COMMANDS.items()])
def test_a_command_of_the_pages_runs_on_the_stack(command: Shown, kubectl: Kubectl) -> None:
    if command.command.startswith(ALL):
        wait_until("every part is ready", lambda: not workloads(kubectl), 120)
    done = subprocess.run(
        ["bash", "-c", command.command],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    (word,) = [w for begin, w in BEGINNINGS.items() if command.command.startswith(begin)]
    assert word in done.stdout
