"""Whether a template runs in this image and leaves its run: `template.py NAME PARAMETER=VALUE`,
asked at build.

`make test` runs the templates, but for those whose library weighs gigabytes. The template asserts
its own results; the MLflow is a database beside it. It runs twice in one folder, as in a sweep, the
second time with the changed parameter, whose results must be its own.
"""

# ruff: noqa: S101

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

QUIETLY = ("--no-progress-bar", "--start-timeout", "300")  # a builder may be busy

name, changed = sys.argv[1:]
with tempfile.TemporaryDirectory() as folder:
    os.environ["HOME"] = folder
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
    notebook, executed = f"{name}.ipynb", "executed.ipynb"
    start = time.monotonic()
    copy = ("notebooks.cli", "templates", "copy", name, notebook)
    run_it = ("papermill", *QUIETLY, notebook, executed, "-p", "experiment")
    for command in (
        copy,
        (*run_it, name),
        (*run_it, "changed", "-p", *changed.split("=")),
    ):
        subprocess.run([sys.executable, "-m", *command], cwd=folder, check=True)

    from mlflow import MlflowClient

    client = MlflowClient()
    metrics = []
    for experiment_name in (name, "changed"):
        experiment = client.get_experiment_by_name(experiment_name)
        assert experiment is not None, f"{name} made no experiment"
        (run,) = client.search_runs([experiment.experiment_id])
        assert run.info.status == "FINISHED", run.info
        assert run.data.params, run.data
        assert run.data.metrics, run.data
        metrics.append(run.data.metrics)
    assert '"image/png"' in Path(folder, executed).read_text(), "no plot"
    first, other = metrics
    assert first.keys() == other.keys(), f"{changed} did not do the same work"
    same = [each for each in first if first[each] == other[each]]
    assert len(same) < len(first) / 2, f"{changed} has results of the run before: {same}"
    print(f"template {name} ({time.monotonic() - start:.1f} s): {first}")
