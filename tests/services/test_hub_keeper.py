"""What the hub does by itself: removed members, idle and old servers; and what it writes down."""

import asyncio
import html
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from mlhub.admission import Holding, Size
from mlhub.hub import audit, stops
from mlhub.hub.endings import Use, ending
from mlhub.hub.settings import parse
from tests.services.hub import IDENTITY, PROFILES, Hub, logged_in, until
from tests.services.test_hub_spawn import NOTEBOOK, RUNNING, start

LIMITS = {
    "profiles": {
        "standard": {"idle_timeout": 600},
        "gpu": {"max_age": 7200},
        "gpu-node": {"each_node": True, "idle_timeout": 1200},
    },
    "gpu": {"max_age": 86400, "idle_timeout": 1800},
    "idle_timeout": 3600,
}
SETTINGS = parse({"identity": IDENTITY, **LIMITS})
REFRESH = 600
"""Seconds for which what Keycloak has said holds; longer than any of these tests."""
LONG_AGO = 2 * REFRESH + 1
"""After so many the keeper asks again."""


def share(profile: str = "standard", gpu: int = 0) -> Holding:
    return Holding("alice/", "alice", Size(1, 1, gpu), frozenset(), profile=profile)


@pytest.mark.parametrize(
    ("held", "use", "seconds", "why"),
    [
        (share(), Use(1e6, 599), 1, "It was idle for 10 min; 10 min is the most."),
        (share("other"), Use(1e6, 3599), 1, "It was idle for 60 min; 60 min is the most."),
        (share("other", gpu=1), Use(86399, 0), 1, "It ran for 24 h; 24 h is the most."),
        (share("gpu", gpu=1), Use(7200, 0), 0, "It ran for 2 h; 2 h is the most."),
        (share("gpu"), Use(7199, 0), 1, "It ran for 120 min; 2 h is the most."),
        (share("gpu-node--n1", 1), Use(9, 1199), 1, "It was idle for 20 min; 20 min is the most."),
        (share("gpu--n1", 1), Use(9, 3599), 1, "It was idle for 60 min; 60 min is the most."),
        (share("x", 1), Use(9, 0, 1799), 1, "Its GPU was not used for 30 min; 30 min is the most."),
        (share("x", 1), Use(9, 3590, 1700), 10, "It was idle for 60 min; 60 min is the most."),
        (share("x", 0), Use(9, 0, 1e6), 3600, "It was idle for 0 s; 60 min is the most."),
        (share("x", 1), Use(9, 0, None), 3600, "It was idle for 0 s; 60 min is the most."),
    ],
)
def test_V4_the_first_limit_that_a_server_meets_ends_it_and_is_said(held, use, seconds, why):
    found = ending(held, use, SETTINGS)
    assert found
    assert (found.seconds, found.why) == (seconds, why)
    shown = f"This server stops in 14 minutes. {why} {found.keep}"
    assert len(shown) <= 140, "the lab cuts what is longer"


def test_a_hub_without_limits_ends_nothing():
    assert ending(share(gpu=1), Use(1e9, 1e9, 1e9), parse({"identity": IDENTITY})) is None


@pytest.fixture
async def hub(start_hub: Any, serve: Any, kubernetes: Any) -> Hub:
    """A hub whose pods lead to a server that answers."""
    server = web.Application()

    async def up(request: web.Request) -> web.Response:
        return web.json_response({"version": "1"})

    server.router.add_get("/user/alice/api", up)
    port = int((await serve(server)).rsplit(":", 1)[1])
    kubernetes.then = lambda pod: RUNNING
    config = {"config": {"KubeSpawner": {"port": port}}}
    mlhub = {"identity": {"refresh_seconds": REFRESH}, **LIMITS}
    return await start_hub(
        {"hub": config, "singleuser": {"profileList": PROFILES}, "custom": {"mlhub": mlhub}}
    )


async def ready(hub: Hub, alice: Any) -> Any:
    """Alice's server, once it runs."""
    assert (await start(alice))[0] in (201, 202)
    await until(lambda: hub.user("alice").spawner.ready)
    return hub.user("alice").spawner


