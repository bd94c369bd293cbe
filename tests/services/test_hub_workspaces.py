"""A workspace in a server: mounted by role, on the form, and gone with the role."""

import asyncio
import json
from typing import Any
from unittest.mock import AsyncMock

import aiohttp
import pytest
from aiohttp import web

from mlhub.admission import Charge, Holding, Size
from mlhub.admission.holdings import metadata
from mlhub.hub import membership
from mlhub.hub.api import MEMBERS_SCOPE, SCOPE
from mlhub.workspaces import records
from mlhub.workspaces.mounts import mounted, volume
from tests.services.hub import PROFILES, Hub, logged_in, until
from tests.services.test_hub_admission import VALUES, reserve, service
from tests.services.test_hub_keeper import told
from tests.services.test_hub_spawn import RUNNING, start

LONG = "fraud-detection--0123456789abcdef0123"
"""The slug of a workspace whose name is none."""
SHARED = {"volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "datasets"}}]}


@pytest.fixture
async def hub(start_hub: Any, serve: Any, kubernetes: Any) -> Hub:
    """A hub whose pods lead to a server that answers, with a service that knows of members."""
    server = web.Application()

    async def up(request: web.Request) -> web.Response:
        return web.json_response({"version": "1"})

    server.router.add_get("/user/{path:.*}/api", up)
    port = int((await serve(server)).rsplit(":", 1)[1])
    kubernetes.then = lambda pod: RUNNING
    return await start_hub(
        {
            "hub": {
                "config": {"KubeSpawner": {"port": port}},
                "services": {"execution": {}, "stranger": {}},
                "loadRoles": {
                    "members": {"scopes": [MEMBERS_SCOPE, SCOPE], "services": ["execution"]}
                },
            },
            "singleuser": {"profileList": PROFILES},
        }
    )


@pytest.fixture
async def alice(hub: Hub, keycloak: Any) -> Any:
    """Alice's browser; she is an editor of `churn` and a viewer of a workspace with a long name."""
    keycloak.people["alice"] = [
        "/mlhub/users",
        "/workspaces/churn/viewer",
        "/workspaces/churn/editor",
        f"/workspaces/{LONG}/viewer",
    ]
    keycloak.at_the_browser = "alice"
    async with hub.browser() as browser:
        await logged_in(browser)
        yield browser


async def ready(hub: Hub, alice: Any, kubernetes: Any, **options: str) -> dict[str, Any]:
    """The spec of Alice's pod, once her server runs."""
    assert (await start(alice, **options))[0] in (201, 202)
    await until(lambda: hub.user("alice").spawner.ready)
    spec: dict[str, Any] = kubernetes.kept["pods"]["jupyter-alice"]["spec"]
    return spec


async def tell(hub: Hub, name: str = "execution", **given: Any) -> int:
    headers = service(name)
    body = {"user": "alice", "workspace": "churn", "role": None, **given}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{hub.url}/hub/api/mlhub/members", json=body, headers=headers) as answer,
    ):
        return answer.status


@pytest.fixture
async def running(hub: Hub, alice: Any, kubernetes: Any) -> Any:
    """The Kubernetes in which Alice's server runs and can write to `churn`."""
    await ready(hub, alice, kubernetes, workspace="churn")
    return kubernetes


def about_workspaces(spec: dict[str, Any]) -> tuple[list[Any], list[Any], dict[str, str]]:
    container = spec["containers"][0]
    return (
        [v for v in spec["volumes"] if v["name"] == "workspace"],
        [m for m in container["volumeMounts"] if m["name"] == "workspace"],
        {e["name"]: e.get("value", "") for e in container["env"]},
    )


async def test_M7_an_editors_server_has_the_workspace_to_write(hub, alice, kubernetes):
    spec = await ready(hub, alice, kubernetes, workspace="churn")
    volumes, mounts, environment = about_workspaces(spec)
    assert volumes == [
        {"name": "workspace", "persistentVolumeClaim": {"claimName": "workspace-churn"}}
    ]
    assert mounts == [{"name": "workspace", "mountPath": "/home/jovyan/workspaces/churn"}]
    assert environment["MLFLOW_WORKSPACE"] == "churn"
    assert mounted(spec) == {("churn", True)}


