"""The look-ups of the docker plug-in; tests/engine asks a real registry by the real CLI."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from bootstrap.plugins.docker import ACCEPT, Docker, GetRegistryImage
from bootstrap.plugins.schema import PluginError
from bootstrap.plugins.values import UNKNOWN

DIGEST = f"sha256:{'a' * 64}"
PASSWORD = "correct-horse-9"
Answer = Callable[[BaseHTTPRequestHandler], tuple[int, dict[str, str]]]


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], str]]:
    """`serve(answer)`: host:port of a registry that answers so."""
    servers = []

    def start(answer: Answer) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                code, headers = answer(self)
                self.send_response(code)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()

            def do_GET(self) -> None:
                self.do_HEAD()
                self.wfile.write(json.dumps({"token": "the-token"}).encode())

            def log_message(self, *args: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        servers.append(server)
        return f"127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def asking(host: str, **auth: Any) -> GetRegistryImage:
    package = Docker()
    given = {"address": f"http://{host}"} | (auth or {"authDisabled": True})
    package._config = {"registryAuth": json.dumps([given])}
    (function,) = package.functions.values()
    assert isinstance(function, GetRegistryImage)
    return function


def test_the_digest_is_that_of_the_index(serve: Callable[[Answer], str]) -> None:
    asked = []

    def answer(request: BaseHTTPRequestHandler) -> tuple[int, dict[str, str]]:
        asked.append((request.command, request.path, request.headers["Accept"]))
        return 200, {"Docker-Content-Digest": DIGEST}

    host = serve(answer)
    found = asking(host).call({"name": f"{host}/mlhub/hub:v1"})
    assert found["sha256Digest"] == DIGEST
    assert asked == [("HEAD", "/v2/mlhub/hub/manifests/v1", ACCEPT)]
    assert "image.index" in ACCEPT


def test_credentials_go_as_they_are_where_the_registry_takes_them(
    serve: Callable[[Answer], str],
) -> None:
    def answer(request: BaseHTTPRequestHandler) -> tuple[int, dict[str, str]]:
        ok = (
            request.headers["Authorization"] == "Basic cm9ib3QkbWxodWIrcHVsbDpjb3JyZWN0LWhvcnNlLTk="
        )
        return (200, {"Docker-Content-Digest": DIGEST}) if ok else (401, {})

    host = serve(answer)
    function = asking(host, username="robot$mlhub+pull", password=PASSWORD)
    assert function.call({"name": f"{host}/mlhub/hub:v1"})["id"] == DIGEST


def test_a_token_is_fetched_where_the_registry_wants_one(serve: Callable[[Answer], str]) -> None:
    seen = []

    def answer(request: BaseHTTPRequestHandler) -> tuple[int, dict[str, str]]:
        seen.append((request.path, request.headers["Authorization"].split()[0]))
        if request.path.startswith("/service/token"):
            return 200, {}
        if request.headers["Authorization"] == "Bearer the-token":
            return 200, {"Docker-Content-Digest": DIGEST}
        realm = f"http://{request.headers['Host']}/service/token"
        scope = "repository:mlhub/hub:pull"
        return 401, {"WWW-Authenticate": f'Bearer realm="{realm}",service="harbor",scope="{scope}"'}

    host = serve(answer)
    function = asking(host, username="robot", password=PASSWORD)
    assert function.call({"name": f"{host}/mlhub/hub:v1"})["id"] == DIGEST
    token = "/service/token?service=harbor&scope=repository%3Amlhub%2Fhub%3Apull"
    assert [(path, kind) for path, kind in seen] == [
        ("/v2/mlhub/hub/manifests/v1", "Basic"),
        (token, "Basic"),
        ("/v2/mlhub/hub/manifests/v1", "Bearer"),
    ]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (404, "/mlhub/hub:v1 is not in the registry http://127.0.0.1:"),
        (401, "does not let robot see"),
        (403, "does not let robot see"),
        (500, "answered HTTP 500 without a digest"),
        (200, "answered HTTP 200 without a digest"),
    ],
)
def test_what_the_registry_refuses_is_one_sentence(
    serve: Callable[[Answer], str], code: int, said: str
) -> None:
    host = serve(lambda request: (code, {}))
    function = asking(host, username="robot", password=PASSWORD)
    with pytest.raises(PluginError) as refusal:
        function.call({"name": f"{host}/mlhub/hub:v1"})
    assert said in str(refusal.value)
    assert PASSWORD not in str(refusal.value)


def test_a_registry_that_is_away_is_named(serve: Callable[[Answer], str]) -> None:
    with pytest.raises(PluginError) as refusal:
        asking("127.0.0.1:9").call({"name": "127.0.0.1:9/mlhub/hub:v1"})
    said = "the registry http://127.0.0.1:9 does not answer (Connection refused)"
    assert str(refusal.value) == said


def test_a_registry_without_an_entry_is_asked_by_https(serve: Callable[[Answer], str]) -> None:
    host = serve(lambda request: (200, {"Docker-Content-Digest": DIGEST}))
    package = Docker()
    (function,) = package.functions.values()
    with pytest.raises(PluginError, match=f"the registry https://{host} does not answer"):
        function.call({"name": f"{host}/mlhub/hub:v1"})


@pytest.mark.parametrize("name", ["alpine:3", "mlhub/hub:v1", "host.example/hub:v1 ", ""])
def test_a_name_without_a_registry_is_refused(name: str) -> None:
    with pytest.raises(PluginError, match="is required"):
        asking("localhost:5000").call({"name": name})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "name is missing"),
        ({"name": 3}, "a string is required"),
        ({"name": "x", "tag": "v1"}, "has no argument tag"),
    ],
)
def test_a_wrong_question_is_refused_by_name(arguments: dict[str, Any], said: str) -> None:
    (failure,) = asking("localhost:5000").check(arguments)
    assert said in failure.reason


@pytest.mark.parametrize(
    ("auth", "said"),
    [
        ([{"address": "harbor.example"}], "neither username and password nor authDisabled"),
        (UNKNOWN, "will be known only after"),
    ],
)
def test_a_provider_that_cannot_work_says_why(auth: Any, said: str) -> None:
    package = Docker()
    package._config = {"registryAuth": auth if auth is UNKNOWN else json.dumps(auth)}
    with pytest.raises(PluginError, match=said):
        package.registries()


def test_a_password_is_in_no_representation_of_a_registry() -> None:
    package = asking("localhost:5000", username="robot", password=PASSWORD)._package
    assert PASSWORD not in repr(package.registries())
