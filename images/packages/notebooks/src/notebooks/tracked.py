"""MLflow as a notebook meets it: named by the server it runs in, quick to say that it is down.

Two defaults of MLflow's own client are wrong in a notebook: with no server named it writes a
database into the folder, which nobody will ever see, and a server that is down blocks a cell for
four minutes. Here the first is refused and the second takes seconds.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException, RestException
from requests import RequestException

from notebooks.errors import NotebooksError
from notebooks.jobs.tracking import QUICK

QUIET = {"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
"""A bar for each file of a model buries what a cell prints."""


class TrackingError(NotebooksError):
    """What MLflow could not do."""

    type = "mlflow"


def tracking_client() -> MlflowClient:
    """A client of the server that MLFLOW_TRACKING_URI names, or that was set in this process.

    Raises TrackingError where none is named.
    """
    from mlflow.tracking import is_tracking_uri_set  # noqa: PLC0415 -- a name of mlflow's own

    if not is_tracking_uri_set():  # type: ignore[no-untyped-call]
        raise TrackingError(
            "No MLflow server is named: MLFLOW_TRACKING_URI is not set, so this hub has no MLflow "
            "or the kernel was not started by it. Nothing was recorded; set MLFLOW_TRACKING_URI to "
            "the server's address and restart the kernel."
        )
    for variable, value in (QUICK | QUIET).items():
        os.environ.setdefault(variable, value)
    return MlflowClient()


@contextmanager
def saying_why() -> Iterator[None]:
    """Whatever MLflow raises becomes a TrackingError."""
    try:
        yield
    except RestException as error:
        raise TrackingError(f"MLflow refused: {_short(error)}") from error
    except MlflowException as error:
        if re.search(r"failed with (timeout )?exception", str(error)):  # rest_utils: no answer
            raise TrackingError(_silent(error)) from error
        raise TrackingError(f"MLflow: {_short(error)}") from error
    except RequestException as error:
        if error.response is not None:
            raise TrackingError(f"MLflow refused: {_short(error)}") from error
        raise TrackingError(_silent(error)) from error


def _silent(error: Exception) -> str:
    return (
        f"MLflow does not answer at {os.environ.get('MLFLOW_TRACKING_URI', 'its address')}: "
        f"nothing was recorded. Try again in a minute. ({_short(error)})"
    )


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