async def test_M7_a_viewers_server_has_it_read_only_on_claim_and_mount(hub, alice, kubernetes):
    volumes, mounts, _ = about_workspaces(await ready(hub, alice, kubernetes, workspace=LONG))
    claim = {"claimName": f"workspace-{LONG}", "readOnly": True}
    assert volumes == [{"name": "workspace", "persistentVolumeClaim": claim}]
    path = f"/home/jovyan/workspaces/{LONG}"
    assert mounts == [{"name": "workspace", "mountPath": path, "readOnly": True}]


MATRIX = {
    "owner": ["/mlhub/users", "/workspaces/churn/owner"],
    "editor": ["/mlhub/users", "/workspaces/churn/editor"],
    "viewer": ["/mlhub/users", "/workspaces/churn/viewer"],
    "stranger": ["/mlhub/users", "/workspaces/other/owner"],
    "former": ["/mlhub/users", "/workspaces/churn/owner"],
    "admin": ["/mlhub/users", "/mlhub/admins"],
}
MOUNTED = {"owner": {("churn", True)}, "editor": {("churn", True)}, "viewer": {("churn", False)}}
"""What is mounted and whether it can be written to; whoever is not here is refused. An admin puts
themselves into the workspace first, which leaves a line in the trail."""


async def test_M7_the_role_matrix_of_the_mount(hub, keycloak, kubernetes):
    hub.wait_for_refusals(30)
    found = {}
    for role, groups in MATRIX.items():
        keycloak.people[role], keycloak.at_the_browser = groups, role
        async with hub.browser() as browser:
            async with browser.get("/hub/oauth_login?next=/hub/home") as page:
                assert page.status == 200, role
            if role == "former":
                keycloak.people[role] = ["/mlhub/users"]
                assert await tell(hub, user=role) == 204
            status, _ = await start(browser, role, workspace="churn")
        if status != 403:
            assert status in (201, 202), role
            await until(lambda role=role: hub.user(role).spawner.ready)
            found[role] = mounted(kubernetes.kept["pods"][f"jupyter-{role}"]["spec"])
    assert found == MOUNTED
    assert set(kubernetes.kept["pods"]) == {f"jupyter-{role}" for role in MOUNTED}


async def test_M7_without_the_option_nothing_is_mounted_not_even_what_was_last_time(
    hub, alice, kubernetes
):
    await ready(hub, alice, kubernetes, workspace="churn")
    await hub.user("alice").stop("")
    volumes, mounts, environment = about_workspaces(
        await ready(hub, alice, kubernetes, profile="other")
    )
    assert (volumes, mounts, "MLFLOW_WORKSPACE" in environment) == ([], [], False)


@pytest.mark.parametrize("slug", ["other", "churn/editor", "../churn", "Churn", "churn.deleted"])
async def test_M7_what_is_not_ones_own_is_refused(hub, alice, kubernetes, slug):
    hub.wait_for_refusals(30)
    status, sentence = await start(alice, workspace=slug)
    assert (status, "no member of a workspace named" in sentence) == (403, True)
    assert not kubernetes.kept["pods"]


async def test_M7_the_form_offers_ones_own_workspaces_by_name_with_the_role(
    hub, alice, keycloak, kubernetes
):
    keycloak.names = {LONG: "Fraud <detection>", "churn": "churn"}
    async with alice.get("/hub/spawn") as page:
        text = await page.text()
    assert '<option value="churn">churn (editor)</option>' in text
    assert f">Fraud &lt;detection&gt;, {LONG} (viewer, read-only)</option>" in text
    xsrf = next(cookie for cookie in alice.cookie_jar if cookie.key == "_xsrf").value
    given = {"profile": "standard", "workspace": "churn", "_xsrf": xsrf}
    await alice.post("/hub/spawn", data=given, allow_redirects=False)
    await until(lambda: kubernetes.kept["pods"])
    assert mounted(kubernetes.kept["pods"]["jupyter-alice"]["spec"]) == {("churn", True)}


