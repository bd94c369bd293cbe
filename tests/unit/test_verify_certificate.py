"""What `make verify` says of the certificate at a published address, by real handshakes."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mlhub.verify.certificate import DAY, judge
from mlhub.verify.checks import verify
from mlhub.verify.report import Failed, Line, Report, Warned
from tests.doubles.tls import Certificate, certificate
from tests.ports import free_port
from tests.unit.test_verify import NOWHERE

PUBLISHED = "https://jupyter.example.com"


class There(BaseHTTPRequestHandler):
    """Hub and Keycloak, as far as they answer; the person is never made."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def serving(shown: Certificate | None) -> Iterator[str]:
    """A server with that certificate, or of plain HTTP; its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), There) as server:
        server.daemon_threads = True
        if shown:
            server.socket = shown.context().wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"https://localhost:{server.server_port}"
        finally:
            server.shutdown()


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that trusts nobody's authority of its own and has no proxy."""
    for variable in ("SSL_CERT_FILE", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def trusting(monkeypatch: pytest.MonkeyPatch) -> Callable[[Certificate], Certificate]:
    """Sets SSL_CERT_FILE to a certificate's authority."""

    def trust(shown: Certificate) -> Certificate:
        monkeypatch.setenv("SSL_CERT_FILE", str(shown.authority))
        return shown

    return trust


def verified(url: str) -> list[Line]:
    """The lines of a report of a stack at one address, before there is a person."""
    report = Report(lambda _: None)
    verify(replace(NOWHERE, hub_url=url, keycloak_url=url), report)
    return [line for line in report.lines if line.what != "a person is made"]


def test_T12_a_certificate_that_browsers_take_is_one_check_and_the_rest_goes_on(trusting, tmp_path):
    with serving(trusting(certificate(tmp_path))) as url:
        first, second = verified(url)
    assert (first.what, first.outcome) == (f"the certificate of {url}", "ok")
    assert (second.what, second.outcome) == ("hub and Keycloak answer", "ok")


@pytest.mark.parametrize(
    ("days", "outcome", "said"),
    [(5, "warning", "in 5 days"), (2, "failed", "in 48 hours"), (20, "ok", "")],
)
def test_T12_a_certificate_that_ends_soon_is_told_and_the_rest_is_tried(
    trusting, tmp_path, days, outcome, said
):
    with serving(trusting(certificate(tmp_path, left=timedelta(days=days)))) as url:
        first, second = verified(url)
    assert first.outcome == outcome
    assert said in first.said
    assert second.outcome == "ok"


def test_T12_an_expired_certificate_fails_before_anything_is_tried(trusting, tmp_path):
    with serving(trusting(certificate(tmp_path, left=timedelta(hours=-1)))) as url:
        first, second = verified(url)
    assert first.outcome == "failed"
    assert first.said.startswith("it has expired; browsers warn people away. Renew it")
    assert second.outcome == "failed", "nothing else is asked over it"


def test_T12_a_certificate_for_another_name_fails(trusting, tmp_path):
    other = certificate(tmp_path, name="other.example.com", address="192.0.2.7")
    with serving(trusting(other)) as url:
        first, _ = verified(url)
    assert first.outcome == "failed"
    assert "for another name (Hostname mismatch" in first.said
    assert "'localhost'" in first.said


def test_T12_a_certificate_of_an_unknown_authority_fails_and_says_how_it_is_made_known(tmp_path):
    with serving(certificate(tmp_path)) as url:
        first, _ = verified(url)
    assert first.outcome == "failed"
    assert "it is not trusted (unable to get local issuer certificate)" in first.said
    assert "by the authorities of this machine" in first.said
    assert "SSL_CERT_FILE" in first.said


@pytest.mark.parametrize("there", [True, False])
def test_T12_an_address_without_https_fails(there):
    with contextlib.ExitStack() as stack:
        port = free_port()
        url = stack.enter_context(serving(None)) if there else f"https://localhost:{port}"
        first, _ = verified(url)
    assert first.outcome == "failed"
    why = "WRONG_VERSION_NUMBER" if there else "Connection refused"
    assert first.said.startswith(f"{url} does not answer (")
    assert why in first.said


def test_T12_a_job_says_that_it_does_not_meet_the_certificate():
    with serving(None) as url:
        via = {PUBLISHED: url.replace("https", "http")}
        report = Report(lambda _: None)
        verify(replace(NOWHERE, hub_url=PUBLISHED, keycloak_url=PUBLISHED, via=via), report)
    assert [line.outcome for line in report.lines[:2]] == ["not tried", "ok"]
    assert "`make verify` looks" in report.lines[0].said


def test_T12_the_way_leads_through_the_proxy_that_browsers_use(trusting, tmp_path, monkeypatch):
    asked = []

    class Proxy(There):
        def do_CONNECT(self) -> None:
            asked.append(self.path)
            self.send_error(403)

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{server.server_port}")
        first, _ = verified(PUBLISHED)
        server.shutdown()
    monkeypatch.setenv("HTTPS_PROXY", "socks5://127.0.0.1:9")
    assert verified(PUBLISHED)[0].outcome == "not tried"
    assert asked[0] == "jupyter.example.com:443"
    assert "does not answer (Tunnel connection failed: 403" in first.said


@pytest.mark.parametrize(
    ("life", "left", "outcome"),
    [
        (90, 15, None),
        (90, 13.9, Warned),
        (90, 2.9, Failed),
        (7, 2.4, None),
        (7, 1.7, Warned),
        (7, 0.6, Failed),
        (1, 0.3, None),
    ],
)
def test_T12_one_that_lives_for_days_alone_is_not_late_for_all_of_its_life(life, left, outcome):
    now = 1_800_000_000.0
    expected = pytest.raises(outcome) if outcome else contextlib.nullcontext()
    with expected:
        judge(life * DAY, now + left * DAY, now)


def test_a_warning_is_no_failure_and_is_in_the_last_line():
    report = Report(lambda _: None)
    with report.check("first"):
        raise Warned("it will not hold for long")
    with report.check("second"):
        pass
    assert report.works()
    assert report.sentence() == "The stack works: 2 checks in 0 s; warnings: 1."
    assert '"outcome": "warning"' in report.as_json()
