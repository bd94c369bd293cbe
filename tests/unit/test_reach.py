"""What a cluster stack uses and cannot reach is said with a way out, before anything is made."""

import http.server
import socket
import threading
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from components import reach
from components.config import Chart, Harbor, KeycloakServer
from tests.unit.recorder import stack_file


class Answers(http.server.BaseHTTPRequestHandler):
    """A server that answers each path with the status that a test gives it."""

    statuses: ClassVar[dict[str, int]] = {}

    def do_GET(self) -> None:
        self.send_response(self.statuses.get(self.path, 404))
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(Answers, "statuses", {})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@pytest.fixture
def silent() -> Iterator[str]:
    """An address that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def closed() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return f"http://127.0.0.1:{listening.getsockname()[1]}"


def chart(url: str) -> Chart:
    return Chart(repository=url, name="jupyterhub", version="4.4.0")


def keycloak(url: str) -> KeycloakServer:
    return KeycloakServer(url=url, client_id="pulumi")


def harbor(url: str) -> Harbor:
    return Harbor(url=url, username="admin", keep_tags=1, storage="1Gi")


def test_what_answers_is_no_matter(server):
    Answers.statuses = {"/index.yaml": 200, "/realms/mlhub": 200, "/api/v2.0/ping": 200}
    assert [*reach.chart_repository(chart(server))] == []
    assert [*reach.keycloak(keycloak(server), "mlhub")] == []
    assert [*reach.harbor(harbor(server))] == []


def test_T4_an_unreachable_chart_repository_names_both_ways_to_a_local_copy():
    url = closed()
    assert [*reach.chart_repository(chart(url))] == [
        f"hub.chart.repository is {url}, which does not answer (Connection refused); connect to "
        "it, or unpack chart jupyterhub 4.4.0 in a folder and name that: for a preview as "
        "MLHUB_HUB_CHART=<folder>, for `up` as hub.chart.path (the stack's charts in "
        "policies/limits.yaml have to know it)"
    ]


def test_a_realm_that_is_not_there_is_told_from_a_keycloak_that_is_not(server):
    (sentence,) = reach.keycloak(keycloak(server), "mlhub")
    assert sentence.startswith(f"identity.realm is mlhub, which the Keycloak at {server} does not")
    (sentence,) = reach.keycloak(keycloak(closed()), "mlhub")
    assert "which does not answer (Connection refused)" in sentence


def test_a_harbor_with_a_fault_is_said_with_its_status(server):
    Answers.statuses = {"/api/v2.0/ping": 503}
    (sentence,) = reach.harbor(harbor(server))
    assert "where no Harbor answers (503)" in sentence


def test_a_server_that_says_nothing_is_given_up_in_seconds(silent, monkeypatch):
    monkeypatch.setattr(reach, "CONNECT_SECONDS", 0.2)
    (sentence,) = reach.harbor(harbor(silent))
    assert "timed out" in sentence


def test_everything_that_prod_uses_is_asked(monkeypatch):
    asked: list[str] = []
    monkeypatch.setattr(reach, "refused", asked.append)
    assert [*reach.silences(stack_file("prod"))] == []
    assert asked == [
        "https://hub.jupyter.org/helm-chart/index.yaml",
        "https://keycloak.example.com/realms/mlhub",
        "https://harbor.example.com/api/v2.0/ping",
    ]
