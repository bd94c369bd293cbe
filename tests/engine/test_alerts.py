"""Each alert is raised by what it is for, after as long as it says, and by nothing next to that.

Asked of Prometheus itself (`promtool test rules`), whose clock begins at 0.
"""

import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.alerts import Alert, alerts, rule_groups
from components.config import Verify
from components.dashboard import panels

pytestmark = pytest.mark.engine

DOCS = "https://docs.test"
START_SECONDS = 300
ALERTS = alerts(
    "hub",
    foundation="base",
    execution=True,
    workspaces=True,
    verify=Verify(),
    start_seconds=START_SECONDS,
)
HERE = 'namespace="hub"'
STARTS = "jupyterhub_server_spawn_duration_seconds"
DAY = 24 * 60

Series = dict[str, str]
"""In promtool's words: `0+1x30` is 0 and thirty more values, each 1 above the one before."""


@dataclass(frozen=True)
class Case:
    ill: Series
    well: Series
    after: int
    """The first minute at which it has been ill for as long as the alert says."""
    labels: dict[str, str] = field(default_factory=dict)
    """Of the alert, beside its severity."""
    step: int = 1
    """Minutes between two values."""


def down(part: str) -> Case:
    mine, other = (f'up{{{HERE},job="{job}-metrics"}}' for job in (part, "other"))
    return Case({mine: "0x20", other: "1x20"}, {mine: "1x20"}, after=5)


def starts(**counted: str) -> Series:
    """By status, and where it failed by reason: one a minute."""
    return {
        f'{STARTS}_count{{{HERE},status="{status}",reason="{reason}"}}': "0+1x60"
        for status, reason in counted.items()
    }


def slow(seconds: int) -> Series:
    """Starts that took so long, one a minute."""
    return {
        f'{STARTS}_bucket{{{HERE},status="success",le="{le}"}}': "0+1x60"
        if le >= seconds
        else "0x60"
        for le in (60.0, 120.0, 300.0, float("inf"))
    }


def held(cpus: int) -> Series:
    of = f'{{{HERE},group="/mlhub/users",dimension="cpu"}}'
    return {f"mlhub_quota_used{of}": f"{cpus}x30", f"mlhub_quota_limit{of}": "100x30"}


def full(gigabytes: int, namespace: str) -> Series:
    of = f'{{namespace="{namespace}",persistentvolumeclaim="data-0"}}'
    return {
        f"kubelet_volume_stats_used_bytes{of}": f"{gigabytes}e9x40",
        f"kubelet_volume_stats_capacity_bytes{of}": "100e9x40",
    }


def one(series: str, values: str, **labels: str) -> Series:
    told = ",".join([HERE, *(f'{key}="{value}"' for key, value in labels.items())])
    return {f"{series}{{{told}}}": values}


CASES = {
    "MlhubHubDown": down("hub"),
    "MlhubExecutionDown": down("execution"),
    "MlhubWorkspacesDown": down("workspaces"),
    "MlhubKubernetesSilent": Case(
        one("mlhub_kubernetes_seen", "0x20"), one("mlhub_kubernetes_seen", "1x20"), after=5
    ),
    "MlhubStartsFail": Case(
        starts(success="", failure="image"), starts(success="", failure="quota"), after=11
    ),
    "MlhubStartsSlow": Case(slow(300), slow(120), after=16),
    "MlhubGroupQuotaFull": Case(
        held(96),
        held(95),
        after=120,
        labels={"namespace": "hub", "group": "/mlhub/users", "dimension": "cpu"},
        step=10,
    ),
    "MlhubVolumeFull": Case(
        full(91, "base"),
        full(91, "elsewhere") | full(90, "hub"),
        after=15,
        labels={"namespace": "base", "persistentvolumeclaim": "data-0"},
    ),
    "MlhubBackupMissing": Case(
        one("mlhub_backup_timestamp_seconds", "0x400"),
        one("mlhub_backup_timestamp_seconds", "0x143 86400x143 172800x143"),
        after=2 * DAY + 70,
        step=10,
    ),
    "MlhubServiceFaults": Case(
        one("mlhub_requests_refused_total", "0+1x40", job="execution-metrics", status="503"),
        one("mlhub_requests_refused_total", "0+1x40", job="execution-metrics", status="504"),
        after=11,
        labels={"job": "execution-metrics"},
    ),
    "MlhubRunsNotSeen": Case(
        one("mlhub_reconciled_timestamp_seconds", "0x40"),
        one("mlhub_reconciled_timestamp_seconds", "0+60x40"),
        after=11,
    ),
    "MlhubRunsWait": Case(
        # After START_SECONDS it has failed.
        one("mlhub_run_oldest_queued_seconds", "0+60x5 0x40"),
        one("mlhub_run_oldest_queued_seconds", "150x40"),
        after=4,
    ),
    "MlhubRunsLost": Case(
        one("mlhub_run_seconds_count", "0x5 1x40", status="lost"),
        one("mlhub_run_seconds_count", "0x5 1x40", status="failed"),
        after=7,
    ),
    "MlhubVerifyFailed": Case(
        one("mlhub_verify_failed", "1x20"), one("mlhub_verify_failed", "0x20"), after=1
    ),
    "MlhubVerifyMissing": Case(
        one("mlhub_verified_timestamp_seconds", "0x1300"),
        one("mlhub_verified_timestamp_seconds", "0+600x1300"),
        after=8 * DAY + 70,
        step=10,
    ),
}


