"""What the keycloak plug-in decides by itself; tests/engine holds it to a real server."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from bootstrap.plugins import keycloak_admin
from bootstrap.plugins.keycloak import Keycloak, login
from bootstrap.plugins.keycloak_admin import Admin, ConflictError, NotFoundError, at
from bootstrap.plugins.keycloak_links import ClientServiceAccountRole, GetClient
from bootstrap.plugins.keycloak_objects import (
    MARK,
    Client,
    Group,
    Realm,
    User,
    duration,
    same_duration,
    seconds,
)
from bootstrap.plugins.schema import Call, PluginError, ResourceType
from bootstrap.plugins.values import UNKNOWN

TYPES = Keycloak().types
CALL = Call(urn="urn:pulumi:local::mlhub::keycloak:index/group:Group::users")
PASSWORD = "correct horse"
CLIENT = {
    "realmId": "mlhub",
    "clientId": "jupyterhub",
    "accessType": "CONFIDENTIAL",
    "standardFlowEnabled": True,
    "validRedirectUris": ["http://localhost:30888/hub/oauth_callback"],
}


class Server:
    """A stand-in for `Admin`: answers by verb and path, and keeps what was sent."""

    def __init__(self, **answers: Any):
        self.answers = {key.replace("_", " ", 1): value for key, value in answers.items()}
        self.sent: list[tuple[str, str, Any]] = []

    def __call__(self) -> Any:
        return self

    def _answer(self, verb: str, path: str, body: Any = None) -> Any:
        self.sent.append((verb, path, body))
        answer = self.answers.get(f"{verb} {path}")
        if isinstance(answer, Exception):
            raise answer
        return answer

    def get(self, path: str, **query: Any) -> Any:
        return self._answer("GET", path, query)

    def post(self, path: str, body: Any) -> Any:
        return self._answer("POST", path, body)

    def put(self, path: str, body: Any = None) -> None:
        self._answer("PUT", path, body)

    def delete(self, path: str, body: Any = None) -> None:
        self._answer("DELETE", path, body)


def answers(pairs: dict[str, Any]) -> Server:
    server = Server()
    server.answers = pairs
    return server


def checked(resource: ResourceType, given: dict[str, Any]) -> dict[str, Any]:
    assert resource.check(given) == []
    return {**given, **resource.defaults(given)}


# Shapes


@pytest.mark.parametrize(
    ("text", "total"), [("5m", 300), ("1h30m", 5400), ("90s", 90), ("0s", 0), ("24h0m0s", 86400)]
)
def test_durations_are_those_of_go(text: str, total: int) -> None:
    assert seconds(text) == total
    assert same_duration(duration(total), text)


def test_two_ways_to_write_a_duration_are_no_change() -> None:
    realm = TYPES["keycloak:index/realm:Realm"]
    inputs = checked(realm, {"realm": "mlhub", "accessTokenLifespan": "5m"})
    assert realm.diff({**inputs, "accessTokenLifespan": "5m0s"}, inputs) == {}


def test_the_order_of_a_set_is_no_change() -> None:
    client = TYPES["keycloak:openid/client:Client"]
    inputs = checked(client, {**CLIENT, "validRedirectUris": ["http://a", "http://b"]})
    state = {**inputs, "validRedirectUris": ["http://b", "http://a"]}
    assert client.diff(state, inputs) == {}


def test_what_the_server_decides_is_no_drift_and_what_the_program_says_is() -> None:
    client = TYPES["keycloak:openid/client:Client"]
    inputs = checked(client, dict(CLIENT))
    state = {**inputs, "clientSecret": "the server's", "name": "by hand", "fullScopeAllowed": False}
    assert set(client.diff(state, inputs)) == {"fullScopeAllowed"}


def test_a_setting_that_is_taken_out_of_the_program_is_taken_back() -> None:
    client = TYPES["keycloak:openid/client:Client"]
    inputs = checked(client, dict(CLIENT))
    changes = client.diff({**inputs, "pkceCodeChallengeMethod": "S256"}, inputs)
    assert changes["pkceCodeChallengeMethod"].kind == "delete"


def test_the_first_password_is_given_once() -> None:
    """A person's own password is not drift (as with the official plug-in)."""
    user = TYPES["keycloak:index/user:User"]
    inputs = checked(user, {"realmId": "r", "username": "alice", "initialPassword": {"value": "x"}})
    assert user.diff({**inputs, "initialPassword": {"value": "y"}}, inputs) == {}


