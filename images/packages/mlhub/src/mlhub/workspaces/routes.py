"""The addresses of the API: what each takes, who may, what it answers."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.responses import HTMLResponse
from fastapi.security import HTTPBearer

from mlhub.execution import docs
from mlhub.execution.cluster import ClusterError
from mlhub.execution.identity import Caller, Callers
from mlhub.execution.problems import Problem, documented
from mlhub.workspaces import models, records
from mlhub.workspaces.models import CreateRequest, MemberRequest, ShareRequest
from mlhub.workspaces.records import Record
from mlhub.workspaces.rooms import Rooms
from mlhub.workspaces.store import Shared

router = APIRouter()
OPEN: dict[int | str, dict[str, Any]] = {500: documented()[500]}
"""`responses` of what needs no token."""


@dataclass(frozen=True)
class Api:
    """What the handlers work with; one for each application, in its `state`."""

    rooms: Rooms
    callers: Callers

    @property
    def base(self) -> str:
        return self.rooms.settings.base_path


@dataclass(frozen=True)
class Call:
    rooms: Rooms
    caller: Caller


def api_of(request: Request) -> Api:
    found: Api = request.app.state.api
    return found


async def call_of(
    request: Request, _: Annotated[Any, Depends(HTTPBearer(auto_error=False))]
) -> Call:
    api = api_of(request)
    return Call(api.rooms, await api.callers.of(request.headers.get("Authorization")))


Given = Annotated[Api, Depends(api_of)]
Who = Annotated[Call, Depends(call_of)]
Id = Annotated[str, Path(max_length=60, description="the workspace's id", examples=["churn"])]
User = Annotated[str, Path(max_length=255, description="a user name or an e-mail address")]


@router.get("/", response_model=models.Service, responses=OPEN)
async def service(api: Given, request: Request) -> models.Service:
    """What this is."""
    return models.Service(
        service="mlhub workspaces",
        docs=f"{api.base}/docs",
        endpoints=[
            f"{' '.join(sorted(methods)).upper()} {path}"
            for path, methods in request.app.openapi()["paths"].items()
        ],
    )


@router.get("/health", response_model=models.Health, responses=OPEN)
async def health(api: Given) -> models.Health:
    """Whether the service can do its work; it answers 200 as long as it lives, within the time of
    its pod's probes."""
    rooms = api.rooms
    database, keycloak, kubernetes = await asyncio.gather(
        _holds(rooms.store.db(rooms.store.ping)),
        _holds(rooms.directory.ping()),
        _holds(rooms.claims.ping()),
    )
    whole = database and keycloak and kubernetes
    return models.Health(
        status="healthy" if whole else "degraded",
        database=database,
        keycloak=keycloak,
        kubernetes=kubernetes,
    )


async def _holds(check: Awaitable[Any]) -> bool:
    try:
        async with asyncio.timeout(3):
            await check
    except (TimeoutError, Problem, ClusterError):
        return False
    return True


@router.get("/docs", include_in_schema=False)
async def documentation(api: Given, request: Request) -> HTMLResponse:
    return docs.page(request.app.openapi(), api.base)


@router.get("/workspaces", response_model=models.Workspaces, responses=documented(403))
async def list_workspaces(
    call: Who,
    deleted: Annotated[bool, Query(description="those that the caller can restore")] = False,
) -> models.Workspaces:
    """The caller's workspaces."""
    found = await call.rooms.mine(call.caller, deleted=deleted)
    return models.Workspaces(workspaces=[_workspace(call, *each) for each in found])


@router.post(
    "/workspaces",
    status_code=201,
    response_model=models.Workspace,
    responses=documented(403, 404, 409),
)
async def create_workspace(call: Who, asked: CreateRequest) -> models.Workspace:
    """A new workspace, with the caller as its owner; an administrator makes one for anybody."""
    made = await call.rooms.create(
        call.caller,
        asked.name,
        description=asked.description,
        owner=asked.owner,
        size=asked.size_gib,
    )
    return _workspace(call, made, "owner" if made.creator == call.caller.name else "")