async def test_the_form_names_workspaces_by_their_slugs_where_keycloak_does_not_tell(
    hub, alice, keycloak, monkeypatch
):
    async with alice.get("/hub/spawn") as page:
        assert f">{LONG} (viewer, read-only)</option>" in await page.text()
    keycloak.names = {LONG: "Fraud detection"}
    people = hub.app.authenticator._membership
    lasting = people._identity.model_copy(update={"refresh_seconds": 600})
    monkeypatch.setattr(people, "_identity", lasting)
    monkeypatch.setattr(people, "_names", {})
    keycloak.silent = 500
    assert await people.workspace_names([LONG]) == {LONG: LONG}
    keycloak.silent = 0
    assert await people.workspace_names([LONG]) == {LONG: LONG}, "it is not asked for each form"
    (asked, said) = people._names[LONG]
    people._names[LONG] = (asked - 600, said)
    assert await people.workspace_names([LONG]) == {LONG: "Fraud detection"}
    assert membership.NAME == records.NAME


async def test_M7_who_has_no_workspace_sees_no_choice_of_one(hub, keycloak):
    keycloak.at_the_browser = "bob"
    async with hub.browser() as bob:
        await logged_in(bob)
        async with bob.get("/hub/spawn") as page:
            text = await page.text()
    assert "Standard" in text
    assert 'name="workspace"' not in text


@pytest.mark.parametrize(
    "left",
    [
        ("/workspaces/churn/viewer", "may only read the workspace churn"),
        ("/workspaces/churn.deleted/editor", "no longer a member of the workspace churn"),
    ],
)
async def test_M7_a_weaker_role_at_keycloak_stops_the_server_at_the_next_look(
    hub, alice, *, running, keycloak, audited, left
):
    group, why = left
    keycloak.people["alice"] = ["/mlhub/users", group]
    hub.user("alice")._auth_refreshed -= 2.1
    keeper = hub.app.authenticator.office.keeper
    await keeper._ask_about_members()
    keeper.look_now()
    await until(lambda: audited("server.stop"))
    (line,) = audited("server.stop")
    assert (line["by"], why in line["why"]) == ("mlhub", True)
    assert not running.kept["pods"]
    assert why in await told(alice, hub)


async def test_M7_a_role_that_is_gone_counts_though_the_session_is_over(
    hub, running, keycloak, audited
):
    keycloak.people["alice"] = ["/mlhub/users", "/workspaces/churn/viewer"]
    keycloak.sessions.clear()
    hub.user("alice")._auth_refreshed -= 2.1
    await hub.app.authenticator.office.keeper._ask_about_members()
    await until(lambda: audited("server.stop"))
    assert "may only read the workspace churn" in audited("server.stop")[0]["why"]
    assert not running.kept["pods"]


async def test_M7_a_stronger_role_stops_nothing(hub, running, keycloak):
    keycloak.people["alice"].append("/workspaces/churn/owner")
    assert await tell(hub, role="owner") == 204
    keeper = hub.app.authenticator.office.keeper
    await until(lambda: not keeper._wake.is_set())
    await keeper._stop_servers()
    assert hub.user("alice").spawner.ready


async def test_M7_a_change_that_is_told_counts_at_once_though_the_session_is_over(
    hub, running, keycloak, audited
):
    keycloak.sessions.clear()
    assert await tell(hub, role="viewer") == 204
    await until(lambda: audited("server.stop"))
    groups = {group.name for group in hub.user("alice").groups}
    assert "workspaces--churn--viewer" in groups
    assert "workspaces--churn--editor" not in groups
    assert "mlhub--users" in groups, "other groups are as they were"


@pytest.mark.parametrize(
    ("name", "given", "status"),
    [
        ("stranger", {}, 403),
        ("execution", {"user": "nobody"}, 204),
        ("execution", {"role": "admin"}, 400),
        ("execution", {"workspace": "a/b"}, 400),
    ],
)
async def test_only_a_service_with_the_scope_tells_of_members(hub, alice, name, given, status):
    assert await tell(hub, name, **given) == status
    assert "workspaces--churn--editor" in {group.name for group in hub.user("alice").groups}


