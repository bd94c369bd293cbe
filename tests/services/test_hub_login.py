"""Who gets in, and until when: the hub's own log-in against OpenID Connect."""

import asyncio
import html
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest
from jupyterhub import orm

from tests.services.hub import Hub, logged_in
from tests.services.keycloak import CLIENT_ID, Keycloak


@pytest.fixture
async def log_in(hub: Hub, keycloak: Keycloak) -> Any:
    """`await log_in(name)`: a browser in which somebody has just logged in."""
    browsers = []

    async def sit_down(name: str, status: int = 200) -> aiohttp.ClientSession:
        browsers.append(hub.browser())
        keycloak.at_the_browser = name
        async with browsers[-1].get("/hub/oauth_login?next=/hub/home") as page:
            assert page.status == status, await page.text()
            browsers[-1].page = await page.text()
        return browsers[-1]

    yield sit_down
    for browser in browsers:
        await browser.close()


async def whoami(browser: aiohttp.ClientSession) -> dict[str, Any] | int:
    """The hub's user behind this browser, or the status with which it is refused."""
    async with browser.get("/hub/api/user", headers={"Referer": "/hub/home"}) as answer:
        return await answer.json() if answer.status == 200 else answer.status


async def token_of(hub: Hub, name: str) -> dict[str, str]:
    """An API token of somebody's, as the header that carries it."""
    return {"Authorization": f"token {hub.user(name).new_api_token()}"}


async def next_refresh() -> None:
    await asyncio.sleep(1.1)


async def test_T3_a_member_logs_in_under_the_keycloak_name(hub, log_in):
    user = await whoami(await log_in("alice"))
    assert (user["name"], user["admin"]) == ("alice", False)
    assert user["groups"] == ["mlhub--users"]


async def test_T3_who_is_in_no_group_is_turned_away_and_can_take_another_account(
    hub, log_in, keycloak
):
    browser = await log_in("mallory", status=403)
    assert "not a member of a group that may use this hub (/mlhub/users" in browser.page
    assert browser.page.count("not a member of a group") == 1
    assert headings(browser.page) == ["You may not do this"]
    assert 'id="logout"' not in browser.page
    assert await whoami(browser) == 403
    assert not hub.app.db.query(orm.User).count()
    (leave,) = re.findall('<a href="([^"]*)">Log in with another account', browser.page)
    assert leave.startswith(f"{keycloak.address}/realms/mlhub/protocol/openid-connect/logout?")
    await browser.get(html.unescape(leave))
    (query,) = keycloak.ended
    assert query["post_logout_redirect_uri"] == f"{hub.url}/hub/login"
    keycloak.at_the_browser = "alice"
    await logged_in(browser)
    assert (await whoami(browser))["name"] == "alice"


@pytest.mark.parametrize(
    ("address", "status", "heading", "sentence"),
    [
        ("/hub/admin", 403, "You may not do this", "not authorized with current scopes"),
        ("/hub/nowhere", 404, "There is no such page", "The address leads nowhere on this hub"),
        ("/hub/spawn/nobody", 404, "There is no such page", "No access to resources"),
    ],
)
async def test_an_error_is_said_once_in_words_with_name_log_out_and_the_way_home(
    alice, *, address, status, heading, sentence
):
    async with alice.get(address) as page:
        text = await page.text()
    assert (page.status, headings(text), text.count(sentence)) == (status, [heading], 1), text
    assert "None" not in text
    assert '<span class="me-1">alice</span>' in text
    assert 'href="/hub/logout"' in text
    assert '<a href="/hub/home">Home</a>' in text


async def test_an_error_that_the_proxy_fetches_does_not_say_that_nobody_is_logged_in(hub):
    async with hub.browser() as proxy, proxy.get("/hub/error/503") as page:
        text = await page.text()
    assert headings(text) == ["This does not work for the moment"]
    assert "Your server appears to be down." in text
    assert 'id="login"' not in text


