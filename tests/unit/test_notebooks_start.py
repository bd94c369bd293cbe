"""The start command: it seeds, it never stands in the way, and it starts the image's own server."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from notebooks.start import command_line

SOURCE = Path(__file__).parents[2] / "images/packages/notebooks/src"

START = (sys.executable, "-m", "notebooks.start")


def start(home: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*START, *command],
        env={**os.environ, "HOME": str(home), "PYTHONPATH": str(SOURCE), **environment},
        check=False,
        capture_output=True,
        text=True,
    )


def test_it_becomes_the_command_and_passes_its_arguments_on(tmp_path):
    done = start(tmp_path, "printf", "%s|", "a b", "--c")
    assert done.stdout == "a b|--c|"
    assert "mlhub-start: copied to" in done.stderr
    assert (tmp_path / "examples/getting-started.ipynb").exists()


def test_the_commands_exit_code_is_its_own(tmp_path):
    assert start(tmp_path, "sh", "-c", "exit 7").returncode == 7


def test_the_second_start_says_nothing(tmp_path):
    start(tmp_path, "true")
    assert start(tmp_path, "true").stderr == ""


@pytest.mark.parametrize("obstacle", ["examples", ".local", ".local/share/mlhub/examples.json"])
def test_a_home_in_which_nothing_can_be_made_is_said_and_starts(tmp_path, obstacle):
    """A file where a folder must be fails for root, too, as a read-only or full volume does."""
    file = tmp_path / obstacle
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("")
    done = start(tmp_path, "echo", "started")
    assert done.stdout == "started\n"
    assert "no examples copied" in done.stderr
    assert obstacle in done.stderr
    assert "starts without them" in done.stderr


def test_a_read_only_home_is_said_and_starts(tmp_path):
    if subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    script = 'mount --bind "$HOME" "$HOME" && mount -o remount,bind,ro "$HOME" && exec "$@"'
    done = subprocess.run(
        [
            "unshare",
            "--mount",
            "sh",
            "-c",
            script,
            "sh",
            sys.executable,
            "-m",
            "notebooks.start",
            "echo",
            "started",
        ],
        env={**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(SOURCE)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "started\n"
    assert "Read-only file system" in done.stderr


def test_an_unknown_command_is_said_in_one_sentence(tmp_path):
    done = start(tmp_path, "no-such-command")
    assert done.returncode == 127
    assert "the image has no command no-such-command" in done.stderr
    assert "Traceback" not in done.stderr


def script(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text(text)
    file.chmod(0o755)
    return file


def test_a_jupyter_in_the_home_does_not_replace_the_images(tmp_path):
    home, image = tmp_path / "home", tmp_path / "image"
    script(home / ".local/bin", "jupyterhub-singleuser", "#!/usr/bin/python3\n")
    right = script(image, "jupyterhub-singleuser", "#!/usr/bin/python3\n")
    path = f"{home}/.local/bin:{image}"
    line = command_line(["jupyterhub-singleuser", "--x"], home, path)
    assert line == [sys.executable, "-s", str(right), "--x"]


def test_what_is_no_python_script_runs_as_it_is(tmp_path):
    program = script(tmp_path / "image", "tool", "#!/bin/sh\n")
    assert command_line(["tool", "a"], tmp_path / "home", str(tmp_path / "image")) == [
        str(program),
        "a",
    ]


def test_a_broken_module_in_the_home_does_not_break_the_server(tmp_path):
    """`pip install --user` of something that replaces a module of the server."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    home = tmp_path / "home"
    site = home / ".local/lib" / version / "site-packages"
    site.mkdir(parents=True)
    (site / "shadowed.py").write_text("")
    program = script(
        tmp_path / "image",
        "server",
        "#!/usr/bin/python3\nimport importlib.util, sys\n"
        "print(importlib.util.find_spec('shadowed'), sys.flags.no_user_site)\n",
    )
    done = start(home, "server", PATH=f"{program.parent}:{os.environ['PATH']}")
    assert done.stdout == "None 1\n", done.stderr
