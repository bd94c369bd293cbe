"""No command of the checkout previews or applies a stack without the policy pack."""

import subprocess
from pathlib import Path

import pytest

from bootstrap import stack
from bootstrap.paths import Layout
from tests.unit.recorder import ROOT


def test_make_up_applies_with_the_pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout(tmp_path)
    layout.bin.mkdir(parents=True)
    layout.log.mkdir(parents=True)
    pulumi = layout.bin / "pulumi"
    pulumi.write_text(
        f'#!/bin/sh\ncase "$*" in *export*) echo {{}} ;; *) echo "$@" >> {tmp_path}/asked ;; esac\n'
    )
    pulumi.chmod(0o755)
    monkeypatch.setattr(stack, "environment", lambda *_: {})
    monkeypatch.setattr(stack, "half_restored", lambda _: None)  # asks a cluster
    stack.apply(layout)
    (asked,) = (tmp_path / "asked").read_text().splitlines(keepends=True)
    assert asked.startswith("up ")
    assert f"--policy-pack {tmp_path}/policies " in asked


@pytest.mark.parametrize("target", ["up", "preview"])
def test_make_has_the_packs_environment_before_it_is_needed(target: str) -> None:
    command = ["make", "--dry-run", "--always-make", target]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    made, run = done.stdout.split("policies/.venv/run.stamp", maxsplit=1)
    assert "tools/venv.sh policies/requirements.txt policies/.venv" in made
    assert "-m bootstrap" in run
    if target == "preview":
        assert "--policy-pack policies" in run
