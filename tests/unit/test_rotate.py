"""Rotation of one secret: what `up` is asked for, what is refused, and what starts anew."""

import json
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import pytest

from components import names
from components.platform import Platform
from tests.unit import recorder
from tests.unit.recorder import MADE_UP, STACKS, Monitor, platform, run, stack_file
from tools.rotate import PASSWORD, RotationError, Stack, rotate, value_in

URN = "urn:pulumi:local::mlhub::x$random:index/randomPassword:RandomPassword::"


class Asked(Stack):
    """A stack whose state is made up, and which keeps what `up` is asked for."""

    def __init__(self, *secrets: str):
        super().__init__("local", None)
        self.asked: list[tuple[str, ...]] = []
        self.state = [{"type": PASSWORD, "urn": URN + name} for name in secrets]

    def up(self, *options: str, unasked: bool = False) -> None:
        self.asked.append(("unasked", *options) if unasked else options)

    def resources(self, *, with_secrets: bool = False) -> list[dict[str, Any]]:
        return self.state


def test_one_secret_is_replaced_and_no_other() -> None:
    stack = Asked("hub-cookie", "hub-crypt-key")
    rotate(stack, "hub-cookie", ["--yes"])
    assert stack.asked == [("--replace", f"{URN}hub-cookie", "--yes")]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("hub-cokie", "SECRET is 'hub-cokie'; the stack local has: hub-cookie, postgres-mlflow"),
        ("user-alice", "user-alice is the first password of a person, who changes it in Keycloak"),
    ],
)
def test_what_cannot_be_rotated_is_said_and_nothing_is_touched(name: str, sentence: str) -> None:
    stack = Asked("hub-cookie", "postgres-mlflow", "user-alice")
    with pytest.raises(RotationError, match=sentence):
        rotate(stack, name, [])
    assert stack.asked == []


class Keycloak(BaseHTTPRequestHandler):
    """A Keycloak's administrator: logs in, and changes the password."""

    password = "old"
    refuses_with = 400

    def do_POST(self) -> None:
        asked = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        if asked["password"] == [Keycloak.password]:
            self._answer(200, {"access_token": "token", "expires_in": 60})
        else:
            self._answer(Keycloak.refuses_with, {"error": "invalid_grant"})

    def do_GET(self) -> None:
        self._answer(200, [{"id": "1"}])

    def do_PUT(self) -> None:
        given = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        Keycloak.password = given["value"]
        self._answer(204)

    def _answer(self, status: int, body: Any = None) -> None:
        content = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


class Administered(Asked):
    """A stack with a Keycloak of its own; whoever is asked says `answers`, then yes."""

    def __init__(self, url: str, *answers: str):
        super().__init__("keycloak-admin")
        self.url, self.answers = url, list(answers)
        self.made = self.held = "old"

    def up(self, *options: str, unasked: bool = False) -> None:
        super().up(*options, unasked=unasked)
        if "--yes" not in options and self.answers and self.answers.pop(0) == "no":
            raise RotationError("the update did not end")
        if "--target-replace" in options:
            self.made = f"{self.made}er"
        else:
            self.held = self.made

    def resources(self, *, with_secrets: bool = False) -> list[dict[str, Any]]:
        def entry(kind: str, name: str, **more: Any) -> dict[str, Any]:
            return {"type": kind, "urn": f"urn:pulumi:local::mlhub::{kind}::{name}", **more}

        sealed = {"plaintext": json.dumps({"password": self.held})}
        made = {"plaintext": json.dumps(self.made)}
        return [
            entry("kubernetes:core/v1:Secret", "keycloak-admin", inputs={"stringData": sealed}),
            entry("pulumi:providers:keycloak", "keycloak", inputs={"url": self.url}),
            self.state[0] | {"outputs": {"result": made}},
        ]


@pytest.fixture(params=[400, 401])
def keycloak(request: pytest.FixtureRequest) -> Iterator[str]:
    """Its URL. Versions differ in the status with which they refuse a password."""
    Keycloak.password, Keycloak.refuses_with = "old", request.param
    server = ThreadingHTTPServer(("127.0.0.1", 0), Keycloak)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


class Ended:
    returncode = 0


MADE = ("unasked", "--target-replace", f"{URN}keycloak-admin")


def test_keycloaks_administrator_gets_the_new_password_before_the_secret_has_it(
    keycloak: str,
) -> None:
    stack = Administered(keycloak)
    rotate(stack, "keycloak-admin", ["--yes"])
    assert stack.asked == [(*MADE, "--yes"), ("--yes",)]
    assert (Keycloak.password, stack.made, stack.held) == ("older", "older", "older")


def test_nothing_is_changed_at_keycloak_before_somebody_has_said_yes(keycloak: str) -> None:
    stack = Administered(keycloak, "no")
    with pytest.raises(RotationError):
        rotate(stack, "keycloak-admin", [])
    assert stack.asked == [MADE]
    assert (Keycloak.password, stack.made) == ("old", "old")


