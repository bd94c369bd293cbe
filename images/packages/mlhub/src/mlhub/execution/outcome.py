"""What a Job and its pod say about a run. Pure: objects in, what to write down out.

A run succeeds or fails where the cluster knows it did. Where the cluster no longer knows (Job or
pod gone with no trace of an end) it is lost: nothing is run again, and nothing waits for ever.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from mlhub import homes, kubelet
from mlhub.execution.settings import Limits
from mlhub.execution.store import Run

Object = Mapping[str, Any]

CREATION_SECONDS = 30
"""A run is written down before its Job is made, and the Job before it is started; this long a run
may be without the one, and its Job without the other."""

SLACK_SECONDS = 300
"""Beyond every deadline of a run; whoever still calls it active has not been told."""

PROGRESS = re.compile(r"^\[mlhub\] cell (\d{1,6}) of (\d{1,6})$", re.MULTILINE)

KILLED = {"memory", "container", "pod-gone", "job-gone", "overdue"}
"""Reasons by which the runner did not come to bring the notebook home."""

LARGEST_INTEGER, LARGEST_BIGINT = 2**31 - 1, 2**63 - 1
"""Of PostgreSQL's columns."""

BAD_WAITING = {
    "ImagePullBackOff": "image",
    "InvalidImageName": "image",
    "CreateContainerConfigError": "container",
    "CreateContainerError": "container",
    "RunContainerError": "container",
}


def storable(text: str) -> str:
    """Without what PostgreSQL keeps in no text: NUL and half surrogate pairs."""
    return re.sub("[\0\ud800-\udfff]", "", text)


Words = Annotated[str, AfterValidator(storable)]
Count = Annotated[int, Field(ge=0, le=LARGEST_INTEGER)]


class CellError(BaseModel):
    """An error in a cell, as Python and Papermill tell it."""

    cell: int = Field(ge=1, description="counted from 1 in the notebook as it was given")
    ename: str = Field(description="such as ZeroDivisionError")
    evalue: str
    traceback: list[str]


class Result(BaseModel):
    """The runner's termination message. It comes from a pod of the person's: checked."""

    model_config = ConfigDict(extra="ignore")

    reason: str | None = Field(default=None, max_length=50, pattern="^[a-z-]+$")
    message: Words | None = Field(default=None, max_length=2000)
    error: CellError | None = None
    cells: tuple[Count, Count] | None = None
    output: str | None = Field(default=None, max_length=1100)
    size: int | None = Field(default=None, ge=0, le=LARGEST_BIGINT)
    mlflow_run_id: Words | None = Field(default=None, max_length=64)


@dataclass(frozen=True)
class Change:
    """Values to write to the run, and whether its Job has to go."""

    values: dict[str, Any] = field(default_factory=dict)
    delete_job: bool = False


def judge(
    run: Run, job: Object | None, pod: Object | None, now: float, limits: Limits
) -> Change | None:
    """What has changed for an active run, or None."""
    if job is None:
        if now - run.created < CREATION_SECONDS and not run.cancel_requested:
            return None
        return _gone(run, now)
    # A Job that is over was so before its deletion: the cluster may have been silent at the cancel.
    if run.cancel_requested and not finished(job):
        return Change({}, delete_job=True)
    return _alive(run, job, pod, now, limits)


def _alive(run: Run, job: Object, pod: Object | None, now: float, limits: Limits) -> Change | None:
    container = _container(pod) if pod else {}
    terminated = (container.get("state") or {}).get("terminated")
    if terminated:
        return Change(_ended(run, job, terminated, now))
    if condition := finished(job):
        return Change(_without_words(run, condition, pod, now))
    if now - run.created > limits.start_seconds + run.time_limit + SLACK_SECONDS:
        return Change(
            _end("lost", "overdue", "The run is long past its deadline and says nothing.", now),
            delete_job=True,
        )
    if (container.get("state") or {}).get("running"):
        return _running(run, container)
    if job.get("spec", {}).get("suspend") and now - run.created > CREATION_SECONDS:
        message = (
            "The service ended or Kubernetes was silent while the run's Job was made; nothing of "
            "it ran. Run it again."
        )
        return Change(_end("failed", "not-started", message, now), delete_job=True)
    return _not_started(run, pod, container, now, limits)


def progress(log: str) -> tuple[int, int] | None:
    """Cells done and in all, from the last line that says so."""
    last = None
    for last in PROGRESS.finditer(log):  # noqa: B007
        pass
    return (int(last[1]) - 1, int(last[2])) if last else None


def _container(pod: Object) -> Object:
    statuses = pod.get("status", {}).get("containerStatuses") or [{}]
    first: Object = statuses[0]
    return first


def over(pod: Object) -> bool:
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def finished(job: Object) -> Object | None:
    """The condition by which a Job says that it is over."""
    for condition in job.get("status", {}).get("conditions") or []:
        if condition["type"] in ("Complete", "Failed") and condition["status"] == "True":
            found: Object = condition
            return found
    return None


def _end(status: str, reason: str | None, message: str | None, now: float) -> dict[str, Any]:
    return {"status": status, "reason": reason, "message": message, "finished": now}


def _gone(run: Run, now: float) -> Change:
    if run.cancel_requested:
        return Change(_end("cancelled", "cancelled", "The run was cancelled.", now))
    return Change(
        _end(
            "lost",
            "job-gone",
            "The run's Job is not in the cluster, and what became of it is not known. Look for "
            "its output before you run it again.",
            now,
        )
    )


