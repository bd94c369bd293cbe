"""What the real MLflow opens with its own key: nobody's words lead it out of their workspace."""

import sqlite3
import time
import uuid
from collections.abc import Callable
from typing import Any

import mlflow
import pytest
import requests
from mlflow.tracking import MlflowClient

from tests.services import mlflow_server as real
from tests.services.conftest import BUCKET

TEAM = "vault"
SECRET = b'{"spans": [], "of": "the team"}'
V2, V3 = "/api/2.0/mlflow", "/api/3.0/mlflow"
ATTACHMENT = str(uuid.uuid4())

Ask = Callable[..., requests.Response]


@pytest.fixture
def theirs(s3: Any) -> str:
    """A folder of a team in MLflow's bucket, with each file that MLflow could be led to."""
    folder = f"workspaces/{TEAM}/1/{time.monotonic_ns()}/artifacts"
    for name in ("secret.txt", "traces.json", "traces.pb", f"attachments/{ATTACHMENT}"):
        s3.put_object(Bucket=BUCKET, Key=f"mlflow/{folder}/{name}", Body=SECRET)
    s3.put_object(Bucket=BUCKET, Key="backups/secret.txt", Body=SECRET)
    return folder


@pytest.fixture
def mallory(server: real.Server, hub_double: real.HubDouble) -> Ask:
    """Her requests, in her own workspace."""
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {hub_double.person('mallory')}"

    def ask(method: str, path: str, **given: Any) -> requests.Response:
        return session.request(method, server.url + path, timeout=60, **given)

    return ask


def experiment_of(ask: Ask) -> str:
    asked = {"name": f"hers {time.monotonic_ns()}"}
    return str(ask("POST", f"{V2}/experiments/create", json=asked).json()["experiment_id"])


@pytest.fixture
def store(server: real.Server) -> Callable[[str, tuple[Any, ...]], None]:
    """Carries out a statement in the server's database, as an older server may have."""

    def carry_out(statement: str, values: tuple[Any, ...]) -> None:
        with sqlite3.connect(server.folder / "mlflow.db", timeout=30) as database:
            database.execute(statement, values)

    return carry_out


PLACES = [
    f"s3://{BUCKET}/mlflow/{{theirs}}",
    f"s3://{BUCKET}/mlflow/workspaces/mallory--home/../../{{theirs}}",
    f"s3://{BUCKET}/mlflow/workspaces/mallory--home/%2e%2e/%2e%2e/{{theirs}}",
    f"s3://{BUCKET}/backups",
    "mlflow-artifacts:/{theirs}",
    "mlflow-artifacts:/workspaces/mallory--home/../../{theirs}",
    "mlflow-artifacts:/workspaces/mallory--home/%2e%2e/%2e%2e/{theirs}",
    "mlflow-artifacts:/../backups",
    "file:///etc",
]


@pytest.mark.parametrize("place", PLACES)
def test_M7_no_experiment_lies_elsewhere(mallory, theirs, place):
    """Its runs, models and traces lie below it."""
    asked = {
        "name": f"hers {time.monotonic_ns()}",
        "artifact_location": place.format(theirs=theirs),
    }
    made = mallory("POST", f"{V2}/experiments/create", json=asked)
    assert made.status_code == 400, made.text


@pytest.mark.parametrize("place", PLACES)
def test_M7_no_version_of_a_model_lies_elsewhere(mallory, theirs, place):
    name = f"model-{time.monotonic_ns()}"
    assert mallory("POST", f"{V2}/registered-models/create", json={"name": name}).ok
    asked = {"name": name, "source": place.format(theirs=theirs)}
    made = mallory("POST", f"{V2}/model-versions/create", json=asked)
    assert made.status_code == 400, made.text


@pytest.mark.parametrize("place", PLACES)
def test_M7_a_version_that_was_made_elsewhere_before_is_not_opened(mallory, store, theirs, place):
    name = f"model-{time.monotonic_ns()}"
    assert mallory("POST", f"{V2}/registered-models/create", json={"name": name}).ok
    where = place.format(theirs=theirs)
    store(
        "INSERT INTO model_versions (workspace, name, version, creation_time, current_stage,"
        " source, storage_location) VALUES ('mallory--home', ?, 1, 0, 'None', ?, ?)",
        (name, where, where),
    )
    for path in ("secret.txt", "passwd"):
        asked = {"name": name, "version": "1", "path": path}
        got = mallory("GET", "/model-versions/get-artifact", params=asked)
        assert got.status_code in (400, 403), (got.status_code, got.text)


