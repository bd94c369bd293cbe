"""What plain `mlflow` calls lack in a person's server: an experiment, and links for a browser.

MLflow loads it by the entry point `mlflow.default_experiment_provider`. Runs that name no
experiment would go to number 0, which lies in a workspace that is closed here. The links which
MLflow prints have the address that it asks itself, one of the cluster's, where no browser comes.
"""

import os
from pathlib import Path
from typing import Any

from mlflow.tracking._tracking_service import client as printer
from mlflow.tracking.default_experiment.abstract_context import DefaultExperimentProvider

from notebooks.experiments import experiment_id
from notebooks.this_notebook import known_notebook

BROWSERS = "MLHUB_MLFLOW_URL"
"""The variable with MLflow's address for browsers; a server of mlhub has it."""

WORKSPACE = "MLHUB_MLFLOW_WORKSPACE"
"""The variable with the person's own workspace in MLflow, which calls need not name; links do."""

OWN = os.environ.get("MLFLOW_TRACKING_URI")
"""The server's own MLflow, read while `mlflow` is imported: `set_tracking_uri` changes it later."""

EXPERIMENT = "notebooks"
"""Where runs go that name no experiment and have no notebook to be named after."""


def experiment_name(notebook: Path | None) -> str:
    """The notebook's own, where there is one."""
    return notebook.stem if notebook else EXPERIMENT


class NotebooksExperiment(DefaultExperimentProvider):
    """The experiment of runs that name none: the notebook's, made where it is not there."""

    def in_context(self) -> bool:
        return _asks_the_servers_own()

    def get_experiment_id(self) -> str:
        from mlflow import MlflowClient  # noqa: PLC0415 (mlflow imports this)

        return experiment_id(MlflowClient(), experiment_name(known_notebook()))


def _asks_the_servers_own() -> bool:
    """Whether MLflow is the one that the server was started with, and nobody has named another."""
    from mlflow import get_tracking_uri  # noqa: PLC0415 (mlflow imports this)

    return BROWSERS in os.environ and OWN is not None and get_tracking_uri() == OWN


def _lead_to_browsers(module: Any) -> None:
    """The module asks two functions for what a link says: Databricks' address, if there is one, and
    the workspace, if one was named. Another MLflow, without them, prints links as it has them."""
    for function, variable in (
        ("get_workspace_url", BROWSERS),
        ("get_request_workspace", WORKSPACE),
    ):
        if theirs := getattr(module, function, None):
            setattr(module, function, _or_ours(theirs, variable))


def _or_ours(theirs: Any, variable: str) -> Any:
    return lambda: theirs() or (os.environ.get(variable) if _asks_the_servers_own() else None)


_lead_to_browsers(printer)
