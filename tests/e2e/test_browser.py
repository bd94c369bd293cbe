"""What the tests' own browser must not make of the machine that it is on. Needs no cluster."""

import contextlib
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from playwright.sync_api import Browser

LINK = "mlhub-test0"
ADDRESS = "192.0.2.1/32"  # RFC 5737: nobody's
AT_ONCE = 6
"""Connections that Chromium has to one server; further requests wait."""

ALL = """([url, count]) => Promise.all(Array.from({length: count}, (_, each) =>
  fetch(`${url}/${each}`).then(answer => answer.text(), String)))"""


class Slow(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    arrived = threading.Semaphore(0)
    go_on = threading.Event()

    def do_GET(self) -> None:
        if self.path != "/":
            self.arrived.release()
            self.go_on.wait(30)
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def slow() -> Iterator[str]:
    """The URL of a server that answers its first page at once, and others when told to."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def change_addresses() -> None:
    """As a pod does that starts and ends."""
    with contextlib.suppress(subprocess.CalledProcessError):
        subprocess.run(["ip", "link", "del", LINK], check=True, capture_output=True)
    subprocess.run(["ip", "link", "add", LINK, "type", "veth"], check=True)
    try:
        subprocess.run(["ip", "addr", "add", ADDRESS, "dev", LINK], check=True)
        subprocess.run(["ip", "link", "set", LINK, "up"], check=True)
        time.sleep(0.2)
    finally:
        subprocess.run(["ip", "link", "del", LINK], check=True)


def test_what_waits_for_a_connection_outlives_a_change_of_the_machines_addresses(
    browser: Browser, slow: str
):
    def change() -> None:
        for _ in range(AT_ONCE):
            assert Slow.arrived.acquire(timeout=30)
        change_addresses()
        time.sleep(0.5)
        Slow.go_on.set()

    page = browser.new_page()
    page.goto(slow)
    with ThreadPoolExecutor(1) as beside:
        changed = beside.submit(change)
        assert page.evaluate(ALL, [slow, AT_ONCE + 2]) == ["ok"] * (AT_ONCE + 2)
        changed.result()
    page.close()
