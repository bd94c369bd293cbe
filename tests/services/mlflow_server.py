"""The real MLflow server on loopback, started as the Deployment starts it, and a Hub for it to ask.

Only the database (SQLite) and, unless a test brings S3, the place of artifacts (a folder) differ.
"""

import json
import os
import subprocess
import sys
import threading
import time
import tomllib
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from components import mlflow_server

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "images/packages/mlhub"
START_SECONDS = 120
HUB_TOKEN = "MLflow's own token"


class _ManyAtOnce(ThreadingHTTPServer):
    request_queue_size = 128
    """As the real Hub's: with Python's 5, connections that come at once wait a second and more."""


class HubDouble:
    """Answers `/hub/api/mlhub/person` as our Hub does, with whatever is in `owners` by token."""

    def __init__(self) -> None:
        self.owners: dict[str, dict[str, Any]] = {}
        self.codes: dict[str, str] = {}
        """The token for each log-in's code."""
        self.asked = 0
        self.status: int | None = None
        """Answers every request with this one, as a Hub in trouble would."""
        double = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                double.asked += 1
                token = self.headers.get("Authorization", "").removeprefix("Bearer ")
                owner = double.owners.get(token)
                if self.path != "/hub/api/mlhub/person" or owner is None:
                    self._answer(403, {})
                else:
                    self._answer(200, owner)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                asked = dict(urllib.parse.parse_qsl(body))
                token = double.codes.pop(asked["code"], None)
                of_mlflow = asked["client_secret"] == HUB_TOKEN
                if self.path != "/hub/api/oauth2/token" or token is None or not of_mlflow:
                    self._answer(400, {"error": "invalid_grant"})
                else:
                    self._answer(200, {"access_token": token, "token_type": "Bearer"})

            def _answer(self, status: int, what: Any) -> None:
                body = json.dumps(what).encode()
                self.send_response(double.status or status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = _ManyAtOnce(("127.0.0.1", 0), Handler)
        self.api = f"http://127.0.0.1:{self._server.server_address[1]}/hub/api"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def person(self, name: str, *, admin: bool = False, **workspaces: str) -> str:
        """A token of theirs; `workspaces` are their roles by slug."""
        token = f"token-of-{name}"
        self.owners[token] = {"name": name, "admin": admin, "workspaces": workspaces}
        return token

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Server:
    def __init__(self, url: str, process: "subprocess.Popen[bytes]", log: Path):
        self.url = url
        self.process = process
        self.folder = log.parent
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text()

    def ask(
        self, path: str, token: str | None = None, body: Any = None, **headers: str
    ) -> tuple[int, str]:
        """Status and body of one request, a POST where there is a body."""
        request = urllib.request.Request(  # noqa: S310
            self.url + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", **headers},
        )
        if token is not None:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()


def installed(folder: Path) -> Path:
    """What pip writes beside the package, so that `mlflow server` finds its application."""
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    info = folder / f"mlhub-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Name: mlhub\nVersion: {project['version']}\n")
    lines = [
        line
        for group, points in project["entry-points"].items()
        for line in (f"[{group}]", *(f"{name} = {value}" for name, value in points.items()))
    ]
    (info / "entry_points.txt").write_text("\n".join(lines))
    return folder


@contextmanager
def running(
    folder: Path,
    port: int,
    hub_api: str,
    *,
    destination: str | None = None,
    hub_url: str = "http://localhost:30888",
    extra: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """MLflow on 127.0.0.1:`port` with its data in `folder`."""
    database = f"sqlite:///{folder}/mlflow.db"
    config = folder / mlflow_server.AUTH_CONFIG_FILE
    config.write_text(mlflow_server.auth_config(database))
    command = mlflow_server.server_command(
        database=database,
        destination=destination or f"file://{folder}/artifacts",
        hosts=[f"127.0.0.1:{port}", urllib.parse.urlsplit(hub_url).netloc],
        hub_url=hub_url,
        port=port,
    )
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MLFLOW_", "AWS_", "JUPYTERHUB_"))
    }
    environment |= mlflow_server.environment(hub_api=hub_api, hub_url=hub_url, config=str(config))
    environment |= {
        "HOME": str(folder),
        "PYTHONPATH": f"{PACKAGE / 'src'}:{installed(folder)}",
        "MLFLOW_AUTH_ADMIN_PASSWORD": "a password of the bootstrap",
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "a key of the bootstrap",
        "JUPYTERHUB_API_TOKEN": HUB_TOKEN,
        **(extra or {}),
    }
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = Server(f"http://127.0.0.1:{port}", process, log)
    try:
        _wait(server)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()


def _wait(server: Server) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            raise AssertionError(f"MLflow ended:\n{server.log}")
        try:
            if server.ask("/health") == (200, "OK"):
                return
        except OSError:
            pass
        time.sleep(0.2)
    raise AssertionError(f"MLflow did not start in {START_SECONDS} s:\n{server.log}")
