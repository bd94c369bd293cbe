"""Words that MLflow takes from whoever may write, and that would give them more than that."""

from collections.abc import Callable, Iterable
from typing import Any

from flask import request
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.protos.model_registry_pb2 import CreateRegisteredModel, RenameRegisteredModel
from mlflow.protos.service_pb2 import EndTrace, StartTrace, StartTraceV3
from mlflow.server import app, handlers
from mlflow.tracing.constant import TraceTagKey

_mlflow: Any = handlers

ARCHIVED = "No traces are archived here, so no tag can say where the archive of one is."
"""MLflow deletes what lies there together with the trace."""

ALL = "A model or a prompt cannot be called *; give it another name."
"""Whoever makes a model gets MANAGE of what its name matches, and this one is MLflow's for all."""


def refuse_them() -> None:
    """From now on MLflow answers 400 to them."""
    app.before_request(_mlflow.catch_mlflow_exception(_refuse))


def _refuse() -> None:
    handler = app.view_functions.get(request.endpoint or "")
    if handler in _REFUSED:
        message, is_refused, why = _REFUSED[handler]
        if is_refused(_mlflow._get_request_message(message())):
            raise MlflowException(why, INVALID_PARAMETER_VALUE)


def _archives(keys: Iterable[str]) -> bool:
    return TraceTagKey.ARCHIVE_LOCATION in keys


_REFUSED: dict[Any, tuple[Callable[[], Any], Callable[[Any], bool], str]] = {
    _mlflow._create_registered_model: (
        CreateRegisteredModel,
        lambda said: said.name == "*",
        ALL,
    ),
    _mlflow._rename_registered_model: (
        RenameRegisteredModel,
        lambda said: said.new_name == "*",
        ALL,
    ),
    _mlflow._start_trace_v3: (
        StartTraceV3,
        lambda said: _archives(said.trace.trace_info.tags),
        ARCHIVED,
    ),
    _mlflow._deprecated_start_trace_v2: (
        StartTrace,
        lambda said: _archives(tag.key for tag in said.tags),
        ARCHIVED,
    ),
    _mlflow._deprecated_end_trace_v2: (
        EndTrace,
        lambda said: _archives(tag.key for tag in said.tags),
        ARCHIVED,
    ),
}
"""By MLflow's handler: what it reads the request as, when that is refused, and why."""
