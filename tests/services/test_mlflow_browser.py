"""MLflow's page through the hub's proxy: log-in by the Hub, and what its cookie is worth."""

import asyncio
import time
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import requests

from mlhub.hub.tokens import CLIENT
from mlhub.mlflow.browser import AUTHORIZE, CALLBACK, COOKIE, PATH
from mlhub.mlflow.hub import Hub as HubApi
from mlhub.mlflow.people import REMEMBERED_SECONDS
from tests.services import mlflow_server as real
from tests.services.hub import logged_in
from tests.services.test_hub_tokens import MLFLOW

PAGE = {"Accept": "text/html,*/*", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "none"}
DATA = {"Accept": "*/*", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "same-origin"}
CREATE = f"{PATH}/ajax-api/2.0/mlflow/experiments/create"
ME = f"{PATH}/ajax-api/2.0/mlflow/users/current"


class Visitor:
    """Somebody at a browser that sends the hub's name for the host, as its proxy passes it on."""

    def __init__(self, server: real.Server):
        self._url = server.url
        self.session = requests.Session()

    def open(self, path: str, headers: dict[str, str] = PAGE, **how: Any) -> requests.Response:
        method = how.pop("method", "GET")
        return self.session.request(
            method,
            self._url + path,
            headers={"Host": "localhost:30888", **headers},
            allow_redirects=False,
            timeout=30,
            **how,
        )

    def state(self, wanted: str = f"{PATH}/") -> str:
        """Of a log-in that begins."""
        asked = dict(parse_qsl(urlsplit(self.open(wanted).headers["Location"]).query))
        return asked["state"]

    def log_in(self, hub: real.HubDouble, token: str, wanted: str = f"{PATH}/") -> "Visitor":
        hub.codes["a-code"] = token
        back = self.open(f"{CALLBACK}?code=a-code&state={self.state(wanted)}")
        assert (back.status_code, back.headers["Location"]) == (302, wanted)
        return self


@pytest.fixture
def visitor(server: real.Server) -> Visitor:
    return Visitor(server)


@pytest.fixture
def alice(visitor: Visitor, hub_double: real.HubDouble) -> Visitor:
    return visitor.log_in(hub_double, hub_double.person("alice"))


def test_J3_who_opens_the_page_is_sent_to_the_hub_and_comes_back_logged_in(visitor, hub_double):
    asked = urlsplit(visitor.open(f"{PATH}/?x=1").headers["Location"])
    assert (asked.netloc, asked.path) == ("", AUTHORIZE), "on the address the browser came by"
    query = dict(parse_qsl(asked.query))
    assert query["client_id"] == CLIENT
    assert (query["redirect_uri"], query["response_type"]) == (CALLBACK, "code")
    visitor.log_in(hub_double, hub_double.person("alice"), f"{PATH}/?x=1")
    page = visitor.open(f"{PATH}/")
    assert (page.status_code, "<title>MLflow</title>" in page.text) == (200, True)
    assert 'src="static-files/' in page.text, "what the page loads is found below it"
    me = visitor.open(ME, DATA)
    assert (me.json()["user"]["username"], me.json()["user"]["is_admin"]) == ("alice", False)


def test_the_page_without_its_slash_is_the_page(visitor):
    answer = visitor.open(PATH)
    assert (answer.status_code, answer.headers["Location"]) == (307, f"{PATH}/")


def test_the_cookie_is_sealed_narrow_and_out_of_reach_of_scripts(alice):
    (cookie,) = (c for c in alice.session.cookies if c.name == COOKIE)
    assert "token-of-" not in cookie.value
    assert cookie.path == PATH
    assert cookie.has_nonstandard_attr("HttpOnly")
    assert cookie.get_nonstandard_attr("SameSite") == "lax"
    assert [c.name for c in alice.session.cookies] == [COOKIE], "the log-in's own cookie is gone"


def test_where_the_hub_has_tls_the_cookie_is_for_tls_alone():
    from mlhub.mlflow.browser import Browser

    browser = Browser(HubApi("http://hub"), "https://jupyter.example.com", "key")
    assert "Secure" in browser.log_in("/", "").headers["Set-Cookie"]


@pytest.mark.parametrize("tampering", ["another state", "no cookie", "made-up cookie", "twice"])
def test_a_log_in_counts_once_and_in_the_browser_that_began_it(
    visitor, server, hub_double, tampering
):
    """Or somebody could be logged in as somebody else without knowing."""
    hub_double.codes["a-code"] = hub_double.person("mallory")
    state = visitor.state()
    if tampering == "another state":
        state = Visitor(server).state()
    elif tampering == "no cookie":
        visitor.session.cookies.clear()
    elif tampering == "made-up cookie":
        state = "mine"
        visitor.session.cookies.set(f"mlhub-mlflow-state-{state}", "L2V2aWw=")
    else:
        assert visitor.open(f"{CALLBACK}?code=a-code&state={state}").status_code == 302
        visitor.session.cookies.clear()
    answer = visitor.open(f"{CALLBACK}?code=a-code&state={state}")
    assert (answer.status_code, "Try again" in answer.text) == (400, True)
    assert COOKIE not in answer.headers.get("Set-Cookie", "")


