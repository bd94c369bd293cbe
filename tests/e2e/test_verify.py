"""`make verify` and the Jobs: a stack that works says so, and one that does not says what."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mlhub.verify.checks import verify
from mlhub.verify.people import Keycloak
from mlhub.verify.report import Report
from mlhub.verify.settings import TEMPORARY, Settings
from tests.e2e.platform import HUB_URL, KEYCLOAK_URL, NAMESPACE, Kubectl, wait_until

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
        username=account["username"],
        password=account["password"],
    )


def test_T12_verify_logs_in_spawns_writes_runs_and_leaves_nobody_behind(
    kubectl: Kubectl, tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "tools.verify", "--stack", "local", "--profile", "small-cpu"]
    done = subprocess.run(
        [*command, "--json", report], cwd=CHECKOUT, capture_output=True, text=True, check=False,
        timeout=400, env=WITH_OURS,
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


Ended = tuple[str, int, str]
"""How a Job ended: its condition, its program's exit status, its log."""


@pytest.fixture
def job(kubectl: Kubectl) -> Iterator[Callable[..., Ended]]:
    """Runs a Job of the CronJob's, with other environment variables, to its end."""
    made: list[str] = []

    def run(name: str, **environment: str) -> Ended:
        asked = json.loads(
            kubectl(
                "-n", NAMESPACE, "create", "job", name, "--from=cronjob/verify",
                "--dry-run=client", "-o", "json",
            )
        )  # fmt: skip
        (container,) = asked["spec"]["template"]["spec"]["containers"]
        kept = [each for each in container["env"] if each["name"] not in environment]
        container["env"] = kept + [{"name": k, "value": v} for k, v in environment.items()]
        kubectl("-n", NAMESPACE, "create", "-f", "-", stdin=json.dumps(asked))
        made.append(name)

        def ended() -> str | None:
            conditions = kubectl.json("-n", NAMESPACE, "get", "job", name)["status"]
            true = [c["type"] for c in conditions.get("conditions", []) if c["status"] == "True"]
            return next((c for c in true if c in ("Complete", "Failed")), None)

        condition = wait_until(f"{name} has ended", ended, 400)
        (pod,) = kubectl.json("-n", NAMESPACE, "get", "pods", "-l", f"job-name={name}")["items"]
        (status,) = pod["status"]["containerStatuses"]
        log = kubectl("-n", NAMESPACE, "logs", f"job/{name}")
        return str(condition), int(status["state"]["terminated"]["exitCode"]), log

    yield run
    for name in made:
        kubectl("-n", NAMESPACE, "delete", "job", name)


def nobody_left(kubectl: Kubectl) -> bool:
    return Keycloak(local(kubectl)).found() is None


def test_T12_a_job_verifies_from_inside_and_leaves_nobody_behind(
    kubectl: Kubectl, job: Callable[..., Ended]
) -> None:
    condition, status, log = job("verify-e2e")
    assert (condition, status) == ("Complete", 0), log
    *lines, sentence = log.splitlines()
    assert {line.split()[0] for line in lines} == {"ok"}, log
    for what in ("log-in", "profile small-cpu: start, write and read", "a run of a notebook"):
        assert what in log
    assert sentence.startswith("The stack works: ")
    assert nobody_left(kubectl)
    assert kubectl.pod(f"jupyter-{TEMPORARY}") is None


def test_T12_a_job_that_fails_says_why_is_not_tried_again_and_breaks_nothing(
    kubectl: Kubectl, job: Callable[..., Ended]
) -> None:
    condition, status, log = job("verify-e2e-broken", MLHUB_VERIFY_CLIENT_SECRET="no-longer")
    assert (condition, status) == ("Failed", 1), log
    (failed,) = [line for line in log.splitlines() if line.strip().startswith("failed")]
    assert "a person is made: Keycloak refused the log-in of mlhub-verify with HTTP 401" in failed
    assert log.splitlines()[-1].startswith("1 of 2 checks failed")
    assert "no-longer" not in log
    assert nobody_left(kubectl)


def test_T12_the_schedule_of_this_machine_rests(kubectl: Kubectl) -> None:
    spec: dict[str, Any] = kubectl.json("-n", NAMESPACE, "get", "cronjob", "verify")["spec"]
    assert spec["suspend"] is True