async def known_to(start_hub: Any, keycloak: Any, role: str) -> Hub:
    """A hub with an execution service, at which Alice has logged in with this role."""
    hub: Hub = await start_hub(VALUES)
    keycloak.people["alice"] = ["/mlhub/users", role]
    keycloak.at_the_browser = "alice"
    async with hub.browser() as alice:
        await logged_in(alice)
    return hub


async def test_a_run_is_told_the_role_that_its_mount_follows(start_hub, keycloak):
    hub = await known_to(start_hub, keycloak, "/workspaces/churn/viewer")
    status, body = await reserve(hub, service("execution"), run="r1", workspace="churn")
    assert (status, body["role"]) == (200, "viewer"), json.dumps(body)


def put_run(kubernetes: Any, name: str, role: str = "", owner: str = "alice") -> None:
    """A run's pod, with `churn` in it by a role."""
    held = Holding(f"{owner}/run/{name}", owner, Size(), frozenset({Charge("user", owner)}))
    about = metadata(held, "run")
    pod = {
        "metadata": {"name": name, **about},
        "spec": {
            "containers": [{"name": "run", "resources": {"limits": {"cpu": "1"}}}],
            "volumes": [volume("churn", role)] if role else [],
        },
        "status": {"phase": "Running", "startTime": "2026-01-02T03:04:05Z"},
    }
    kubernetes.put("pods", pod)


async def why_ended(hub: Hub, name: str, run: str) -> tuple[int, Any]:
    url = f"{hub.url}/hub/api/mlhub/runs/{run}"
    async with (
        aiohttp.ClientSession(headers=service(name)) as session,
        session.get(url) as answer,
    ):
        return answer.status, await answer.json()


@pytest.mark.parametrize(
    ("becomes", "stays"),
    [
        (["/mlhub/users", "/workspaces/churn/editor"], {"writes", "reads", "none"}),
        (["/mlhub/users", "/workspaces/churn/viewer"], {"reads", "none"}),
        (["/mlhub/users"], {"none"}),
        ([], set()),
    ],
)
async def test_M7_a_run_ends_with_the_role_that_mounted_the_workspace(
    hub, alice, keycloak, kubernetes, *, audited, monkeypatch, becomes, stays
):
    """Though nothing else of its owner's runs, who is asked about as if a server did."""
    for name, role in (("writes", "editor"), ("reads", "viewer"), ("none", "")):
        put_run(kubernetes, name, role)
    put_run(kubernetes, "another", "editor", owner="bob")
    await until(lambda: len(hub.app.authenticator.office.desk.runs()) == 4)
    keeper = hub.app.authenticator.office.keeper
    stop_runs = keeper._stop_runs
    # A round of the keeper's own would come in between: it is woken by who is turned out.
    monkeypatch.setattr(keeper, "_stop_runs", AsyncMock())
    keycloak.people["alice"] = becomes
    hub.user("alice")._auth_refreshed -= 1000
    await keeper._ask_about_members()
    for _ in range(2):
        await stop_runs()
    assert set(kubernetes.kept["pods"]) == stays | {"another"}
    ended = {"writes", "reads", "none"} - stays
    assert {line["what"].rpartition("/")[2] for line in audited("run.stop")} == ended
    assert len(audited("run.stop")) == len(ended)
    for name in ("writes", "reads", "none", "another"):
        told = await why_ended(hub, "execution", name)
        assert (told[0], bool(told[1]["why"])) == (200, name in ended)
    assert (await why_ended(hub, "stranger", "writes"))[0] == 403


