"""What the Hub says: whose token this is, and the token of somebody who has just logged in."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import urllib3

TIMEOUT = urllib3.Timeout(connect=4, read=5)
"""Seconds. A connection whose first packets are lost is tried again after 1 and 3 s (RFC 6298)."""


class HubSilentError(Exception):
    """The Hub gave no answer, neither yes nor no."""


@dataclass(frozen=True)
class Person:
    name: str
    admin: bool
    workspaces: Mapping[str, str] = field(default_factory=dict)
    """Their role (owner, editor, viewer) in each of their teams' workspaces, by slug."""


class Hub:
    """The API at `api_url`, such as `http://hub.jupyterhub.svc.cluster.local:8081/hub/api`.

    `token` is MLflow's own, which is also its OAuth client's secret.
    """

    oauth_client = "service-mlflow"

    def __init__(self, api_url: str, token: str = ""):
        self._url = api_url
        self._token = token
        # No cookies, no proxies, no redirects: what one token gets never colours another's.
        self._connections = urllib3.PoolManager(maxsize=8, retries=False, timeout=TIMEOUT)

    def bearer(self, token: str) -> Person | None:
        """Whose token it is; None for an unknown, expired or revoked one, or a service's.

        Any token of a person will do, also one that may do nothing else (`mlhub.hub.tokens`).
        Raises HubSilentError.
        """
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
        status, owner = self._ask("GET", "/mlhub/person", headers=headers)
        if status in (401, 403):
            return None
        return Person(owner["name"], owner["admin"], owner["workspaces"])

    def exchange(self, code: str, redirect_uri: str) -> str | None:
        """The token for a log-in's code; None when the Hub does not know the code any more.

        Raises HubSilentError.
        """
        fields = {
            "client_id": self.oauth_client,
            "client_secret": self._token,
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
        }
        # Not as a multipart form, which OAuth does not know.
        status, answer = self._ask("POST", "/oauth2/token", fields=fields, encode_multipart=False)
        return str(answer["access_token"]) if status == 200 else None

    def _ask(self, method: str, path: str, **how: Any) -> tuple[int, Any]:
        """Status, and what a 200 says; anything but that and a refusal raises HubSilentError."""
        url = self._url + path
        try:
            answer = self._connections.request(method, url, redirect=False, **how)
        except urllib3.exceptions.HTTPError as error:
            raise HubSilentError(f"{url}: {type(error).__name__}") from error
        if answer.status in (400, 401, 403):
            return answer.status, None
        if answer.status != 200:
            raise HubSilentError(f"{url}: status {answer.status}")
        return 200, json.loads(answer.data)