async def test_T3_a_removed_members_servers_stop_at_the_next_refresh(
    hub, alice, keycloak, kubernetes, audited
):
    await ready(hub, alice)
    token = {"Authorization": f"token {hub.user('alice').new_api_token()}"}
    keycloak.people["alice"] = ["/elsewhere"]
    hub.user("alice")._auth_refreshed = None
    async with hub.browser() as server:
        report = {"last_activity": datetime.now().astimezone().isoformat()}
        await server.post("/hub/api/users/alice/activity", json=report, headers=token)
    await until(lambda: not kubernetes.kept["pods"])
    await until(lambda: audited("server.stop"))
    (line,) = audited("server.stop")
    assert (line["by"], "no longer a member" in line["why"]) == ("mlhub", True)
    assert "/user/alice/" not in hub.app.proxy.routes
    keycloak.people["alice"] = ["/mlhub/users"]
    await logged_in(alice)
    await ready(hub, alice)
    hub.app.authenticator.office.keeper._wake.set()
    await until(lambda: not hub.app.authenticator.office.keeper._wake.is_set())
    assert hub.user("alice").spawner.ready, "who is a member again keeps what runs"


async def test_T3_a_server_that_reports_nothing_is_no_way_to_stay(
    hub, alice, keycloak, kubernetes, audited
):
    await ready(hub, alice)
    keeper = hub.app.authenticator.office.keeper
    before = set(keycloak.sessions)
    hub.user("alice")._auth_refreshed -= LONG_AGO
    keycloak.people["alice"] = ["/mlhub/users", "/mlhub/admins"]
    await keeper._ask_about_members()
    assert len(set(keycloak.sessions) - before) == 1, "Keycloak was asked once"
    assert hub.user("alice").admin, "and its answer is kept"
    await keeper._ask_about_members()
    assert len(set(keycloak.sessions) - before) == 1, "which holds for a while"
    hub.user("alice")._auth_refreshed -= LONG_AGO
    keycloak.people["alice"] = []
    await keeper._ask_about_members()
    await until(lambda: not kubernetes.kept["pods"])
    await until(lambda: audited("server.stop"))


async def test_nobody_else_is_asked_about_while_keycloak_is_silent(hub, alice, keycloak):
    await ready(hub, alice)
    user = hub.user("alice")
    user._auth_refreshed -= LONG_AGO
    keycloak.silent = 500
    assert not await hub.app.authenticator.ask_about(user)
    keycloak.silent = 0
    assert await hub.app.authenticator.ask_about(user)


async def test_a_hub_that_ends_while_somebody_is_turned_out_ends(hub):
    keeper = hub.app.authenticator.office.keeper
    await asyncio.sleep(0.5)  # the first round is over
    keeper.look_now()
    async with asyncio.timeout(30):
        await keeper.stop()


@pytest.mark.parametrize("cause", ["silent", "over"])
async def test_T3_servers_go_on_when_keycloak_is_silent_or_the_session_there_is_over(
    hub, alice, keycloak, kubernetes, cause
):
    spawner = await ready(hub, alice)
    if cause == "silent":
        keycloak.silent = 500
    else:
        keycloak.sessions.clear()
    hub.user("alice")._auth_refreshed = None
    await alice.get("/hub/api/user", headers={"Referer": "/hub/home"})
    keeper = hub.app.authenticator.office.keeper
    keeper._wake.set()
    await until(lambda: not keeper._wake.is_set())
    assert spawner.ready
    assert kubernetes.kept["pods"]


@pytest.mark.parametrize("gone", ["deleted", "disabled", "removed"])
@pytest.mark.parametrize("known", ["at once", "later"])
async def test_T3_who_is_gone_loses_servers_also_when_no_session_of_theirs_can_tell(
    hub, alice, *, keycloak, kubernetes, audited, gone, known
):
    """At once: Keycloak ends the session with the account. Later: it had been too long before."""
    spawner = await ready(hub, alice)
    keeper = hub.app.authenticator.office.keeper
    keycloak.sessions.clear()
    if known == "later":
        await keeper_looks(hub, keeper)
        assert spawner.ready, "a session that was only too long"
        assert keycloak.looked_up == 1
        await keeper_looks(hub, keeper, 0)
        assert keycloak.looked_up == 1, "asked once for each refresh age"
    match gone:
        case "deleted":
            del keycloak.people["alice"]
        case "disabled":
            keycloak.disabled.add("alice")
        case "removed":
            keycloak.people["alice"] = ["/elsewhere"]
    hub.app.authenticator._membership._asked.clear()  # as if that were as long ago
    await keeper_looks(hub, keeper)
    await until(lambda: not kubernetes.kept["pods"])
    await until(lambda: audited("server.stop"))
    why = {"deleted": "is no more", "disabled": "is disabled", "removed": "no longer a member"}
    assert why[gone] in audited("server.stop")[0]["why"]


