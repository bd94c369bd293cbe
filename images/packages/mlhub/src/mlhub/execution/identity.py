"""Who is calling: a person with a token of the Hub, or a service with one of Keycloak's.

A Hub token has to be a person's and allowed to use this service; its scopes are checked, for the
Hub answers `/user` to any token that lives. Keycloak's has to be a client's own (client
credentials), from this realm, for this service, and the client on the list of the settings.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import jwt

from mlhub.execution.problems import Problem
from mlhub.execution.settings import Hub, Keycloak

ALGORITHMS = ["RS256", "PS256", "ES256"]
"""Never what the token itself asks for."""

LEEWAY_SECONDS = 10
KEYS_SECONDS = 300
KEYS_AGAIN_SECONDS = 10
"""An unknown key is asked for this often at most: a caller makes up as many as they like."""

MOST_CACHED = 10_000
LONGEST_TOKEN = 8192

KEPT_SECONDS = 300
"""How long a person stays known while the Hub is silent, as while it restarts. Nobody but the Hub
revokes a token, and it is asked again as soon as it answers."""

SILENT_SECONDS = 3
"""How long nobody asks a Hub that did not answer, of those who are known."""

log = logging.getLogger(__name__)


class _SilentError(Exception):
    """The Hub gave no answer, neither yes nor no."""


@dataclass(frozen=True)
class Caller:
    """`people` are those for whom a service may run; a person runs for themselves."""

    name: str
    admin: bool = False
    people: Sequence[str] | None = None

    def may_act_for(self, user: str) -> bool:
        if self.people is not None:
            return user in self.people
        return self.admin or user == self.name


SERVICE_ACCOUNT = "service-account-"
"""How Keycloak begins the name of a client's own account."""


def people_of(caller: str, keycloak: Keycloak | None) -> Sequence[str] | None:
    """For whom a caller of that name may run by the stack file; None for a person."""
    if not caller.startswith(SERVICE_ACCOUNT):
        return None
    clients = keycloak.clients if keycloak else {}
    return clients.get(caller.removeprefix(SERVICE_ACCOUNT), ())


def unauthorized(detail: str) -> Problem:
    return Problem(401, "token", detail, headers={"WWW-Authenticate": "Bearer"})


class HubTokens:
    """People's tokens, asked for at the Hub's API and remembered for seconds."""

    def __init__(self, hub: Hub, client: httpx.AsyncClient, clock: Callable[[], float] = time.time):
        self._hub, self._client, self._clock = hub, client, clock
        self._known: dict[str, tuple[float, Caller | Problem]] = {}
        self._silent_until = 0.0

    async def caller(self, token: str) -> Caller:
        """Raises Problem: 401, 403, or 503 where the Hub is silent and has not told of late."""
        key = hashlib.sha256(token.encode()).hexdigest()
        asked, found = self._known.get(key, (float("-inf"), None))
        if found is None or self._clock() >= asked + self._hub.cache_seconds:
            if isinstance(found, Caller) and self._clock() < asked + KEPT_SECONDS:
                found = await self._ask_or_keep(token, key, found)
            else:
                found = await self._ask_for_long(token, key)
        if isinstance(found, Problem):
            raise found
        return found

    async def _ask_or_keep(self, token: str, key: str, kept: Caller) -> Caller | Problem:
        if self._clock() >= self._silent_until:
            try:
                return await self._ask(token, key)
            except _SilentError:
                self._silent_until = self._clock() + SILENT_SECONDS
        return kept

    async def _ask_for_long(self, token: str, key: str) -> Caller | Problem:
        """A stranger waits for a moment in which the Hub is busy or away."""
        until = self._clock() + self._hub.patience_seconds
        while True:
            try:
                return await self._ask(token, key)
            except _SilentError:
                if self._clock() + 1 >= until:
                    raise _silent("The Hub, which knows whose token this is,") from None
                await asyncio.sleep(1)

    async def _ask(self, token: str, key: str) -> Caller | Problem:
        """Ask and remember. Raises _SilentError."""
        try:
            answer = await self._client.get(
                f"{self._hub.api_url}/user", headers={"Authorization": f"token {token}"}
            )
            if answer.status_code in (401, 403):
                found: Caller | Problem = unauthorized(
                    "The token is unknown to the Hub or has expired. Make one on the Hub's page "
                    "'Token' and send it as 'Authorization: Bearer …'."
                )
            else:
                answer.raise_for_status()
                found = self._judge(answer.json())
        except (httpx.HTTPError, ValueError, KeyError) as error:
            log.warning("The Hub does not answer: %r", error)
            raise _SilentError from None
        if len(self._known) >= MOST_CACHED:
            self._known.clear()
        self._known[key] = (self._clock(), found)
        return found

    def _judge(self, model: dict[str, Any]) -> Caller | Problem:
        if model.get("kind") != "user":
            return Problem(
                403, "not-a-person", "The token is a Hub service's; a person's token is required."
            )
        if not {self._hub.scope, self._hub.scope.partition("!")[0]} & set(model["scopes"]):
            return Problem(
                403,
                "scope",
                f"The token lacks the scope {self._hub.scope}; make one that has it, or one "
                "without a list of scopes, on the Hub's page 'Token'.",
            )
        return Caller(model["name"], admin=model.get("admin") is True)


