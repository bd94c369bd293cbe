"""The token by which a server or a run says to MLflow whose it is: narrow, and taken back."""

import json
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import web
from jupyterhub import orm

from mlhub.hub import trouble
from mlhub.hub.api import SCOPE
from mlhub.hub.tokens import CLIENT, OF_SERVER, SERVER_SECONDS
from tests.services.hub import PROFILES, SECRETS, Hub, logged_in, merged, until
from tests.services.test_hub_spawn import RUNNING, start, waiting

MLFLOW = {
    "hub": {
        "services": {
            "mlflow": {
                "oauth_no_confirm": True,
                "oauth_redirect_uri": "/services/mlflow/oauth_callback",
            },
            "execution": {},
            "stranger": {},
        },
        "loadRoles": {"execution": {"scopes": [SCOPE], "services": ["execution"]}},
    },
    "singleuser": {"profileList": PROFILES},
}
RUN_TOKENS = "/hub/api/mlhub/tokens"


@pytest.fixture
async def server_port(serve: Any, kubernetes: Any) -> int:
    """The pods' port, where something answers as a server does."""
    server = web.Application()

    async def up(request: web.Request) -> web.Response:
        return web.json_response({"version": "1"})

    server.router.add_get("/user/alice/api", up)
    server.router.add_get("/user/alice/second/api", up)
    kubernetes.then = lambda pod: RUNNING
    return int((await serve(server)).rsplit(":", 1)[1])


@pytest.fixture
async def hub(start_hub: Any, server_port: int) -> Hub:
    config = {"hub": {"config": {"KubeSpawner": {"port": server_port}}}}
    hub: Hub = await start_hub(merged(MLFLOW, config))
    hub.wait_for_refusals(30)
    return hub


@pytest.fixture
async def alice(hub: Hub, keycloak: Any) -> Any:
    keycloak.at_the_browser = "alice"
    async with hub.browser() as browser:
        await logged_in(browser)
        yield browser


def given(pod: dict[str, Any]) -> dict[str, str]:
    """MLflow's variables in a server's pod."""
    variables = pod["spec"]["containers"][0]["env"]
    return {v["name"]: v["value"] for v in variables if "MLFLOW_" in v["name"]}


async def started(hub: Hub, alice: Any, kubernetes: Any, **options: str) -> dict[str, str]:
    """Alice's server, once it runs; MLflow's variables in its pod."""
    assert (await start(alice, **options))[0] in (201, 202)
    await until(lambda: hub.user("alice").spawner.ready)
    (pod,) = kubernetes.kept["pods"].values()
    return given(pod)


def tokens(hub: Hub) -> list[orm.APIToken]:
    hub.app.db.expire_all()
    return list(hub.app.db.query(orm.APIToken).filter_by(client_id=CLIENT))


async def person(hub: Hub, token: str) -> tuple[int, Any]:
    """Status and body of what the hub says of a token."""
    return await ask(hub, "GET", "/hub/api/mlhub/person", token)


async def ask(hub: Hub, method: str, path: str, token: str, body: Any = None) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        hub.browser() as nobody,
        nobody.request(method, path, headers=headers, json=body) as answer,
    ):
        return answer.status, (await answer.json() if answer.content_length else None)


def stop_spawn(hub: Hub, alice: Any) -> Any:
    xsrf = next(cookie for cookie in alice.cookie_jar if cookie.key == "_xsrf").value
    return alice.delete("/hub/api/users/alice/server", headers={"X-XSRFToken": xsrf})


async def test_J3_a_server_has_a_token_that_tells_a_name_and_nothing_else(hub, alice, kubernetes):
    environment = await started(hub, alice, kubernetes)
    assert environment["MLHUB_MLFLOW_WORKSPACE"] == "alice--home"
    token = environment["MLFLOW_TRACKING_TOKEN"]
    assert await person(hub, token) == (200, {"name": "alice", "admin": False, "workspaces": {}})
    for method, path in [
        ("POST", "/hub/api/users/alice/tokens"),
        ("DELETE", "/hub/api/users/alice/server"),
        ("GET", "/hub/api/users/bob"),
        ("POST", RUN_TOKENS),
    ]:
        assert (await ask(hub, method, path, token, {}))[0] in (403, 404), path
    _, model = await ask(hub, "GET", "/hub/api/user", token)
    # The Hub lets every token of an OAuth client see its owner's name and groups.
    assert set(model["scopes"]) == {f"read:users:{what}!user=alice" for what in ("name", "groups")}
    (record,) = tokens(hub)
    assert record.expires_in < SERVER_SECONDS + 1


