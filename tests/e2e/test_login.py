"""Who gets in, seen from the browser, with the real Keycloak behind it."""

import re
import urllib.parse
from pathlib import Path

import requests
from playwright.sync_api import expect

from tests.e2e.platform import HUB_URL, KEYCLOAK_URL


def test_J1_the_published_address_leads_to_the_log_in_page(person, artifacts: Path):
    alice = person("alice")
    alice.open_log_in()
    assert alice.page.url.startswith(f"{KEYCLOAK_URL}/realms/mlhub/")
    alice.page.screenshot(path=artifacts / "log-in.png")


def test_T1_keycloak_sends_people_back_to_exactly_one_address_and_wants_pkce():
    start = requests.get(f"{HUB_URL}/hub/oauth_login", allow_redirects=False, timeout=30)
    asked = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(start.headers["Location"]).query))
    assert asked["redirect_uri"] == f"{HUB_URL}/hub/oauth_callback"
    assert asked["code_challenge_method"] == "S256"

    endpoint = start.headers["Location"].split("?")[0]

    def answer(**changed: str) -> requests.Response:
        return requests.get(endpoint, params=asked | changed, allow_redirects=False, timeout=30)

    assert answer().status_code == 200
    assert answer(redirect_uri=f"{HUB_URL}/hub/oauth_callback/../x").status_code == 400
    without_pkce = {k: v for k, v in asked.items() if not k.startswith("code_challenge")}
    refused = requests.get(endpoint, params=without_pkce, allow_redirects=False, timeout=30)
    assert "code_challenge_method" in urllib.parse.unquote(refused.headers.get("Location", ""))


def test_T1_nobody_gets_a_token_for_a_password_alone(kubectl):
    password = kubectl.secret("foundation", "demo-users")["alice"]
    client = kubectl.secret("jupyterhub", "jupyterhub-oidc-secret")
    answer = requests.post(
        f"{KEYCLOAK_URL}/realms/mlhub/protocol/openid-connect/token",
        data={"grant_type": "password", "username": "alice", "password": password, **client},
        timeout=30,
    )
    assert (answer.status_code, answer.json()["error"]) == (400, "unauthorized_client")


def test_T3_a_person_outside_the_group_is_turned_away_and_told_so(person):
    mallory = person("mallory")
    mallory.log_in()
    expect(mallory.page.locator("body")).to_contain_text(re.compile("not.*(allowed|member)", re.I))
    assert mallory.hub("GET", "user")["status"] == 403


def test_T3_admins_are_the_members_of_the_admin_group(person):
    assert person("carol").log_in().hub("GET", "user")["body"]["admin"] is True
    assert person("bob").log_in().hub("GET", "user")["body"]["admin"] is False


def test_T3_there_is_no_other_way_in():
    page = requests.get(f"{HUB_URL}/hub/login", timeout=30)
    assert 'name="password"' not in page.text
    posted = requests.post(
        f"{HUB_URL}/hub/login", data={"username": "carol", "password": "x"}, timeout=30
    )
    assert posted.status_code in (403, 404, 405)


def test_T3_log_out_ends_the_keycloak_session_too(person):
    bob = person("bob").log_in()
    bob.page.goto("/hub/logout")
    bob.open_log_in()  # Keycloak asks for the password again


def test_T3_the_hub_looks_people_up_and_may_change_nobody(kubectl):
    """With the client that it has for people whose own session cannot tell."""
    word = kubectl.secret("jupyterhub", "mlhub-hub")["mlhub.people.client_secret"]
    realm = f"{KEYCLOAK_URL}/realms/mlhub/protocol/openid-connect/token"
    given = {"grant_type": "client_credentials", "client_id": "mlhub-hub", "client_secret": word}
    token = requests.post(realm, data=given, timeout=30).json()["access_token"]
    people = f"{KEYCLOAK_URL}/admin/realms/mlhub/users"
    headers = {"Authorization": f"Bearer {token}"}

    def ask(path: str) -> requests.Response:
        return requests.get(f"{people}{path}", headers=headers, timeout=30)

    (alice,) = ask("?username=alice&exact=true").json()
    identity = alice["id"]
    assert ask(f"/{identity}").json()["enabled"] is True
    assert {group["path"] for group in ask(f"/{identity}/groups").json()} >= {"/mlhub/users"}
    assert ask("/00000000-0000-0000-0000-000000000000").status_code == 404
    changed = requests.put(
        f"{people}/{identity}", json={"enabled": False}, headers=headers, timeout=30
    )
    assert changed.status_code == 403
