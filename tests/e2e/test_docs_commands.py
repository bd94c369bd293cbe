"""Commands of the pages that ask the running stack, as they are written."""

import subprocess
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_command_of_the_pages_runs_on_the_stack(command: Shown) -> None:
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
