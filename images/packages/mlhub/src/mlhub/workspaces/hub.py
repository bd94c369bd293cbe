"""Telling the Hub what somebody's role has become, so that it counts in seconds."""

import logging

import httpx

log = logging.getLogger(__name__)


class HubMembers:
    """`POST /hub/api/mlhub/members`, with the service's own Hub token."""

    def __init__(self, api_url: str, token: str, client: httpx.AsyncClient):
        self._url, self._token, self._client = f"{api_url}/mlhub/members", token, client

    async def tell(self, user: str, slug: str, role: str | None) -> None:
        """Raises nothing: the Hub asks Keycloak by itself, within minutes."""
        body = {"user": user, "workspace": slug, "role": role}
        headers = {"Authorization": f"token {self._token}"}
        try:
            answer = await self._client.post(self._url, json=body, headers=headers)
            answer.raise_for_status()
        except httpx.HTTPError as error:
            log.warning("The Hub was not told of %s in %s: %s", user, slug, type(error).__name__)
