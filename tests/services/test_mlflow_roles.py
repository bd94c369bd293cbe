"""What each role in a team's workspace may do in the real MLflow: the matrix, whole."""

import re
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from mlhub.mlflow.people import REMEMBERED_SECONDS
from tests.services import mlflow_server as real

TEAM = "fraud"
REFUSED = re.compile(r"403|PERMISSION_DENIED|Permission denied", re.I)
ROLES = ("owner", "editor", "viewer", "stranger", "former", "admin")

ALLOWED = {
    "find the experiment": {"owner", "editor", "viewer", "admin"},
    "read the run": {"owner", "editor", "viewer", "admin"},
    "fetch the artifact": {"owner", "editor", "viewer", "admin"},
    "load the model": {"owner", "editor", "viewer", "admin"},
    "create an experiment": {"owner", "editor", "admin"},
    "log a run": {"owner", "editor", "admin"},
    "upload an artifact": {"owner", "editor", "admin"},
    "register a model": {"owner", "editor", "admin"},
    "set the model's alias": {"owner", "editor", "admin"},
    "delete the run": {"owner", "admin"},
    "delete the model": {"owner", "admin"},
    "delete the experiment": {"owner", "admin"},
}
"""What may be done to something that somebody else has made, by whom."""


@pytest.fixture(scope="module")
def tokens(hub_double: real.HubDouble) -> dict[str, str]:
    """A token of somebody in each role."""
    made = {role: hub_double.person(f"fay-{role}", fraud=role) for role in ROLES[:3]}
    made["stranger"] = hub_double.person("fay-stranger", churn="owner")
    made["former"] = hub_double.person("fay-former", fraud="owner")
    made["admin"] = hub_double.person("fay-admin", admin=True)
    return made


@pytest.fixture(scope="module")
def former(server: real.Server, hub_double: real.HubDouble, tokens: dict[str, str]) -> None:
    """Was an owner, and has made something."""
    path, body = "/api/2.0/mlflow/experiments/create", {"name": "of a former owner"}
    assert server.ask(path, tokens["former"], body, **{"X-MLFLOW-WORKSPACE": TEAM})[0] == 200
    hub_double.person("fay-former")
    time.sleep(REMEMBERED_SECONDS + 0.5)


@pytest.fixture
def made(client_of: Any, hub_double: real.HubDouble, tmp_path: Path) -> dict[str, str]:
    """An experiment with a run and a model, by another editor."""
    client = client_of(hub_double.person("maker", fraud="editor"), TEAM)
    name = f"things-{time.monotonic_ns()}"
    experiment = client.create_experiment(name)
    run = client.create_run(experiment).info.run_id
    client.log_param(run, "depth", 3)
    (tmp_path / "note.txt").write_text("what the model learned")
    client.log_artifact(run, str(tmp_path / "note.txt"))
    client.create_registered_model(name)
    client.create_model_version(name, f"runs:/{run}/note.txt", run)
    return {"name": name, "experiment": experiment, "run": run}


def fetched(client: MlflowClient, run: str, folder: Path) -> str:
    (folder / "down").mkdir(exist_ok=True)
    return Path(client.download_artifacts(run, "note.txt", str(folder / "down"))).read_text()


def attempt(what: str, client: MlflowClient, made: dict[str, str], folder: Path) -> Any:
    name, run, experiment = made["name"], made["run"], made["experiment"]
    attempts: dict[str, Callable[[], Any]] = {
        "find the experiment": lambda: client.get_experiment_by_name(name).experiment_id,
        "read the run": lambda: client.get_run(run).data.params["depth"],
        "fetch the artifact": lambda: fetched(client, run, folder),
        "load the model": lambda: client.get_model_version_download_uri(name, "1"),
        "create an experiment": lambda: client.create_experiment(f"{name}-{time.monotonic_ns()}"),
        "log a run": lambda: client.log_metric(
            client.create_run(experiment).info.run_id, "accuracy", 0.5
        ),
        "upload an artifact": lambda: client.log_artifact(run, str(folder / "note.txt"), "more"),
        "register a model": lambda: client.create_registered_model(f"{name}-{time.monotonic_ns()}"),
        "set the model's alias": lambda: client.set_registered_model_alias(name, "best", "1"),
        "delete the run": lambda: client.delete_run(run),
        "delete the model": lambda: client.delete_registered_model(name),
        "delete the experiment": lambda: client.delete_experiment(experiment),
    }
    return attempts[what]()