def test_a_code_that_the_hub_does_not_know_logs_nobody_in(visitor, hub_double):
    answer = visitor.open(f"{CALLBACK}?code=unknown&state={visitor.state()}")
    assert answer.status_code == 403
    hub_double.status = 503
    try:
        answer = visitor.open(f"{CALLBACK}?code=any&state={visitor.state()}")
    finally:
        hub_double.status = None
    assert answer.status_code == 503


@pytest.mark.parametrize("wanted", ["//evil.example.com/", "/\\evil.example.com", "/@evil"])
def test_a_log_in_leads_back_to_mlflow_and_nowhere_else(visitor, hub_double, wanted):
    hub_double.codes["a-code"] = hub_double.person("alice")
    back = visitor.open(f"{CALLBACK}?code=a-code&state={visitor.state(PATH + wanted)}")
    assert back.headers["Location"].startswith(f"{PATH}/")


def test_a_cookie_of_ones_own_making_is_none(visitor):
    visitor.session.cookies.set(COOKIE, "token-of-alice", path=PATH)
    assert visitor.open(f"{PATH}/").headers["Location"].startswith(AUTHORIZE)
    assert visitor.open(ME, DATA).status_code == 401


def test_the_cookie_is_worth_something_through_the_hub_alone(alice, server):
    cookie = alice.session.cookies.get(COOKIE)
    answer = requests.get(
        f"{server.url}/ajax-api/2.0/mlflow/users/current", cookies={COOKIE: cookie}, timeout=30
    )
    assert answer.status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example.com"},
        {"Origin": "http://localhost:1234"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_another_page_can_neither_change_nor_read_anything(alice, headers, method):
    path = CREATE if method == "POST" else ME
    answer = alice.open(path, DATA | headers, method=method, json={"name": "theirs"})
    assert (answer.status_code, "Another page" in answer.text) == (403, True)


def test_mlflows_own_page_changes_things_and_a_link_from_elsewhere_opens_it(alice):
    own = DATA | {"Origin": "http://localhost:30888"}
    made = alice.open(CREATE, own, method="POST", json={"name": f"by hand {time.monotonic_ns()}"})
    assert made.status_code == 200
    assert alice.open(f"{PATH}/", PAGE | {"Sec-Fetch-Site": "cross-site"}).status_code == 200


def test_log_out_at_the_hub_counts_within_ten_seconds(visitor, hub_double):
    token = hub_double.person("lou")
    visitor.log_in(hub_double, token)
    assert visitor.open(ME, DATA).status_code == 200
    del hub_double.owners[token]
    time.sleep(REMEMBERED_SECONDS + 0.5)
    gone = visitor.open(ME, DATA)
    assert (gone.status_code, "load the page again" in gone.text) == (401, True)
    assert visitor.open(f"{PATH}/").headers["Location"].startswith(AUTHORIZE)


def test_M2_a_program_outside_the_cluster_uses_the_same_address_with_its_token(server, hub_double):
    """As a laptop does: `MLFLOW_TRACKING_URI=<hub>/services/mlflow`."""
    token = hub_double.person("paula")
    search = f"{PATH}/api/2.0/mlflow/experiments/search"
    assert server.ask(search, token, {"max_results": 1})[0] == 200
    assert server.ask(search, body={"max_results": 1})[0] == 401
    assert server.ask(search, "made-up", {"max_results": 1})[0] == 401


async def test_J3_the_real_hub_logs_people_in_to_mlflow_without_a_question(start_hub, keycloak):
    hub = await start_hub(
        MLFLOW,
        {
            "hub": {
                "loadRoles": {
                    "user": {"scopes": ["self", "access:services!service=mlflow"]},
                }
            }
        },
    )
    keycloak.at_the_browser = "alice"
    query = {"client_id": CLIENT, "redirect_uri": CALLBACK, "response_type": "code", "state": "s"}
    async with hub.browser() as browser:
        await logged_in(browser)
        async with browser.get(AUTHORIZE, params=query, allow_redirects=False) as asked:
            back = urlsplit(asked.headers["Location"])
        async with browser.get("/hub/home") as home:
            assert 'href="/services/mlflow/"' in await home.text()
        assert back.path == CALLBACK
        code = dict(parse_qsl(back.query))["code"]

        mlflow = HubApi(f"{hub.url}/hub/api", "45" * 32)
        thief = HubApi(f"{hub.url}/hub/api", "wrong")
        assert await asyncio.to_thread(thief.exchange, code, CALLBACK) is None
        token = await asyncio.to_thread(mlflow.exchange, code, CALLBACK)
        assert await asyncio.to_thread(mlflow.exchange, code, CALLBACK) is None
        person = await asyncio.to_thread(mlflow.bearer, token)
        assert (person.name, person.admin) == ("alice", False)

        async with browser.get("/hub/logout", allow_redirects=False):
            pass
        assert await asyncio.to_thread(mlflow.bearer, token) is None
