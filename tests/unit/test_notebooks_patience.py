"""A real single-user server whose hub is away for some seconds; the hub is a double."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jupyterhub
import pytest
import requests

from tests.ports import free_port
from tests.unit.test_notebooks_activity import SOURCE, answers

ALICE = {"kind": "user", "name": "alice", "admin": False, "groups": [], "session_id": None}
TOKENS = ("token alices", "token servers")
ACCESS = "access:servers!user=alice"


@contextmanager
def a_hub(port: int) -> Iterator[list[str]]:
    """It knows the token `alices`; gives the paths that it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            known = self.path == "/hub/api" or self.headers["Authorization"] in TOKENS
            told = {**ALICE, "scopes": [ACCESS], "version": jupyterhub.__version__}
            body = json.dumps(told if known else {"message": "who?"})
            self.send_response(200 if known else 403)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(body.encode())

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield asked
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def hub_port() -> int:
    return free_port()


@pytest.fixture
def server(tmp_path: Path, hub_port: int) -> Iterator[str]:
    """The address of alice's server, as it is in the images."""
    config = tmp_path / "etc/jupyter_server_config.d"
    config.mkdir(parents=True)
    shipped = SOURCE.parents[2] / "jupyter/jupyter_server_config.json"
    (config / "mlhub.json").write_text(shipped.read_text())
    url = f"http://127.0.0.1:{free_port()}/user/alice/"
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "PYTHONPATH": str(SOURCE),
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"),
        "JUPYTER_CONFIG_PATH": str(config.parent),
        "JUPYTERHUB_API_TOKEN": "servers",
        "JUPYTERHUB_API_URL": f"http://127.0.0.1:{hub_port}/hub/api",
        "JUPYTERHUB_BASE_URL": "/",
        "JUPYTERHUB_SERVICE_PREFIX": "/user/alice/",
        "JUPYTERHUB_SERVICE_URL": url,
        "JUPYTERHUB_USER": "alice",
        "JUPYTERHUB_CLIENT_ID": "jupyterhub-user-alice",
        "JUPYTERHUB_OAUTH_ACCESS_SCOPES": json.dumps([ACCESS]),
        "JUPYTERHUB_OAUTH_CALLBACK_URL": "/user/alice/oauth_callback",
    }
    log = tmp_path / "log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "jupyterhub.singleuser", "--allow-root"],
            cwd=tmp_path,
            env=environment,
            stdout=stream,
            stderr=stream,
        )
    try:
        deadline = time.monotonic() + 120
        with a_hub(hub_port):
            while not answers(url + "api"):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(60)


def contents(server: str, token: str) -> int:
    with requests.Session() as session:
        session.trust_env = False
        headers = {"Authorization": f"token {token}"}
        return session.get(f"{server}api/contents", headers=headers, timeout=120).status_code


def test_T13_who_saves_while_the_hub_restarts_waits_and_is_let_in(server: str, hub_port: int):
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(contents, server, "alices")
        time.sleep(3)  # without a hub
        assert not answer.done()
        with a_hub(hub_port) as asked:
            assert answer.result(60) == 200
    assert "/hub/api/user" in asked


def test_a_stranger_is_refused_once_the_hub_says_so(server: str, hub_port: int):
    with a_hub(hub_port):
        assert contents(server, "nobodys") == 403