def test_a_rotation_whose_last_update_was_declined_goes_on_with_the_new_password(
    keycloak: str,
) -> None:
    """Keycloak refused the old one, which the Secret still had, however often one ran it again."""
    stack = Administered(keycloak, "yes", "no")
    with pytest.raises(RotationError):
        rotate(stack, "keycloak-admin", [])
    assert (Keycloak.password, stack.held) == ("older", "old")
    rotate(stack, "keycloak-admin", [])
    assert (Keycloak.password, stack.made, stack.held) == ("older", "older", "older")


def test_a_rotation_that_was_killed_before_keycloak_heard_of_it_goes_on(keycloak: str) -> None:
    stack = Administered(keycloak)
    stack.made = "newer"
    rotate(stack, "keycloak-admin", [])
    assert (Keycloak.password, stack.held, stack.asked) == ("newer", "newer", [()])


def test_a_keycloak_that_takes_neither_password_gets_a_sentence(keycloak: str) -> None:
    stack = Administered(keycloak)
    Keycloak.password = "a person's"
    with pytest.raises(RotationError, match="takes neither") as told:
        rotate(stack, "keycloak-admin", ["--yes"])
    assert "older" not in str(told.value)
    assert stack.held == "old"


def test_a_keycloak_that_does_not_answer_is_asked_again_later() -> None:
    stack = Administered("http://127.0.0.1:1")
    with pytest.raises(RotationError, match="no answer"):
        rotate(stack, "keycloak-admin", ["--yes"])


def test_an_update_with_a_password_that_keycloak_does_not_know_asks_it_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The update that makes the password ended in Keycloak's refusal of the provider."""
    token, called = "keycloak:openid/getClient:getClient", []
    answer = recorder._Outputs.call

    def call(self: Any, args: Any) -> dict[str, Any]:
        called.append(args.token)
        return answer(self, args)

    monkeypatch.setattr(recorder._Outputs, "call", call)
    run(lambda: Platform(stack_file("local")))
    assert token in called
    called.clear()
    ran: list[Any] = []
    with monkeypatch.context() as without_cli:
        without_cli.setattr(subprocess, "run", lambda *_, env, **__: ran.append(env) or Ended())
        Stack("local", None).up(unasked=True)
        Stack("local", None).up()
    monkeypatch.setenv(names.KEYCLOAK_UNASKED, ran[0][names.KEYCLOAK_UNASKED])
    run(lambda: Platform(stack_file("local")))
    assert token not in called
    assert names.KEYCLOAK_UNASKED not in ran[1]


def test_a_secret_is_read_as_the_program_and_as_a_refresh_leave_it() -> None:
    sealed = {"plaintext": '{"password": "old"}'}
    encoded = {"plaintext": '{"password": "b2xk"}'}
    assert value_in({"inputs": {"stringData": sealed}}, "password") == "old"
    assert value_in({"inputs": {"data": encoded}}, "password") == "old"


def referred(value: Any) -> set[str]:
    """The Secrets that a pod takes words from."""
    if isinstance(value, list):
        return {name for part in value for name in referred(part)}
    if not isinstance(value, dict):
        return set()
    named = {value["secretKeyRef"]["name"]} if "secretKeyRef" in value else set()
    named |= {value["secretName"]} if "secretName" in value else set()
    return named.union(*(referred(part) for part in value.values()))


@pytest.mark.parametrize("name", STACKS)
def test_V9_whatever_uses_a_generated_secret_carries_its_fingerprint(name: str) -> None:
    stack = platform(name)
    generated = {
        (s.plain["metadata"]["namespace"], s.plain["metadata"]["name"])
        for s in stack.of_type("kubernetes:core/v1:Secret")
        if MADE_UP in str(s.plain["stringData"])
    }
    looked_at = []
    for each in stack.registrations:
        if each.type.rpartition(":")[2] in ("Deployment", "StatefulSet"):
            template = each.plain["spec"]["template"]
            space = each.plain["metadata"]["namespace"]
            if {(space, used) for used in referred(template["spec"])} & generated:
                assert template["metadata"]["annotations"].get(names.FINGERPRINT), each.name
                looked_at.append(each.name)
    assert {"postgres", "mlflow", "execution"} <= set(looked_at)


def fingerprints(stack: Monitor) -> dict[str, str]:
    """By what starts anew when it changes."""
    values = stack.one("kubernetes:helm.sh/v3:Release", "jupyterhub").plain["values"]
    found = {part: values[part]["annotations"][names.FINGERPRINT] for part in ("hub", "proxy")}
    for each in stack.registrations:
        if each.type.rpartition(":")[2] in ("Deployment", "StatefulSet"):
            annotations = each.plain["spec"]["template"]["metadata"].get("annotations", {})
            if names.FINGERPRINT in annotations:
                found[each.name] = annotations[names.FINGERPRINT]
    return found


def test_V9_another_secret_is_another_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprints(platform("local"))
    monkeypatch.setattr(recorder, "MADE_UP", f"{MADE_UP}-anew")
    after = fingerprints(run(lambda: Platform(stack_file("local"))))
    assert {"hub", "proxy", "postgres", "mlflow", "execution", "workspaces"} <= set(before)
    assert set(after) == set(before)
    assert [name for name in before if after[name] == before[name]] == []
