"""A real Jupyter Server with real kernels and terminals: what computes keeps it active."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest
import requests
from jupyter_client.blocking.client import BlockingKernelClient
from websocket import create_connection

OPTIONS = (
    "--ip=127.0.0.1",
    "--port=0",
    "--no-browser",
    "--allow-root",
    "--IdentityProvider.token=secret",
)
SOURCE = Path(__file__).parents[2] / "images/packages/notebooks/src"


class Server:
    """A running server, asked as the hub and a browser would."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder = url, folder
        self.session = requests.Session()
        self.session.headers["Authorization"] = "token secret"
        self.session.trust_env = False

    def call(self, method: str, path: str, **body: object) -> dict:
        answer = self.session.request(method, self.url + path, json=body or None, timeout=60)
        answer.raise_for_status()
        return answer.json() if answer.content else {}

    def last_activity(self) -> datetime:
        """As the hub would hear of it. The question itself must not count."""
        text = self.call("GET", "api/status?no_track_activity=1")["last_activity"]
        return datetime.fromisoformat(text.replace("Z", "+00:00"))

    def active_since(self, before: datetime) -> datetime:
        """The last activity once it is later than that."""
        deadline = time.monotonic() + 60
        while (now := self.last_activity()) <= before:
            assert time.monotonic() < deadline, "nothing keeps the server active"
            time.sleep(0.2)
        return now

    def quiet(self) -> datetime:
        """The last activity once it has stopped moving by itself."""
        deadline = time.monotonic() + 60
        seen = self.last_activity()
        while time.monotonic() < deadline:
            time.sleep(3)  # some looks of the extension's, and what a busy machine tells late
            now = self.last_activity()
            if now == seen:
                return now
            seen = now
        raise AssertionError("the server never became quiet")

    def wait_for(self, path: str, ready) -> dict:
        deadline = time.monotonic() + 60
        while not ready(state := self.call("GET", f"{path}?no_track_activity=1")):
            assert time.monotonic() < deadline, state
            time.sleep(0.1)
        return state


def answers(url: str) -> bool:
    try:
        requests.get(url, timeout=60)
    except requests.ConnectionError:
        return False
    return True


def address_in(runtime: Path) -> str:
    """What the server has written down for others to find it; nothing while it has not."""
    try:
        (found,) = runtime.glob("jpserver-*.json")
        return str(json.loads(found.read_text())["url"])
    except ValueError:
        return ""


@contextmanager
def serve(
    folder: Path, *options: str, module: str = "jupyter_server", **environment: str
) -> Iterator[Server]:
    runtime, config = folder / "runtime", folder / "etc/jupyter_server_config.d"
    config.mkdir(parents=True)
    shipped = SOURCE.parents[2] / "jupyter/jupyter_server_config.json"
    (config / "mlhub.json").write_text(shipped.read_text())
    log = folder / "log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                module,
                "--ip=127.0.0.1",
                "--port=0",
                "--no-browser",
                "--allow-root",
                "--IdentityProvider.token=secret",
                *options,
            ],
            cwd=folder,
            env={
                **os.environ,
                "HOME": str(folder),
                "PYTHONPATH": str(SOURCE),
                "JUPYTER_RUNTIME_DIR": str(runtime),
                "JUPYTER_CONFIG_PATH": str(config.parent),
                "JUPYTERHUB_ACTIVITY_INTERVAL": "1",
                **environment,
            },
            stdout=stream,
            stderr=stream,
        )
    try:
        deadline = time.monotonic() + 120
        while "is running at" not in (text := log.read_text()):
            assert process.poll() is None, text
            assert time.monotonic() < deadline, text
            time.sleep(0.1)
        # It writes down where it is after it has said so.
        while not (url := address_in(runtime)) or not answers(url):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield Server(url, folder)
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            # Jupyter waits for its kernels, on a busy machine too long for a test.
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server as it is in the images."""
    with serve(tmp_path_factory.mktemp("server")) as running:
        yield running


@contextmanager
def kernel(server: Server) -> Iterator[tuple[str, BlockingKernelClient]]:
    """A kernel of the server, spoken to directly, so that no message passes the server's doors."""
    identity = server.call("POST", "api/kernels", name="python3")["id"]
    client = BlockingKernelClient()
    client.load_connection_file(str(server.folder / f"runtime/kernel-{identity}.json"))
    client.start_channels(hb=False)

    def heard(state: dict) -> bool:
        # What the kernel said before the server had begun to listen is lost: let it speak again.
        client.execute("", reply=True, timeout=60)
        return state["execution_state"] == "idle"

    server.wait_for(f"api/kernels/{identity}", heard)
    try:
        yield identity, client
    finally:
        client.stop_channels()
        server.call("DELETE", f"api/kernels/{identity}")


