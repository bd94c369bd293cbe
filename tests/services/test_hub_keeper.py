"""What the hub does by itself: removed members, idle and old servers; and what it writes down."""

import json
from datetime import datetime, timedelta
from typing import Any

import pytest
from aiohttp import web

from mlhub.admission import Holding, Size
from mlhub.hub import audit
from mlhub.hub.keeper import why_it_stops
from mlhub.hub.settings import parse
from tests.services.hub import IDENTITY, PROFILES, Hub, until
from tests.services.test_hub_spawn import RUNNING, start

LIMITS = {
    "profiles": {"standard": {"idle_timeout": 600}, "gpu": {"max_age": 7200}},
    "gpu": {"max_age": 86400},
}
SETTINGS = parse({"identity": IDENTITY, **LIMITS})


def share(profile: str = "standard", gpu: int = 0) -> Holding:
    return Holding("alice/", "alice", Size(1, 1, gpu), frozenset(), profile=profile)


@pytest.mark.parametrize(
    ("held", "idle", "age", "why"),
    [
        (share(), 599, 1e6, ""),
        (share(), 600, 600, "It was idle for 600 s; its profile allows 600 s."),
        (share("other"), 1e6, 1e6, ""),
        (share("other", gpu=1), 0, 86399, ""),
        (share("other", gpu=1), 0, 86400, "It ran for 86400 s; 86400 s is the most."),
        (share("gpu", gpu=1), 0, 7200, "It ran for 7200 s; 7200 s is the most."),
        (share("gpu"), 0, 7199, ""),
    ],
)
def test_V4_a_profile_has_its_own_idle_limit_and_a_GPU_server_an_age(held, idle, age, why):
    assert why_it_stops(held, idle, age, SETTINGS) == why


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
    return await start_hub(
        {"hub": config, "singleuser": {"profileList": PROFILES}, "custom": {"mlhub": LIMITS}}
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
    await alice.get("/hub/oauth_login?next=/hub/home")
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
    hub.user("alice")._auth_refreshed -= 2.1
    keycloak.people["alice"] = ["/mlhub/users", "/mlhub/admins"]
    await keeper._ask_about_members()
    assert len(set(keycloak.sessions) - before) == 1, "Keycloak was asked once"
    assert hub.user("alice").admin, "and its answer is kept"
    await keeper._ask_about_members()
    assert len(set(keycloak.sessions) - before) == 1, "which holds for a while"
    hub.user("alice")._auth_refreshed -= 2.1
    keycloak.people["alice"] = []
    await keeper._ask_about_members()
    await until(lambda: not kubernetes.kept["pods"])
    await until(lambda: audited("server.stop"))


async def test_nobody_else_is_asked_about_while_keycloak_is_silent(hub, alice, keycloak):
    await ready(hub, alice)
    user = hub.user("alice")
    user._auth_refreshed -= 2.1
    keycloak.silent = 500
    assert not await hub.app.authenticator.ask_about(user)
    keycloak.silent = 0
    assert await hub.app.authenticator.ask_about(user)


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
    assert "its profile allows 600 s" in line["why"]


async def test_the_trail_tells_who_logged_in_asked_started_and_stopped(
    hub, audited, alice, keycloak, kubernetes
):
    async with hub.browser() as stranger:
        keycloak.at_the_browser = "mallory"
        await stranger.get("/hub/oauth_login")
    await start(alice, profile="huge")
    kubernetes.refuse = lambda kind, item: "exceeded quota: x" if kind == "pods" else None
    hub.wait_for_refusals(30)
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
