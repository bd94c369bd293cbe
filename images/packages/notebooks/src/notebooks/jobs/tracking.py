"""The MLflow run of a run: made before the first cell, ended by how the notebook ended.

Left to itself a notebook's run ends FINISHED when a cell fails and never when the kernel dies
(mlflow, read in its `atexit` hook). Trouble with MLflow is said in the log and stops no notebook.
"""

import os
import re
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from notebooks.experiments import experiment_id
from notebooks.person import person

QUICK = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}
"""The defaults block for four minutes where MLflow is down."""

UNQUOTED = re.compile(r"^\s|[#?%:\x00-\x1f\x7f]")
"""Of a file's name: what MLflow's client sends as it is, so that a server reads another name, or
none, and what it takes for a drive or a scheme (mlflow 3.17, `http_artifact_repo`)."""


def say(what: str) -> None:
    print(f"[mlhub] MLflow: {what}", file=sys.stderr, flush=True)


class Tracking:
    """One MLflow run, or none where no server is named or it does not answer."""

    def __init__(self, experiment: str, name: str, tags: Mapping[str, str]):
        self.run_id: str | None = None
        self._client: Any = None
        if os.environ.get("MLFLOW_TRACKING_URI"):
            self._try("the run is not recorded", lambda: self._start(experiment, name, tags))

    def _start(self, experiment: str, name: str, tags: Mapping[str, str]) -> None:
        for variable, value in QUICK.items():
            os.environ.setdefault(variable, value)
        from mlflow import MlflowClient  # noqa: PLC0415 (seconds, where nothing is tracked)

        self._client = MlflowClient()
        found = experiment_id(self._client, experiment)
        known = dict(tags)
        # Without it the run is still worth having, and counts as anybody's.
        self._try(
            "whose run it is, is not recorded", lambda: known.update({"mlflow.user": person()})
        )
        made = self._client.create_run(found, run_name=name, tags=known)
        self.run_id = made.info.run_id

    def environment(self) -> dict[str, str]:
        """With these the notebook's own `mlflow` calls go to the same run."""
        return {"MLFLOW_RUN_ID": self.run_id} if self.run_id else {}

    def end(self, status: str, output: str | None) -> None:
        """`FINISHED`, `FAILED` or `KILLED`, with the notebook as an artifact."""
        run_id = self.run_id
        if run_id is None:
            return
        if output:
            self._try("the notebook is not attached", lambda: self._attach(run_id, Path(output)))
        self._try("the run's end is not recorded", lambda: self._end(run_id, status))

    def _attach(self, run_id: str, output: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="mlhub-attached-") as work:
            named = Path(work) / UNQUOTED.sub("_", output.name)
            named.symlink_to(output)
            self._client.log_artifact(run_id, str(named))

    def _end(self, run_id: str, status: str) -> None:
        self._client.set_terminated(run_id, status)

    def _try(self, what: str, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:  # whatever a server in trouble may cause
            say(f"{what}: {type(error).__name__}: {' '.join(str(error).split())[:300]}")
