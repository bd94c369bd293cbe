"""The temporary person at work: the log-in page, a server, files, a run."""

import json
import time
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urljoin

import requests

from mlhub.verify.report import Failed
from mlhub.verify.settings import TEMPORARY, Settings
from mlhub.verify.web import ask, session

POLL_SECONDS = 1.0

NO_GPU = "No GPU is free"
"""How the hub's reason begins where others have them all (`mlhub.hub.trouble`)."""


class Refused(Failed):
    """Keycloak has shown its form again."""


class Busy(Failed):
    """A quota or, of GPUs, the nodes have no room for a server now."""


class LoginForm(HTMLParser):
    """Keycloak's form: where it goes; nowhere on a page without it."""

    action = ""

    def __init__(self, page: str):
        super().__init__()
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        if tag == "form" and found.get("id") == "kc-form-login":
            self.action = found.get("action") or ""


def log_in(settings: Settings, password: str) -> requests.Session:
    """A browser's session that has gone from the hub to Keycloak and back.

    Raises Refused for a wrong password, Failed for anything else.
    """
    web = session(settings.via)
    page = ask(web, "GET", f"{settings.hub_url}/hub/oauth_login", params={"next": "/hub/home"})
    form = LoginForm(page.text)
    if not form.action:
        raise Failed(f"{settings.hub_url}/hub/oauth_login led to {page.url} and no log-in form")
    given = {"username": TEMPORARY, "password": password}
    landed = ask(web, "POST", urljoin(page.url, form.action), data=given)
    if LoginForm(landed.text).action:
        raise Refused("Keycloak takes the name and password for wrong")
    if not landed.url.startswith(f"{settings.hub_url}/hub/home") or not landed.ok:
        raise Failed(f"the log-in ended with HTTP {landed.status_code} at {at(landed.url)}")
    return web


def at(url: str) -> str:
    """An address without its query, which carries codes."""
    return url.partition("?")[0]


class Person:
    """Someone who is logged in, by a token of theirs."""

    def __init__(self, settings: Settings, web: requests.Session):
        self.settings = settings
        self._web = session(settings.via)
        api = f"{settings.hub_url}/hub/api"
        xsrf = next((c.value for c in web.cookies if c.name == "_xsrf"), "") or ""
        body = {"note": "mlhub verify", "expires_in": 3600}
        made = ask(
            web, "POST", f"{api}/users/{TEMPORARY}/tokens", json=body,
            headers={"X-XSRFToken": xsrf, "Referer": f"{settings.hub_url}/hub/token"},
        )  # fmt: skip
        if not made.ok:
            raise Failed(f"the hub refused a token with HTTP {made.status_code}")
        self._token_id = made.json()["id"]
        self._web.headers["Authorization"] = f"token {made.json()['token']}"

    def close(self) -> None:
        self.call("DELETE", f"/hub/api/users/{TEMPORARY}/tokens/{self._token_id}")

    def call(self, method: str, path: str, **given: Any) -> requests.Response:
        return ask(self._web, method, f"{self.settings.hub_url}{path}", **given)

    def must(self, method: str, path: str, **given: Any) -> Any:
        """The answer's JSON; raises Failed with what the platform says instead."""
        answer = self.call(method, path, **given)
        if not answer.ok:
            raise Failed(f"{method} {path} is HTTP {answer.status_code}: {said(answer)}")
        return answer.json() if answer.content else None

    def profiles(self) -> list[dict[str, Any]]:
        """What the person is offered."""
        return list(self.must("GET", "/hub/api/mlhub/profiles")["profiles"])

    # The server

    def start(self, profile: str) -> None:
        """Starts the server and waits for it; raises Failed with the hub's reason, Busy where that
        is a lack of room. A server of an earlier start is stopped first."""
        self.stop()
        path = f"/hub/api/users/{TEMPORARY}/server"
        answer = self.call("POST", path, json={"profile": profile})
        if not answer.ok:
            full = answer.status_code == HTTPStatus.TOO_MANY_REQUESTS
            raise Busy(said(answer)) if full else failed(said(answer))
        for event in self._events(f"{path}/progress"):
            if event.get("ready"):
                return
            if event.get("failed"):
                raise failed(str(event.get("message")))
        raise Failed(f"it was not there within {self.settings.start_seconds} s")

    def _events(self, path: str) -> Iterator[dict[str, Any]]:
        until = time.monotonic() + self.settings.start_seconds
        with self.call("GET", path, stream=True, timeout=(5, 60)) as stream:
            try:
                for line in stream.iter_lines():
                    if line.startswith(b"data:"):
                        yield json.loads(line.removeprefix(b"data:"))
                    if time.monotonic() > until:
                        return
            except requests.RequestException as error:
                raise Failed("the hub ended its report of the start") from error

    def stop(self) -> None:
        """The server, if there is one; the hub refuses to while it starts, and is asked again."""
        told = False

        def stopped() -> bool:
            nonlocal told
            if not self.must("GET", f"/hub/api/users/{TEMPORARY}")["servers"]:
                return True
            told = told or self.call("DELETE", f"/hub/api/users/{TEMPORARY}/server").ok
            return False

        self.wait(stopped, "stopped")

    def wait(self, holds: Callable[[], object], what: str) -> None:
        until = time.monotonic() + self.settings.start_seconds
        while not holds():
            if time.monotonic() > until:
                raise Failed(f"it was not {what} within {self.settings.start_seconds} s")
            time.sleep(POLL_SECONDS)

    # Files, by the server

    def write(self, path: str, kind: str, content: Any) -> None:
        body = {"type": kind, "format": "json" if kind == "notebook" else "text"}
        self.must("PUT", self._contents(path), json=body | {"content": content})

    def read(self, path: str) -> str:
        found = self.must("GET", self._contents(path), params={"format": "text", "type": "file"})
        return str(found["content"])

    def delete(self, path: str) -> None:
        self.call("DELETE", self._contents(path))

    @staticmethod
    def _contents(path: str) -> str:
        return f"/user/{TEMPORARY}/api/contents/{quote(path)}"


def failed(reason: str) -> Failed:
    return Busy(reason) if NO_GPU in reason else Failed(reason)


def said(answer: requests.Response) -> str:
    """The platform's own sentence."""
    try:
        body = answer.json()
    except ValueError:
        return HTTPStatus(answer.status_code).phrase
    if not isinstance(body, dict):
        return HTTPStatus(answer.status_code).phrase
    for key in ("detail", "message", "sentence"):
        if body.get(key):
            return str(body[key])
    return HTTPStatus(answer.status_code).phrase