def begun(ask: Ask, tags: dict[str, str] | None = None) -> tuple[str, int]:
    """A trace's id, and what StartTraceV3 answered."""
    experiment, made = experiment_of(ask), f"tr-{uuid.uuid4().hex}"
    info = {
        "trace_id": made,
        "trace_location": {
            "type": "MLFLOW_EXPERIMENT",
            "mlflow_experiment": {"experiment_id": experiment},
        },
        "request_time": "2026-01-01T00:00:00Z",
        "state": "OK",
        "tags": tags or {},
    }
    answer = ask("POST", f"{V3}/traces", json={"trace": {"trace_info": info}})
    return made, answer.status_code


def refuses_to_open(ask: Ask, trace: str) -> None:
    for api in ("/ajax-api/2.0/mlflow", "/ajax-api/3.0/mlflow"):
        for file in ({}, {"path": ATTACHMENT}):
            got = ask("GET", f"{api}/get-trace-artifact", params={"request_id": trace, **file})
            assert got.status_code in (400, 403), (file, got.status_code, got.text)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("way", ["SetTraceTag", "SetTraceTagV3", "EndTrace"])
def test_M7_a_traces_tag_leads_nowhere_else(mallory, theirs, way, place):
    tag = {"key": "mlflow.artifactLocation", "value": place.format(theirs=theirs)}
    asked = {
        "experiment_id": experiment_of(mallory),
        "timestamp_ms": 1,
        "request_metadata": [],
        "tags": [],
    }
    made = mallory("POST", f"{V2}/traces", json=asked).json()["trace_info"]["request_id"]
    if way == "EndTrace":
        asked = {"timestamp_ms": 2, "status": "OK", "request_metadata": [], "tags": [tag]}
        assert mallory("PATCH", f"{V2}/traces/{made}", json=asked).ok
    else:
        api = V3 if way == "SetTraceTagV3" else V2
        assert mallory("PATCH", f"{api}/traces/{made}/tags", json=tag).ok
    refuses_to_open(mallory, made)


@pytest.mark.parametrize("way", ["StartTrace", "StartTraceV3", "EndTrace", "SetTraceTag"])
def test_M7_nobody_says_where_the_archive_of_a_trace_is(mallory, theirs, way):
    key, place = "mlflow.trace.archiveLocation", f"s3://{BUCKET}/mlflow/workspaces/mallory--home"
    tag = {"key": key, "value": place}
    asked = {
        "experiment_id": experiment_of(mallory),
        "timestamp_ms": 1,
        "request_metadata": [],
        "tags": [tag],
    }
    if way == "StartTrace":
        status = mallory("POST", f"{V2}/traces", json=asked).status_code
    elif way == "StartTraceV3":
        status = begun(mallory, {key: place})[1]
    else:
        made, status = begun(mallory)
        assert status == 200
        if way == "EndTrace":
            asked = {"timestamp_ms": 2, "status": "OK", "request_metadata": [], "tags": [tag]}
            status = mallory("PATCH", f"{V2}/traces/{made}", json=asked).status_code
        else:
            status = mallory("PATCH", f"{V2}/traces/{made}/tags", json=tag).status_code
    assert status == 400


@pytest.mark.parametrize("place", PLACES)
def test_M7_a_trace_that_was_archived_elsewhere_before_is_neither_read_nor_deleted_there(
    mallory, theirs, s3, store, place
):
    made, status = begun(mallory)
    assert status == 200
    tags = {"spansLocation": "ARCHIVE_REPO", "archiveLocation": place.format(theirs=theirs)}
    for key, value in tags.items():
        store(
            "INSERT INTO trace_tags (request_id, key, value) VALUES (?, ?, ?)",
            (made, f"mlflow.trace.{key}", value),
        )
    got = mallory("GET", "/ajax-api/3.0/mlflow/get-trace-artifact", params={"request_id": made})
    assert got.status_code in (400, 403), (got.status_code, got.text)
    for read in ("get", "batchGet"):
        asked = {"trace_id": made, "trace_ids": made}
        got = mallory("GET", f"{V3}/traces/{read}", params=asked)
        assert not got.ok or "the team" not in got.text
    info = mallory("GET", f"{V3}/traces/{made}").json()["trace"]["trace_info"]
    place_of = info["trace_location"]["mlflow_experiment"]
    asked = {**place_of, "request_ids": [made]}
    assert mallory("POST", f"{V3}/traces/delete-traces", json=asked).status_code < 500
    kept = s3.list_objects_v2(Bucket=BUCKET, Prefix=f"mlflow/{theirs}/")["Contents"]
    assert f"mlflow/{theirs}/traces.pb" in [item["Key"] for item in kept]