async def keeper_looks(hub: Hub, keeper: Any, refreshed: float = LONG_AGO) -> None:
    """The keeper's round, `refreshed` seconds after alice was asked about."""
    hub.user("alice")._auth_refreshed -= refreshed
    asked = hub.app.authenticator._asked
    asked["alice"] = asked.get("alice", 0.0) - refreshed
    await keeper._ask_about_members()


@pytest.mark.parametrize("fault", ["silent", "no right", "no client"])
async def test_T3_what_keycloak_does_not_tell_is_held_against_nobody(
    hub, alice, *, keycloak, kubernetes, fault, monkeypatch
):
    spawner = await ready(hub, alice)
    keycloak.sessions.clear()
    del keycloak.people["alice"]
    people = hub.app.authenticator._membership
    match fault:
        case "silent":
            keycloak.silent = 500
        case "no right":
            monkeypatch.setattr(people, "_token", "another's")
            monkeypatch.setattr(people, "_until", float("inf"))
        case "no client":
            monkeypatch.setattr(
                people, "_identity", people._identity.model_copy(update={"people_client": ""})
            )
    await keeper_looks(hub, hub.app.authenticator.office.keeper)
    await asyncio.sleep(0.2)
    assert spawner.ready
    assert kubernetes.kept["pods"]


async def test_V4_an_idle_server_is_culled_by_its_profiles_limit(hub, alice, kubernetes, audited):
    spawner = await ready(hub, alice)
    keeper = hub.app.authenticator.office.keeper
    await keeper._stop_servers()
    assert spawner.ready
    spawner.orm_spawner.last_activity -= timedelta(seconds=601)
    await keeper._stop_servers()
    await until(lambda: not kubernetes.kept["pods"])
    (line,) = audited("server.stop")
    assert (line["outcome"], line["by"]) == ("culled", "mlhub")
    assert line["why"] == "It was idle for 10 min; 10 min is the most."
    assert "server. It was idle for 10 min; 10 min is the most." in await told(alice, hub)
    await ready(hub, alice)
    assert not hub.user("alice").spawner.ended, "it has started again"


async def told(alice: Any, hub: Hub) -> str:
    """What the page of alice's server says of its end, once it has stopped."""
    await until(lambda: not hub.user("alice").spawner.active)
    async with alice.get("/hub/user/alice/lab") as page:
        (said,) = re.findall('role="alert">(.*?)</p>', await page.text())
    assert page.status == 424
    return html.unescape(said)


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (
            {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: x."},
            "Kubernetes gave the server up: The node was low on resource: x.",
        ),
        (
            {"phase": "Running", "reason": "OOMKilled", "exitCode": 137},
            "This server took more memory than it may, and Kubernetes ended it.",
        ),
        (
            {"phase": "Succeeded", "reason": "Completed", "exitCode": 0},
            "This server ended by itself, with the exit code 0.",
        ),
        (None, "The server's pod is gone from Kubernetes, as when its node is emptied or lost."),
    ],
)
async def test_a_server_that_kubernetes_ended_says_what_of(
    hub, alice, kubernetes, status, sentence
):
    spawner = await ready(hub, alice)
    pod = kubernetes.kept["pods"]["jupyter-alice"]
    if status is None:
        kubernetes.drop("pods", "jupyter-alice")
    else:
        ended = {key: status[key] for key in ("reason", "exitCode") if "exitCode" in status}
        of = [{**NOTEBOOK, "ready": False, "state": {"terminated": ended}}] if ended else None
        kubernetes.put("pods", pod | {"status": status | {"containerStatuses": of}})
    await until(lambda: seen(spawner) == status)
    await spawner.poll_and_notify()
    assert await told(alice, hub) == sentence


def seen(spawner: Any) -> Any:
    """The status of alice's pod as the hub knows it."""
    pod = spawner.pod_reflector.pods.get("jupyterhub/jupyter-alice")
    status = {**pod["status"]} if pod else None
    if status:
        status.pop("containerStatuses")
    return status


