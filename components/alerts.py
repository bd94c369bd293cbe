"""When somebody should look, each with the run-book section that says what to do.

Pure. `value` is what an alert looks at and `beyond` where it becomes one, apart so that a test can
see that the first has data while the second does not hold.
"""

from dataclasses import dataclass, replace
from typing import Any

from components import names
from components.config import Verify

HIDDEN_ZERO = " or vector(0)"
"""Makes a number of what is not there."""

VOLUME_FULL = "MlhubVolumeFull"


@dataclass(frozen=True)
class Alert:
    name: str
    value: str
    """PromQL, what is looked at."""
    beyond: str
    """Such as `> 0.9`."""
    lasting: str
    """For how long it has to hold, such as `10m`."""
    severity: str
    """`critical` where people cannot work, otherwise `warning`."""
    summary: str
    namespace: str = ""
    """The stack's, by which Alertmanager tells it from another's; empty where each series has its
    own."""

    @property
    def expression(self) -> str:
        return f"({self.value}) {self.beyond}"


def metrics_service(part: str) -> str:
    """The Service by which Prometheus finds a part; also the label `job` of its series."""
    return f"{part}-metrics"


def alerts(
    namespace: str,
    *,
    foundation: str,
    execution: bool,
    workspaces: bool,
    verify: Verify | None,
    start_seconds: int,
) -> list[Alert]:
    """The alerts of one stack; `namespace` is its hub's, `foundation` that of its databases.

    After `start_seconds` a run that has not started ends as one that failed, and waits no more.
    """
    here = f'namespace="{namespace}"'
    volumes = f'namespace=~"{namespace}|{foundation}"'
    services = [
        *([("Execution", names.EXECUTION)] if execution else []),
        *([("Workspaces", names.WORKSPACES)] if workspaces else []),
    ]
    starts = f"jupyterhub_server_spawn_duration_seconds_count{{{here}"
    lost = f'mlhub_run_seconds_count{{{here},status="lost"}}'
    found = [
        down("Hub", "hub", here, "critical"),
        *(down(word, part, here, "warning") for word, part in services),
        Alert(
            "MlhubKubernetesSilent",
            f"max(mlhub_kubernetes_seen{{{here}}})",
            "< 1",
            "5m",
            "critical",
            "The hub does not know what runs, and refuses every start.",
        ),
        Alert(
            "MlhubStartsFail",
            f'sum(increase({starts},status!="success",reason!~"choice|quota"}}[30m])) '
            f"/ clamp_min(sum(increase({starts}}}[30m])), 1)",
            "> 0.25",
            "10m",
            "critical",
            "More than a quarter of the starts of the last half hour failed.",
        ),
        Alert(
            "MlhubStartsSlow",
            "histogram_quantile(0.9, sum by (le) (rate("
            f'jupyterhub_server_spawn_duration_seconds_bucket{{{here},status="success"}}[30m])))',
            "> 120",
            "15m",
            "warning",
            "One start in ten takes more than two minutes.",
        ),
        Alert(
            "MlhubGroupQuotaFull",
            f"mlhub_quota_used{{{here}}} / mlhub_quota_limit{{{here}}}",
            "> 0.95",
            "2h",
            "warning",
            "{{ $labels.group }} has held nearly all of its {{ $labels.dimension }} for two hours.",
        ),
        Alert(
            VOLUME_FULL,
            "max by (namespace, persistentvolumeclaim) ("
            f"kubelet_volume_stats_used_bytes{{{volumes}}} "
            f"/ kubelet_volume_stats_capacity_bytes{{{volumes}}})",
            "> 0.9",
            "15m",
            "warning",
            "The volume {{ $labels.persistentvolumeclaim }} is nearly full.",
        ),
        Alert(
            "MlhubBackupMissing",
            # Not a number where none was ever made.
            f"time() - max(mlhub_backup_timestamp_seconds{{{here}}})",
            f"> {2 * 24 * 3600}",
            "1h",
            "warning",
            "For two days no backup has succeeded.",
        ),
    ]
    if services:
        found.append(
            Alert(
                "MlhubServiceFaults",
                # 504 is how a run does that somebody waits for, and no fault of the service.
                "sum by (job) (increase("
                f'mlhub_requests_refused_total{{{here},status=~"500|503"}}[15m]))',
                "> 5",
                "5m",
                "warning",
                "{{ $labels.job }} could not answer requests, or had a fault.",
            )
        )
    if execution:
        found += [
            Alert(
                "MlhubRunsNotSeen",
                f"time() - max(mlhub_reconciled_timestamp_seconds{{{here}}})",
                "> 300",
                "5m",
                "critical",
                "The execution API has not compared its runs with the cluster for minutes.",
            ),
            Alert(
                "MlhubRunsWait",
                # The longest of some minutes: it ends with each run that fails for it.
                f"max(max_over_time(mlhub_run_oldest_queued_seconds{{{here}}}[10m]))",
                f"> {start_seconds // 2}",
                "1m",
                "warning",
                f"Runs wait to start. One that has waited for {start_seconds} s has failed.",
            ),
            Alert(
                "MlhubRunsLost",
                # Those that were lost while the API was down are counted before anybody looks at
                # the new one, and no increase of what is first seen at 1.
                f"sum(increase({lost}[1h])) + (sum({lost} unless {lost} offset 1h){HIDDEN_ZERO})",
                "> 0",
                "1m",
                "warning",
                "Runs were lost: nobody can say how they ended.",
            ),
        ]
    if verify is not None:
        found.append(
            Alert(
                "MlhubVerifyFailed",
                f"max(mlhub_verify_failed{{{here}}})",
                "> 0",
                "1m",
                "critical",
                "A temporary person could not do all that people do here.",
            )
        )
    if verify is not None and not verify.suspended:
        found.append(
            Alert(
                "MlhubVerifyMissing",
                f"time() - max(mlhub_verified_timestamp_seconds{{{here}}})",
                # A schedule has a day of each week at least.
                f"> {8 * 24 * 3600}",
                "1h",
                "warning",
                "For eight days no verification has succeeded.",
            )
        )
    return [
        alert if alert.name == VOLUME_FULL else replace(alert, namespace=namespace)
        for alert in found
    ]


def down(word: str, part: str, here: str, severity: str) -> Alert:
    return Alert(
        f"Mlhub{word}Down",
        f'count(up{{{here},job="{metrics_service(part)}"}} == 1){HIDDEN_ZERO}',
        "< 1",
        "5m",
        severity,
        f"No pod of the {part} answers Prometheus.",
    )


def rule_groups(found: list[Alert], docs: str) -> list[dict[str, Any]]:
    """`spec.groups` of a PrometheusRule, which is also a file of rules of Prometheus' own."""
    return [
        {
            "name": "mlhub",
            "rules": [
                {
                    "alert": alert.name,
                    "expr": alert.expression,
                    "for": alert.lasting,
                    "labels": {
                        "severity": alert.severity,
                        **({"namespace": alert.namespace} if alert.namespace else {}),
                    },
                    "annotations": {
                        "summary": alert.summary,
                        "runbook_url": f"{docs}/operations.md#{alert.name.lower()}",
                    },
                }
                for alert in found
            ],
        }
    ]
