"""A Keycloak of a hundred lines for `make test`, where no real one can run.

It speaks the OpenID Connect that the hub uses and no more: code flow with PKCE, refresh, userinfo,
end of session. What the real one does is held by the end-to-end tests.
"""

import base64
import hashlib
import secrets
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

CLIENT_ID, CLIENT_SECRET = "jupyterhub", "a secret of the test"
PEOPLE = ("mlhub-hub", "another secret of the test")
"""The hub's own client, which may look people up."""
REALM = "mlhub"


@dataclass
class Keycloak:
    """`people` maps a user name to the value of the groups claim, None leaving the claim out.

    Whoever `at_the_browser` or a browser's own cookie `who` names is logged in there already and
    consents to everything.
    """

    redirect_uri: str
    address: str = ""
    people: dict[str, Any] = field(default_factory=dict)
    at_the_browser: str = ""
    ended: list[dict[str, str]] = field(default_factory=list)
    """The query of each log-out."""
    silent: int = 0
    """The HTTP status that it answers everything with, when it is not well."""

    _codes: dict[str, tuple[str, str]] = field(default_factory=dict)
    _access: dict[str, str] = field(default_factory=dict)
    disabled: set[str] = field(default_factory=set)
    """Who may not log in any more; whose account is deleted is in `people` no longer."""
    names: dict[str, str] = field(default_factory=dict)
    """Of workspaces, by slug."""
    looked_up: int = 0
    """How often somebody was, by the hub's own client."""
    sessions: dict[str, str] = field(default_factory=dict)
    """Refresh token to user name; emptied, every session is over."""

    def application(self) -> web.Application:
        base = f"/realms/{REALM}"
        connect = f"{base}/protocol/openid-connect"
        app = web.Application(middlewares=[self._well])
        app.add_routes(
            [
                web.get(f"{base}/.well-known/openid-configuration", self._discover),
                web.get(f"{connect}/auth", self._auth),
                web.post(f"{connect}/token", self._token),
                web.get(f"{connect}/userinfo", self._userinfo),
                web.get(f"{connect}/logout", self._logout),
                web.get(f"/admin{base}/users/{{sub}}", self._person),
                web.get(f"/admin{base}/users/{{sub}}/groups", self._person_groups),
                web.get(f"/admin{base}/group-by-path/workspaces/{{slug}}", self._workspace),
            ]
        )
        return app

    @web.middleware
    async def _well(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if self.silent:
            return web.Response(status=self.silent, text="not well")
        return await handler(request)

    async def _discover(self, request: web.Request) -> web.Response:
        return web.json_response({"issuer": str(request.url.origin())})

    async def _auth(self, request: web.Request) -> web.Response:
        asked = request.query
        if (asked["client_id"], asked["redirect_uri"]) != (CLIENT_ID, self.redirect_uri):
            return web.Response(status=400, text="Invalid parameter: redirect_uri")
        if asked.get("code_challenge_method") != "S256":
            return web.Response(status=400, text="Missing parameter: code_challenge_method")
        code = secrets.token_hex()
        who = request.cookies.get("who", self.at_the_browser)
        self._codes[code] = (who, asked["code_challenge"])
        back = urlencode({"code": code, "state": asked["state"]})
        raise web.HTTPFound(f"{self.redirect_uri}?{back}")

    async def _token(self, request: web.Request) -> web.Response:
        given = await request.post()
        if given["grant_type"] == "client_credentials":
            if (given["client_id"], given["client_secret"]) != PEOPLE:
                return web.json_response({"error": "invalid_client"}, status=401)
            return web.json_response({"access_token": "the hub's own", "expires_in": 60})
        if (given["client_id"], given["client_secret"]) != (CLIENT_ID, CLIENT_SECRET):
            return web.json_response({"error": "invalid_client"}, status=401)
        if given["grant_type"] == "refresh_token":
            name = self.sessions.get(str(given["refresh_token"]))
        else:
            name, challenge = self._codes.pop(str(given["code"]), ("", ""))
            verified = hashlib.sha256(str(given["code_verifier"]).encode()).digest()
            if base64.urlsafe_b64encode(verified).decode().rstrip("=") != challenge:
                name = ""
        if name not in self.people or name in self.disabled:
            return web.json_response({"error": "invalid_grant"}, status=400)
        access, refresh = secrets.token_hex(), secrets.token_hex()
        self._access[access] = self.sessions[refresh] = name
        return web.json_response(
            {
                "access_token": access,
                "refresh_token": refresh,
                "id_token": f"id-of-{name}",
                "token_type": "Bearer",
                "scope": "openid profile",
            }
        )

    async def _userinfo(self, request: web.Request) -> web.Response:
        name = self._access.get(request.headers["Authorization"].removeprefix("Bearer "))
        if name not in self.people:
            return web.json_response({"error": "invalid_token"}, status=401)
        claims = {
            "sub": f"sub-of-{name}",
            "preferred_username": name,
            "email": f"{name}@mlhub.example",
        }
        if (groups := self.people[name]) is not None:
            claims["groups"] = groups
        return web.json_response(claims)

    def _is_the_hub(self, request: web.Request) -> None:
        if request.headers["Authorization"] != "Bearer the hub's own":
            raise web.HTTPUnauthorized()

    async def _workspace(self, request: web.Request) -> web.Response:
        self._is_the_hub(request)
        slug = request.match_info["slug"]
        if slug not in self.names:
            raise web.HTTPNotFound()
        attributes = {"mlhub.name": [self.names[slug]], "mlhub.size": ["10Gi"]}
        return web.json_response({"name": slug, "attributes": attributes})

    def _looked_up(self, request: web.Request) -> str:
        self._is_the_hub(request)
        name = request.match_info["sub"].removeprefix("sub-of-")
        if name not in self.people:
            raise web.HTTPNotFound()
        return name

    async def _person(self, request: web.Request) -> web.Response:
        self.looked_up += 1
        name = self._looked_up(request)
        return web.json_response({"username": name, "enabled": name not in self.disabled})

    async def _person_groups(self, request: web.Request) -> web.Response:
        groups = self.people[self._looked_up(request)] or []
        return web.json_response([{"path": path} for path in groups])

    async def _logout(self, request: web.Request) -> web.Response:
        self.ended.append(dict(request.query))
        return web.Response(text="logged out")