def test_a_pod_that_somebody_deletes_has_not_ended_by_itself():
    ended = {**NOTEBOOK, "ready": False, "state": {"terminated": {"exitCode": 143}}}
    pod = {
        "metadata": {"deletionTimestamp": "2026-11-30T10:00:00Z"},
        "status": {"phase": "Running", "containerStatuses": [ended]},
    }
    assert "is gone from Kubernetes" in stops.said("alice", "", "", pod)


def test_a_stop_names_nobody_but_the_owner():
    assert stops.said("alice", "alice", "", None) == ""
    assert stops.said("alice", "carol", "", None) == (
        "An administrator stopped this server, or a service of the hub's."
    )
    assert stops.said("alice", "jupyterhub-idle-culler", "", None) == (
        "The hub stopped this server, for it was idle, or ran, for longer than a server may."
    )
    assert stops.said("alice", "mlhub", "the account is disabled at Keycloak", None) == (
        "The hub stopped this server. The account is disabled at Keycloak."
    )


async def report(hub: Hub, **more: Any) -> tuple[int, Any]:
    """What alice's server tells the hub, and the answer."""
    now = datetime.now().astimezone().isoformat()
    body = {"servers": {"": {"last_activity": now, **more}}}
    headers = {"Authorization": f"token {hub.user('alice').new_api_token()}"}
    url = f"{hub.url}/hub/api/users/alice/activity"
    async with (
        aiohttp.ClientSession(headers=headers) as server,
        server.post(url, json=body) as answer,
    ):
        return answer.status, await answer.json()