@pytest.mark.usefixtures("former")
@pytest.mark.parametrize("role", ROLES)
def test_M7_the_matrix_of_roles(client_of, tokens, made, tmp_path, role):
    client = client_of(tokens[role], TEAM)
    for what, allowed in ALLOWED.items():
        if role in allowed:
            attempt(what, client, made, tmp_path)
        else:
            with pytest.raises((MlflowException, requests.HTTPError), match=REFUSED):
                pytest.fail(f"{role}: {what} gave {attempt(what, client, made, tmp_path)!r}")


@pytest.mark.usefixtures("former")
@pytest.mark.parametrize("role", ["stranger", "former"])
def test_M7_nobody_else_finds_anything_in_a_search(client_of, tokens, made, role):
    client = client_of(tokens[role], TEAM)
    assert list(client.search_experiments()) == []
    assert list(client.search_registered_models()) == []
    assert list(client.search_runs([made["experiment"]])) == []
    assert TEAM not in [w["name"] for w in workspaces(client.tracking_uri, tokens[role])]


def workspaces(url: str, token: str) -> list[dict[str, str]]:
    answer = requests.get(
        f"{url}/api/3.0/mlflow/workspaces",
        headers={"Authorization": f"Bearer {token}"},
        timeout=30,
    )
    found: list[dict[str, str]] = answer.json()["workspaces"]
    return found


def test_M7_everyone_is_shown_their_own_workspace_and_their_teams(server, hub_double):
    token = hub_double.person("wendy", fraud="viewer", churn="owner")
    names = {workspace["name"] for workspace in workspaces(server.url, token)}
    assert names == {"wendy--home", "fraud", "churn"}


def test_M7_a_change_of_role_counts_within_ten_seconds(client_of, hub_double, made, tmp_path):
    token = hub_double.person("dora", fraud="editor")
    client = client_of(token, TEAM)
    own = client.create_experiment(f"of dora {time.monotonic_ns()}")

    hub_double.person("dora", fraud="viewer")
    time.sleep(REMEMBERED_SECONDS + 0.5)
    client = client_of(token, TEAM)
    assert client.get_run(made["run"]).data.params == {"depth": "3"}
    for experiment in (own, made["experiment"]):
        with pytest.raises(MlflowException, match=REFUSED):
            client.create_run(experiment)
        with pytest.raises(MlflowException, match=REFUSED):
            client.delete_experiment(experiment)

    hub_double.person("dora", fraud="owner")
    time.sleep(REMEMBERED_SECONDS + 0.5)
    client_of(token, TEAM).delete_experiment(own)


MODELS = "/api/2.0/mlflow/registered-models"
WAYS = {
    "create": [("create", {"name": "*"})],
    "create a prompt": [
        ("create", {"name": "*", "tags": [{"key": "mlflow.prompt.is_prompt", "value": "true"}]})
    ],
    "rename": [("create", {"name": "one"}), ("rename", {"name": "one", "new_name": "*"})],
    "rename in camel case": [
        ("create", {"name": "two"}),
        ("rename", {"name": "two", "newName": "*"}),
    ],
}


@pytest.mark.parametrize("way", WAYS)
def test_M7_nobody_manages_all_models_by_the_name_of_one(client_of, server, tokens, made, way):
    for path, body in WAYS[way]:
        address, team = f"{MODELS}/{path}", {"X-MLFLOW-WORKSPACE": TEAM}
        status, answer = server.ask(address, tokens["editor"], body, **team)
    assert status == 400, answer
    with pytest.raises(MlflowException, match=REFUSED):
        client_of(tokens["editor"], TEAM).delete_registered_model(made["name"])


def test_M7_an_editor_who_came_to_manage_all_models_before_does_so_no_more(
    client_of, server, hub_double, made
):
    token, name = hub_double.person("olga", fraud="editor"), f"hers {time.monotonic_ns()}"
    client_of(token, TEAM).create_registered_model(name)
    with sqlite3.connect(server.folder / "mlflow.db", timeout=30) as database:
        changed = database.execute(
            "UPDATE role_permissions SET resource_pattern = '*' WHERE resource_pattern = ?", (name,)
        )
        assert changed.rowcount == 1
    time.sleep(REMEMBERED_SECONDS + 0.5)
    with pytest.raises(MlflowException, match=REFUSED):
        client_of(token, TEAM).delete_registered_model(made["name"])


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/3.0/mlflow/roles/create", {"name": "friends", "workspace": TEAM}),
        ("/ajax-api/3.0/mlflow/roles/assign", {"role_id": 1, "username": "fay-stranger"}),
        (
            "/api/3.0/mlflow/users/permissions/grant",
            {
                "username": "fay-stranger",
                "resource_type": "experiment",
                "resource_id": "1",
                "permission": "MANAGE",
            },
        ),
        ("/api/2.0/mlflow/users/create", {"username": "ghost", "password": "boo" * 9}),
        ("/api/2.0/mlflow/experiments/permissions/create", {"username": "fay-stranger"}),
        ("/services/mlflow/api/3.0/mlflow/roles/create", {"name": "f", "workspace": TEAM}),
    ],
)
@pytest.mark.parametrize("role", ["owner", "admin"])
def test_M7_mlflow_itself_gives_no_accounts_and_no_roles(server, tokens, role, path, body):
    status, answer = server.ask(path, tokens[role], body, **{"X-MLFLOW-WORKSPACE": TEAM})
    assert status == 403
    assert "Keycloak" in answer


