"""What the workspaces service needs around it: a realm's groups, claims, a Hub; and who is who.

The realm speaks as much of Keycloak's admin API as the service does. What the real one does is held
by tests/engine/test_workspaces.py, which runs the same matrix against it.
"""

import asyncio
import itertools
import ssl
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import uvicorn
from aiohttp import web

from mlhub.workspaces.app import build_app
from mlhub.workspaces.settings import Settings

BASE = "/services/workspaces"
SCOPE = "access:services!service=workspaces"
USERS, ADMINS = "/mlhub/users", "/mlhub/admins"
PEOPLE = {
    **dict.fromkeys(("olga", "otto", "edda", "vera", "fran", "sam", "extra"), USERS),
    "ada": ADMINS,
    "mallory": "",
}
"""User names with their group: two owners, an editor, a viewer, a former member, a stranger, one
to add and remove, an administrator, and one who may not use the hub."""
CLIENT, SECRET = "mlhub-workspaces", "a secret of the test"

Object = dict[str, Any]


def settings(keycloak: str, hub: str, kubernetes: str, database: str, **given: Any) -> Settings:
    return Settings.model_validate(
        {
            "database_url": database,
            "base_path": BASE,
            "kubernetes_url": kubernetes,
            "hub": {"api_url": hub, "scope": SCOPE, "cache_seconds": 0, "patience_seconds": 0},
            "keycloak": {
                "url": keycloak,
                "realm": "mlhub",
                "client_id": CLIENT,
                "access_groups": [USERS, ADMINS],
            },
            "claims": {
                "namespace": "jupyterhub",
                "storage_class": "homes",
                "access_mode": "ReadWriteMany",
                "size_gib": 10,
                "largest_gib": 50,
            },
            "limits": {"per_person": 3, "grace_days": 7},
        }
        | given
    )


