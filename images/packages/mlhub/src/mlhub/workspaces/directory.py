"""Keycloak's groups and people, by its admin API, as the service's own client.

Its service account has one role of `realm-management`, `manage-users`: Keycloak asks for it
wherever groups or memberships change, and it suffices to see both.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx

from mlhub.execution.problems import Problem
from mlhub.workspaces.settings import Keycloak

PAGE = 100
LONGEST_ATTRIBUTE = 255
"""Keycloak's column."""

LONGEST_TOLD = 300
"""Of an answer in the log, in characters."""

Object = dict[str, Any]

log = logging.getLogger(__name__)


class TakenError(Exception):
    """A group of that name is there already."""


@dataclass(frozen=True)
class Person:
    id: str
    name: str
    email: str
    enabled: bool


@dataclass(frozen=True)
class Group:
    id: str
    name: str
    attributes: dict[str, str]


def _fault(asked: str, answer: httpx.Response | httpx.HTTPError | ValueError | KeyError) -> Problem:
    """Noted, for whoever asks is told no more than what to do."""
    told: object = repr(answer)
    if isinstance(answer, httpx.Response):
        told = f"{answer.status_code} {answer.text[:LONGEST_TOLD]}"
    log.error("Keycloak, %s: %s", asked, told)
    way = "does not answer. Try again in a minute."
    if isinstance(answer, httpx.Response) and answer.is_client_error:
        way = "refuses what the service asks of it. Tell your administrator; it is in its log."
    return Problem(
        503,
        "keycloak",
        f"Keycloak, which knows who is in which workspace, {way}",
        headers={"Retry-After": "30"},
    )


class Directory:
    """One realm. Every method raises Problem (503) where Keycloak does not answer."""

    def __init__(self, settings: Keycloak, secret: str, client: httpx.AsyncClient):
        self._settings, self._secret, self._client = settings, secret, client
        self._admin = f"{settings.url}/admin/realms/{quote(settings.realm, safe='')}"
        self._token, self._until = "", 0.0
        self._lock = asyncio.Lock()

    # People

    async def named(self, name: str) -> Person | None:
        """Somebody by user name."""
        found = await self._users(username=name)
        return _person(found[0]) if len(found) == 1 else None

    async def person(self, who: str) -> Person | None:
        """Somebody by user name or by an e-mail address that Keycloak has verified: people may say
        of themselves that they have another's."""
        if (known := await self.named(who)) or "@" not in who:
            return known
        found = [one for one in await self._users(email=who) if one.get("emailVerified")]
        return _person(found[0]) if len(found) == 1 else None

    async def _users(self, **query: str) -> list[Object]:
        answer = await self._call("GET", "/users", params={**query, "exact": "true"})
        found: list[Object] = answer.json()
        return found

    async def paths(self, person: Person) -> list[str]:
        """The full paths of the groups that somebody is in."""
        return [group["path"] async for group in self._pages(f"/users/{person.id}/groups")]

    def may_log_in(self, paths: Collection[str]) -> bool:
        """Whether somebody in these groups may use the hub."""
        return not set(self._settings.access_groups).isdisjoint(paths)

    # Groups

    async def group(self, *names: str) -> Group | None:
        """A group by the names on its path."""
        path = "/".join(quote(name, safe="") for name in names)
        answer = await self._call("GET", f"/group-by-path/{path}")
        return None if answer.status_code == 404 else _group(answer.json())

    async def children(self, group: Group) -> list[Group]:
        path = f"/groups/{group.id}/children"
        return [_group(g) async for g in self._pages(path, briefRepresentation="false")]

    async def make(self, above: Group, name: str, attributes: dict[str, str]) -> Group:
        """Raises TakenError."""
        body = {"name": name, "attributes": _many(attributes)}
        answer = await self._call("POST", f"/groups/{above.id}/children", json=body)
        if answer.status_code == 409:
            raise TakenError(name)
        id = answer.headers["Location"].rpartition("/")[2]
        return Group(id, name, attributes)

    async def rename(self, group: Group, name: str, attributes: dict[str, str]) -> None:
        """A new name, and the attributes that it has from now on; raises TakenError."""
        body = {"name": name, "attributes": _many(attributes)}
        answer = await self._call("PUT", f"/groups/{group.id}", json=body)
        if answer.status_code == 409:
            raise TakenError(name)

    async def remove(self, group: Group) -> None:
        """With all below it; no error where there is none."""
        await self._call("DELETE", f"/groups/{group.id}")

    async def members(self, group: Group) -> list[Person]:
        return [_person(each) async for each in self._pages(f"/groups/{group.id}/members")]

    async def join(self, person: Person, group: Group) -> None:
        await self._call("PUT", f"/users/{person.id}/groups/{group.id}")

    async def leave(self, person: Person, group: Group) -> None:
        await self._call("DELETE", f"/users/{person.id}/groups/{group.id}")

    async def ping(self) -> None:
        await self._call("GET", "/group-by-path/workspaces")

    # Keycloak itself

    async def _pages(self, path: str, **query: str) -> AsyncIterator[Object]:
        first = 0
        while True:
            answer = await self._call("GET", path, params={"first": first, "max": PAGE, **query})
            # Whoever or whatever it is about may have gone since.
            page = [] if answer.status_code == 404 else answer.json()
            for each in page:
                yield each
            if len(page) < PAGE:
                return
            first += PAGE

    async def _call(self, method: str, path: str, **more: Any) -> httpx.Response:
        """The answer, where it is a yes, a 404 or a 409."""
        for again in (True, False):
            headers = {"Authorization": await self._authorization()}
            try:
                answer = await self._client.request(
                    method, self._admin + path, headers=headers, **more
                )
            except httpx.HTTPError as error:
                raise _fault(f"{method} {path}", error) from None
            if answer.status_code == 401 and again:
                self._until = 0.0
                continue
            break
        if answer.is_error and answer.status_code not in (404, 409):
            raise _fault(f"{method} {path}", answer)
        return answer

    async def _authorization(self) -> str:
        async with self._lock:
            if self._until <= time.monotonic():
                realm = quote(self._settings.realm, safe="")
                url = f"{self._settings.url}/realms/{realm}/protocol/openid-connect/token"
                form = {
                    "grant_type": "client_credentials",
                    "client_id": self._settings.client_id,
                    "client_secret": self._secret,
                }
                asked = "asked for a token"
                try:
                    answer = await self._client.post(url, data=form)
                    if answer.is_error:
                        raise _fault(asked, answer)
                    given = answer.json()
                    self._token = given["access_token"]
                    self._until = time.monotonic() + int(given["expires_in"]) * 0.8
                except (httpx.HTTPError, ValueError, KeyError) as error:
                    raise _fault(asked, error) from None
            return f"Bearer {self._token}"


def _person(given: Object) -> Person:
    return Person(
        given["id"], given["username"], given.get("email") or "", bool(given.get("enabled"))
    )


def _group(given: Object) -> Group:
    attributes = given.get("attributes") or {}
    return Group(given["id"], given["name"], {k: v[0] for k, v in attributes.items() if v})


def _many(attributes: dict[str, str]) -> dict[str, list[str]]:
    return {key: [value] for key, value in attributes.items() if value}
