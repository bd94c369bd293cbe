"""`python -m notebooks.jobs.run`: one notebook, from the home and back into it.

The original is read once and never opened for writing. The cells run in a child, on a copy; what
they leave, whole or partial, appears in the home under the output's name by one rename. What
happened is the exit code (0, 1, 138 for a dead kernel) and the pod's termination message.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from notebooks.jobs.counting import own
from notebooks.jobs.paths import PathRefusedError, inside, publish, read_notebook
from notebooks.jobs.tracking import Tracking

TASK = "MLHUB_RUN"
RESULT = "MLHUB_RUN_RESULT"
TERMINATION_LOG = "/dev/termination-log"
LARGEST_RESULT = 4096
"""Kubernetes cuts a termination message here (Container.terminationMessagePath)."""

LARGEST_NOTEBOOK = 100 * 2**20
GRACE_SECONDS = 15
"""For the child to save what it has, within the pod's own grace."""

STAMP = "%Y%m%d_%H%M%S"
DEAD_KERNEL = 138


@dataclass(frozen=True)
class Task:
    """`MLHUB_RUN`, as `mlhub.execution.jobs` writes it."""

    id: str
    notebook: str
    output: str
    replace: bool
    """Whether the person named the output themselves: then a former run's may be there."""
    parameters: dict[str, Any]
    time_limit: int
    cell_timeout: int | None
    experiment: str


class StoppedError(BaseException):
    """The pod was told to end. No Exception, which whoever asks MLflow takes for its trouble."""


def main() -> int:
    task = Task(**json.loads(os.environ.pop(TASK)))
    # The kernel's children inherit the environment; this variable is no business of theirs.
    result_file = Path(os.environ.pop(RESULT, TERMINATION_LOG))
    signal.signal(signal.SIGTERM, _stop)
    tracking: Tracking | None = None
    result: dict[str, Any] = {}
    try:
        home = Path.home()
        content = read_notebook(home, task.notebook, LARGEST_NOTEBOOK)
        place = output_place(home, task)
        tracking = Tracking(task.experiment, f"{task.notebook} ({task.id})", tags(task))
        result = execute(task, home, content, place, tracking)
    except StoppedError:
        result = {"reason": "stopped", "message": "The run was stopped before its first cell."}
    except PathRefusedError as refusal:
        result = {"reason": refusal.reason, "message": str(refusal)}
    except OSError as error:
        result = {"reason": "home", "message": f"The home cannot be used: {error.strerror}."}
    finally:
        _ignore_stops()
        if tracking:
            status = {None: "FINISHED", "stopped": "KILLED"}.get(result.get("reason"), "FAILED")
            output = result.get("output")
            tracking.end(status, str(Path.home() / output) if output else None)
            result["mlflow_run_id"] = tracking.run_id
        tell(result_file, result)
    return {None: 0, "dead-kernel": DEAD_KERNEL}.get(result.get("reason"), 1)


def _stop(*_: Any) -> None:
    _ignore_stops()
    raise StoppedError


def _ignore_stops() -> None:
    """From here on there is nothing to stop, and something to tell."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def tags(task: Task) -> dict[str, str]:
    return {"mlhub.run": task.id, "mlhub.notebook": task.notebook, "mlhub.output": task.output}


def output_place(home: Path, task: Task) -> Path:
    """Where the output goes; PathRefusedError where that is what a person made."""
    place = inside(home, task.output)
    place.parent.mkdir(parents=True, exist_ok=True)
    source = inside(home, task.notebook)
    if place.exists() and (place.samefile(source) or not made_by_a_run(place)):
        raise PathRefusedError(
            "output-exists",
            f"{task.output!r} exists and is no run's output; it is left as it is. Name another.",
        )
    return place


def made_by_a_run(file: Path) -> bool:
    return _papermill_of(file) is not None


def made_by(run_id: str, file: Path) -> bool:
    """Whether it is that very run's, and not a former one's of the same name."""
    return (_papermill_of(file) or {}).get("mlhub_run") == run_id


def _papermill_of(file: Path) -> dict[str, Any] | None:
    """What Papermill has noted in a notebook; None where it has not, or it is no notebook."""
    try:
        noted = json.loads(file.read_bytes())["metadata"]["papermill"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return noted if isinstance(noted, dict) else {}


def execute(
    task: Task, home: Path, content: bytes, place: Path, tracking: Tracking
) -> dict[str, Any]:
    """Run the cells and bring the notebook to its place; what happened."""
    unfinished = unfinished_at(place, task)
    with tempfile.TemporaryDirectory(prefix="mlhub-run-") as work:
        copy, report = Path(work) / "input.ipynb", Path(work) / "report.json"
        copy.write_bytes(content)
        given = {
            "id": task.id,
            "notebook": task.notebook,
            "output": task.output,
            "copy": str(copy),
            "unfinished": str(unfinished),
            "folder": str(inside(home, task.notebook).parent),
            "report": str(report),
            "parameters": task.parameters,
            "cell_timeout": task.cell_timeout,
        }
        environment = {"IPYNB_FILE": str(inside(home, task.notebook)), **tracking.environment()}
        result = _child(given, environment, task.time_limit)
        _ignore_stops()
        if not result and report.exists():
            result = json.loads(report.read_text(encoding="utf-8"))
    return result | bring_home(unfinished, place, task, home)


def unfinished_at(place: Path, task: Task) -> Path:
    """Where a notebook is while its cells run: hidden, beside where it will be."""
    return place.with_name(f".{place.stem}.{task.id}.partial.ipynb")


def bring_home(unfinished: Path, place: Path, task: Task, home: Path) -> dict[str, Any]:
    """Give what the cells left, whole or partial, its name; where and how much it is."""
    unfinished.with_name(f"{unfinished.name}.writing").unlink(missing_ok=True)
    if not unfinished.exists():
        return {}
    return described(put(unfinished, place, replace=task.replace), home)


def described(output: Path, home: Path) -> dict[str, Any]:
    """Where a run's notebook is, how large, and how many of its cells are done."""
    cells = own(json.loads(output.read_bytes())["cells"])
    states = [c["metadata"].get("papermill", {}).get("status") for c in cells]
    return {
        "cells": [states.count("completed"), sum(state is not None for state in states)],
        "size": output.stat().st_size,
        "output": output.relative_to(home.resolve()).as_posix(),
    }