@contextmanager
def terminal(server: Server, command: str) -> Iterator[None]:
    """A terminal in which a command has begun."""
    started = server.folder / "started"
    started.unlink(missing_ok=True)
    name = server.call("POST", "api/terminals")["name"]
    socket = create_connection(
        f"{server.url.replace('http', 'ws')}terminals/websocket/{name}",
        header=["Authorization: token secret"],
        timeout=60,
    )
    socket.send(json.dumps(["stdin", f"touch started; {command}\n"]))
    deadline = time.monotonic() + 60
    while not started.exists():
        assert time.monotonic() < deadline, "the terminal did not take the command"
        time.sleep(0.1)
    socket.close()
    try:
        yield
    finally:
        server.call("DELETE", f"api/terminals/{name}")


def test_V4_a_busy_silent_kernel_keeps_the_server_active(server):
    with kernel(server) as (identity, client):
        quiet = server.quiet()
        client.execute("import time; time.sleep(600)")
        server.wait_for(f"api/kernels/{identity}", lambda k: k["execution_state"] == "busy")
        time.sleep(3)
        server.active_since(max(quiet, server.last_activity()))


def test_V4_an_idle_kernel_does_not(server):
    with kernel(server) as (_, client):
        client.execute("1 + 1", reply=True, timeout=30)
        quiet = server.quiet()
        time.sleep(2)
        assert server.last_activity() == quiet


@pytest.mark.parametrize("command", ["sleep 600", "sleep 600 &"])
def test_V4_a_command_in_a_terminal_keeps_the_server_active(server, command):
    with terminal(server, command):
        time.sleep(3)
        server.active_since(server.last_activity())


def test_V4_a_terminal_at_its_prompt_does_not(server):
    with terminal(server, ""):
        quiet = server.quiet()
        time.sleep(2)
        assert server.last_activity() == quiet


def test_V4_terminals_can_be_left_out(tmp_path):
    options = ("--KeepActive.terminals=False",)
    with serve(tmp_path, *options) as server, terminal(server, "sleep 600"):
        quiet = server.quiet()
        time.sleep(2)
        assert server.last_activity() == quiet


def test_V4_without_the_extension_a_busy_kernel_looks_idle(tmp_path):
    """The trap that the extension is for; if this fails, Jupyter does it and the code can go."""
    off = '--ServerApp.jpserver_extensions={"notebooks.activity": False}'
    with serve(tmp_path, off) as server, kernel(server) as (identity, client):
        client.execute("import time; time.sleep(600)")
        server.wait_for(f"api/kernels/{identity}", lambda k: k["execution_state"] == "busy")
        quiet = server.quiet()
        time.sleep(2)
        assert server.last_activity() == quiet


@pytest.mark.parametrize(("reports", "looks"), [("300", 150.0), ("", 150.0), ("1", 1.0)])
def test_it_looks_twice_for_each_report_to_the_hub(monkeypatch, reports, looks):
    from jupyter_server.serverapp import ServerApp

    from notebooks.activity import KeepActive

    monkeypatch.setenv("JUPYTERHUB_ACTIVITY_INTERVAL", reports)
    assert KeepActive(ServerApp()).interval == looks
