"""The admin REST API of one Keycloak server, with errors that a person can act on.

Beside python-keycloak's own classes because a plug-in has other needs than a script: the server may
still be starting, several resources are made at once, and no password may reach a message.
"""

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from keycloak import KeycloakOpenIDConnection
from keycloak.exceptions import KeycloakConnectionError, KeycloakError
from requests import Response

from bootstrap.plugins.schema import PluginError

STARTING = (502, 503, 504)
POLL_SECONDS = 2.0


class NotFound(Exception):
    """The object is not there."""


class Conflict(PluginError):
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

    def __repr__(self) -> str:
        return f"Login({self.url}, realm {self.realm}, {self.username or self.client_id})"


class Admin:
    """Requests under `<url>/admin`, one at a time: python-keycloak's token is not thread-safe."""

    def __init__(self, login: Login, progress: Callable[[str], None]):
        self.login = login
        self._progress = progress
        self._lock = threading.Lock()
        self._connection: Any = None

    def get(self, path: str, **query: Any) -> Any:
        return self._send("GET", path, lambda c, p: c.raw_get(p, **query)).json()

    def post(self, path: str, body: Any) -> Response:
        return self._send("POST", path, lambda c, p: c.raw_post(p, data=json.dumps(body)))

    def put(self, path: str, body: Any = None) -> None:
        data = "{}" if body is None else json.dumps(body)
        self._send("PUT", path, lambda c, p: c.raw_put(p, data=data))

    def delete(self, path: str, body: Any = None) -> None:
        """Deleting what is gone is done."""
        try:
            data = None if body is None else json.dumps(body)
            self._send("DELETE", path, lambda c, p: c.raw_delete(p, data=data))
        except NotFound:
            pass

    def log_in_again(self) -> None:
        with self._lock:
            self._connection = None

    def _send(self, verb: str, path: str, send: Callable[[Any, str], Response]) -> Response:
        with self._lock:
            deadline = time.monotonic() + self.login.wait_seconds
            while True:
                trouble = None
                try:
                    response = send(self._connected(), f"admin{path}")
                except KeycloakConnectionError as error:
                    trouble = root_cause(error)
                except KeycloakError as error:
                    if error.response_code not in STARTING:
                        raise self._login_refused(error) from None
                    trouble = f"HTTP {error.response_code}"
                else:
                    if response.status_code not in STARTING:
                        break
                    trouble = f"HTTP {response.status_code}"
                if time.monotonic() >= deadline:
                    raise self._unreachable(trouble)
                self._progress(f"waiting for Keycloak at {self.login.url} ({trouble})")
                time.sleep(POLL_SECONDS)
        if response.status_code == 404:
            raise NotFound(path)
        if response.status_code == 409:
            raise Conflict(said(response))
        if response.status_code == 403:
            raise PluginError(
                f"Keycloak at {self.login.url} does not let "
                f"{self.login.username or self.login.client_id} {verb} {path}; "
                "give the provider an account with the realm-admin (or admin) role"
            )
        if not response.ok:
            raise PluginError(
                f"Keycloak at {self.login.url} refused {verb} {path} with HTTP "
                f"{response.status_code}: {said(response)}"
            )
        return response

    def _connected(self) -> Any:
        if self._connection is None:
            by_user = self.login.username is not None
            self._connection = KeycloakOpenIDConnection(
                server_url=self.login.url,
                realm_name=self.login.realm,
                client_id=self.login.client_id,
                client_secret_key=self.login.client_secret,
                username=self.login.username,
                password=self.login.password,
                grant_type="password" if by_user else "client_credentials",
                verify=self.login.verify,
                timeout=self.login.timeout,
            )
        return self._connection

    def _login_refused(self, error: KeycloakError) -> PluginError:
        who = self.login.username or self.login.client_id
        return PluginError(
            f"Keycloak at {self.login.url} refused the log-in of {who} in realm "
            f"{self.login.realm} (HTTP {error.response_code}); check the provider's username, "
            "password, clientId and realm"
        )

    def _unreachable(self, trouble: str) -> PluginError:
        return PluginError(
            f"Keycloak at {self.login.url} did not answer within {self.login.wait_seconds} s "
            f"({trouble}); check the provider's url and that its pod is running and ready, "
            "then run the same command again"
        )


def root_cause(error: BaseException) -> str:
    """The innermost reason, without the request that python-keycloak and urllib3 repeat around it."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    return str(error).rsplit(": ", 1)[-1].rstrip(")'") or type(error).__name__


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