async def test_the_hubs_own_log_holds_no_token(hub, alice, kubernetes, caplog):
    token = (await started(hub, alice, kubernetes))["MLFLOW_TRACKING_TOKEN"]
    assert token not in caplog.text


@pytest.mark.parametrize("end", ["by its owner", "by itself"])
async def test_J3_the_token_ends_with_its_server(hub, alice, kubernetes, end):
    token = (await started(hub, alice, kubernetes))["MLFLOW_TRACKING_TOKEN"]
    if end == "by its owner":
        await stop_spawn(hub, alice)
    else:
        kubernetes.drop("pods", "jupyter-alice")
        await until(lambda: not hub.user("alice").spawner.pod_reflector.pods)
        await hub.user("alice").spawner.poll_and_notify()
    await until(lambda: not tokens(hub))
    assert (await person(hub, token))[0] == 403


async def test_J3_a_start_that_fails_leaves_no_token(hub, alice, kubernetes, monkeypatch):
    monkeypatch.setattr(trouble, "GRACE_SECONDS", 0)
    kubernetes.then = lambda pod: waiting("ImagePullBackOff", "not found")
    seen: list[str] = []

    def note(kind: str, item: Any) -> None:
        if kind == "pods":
            seen.extend(given(item))

    kubernetes.refuse = note
    assert (await start(alice))[0] == 503
    assert "MLFLOW_TRACKING_TOKEN" in seen
    await until(lambda: not tokens(hub))


async def test_a_second_start_ends_the_first_ones_token_and_another_server_has_its_own(
    hub, alice, kubernetes
):
    first = (await started(hub, alice, kubernetes))["MLFLOW_TRACKING_TOKEN"]
    office = hub.app.authenticator.office
    again = office.tokens.environment(hub.user("alice").spawner)["MLFLOW_TRACKING_TOKEN"]
    other = office.tokens.environment(hub.user("alice").get_or_create_spawner("second", ""))
    assert (await person(hub, first))[0] == 403
    for token in (again, other["MLFLOW_TRACKING_TOKEN"]):
        assert (await person(hub, token))[0] == 200


async def test_J3_what_a_killed_hub_left_behind_is_found_and_what_runs_is_lengthened(
    hub, alice, kubernetes
):
    token = (await started(hub, alice, kubernetes))["MLFLOW_TRACKING_TOKEN"]
    office, owner = hub.app.authenticator.office, hub.user("alice").orm_user
    office.tokens._mint(owner, OF_SERVER + "never-came", 600)
    office.tokens.for_run(owner, "long-over", 600)
    office.tokens.for_run(owner, "goes-on", 600)
    now = orm.APIToken.now().replace(tzinfo=None)
    for record in tokens(hub):
        if record.note.endswith("long-over"):
            record.expires_at = now - timedelta(seconds=1)
        elif record.note == OF_SERVER:
            record.expires_at = now + timedelta(minutes=1)
    hub.app.db.commit()

    office.keeper._wake.set()
    await until(lambda: len(tokens(hub)) == 2)
    left = {record.note: record for record in tokens(hub)}
    assert left.keys() == {"MLflow, server ", "MLflow, run goes-on"}
    assert left["MLflow, server "].expires_in > SERVER_SECONDS - 60
    assert left["MLflow, run goes-on"].expires_in < 601
    assert (await person(hub, token))[0] == 200