def _ended(run: Run, job: Object, terminated: Object, now: float) -> dict[str, Any]:
    """The container ended by itself; the runner's words, else Kubernetes'."""
    ended = _time(terminated.get("finishedAt")) or now
    started = _time(terminated.get("startedAt")) or run.started
    try:
        result = Result.model_validate_json(terminated.get("message") or "")
    except ValidationError:
        result = Result()
    values: dict[str, Any] = {"started": started}
    if result.cells:
        values |= {"cells_done": result.cells[0], "cells_total": result.cells[1]}
    if result.output and _beside(result.output, run.output):
        values |= {"output": result.output}
    values |= {"size": result.size, "mlflow_run_id": result.mlflow_run_id}
    condition = finished(job) or {}
    if terminated.get("exitCode") == 0:
        return values | _end("succeeded", None, None, ended)
    if terminated.get("reason") == "OOMKilled":
        message = "The run took more memory than its profile has; take a larger profile."
        return values | _end("failed", "memory", message, ended)
    if result.reason == "stopped" and condition.get("reason") == "DeadlineExceeded":
        return values | _deadline(run, ended)
    if result.reason == "stopped":
        message = (
            "The run was stopped from outside (its pod was deleted or its node drained). What it "
            "had done is in its output; run it again."
        )
        return values | _end("failed", "stopped", message, ended)
    if result.reason:
        error = result.error.model_dump() if result.error else None
        return values | _end("failed", result.reason, result.message, ended) | {"error": error}
    code = terminated.get("exitCode")
    said = terminated.get("message") or terminated.get("reason") or "no reason given"
    message = f"The run's container ended with exit code {code}: {_short(said)}"
    return values | _end("failed", "container", message, ended)


def collected(log: str, run: Run) -> dict[str, Any]:
    """Values to write down from the last line of a collecting pod; empty where it found nothing."""
    try:
        result = Result.model_validate_json(log.strip().rpartition("\n")[2])
    except ValidationError:
        return {}
    if not result.output or not result.cells or not _beside(result.output, run.output):
        return {}
    return {
        "output": result.output,
        "size": result.size,
        "cells_done": result.cells[0],
        "cells_total": result.cells[1],
    }


def by_the_hub(why: str) -> dict[str, Any]:
    """Of a run whose pod was deleted, by the hub and for that."""
    message = f"The hub ended this run. {why[0].upper()}{why[1:].rstrip('.')}."
    return {"status": "failed", "reason": "role", "message": message}


def _beside(output: str, planned: str) -> bool:
    """Whether a pod's word for its output is what was planned but for the time in its name, which
    one that was taken meanwhile has got."""
    strip = re.compile(r"(_\d{8}_\d{6})?\.ipynb$")
    return strip.sub("", output) == strip.sub("", planned)


def _deadline(run: Run, now: float) -> dict[str, Any]:
    message = f"The run took longer than its limit of {run.time_limit} s, its start included."
    return _end("failed", "time-limit", message, now)


def _without_words(run: Run, condition: Object, pod: Object | None, now: float) -> dict[str, Any]:
    """The Job is over and no container says how."""
    if condition["type"] == "Complete":
        return _end("succeeded", None, None, now)
    if condition.get("reason") == "DeadlineExceeded":
        return _deadline(run, now)
    status = (pod or {}).get("status", {})
    said = status.get("message") or status.get("reason") or condition.get("message") or ""
    message = f"The run's pod is gone, and how far it came is not known: {_short(said)}"
    return _end("lost", "pod-gone", message, now)


def _running(run: Run, container: Object) -> Change | None:
    if run.status == "running":
        return None
    started = _time(container["state"]["running"].get("startedAt"))
    return Change({"status": "running", "started": started})


def _not_started(
    run: Run, pod: Object | None, container: Object, now: float, limits: Limits
) -> Change | None:
    waiting = (container.get("state") or {}).get("waiting") or {}
    reason, said = waiting.get("reason") or "", waiting.get("message") or ""
    if reason in BAD_WAITING and not kubelet.tries_again(said):
        message = f"The run's pod does not start: {reason}: {_short(said)}"
        return Change(_end("failed", BAD_WAITING[reason], message, now), delete_job=True)
    conditions = (pod or {}).get("status", {}).get("conditions") or []
    if container.get("containerID") and not reason and _has_no_sandbox(conditions):
        message = "The node restarted just before the run began; nothing of it ran. Run it again."
        return Change(_end("failed", "not-started", message, now), delete_job=True)
    if run.status == "running" or now - run.created < limits.start_seconds:
        return None
    why = [c.get("message") for c in conditions if c["status"] == "False" and c.get("message")]
    said = said or (why[0] if why else "no pod was made; the namespace's quota may have no room.")
    if homes.is_elsewhere(said):
        said = f"{homes.ELSEWHERE} Kubernetes says: {said}"
    elif _has_no_sandbox(conditions):
        said = f"{said.rstrip('.')}. {homes.PERHAPS_ELSEWHERE}"
    message = f"The run did not start within {limits.start_seconds} s: {_short(said)}"
    return Change(_end("failed", "not-started", message, now), delete_job=True)


def _has_no_sandbox(conditions: list[Object]) -> bool:
    """Before any container its pod's volumes are mounted, and its network is made. After one was
    made and not started, the kubelet does it no more: the pod is never restarted."""
    return any(
        c["type"] == "PodReadyToStartContainers" and c["status"] == "False" for c in conditions
    )


def _time(text: str | None) -> float | None:
    return datetime.fromisoformat(text).timestamp() if text else None


def _short(text: str) -> str:
    line = " ".join(storable(text).split())
    return f"{line[:400]}…" if len(line) > 400 else line