def _child(given: dict[str, Any], environment: dict[str, str], time_limit: int) -> dict[str, Any]:
    """What the parent alone can know; empty where the child's own report is all there is."""
    child = subprocess.Popen(
        [sys.executable, "-sP", "-m", "notebooks.jobs.cells"],
        stdin=subprocess.PIPE,
        env=os.environ | environment,
        start_new_session=True,
    )
    try:
        child.communicate(json.dumps(given).encode(), timeout=time_limit)
    except StoppedError:
        found = {"reason": "stopped", "message": "The run was stopped."}
    except subprocess.TimeoutExpired:
        found = {
            "reason": "time-limit",
            "message": f"The run took longer than its limit of {time_limit} s.",
        }
    else:
        found = {}
    if found or child.returncode not in (0, 1, DEAD_KERNEL):
        _end(child)
    if not found and child.returncode < 0:
        found = {
            "reason": "dead-kernel",
            "message": (
                f"Papermill was killed ({signal.Signals(-child.returncode).name}), most often for "
                "want of memory; take a larger profile."
            ),
        }
    elif not found and child.returncode not in (0, 1, DEAD_KERNEL):
        found = {
            "reason": "not-runnable",
            "message": "Papermill ended without a word; see the log.",
        }
    return found


def _end(child: subprocess.Popen[bytes]) -> None:
    """End the child and its kernels; what it saved after the last cell is there already."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        child.wait(GRACE_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def put(finished: Path, place: Path, *, replace: bool) -> Path:
    """Rename to `place`, or to the next name that is free. A run's output that is there is replaced
    where that was asked for, and nothing else: the person may have saved something since the first
    cell."""
    if replace and made_by_a_run(place) and not place.is_symlink():
        os.replace(finished, place)
        return place
    found = place
    while True:
        try:
            publish(finished, found)
        except FileExistsError:
            found = _next_name(found)
        else:
            break
    if found != place:
        print(f"[mlhub] {place.name} is taken and stays; the output is {found.name}", flush=True)
    return found


def _next_name(place: Path) -> Path:
    """With the next second's stamp; with the present one's where it has none."""
    try:
        stamp = datetime.strptime(place.stem[-16:], f"_{STAMP}") + timedelta(seconds=1)
        stem = place.stem[:-16]
    except ValueError:
        stamp, stem = datetime.now(UTC), place.stem
    return place.with_name(f"{stem}_{stamp.strftime(STAMP)}.ipynb")


def tell(file: Path, result: dict[str, Any]) -> None:
    """The termination message, shortened to what Kubernetes keeps."""
    error = result.get("error")
    text = json.dumps(result)
    while len(text) > LARGEST_RESULT and error:
        if error["traceback"]:
            error["traceback"].pop(0)
        elif len(error["evalue"]) > 100:
            error["evalue"] = error["evalue"][: len(error["evalue"]) // 2] + "…"
        else:
            result.pop("error")
            error = None
        text = json.dumps(result)
    with suppress(OSError):
        file.write_text(text, encoding="utf-8")
    print(f"[mlhub] {result.get('message') or 'all cells done'}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
