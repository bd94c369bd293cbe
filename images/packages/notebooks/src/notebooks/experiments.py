"""An MLflow experiment by its name.

Imports nothing of MLflow, which takes seconds: whoever has a client has paid for it.
"""

from typing import Any


def experiment_id(client: Any, name: str) -> str:
    """The experiment's id; it is made where it is not there."""
    from mlflow.exceptions import MlflowException  # noqa: PLC0415 (of the client's own package)

    known = client.get_experiment_by_name(name)
    if known is None:
        try:
            return str(client.create_experiment(name))
        except MlflowException:
            # Two runs of one notebook begin together, and the other's was made in between.
            known = client.get_experiment_by_name(name)
            if known is None:
                raise
    return str(known.experiment_id)