async def test_a_servers_own_token_does_not_outlive_it_over_a_killed_hub(hub, alice, kubernetes):
    """JupyterHub's never expire: one that was copied out of a server would be good for ever."""
    await started(hub, alice, kubernetes)
    running = hub.user("alice").spawner.api_token
    left = hub.user("alice").new_api_token(note="Server at /user/alice/second/")
    own = [hub.user("alice").new_api_token(note=note) for note in ("mine", "Server at the office")]
    hub.app.authenticator.office.keeper._wake.set()
    await until(lambda: not orm.APIToken.find(hub.app.db, left))
    assert (await ask(hub, "GET", "/hub/api/user", left))[0] == 403
    for token in (running, *own):
        assert (await ask(hub, "GET", "/hub/api/user", token))[0] == 200


async def test_where_no_mlflow_is_there_is_no_token_and_no_experiment(
    start_hub, keycloak, kubernetes
):
    hub = await start_hub({"singleuser": {"profileList": PROFILES}})
    hub.wait_for_refusals(30)
    keycloak.at_the_browser = "alice"
    async with hub.browser() as alice:
        await logged_in(alice)
        status, message = await start(alice, mlflow_experiment="churn")
        assert (status, message) == (400, "This hub has no MLflow.")
        hub.wait_for_refusals(0.1)
        await start(alice)
        await until(lambda: kubernetes.kept["pods"])
    (pod,) = kubernetes.kept["pods"].values()
    assert not given(pod)


async def test_J3_a_servers_runs_bear_its_owners_name(hub, alice, kubernetes):
    environment = await started(hub, alice, kubernetes)
    assert json.loads(environment["MLFLOW_RUN_CONTEXT"]) == {"mlflow.user": "alice"}


async def test_M1_the_experiment_of_the_launch_is_the_servers(hub, alice, kubernetes):
    environment = await started(hub, alice, kubernetes, mlflow_experiment="Churn, 2nd try")
    assert environment["MLFLOW_EXPERIMENT_NAME"] == "Churn, 2nd try"


@pytest.mark.parametrize("name", ["$(JUPYTERHUB_API_TOKEN)", "two\nlines", "x" * 201, "  "])
async def test_M1_what_is_no_experiment_is_refused(hub, alice, kubernetes, name):
    status, message = await start(alice, mlflow_experiment=name)
    assert (status, "give 1 to 200 characters" in message) == (400, True), message
    assert not kubernetes.kept["pods"]
    assert not tokens(hub)


async def test_P8_a_run_has_a_token_of_its_owner_until_it_is_over(hub, alice, audited):
    service = SECRETS["hub.services.execution.apiToken"]
    wish = {"user": "alice", "run": "run-1", "seconds": 60}
    status, body = await ask(hub, "POST", RUN_TOKENS, service, wish)
    assert (status, body.keys()) == (200, {"token"})
    assert (await person(hub, body["token"]))[1]["name"] == "alice"
    (line,) = audited("run.token")
    assert (line["who"], body["token"] in str(line)) == ("alice", False)

    _, again = await ask(hub, "POST", RUN_TOKENS, service, wish)
    assert (await person(hub, body["token"]))[0] == 403, "one run has one token"
    for _ in range(2):
        assert await ask(hub, "DELETE", f"{RUN_TOKENS}/run-1", service) == (204, None)
        assert (await person(hub, again["token"]))[0] == 403


@pytest.mark.parametrize(
    ("change", "status", "sentence"),
    [
        ({"user": "nobody"}, 404, "Nobody named 'nobody' has ever logged in"),
        ({"run": "a/b"}, 400, "run: String should match pattern"),
        ({"seconds": 0}, 400, "seconds: Input should be greater than 0"),
        ({"seconds": 10**9}, 400, "seconds: Input should be less than or equal to"),
        ({"scopes": ["admin"]}, 400, "scopes: Extra inputs are not permitted"),
    ],
)
async def test_P4_a_runs_token_is_asked_for_in_one_shape(hub, alice, change, status, sentence):
    service = SECRETS["hub.services.execution.apiToken"]
    wish = {"user": "alice", "run": "run-1", "seconds": 60} | change
    answered, body = await ask(hub, "POST", RUN_TOKENS, service, wish)
    assert (answered, sentence in body["message"]) == (status, True), body
    assert not tokens(hub)


