"""The way to a person's hub, from a server and from a laptop."""

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

import notebooks
from notebooks import login
from notebooks.connection import Connection, login_file
from notebooks.errors import NotebooksError, NotLoggedIn, Refused, Unreachable
from notebooks.login import log_in, log_out
from tests.doubles.tls import certificate
from tests.unit.test_verify_certificate import serving as tls_serving


class Answers(BaseHTTPRequestHandler):
    """Answers by path, and remembers what came."""

    said: dict[str, tuple[int, str]]
    seen: list[tuple[str, str, dict[str, str], bytes]]

    def answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.seen.append((self.command, self.path, dict(self.headers), self.rfile.read(length)))
        status, body = self.said[self.path.partition("?")[0]]
        self.send_response(status)
        if status == 302:
            self.send_header("Location", body)
        if status == 503:
            self.send_header("Retry-After", "7")
        self.send_header("Content-Length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    do_GET = do_POST = do_DELETE = answer  # noqa: N815

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def answers() -> Iterator[Any]:
    handler = type("Handler", (Answers,), {"said": {}, "seen": []})
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    handler.url = f"http://127.0.0.1:{server.server_port}"
    yield handler
    server.shutdown()
    server.server_close()
    thread.join()


def connected(answers: Any) -> Connection:
    return Connection(answers.url, "alice", "the-token")


def test_a_request_bears_the_token_and_gives_json(answers, tmp_path, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    answers.said["/hub/api/user"] = 200, '{"name": "alice"}'
    found = connected(answers).request("POST", "/hub/api/user", {"a": 1}, {"page": 2})
    assert found == {"name": "alice"}
    ((method, path, headers, body),) = answers.seen
    assert (method, path, json.loads(body)) == ("POST", "/hub/api/user?page=2", {"a": 1})
    assert headers["Authorization"] == "Bearer the-token"


def test_an_answer_without_a_body_is_none(answers):
    answers.said["/x"] = 204, ""
    assert connected(answers).request("DELETE", "/x") is None


@pytest.mark.parametrize(
    ("body", "kind", "sentence"),
    [
        ({"status": 403, "message": "No."}, "refused", "No."),
        ({"type": "quota", "detail": "Full."}, "quota", "Full."),
        ({"sentence": "You have 3 of 3 servers running."}, "refused", None),
    ],
)
def test_a_refusal_keeps_the_services_sentence(answers, body, kind, sentence):
    answers.said["/x"] = 429, json.dumps(body)
    with pytest.raises(Refused) as refusal:
        connected(answers).request("GET", "/x")
    assert (refusal.value.status, refusal.value.type) == (429, kind)
    assert str(refusal.value) == (sentence or body["sentence"])


def test_a_token_that_the_hub_does_not_know_says_how_to_log_in(answers):
    answers.said["/x"] = 403, '{"message": "Missing or invalid credentials."}'
    with pytest.raises(Refused, match="cli login --hub") as refusal:
        connected(answers).request("GET", "/x")
    assert refusal.value.type == "login"


def test_a_token_follows_no_redirect(answers):
    answers.said |= {"/x": (302, f"{answers.url}/elsewhere"), "/elsewhere": (200, "{}")}
    with pytest.raises(Unreachable, match="no hub"):
        connected(answers).request("GET", "/x")
    assert [path for _, path, _, _ in answers.seen] == ["/x"]


@pytest.mark.parametrize("page", ["<html>some router</html>", ""])
def test_what_is_no_hub_is_said_to_be_none(answers, page):
    answers.said["/x"] = 404 if not page else 200, page
    with pytest.raises(Unreachable, match="no hub"):
        connected(answers).request("GET", "/x")


def test_a_hub_that_restarts_is_unreachable_and_what_it_says_itself_is_a_refusal(answers):
    answers.said |= {
        "/page": (503, "<html>Service unavailable</html>"),
        "/words": (503, '{"message": "Keycloak does not answer."}'),
    }
    with pytest.raises(Unreachable, match="not there for the moment"):
        connected(answers).request("GET", "/page")
    with pytest.raises(Refused, match="Keycloak does not answer") as refusal:
        connected(answers).request("GET", "/words")
    assert refusal.value.after == 7, "as it says in Retry-After"


def test_a_hub_that_does_not_answer_is_unreachable_and_no_token_is_shown():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        connection = Connection(f"http://127.0.0.1:{closed.getsockname()[1]}", "a", "the-token")
        with pytest.raises(Unreachable, match="does not answer") as error:
            connection.request("GET", "/x")
    assert "the-token" not in f"{error.value!r}{connection!r}"


def test_an_authority_of_a_companys_own_is_named_and_taken_from_requests_bundle(
    tmp_path, monkeypatch
):
    shown = certificate(tmp_path)
    with tls_serving(shown) as url:
        connection = Connection(url, "alice", "the-token")
        monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
        with pytest.raises(Unreachable) as error:
            connection.request("GET", "/x")
        assert "certificate" in str(error.value)
        assert "REQUESTS_CA_BUNDLE" in str(error.value)
        assert "is the address right" not in str(error.value).lower()
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(shown.authority))
        assert connection.request("GET", "/x") == {}


@pytest.mark.parametrize("key", [" x", "a\nb", "\N{SNOWMAN}"])
def test_what_no_header_can_say_is_no_fault_of_the_network(answers, key):
    with pytest.raises(ValueError, match="header"):
        connected(answers).request("POST", "/x", {}, headers={"Idempotency-Key": key})
    assert not answers.seen


def test_what_json_cannot_say_is_no_fault_of_the_network(answers):
    with pytest.raises(ValueError, match="not JSON compliant"):
        connected(answers).request("POST", "/x", {"rate": float("nan")})
    assert not answers.seen


def test_in_a_server_requests_go_by_the_proxys_service():
    environ = {
        "JUPYTERHUB_API_TOKEN": "t",
        "JUPYTERHUB_USER": "alice",
        "JUPYTERHUB_BASE_URL": "/",
        "MLHUB_URL": "http://localhost:30888",
    }
    found = Connection.find(environ)
    assert (found.hub_url, found.user) == ("http://localhost:30888", "alice")
    assert found.reached_at == "http://proxy-public"


def test_without_a_login_the_sentence_says_how(tmp_path):
    environ = {"XDG_CONFIG_HOME": str(tmp_path)}
    with pytest.raises(NotLoggedIn, match="not logged in to a hub"):
        Connection.find(environ)
    file = login_file(environ)
    file.parent.mkdir()
    for wrong in ("", "[]", "{}", '"x"'):
        file.write_text(wrong)
        with pytest.raises(NotLoggedIn, match="is no log-in"):
            Connection.find(environ)
    file.write_text('{"hub_url": "http://hub", "user": "alice", "token": "t"}')
    assert Connection.find(environ) == Connection("http://hub", "alice", "t")


@pytest.fixture
def trading(answers):
    """A hub that trades tokens."""
    me = {"kind": "user", "name": "alice", "scopes": ["servers", "tokens"]}
    answers.said |= {
        "/hub/api/user": (200, json.dumps(me)),
        "/hub/api/users/alice/tokens": (201, '{"token": "the-new-one"}'),
        "/hub/api/mlhub/login": (204, ""),
    }
    return answers


def revoked(answers: Any) -> list[str]:
    return [
        headers["Authorization"] for method, _, headers, _ in answers.seen if method == "DELETE"
    ]


def test_where_a_log_in_cannot_be_kept_no_token_is_traded(trading, tmp_path):
    (tmp_path / "config").write_text("no folder")
    with pytest.raises(OSError, match="config"):
        log_in(trading.url, "pasted", tmp_path / "config/mlhub/login.json")
    assert {method for method, _, _, _ in trading.seen} <= {"GET"}


def test_a_new_token_that_could_not_be_kept_is_revoked_and_the_pasted_one_stays(
    trading, tmp_path, monkeypatch
):
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(login, "_keep", full)
    with pytest.raises(OSError, match="No space"):
        log_in(trading.url, "pasted", tmp_path / "login.json")
    assert revoked(trading) == ["Bearer the-new-one"]
    monkeypatch.undo()
    assert log_in(trading.url, "pasted", tmp_path / "login.json").token == "the-new-one"
    assert revoked(trading)[1:] == ["Bearer pasted"]
    assert [each.name for each in tmp_path.iterdir()] == ["login.json"]


def test_importing_the_package_brings_nothing_heavy():
    code = (
        "import sys, notebooks, notebooks.start; "
        "print(sorted({'requests', 'typer', 'rich', 'mlflow', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(next(iter(notebooks.__path__)) + "/..")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"


DOCUMENTED = {
    *("NotebookLauncher", "MLflowNotebookIntegration", "WorkspaceManager"),
    *("NotebookStatus", "NotebookSession", "NotebookTemplate", "NotebookMetadata"),
    *("NotebookSnapshot", "Workspace", "WorkspaceMember", "WorkspaceRole", "SharedResource"),
    "ResourceConfig",
}


def test_M1_every_documented_name_is_there_and_no_other():
    assert set(notebooks.__all__) == DOCUMENTED
    for name in DOCUMENTED:
        assert getattr(notebooks, name).__name__ == name
    with pytest.raises(AttributeError, match="Nothing"):
        notebooks.Nothing  # noqa: B018


def test_who_logs_out_while_the_hub_is_in_trouble_is_told_that_the_token_lives(trading, tmp_path):
    file = tmp_path / "login.json"
    log_in(trading.url, "pasted", file)
    trading.said["/hub/api/mlhub/login"] = (500, '{"message": "Internal Server Error"}')
    with pytest.raises(NotebooksError, match=r"Internal.*was not revoked.*/hub/token") as error:
        log_out(file)
    assert not file.exists()
    assert "removed here" in str(error.value)
    file.write_text(json.dumps({"hub_url": trading.url, "user": "alice", "token": "ended"}))
    trading.said["/hub/api/mlhub/login"] = (
        403,
        '{"message": "Missing or invalid credentials."}',
    )
    assert log_out(file).user == "alice"
