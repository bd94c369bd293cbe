"""The real MLflow server: everyone is who the Hub says, and sees what is theirs."""

import asyncio
import json
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import psutil
import pytest
import requests
from jupyterhub.orm import APIToken
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from components import mlflow_server
from mlhub.mlflow import people
from mlhub.mlflow.hub import Hub as HubApi
from mlhub.mlflow.hub import HubSilentError, Person
from mlhub.mlflow.people import REMEMBERED_SECONDS
from mlhub.slugs import personal_workspace
from tests.ports import free_port
from tests.services import mlflow_server as real
from tests.services.conftest import BUCKET
from tests.services.hub import SECRETS

SEARCH = "/api/2.0/mlflow/experiments/search"
REFUSED = r"403|PERMISSION_DENIED|not found|does not exist|No Experiment|NOT_EXIST"


@pytest.fixture
def alice(hub_double: real.HubDouble) -> str:
    return hub_double.person("alice")


@pytest.fixture
def bob(hub_double: real.HubDouble) -> str:
    return hub_double.person("bob")


def make_run(client: MlflowClient, experiment: str, folder: Path) -> str:
    """A run with a parameter, a metric and an artifact; returns its id."""
    run = client.create_run(client.create_experiment(experiment))
    client.log_param(run.info.run_id, "depth", 3)
    client.log_metric(run.info.run_id, "accuracy", 0.75)
    (folder / "note.txt").write_text("what the model learned")
    client.log_artifact(run.info.run_id, str(folder / "note.txt"))
    return str(run.info.run_id)


def test_J3_a_run_with_params_metrics_and_artifact_round_trips_under_its_makers_identity(
    client_of, alice, s3, tmp_path
):
    client = client_of(alice)
    run_id = make_run(client, "round-trip", tmp_path)

    run = client.get_run(run_id)
    assert run.data.params == {"depth": "3"}
    assert run.data.metrics == {"accuracy": 0.75}
    (tmp_path / "down").mkdir()
    copy = client.download_artifacts(run_id, "note.txt", str(tmp_path / "down"))
    assert Path(copy).read_text() == "what the model learned"

    kept = [item["Key"] for item in s3.list_objects_v2(Bucket=BUCKET)["Contents"]]
    assert any(key.startswith("mlflow/") and key.endswith("/note.txt") for key in kept), kept


def test_J3_artifacts_go_through_mlflow_since_nobody_else_reaches_s3(
    client_of, server, alice, tmp_path, monkeypatch
):
    for prefix in ("/api", "/ajax-api", "/services/mlflow/ajax-api"):
        status, info = server.ask(f"{prefix}/3.0/mlflow/server-info")
        told = {key: value for key, value in json.loads(info).items() if "multipart" in key}
        assert (status, set(told.values())) == (200, {False}), told
    for path in ("presigned/1/x", "mpu/create/1/x"):
        status, answer = server.ask(f"/api/2.0/mlflow-artifacts/{path}", alice)
        assert (status, "go through MLflow" in answer) == (501, True)
    monkeypatch.setenv("MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD", "true")
    client = client_of(alice)
    run_id = make_run(client, "asked for a signed address", tmp_path)
    (tmp_path / "down").mkdir()
    copy = client.download_artifacts(run_id, "note.txt", str(tmp_path / "down"))
    assert Path(copy).read_text() == "what the model learned"


def test_J10_a_registered_model_round_trips(client_of, alice, tmp_path):
    client = client_of(alice)
    run_id = make_run(client, "registry", tmp_path)
    client.create_registered_model("predictor")
    made = client.create_model_version("predictor", f"runs:/{run_id}/note.txt", run_id)
    assert client.get_model_version("predictor", made.version).run_id == run_id
    client.set_registered_model_alias("predictor", "champion", made.version)
    assert client.get_model_version_by_alias("predictor", "champion").version == made.version


def found_by(search: Callable[[], Any]) -> list[Any]:
    """What it finds; nothing where it is refused."""
    try:
        return list(search())
    except MlflowException as error:
        return [] if re.search(REFUSED, str(error)) else [error]


