"""The API (v2.0) of one Harbor, with errors that a person can act on.

One request at a time and no log-in to keep: Harbor takes the account with each request. Neither
password nor body is ever in a message.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import requests

from bootstrap.plugins.schema import PluginError
from bootstrap.plugins.web import root_cause, trust

API = "/api/v2.0"
STARTING = (
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
)
POLL_SECONDS = 2.0


class NotFoundError(Exception):
    """The object is not there; the message is its path."""


class ConflictError(PluginError):
    """An object of that name is there already."""


@dataclass(frozen=True)
class Account:
    """Where and as whom. `verify` False trusts any certificate."""

    url: str
    username: str
    password: str
    verify: bool
    timeout: int
    wait_seconds: int
    """How long a server that refuses connections or answers 503 is waited for."""

    def __repr__(self) -> str:
        return f"Account({self.url}, {self.username})"


class Harbor:
    """Requests under `<url>/api/v2.0`."""

    def __init__(self, account: Account, progress: Callable[[str], None]):
        self.account = account
        self._progress = progress
        self._lock = threading.Lock()
        self._cancelled = threading.Event()
        self._http = requests.Session()
        self._http.auth = (account.username, account.password)

    def get(self, path: str, **query: Any) -> Any:
        return self._send("GET", path, params=query).json()

    def post(self, path: str, body: Any) -> requests.Response:
        return self._send("POST", path, json=body)

    def put(self, path: str, body: Any) -> None:
        self._send("PUT", path, json=body)

    def patch(self, path: str, body: Any) -> None:
        self._send("PATCH", path, json=body)

    def delete(self, path: str) -> None:
        """Deleting what is gone is done."""
        with contextlib.suppress(NotFoundError):
            self._send("DELETE", path)

    def cancel(self) -> None:
        self._cancelled.set()

    def _send(self, verb: str, path: str, **given: Any) -> requests.Response:
        response = self._answer(verb, path, **given)
        url, who = self.account.url, self.account.username
        if response.status_code == HTTPStatus.NOT_FOUND:
            raise NotFoundError(path)
        if response.status_code == HTTPStatus.CONFLICT:
            raise ConflictError(said(response))
        if response.status_code == HTTPStatus.UNAUTHORIZED:
            raise PluginError(
                f"Harbor at {url} refused the log-in of {who}; check the provider's username and "
                "password"
            )
        if response.status_code == HTTPStatus.FORBIDDEN:
            raise PluginError(
                f"Harbor at {url} does not let {who} {verb} {path}; give the provider an account "
                "that may administer projects and robot accounts"
            )
        if not response.ok:
            raise PluginError(
                f"Harbor at {url} refused {verb} {path} with HTTP {response.status_code}: "
                f"{said(response)}"
            )
        return response

    def _answer(self, verb: str, path: str, **given: Any) -> requests.Response:
        """The server's answer; a server that is starting is waited for."""
        account = self.account
        until = time.monotonic() + account.wait_seconds
        with self._lock:
            while True:
                try:
                    response = self._http.request(
                        verb, f"{account.url}{API}{path}",
                        timeout=account.timeout, verify=trust(account.verify), **given,
                    )  # fmt: skip
                    trouble = f"HTTP {response.status_code}"
                    if response.status_code not in STARTING:
                        return response
                except requests.exceptions.SSLError as error:
                    raise PluginError(
                        f"Harbor at {account.url} has a certificate that this machine does not "
                        f"trust ({root_cause(error)}); set SSL_CERT_FILE to a bundle that has its "
                        "authority"
                    ) from None
                except requests.RequestException as error:
                    trouble = root_cause(error)
                if time.monotonic() >= until:
                    raise PluginError(
                        f"Harbor at {account.url} did not answer within {account.wait_seconds} s "
                        f"({trouble}); check the provider's url and that the server is running, "
                        "then run the same command again"
                    )
                self._progress(f"waiting for Harbor at {account.url} ({trouble})")
                if self._cancelled.wait(POLL_SECONDS):
                    raise PluginError(f"cancelled while waiting for Harbor at {account.url}")


def said(response: requests.Response) -> str:
    """Harbor's own words, never what was sent."""
    try:
        answer = response.json()
    except ValueError:
        return response.reason or "no explanation"
    errors = answer.get("errors") if isinstance(answer, Mapping) else None
    words = [str(e.get("message", "")) for e in errors or () if isinstance(e, Mapping)]
    return "; ".join(filter(None, words)) or response.reason or "no explanation"
