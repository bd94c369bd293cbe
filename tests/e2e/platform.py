"""What the end-to-end tests do over and over: kubectl, and a person at a browser."""

import base64
import json
import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import httpx
from playwright.sync_api import BrowserContext, Page, expect

HUB_URL = "http://localhost:30888"
KEYCLOAK_URL = "http://localhost:30880"
EXECUTION_URL = f"{HUB_URL}/services/execution"
NAMESPACE = "jupyterhub"

WRITER = """
import hashlib, os, sys, time
folder, number = sys.argv[1], 0
os.mkdir(folder)
while not os.path.exists(folder + "/stop"):
    content, path = os.urandom(100_000), f"{folder}/{number}"
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    print(hashlib.sha256(content).hexdigest(), "", path)
    number += 1
    time.sleep(0.02)
"""
"""Says of each file that it is on the disk, as sha256sum would, until it is stopped or killed."""

EXECUTE = """([user, kernel, code, timeout]) => new Promise((done, fail) => {
    const address = location.origin.replace(/^http/, 'ws') + `/user/${user}/api/kernels/${kernel}`;
    const socket = new WebSocket(address + '/channels');
    const asked = {msg_id: crypto.randomUUID(), msg_type: 'execute_request', version: '5.3',
                   session: crypto.randomUUID(), username: '', date: new Date().toISOString()};
    const content = {code, silent: false, store_history: false, user_expressions: {},
                     allow_stdin: false, stop_on_error: true};
    let printed = '', error = '';
    socket.onopen = () => socket.send(JSON.stringify(
        {channel: 'shell', header: asked, parent_header: {}, metadata: {}, content}));
    socket.onerror = () => fail('no way to the kernel');
    socket.onmessage = ({data}) => {
        const message = JSON.parse(data);
        if (message.parent_header.msg_id !== asked.msg_id) return;
        const {msg_type} = message.header;
        if (msg_type === 'stream') printed += message.content.text;
        if (msg_type === 'error') error = message.content.traceback.join('\\n');
        if (msg_type === 'status' && message.content.execution_state === 'idle') {
            socket.close();
            done({printed, error});
        }
    };
    setTimeout(() => fail('the kernel is busy still: ' + printed), timeout * 1000);
})"""
"""Code to a kernel by its websocket, with the cookies of the page."""


def runs_are_served() -> bool:
    """Whether the execution service answers."""
    try:
        return httpx.get(f"{EXECUTION_URL}/health", timeout=3, trust_env=False).is_success
    except httpx.HTTPError:  # the proxy waits for a pod that is gone
        return False


def notebook(*sources: str) -> str:
    """An nbformat 4 document with these cells of code, the first one with the parameters."""
    cells = [
        {
            "cell_type": "code",
            "id": f"cell-{number}",
            "metadata": {"tags": ["parameters"]} if number == 0 else {},
            "execution_count": None,
            "outputs": [],
            "source": source,
        }
        for number, source in enumerate(sources)
    ]
    return json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


def wait_until(claim: str, holds: Callable[[], Any], seconds: float = 60) -> Any:
    """Poll until `holds()` is truthy and return that; fail with the claim in words."""
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, f"after {seconds:.0f} s it still does not hold: {claim}"
        time.sleep(0.5)
    return found


class Secret(str):
    """A secret value that a failing test's report does not show."""

    def __repr__(self) -> str:
        return "<secret>"


class Kubectl:
    """kubectl, with KUBECONFIG from the environment that `python -m bootstrap env` prints."""

    def __call__(self, *args: str, stdin: str | None = None, timeout: float = 120) -> str:
        return subprocess.run(
            ["kubectl", *args],
            input=stdin,
            check=True,
            capture_output=True,
            text=True,
            timeout=timeout,
        ).stdout

    def json(self, *args: str) -> Any:
        return json.loads(self(*args, "-o", "json"))

    def secret(self, namespace: str, name: str) -> dict[str, Secret]:
        data = self.json("-n", namespace, "get", "secret", name)["data"]
        return {key: Secret(base64.b64decode(value).decode()) for key, value in data.items()}

    def exec(self, pod: str, *command: str, timeout: float = 300) -> str:
        """Run a command in a user's pod, as the user."""
        return self("-n", NAMESPACE, "exec", pod, "--", *command, timeout=timeout)

    def pod(self, name: str) -> dict[str, Any] | None:
        """The pod, or None where there is none."""
        found = self.json(
            "-n", NAMESPACE, "get", "pods", "--field-selector", f"metadata.name={name}"
        )
        return found["items"][0] if found["items"] else None


