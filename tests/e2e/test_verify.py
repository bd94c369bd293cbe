"""`make verify`: a stack that works says so, and one that does not says what."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

from mlhub.verify.checks import verify
from mlhub.verify.report import Report
from mlhub.verify.settings import TEMPORARY, Settings
from tests.e2e.platform import HUB_URL, KEYCLOAK_URL, Kubectl

CHECKOUT = Path(__file__).resolve().parents[2]
WITH_OURS = {**os.environ, "PYTHONPATH": str(CHECKOUT / "images" / "packages" / "mlhub" / "src")}


def local(kubectl: Kubectl) -> Settings:
    account = kubectl.secret("foundation", "keycloak-admin")
    return Settings(
        hub_url=HUB_URL,
        keycloak_url=KEYCLOAK_URL,
        realm="mlhub",
        groups=("/mlhub/users",),
        login_realm="master",
        client_id="admin-cli",
        **account,
    )


def test_T12_verify_logs_in_spawns_writes_runs_and_leaves_nobody_behind(
    kubectl: Kubectl, tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "tools.verify", "--stack", "local", "--profile", "small-cpu"]
    done = subprocess.run(
        [*command, "--json", report], cwd=CHECKOUT, capture_output=True, text=True, check=False,
        timeout=280, env=WITH_OURS,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    checks = {check["what"]: check["outcome"] for check in json.loads(report.read_text())["checks"]}
    assert set(checks.values()) == {"ok"}, done.stdout
    assert {"log-in", "profile small-cpu: start, write and read"} <= set(checks)
    assert any(what.startswith("a run of a notebook") for what in checks)
    assert kubectl.pod(f"jupyter-{TEMPORARY}") is None
    again = subprocess.run(
        [*command, "--profile", "none"], cwd=CHECKOUT, check=False, timeout=120, env=WITH_OURS
    )
    assert again.returncode == 1, "a profile that nobody offers was verified"


def test_T12_verify_fails_for_a_person_whom_the_hub_does_not_let_in(kubectl: Kubectl) -> None:
    said: list[str] = []
    report = Report(said.append)
    verify(dataclasses.replace(local(kubectl), groups=()), report)
    assert not report.works()
    assert [line.what for line in report.failed] == ["log-in"], said
    assert "the person is removed" in [line.what for line in report.lines if line.outcome == "ok"]