def test_another_realm_is_another_object() -> None:
    group = TYPES["keycloak:index/group:Group"]
    inputs = {"realmId": "new", "name": "users"}
    assert group.diff({"realmId": "old", "name": "users"}, inputs)["realmId"].replace


@pytest.mark.parametrize(
    ("token", "given", "named"),
    [
        ("openid/client:Client", {**CLIENT, "accessType": "SECRET"}, "accessType"),
        ("openid/client:Client", {**CLIENT, "validRedirectUris": []}, "validRedirectUris"),
        ("openid/client:Client",
         {**CLIENT, "accessType": "PUBLIC", "serviceAccountsEnabled": True},
         "serviceAccountsEnabled"),
        ("openid/client:Client", {**CLIENT, "pkceCodeChallengeMethod": "s256"},
         "pkceCodeChallengeMethod"),
        ("index/realm:Realm", {"realm": "r", "ssoSessionIdleTimeout": "3600"},
         "ssoSessionIdleTimeout"),
        ("index/user:User", {"realmId": "r", "username": "Alice"}, "username"),
        ("index/user:User",
         {"realmId": "r", "username": "alice", "initialPassword": {"password": "x"}},
         "initialPassword"),
        ("openid/groupMembershipProtocolMapper:GroupMembershipProtocolMapper",
         {"realmId": "r", "name": "n", "claimName": "c"}, "clientId"),
        ("openid/audienceProtocolMapper:AudienceProtocolMapper",
         {"realmId": "r", "name": "n", "clientId": "c"}, "includedClientAudience"),
    ],
)  # fmt: skip
def test_a_mistake_is_refused_before_anything_is_made(
    token: str, given: dict[str, Any], named: str
) -> None:
    assert [failure.property for failure in TYPES[f"keycloak:{token}"].check(given)] == [named]


@pytest.mark.parametrize("token", TYPES)
def test_unknown_values_pass_every_check(token: str) -> None:
    inputs = {name: UNKNOWN for name, p in TYPES[token].inputs.items() if p.required or p.named}
    if token.endswith("Mapper"):
        inputs["clientId"] = UNKNOWN
    if "Audience" in token:
        inputs["includedCustomAudience"] = UNKNOWN
    assert TYPES[token].check(inputs) == []


# What is there already


def test_an_object_that_others_made_is_refused_and_left_alone() -> None:
    server = answers(
        {
            "POST /realms/mlhub/groups": ConflictError("exists"),
            "GET /realms/mlhub/groups": [{"id": "g1", "name": "users", "attributes": {}}],
        }
    )
    with pytest.raises(PluginError) as refusal:
        Group(server).create({"realmId": "mlhub", "name": "users"}, CALL)
    assert f"take it over first with `{CALL.import_command('mlhub/g1')}`" in str(refusal.value)
    assert [verb for verb, _, _ in server.sent] == ["POST", "GET"]


def test_what_a_killed_run_made_is_taken_up_again() -> None:
    found = {"id": "g1", "name": "users", "path": "/users", "attributes": {MARK: [CALL.urn]}}
    server = answers(
        {
            "POST /realms/mlhub/groups": ConflictError("exists"),
            "GET /realms/mlhub/groups": [found],
            "GET /realms/mlhub/groups/g1": found,
        }
    )
    told: list[str] = []
    call = Call(CALL.urn, told.append)
    made = Group(server).create({"realmId": "mlhub", "name": "users"}, call)
    assert (made.id, made.state["path"]) == ("g1", "/users")
    assert "from an earlier run of this stack" in told[0]


def test_the_mark_of_another_stack_is_not_ours() -> None:
    found = {"id": "g1", "name": "users", "attributes": {MARK: ["urn:pulumi:prod::mlhub::…"]}}
    server = answers(
        {
            "POST /realms/mlhub/groups": ConflictError("exists"),
            "GET /realms/mlhub/groups": [found],
        }
    )
    with pytest.raises(PluginError, match="was not made by this stack"):
        Group(server).create({"realmId": "mlhub", "name": "users"}, CALL)


