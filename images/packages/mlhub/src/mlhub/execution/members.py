"""Who may still use the platform, asked at Keycloak itself: for what happens while nobody is there.

A person's token of the Hub's is proof of membership within minutes; a schedule has none. So the
service looks the person up with a client of its own, which may see people and change nobody.
"""

import time
from collections.abc import Callable
from typing import Any

import httpx

from mlhub.execution.identity import people_of
from mlhub.execution.problems import Problem
from mlhub.execution.settings import Keycloak

EARLY_SECONDS = 30
"""A token is taken anew this long before it ends."""


class Members:
    """Memberships, fresh each time; nothing is remembered but the service's own token."""

    def __init__(
        self,
        keycloak: Keycloak,
        secret: str,
        client: httpx.AsyncClient,
        clock: Callable[[], float] = time.time,
    ):
        self._keycloak, self._secret, self._client, self._clock = keycloak, secret, client, clock
        self._token, self._until = "", 0.0

    async def why_not(self, name: str) -> str | None:
        """Why `name` is no member any more, or None; raises Problem (503) where Keycloak is silent.

        Keycloak's user names are small letters, as the Hub's are of them.
        """
        try:
            found = await self._get("users", username=name, exact="true")
            people = [p for p in found if p["username"] == name]
            if not people:
                return "Keycloak knows nobody of that name any more."
            if not people[0]["enabled"]:
                return "The account is disabled at Keycloak."
            groups = await self._get(f"users/{people[0]['id']}/groups", max="1000")
            paths = {str(group["path"]) for group in groups}
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            raise Problem(
                503,
                "identity",
                "Keycloak, which knows who is a member, does not answer. Try again in a minute.",
                headers={"Retry-After": "30"},
            ) from error
        if paths.isdisjoint(self._keycloak.members):
            return "The account is in no group any more that may use the platform."
        return None

    async def _get(self, path: str, **query: str) -> Any:
        answer = await self._client.get(
            f"{self._keycloak.admin_url}/{path}",
            params=query,
            headers={"Authorization": f"Bearer {await self._own_token()}"},
        )
        if answer.status_code == 401:  # the secret was changed, or the realm's keys
            self._until = 0.0
        answer.raise_for_status()
        return answer.json()

    async def _own_token(self) -> str:
        if self._clock() < self._until:
            return self._token
        answer = await self._client.post(
            self._keycloak.token_url,
            data={"grant_type": "client_credentials"},
            auth=(self._keycloak.client_id, self._secret),
        )
        answer.raise_for_status()
        given = answer.json()
        self._token = str(given["access_token"])
        self._until = self._clock() + float(given["expires_in"]) - EARLY_SECONDS
        return self._token


class Standing:
    """Whether a caller may still start something for a person while neither is there to ask."""

    def __init__(self, keycloak: Keycloak | None, members: Members | None):
        self._keycloak, self._members = keycloak, members

    async def why_not(self, caller: str, user: str) -> str | None:
        """Why not, or None; raises Problem (503) where Keycloak is silent."""
        allowed = people_of(caller, self._keycloak)
        if allowed is not None and user not in allowed:
            return f"{caller}, which asked for it, may not run for this person any more."
        return await self._members.why_not(user) if self._members else None
