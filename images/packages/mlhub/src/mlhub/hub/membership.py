"""What the hub itself asks Keycloak: whether a person may still use the hub, when their own session
can no longer tell, and what a workspace is called, whose groups say its slug alone.

Keycloak answers alike for a session that was only too long and for one whose person is gone. So the
hub looks the person up, with a client of its own that may see people and change nobody. They are
known by the id that Keycloak gave them (`sub`): an account made anew under the same name is not it.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from tornado import web
from tornado.httpclient import HTTPClientError

from mlhub.hub.groups import hub_group_name
from mlhub.hub.settings import Identity, people_secret

NAME_SECONDS = 2.0
"""A form does not wait longer for the names of workspaces, which have slugs as well."""

NAME = "mlhub.name"
"""The attribute of a workspace's group that holds its name (`mlhub.workspaces.records`)."""

EARLY_SECONDS = 30.0
"""A token is taken anew this long before it ends."""

FAULTS = (HTTPClientError, web.HTTPError, OSError, KeyError, TypeError, ValueError)
"""Of a Keycloak that does not answer, or not as it should."""

NEVER = (float("-inf"), "")

Fetch = Callable[..., Awaitable[Any]]
"""OAuthenticator's `httpfetch`: the JSON at an address; raises where there is none."""


class Found(NamedTuple):
    """What is known of a person."""

    why_not: str = ""
    """Why they may not use the hub any more; empty where they may, or nobody knows."""
    groups: set[str] | None = None
    """The Hub's names of their groups now; None where nobody knows."""
    silent: bool = False
    """Whether nobody knows because Keycloak did not answer."""


class Membership:
    """Looks people up; what cannot be known is not held against anybody."""

    def __init__(self, identity: Identity, fetch: Fetch, log: logging.Logger):
        self._identity, self._fetch, self._log = identity, fetch, log
        self._token, self._until = "", 0.0
        self._lock = asyncio.Lock()
        self._asked: dict[str, float] = {}
        self._names: dict[str, tuple[float, str]] = {}
        """By slug, each with when it was asked for (monotonic seconds)."""

    async def look_up(self, name: str, sub: str) -> Found:
        """Answered once for each refresh age at most."""
        if not self._identity.people_client or not sub:
            return Found()
        now = time.monotonic()
        if now - self._asked.get(name, float("-inf")) < self._identity.refresh_seconds:
            return Found()
        self._asked[name] = now
        try:
            return await self._judge(quote(sub, safe=""))
        except FAULTS as error:
            self._log.error("Keycloak does not tell about %s: %r", name, error)
            if silent := isinstance(error, web.HTTPError):
                self._asked.pop(name, None)
            return Found(silent=silent)

    async def workspace_names(self, slugs: Collection[str]) -> dict[str, str]:
        """What people call these workspaces, by slug; the slug again where nobody tells."""
        if not self._identity.people_client:
            return {slug: slug for slug in slugs}
        oldest = time.monotonic() - self._identity.refresh_seconds
        wanted = [slug for slug in slugs if self._names.get(slug, NEVER)[0] <= oldest]
        found = await asyncio.gather(*map(self._name, wanted))
        now = time.monotonic()
        self._names |= {slug: (now, name) for slug, name in zip(wanted, found, strict=True)}
        return {slug: self._names[slug][1] for slug in slugs}

    async def _name(self, slug: str) -> str:
        try:
            async with asyncio.timeout(NAME_SECONDS):
                group = await self._get(f"{self._identity.workspaces}/{slug}") or {}
                return str(group.get("attributes", {}).get(NAME, [slug])[0])
        except FAULTS as error:
            self._log.warning("Keycloak does not tell the name of %s: %r", slug, error)
            return slug

    async def _judge(self, identity: str) -> Found:
        url = f"{self._identity.people}/{identity}"
        person = await self._get(url)
        if person is None:
            return Found("the account is no more at Keycloak")
        if not person["enabled"]:
            return Found("the account is disabled at Keycloak")
        groups = await self._get(f"{url}/groups?max=1000") or []
        paths = {group["path"] for group in groups}
        if paths.isdisjoint(self._identity.access_groups):
            return Found("no longer a member of a group that may use this hub")
        return Found(groups={hub_group_name(path) for path in paths})

    async def _get(self, url: str) -> Any:
        """JSON, or None for what is not there."""
        headers = {"Authorization": f"Bearer {await self._own_token()}"}
        try:
            return await self._fetch(url, "looking somebody or something up", headers=headers)
        except HTTPClientError as error:
            if error.code == 404:
                return None
            self._until = 0.0  # the secret was changed, or the realm's keys
            raise

    async def _own_token(self) -> str:
        async with self._lock:
            if time.monotonic() >= self._until:
                given = {
                    "grant_type": "client_credentials",
                    "client_id": self._identity.people_client,
                    "client_secret": people_secret(),
                }
                url = self._identity.internal("token")
                answer = await self._fetch(
                    url, "asking for a token of its own", method="POST", body=urlencode(given)
                )
                self._token = str(answer["access_token"])
                self._until = time.monotonic() + float(answer["expires_in"]) - EARLY_SECONDS
            return self._token