def test_a_user_is_recognised_by_its_id_and_gets_its_password_again() -> None:
    """The first run may have died between the user and its password reaching the state."""
    inputs = {"realmId": "mlhub", "username": "alice", "initialPassword": {"value": PASSWORD}}
    ours = User(Server()).derived_id(inputs, CALL.urn)
    server = answers(
        {
            "POST /realms/mlhub/partialImport": ConflictError("exists"),
            "GET /realms/mlhub/users": [{"id": ours, "username": "alice"}],
            f"GET /realms/mlhub/users/{ours}": {"id": ours, "username": "alice"},
        }
    )
    User(server).create(checked(User(server), inputs), CALL)
    reset = [body for verb, path, body in server.sent if path.endswith("/reset-password")]
    assert reset == [{"type": "password", "value": PASSWORD, "temporary": False}]


def test_somebody_elses_user_keeps_their_password() -> None:
    inputs = {"realmId": "mlhub", "username": "alice", "initialPassword": {"value": PASSWORD}}
    server = answers(
        {
            "POST /realms/mlhub/partialImport": ConflictError("exists"),
            "GET /realms/mlhub/users": [{"id": "hers", "username": "alice"}],
        }
    )
    with pytest.raises(PluginError) as refusal:
        User(server).create(checked(User(server), inputs), CALL)
    assert PASSWORD not in str(refusal.value)
    assert not [path for verb, path, _ in server.sent if verb == "PUT"]


def test_a_new_client_has_nothing_on_that_the_program_leaves_out() -> None:
    given = {k: v for k, v in CLIENT.items() if k != "standardFlowEnabled"}
    body = Client(Server()).body(checked(Client(Server()), given), CALL.urn, {})
    assert body["standardFlowEnabled"] is False
    assert body["directAccessGrantsEnabled"] is False
    assert (body["publicClient"], body["bearerOnly"]) == (False, False)


def test_an_update_keeps_what_others_set() -> None:
    there = {"id": "r", "realm": "r", "smtpServer": {"host": "m"}, "attributes": {"frontend": "x"}}
    body = Realm(Server()).body(checked(Realm(Server()), {"realm": "r"}), CALL.urn, there)
    assert body["smtpServer"] == {"host": "m"}
    assert body["attributes"] == {"frontend": "x", MARK: CALL.urn}


def test_a_retained_realm_that_is_gone_is_gone() -> None:
    server = answers({"GET /realms/mlhub": NotFoundError("/realms/mlhub")})
    assert Realm(server).read("mlhub", {"realm": "mlhub"}) is None


# Links


def links(token: str, server: Server) -> Any:
    return type(TYPES[token])(server)  # type: ignore[call-arg]


GROUPS = "/realms/mlhub/users/u1/groups"


@pytest.mark.parametrize(("exhaustive", "gone"), [(True, {"by-hand"}), (False, set())])
def test_links_made_by_hand_go_only_where_the_list_is_exhaustive(
    exhaustive: bool, gone: set[str]
) -> None:
    server = answers({f"GET {GROUPS}": [{"id": "by-hand"}, {"id": "g1"}]})
    inputs = {"realmId": "mlhub", "userId": "u1", "groupIds": ["g1", "g2"],
              "exhaustive": exhaustive}  # fmt: skip
    made = links("keycloak:index/userGroups:UserGroups", server).create(inputs, CALL)
    assert made.id == "mlhub/u1"
    assert [path for verb, path, _ in server.sent if verb == "PUT"] == [f"{GROUPS}/g2"]
    assert {p.rsplit("/", 1)[1] for verb, p, _ in server.sent if verb == "DELETE"} == gone


def test_a_link_that_somebody_removed_is_drift() -> None:
    server = answers({f"GET {GROUPS}": []})
    resource = links("keycloak:index/userGroups:UserGroups", server)
    inputs = {"realmId": "mlhub", "userId": "u1", "groupIds": ["g1"], "exhaustive": True}
    read = resource.read("mlhub/u1", inputs)
    assert set(resource.diff(read.state, inputs)) == {"groupIds"}


