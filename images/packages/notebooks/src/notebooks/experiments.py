"""An MLflow experiment by its name.

Imports nothing of MLflow, which takes seconds: whoever has a client has paid for it.
"""

import sys
from typing import Any


def experiment_id(client: Any, name: str) -> str:
    """The experiment's id; it is made where it is not there, and restored where it was deleted.

    Raises TrackingError where it may not be restored.
    """
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
    return alive(client, known)


def alive(client: Any, experiment: Any) -> str:
    """The id of an experiment that runs can go to: a deleted one keeps its name, and takes none.

    Raises TrackingError where it may not be restored.
    """
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    from notebooks.tracked import TrackingError  # noqa: PLC0415

    known = str(experiment.experiment_id)
    if experiment.lifecycle_stage != "deleted":
        return known
    try:
        client.restore_experiment(known)
    except MlflowException as refusal:
        # Another run may have restored it in between. A server that is silent says so here.
        if client.get_experiment(known).lifecycle_stage == "deleted":
            raise TrackingError(
                f"The experiment {experiment.name} is deleted in MLflow, and you may not restore "
                f"it. Ask who made it, or an owner of the workspace, to call "
                f"mlflow.MlflowClient().restore_experiment({known!r}), or name another."
            ) from refusal
    else:
        print(
            f"[mlhub] MLflow: The experiment {experiment.name} was deleted; it is restored with "
            "its runs, since another goes there.",
            file=sys.stderr,
            flush=True,
        )
    return known
