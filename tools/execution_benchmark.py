"""What a run costs beyond Papermill, measured in one pod in one go; prints the table of the docs.

It runs inside somebody's server, whose image and home are a run's, and needs nothing but them:

    kubectl -n jupyterhub exec -i jupyter-alice -- python - < tools/execution_benchmark.py
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from notebooks.execution import ExecutionClient, Run

ROUNDS = 7
API_RUNS = 4
"""Within the five that a person may start in a minute."""

SOURCES = ("n = 1", "print('n', n)")
NAME = "execution-benchmark"


def notebook() -> str:
    cells: list[dict[str, Any]] = [
        {
            "cell_type": "code",
            "id": f"cell-{number}",
            "metadata": {"tags": ["parameters"]} if number == 0 else {},
            "execution_count": None,
            "outputs": [],
            "source": source,
        }
        for number, source in enumerate(SOURCES)
    ]
    kernel = {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}}
    return json.dumps({"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5})


def seconds(command: list[str], **environment: str) -> float:
    # Without MLflow, which plain Papermill does not tell of its runs.
    clean = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW")}
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=clean | environment)
    return time.perf_counter() - start


def papermill(folder: Path) -> float:
    given = [str(folder / "in.ipynb"), str(folder / "out.ipynb"), "-p", "n", "2"]
    return seconds([sys.executable, "-m", "papermill", "--no-progress-bar", *given])


def runner(folder: Path) -> float:
    task = {
        "id": "0" * 16,
        "notebook": "in.ipynb",
        "output": "made.ipynb",
        "replace": True,
        "parameters": {"n": 2},
        "time_limit": 600,
        "cell_timeout": None,
        "experiment": "",
    }
    command = [sys.executable, "-sP", "-m", "notebooks.jobs.run"]
    result = str(folder / "result.json")
    return seconds(command, MLHUB_RUN=json.dumps(task), MLHUB_RUN_RESULT=result, HOME=str(folder))


def by_api(client: ExecutionClient, profile: str) -> Run:
    return client.wait(client.run(f"./{NAME}.ipynb", {"n": 2}, profile=profile))


def between(run: Run, first: str, then: str) -> float:
    moments = [datetime.fromisoformat(str(run.plain[name])) for name in (first, then)]
    return (moments[1] - moments[0]).total_seconds()


def row(what: str, times: list[float]) -> None:
    print(f"| {what} | {statistics.median(times):.1f} s | {min(times):.1f} to {max(times):.1f} s |")


def main(profile: str) -> None:
    plain, ours = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in.ipynb").write_text(notebook())
        papermill(folder), runner(folder)  # what is read from the disk for the first time
        for _ in range(ROUNDS):
            plain.append(papermill(folder))
            ours.append(runner(folder))
    original = Path.home() / f"{NAME}.ipynb"
    original.write_text(notebook())
    start = time.perf_counter()
    client = ExecutionClient()
    runs = [by_api(client, profile) for _ in range(API_RUNS)]
    took = time.perf_counter() - start
    for run in runs:
        (Path.home() / run.output_notebook).unlink(missing_ok=True)
    original.unlink()
    load = os.getloadavg()[0]
    stamp = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
    print(f"{stamp} UTC, {os.cpu_count()} cores, load {load:.1f}; a notebook of two cells.\n")
    print("| what | median | from to |\n|---|---|---|")
    row("plain `papermill`", plain)
    row("the runner of a run's pod", ours)
    row("of that its own", [each - beside for each, beside in zip(ours, plain, strict=True)])
    row(
        "by the API: accepted until the pod runs",
        [between(r, "timestamp", "started") for r in runs],
    )
    row("the pod until its end", [between(r, "started", "finished") for r in runs])
    print(f"\n{API_RUNS} runs one after the other by the API: {API_RUNS / took * 60:.1f} a minute.")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "small-cpu")
