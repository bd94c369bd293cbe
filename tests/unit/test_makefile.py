"""What `make` does with a stack that a target is not about."""

import os
import subprocess

import pytest

from tests.unit.recorder import ROOT


def make(target: str, **given: str) -> subprocess.CompletedProcess[str]:
    """Nothing is made or started: the stamps are old enough and Python is `echo`."""
    stamps = ("-o", ".venv/run.stamp", "-o", "policies/.venv/run.stamp")
    variables = [f"{name}={value}" for name, value in {"PYTHON": "echo", **given}.items()]
    # The tests may themselves be run by `make`, which would tell of its folders.
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        ["make", "--no-print-directory", *stamps, target, *variables],
        cwd=ROOT, capture_output=True, text=True, check=False, env=env,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("target", "instead"),
    [
        ("up", "pulumi up --stack prod --policy-pack policies"),
        ("status", "make verify STACK=prod"),
        ("down", "make destroy STACK=prod"),
    ],
)
def test_what_knows_the_embedded_stack_alone_touches_it_for_no_other(target: str, instead: str):
    done = make(target, STACK="prod")
    assert done.returncode
    assert "bootstrap" not in done.stdout
    assert done.stderr.splitlines()[0] == (
        f"`make {target}` is for the embedded stack; for prod: `{instead}`"
    )
    assert make(target).stdout == make(target, STACK="local").stdout == f"-m bootstrap {target}\n"
