"""The Grafana dashboard of a stack. Pure."""

from dataclasses import dataclass
from typing import Any

COLUMNS, WIDTH, HEIGHT = 3, 8, 8
"""Panels in a row, and their size on Grafana's grid of 24 columns."""

SOURCE = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True)
class Panel:
    title: str
    unit: str
    """Grafana's name of it."""
    series: tuple[tuple[str, str], ...]
    """PromQL, and the legend of what it gives."""


def panels(namespace: str, *, services: bool, execution: bool) -> list[Panel]:
    """What to see of one stack; `namespace` is its hub's."""
    here = f'namespace="{namespace}"'
    starts = "jupyterhub_server_spawn_duration_seconds"
    used = f"kubelet_volume_stats_used_bytes{{{here}}}"
    found = [
        Panel(
            "Quota used by group",
            "percentunit",
            (
                (
                    f"mlhub_quota_used{{{here}}} / mlhub_quota_limit{{{here}}}",
                    "{{group}} {{dimension}}",
                ),
            ),
        ),
        Panel(
            "GPU-hours of this week by group",
            "h",
            ((f"mlhub_gpu_hours_week{{{here}}}", "{{group}}"),),
        ),
        Panel(
            "Held: servers and runs, cores, GPUs",
            "short",
            ((f'mlhub_held{{{here},dimension!="memory"}}', "{{dimension}}"),),
        ),
        Panel(
            "Held: memory",
            "bytes",
            ((f'mlhub_held{{{here},dimension="memory"}}', "memory"),),
        ),
        Panel(
            "Asks in an hour, by outcome",
            "short",
            (
                (
                    f"sum by (kind, outcome) (increase(mlhub_admissions_total{{{here}}}[1h]))",
                    "{{kind}} {{outcome}}",
                ),
            ),
        ),
        Panel(
            "Refusals in an hour, by reason",
            "short",
            (
                (
                    "sum by (kind, reason) (increase("
                    f'mlhub_admissions_total{{{here},outcome="refused"}}[1h]))',
                    "{{kind}} {{reason}}",
                ),
            ),
        ),
        Panel(
            "Spawn latency",
            "s",
            tuple(
                (quantile(share, f'{starts}_bucket{{{here},status="success"}}', "30m"), legend)
                for share, legend in SHARES
            ),
        ),
        Panel(
            "Starts in an hour, by how they ended",
            "short",
            (
                (
                    f"sum by (status, reason) (increase({starts}_count{{{here}}}[1h]))",
                    "{{status}} {{reason}}",
                ),
            ),
        ),
        Panel(
            "Servers that ended in an hour: stopped, culled, by themselves",
            "short",
            (
                (
                    f"sum by (how) (increase(mlhub_server_stops_total{{{here}}}[1h]))",
                    "{{how}}",
                ),
            ),
        ),
        Panel(
            "Volumes: asked for",
            "bytes",
            ((f"mlhub_volume_requested_bytes{{{here}}}", "{{kind}}"),),
        ),
        Panel(
            "Volumes in use: filled",
            "bytes",
            (
                (
                    # Each node tells of a volume that it has mounted.
                    f"sum by (kind) ({by_kind(f'max by (persistentvolumeclaim) ({used})')})",
                    "{{kind}}",
                ),
            ),
        ),
        Panel(
            "Volumes in use: the fullest",
            "percentunit",
            (
                (
                    f"topk(10, max by (persistentvolumeclaim) (kubelet_volume_stats_used_bytes"
                    f"{{{here}}} / kubelet_volume_stats_capacity_bytes{{{here}}}))",
                    "{{persistentvolumeclaim}}",
                ),
            ),
        ),
    ]
    if execution:
        found += [
            Panel("Runs by state", "short", ((f"mlhub_runs{{{here}}}", "{{status}}"),)),
            Panel(
                "Runs that ended in an hour",
                "short",
                (
                    (
                        f"sum by (status) (increase(mlhub_run_seconds_count{{{here}}}[1h]))",
                        "{{status}}",
                    ),
                ),
            ),
            Panel(
                "Runs: the wait, and the run itself",
                "s",
                tuple(
                    (quantile(share, f"{metric}_bucket{{{here}}}", "1h"), f"{what}, {legend}")
                    for metric, what in (
                        ("mlhub_run_wait_seconds", "wait"),
                        ("mlhub_run_seconds", "run"),
                    )
                    for share, legend in SHARES
                ),
            ),
        ]
    if services:
        found.append(
            Panel(
                "Requests refused in an hour, by reason",
                "short",
                (
                    (
                        "sum by (job, status, reason) (increase("
                        f"mlhub_requests_refused_total{{{here}}}[1h]))",
                        "{{job}} {{status}} {{reason}}",
                    ),
                ),
            )
        )
    return found


SHARES = ((0.5, "half are below"), (0.9, "nine in ten are below"))


def quantile(share: float, buckets: str, window: str) -> str:
    return f"histogram_quantile({share}, sum by (le) (rate({buckets}[{window}])))"


def by_kind(series: str) -> str:
    """The series with a label `kind`, made of the name of the claim."""
    labelled = f'label_replace({series}, "kind", "shared", "", "")'
    for kind, prefix in (("home", "claim-"), ("workspace", "workspace-")):
        labelled = (
            f'label_replace({labelled}, "kind", "{kind}", "persistentvolumeclaim", "{prefix}.+")'
        )
    return labelled


def dashboard(namespace: str, shown: list[Panel]) -> dict[str, Any]:
    """Grafana's JSON."""
    return {
        "uid": f"mlhub-{namespace}"[:40],
        "title": f"mlhub: {namespace}",
        "tags": ["mlhub"],
        "schemaVersion": 39,
        "editable": False,
        "refresh": "1m",
        "time": {"from": "now-24h", "to": "now"},
        "templating": {
            "list": [{"name": "datasource", "type": "datasource", "query": "prometheus"}]
        },
        "panels": [
            {
                "id": number + 1,
                "type": "timeseries",
                "title": panel.title,
                "datasource": SOURCE,
                "gridPos": {
                    "x": number % COLUMNS * WIDTH,
                    "y": number // COLUMNS * HEIGHT,
                    "w": WIDTH,
                    "h": HEIGHT,
                },
                "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
                "targets": [
                    {
                        "refId": chr(ord("A") + place),
                        "datasource": SOURCE,
                        "expr": expression,
                        "legendFormat": legend,
                    }
                    for place, (expression, legend) in enumerate(panel.series)
                ],
            }
            for number, panel in enumerate(shown)
        ],
    }