@pytest.mark.parametrize(
    ("path", "said", "loads_again"),
    [
        ("/hub/home", "it has just restarted", True),
        ("/user/alice/lab?x=/hub/", "Your server appears to be down.", False),
        ("/services/mlflow/?a=b", "The service mlflow does not answer.", False),
        ("/services/<b>/", "The service &lt;b&gt; does not answer.", False),
    ],
)
async def test_the_page_of_what_the_proxy_cannot_reach_says_what_it_is(
    hub, path, said, loads_again
):
    async with hub.browser() as proxy, proxy.get("/hub/error/503", params={"url": path}) as page:
        text = await page.text()
    assert headings(text) == ["This does not work for the moment"]
    assert said in text
    assert text.count("appears to be down") == (path.startswith("/user/"))
    assert ("location.replace" in text) is loads_again


def headings(page: str) -> list[str]:
    return [heading.strip() for heading in re.findall("<h1>(.*?)</h1>", page, re.DOTALL)]


async def test_T3_admins_are_the_members_of_the_admin_group_by_its_full_path(hub, log_in):
    assert (await whoami(await log_in("carol")))["admin"] is True
    assert (await whoami(await log_in("bob")))["admin"] is False


async def test_T3_an_admin_by_configuration_is_none(start_hub, keycloak):
    hub = await start_hub({"hub": {"config": {"Authenticator": {"admin_users": ["alice"]}}}})
    keycloak.at_the_browser = "alice"
    async with hub.browser() as browser:
        await logged_in(browser)
        assert (await whoami(browser))["admin"] is False


async def test_T3_a_name_allowed_by_configuration_is_no_way_around_the_groups(start_hub, keycloak):
    loose = {"allowed_users": ["mallory"], "allow_existing_users": True, "admin_users": ["mallory"]}
    hub = await start_hub({"hub": {"config": {"KeycloakAuthenticator": loose}}})
    keycloak.at_the_browser = "mallory"
    async with hub.browser() as browser, browser.get("/hub/oauth_login") as page:
        assert page.status == 403


@pytest.mark.parametrize("claim", ["/mlhub/users", {"0": "/mlhub/users"}, [["/mlhub/users"]]])
async def test_T3_a_groups_claim_that_is_no_list_of_paths_lets_nobody_in(log_in, keycloak, claim):
    keycloak.people["alice"] = claim
    browser = await log_in("alice", status=403)
    assert "a list of full group paths is required" in browser.page


async def test_T3_a_group_that_only_ends_alike_gives_no_access(log_in, keycloak):
    keycloak.people["alice"] = [
        "/evil/mlhub/users",
        "/mlhub--users",
        "mlhub/users",
        "/mlhub/users/x",
    ]
    await log_in("alice", status=403)


async def test_T1_the_code_flow_goes_by_pkce_to_the_one_redirect_uri(hub, keycloak):
    async with hub.browser() as browser:
        answer = await browser.get("/hub/oauth_login", allow_redirects=False)
    asked = parse_qs(urlsplit(answer.headers["Location"]).query)
    assert asked["code_challenge_method"] == ["S256"]
    assert asked["redirect_uri"] == [keycloak.redirect_uri]
    assert asked["scope"] == ["openid profile"]


async def test_T3_a_removed_member_loses_session_and_tokens_at_the_next_refresh(
    hub, log_in, keycloak
):
    browser = await log_in("alice")
    token = await token_of(hub, "alice")
    keycloak.people["alice"] = []
    await next_refresh()
    assert await whoami(browser) == 403
    async with hub.browser() as script, script.get("/hub/api/user", headers=token) as answer:
        assert answer.status == 403
    await log_in("alice", status=403)


async def test_T3_a_removed_admin_stays_a_member_and_is_an_admin_no_more(hub, log_in, keycloak):
    browser = await log_in("carol")
    keycloak.people["carol"] = ["/mlhub/users"]
    await next_refresh()
    user = await whoami(browser)
    assert (user["admin"], user["groups"]) == (False, ["mlhub--users"])


