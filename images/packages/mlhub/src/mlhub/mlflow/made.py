"""Making something that another may have made a moment ago."""

from collections.abc import Iterator
from contextlib import contextmanager

from mlflow.exceptions import MlflowException


@contextmanager
def unless_there() -> Iterator[None]:
    """Making what is there already is as good as having made it."""
    try:
        yield
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