class ServiceTokens:
    """Tokens that Keycloak gives a client for its own secret."""

    def __init__(
        self, keycloak: Keycloak, client: httpx.AsyncClient, clock: Callable[[], float] = time.time
    ):
        self._keycloak, self._client, self._clock = keycloak, client, clock
        self._keys: dict[str, jwt.PyJWK] = {}
        self._asked = float("-inf")
        self._lock = asyncio.Lock()

    async def caller(self, token: str) -> Caller:
        """Raises Problem: 401, 403, or 503 where Keycloak is silent."""
        wrong = unauthorized(
            "The token is none of Keycloak's for this service, or has expired. Ask the realm for "
            f"one with grant_type=client_credentials and audience {self._keycloak.audience}."
        )
        try:
            kid = str(jwt.get_unverified_header(token)["kid"])
            claims = jwt.decode(
                token,
                await self._key(kid),
                algorithms=ALGORITHMS,
                audience=self._keycloak.audience,
                issuer=self._keycloak.issuer,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp", "iat", "aud", "iss", "sub"]},
            )
        except (jwt.PyJWTError, KeyError, ValueError):
            raise wrong from None
        # A realm signs its identity and refresh tokens with the same keys.
        if claims.get("typ") != "Bearer":
            raise wrong
        client, name = str(claims.get("azp")), str(claims.get("preferred_username"))
        if name != f"{SERVICE_ACCOUNT}{client}":
            raise Problem(
                403, "not-a-service", "The token is a person's; people use a token of the Hub's."
            )
        people = people_of(name, self._keycloak)
        if not people:
            raise Problem(
                403,
                "client",
                f"The client {client} may run notebooks for nobody; an administrator lists it "
                "under execution.clients in the stack file.",
            )
        return Caller(name, people=tuple(people))

    async def _key(self, kid: str) -> jwt.PyJWK:
        """Raises KeyError for a key that the realm does not have."""
        async with self._lock:
            age = self._clock() - self._asked
            if age > KEYS_SECONDS or (kid not in self._keys and age > KEYS_AGAIN_SECONDS):
                self._keys = await self._fetch()
                self._asked = self._clock()
            return self._keys[kid]

    async def _fetch(self) -> dict[str, jwt.PyJWK]:
        try:
            answer = await self._client.get(self._keycloak.jwks_url)
            answer.raise_for_status()
            keys = answer.json()["keys"]
        except (httpx.HTTPError, ValueError, KeyError):
            raise _silent("Keycloak, which knows whose token this is,") from None
        found = {}
        for key in keys:
            try:
                found[str(key["kid"])] = jwt.PyJWK(key)
            except (jwt.PyJWTError, KeyError):  # for encryption, or of a kind to come
                continue
        return found


def _silent(who: str) -> Problem:
    return Problem(
        503,
        "identity",
        f"{who} does not answer. Try again in a minute.",
        headers={"Retry-After": "30"},
    )


class Callers:
    """Either kind, told apart by shape: a Hub token has no dots."""

    def __init__(self, people: HubTokens, services: ServiceTokens | None):
        self._people, self._services = people, services

    async def of(self, authorization: str | None) -> Caller:
        """The caller of an `Authorization` header; raises Problem."""
        scheme, _, token = (authorization or "").partition(" ")
        token = token.strip()
        if scheme.lower() not in ("bearer", "token") or not token or not token.isascii():
            raise unauthorized(
                "A token is required: make one on the Hub's page 'Token' and send it as "
                "'Authorization: Bearer …'."
            )
        if len(token) > LONGEST_TOKEN or not token.isprintable() or " " in token:
            raise unauthorized("The token has a shape that no token has.")
        if token.count(".") == 2:
            if self._services is None:
                raise unauthorized("This platform takes tokens of the Hub alone.")
            return await self._services.caller(token)
        return await self._people.caller(token)
