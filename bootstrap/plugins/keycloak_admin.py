"""The admin REST API of one Keycloak server, with errors that a person can act on.

Beside python-keycloak's own classes because a plug-in has other needs than a script: the server may
still be starting, several resources are made at once, and no password may reach a message.

python-keycloak is imported with the first request: it takes most of the plug-in's start, for which
every preview waits, and a preview asks the server nothing.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from bootstrap.plugins.schema import PluginError

if TYPE_CHECKING:
    from keycloak import KeycloakOpenIDConnection
    from requests import Response

STARTING = (
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
)
FAULT_SECONDS = 60
"""How long HTTP 500 may last: a Keycloak whose database was started anew first finds its
connections dead, one after the other."""

POLL_SECONDS = 2.0
WORD_SECONDS = 10.0
"""How often a wait is mentioned: in a log each mention is a line."""


class NotFoundError(Exception):
    """The object is not there; the message is its path."""


class ConflictError(PluginError):
    """An object of that name is there already."""


@dataclass(frozen=True)
class Login:
    """Where and as whom. Without a user name the client logs in by its own secret."""

    url: str
    realm: str
    client_id: str
    client_secret: str | None
    username: str | None
    password: str | None
    timeout: int
    wait_seconds: int
    verify: bool

    @property
    def who(self) -> str:
        return self.username or self.client_id

    def __repr__(self) -> str:
        return f"Login({self.url}, realm {self.realm}, {self.who})"


class Admin:
    """Requests under `<url>/admin`, one at a time: python-keycloak's token is not thread-safe."""

    def __init__(self, login: Login, progress: Callable[[str], None]):
        self.login = login
        self._progress = progress
        self._lock = threading.Lock()
        self._cancelled = threading.Event()
        self._down_since: float | None = None
        self._next_word = 0.0
        self._connection: KeycloakOpenIDConnection | None = None

    def get(self, path: str, **query: Any) -> Any:
        return self._send("GET", path, lambda c, p: c.raw_get(p, **query)).json()

    def post(self, path: str, body: Any) -> Response:
        return self._send("POST", path, lambda c, p: c.raw_post(p, data=json.dumps(body)))

    def put(self, path: str, body: Any = None) -> None:
        data = "{}" if body is None else json.dumps(body)
        self._send("PUT", path, lambda c, p: c.raw_put(p, data=data))

    def delete(self, path: str, body: Any = None) -> None:
        """Deleting what is gone is done."""
        data: Any = None if body is None else json.dumps(body)
        with contextlib.suppress(NotFoundError):
            self._send("DELETE", path, lambda c, p: c.raw_delete(p, data=data))

    def log_in_again(self) -> None:
        with self._lock:
            self._connection = None

    def cancel(self) -> None:
        self._cancelled.set()

    def _send(
        self, verb: str, path: str, send: Callable[[KeycloakOpenIDConnection, str], Response]
    ) -> Response:
        # A POST that failed may have made something all the same.
        waited_for = STARTING if verb == "POST" else (*STARTING, HTTPStatus.INTERNAL_SERVER_ERROR)
        response = self._answer(send, f"admin{path}", waited_for)
        if response.status_code == HTTPStatus.NOT_FOUND:
            raise NotFoundError(path)
        if response.status_code == HTTPStatus.CONFLICT:
            raise ConflictError(said(response))
        if response.status_code == HTTPStatus.FORBIDDEN:
            raise PluginError(
                f"Keycloak at {self.login.url} does not let {self.login.who} {verb} {path}; "
                "give the provider an account with the role admin"
            )
        if not response.ok:
            raise PluginError(
                f"Keycloak at {self.login.url} refused {verb} {path} with HTTP "
                f"{response.status_code}: {said(response)}"
            )
        return response

    def _answer(
        self,
        send: Callable[[KeycloakOpenIDConnection, str], Response],
        path: str,
        waited_for: Collection[int],
    ) -> Response:
        """The server's answer. A server that is starting is waited for, by all requests together:
        once it has been away for `wait_seconds`, each further request is tried once."""
        from keycloak.exceptions import KeycloakConnectionError, KeycloakError  # noqa: PLC0415

        fresh = False
        trouble: int | str
        with self._lock:
            while True:
                try:
                    if self._connection is None:
                        fresh = True
                        self._connection = connection(self.login)
                    response = send(self._connection, path)
                    trouble = response.status_code
                    if response.status_code not in waited_for:
                        self._down_since = None
                        return response
                except KeycloakConnectionError as error:
                    trouble = root_cause(error)
                except KeycloakError as error:
                    # Of a log-in. A token that is no longer good is worth one log-in anew.
                    trouble = error.response_code or HTTPStatus.BAD_GATEWAY
                    if trouble not in (*STARTING, HTTPStatus.INTERNAL_SERVER_ERROR):
                        if fresh:
                            raise self._login_refused(f"HTTP {trouble}") from None
                        self._connection = None
                        continue
                self._wait(trouble)

    def _wait(self, status: int | str) -> None:
        """Wait a moment; `status` is the answer's, or why there was none."""
        now = time.monotonic()
        self._down_since = self._down_since or now
        trouble = f"HTTP {status}" if isinstance(status, int) else status
        limit = self.login.wait_seconds
        if status == HTTPStatus.INTERNAL_SERVER_ERROR:
            limit = min(limit, FAULT_SECONDS)
        if now - self._down_since >= limit:
            raise PluginError(
                f"Keycloak at {self.login.url} did not answer within {limit} s "
                f"({trouble}); check the provider's url and that the server is running and ready, "
                "then run the same command again"
            )
        if now >= self._next_word:
            self._progress(f"waiting for Keycloak at {self.login.url} ({trouble})")
            self._next_word = now + WORD_SECONDS
        if self._cancelled.wait(POLL_SECONDS):
            raise PluginError(f"cancelled while waiting for Keycloak at {self.login.url}")

    def _login_refused(self, trouble: str) -> PluginError:
        return PluginError(
            f"Keycloak at {self.login.url} refused the log-in of {self.login.who} in realm "
            f"{self.login.realm} ({trouble}); check the provider's username, password, clientId "
            "and realm"
        )


def connection(login: Login) -> KeycloakOpenIDConnection:
    from keycloak import KeycloakOpenIDConnection  # noqa: PLC0415

    return KeycloakOpenIDConnection(
        server_url=login.url,
        realm_name=login.realm,
        client_id=login.client_id,
        client_secret_key=login.client_secret,
        username=login.username,
        password=login.password,
        grant_type="client_credentials" if login.username is None else "password",
        verify=login.verify,
        timeout=login.timeout,
    )


def root_cause(error: BaseException) -> str:
    """The innermost reason, without what python-keycloak and urllib3 wrap around it."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    last = str(error).rsplit(": ", 1)[-1].rstrip(")'")
    return re.sub(r"^\[Errno \d+\] ", "", last) or type(error).__name__


def said(response: Response) -> str:
    """Keycloak's own words, never what was sent."""
    try:
        answer = response.json()
    except ValueError:
        return response.reason or "no explanation"
    if isinstance(answer, Mapping):
        for key in ("errorMessage", "error_description", "error"):
            if answer.get(key):
                return str(answer[key])
    return response.reason or "no explanation"


def at(*parts: str) -> str:
    """A path, each part quoted."""
    return "".join("/" + quote(part, safe="") for part in parts)
