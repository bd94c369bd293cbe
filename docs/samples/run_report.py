"""Run a notebook and wait for it: on a laptop that is logged in, or in a notebook server.

python run_report.py ./report.ipynb year=2026
"""

import json
import sys

from notebooks.errors import NotebooksError
from notebooks.execution import ExecutionClient, Run


def tell(run: Run) -> None:
    if run.cells:
        print(f"{run.status}: cell {run.cells[0]} of {run.cells[1]}")


def main(notebook: str, *given: str) -> int:
    pairs = (item.split("=", 1) for item in given)
    parameters = {name: json.loads(value) for name, value in pairs}
    client = ExecutionClient()
    try:
        run = client.wait(client.run(notebook, parameters), tell=tell)
    except NotebooksError as error:
        print(error.sentence, file=sys.stderr)
        return 1
    for artifact in client.artifacts(run.run_id):
        print(artifact["kind"], artifact["path"] or artifact["mlflow_run_id"])
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
