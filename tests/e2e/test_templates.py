"""Rows M5 and M6 in a person's own server: magics and a template against the stack's MLflow."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.platform import NAMESPACE, Kubectl, Person

FOLDER = f"e2e-templates-{int(time.time())}"
MAGICS = (
    "%mlflow_start_run by-magic --experiment FOLDER",
    "%mlflow_log_param depth 3",
    "%mlflow_log_metric accuracy 0.75 --step 1",
    "%mlflow_log_notebook",
    "import mlflow; run = mlflow.active_run().info; mlflow.end_run()",
    "from notebooks import MLflowNotebookIntegration as Integration\n"
    "tracking = Integration()\n"
    "assert [r.info.run_id for r in tracking.runs_of()] == [run.run_id]\n"
    "assert tracking.notebook_of(run.run_id).path == 'FOLDER/magics.ipynb'\n"
    "assert [s.version for s in tracking.snapshots()] == [1]\n"
    "found = mlflow.MlflowClient().get_run(run.run_id)\n"
    "print('LEFT', found.info.status, found.data.params, found.data.metrics)",
)
STATUS = """
from mlflow import MlflowClient
client = MlflowClient()
experiment = client.get_experiment_by_name("{experiment}")
for run in client.search_runs([experiment.experiment_id]):
    print(run.info.status, run.data.tags["mlhub.notebook"], run.data.metrics["missing_share"])
"""


def notebook(*sources: str) -> str:
    cells: list[dict[str, Any]] = [
        {
            "cell_type": "code",
            "id": f"cell-{number}",
            "metadata": {},
            "outputs": [],
            "execution_count": None,
            "source": source.replace("FOLDER", FOLDER),
        }
        for number, source in enumerate(sources)
    ]
    return json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


@pytest.fixture(scope="module")
def alice(browser: Any, kubectl: Kubectl) -> Iterator[Person]:
    """Logged in, with a server of the default kind and a folder that goes afterwards."""
    from tests.e2e.platform import HUB_URL

    context = browser.new_context(base_url=HUB_URL)
    context.set_default_timeout(60_000)
    person = Person("alice", kubectl.secret("foundation", "demo-users")["alice"], context)
    person.log_in().start_server()
    kubectl.exec(person.pod, "mkdir", "-p", FOLDER)
    yield person
    kubectl.exec(person.pod, "rm", "-rf", FOLDER)
    context.close()


def in_server(kubectl: Kubectl, person: Person, *command: str, stdin: str | None = None) -> str:
    """A command with the environment of the person's server, in which exec leaves nothing out."""
    return kubectl(
        *("-n", NAMESPACE, "exec", "-i", person.pod, "--", *command), stdin=stdin, timeout=300
    )


def test_M6_the_magics_log_to_the_stacks_mlflow_as_oneself(alice, kubectl: Kubectl):
    alice.write(f"{FOLDER}/magics.ipynb", notebook(*MAGICS))
    file = f"/home/jovyan/{FOLDER}/magics.ipynb"
    in_server(
        *(kubectl, alice, "env", f"JPY_SESSION_NAME={file}"),
        *("papermill", "-k", "python3", "--cwd", FOLDER, file, f"{FOLDER}/done.ipynb"),
    )
    done = json.loads(alice.read(f"{FOLDER}/done.ipynb"))
    said = "".join("".join(out.get("text", "")) for c in done["cells"] for out in c["outputs"])
    assert "LEFT FINISHED {'depth': '3'} {'accuracy': 0.75}" in said
    assert f"{FOLDER}/magics.ipynb: version 1" in said


def test_M5_a_template_runs_in_a_persons_server_and_leaves_its_run(alice, kubectl: Kubectl):
    file = f"/home/jovyan/{FOLDER}/look.ipynb"
    command = ("python3", "-m", "notebooks.cli", "templates", "copy", "data-exploration", file)
    assert "copied to" in in_server(kubectl, alice, *command)
    in_server(
        *(kubectl, alice, "env", f"JPY_SESSION_NAME={file}", "papermill"),
        *("-p", "experiment", f"{FOLDER}-look", "--cwd", FOLDER, file, f"{FOLDER}/looked.ipynb"),
    )
    script = STATUS.replace("{experiment}", f"{FOLDER}-look")
    (left,) = in_server(kubectl, alice, "python3", "-", stdin=script).splitlines()
    assert left.startswith(f"FINISHED {FOLDER}/look.ipynb 0.")