@dataclass
class Person:
    """A demo user at a browser."""

    name: str
    password: Secret
    context: BrowserContext
    page: Page = None  # type: ignore[assignment]
    _kernel: str = ""

    def __post_init__(self) -> None:
        self.page = self.context.new_page()

    @property
    def pod(self) -> str:
        return f"jupyter-{self.name}"

    def open_log_in(self) -> None:
        self.page.goto("/hub/login")
        if (button := self.page.locator("a.btn-jupyter[href*='oauth_login']")).count():
            button.click()
        expect(self.page.locator("#username")).to_be_visible()

    def submit_log_in(self) -> None:
        self.page.fill("#username", self.name)
        self.page.fill("#password", self.password)
        self.page.click("#kc-login")
        self.page.wait_for_url(re.compile(re.escape(HUB_URL)))

    def log_in(self) -> "Person":
        self.open_log_in()
        self.submit_log_in()
        return self

    def start_server(self, at: Literal["home", "form"] = "home") -> "Person":
        """Start the server by the form, if it does not run, and wait for the lab."""
        if at == "home":
            self.page.goto(f"/hub/spawn/{self.name}")
        if self.page.locator("#spawn_form").count():
            self.page.locator("#spawn_form [type=submit]").click()
        self.page.wait_for_url(re.compile(rf"{HUB_URL}/user/{self.name}/lab"), timeout=180_000)
        expect(self.page.locator("#jp-main-dock-panel")).to_be_visible(timeout=90_000)
        return self

    def stop_server(self) -> None:
        assert self.hub("DELETE", f"users/{self.name}/server")["status"] in (202, 204)
        wait_until(
            "the server has stopped",
            lambda: not self.hub("GET", f"users/{self.name}")["body"]["servers"],
            90,
        )

    def hub(self, method: str, path: str) -> dict[str, Any]:
        """The hub's REST API with the browser's own cookies: `{status, body}`."""
        return self._fetch(method, f"/hub/api/{path}", None, "/hub/home")

    def server(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """The person's own Jupyter Server API with the browser's cookies: `{status, body}`."""
        return self._fetch(method, f"/user/{self.name}/api/{path}", body, f"/user/{self.name}/lab")

    def _fetch(self, method: str, url: str, body: Any, at: str) -> dict[str, Any]:
        """fetch() from a page whose path the `_xsrf` cookie covers."""
        if not self.page.url.startswith(HUB_URL + at):
            self.page.goto(at)
        result: dict[str, Any] = self.page.evaluate(
            """async ([method, url, body]) => {
                const xsrf = document.cookie.split('; ').find(c => c.startsWith('_xsrf='));
                const headers = {'Content-Type': 'application/json'};
                if (xsrf) headers['X-XSRFToken'] = xsrf.slice(6);
                const text_of = body => body === null ? undefined : JSON.stringify(body);
                const ask = () => fetch(url, {method, headers, body: text_of(body)});
                // What only reads is asked once more where the connection was cut on its way.
                const answer = await (method === 'GET' ? ask().catch(ask) : ask());
                const text = await answer.text();
                let parsed = text; try { parsed = JSON.parse(text); } catch {}
                return {status: answer.status, body: parsed};
            }""",
            [method, url, body],
        )
        return result

    def run(self, code: str, timeout: float = 120) -> str:
        """Run code in a kernel of the person's server; what it prints. Fails where it raises."""
        if not self._kernel:
            made = self.server("POST", "kernels", {})
            assert made["status"] == 201, made
            self._kernel = made["body"]["id"]
        said: dict[str, str] = self.page.evaluate(EXECUTE, [self.name, self._kernel, code, timeout])
        assert not said["error"], said["error"]
        return said["printed"]

    def leave(self) -> None:
        """Close the browser; the kernel with it, which would hold its memory."""
        if self._kernel:
            self.server("DELETE", f"kernels/{self._kernel}")
        self.context.close()

    def write(self, path: str, text: str) -> None:
        """Save a text file in the home, through the server."""
        saved = self.server(
            "PUT", f"contents/{path}", {"type": "file", "format": "text", "content": text}
        )
        assert saved["status"] in (200, 201), saved

    def read(self, path: str) -> str:
        found = self.server("GET", f"contents/{path}?type=file&format=text")
        assert found["status"] == 200, found
        return str(found["body"]["content"])