@dataclass
class Realm:
    """Groups and people of one realm."""

    groups: dict[str, Object] = field(default_factory=dict)
    users: dict[str, Object] = field(default_factory=dict)
    members: set[tuple[str, str]] = field(default_factory=set)
    """User id and group id."""
    silent: int = 0
    dies_before: str = ""
    """`METHOD path` beginning of the call that never comes, as if the service were killed there."""
    calls: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for path in (USERS, ADMINS, "/workspaces"):
            self.put(path)
        for name, path in PEOPLE.items():
            self.users[name] = {
                "id": f"id-of-{name}",
                "username": name,
                "email": f"{name}@mlhub.example",
                "emailVerified": True,
                "enabled": True,
            }
            if path:
                self.members.add((f"id-of-{name}", self.put(path)["id"]))

    def put(self, path: str) -> Object:
        """The group of that path, made with those above it where it is not there."""
        above = ""
        for name in path.strip("/").split("/"):
            found = self.child(above, name)
            if found is None:
                found = {"id": str(uuid.uuid4()), "name": name, "parentId": above, "attributes": {}}
                self.groups[found["id"]] = found
            above = found["id"]
        return self.groups[above]

    def child(self, above: str, name: str) -> Object | None:
        return next(
            (g for g in self.groups.values() if (g["parentId"], g["name"]) == (above, name)), None
        )

    def path(self, group: Object) -> str:
        above = self.groups.get(group["parentId"])
        return (self.path(above) if above else "") + "/" + group["name"]

    def paths(self, name: str) -> set[str]:
        """The groups below /workspaces that somebody is in."""
        mine = {group for user, group in self.members if user == f"id-of-{name}"}
        found = {self.path(self.groups[id]) for id in mine if id in self.groups}
        return {path for path in found if path.startswith("/workspaces/")}

    def application(self) -> web.Application:
        admin = "/admin/realms/mlhub"
        app = web.Application(middlewares=[self._well])
        app.add_routes(
            [
                web.post("/realms/mlhub/protocol/openid-connect/token", self._token),
                web.get(f"{admin}/users", self._users),
                web.get(f"{admin}/users/{{id}}/groups", self._user_groups),
                web.put(f"{admin}/users/{{id}}/groups/{{group}}", self._join),
                web.delete(f"{admin}/users/{{id}}/groups/{{group}}", self._leave),
                web.get(f"{admin}/group-by-path/{{path:.+}}", self._by_path),
                web.get(f"{admin}/groups/{{id}}/children", self._children),
                web.post(f"{admin}/groups/{{id}}/children", self._make),
                web.get(f"{admin}/groups/{{id}}/members", self._members),
                web.put(f"{admin}/groups/{{id}}", self._rename),
                web.delete(f"{admin}/groups/{{id}}", self._remove),
            ]
        )
        return app

    @web.middleware
    async def _well(self, request: web.Request, handler: Any) -> web.StreamResponse:
        call = f"{request.method} {request.path}"
        if self.silent or (self.dies_before and call.startswith(self.dies_before)):
            return web.json_response({"error": "not well"}, status=self.silent or 500)
        if "/admin/" in request.path:
            assert request.headers["Authorization"] == "Bearer of-the-service"
        self.calls.append(call)
        await asyncio.sleep(0)
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _token(self, request: web.Request) -> web.Response:
        form = await request.post()
        assert (form["grant_type"], form["client_id"]) == ("client_credentials", CLIENT)
        if form["client_secret"] != SECRET:
            return web.json_response({"error": "unauthorized_client"}, status=401)
        return web.json_response({"access_token": "of-the-service", "expires_in": 60})

    def _paged(self, request: web.Request, found: list[Object]) -> web.Response:
        first, most = int(request.query["first"]), int(request.query["max"])
        return web.json_response(found[first : first + most])

    async def _users(self, request: web.Request) -> web.Response:
        assert request.query["exact"] == "true"
        (key,) = set(request.query) - {"exact"}
        wanted = request.query[key].lower()
        return web.json_response([u for u in self.users.values() if u[key] == wanted])

    async def _user_groups(self, request: web.Request) -> web.Response:
        mine = [g for user, g in self.members if user == request.match_info["id"]]
        found = [self.groups[g] for g in mine if g in self.groups]
        return self._paged(request, [{**g, "path": self.path(g)} for g in found])

    async def _join(self, request: web.Request) -> web.Response:
        self.members.add((request.match_info["id"], request.match_info["group"]))
        return web.Response(status=204)

    async def _leave(self, request: web.Request) -> web.Response:
        self.members.discard((request.match_info["id"], request.match_info["group"]))
        return web.Response(status=204)

    async def _by_path(self, request: web.Request) -> web.Response:
        wanted = "/" + request.match_info["path"]
        found = next((g for g in self.groups.values() if self.path(g) == wanted), None)
        return web.json_response(found or {"error": "no"}, status=200 if found else 404)

    async def _children(self, request: web.Request) -> web.Response:
        assert request.query["briefRepresentation"] == "false", "without it no attributes"
        above = request.match_info["id"]
        return self._paged(request, [g for g in self.groups.values() if g["parentId"] == above])

    async def _make(self, request: web.Request) -> web.Response:
        above, given = request.match_info["id"], await request.json()
        if self.child(above, given["name"]):
            return web.json_response({"errorMessage": "there"}, status=409)
        made = {"id": str(uuid.uuid4()), "parentId": above, **given}
        self.groups[made["id"]] = made
        where = f"http://keycloak/admin/realms/mlhub/groups/{made['id']}"
        return web.json_response(made, status=201, headers={"Location": where})

    async def _members(self, request: web.Request) -> web.Response:
        wanted = request.match_info["id"]
        found = [u for u in self.users.values() if (u["id"], wanted) in self.members]
        return self._paged(request, found)

    async def _rename(self, request: web.Request) -> web.Response:
        group, given = self.groups[request.match_info["id"]], await request.json()
        there = self.child(group["parentId"], given["name"])
        if there and there is not group:
            return web.json_response({"errorMessage": "there"}, status=409)
        group |= given
        return web.Response(status=204)

    async def _remove(self, request: web.Request) -> web.Response:
        ends = {request.match_info["id"]}
        for _ in range(3):
            ends |= {id for id, g in self.groups.items() if g["parentId"] in ends}
        self.groups = {id: g for id, g in self.groups.items() if id not in ends}
        self.members = {(u, g) for u, g in self.members if g not in ends}
        return web.Response(status=204)