class Doubles(mlflow.pyfunc.PythonModel):
    def predict(self, context: Any, model_input: list[int]) -> list[int]:
        return [2 * number for number in model_input]


@pytest.mark.parametrize("workspace", [None, TEAM])
def test_J10_models_prompts_and_traces_of_ones_own_workspace_are_opened(
    client_of, server, hub_double, workspace
):
    token = hub_double.person("ada", **{TEAM: "editor"})
    client: MlflowClient = client_of(token, workspace)
    mlflow.set_tracking_uri(server.url)
    mlflow.set_registry_uri(server.url)
    name = f"own-{time.monotonic_ns()}"
    mlflow.set_experiment(name)

    def page(address: str, **query: str) -> requests.Response:
        headers = {"Authorization": f"Bearer {token}"}
        if workspace:
            headers["X-MLFLOW-WORKSPACE"] = workspace
        return requests.get(server.url + address, params=query, headers=headers, timeout=60)

    with mlflow.start_run() as run:
        logged = mlflow.pyfunc.log_model(
            name="model", python_model=Doubles(), registered_model_name=name, pip_requirements=[]
        )
        mlflow.log_dict({"0": "stays"}, "classes.json")
    by_run = client.create_model_version(
        name, f"{run.info.artifact_uri}/classes.json", run.info.run_id
    )
    copied = client.copy_model_version(f"models:/{name}/1", f"{name}-copy")
    client.set_registered_model_alias(name, "champion", "1")
    uris = (logged.model_uri, f"models:/{name}@champion", f"models:/{copied.name}/{copied.version}")
    for uri in uris:
        assert mlflow.pyfunc.load_model(uri).predict([1, 2]) == [2, 4], uri
    assert by_run.version == "2"
    for of, version in ((name, "1"), (copied.name, copied.version)):
        got = page("/model-versions/get-artifact", name=of, version=version, path="MLmodel")
        assert "python_function" in got.text, (of, got.text)
    got = page("/get-artifact", run_id=run.info.run_id, path="classes.json")
    assert got.json() == {"0": "stays"}
    files = f"/ajax-api/2.0/mlflow/logged-models/{logged.model_id}/artifacts"
    assert "python_function" in page(f"{files}/files", artifact_file_path="MLmodel").text
    assert "MLmodel" in page(f"{files}/directories").text

    mlflow.genai.register_prompt(name=f"{name}-prompt", template="Is {{this}} so?")
    assert mlflow.genai.load_prompt(f"prompts:/{name}-prompt/1").format(this="it") == "Is it so?"

    with mlflow.start_span("thinks") as span:
        span.set_inputs({"asked": "what"})
    mlflow.flush_trace_async_logging()
    assert [span.name for span in client.get_trace(span.trace_id).data.spans] == ["thinks"]
    assert (
        "thinks" in page("/ajax-api/3.0/mlflow/get-trace-artifact", request_id=span.trace_id).text
    )


def test_J10_a_trace_whose_spans_are_artifacts_is_opened(mallory, s3):
    made, status = begun(mallory)
    assert status == 200
    info = mallory("GET", f"{V3}/traces/{made}").json()["trace"]["trace_info"]
    folder = info["tags"]["mlflow.artifactLocation"].removeprefix("mlflow-artifacts:/")
    for name in ("traces.json", f"attachments/{ATTACHMENT}"):
        s3.put_object(Bucket=BUCKET, Key=f"mlflow/{folder}/{name}", Body=b'{"spans": [1]}')
    for file in ({}, {"path": ATTACHMENT}):
        asked = {"request_id": made, **file}
        got = mallory("GET", "/ajax-api/3.0/mlflow/get-trace-artifact", params=asked)
        assert got.json() == {"spans": [1]}