async def test_M7_a_server_that_does_not_stop_keeps_no_other_running(
    hub, running, keycloak, monkeypatch
):
    """As one whose node is lost, for which KubeSpawner waits minutes."""
    keycloak.people["bob"] = ["/mlhub/users", "/workspaces/churn/editor"]
    keycloak.at_the_browser = "bob"
    async with hub.browser() as bob:
        await logged_in(bob)
        xsrf = next(cookie for cookie in bob.cookie_jar if cookie.key == "_xsrf").value
        made = bob.post("/hub/api/users/bob/server", headers={"X-XSRFToken": xsrf},
                        json={"profile": "standard", "workspace": "churn"})  # fmt: skip
        async with made as answer:
            assert answer.status in (201, 202), await answer.text()
    await until(lambda: hub.user("bob").spawner.ready)
    delete, lost = hub.app.proxy.delete_user, asyncio.Event()

    async def delete_user(user: Any, name: str = "") -> None:
        if user.name == "alice":
            await lost.wait()
            raise OSError
        await delete(user, name)

    monkeypatch.setattr(hub.app.proxy, "delete_user", delete_user)
    keeper = hub.app.authenticator.office.keeper
    keeper.turn_out("alice", "of the test")
    await until(lambda: hub.user("alice").spawner.pending == "stop")
    keeper.turn_out("bob", "of the test")
    await until(lambda: set(running.kept["pods"]) == {"jupyter-alice"})
    # Nor is one that failed to stop left alone.
    monkeypatch.undo()
    lost.set()
    await until(lambda: keeper.look_now() or not running.kept["pods"])


async def test_T3_a_run_is_asked_for_in_the_name_of_who_is_a_member_now(start_hub, keycloak):
    """Of somebody who has no server, and whom the Hub would know as they were at their log-in."""
    hub = await known_to(start_hub, keycloak, "/workspaces/churn/editor")

    async def asked(groups: list[str], run: str, workspace: str | None) -> tuple[int, str]:
        keycloak.people["alice"] = groups
        hub.user("alice")._auth_refreshed -= 1000
        hub.app.authenticator._asked.clear()
        status, body = await reserve(hub, service("execution"), run=run, workspace=workspace)
        return status, str(body.get("role") or body.get("message"))

    churn = ["/mlhub/users", "/workspaces/churn/viewer"]
    assert await asked(churn, "r1", "churn") == (200, "viewer")
    assert (await asked(["/mlhub/users"], "r2", "churn"))[0] == 403
    assert (await asked(["/mlhub/users"], "r3", None))[0] == 200
    keycloak.silent = 500
    assert (await asked(churn, "r4", "churn"))[0] == 503
    assert (await asked(churn, "r5", None))[0] == 200
    keycloak.silent = 0
    status, said = await asked([], "r6", None)
    assert (status, said) == (403, "alice is no member of this hub any more.")


@pytest.mark.parametrize("session", ["lives", "is over"])
async def test_M7_a_run_waits_for_its_workspace_as_long_as_keycloak_is_silent(
    start_hub, keycloak, session
):
    """Its owner may have lost the role since they were last asked about, however often it asks."""
    hub = await known_to(start_hub, keycloak, "/workspaces/churn/editor")
    if session == "is over":
        keycloak.sessions.clear()
        await hub.app.authenticator.ask_about(hub.user("alice"))
    hub.user("alice")._auth_refreshed -= 1000
    hub.app.authenticator._asked.clear()
    hub.app.authenticator._membership._asked.clear()
    lasting = {"refresh_seconds": 600}
    people = hub.app.authenticator._membership
    people._identity = people._identity.model_copy(update=lasting)
    hub.app.authenticator.auth_refresh_age = 600
    keycloak.people["alice"] = ["/mlhub/users"]
    keycloak.silent = 500
    for run in ("r1", "r2"):
        status, body = await reserve(hub, service("execution"), run=run, workspace="churn")
        assert (status, "does not say" in str(body)) == (503, True), body
    assert (await reserve(hub, service("execution"), run="r3"))[0] == 200
    keycloak.silent = 0
    assert (await reserve(hub, service("execution"), run="r4", workspace="churn"))[0] == 403


def test_a_volume_that_is_no_workspaces_is_not_taken_for_one():
    assert mounted(SHARED) == frozenset()