async def test_T3_a_session_that_is_over_at_keycloak_is_over_here(hub, log_in, keycloak, caplog):
    browser = await log_in("alice")
    keycloak.sessions.clear()
    await next_refresh()
    assert await whoami(browser) == 403
    async with browser.get("/hub/home") as page:
        assert page.url.path == "/hub/login"
    assert "Failed to get current user" not in caplog.text
    assert caplog.text.count("invalid_grant") == 1, "Keycloak is asked once about a dead session"
    assert (await whoami(await log_in("alice")))["name"] == "alice"


async def test_T3_an_admin_starts_no_server_for_a_removed_member(hub, log_in, keycloak):
    await log_in("alice")
    carol = await log_in("carol")
    keycloak.people["alice"] = []
    await next_refresh()
    headers = await token_of(hub, "carol")
    async with carol.post("/hub/api/users/alice/server", headers=headers) as answer:
        assert answer.status == 403


async def test_V4_a_busy_server_still_counts_when_its_owners_session_is_over(hub, log_in, keycloak):
    await log_in("alice")
    token = await token_of(hub, "alice")
    keycloak.sessions.clear()
    await next_refresh()
    soon = datetime.now(UTC) + timedelta(minutes=30)
    report = {"last_activity": soon.isoformat()}
    async with hub.browser() as server:
        url = "/hub/api/users/alice/activity"
        async with server.post(url, json=report, headers=token) as answer:
            assert answer.status == 200, await answer.text()
        async with server.get("/hub/api/user", headers=token) as answer:
            assert answer.status == 403, "a report of activity must open nothing else"
    assert hub.user("alice").last_activity == soon.replace(tzinfo=None)


async def test_log_out_ends_the_keycloak_session_without_a_question(hub, log_in, keycloak):
    browser = await log_in("alice")
    async with browser.get("/hub/logout") as page:
        assert page.status == 200
    (query,) = keycloak.ended
    assert query == {
        "client_id": CLIENT_ID,
        "id_token_hint": "id-of-alice",
        "post_logout_redirect_uri": f"{hub.url}/hub/login",
    }
    assert await whoami(browser) == 403


async def test_who_is_not_logged_in_is_not_sent_to_keycloak_to_log_out(hub, keycloak):
    async with hub.browser() as browser, browser.get("/hub/logout") as page:
        assert (page.status, page.url.path) == (200, "/hub/login")
    assert keycloak.ended == []


@pytest.mark.parametrize("fault", ["down", 500, 404])
async def test_a_keycloak_that_does_not_answer_is_said_on_a_page(start_hub, keycloak, fault):
    keycloak.silent = fault if isinstance(fault, int) else 0
    gone = {"custom": {"mlhub": {"identity": {"internal_url": "http://127.0.0.1:9"}}}}
    hub = await start_hub(*([gone] if fault == "down" else []))
    async with hub.browser() as browser, browser.get("/hub/oauth_login") as page:
        assert page.status == 503
        assert "Keycloak, which knows who may use this hub, does not answer" in await page.text()


async def test_a_silent_keycloak_leaves_sessions_alone_and_starts_nothing(
    hub, log_in, keycloak, audited
):
    hub.wait_for_refusals(30)
    browser = await log_in("alice")
    token = await token_of(hub, "alice")
    keycloak.silent = 502
    await next_refresh()
    assert (await whoami(browser))["name"] == "alice"
    async with hub.browser() as script:
        async with script.post("/hub/api/users/alice/server", headers=token) as answer:
            assert answer.status == 503
            assert "does not answer" in (await answer.json())["message"]
        (line,) = audited("server.ask")
        assert (line["outcome"], "does not answer" in line["why"]) == ("refused", True)
        keycloak.silent = 0
        hub.wait_for_refusals(1)
        async with script.post("/hub/api/users/alice/server", headers=token) as answer:
            assert answer.status in (201, 202), "it answers again, so servers start again"


async def test_T3_there_is_no_log_in_by_password(hub):
    async with hub.browser() as browser:
        async with browser.get("/hub/login") as page:
            text = await page.text()
            assert "Sign in with Keycloak" in text
            assert 'type="password"' not in text
        form = {"username": "alice", "password": "alice", "_xsrf": "x"}
        async with browser.post("/hub/login", data=form) as page:
            assert page.status == 403
