"""The MLflow run of a run whose pod was killed too hard to end it itself.

Found by the tag that the runner gave it and ended with a token of the person's own, so nothing
here can touch what they could not.
"""

import time

import httpx

from mlhub.execution.jobs import experiment
from mlhub.execution.store import Run

WORKSPACE = "X-MLFLOW-WORKSPACE"
"""mlflow 3.17, `utils/workspace_utils.py`."""

ENDS = {"succeeded": "FINISHED", "cancelled": "KILLED"}
"""Any other is FAILED."""


class Mlflow:
    """The tracking server at `uri`, which is empty where there is none."""

    def __init__(self, uri: str):
        self._uri = uri.rstrip("/")

    async def end(self, run: Run, token: str) -> str | None:
        """End what still runs of the run's, and give its MLflow run's id, or None where it has
        none; raises httpx.HTTPError."""
        headers = {"Authorization": f"Bearer {token}"}
        if run.workspace:
            headers[WORKSPACE] = run.workspace
        async with httpx.AsyncClient(
            base_url=f"{self._uri}/api/2.0/mlflow", headers=headers, timeout=10, trust_env=False
        ) as client:
            found = await client.get(
                "/experiments/get-by-name", params={"experiment_name": experiment(run)}
            )
            if found.status_code == 404:
                return None
            found.raise_for_status()
            search = {
                "experiment_ids": [found.json()["experiment"]["experiment_id"]],
                "filter": f"tags.`mlhub.run` = '{run.id}'",
            }
            answer = await client.post("/runs/search", json=search)
            answer.raise_for_status()
            ids = []
            for info in (item["info"] for item in answer.json().get("runs", ())):
                ids.append(str(info["run_id"]))
                if info["status"] == "RUNNING":
                    ended = int((run.finished or time.time()) * 1000)
                    change = {"run_id": info["run_id"], "status": ENDS.get(run.status, "FAILED")}
                    changed = await client.post("/runs/update", json=change | {"end_time": ended})
                    changed.raise_for_status()
            return ids[0] if ids else None