@pytest.mark.parametrize("workspace", ["alice--home", "bob--home", "default"])
def test_T11_what_one_person_made_another_cannot_find_read_change_or_delete(
    client_of, alice, bob, tmp_path, workspace
):
    client = client_of(alice)
    name = f"hers-{workspace}"
    run_id = make_run(client, name, tmp_path)
    experiment_id = client.get_run(run_id).info.experiment_id
    client.create_registered_model(name)

    client = client_of(bob, workspace)
    attempts: list[Callable[[], Any]] = [
        lambda: client.get_run(run_id),
        lambda: client.get_experiment(experiment_id),
        lambda: client.log_metric(run_id, "accuracy", 1.0),
        lambda: client.log_artifact(run_id, str(tmp_path / "note.txt")),
        lambda: client.create_run(experiment_id),
        lambda: client.delete_experiment(experiment_id),
        lambda: client.get_registered_model(name),
        lambda: client.create_model_version(name, "runs:/x"),
        lambda: client.delete_registered_model(name),
    ]
    for number, attempt in enumerate(attempts):
        with pytest.raises((MlflowException, requests.HTTPError), match=REFUSED):
            pytest.fail(f"attempt {number} gave {attempt()!r}")
    searches: list[Callable[[], Any]] = [
        lambda: [e for e in client.search_experiments() if e.experiment_id == experiment_id],
        lambda: client.search_runs([experiment_id]),
        lambda: [m for m in client.search_registered_models() if m.name == name],
        lambda: client.get_experiment_by_name(name) or [],
    ]
    for number, search in enumerate(searches):
        assert found_by(search) == [], number
    assert client_of(alice).get_run(run_id).data.metrics == {"accuracy": 0.75}


def test_nothing_is_made_outside_ones_own_workspace(client_of, alice):
    for workspace in ("default", "bob--home"):
        with pytest.raises(MlflowException, match=REFUSED):
            client_of(alice, workspace).create_experiment("trespass")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_T11_an_artifact_is_no_more_open_than_its_run(client_of, alice, bob, tmp_path, method):
    client = client_of(alice)
    run_id = make_run(client, f"artifact-{method}", tmp_path)
    kept_at = client.get_run(run_id).info.artifact_uri.removeprefix("mlflow-artifacts:/")
    path = f"{client.tracking_uri}/api/2.0/mlflow-artifacts/artifacts/{kept_at}"
    for path_of_artifact in (f"{path}/note.txt", f"{path}/new.txt"):
        for headers in ({}, {"Authorization": f"Bearer {bob}"}):
            answer = requests.request(
                method, path_of_artifact, headers=headers, data=b"theirs", timeout=30
            )
            assert answer.status_code in (401, 403), (answer.status_code, answer.text)
    copy = client_of(alice).download_artifacts(run_id, "note.txt", str(tmp_path))
    assert Path(copy).read_text() == "what the model learned"


@pytest.mark.parametrize("name", ["newcomer", "Ada Lovelace", "a", "x" * 200, "eve@example.com"])
def test_J3_everyone_has_a_workspace_of_their_own_from_the_first_request_on(
    client_of, hub_double, name
):
    client = client_of(hub_double.person(name))
    experiment = client.get_experiment(client.create_experiment("first"))
    assert experiment.workspace == personal_workspace(name)


def test_two_people_may_give_one_name_to_what_they_make(client_of, alice, bob):
    made = {client_of(token).create_experiment("same name") for token in (alice, bob)}
    assert len(made) == 2


def test_people_who_appear_at_once_in_many_requests_are_made_once(server, hub_double):
    tokens = [hub_double.person(f"crowd-{number % 3}") for number in range(12)]
    with ThreadPoolExecutor(12) as pool:
        answers = list(
            pool.map(lambda token: server.ask(SEARCH, token, {"max_results": 1})[0], tokens)
        )
    assert answers == [200] * 12


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer made-up"},
        {"Authorization": "token token-of-alice"},
        {"Authorization": "Basic YWxpY2U6cGFzc3dvcmQ="},
        {"Authorization": "Basic bWxodWIvYm9vdHN0cmFwOmEgcGFzc3dvcmQgb2YgdGhlIGJvb3RzdHJhcA=="},
    ],
    ids=["none", "empty", "unknown", "other scheme", "password", "password of the bootstrap"],
)
@pytest.mark.parametrize(
    "path", [SEARCH, "/api/2.0/mlflow-artifacts/artifacts/x", "/api/2.0/mlflow/users/create", "/"]
)
def test_P3_without_a_persons_token_the_answer_is_401_and_says_what_to_do(
    server, alice, headers, path
):
    status, body = server.ask(path, **headers)
    assert status == 401
    assert "token" in body
    assert "Hub" in body


def test_an_admin_of_the_hub_is_one_here_for_as_long(
    server, hub_double, client_of, alice, tmp_path
):
    run_id = make_run(client_of(alice), "seen-by-admins", tmp_path)
    token = hub_double.person("carol", admin=True)
    assert client_of(token, "alice--home").get_run(run_id).info.run_id == run_id

    hub_double.owners["another-token"] = hub_double.owners.pop(token) | {"admin": False}
    with pytest.raises(MlflowException, match=r"403|PERMISSION_DENIED"):
        client_of("another-token", "alice--home").get_run(run_id)


def test_nobody_makes_themselves_an_admin(server, alice):
    for body in ({"username": "alice", "is_admin": True}, {"username": "bob", "is_admin": True}):
        answer = requests.patch(
            f"{server.url}/api/2.0/mlflow/users/update-admin",
            json=body,
            headers={"Authorization": f"Bearer {alice}"},
            timeout=30,
        )
        assert answer.status_code == 403


