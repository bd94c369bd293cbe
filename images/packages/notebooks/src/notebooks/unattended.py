"""`mlflow.set_experiment` in a run of the execution API, whose MLflow run is there already.

MLflow refuses to go on with a run of another experiment ("active experiment ID does not match
environment run ID"), so that a notebook which names its own in the lab would fail unattended.
"""

import os
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

RUN = "MLFLOW_RUN_ID"
"""MLflow's variable with the run that `start_run` goes on with, which takes it away."""


class Once(MetaPathFinder):
    """Calls `then` with `mlflow` as soon as that has been imported; a kernel starts without it."""

    def __init__(self, then: Callable[[Any], None]):
        self._then = then

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "mlflow":
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        loaded = spec.loader.exec_module

        def and_then(module: ModuleType) -> None:
            loaded(module)
            self._then(module)

        spec.loader.exec_module = and_then  # type: ignore[method-assign]
        return spec


def keep_the_run(mlflow: Any) -> None:
    theirs = mlflow.set_experiment

    @wraps(theirs)
    def set_experiment(*args: Any, **kwargs: Any) -> Any:
        if not (run := os.environ.get(RUN)):
            return theirs(*args, **kwargs)
        client = mlflow.MlflowClient()
        kept = client.get_experiment(client.get_run(run).info.experiment_id)
        print(
            f"[mlhub] The MLflow run of this run is there already, in the experiment {kept.name}; "
            "set_experiment leaves it there."
        )
        return kept

    mlflow.set_experiment = set_experiment


def prepare() -> None:
    """In the kernel of such a run; in any other this does nothing."""
    if RUN in os.environ:
        sys.meta_path.insert(0, Once(keep_the_run))
