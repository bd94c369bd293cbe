"""The Hub's answer to whose token this is."""

import json
from dataclasses import dataclass

import urllib3

TIMEOUT = urllib3.Timeout(connect=1, read=5)
"""Seconds. Short, because MLflow asks in its event loop where artifacts are concerned."""


class HubSilentError(Exception):
    """The Hub gave no answer, neither yes nor no."""


@dataclass(frozen=True)
class Person:
    name: str
    admin: bool


class Hub:
    """The API at `api_url`, such as `http://hub.jupyterhub.svc.cluster.local:8081/hub/api`."""

    def __init__(self, api_url: str):
        self._url = f"{api_url}/user"
        # No cookies, no proxies, no redirects: what one token gets never colours another's.
        self._connections = urllib3.PoolManager(maxsize=8, retries=False, timeout=TIMEOUT)

    def bearer(self, token: str) -> Person | None:
        """Whose token it is; None for an unknown, expired or revoked one, or a service's.

        A token needs no scope for that: the Hub lets every token ask for its owner's name and
        whether they are an admin (`SelfAPIHandler`). Raises HubSilentError.
        """
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
        try:
            answer = self._connections.request("GET", self._url, headers=headers, redirect=False)
        except urllib3.exceptions.HTTPError as error:
            raise HubSilentError(f"{self._url}: {type(error).__name__}") from error
        if answer.status in (401, 403):
            return None
        if answer.status != 200:
            raise HubSilentError(f"{self._url}: status {answer.status}")
        owner = json.loads(answer.data)
        if owner["kind"] != "user":
            return None
        return Person(name=owner["name"], admin=owner["admin"])
