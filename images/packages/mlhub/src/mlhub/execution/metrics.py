"""What the execution API shows of runs to Prometheus."""

from collections.abc import Collection

from prometheus_client import Gauge, Histogram

from mlhub.execution.store import ACTIVE, FINAL, Run

RUNS = Gauge("mlhub_runs", "Runs that have not ended.", ["status"])
OLDEST = Gauge("mlhub_run_oldest_queued_seconds", "For how long the oldest queued run has waited.")
RECONCILED = Gauge(
    "mlhub_reconciled_timestamp_seconds", "When the runs were last compared with the cluster."
)
WAITED = Histogram(
    "mlhub_run_wait_seconds",
    "From the ask to the start of a run.",
    buckets=(1, 5, 10, 20, 30, 60, 120, 300, 600, 1800),
)
TOOK = Histogram(
    "mlhub_run_seconds",
    "From the start of a run to its end, or from the ask where it never started.",
    ["status"],
    buckets=(5, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400, 43200),
)
for _status in FINAL:
    TOOK.labels(_status)


def tell(active: Collection[Run], now: float) -> None:
    """What has not ended; `now` is when that was compared with the cluster."""
    for status in ACTIVE:
        RUNS.labels(status).set(sum(run.status == status for run in active))
    waiting = [now - run.created for run in active if run.status == "queued"]
    OLDEST.set(max(waiting, default=0))
    RECONCILED.set(now)


def changed(run: Run, status: str, started: float | None, finished: float | None) -> None:
    """A run that had been as `run` says has got another status."""
    if run.started is None and started is not None:
        WAITED.observe(max(0.0, started - run.created))
    if finished is not None:
        TOOK.labels(status).observe(max(0.0, finished - (started or run.started or run.created)))