@dataclass
class Volumes:
    """The claims of one namespace."""

    claims: dict[str, Object] = field(default_factory=dict)
    refuses: str = ""
    silent: int = 0
    """The status with which it answers whatever is read."""
    ids: Any = field(default_factory=itertools.count)

    def application(self) -> web.Application:
        path = "/api/v1/namespaces/jupyterhub/persistentvolumeclaims"
        app = web.Application()
        app.add_routes(
            [
                web.post(path, self._make),
                web.get(path + "/{name}", self._read),
                web.delete(path + "/{name}", self._remove),
            ]
        )
        return app

    async def _make(self, request: web.Request) -> web.Response:
        claim = await request.json()
        name = claim["metadata"]["name"]
        if self.refuses:
            return web.json_response({"message": self.refuses}, status=403)
        if name in self.claims:
            return web.json_response({"message": f"{name} exists"}, status=409)
        claim["metadata"]["uid"] = f"uid-{next(self.ids)}"
        self.claims[name] = claim
        return web.json_response(claim, status=201)

    async def _read(self, request: web.Request) -> web.Response:
        if self.silent:
            return web.json_response({"message": "etcd"}, status=self.silent)
        found = self.claims.get(request.match_info["name"])
        return web.json_response(found or {"message": "no"}, status=200 if found else 404)

    async def _remove(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        given = await request.json()
        assert given["preconditions"]["uid"] == self.claims[name]["metadata"]["uid"]
        return web.json_response(self.claims.pop(name))


@dataclass
class Hub:
    """The Hub's `/user` for the tokens `token-of-<name>`, and what it is told."""

    told: list[tuple[str, str, str | None]] = field(default_factory=list)
    deaf: bool = False
    tokens: dict[str, Object] = field(default_factory=dict)
    """More of them, each with its model."""

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/hub/api/user", self._user)
        app.router.add_post("/hub/api/mlhub/members", self._members)
        return app

    async def _user(self, request: web.Request) -> web.Response:
        token = request.headers["Authorization"].removeprefix("token ")
        name = token.removeprefix("token-of-")
        model = self.tokens.get(token) or {
            "kind": "user",
            "name": name,
            "admin": name == "ada",
            "scopes": [SCOPE],
        }
        known = token in self.tokens or name in PEOPLE
        return web.json_response(model, status=200 if known else 403)

    async def _members(self, request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == "token of-the-service"
        if self.deaf:
            return web.Response(status=503)
        given = await request.json()
        self.told.append((given["user"], given["workspace"], given["role"]))
        return web.Response(status=204)


@dataclass
class Service:
    """A replica that serves."""

    url: str
    app: Any

    def client(self, name: str = "") -> httpx.AsyncClient:
        """Somebody's; without a name nobody's."""
        headers = {"Authorization": f"Bearer token-of-{name}"} if name else {}
        return httpx.AsyncClient(
            # Plain HTTP: loading certificates for each client would take most of the time.
            base_url=self.url + BASE,
            headers=headers,
            timeout=60,
            trust_env=False,
            verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        )

    async def ask(self, who: str, method: str, path: str, /, **body: Any) -> httpx.Response:
        async with self.client(who) as client:
            return await client.request(method, path, json=body or None)


@asynccontextmanager
async def serving(given: Settings, secret: str = SECRET) -> AsyncIterator[Service]:
    app = build_app(given, keycloak_secret=secret, hub_token="of-the-service")
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning")
    config.timeout_graceful_shutdown = 1
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    task = asyncio.create_task(server.serve())
    while not server.started:
        assert not task.done(), task.exception()
        await asyncio.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield Service(f"http://127.0.0.1:{port}", app)
    finally:
        server.should_exit = True
        await asyncio.wait_for(task, 60)


ROLES = ("owner", "editor", "viewer", "stranger", "former", "admin")
WHO = dict(zip(ROLES, ("olga", "edda", "vera", "sam", "fran", "ada"), strict=True))
MATRIX = {
    "get": (200, 200, 200, 404, 404, 200),
    "members": (200, 200, 200, 404, 404, 200),
    "shared": (200, 200, 200, 404, 404, 200),
    "add": (200, 403, 403, 404, 404, 200),
    "change": (200, 403, 403, 404, 404, 200),
    "remove": (204, 403, 403, 404, 404, 204),
    "share": (201, 201, 403, 404, 404, 201),
    "unshare": (204, 204, 403, 404, 404, 204),
    "delete": (200, 403, 403, 404, 404, 200),
    "restore": (200, 403, 403, 404, 404, 200),
    "leave": (204, 204, 204, 404, 404, 404),
}
"""Row M7: what each may do, by the answer's status; the administrator is in no workspace."""


async def furnished(service: Service) -> str:
    """A workspace with two owners, an editor, a viewer and somebody who was a member."""
    made = await service.ask("olga", "POST", "/workspaces", name="Fraud Detection")
    assert made.status_code == 201, made.text
    slug = str(made.json()["id"])
    for name, role in (
        ("otto", "owner"),
        ("edda", "editor"),
        ("vera", "viewer"),
        ("fran", "editor"),
    ):
        put = await member(service, slug, name, role)
        assert put.status_code == 200, put.text
    gone = await service.ask("olga", "DELETE", f"/workspaces/{slug}/members/fran")
    assert gone.status_code == 204, gone.text
    return slug


async def member(
    service: Service, slug: str, name: str, role: str, by: str = "otto"
) -> httpx.Response:
    who = by if by != "otto" or name != "otto" else "olga"
    return await service.ask(who, "PUT", f"/workspaces/{slug}/members", user=name, role=role)


async def attempt(service: Service, slug: str, operation: str, role: str) -> int:
    """The status that `role` gets; everything is as before afterwards."""
    at, who = f"/workspaces/{slug}", WHO[role]
    share = {"resource_type": "notebook", "resource_path": f"of-{role}.ipynb"}
    if operation in ("change", "remove"):
        await member(service, slug, "extra", "editor")
    if operation == "restore":
        await service.ask("otto", "DELETE", at)
    if operation == "unshare":
        shared = await service.ask("otto", "POST", f"{at}/resources", **share)
        unshared = f"{at}/resources/{shared.json()['id']}"
    calls: dict[str, tuple[str, str, Object]] = {
        "get": ("GET", at, {}),
        "members": ("GET", f"{at}/members", {}),
        "shared": ("GET", f"{at}/resources", {}),
        "add": ("PUT", f"{at}/members", {"user": "extra@mlhub.example", "role": "viewer"}),
        "change": ("PUT", f"{at}/members", {"user": "extra", "role": "owner"}),
        "remove": ("DELETE", f"{at}/members/extra", {}),
        "share": ("POST", f"{at}/resources", share),
        "unshare": ("DELETE", unshared if operation == "unshare" else "", {}),
        "delete": ("DELETE", at, {}),
        "restore": ("POST", f"{at}/restore", {}),
        "leave": ("DELETE", f"{at}/members/{who}", {}),
    }
    method, path, body = calls[operation]
    answer = await service.ask(who, method, path, **body)
    if operation in ("delete", "restore"):
        await service.ask("otto", "POST", f"{at}/restore")
    if operation == "leave" and answer.status_code == 204:
        await member(service, slug, who, role)
    if operation in ("add", "change", "remove"):
        await service.ask("otto", "DELETE", f"{at}/members/extra")
    return answer.status_code