def test_a_silent_hub_is_503_with_a_sentence_and_no_more_than_a_moment(
    server, hub_double, client_of, monkeypatch
):
    token = hub_double.person("dave")
    for status in (500, 502, 503, 404, 302):
        hub_double.status = status
        try:
            answered, body = server.ask(SEARCH, f"{token}-{status}", {"max_results": 1})
            artifact, _ = server.ask("/api/2.0/mlflow-artifacts/artifacts/1/x", f"{token}-{status}")
        finally:
            hub_double.status = None
        assert (answered, artifact) == (503, 503), body
        assert "the Hub does not answer" in body
        assert "try again" in body
        assert "Traceback" not in body
        assert server.ask("/health") == (200, "OK")
    time.sleep(3.2)
    assert server.ask(SEARCH, token, {"max_results": 1})[0] == 200


def test_T13_what_the_hub_said_counts_for_minutes_while_it_is_silent_and_no_longer(monkeypatch):
    """So that a training which logs outlives the Hub's restart."""

    class Hub:
        silent = False
        owners: ClassVar = {"franks": Person("frank", admin=False)}

        def bearer(self, token: str) -> Person | None:
            if self.silent:
                raise HubSilentError
            return self.owners.get(token)

    monkeypatch.setattr(people, "enrol", lambda _: None)
    for name, seconds in (("REMEMBERED", 0.1), ("SILENT", 0.1), ("KEPT", 3)):
        monkeypatch.setattr(people, f"{name}_SECONDS", seconds)
    hub = Hub()
    known = people.People(hub)

    def after(seconds: float, by: str = "franks") -> str | None:
        time.sleep(seconds)
        found = known.bearer(by)
        return found and found.name

    assert after(0) == "frank"
    hub.silent = True
    assert [after(0.2), after(0.2)] == ["frank", "frank"]
    with pytest.raises(HubSilentError):
        after(0, "a new one")
    with pytest.raises(HubSilentError):
        after(3)
    hub.silent = False
    assert after(0.2) == "frank"
    hub.owners = {}
    assert after(0.2) is None, "the Hub is asked as soon as it answers"
    hub.silent = True
    with pytest.raises(HubSilentError):
        after(0.2)


def test_the_hub_is_asked_once_for_many_requests_and_again_after_ten_seconds(server, hub_double):
    token = hub_double.person("erin")
    before, began = hub_double.asked, time.monotonic()
    for _ in range(20):
        assert server.ask(SEARCH, token, {"max_results": 1})[0] == 200
    most = 1 + int((time.monotonic() - began) / REMEMBERED_SECONDS)
    assert 1 <= hub_double.asked - before <= most

    del hub_double.owners[token]
    time.sleep(REMEMBERED_SECONDS + 0.5)
    assert server.ask(SEARCH, token, {"max_results": 1})[0] == 401


def test_the_service_answers_to_its_own_names_alone(server, alice):
    """Against a web page that has a browser call it by a name of its own."""
    status, body = server.ask(SEARCH, alice, {"max_results": 1}, Host="evil.example.com")
    assert status == 403
    assert "Host" in body
    hosts = mlflow_server.allowed_hosts("mlflow", "https://jupyter.example.com")
    assert {"mlflow-service.mlflow.svc.cluster.local:5000", "jupyter.example.com"} <= set(hosts)


def test_an_idle_server_takes_less_than_600_MB(server):
    tree = [psutil.Process(server.process.pid)]
    tree += tree[0].children(recursive=True)
    # Proportional: pages that both processes share count once, as they do against a pod's limit.
    held = sum(process.memory_full_info().pss for process in tree)
    assert held < 600 * 10**6, f"{held / 10**6:.0f} MB"


def test_no_token_is_in_the_log(server, alice, bob):
    assert "token-of-" not in server.log


async def test_the_real_hub_tells_whose_token_it_is(hub, hub_port, keycloak):
    """A service's is nobody's."""
    keycloak.at_the_browser = "alice"
    async with hub.browser() as browser, browser.get("/hub/oauth_login?next=/hub/home") as page:
        assert page.status == 200
    user = hub.user("alice")
    identity_only = user.new_api_token(scopes=["read:users:name!user=alice"], note="MLflow")
    whole = user.new_api_token(note="her own")
    revoked = user.new_api_token(note="revoked")
    hub.app.db.delete(APIToken.find(hub.app.db, revoked))
    hub.app.db.commit()
    api = HubApi(f"http://127.0.0.1:{hub_port}/hub/api")

    for token in (identity_only, whole):
        assert await asyncio.to_thread(api.bearer, token) == Person("alice", admin=False)
    for token in (revoked, "made-up", SECRETS["hub.services.mlflow.apiToken"]):
        assert await asyncio.to_thread(api.bearer, token) is None


def test_nothing_there_is_silence_not_refusal():
    with pytest.raises(HubSilentError):
        HubApi(f"http://127.0.0.1:{free_port()}/hub/api").bearer("any")