def test_a_scope_that_the_realm_lacks_is_named_with_those_it_has() -> None:
    clients = "/realms/mlhub/clients/c1"
    server = answers(
        {
            f"GET {clients}/default-client-scopes": [],
            "GET /realms/mlhub/client-scopes": [{"name": "basic", "id": "s1"}],
        }
    )
    inputs = {"realmId": "mlhub", "clientId": "c1", "defaultScopes": ["basic", "basics"]}
    with pytest.raises(PluginError, match="no client scope basics; it has basic"):
        links("keycloak:openid/clientDefaultScopes:ClientDefaultScopes", server).create(
            inputs, CALL
        )


def test_no_name_can_leave_its_place_in_a_path() -> None:
    assert at("realms", "../master", "a/b") == "/realms/..%2Fmaster/a%2Fb"


# The connection


class Answers(BaseHTTPRequestHandler):
    """Says in turn what `script` holds for a path; the last answer stays."""

    script: dict[str, list[tuple[int, Any]]]

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        turns = self.script[self.path.split("?")[0]]
        status, body = turns.pop(0) if len(turns) > 1 else turns[0]
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:
        pass


TOKEN = {"access_token": "t", "refresh_token": "r", "expires_in": 60}
TOKENS = "/realms/master/protocol/openid-connect/token"
Serve = Callable[[dict[str, list[tuple[int, Any]]]], str]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    monkeypatch.setattr(keycloak_admin, "POLL_SECONDS", 0.05)
    servers = []

    def started(script: dict[str, list[tuple[int, Any]]]) -> str:
        handler = type("Scripted", (Answers,), {"script": script})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield started
    for server in servers:
        server.shutdown()


def admin(url: str, wait: int = 5, told: Callable[[str], None] = lambda message: None) -> Admin:
    config = {"url": url, "clientId": "admin-cli", "username": "admin", "password": PASSWORD}
    found = login(config)
    return Admin(type(found)(**{**vars(found), "wait_seconds": wait}), told)


def test_a_server_that_is_starting_is_waited_for(serve: Serve) -> None:
    url = serve(
        {
            TOKENS: [(503, {}), (200, TOKEN)],
            "/admin/realms/mlhub": [(503, {}), (200, {"realm": "mlhub"})],
        }
    )
    told: list[str] = []
    assert admin(url, told=told.append).get("/realms/mlhub") == {"realm": "mlhub"}
    assert told == [f"waiting for Keycloak at {url}/ (HTTP 503)"]


def test_a_server_whose_database_was_started_anew_is_waited_for(serve: Serve) -> None:
    url = serve(
        {
            TOKENS: [(500, {}), (200, TOKEN)],
            "/admin/realms/mlhub": [(500, {}), (200, {"realm": "mlhub"})],
        }
    )
    assert admin(url).get("/realms/mlhub") == {"realm": "mlhub"}


def test_a_fault_that_stays_is_said(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keycloak_admin, "FAULT_SECONDS", 0.2)
    url = serve({TOKENS: [(200, TOKEN)], "/admin/realms/mlhub": [(500, {})]})
    with pytest.raises(PluginError, match=r"did not answer within 0.2 s \(HTTP 500\)"):
        admin(url).get("/realms/mlhub")


def test_what_may_have_been_made_is_not_asked_for_twice(serve: Serve) -> None:
    url = serve({TOKENS: [(200, TOKEN)], "/admin/realms": [(500, {}), (201, {})]})
    with pytest.raises(PluginError, match="refused POST /realms with HTTP 500"):
        admin(url).post("/realms", {})


def test_an_unreachable_server_is_one_sentence_with_the_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keycloak_admin, "POLL_SECONDS", 0.05)
    with pytest.raises(PluginError) as refusal:
        admin("http://127.0.0.1:9", wait=0).get("/realms/mlhub")
    message = str(refusal.value)
    assert "http://127.0.0.1:9/ did not answer within 0 s (Connection refused)" in message
    assert "run the same command again" in message
    assert PASSWORD not in message


