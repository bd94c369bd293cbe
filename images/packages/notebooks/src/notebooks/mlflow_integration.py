"""Notebooks and their MLflow runs: a run knows its notebook, a notebook finds its runs.

The link is a tag of the run, `mlhub.notebook`, with the notebook's path in the home; the execution
API sets the same one. The notebook's file is never written: JupyterLab has it open and would ask
its person to choose between two versions, of which one loses their edits. So MLflow alone holds the
link, and it lasts while notebook and experiment do. A notebook that was moved finds its earlier
runs under its earlier path. In a team's workspace several people may have a notebook of one path:
`by` names another person than oneself (`notebooks.snapshots`).
"""

import atexit
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mlflow
from mlflow import ActiveRun, MlflowClient
from mlflow.entities import Run
from mlflow.utils.mlflow_tags import MLFLOW_USER

from notebooks.experiments import alive, experiment_id
from notebooks.mlflow_plugin import EXPERIMENT, experiment_name
from notebooks.models import NotebookMetadata, NotebookSnapshot
from notebooks.person import person
from notebooks.redaction import Finding
from notebooks.snapshots import NOTEBOOK_TAG, Snapshots, is_one_for_all, made_by, runs_by
from notebooks.this_notebook import known_notebook, name_of, notebook_file
from notebooks.tracked import TrackingError, saying_why, tracking_client