@pytest.mark.parametrize("path", ["config", "message", "skills/install", ""])
@pytest.mark.parametrize("prefix", ["/api", "/ajax-api", "/services/mlflow/ajax-api"])
def test_nobody_reaches_mlflows_assistant_which_runs_commands_in_the_server(
    server, tokens, prefix, path
):
    status, answer = server.ask(f"{prefix}/3.0/mlflow/assistant/{path}", tokens["admin"])
    assert (status, "run commands" in answer) == (403, True)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.usefixtures("former", "made")
def test_M7_a_workspace_is_described_to_its_members_and_changed_by_none(server, tokens, role):
    for prefix in ("/api", "/services/mlflow/ajax-api"):
        path = f"{prefix}/3.0/mlflow/workspaces/{TEAM}"
        status, answer = server.ask(path, tokens[role])
        assert status == (200 if role not in ("stranger", "former") else 403), answer
        for method in ("PATCH", "DELETE") if role != "admin" else ():
            answer = requests.request(
                method,
                server.url + path,
                json={"description": "theirs"},
                headers={"Authorization": f"Bearer {tokens[role]}"},
                timeout=30,
            )
            assert answer.status_code == 403, answer.text


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("path", ["2.0/mlflow/users/list", "3.0/mlflow/roles/list"])
def test_M7_admins_alone_are_told_who_else_there_is(server, tokens, role, path):
    for prefix in ("/api", "/ajax-api"):
        status, answer = server.ask(f"{prefix}/{path}", tokens[role])
        assert (status, "fay-admin" in answer) == ((200, True) if role == "admin" else (403, False))


@pytest.mark.parametrize("workspace", [TEAM, "maker--home"])
def test_M7_whoever_asks_for_what_is_not_there_yet_keeps_nobody_from_it(
    client_of, server, tokens, made, workspace
):
    """MLflow remembers for an hour in which workspace something is, and that it is in none."""
    last, team = int(made["experiment"]), {"X-MLFLOW-WORKSPACE": workspace}
    for number in range(last + 1, last + 31):
        path = f"/api/2.0/mlflow/experiments/get?experiment_id={number}"
        assert server.ask(path, tokens["stranger"], **team)[0] == 403
    client = client_of("token-of-maker", workspace)
    client.create_run(client.create_experiment(f"next-{time.monotonic_ns()}"))


@pytest.mark.parametrize("workspace", [TEAM, "default", "fay-former--home"])
@pytest.mark.parametrize("role", ["viewer", "stranger"])
@pytest.mark.usefixtures("former")
def test_M7_nobody_has_mlflows_demo_write_where_they_may_not(
    server, client_of, tokens, role, workspace
):
    home = {"X-MLFLOW-WORKSPACE": workspace}
    for prefix in ("/ajax-api", "/services/mlflow/ajax-api"):
        status, answer = server.ask(f"{prefix}/3.0/mlflow/demo/generate", tokens[role], {}, **home)
        assert (status, "demo is off" in answer) == (403, True), answer
    there = client_of(tokens["admin"], workspace).search_experiments()
    assert not [experiment.name for experiment in there if "Demo" in experiment.name]


def test_M7_no_team_can_be_the_default_workspace_or_a_persons(server, hub_double):
    """The Hub names no such slug (tests/services/test_hub_groups.py); nobody gets in besides."""
    token = hub_double.person("eve", fraud="owner")
    for workspace in ("default", "alice--home"):
        status, _ = server.ask(
            "/api/2.0/mlflow/experiments/create",
            token,
            {"name": "trespass"},
            **{"X-MLFLOW-WORKSPACE": workspace},
        )
        assert status in (403, 404)
