"""MLflow as people meet it: from a kernel of their own server, and in a browser, as themselves."""

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from playwright.sync_api import Locator, expect

from tests.e2e.platform import HUB_URL, NAMESPACE, Kubectl, Person, wait_until

PAGE = "/services/mlflow/"
ADDRESS = "http://mlflow-service.mlflow.svc.cluster.local:5000"
IDLE_BYTES = 600 * 10**6

ROUND_TRIP = """
import json, os, pathlib, tempfile
import mlflow, numpy
from mlflow import MlflowClient
from sklearn.linear_model import LinearRegression

name = os.environ["E2E_NAME"]
mlflow.set_experiment(name)
inputs = numpy.arange(8.0).reshape(-1, 1)
with mlflow.start_run() as run:
    mlflow.log_param("depth", 3)
    mlflow.log_metric("accuracy", 0.75)
    mlflow.log_text("what the model learned", "note.txt")
    model = LinearRegression().fit(inputs, 2 * inputs.ravel() + 1)
    mlflow.sklearn.log_model(
        model, name="model", registered_model_name=name, pip_requirements=["scikit-learn"],
        serialization_format="cloudpickle",
    )
MlflowClient().set_registered_model_alias(name, "champion", 1)

kept = mlflow.get_run(run.info.run_id)
loaded = mlflow.pyfunc.load_model(f"models:/{name}@champion")
print("RESULT", json.dumps({
    "run": run.info.run_id,
    "experiment": run.info.experiment_id,
    "artifacts": run.info.artifact_uri,
    "params": kept.data.params,
    "metrics": kept.data.metrics,
    "user": kept.data.tags["mlflow.user"],
    "note": mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/note.txt"),
    "predicted": float(loaded.predict(numpy.array([[10.0]]))[0]),
    "s3": sorted(key for key in os.environ if key.startswith("AWS_") or "S3" in key),
}))
"""

DOWN = """
import os, time, mlflow
began = time.monotonic()
try:
    mlflow.set_experiment(os.environ["E2E_NAME"])
    print("RESULT it answered")
except Exception as error:
    print("RESULT", round(time.monotonic() - began, 1), type(error).__name__)
"""

MEMORY = """
import pathlib
total = 0
for rollup in pathlib.Path("/proc").glob("[0-9]*/smaps_rollup"):
    try:
        lines = rollup.read_text().splitlines()
    except OSError:
        continue
    total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
print(total * 1024)
"""


def result(printed: str) -> str:
    return printed.partition("RESULT ")[2].strip()


def shown(what: Locator) -> None:
    """Wait for it; MLflow's page is large, and this machine may be busy."""
    expect(what.first).to_be_visible(timeout=45_000)


@pytest.fixture
def alice(person: Callable[[str], Person], kubectl: Kubectl) -> Person:
    """With a server that was started since MLflow is there."""
    alice = person("alice").log_in()
    if pod := kubectl.pod(alice.pod):
        given = {v["name"] for v in pod["spec"]["containers"][0]["env"]}
        if "MLHUB_MLFLOW_WORKSPACE" not in given:
            alice.stop_server()
    return alice.start_server()


@pytest.fixture(scope="module")
def name() -> str:
    """Of the experiment and the model of these tests."""
    return f"e2e-{time.time_ns()}"


@pytest.fixture
def made(alice: Person, name: str) -> dict[str, Any]:
    """A run of alice's, logged from a kernel of her server."""
    printed = alice.run(f"%env E2E_NAME={name}\n{ROUND_TRIP}")
    found: dict[str, Any] = json.loads(result(printed))
    return found


def as_bob(
    bob: Person, path: str, workspace: str = "alice--home", **body: Any
) -> requests.Response:
    """MLflow's API with a token of bob's, as from a laptop."""
    made = bob.hub("POST", "users/bob/tokens")
    token = made["body"]["token"]
    return requests.post(
        f"{HUB_URL}{PAGE}api/2.0/mlflow/{path}",
        json=body,
        headers={"Authorization": f"Bearer {token}", "X-MLFLOW-WORKSPACE": workspace},
        timeout=30,
    )