def test_all_requests_together_wait_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty resources on a dead server do not wait twenty times two minutes."""
    monkeypatch.setattr(keycloak_admin, "POLL_SECONDS", 0.05)
    server = admin("http://127.0.0.1:9", wait=1)

    def ask() -> None:
        with pytest.raises(PluginError):
            server.get("/realms/mlhub")

    start = time.monotonic()
    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - start < 15


def test_cancelling_ends_the_wait() -> None:
    server = admin("http://127.0.0.1:9", wait=200)
    threading.Timer(0.2, server.cancel).start()
    start = time.monotonic()
    with pytest.raises(PluginError, match="cancelled"):
        server.get("/realms/mlhub")
    assert time.monotonic() - start < 100


def test_a_wrong_password_is_said_without_the_password(serve: Serve) -> None:
    url = serve({TOKENS: [(401, {"error": "invalid_grant", "error_description": "Invalid"})]})
    with pytest.raises(PluginError, match="refused the log-in of admin in realm master") as refusal:
        admin(url).get("/realms/mlhub")
    assert PASSWORD not in str(refusal.value)


def test_a_token_that_a_restarted_server_forgot_is_replaced(serve: Serve) -> None:
    forgotten = {"error": "invalid_grant", "error_description": "Invalid refresh token"}
    url = serve(
        {
            TOKENS: [(200, TOKEN), (400, forgotten), (200, TOKEN)],
            "/admin/realms/mlhub": [(200, {}), (401, {}), (200, {"realm": "mlhub"})],
        }
    )
    server = admin(url)
    server.get("/realms/mlhub")
    assert server.get("/realms/mlhub") == {"realm": "mlhub"}


def test_keycloaks_own_words_reach_the_person(serve: Serve) -> None:
    refusal = {"errorMessage": "invalidPasswordMinLengthMessage"}
    url = serve({TOKENS: [(200, TOKEN)], "/admin/realms": [(400, refusal)]})
    with pytest.raises(PluginError, match="HTTP 400: invalidPasswordMinLengthMessage"):
        admin(url).post("/realms", {"realm": "x"})


def test_an_account_without_the_role_is_told_which(serve: Serve) -> None:
    url = serve({TOKENS: [(200, TOKEN)], "/admin/realms": [(403, {})]})
    with pytest.raises(PluginError, match="the role admin"):
        admin(url).post("/realms", {"realm": "x"})


@pytest.mark.parametrize(
    ("config", "said"),
    [({"clientId": "admin-cli"}, "no url"), ({"url": "http://x"}, "no clientId")],
)
def test_a_provider_without_an_address_or_client_says_so(config: dict[str, str], said: str) -> None:
    with pytest.raises(PluginError, match=said):
        login(config)


def test_a_password_is_in_no_representation_of_the_login() -> None:
    config = {"url": "http://x", "clientId": "admin-cli", "username": "a", "password": PASSWORD}
    assert PASSWORD not in repr(login(config))


def test_a_role_for_a_service_account_is_given_seen_and_taken() -> None:
    role = {"id": "r1", "name": "view-users"}
    mappings = "/realms/mlhub/users/u1/role-mappings/clients/c1"
    server = answers(
        {
            "GET /realms/mlhub/clients/c1/roles/view-users": role,
            f"GET {mappings}": [role, {"id": "r2", "name": "query-users"}],
        }
    )
    given = {
        "realmId": "mlhub",
        "serviceAccountUserId": "u1",
        "clientId": "c1",
        "role": "view-users",
    }
    links = ClientServiceAccountRole(server)
    made = links.create(given, CALL)
    assert (made.id, made.state) == ("u1/r1", given)
    assert ("POST", mappings, [role]) in server.sent
    assert links.read(made.id, given) == made
    assert links.read(made.id, given | {"role": "manage-users"}) is None
    links.delete(made.id, given)
    assert server.sent[-1] == ("DELETE", mappings, [role])


def test_a_client_that_is_there_is_found_by_its_name() -> None:
    server = answers({"GET /realms/mlhub/clients": [{"id": "c1", "clientId": "realm-management"}]})
    given = {"realmId": "mlhub", "clientId": "realm-management"}
    assert GetClient(server).call(given)["id"] == "c1"
    with pytest.raises(PluginError, match="realm mlhub has no client realm-management"):
        GetClient(answers({"GET /realms/mlhub/clients": []})).call(given)
    assert [f.property for f in GetClient(server).check({"realmId": "mlhub"})] == ["clientId"]
