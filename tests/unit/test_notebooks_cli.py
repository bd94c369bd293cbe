"""What the command line prints, and its exit codes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import notebooks
from notebooks import cli
from notebooks.errors import Refused


@pytest.fixture
def refusing(monkeypatch):
    def refuse(argv, prog_name):
        raise Refused(429, "quota", "You have 3 of 3 servers running; stop one to [start] another.")

    monkeypatch.setattr(cli, "app", refuse)


def test_a_refusal_is_exit_code_1_and_its_sentence(refusing, capsys):
    assert cli.main(["launch"]) == 1
    said = capsys.readouterr()
    assert said.err == "You have 3 of 3 servers running; stop one to [start] another.\n"
    assert said.out == ""


def test_with_json_an_error_is_json_wherever_the_flag_stands(refusing, capsys):
    for argv in (["--json", "launch"], ["launch", "--json"]):
        assert cli.main(argv) == 1
        said = json.loads(capsys.readouterr().err)
        assert said["error"]["status"] == 429
        assert said["error"]["type"] == "quota"


def test_wrong_usage_is_exit_code_2(capsys):
    assert cli.main(["no-such-command"]) == 2
    assert "no-such-command" in capsys.readouterr().err


def test_a_laptop_needs_only_what_pip_brings_with_the_package():
    root = Path(notebooks.__file__).parents[2]
    code = "import sys; import notebooks.cli; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(root / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    found = set(done.stdout.split())
    assert {"requests", "rich", "typer"} <= found
    others = {
        "IPython",
        "detect_secrets",
        "jupyterhub",
        "mlflow",
        "nbformat",
        "pandas",
        "papermill",
    }
    assert not found & others