async def test_V4_a_GPU_that_is_held_unused_ends_its_server_however_busy_and_warns_first(
    hub, alice, kubernetes, audited
):
    """The GPU is made up: a limit in the pod's manifest, and times as a server would report."""
    spawner = await ready(hub, alice)
    keeper, pods = hub.app.authenticator.office.keeper, hub.app.authenticator.office.desk.pods
    pod = kubernetes.kept["pods"]["jupyter-alice"]
    pod["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] = "1"
    pod["metadata"]["annotations"]["mlhub/profile"] = "x"
    kubernetes.tell("pods", "MODIFIED", pod)
    await until(lambda: [held.size.gpu for held in pods.items.values()] == [1])
    used = datetime.now().astimezone() - timedelta(seconds=800)
    assert await report(hub, gpu_used=used.isoformat()) == (200, {"ends": {}})
    used -= timedelta(seconds=700)
    _, answer = await report(hub, gpu_used=used.isoformat())
    said = answer["ends"][""]
    assert 290 <= said["seconds"] <= 300
    assert said["why"] == "Its GPU was not used for 25 min; 30 min is the most."
    assert said["keep"] == "A computation on the GPU keeps it."
    await keeper._stop_servers()
    assert spawner.ready
    used -= timedelta(seconds=400)
    assert (await report(hub, gpu_used=used.isoformat()))[0] == 200
    await keeper._stop_servers()
    await until(lambda: not kubernetes.kept["pods"])
    (line,) = audited("server.stop")
    assert (line["outcome"], "GPU was not used for 32 min" in line["why"]) == ("culled", True)


@pytest.mark.parametrize("wrong", ["yesterday", 7, None])
async def test_a_time_that_is_none_is_refused(hub, alice, wrong):
    await ready(hub, alice)
    status, body = await report(hub, gpu_used=wrong)
    assert (status, "a time in ISO 8601" in body["message"]) == (400, True)
    assert hub.user("alice").spawner.gpu_used is None


async def test_a_time_to_come_keeps_no_GPU(hub, alice):
    await ready(hub, alice)
    await report(hub, gpu_used="2999-01-01T00:00:00+00:00")
    assert hub.user("alice").spawner.gpu_used <= datetime.now(UTC).replace(tzinfo=None)


async def test_the_trail_tells_who_logged_in_asked_started_and_stopped(
    hub, audited, alice, keycloak, kubernetes
):
    async with hub.browser() as stranger:
        keycloak.at_the_browser = "mallory"
        await stranger.get("/hub/oauth_login")
    hub.wait_for_refusals(30)
    await start(alice, profile="huge")
    kubernetes.refuse = lambda kind, item: "exceeded quota: x" if kind == "pods" else None
    await start(alice)
    kubernetes.refuse = lambda kind, item: None
    await ready(hub, alice)
    xsrf = next(cookie for cookie in alice.cookie_jar if cookie.key == "_xsrf").value
    await alice.delete("/hub/api/users/alice/server", headers={"X-XSRFToken": xsrf})
    await until(lambda: audited("server.stop"))
    await alice.get("/hub/logout")
    told = [(line["event"], line["who"], line["outcome"]) for line in audited("")]
    assert told == [
        ("login", "alice", "admitted"),
        ("login", "mallory", "refused"),
        ("server.ask", "alice", "refused"),
        ("server.ask", "alice", "admitted"),
        ("server.start", "alice", "failed"),
        ("server.ask", "alice", "admitted"),
        ("server.start", "alice", "started"),
        ("server.stop", "alice", "stopped"),
        ("logout", "alice", "done"),
    ]
    assert "exceeded quota" in audited("server.start")[0]["why"]
    assert audited("server.stop")[0]["by"] == "alice"
    assert "no profile named 'huge'" in audited("server.ask")[0]["why"]


def deleted(browser: Any, name: str = "alice", token: str = "") -> Any:
    headers = {"Authorization": f"token {token}"} if token else {}
    return browser.delete(f"/hub/api/users/{name}/server", headers=headers)


async def test_V9_who_may_not_stop_a_server_is_not_in_its_trail(
    hub, alice, keycloak, kubernetes, audited
):
    spawner = await ready(hub, alice)
    keycloak.at_the_browser = "bob"
    async with hub.browser() as bob, hub.browser() as nobody:
        await logged_in(bob)
        token = hub.user("bob").new_api_token()
        assert (await deleted(nobody, token=token)).status == 404
        for name in ("alice", "nobody-of-that-name"):
            assert (await deleted(nobody, name)).status == 403, "names are not to be guessed"
    await ended_by_itself(hub, spawner, kubernetes)
    (line,) = audited("server.stop")
    assert (line["outcome"], "by" in line) == ("ended", False)


async def ended_by_itself(hub: Hub, spawner: Any, kubernetes: Any) -> None:
    kubernetes.drop("pods", "jupyter-alice")
    await until(lambda: not spawner.pod_reflector.pods)
    await spawner.poll_and_notify()


async def test_V9_who_tried_to_stop_a_server_did_not_when_it_ends_later(
    hub, alice, kubernetes, audited, monkeypatch
):
    spawner = await ready(hub, alice)

    async def out_of_reach(*of: Any) -> None:
        raise ConnectionError

    with monkeypatch.context() as for_now:
        for_now.setattr(hub.app.proxy, "delete_user", out_of_reach)
        await deleted(alice, token=hub.user("alice").new_api_token())
    assert spawner.ready
    await ended_by_itself(hub, spawner, kubernetes)
    (line,) = audited("server.stop")
    assert (line["outcome"], "by" in line) == ("ended", False)


async def test_V9_the_hub_stopped_what_it_is_stopping_when_its_owner_does(
    hub, alice, audited, monkeypatch
):
    spawner = await ready(hub, alice)
    go_on, delete_user = asyncio.Event(), hub.app.proxy.delete_user

    async def slow(*of: Any) -> None:
        await go_on.wait()
        await delete_user(*of)

    monkeypatch.setattr(hub.app.proxy, "delete_user", slow)
    spawner.orm_spawner.last_activity -= timedelta(seconds=601)
    await hub.app.authenticator.office.keeper._stop_servers()
    await until(lambda: spawner.pending == "stop")
    answer = await deleted(alice, token=hub.user("alice").new_api_token())
    assert answer.status == 202
    go_on.set()
    await until(lambda: audited("server.stop"))
    (line,) = audited("server.stop")
    assert (line["outcome"], line["by"]) == ("culled", "mlhub")


async def test_V9_the_trail_holds_no_secret(hub, alice, keycloak, capsys):
    audit.configure()
    await ready(hub, alice)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert len(lines) >= 2
    secret = [hub.user("alice").spawner.api_token, *keycloak.sessions, *keycloak._access]
    assert not [number for number, text in enumerate(secret) if text in "".join(lines)]
    for line in lines:
        assert {"time", "event", "who", "outcome"} <= json.loads(line).keys()


def test_a_long_text_is_cut_and_a_new_line_stays_inside_the_line(audited, capsys):
    audit.note("login", "a\nb", "refused", why="x" * 10_000)
    (line,) = audited("login")
    assert (line["who"], len(line["why"])) == ("a\nb", audit.LONGEST)