def test_J3_J10_T11_a_run_and_a_model_round_trip_as_oneself_and_nobody_else_reads_them(
    alice, person, name, made, artifacts: Path
):
    printed = alice.run("!echo $MLFLOW_TRACKING_URI")
    assert printed.strip() == ADDRESS
    assert made["params"] == {"depth": "3"}
    assert made["metrics"] == {"accuracy": 0.75}
    assert (made["user"], made["note"]) == ("alice", "what the model learned")
    assert made["predicted"] == pytest.approx(21.0)
    assert made["s3"] == [], "the keys of S3 are with MLflow alone"

    # Bob: neither by the API nor in the browser.
    bob = person("bob").log_in()
    questions: list[tuple[str, dict[str, Any]]] = [
        ("experiments/search", {"max_results": 10}),
        ("runs/search", {"experiment_ids": [made["experiment"]]}),
        ("runs/log-metric", {"run_id": made["run"], "key": "x", "value": 1, "timestamp": 1}),
    ]
    for path, body in questions:
        answer = as_bob(bob, path, **body)
        # Where many were looked through for none, there is a token of the next page, an empty one.
        nothing = answer.ok and not any(answer.json().values())
        assert answer.status_code == 403 or nothing, (path, answer.text)

    # Nor does a model of his own lead to what MLflow's key opens and he may not.
    of_his = {"workspace": "bob--home", "name": f"{name} of bob"}
    experiment = as_bob(bob, "experiments/create", **of_his).json()["experiment_id"]
    asked = {"workspace": "bob--home", "experiment_id": experiment}
    run = as_bob(bob, "runs/create", **asked).json()["run"]["info"]
    assert as_bob(bob, "registered-models/create", **of_his).ok
    beside = f"{run['artifact_uri']}/../../../../"
    for source, allowed in {
        run["artifact_uri"]: True,
        made["artifacts"]: False,
        made["artifacts"].replace("mlflow-artifacts:/", "s3://mlflow/mlflow/"): False,
        made["artifacts"].replace("mlflow-artifacts:/workspaces/", beside): False,
    }.items():
        version = {**of_his, "source": source, "run_id": run["run_id"]}
        answer = as_bob(bob, "model-versions/create", **version)
        assert answer.status_code == (200 if allowed else 400), (source, answer.text)

    # Alice, by the hub's menu and without another question.
    page = alice.page
    page.goto("/hub/home")
    page.get_by_role("button", name="Services").click()
    page.get_by_role("link", name="mlflow").click()
    shown(page.get_by_role("link", name="alice--home"))
    expect(page.get_by_text("Welcome to MLflow Assistant")).to_have_count(0)
    page.goto(f"{PAGE}#/experiments?workspace=alice--home")
    shown(page.get_by_role("link", name=name))
    page.goto(f"{PAGE}#/experiments/{made['experiment']}/runs/{made['run']}?workspace=alice--home")
    shown(page.get_by_text(made["run"]))
    shown(page.get_by_text("accuracy"))
    page.screenshot(path=artifacts / "mlflow.png")

    bob.page.goto(PAGE)
    shown(bob.page.get_by_role("link", name="bob--home"))
    expect(bob.page.get_by_role("link", name="alice--home")).to_have_count(0)
    bob.page.goto(f"{PAGE}#/experiments?workspace=alice--home")
    shown(bob.page.get_by_text("Create your first experiment"))
    expect(bob.page.get_by_text(name)).to_have_count(0)


def test_J3_a_run_that_names_no_experiment_is_found_by_the_link_that_it_prints(alice, name):
    plain = "import mlflow\nwith mlflow.start_run(run_name={!r}): mlflow.log_metric('a', 1)"
    printed = alice.run(plain.format(f"plain-{name}"))
    link = re.search(r"View run \S+ at: (\S+)", printed)
    assert link, printed
    assert link[1].startswith(f"{HUB_URL}{PAGE}"), printed
    alice.page.goto(link[1])
    shown(alice.page.get_by_role("heading", name=f"plain-{name}"))


def test_T12_the_discovery_names_that_address(kubectl):
    found = kubectl.json("-n", NAMESPACE, "get", "configmap", "-l", "thinkube.io/managed")
    assert ADDRESS in json.dumps(found["items"])


def test_an_idle_server_takes_less_than_600_MB(kubectl):
    took = kubectl("-n", "mlflow", "exec", "deploy/mlflow", "--", "python3", "-c", MEMORY)
    assert int(took) < IDLE_BYTES


@pytest.mark.long
def test_J3_an_mlflow_that_is_down_costs_a_cell_seconds(alice, kubectl, name):
    scale = ("-n", "mlflow", "scale", "deploy/mlflow")
    kubectl(*scale, "--replicas=0")
    try:
        wait_until(
            "MLflow is down",
            lambda: not kubectl.json("-n", "mlflow", "get", "pods")["items"],
        )
        alice.run("import mlflow")
        said = result(alice.run(f"%env E2E_NAME={name}\n{DOWN}"))
    finally:
        kubectl(*scale, "--replicas=1")
        kubectl("-n", "mlflow", "rollout", "status", "deploy/mlflow", "--timeout=150s", timeout=160)
    seconds, error = said.split()
    # 6 where the Service refuses; 20 where its packets are dropped, each try its 5.
    assert float(seconds) < 40, said
    assert error == "MlflowException"
