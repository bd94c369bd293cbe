"""Whether a template runs in this image and leaves its run: `template.py NAME`, asked at build.

`make test` runs the templates, but for those whose library weighs gigabytes. The template asserts
its own results; the MLflow is a database beside it.
"""

# ruff: noqa: S101

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

QUIETLY = ("--no-progress-bar", "--start-timeout", "300")  # a builder may be busy

(name,) = sys.argv[1:]
with tempfile.TemporaryDirectory() as folder:
    os.environ["HOME"] = folder
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
    notebook, executed = f"{name}.ipynb", "executed.ipynb"
    start = time.monotonic()
    for command in (
        ("notebooks.cli", "templates", "copy", name, notebook),
        ("papermill", *QUIETLY, "-p", "experiment", name, notebook, executed),
    ):
        subprocess.run([sys.executable, "-m", *command], cwd=folder, check=True)

    from mlflow import MlflowClient

    client = MlflowClient()
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None, f"{name} made no experiment"
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED", run.info
    assert run.data.params, run.data
    assert run.data.metrics, run.data
    assert '"image/png"' in Path(folder, executed).read_text(), "no plot"
    print(f"template {name} ({time.monotonic() - start:.1f} s): {run.data.metrics}")