async def test_P3_nobody_but_the_service_with_the_scope_gives_or_takes_a_runs_token(hub, alice):
    wish = {"user": "alice", "run": "run-1", "seconds": 60}
    own = hub.user("alice").new_api_token()
    for token in (own, SECRETS["hub.services.stranger.apiToken"], "made-up"):
        assert (await ask(hub, "POST", RUN_TOKENS, token, wish))[0] == 403
        assert (await ask(hub, "DELETE", f"{RUN_TOKENS}/run-1", token))[0] == 403


async def test_J3_a_long_training_logs_on_when_its_owners_session_at_keycloak_is_over(
    hub, alice, kubernetes, keycloak
):
    token = (await started(hub, alice, kubernetes))["MLFLOW_TRACKING_TOKEN"]
    own = hub.user("alice").new_api_token()
    keycloak.sessions.clear()
    hub.user("alice")._auth_refreshed = None
    assert (await person(hub, token))[0] == 200
    assert (await person(hub, own))[0] == 403, "what a person made themselves ends with the session"

    # A note like ours does not make one of ours.
    lookalike = hub.user("alice").new_api_token(note=OF_SERVER)
    assert (await person(hub, lookalike))[0] == 403


async def test_T3_a_removed_admin_is_none_at_mlflow_though_the_session_at_keycloak_is_over(
    hub, alice, kubernetes, keycloak
):
    """The token of a server lasts as long as the server, which may be for weeks."""
    user = hub.user("alice")
    keycloak.people["alice"] = ["/mlhub/users", "/mlhub/admins"]
    await hub.app.authenticator.ask_about(user)
    token = (await started(hub, alice, kubernetes))["MLFLOW_TRACKING_TOKEN"]
    assert (await person(hub, token))[1]["admin"] is True
    keycloak.people["alice"] = ["/mlhub/users"]
    keycloak.sessions.clear()
    user._auth_refreshed = None
    assert await person(hub, token) == (200, {"name": "alice", "admin": False, "workspaces": {}})


async def test_M7_who_opens_a_server_of_somebody_elses_lends_them_no_name_at_mlflow(
    hub, alice, kubernetes, keycloak
):
    """The Hub gives that server a token of the visitor's: to code that is not theirs."""
    await started(hub, alice, kubernetes)
    keycloak.people["carol"] = ["/mlhub/users", "/mlhub/admins"]
    keycloak.at_the_browser = "carol"
    async with hub.browser() as browser:
        await logged_in(browser)
    carol, of_server = hub.user("carol"), hub.user("alice").spawner.oauth_client_id
    hub.user("carol").orm_user.admin = True
    hub.app.db.commit()
    visits = carol.orm_user.new_api_token(
        client_id=of_server, scopes=["read:users:name!user=carol"]
    )
    status, body = await person(hub, visits)
    assert (status, "carol" in json.dumps(body)) == (403, False)
    assert "another's server" in body["message"]
    assert (await person(hub, carol.new_api_token()))[0] == 200


async def test_T3_a_removed_members_run_is_nobody_from_the_next_refresh_on(hub, alice, keycloak):
    service = SECRETS["hub.services.execution.apiToken"]
    wish = {"user": "alice", "run": "run-1", "seconds": 600}
    token = (await ask(hub, "POST", RUN_TOKENS, service, wish))[1]["token"]
    keycloak.people["alice"] = ["/elsewhere"]
    hub.user("alice")._auth_refreshed = None
    assert (await person(hub, token))[0] == 403
    assert (await person(hub, token))[0] == 403


async def test_M7_the_hub_tells_the_strongest_role_in_each_workspace(hub, alice, keycloak):
    token = hub.user("alice").new_api_token()
    keycloak.people["alice"] = [
        "/mlhub/users",
        "/workspaces/fraud/viewer",
        "/workspaces/fraud/editor",
        "/workspaces/churn/owner",
        "/workspaces/default/owner",
        "/workspaces/churn/guest",
    ]
    hub.user("alice")._auth_refreshed = None
    _, body = await person(hub, token)
    assert body["workspaces"] == {"fraud": "editor", "churn": "owner"}
    keycloak.people["alice"] = ["/mlhub/users", "/workspaces/fraud/viewer"]
    hub.user("alice")._auth_refreshed = None
    _, body = await person(hub, token)
    assert body["workspaces"] == {"fraud": "viewer"}