@router.get("/workspaces/{id}", response_model=models.Workspace, responses=documented(403, 404))
async def get_workspace(call: Who, id: Id) -> models.Workspace:
    """One workspace of the caller's."""
    return _workspace(call, *await call.rooms.seen(call.caller, id))


@router.delete(
    "/workspaces/{id}", response_model=models.Workspace, responses=documented(403, 404, 409)
)
async def delete_workspace(call: Who, id: Id) -> models.Workspace:
    """Hidden from everybody at once; an owner can restore it until `restorable_until`."""
    return _workspace(call, await call.rooms.delete(call.caller, id), "owner")


@router.post(
    "/workspaces/{id}/restore",
    response_model=models.Workspace,
    responses=documented(403, 404, 409),
)
async def restore_workspace(call: Who, id: Id) -> models.Workspace:
    """As it was, members included."""
    return _workspace(call, await call.rooms.restore(call.caller, id), "owner")


@router.get(
    "/workspaces/{id}/members", response_model=models.Members, responses=documented(403, 404)
)
async def list_members(call: Who, id: Id) -> models.Members:
    """Everybody in the workspace, owners first."""
    record, _ = await call.rooms.seen(call.caller, id)
    return models.Members(
        members=[
            models.Member(user=person.name, email=person.email, role=models.Role(role))
            for person, role in await call.rooms.members(record)
        ]
    )


@router.put(
    "/workspaces/{id}/members",
    response_model=models.Member,
    responses=documented(403, 404, 409),
)
async def put_member(call: Who, id: Id, asked: MemberRequest) -> models.Member:
    """Add somebody, or change their role: for owners."""
    person = await call.rooms.put_member(call.caller, id, asked.user, asked.role)
    return models.Member(user=person.name, email=person.email, role=models.Role(asked.role))


@router.delete(
    "/workspaces/{id}/members/{user}", status_code=204, responses=documented(403, 404, 409)
)
async def remove_member(call: Who, id: Id, user: User) -> Response:
    """Owners remove anybody, and everybody themselves; never the last owner."""
    await call.rooms.remove_member(call.caller, id, user)
    return Response(status_code=204)


@router.get(
    "/workspaces/{id}/resources", response_model=models.Resources, responses=documented(403, 404)
)
async def list_resources(call: Who, id: Id) -> models.Resources:
    """The notebooks and folders that members have pointed the others to."""
    found = await call.rooms.shared(call.caller, id)
    return models.Resources(resources=[_resource(each) for each in found])


@router.post(
    "/workspaces/{id}/resources",
    status_code=201,
    response_model=models.Resource,
    responses=documented(403, 404),
)
async def share_resource(call: Who, id: Id, asked: ShareRequest) -> models.Resource:
    """Point the others to a notebook or folder: for owners and editors."""
    made = await call.rooms.share(
        call.caller, id, asked.resource_type, asked.resource_path, asked.shared_by
    )
    return _resource(made)


@router.delete(
    "/workspaces/{id}/resources/{resource}", status_code=204, responses=documented(403, 404)
)
async def unshare_resource(
    call: Who, id: Id, resource: Annotated[str, Path(max_length=32)]
) -> Response:
    """Take it off the list; the file stays."""
    await call.rooms.unshare(call.caller, id, resource)
    return Response(status_code=204)


def _workspace(call: Call, record: Record, role: str) -> models.Workspace:
    given = record.group.attributes
    return models.Workspace(
        id=record.slug,
        name=record.name,
        description=given.get(records.DESCRIPTION, ""),
        role=models.Role(role) if role else None,
        created_by=record.creator,
        created=_moment(given.get(records.CREATED)),
        size=given.get(records.SIZE, ""),
        deleted=record.deleted,
        restorable_until=record.restorable_until(call.rooms.grace),
    )


def _moment(text: str | None) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if text else None
    except ValueError:
        return None


def _resource(shared: Shared) -> models.Resource:
    return models.Resource(
        id=shared.id,
        resource_type="folder" if shared.type == "folder" else "notebook",
        resource_path=shared.path,
        shared_by=shared.shared_by,
        shared=datetime.fromtimestamp(shared.shared, UTC),
    )