def expected(alert: Alert, labels: dict[str, str]) -> dict[str, Any]:
    (group,) = rule_groups([alert], DOCS)
    said = dict(group["rules"][0]["annotations"])
    for label, value in labels.items():
        said["summary"] = said["summary"].replace(f"{{{{ $labels.{label} }}}}", value)
    return {
        "exp_labels": {"namespace": "hub", **labels, "severity": alert.severity},
        "exp_annotations": said,
    }


def asked(case: Case, series: Series, *at: tuple[int, list[Any]], name: str) -> dict[str, Any]:
    return {
        "interval": f"{case.step}m",
        "input_series": [{"series": key, "values": values} for key, values in series.items()],
        "alert_rule_test": [
            {"eval_time": f"{minute}m", "alertname": name, "exp_alerts": raised}
            for minute, raised in at
        ],
    }


def test_a_volume_that_many_nodes_have_mounted_is_one_volume(tmp_path: Path):
    (panel,) = [
        panel
        for panel in panels("hub", services=True, execution=True)
        if panel.title == "Volumes in use: filled"
    ]
    ((expression, _),) = panel.series
    of = {"persistentvolumeclaim": "datasets"}
    nodes = [one("kubelet_volume_stats_used_bytes", "9x5", **of, instance=n) for n in "abc"]
    home = one("kubelet_volume_stats_used_bytes", "2x5", persistentvolumeclaim="claim-alice")
    asked_for = {
        "input_series": [
            {"series": key, "values": values}
            for series in (*nodes, home)
            for key, values in series.items()
        ],
        "promql_expr_test": [
            {
                "expr": expression,
                "eval_time": "3m",
                "exp_samples": [
                    {"labels": '{kind="home"}', "value": 2},
                    {"labels": '{kind="shared"}', "value": 9},
                ],
            }
        ],
    }
    hold([{"interval": "1m", **asked_for}], tmp_path)


def hold(tests: list[dict[str, Any]], folder: Path, step: int = 1) -> None:
    """What is expected of the alerts is what Prometheus does, every `step` minutes."""
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": rule_groups(ALERTS, DOCS)}))
    document = {"rule_files": ["rules.yaml"], "evaluation_interval": f"{step}m", "tests": tests}
    (folder / "tests.yaml").write_text(yaml.safe_dump(document))
    done = subprocess.run(
        ["promtool", "test", "rules", "tests.yaml"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_an_alert_is_raised_by_what_it_is_for_and_when_it_says(alert: Alert, tmp_path: Path):
    case = CASES[alert.name]
    raised = [expected(alert, case.labels)]
    tests = [
        asked(case, case.ill, (case.after - case.step, []), (case.after, raised), name=alert.name),
        asked(case, case.well, (case.after, []), (case.after + case.step, []), name=alert.name),
    ]
    hold(tests, tmp_path, case.step)


def test_runs_that_were_lost_before_the_first_look_are_told_of_for_an_hour(tmp_path: Path):
    """As those are that nobody watched: their API finds them as it begins."""
    (alert,) = [alert for alert in ALERTS if alert.name == "MlhubRunsLost"]
    before = one("mlhub_run_seconds_count", "3x102", status="lost", pod="before")
    found = one("mlhub_run_seconds_count", "_x104 1x200", status="lost", pod="found")
    case = Case(before | found, {}, after=0)
    moments = [(100, []), (110, [expected(alert, {})]), (160, [expected(alert, {})]), (170, [])]
    hold([asked(case, case.ill, *moments, name=alert.name)], tmp_path)