class MLflowNotebookIntegration:
    """MLflow for one notebook: this kernel's own, or the one that is named.

    Each method raises `TrackingError` with a sentence where MLflow is not there or refuses, and
    takes seconds, not minutes, to find out.
    """

    def __init__(self, notebook: str | Path | None = None):
        self._file = Path(notebook).expanduser() if notebook is not None else known_notebook()
        self.found: tuple[Finding, ...] = ()
        """Secrets that the last snapshot is without."""

    @property
    def notebook(self) -> Path:
        """The notebook's file; raises NotebooksError where it is not known."""
        return self._file if self._file is not None else notebook_file()

    def start_run(self, name: str | None = None, *, experiment: str | None = None) -> ActiveRun:
        """Start the run of this notebook; it ends by `end_run`, as a context, or with the kernel.

        The experiment is the one given, else the one that `mlflow.set_experiment` or the run before
        chose (MLFLOW_EXPERIMENT_ID), else MLFLOW_EXPERIMENT_NAME's, else one with the notebook's
        name. In a run of the execution API the run is there already, and both arguments are without
        effect.
        """
        client = tracking_client()
        tags = {NOTEBOOK_TAG: name_of(self._file)} if self._file else {}
        with saying_why():
            tags[MLFLOW_USER] = person()
            if os.environ.get("MLFLOW_RUN_ID"):
                # The execution API's own tag is the original's path; a copy's would hide it.
                set_already = client.get_run(os.environ["MLFLOW_RUN_ID"]).data.tags
                run = mlflow.start_run(tags={k: v for k, v in tags.items() if k not in set_already})
            else:
                mlflow.set_experiment(experiment_id=self._experiment_id(client, experiment))
                run = mlflow.start_run(run_name=name, tags=tags)
        _end_with_the_kernel()
        return run

    def _experiment_id(self, client: MlflowClient, named: str | None) -> str:
        chosen = os.environ.get("MLFLOW_EXPERIMENT_ID")
        if chosen and not named:
            return alive(client, client.get_experiment(chosen))
        named = named or os.environ.get("MLFLOW_EXPERIMENT_NAME")
        return experiment_id(client, named or experiment_name(self._file))

    def end_run(self, status: str = "FINISHED") -> None:
        with saying_why():
            mlflow.end_run(status)

    def log_param(self, key: str, value: object) -> None:
        self._log(lambda client, run: client.log_param(run, key, value))

    def log_params(self, params: Mapping[str, object]) -> None:
        for key, value in params.items():
            self.log_param(key, value)

    def log_metric(self, key: str, value: float, step: int | None = None) -> None:
        self._log(lambda client, run: client.log_metric(run, key, float(value), step=step))

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        for key, value in metrics.items():
            self.log_metric(key, value, step)

    def log_artifact(self, file: str | Path, folder: str | None = None) -> None:
        self._log(lambda client, run: client.log_artifact(run, str(file), folder))

    def log_notebook(self, message: str = "") -> NotebookSnapshot:
        """Keep the notebook as it is saved with the active run; the snapshot that this is.

        What was saved and kept before has its version already; the run is linked to that. Secrets
        that `notebooks.redaction` recognises are left out, and `found` says which.
        """
        run = self.active_run()
        with self._snapshots() as snapshots:
            snapshot, self.found = snapshots.keep(run.info.run_id, self.notebook, message)
        return snapshot

    def snapshot(self, message: str = "") -> NotebookSnapshot:
        """Keep the notebook as it is saved, in a run that is for this alone."""
        client = tracking_client()
        with saying_why(), self._snapshots() as snapshots:
            experiment = experiment_id(client, EXPERIMENT)
            name = f"snapshot of {self.notebook.name}"
            run = client.create_run(experiment, run_name=name, tags={MLFLOW_USER: snapshots.by})
            try:
                snapshot, self.found = snapshots.keep(run.info.run_id, self.notebook, message)
            except BaseException:
                client.set_terminated(run.info.run_id, "FAILED")
                raise
            client.set_terminated(run.info.run_id)
        return snapshot

    def snapshots(self, *, by: str | None = None) -> list[NotebookSnapshot]:
        """The versions of the notebook, the newest last."""
        with self._snapshots(by) as snapshots:
            return snapshots.all()

    def diff(self, old: int, new: int | None = None, *, by: str | None = None) -> str:
        """What changed from a version to another, or to the notebook as it is saved."""
        with self._snapshots(by) as snapshots:
            return snapshots.diff(old, new, self.notebook)

    def restore(
        self,
        version: int,
        to: str | Path | None = None,
        *,
        over: bool = False,
        by: str | None = None,
    ) -> Path:
        """Write a version into a new file, by default `<name>-v<version>.ipynb`; its path.

        `over` puts it in the notebook's place; what was there is kept beside it. Close the notebook
        in JupyterLab first. No file is ever overwritten.
        """
        with self._snapshots(by) as snapshots:
            if over:
                return snapshots.restore_over(version, self.notebook)
            target = Path(to) if to else self.notebook.with_stem(f"{self.notebook.stem}-v{version}")
            return snapshots.restore(version, target)

    def runs_of(self, notebook: str | Path | None = None, *, by: str | None = None) -> list[Run]:
        """The runs of a notebook, by default this one, in all experiments; the newest last."""
        client = tracking_client()
        with saying_why():
            return runs_by(client, name_of(notebook or self.notebook), by or person())

    def notebook_of(self, run_id: str) -> NotebookMetadata:
        """The notebook that made a run; TrackingError where it was none.

        Of a colleague's notebook in their home it is not known when it was modified.
        """
        client = tracking_client()
        with saying_why():
            run = client.get_run(run_id)
            path = run.data.tags.get(NOTEBOOK_TAG)
            if path is None:
                raise TrackingError(f"The run {run_id} was made by no notebook that is known.")
            me = person()
            whose = made_by(run) or me
            runs = runs_by(client, path, whose)
        file = Path.home() / path
        here = file.is_file() and (whose == me or is_one_for_all(path))
        changed = datetime.fromtimestamp(file.stat().st_mtime, UTC) if here else None
        ids = tuple(each.info.run_id for each in runs)
        return NotebookMetadata(path=path, title=file.stem, modified=changed, run_ids=ids)

    def active_run(self) -> ActiveRun:
        """Raises TrackingError where there is none."""
        tracking_client()
        run = mlflow.active_run()
        if run is None:
            raise TrackingError("No run is active; start one first: %mlflow_start_run")
        return run

    def _log(self, call: Callable[[MlflowClient, str], Any]) -> None:
        run = self.active_run()
        with saying_why():
            call(tracking_client(), run.info.run_id)

    @contextmanager
    def _snapshots(self, by: str | None = None) -> Iterator[Snapshots]:
        client = tracking_client()
        with saying_why():
            yield Snapshots(client, name_of(self.notebook), by or person())


_ending: list[object] = []


def _end_with_the_kernel() -> None:
    """MLflow itself ends what is left active as FINISHED, also after a cell that failed."""
    if not _ending:
        atexit.register(_end_by_the_last_cell)  # runs before MLflow's, which is registered already
        _ending.append(True)


def _end_by_the_last_cell() -> None:
    from IPython import get_ipython  # noqa: PLC0415 -- scripts have none

    shell = get_ipython()
    if shell is not None and not shell.last_execution_succeeded:
        try:
            mlflow.end_run("FAILED")
        except Exception as error:  # the kernel ends anyway, and nobody reads a traceback now
            print(f"MLflow: the run's end is not recorded: {error}")
