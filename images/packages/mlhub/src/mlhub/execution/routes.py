"""The addresses of the API: what each takes, who may, what it answers."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.responses import HTMLResponse, StreamingResponse
from fastapi.security import HTTPBearer
from pydantic import BeforeValidator
from starlette.types import Receive, Scope, Send

from mlhub.execution import docs, inputs, jobs
from mlhub.execution.at_once import AtOnce
from mlhub.execution.cluster import ClusterError
from mlhub.execution.identity import Caller, Callers
from mlhub.execution.listing import Listings
from mlhub.execution.models import (
    Artifact,
    Artifacts,
    ExecuteRequest,
    Health,
    HowToRun,
    Listing,
    Notebook,
    RunId,
    RunList,
    RunModel,
    RunNotebookRequest,
    Service,
    Status,
    UserName,
    moment,
)
from mlhub.execution.problems import Problem, answer, documented
from mlhub.execution.runs import Runs
from mlhub.execution.schedules import Schedules
from mlhub.execution.store import Run
from mlhub.execution.sweeps import Sweeps

LONGEST_WAIT = 600
POLL_SECONDS = 0.5
ENDED = {"cell-timeout": 504, "time-limit": 504, "not-started": 504, "not-found": 404}
"""Statuses of a waited run that failed, by reason; any other is 422."""

LOG: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Text; with `follow` it comes as it is written",
        "content": {"text/plain": {"schema": {"type": "string"}}},
    }
}

Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern=r"^[\x21-\x7e]{1,200}$",
        description="with the same key and request again, the same run is answered",
    ),
]
Wait = Annotated[
    int,
    Query(ge=0, le=LONGEST_WAIT, description="seconds to wait for the end; 0 answers at once"),
]
RunIdPath = Annotated[RunId, Path()]


@dataclass(frozen=True)
class Api:
    """What the handlers work with; one for each application, in its `state`."""

    runs: Runs
    callers: Callers
    listings: Listings
    schedules: Schedules
    sweeps: Sweeps
    waiters: AtOnce = field(
        default_factory=lambda: AtOnce("Ask without wait; GET /runs/<id> says how far a run is.")
    )
    followers: AtOnce = field(
        default_factory=lambda: AtOnce("Ask without follow for what a run has said so far.")
    )

    @property
    def base(self) -> str:
        return self.runs.settings.base_path


def api_of(request: Request) -> Api:
    found: Api = request.app.state.api
    return found


@dataclass(frozen=True)
class Call:
    api: Api
    caller: Caller
    request: Request


async def call_of(
    request: Request, _: Annotated[Any, Depends(HTTPBearer(auto_error=False))]
) -> Call:
    api = api_of(request)
    return Call(api, await api.callers.of(request.headers.get("Authorization")), request)


Given = Annotated[Api, Depends(api_of)]
Who = Annotated[Call, Depends(call_of)]
router = APIRouter()
OPEN: dict[int | str, dict[str, Any]] = {500: documented()[500]}
"""`responses` of what needs no token."""


@router.get("/", response_model=Service, responses=OPEN)
async def service(api: Given, request: Request) -> Service:
    """What this is."""
    return Service(
        service=f"mlhub execution {mlhub_version()}",
        docs=f"{api.base}/docs",
        endpoints=[
            f"{' '.join(sorted(methods)).upper()} {path}"
            for path, methods in request.app.openapi()["paths"].items()
        ],
    )


@router.get("/health", response_model=Health, responses=OPEN)
async def health(api: Given) -> Health:
    """Whether the service can do its work; it answers 200 as long as it lives, within the time of
    its pod's probes."""
    database, kubernetes = await asyncio.gather(
        _holds(api.runs.db(api.runs.store.ping)), _holds(api.runs.cluster.ping())
    )
    profile = api.runs.settings.profile(None)
    return Health(
        status="healthy" if database and kubernetes else "degraded",
        papermill_available=kubernetes,
        papermill_path=profile.image if profile else "",
        timestamp=moment(api.runs.clock()),
        database=database,
        kubernetes=kubernetes,
    )


@router.get("/docs", include_in_schema=False)
async def documentation(api: Given, request: Request) -> HTMLResponse:
    return docs.page(request.app.openapi(), api.base)


@router.get(
    "/list-notebooks/{username}",
    response_model=Listing,
    responses=documented(403, 404, 409, 504),
)
async def list_notebooks(call: Who, username: Annotated[UserName, Path()]) -> Listing:
    """The notebooks in a person's home, sub-folders included."""
    may_act(call.caller, username)
    taken, found = await call.api.listings.of(username)
    home = call.api.runs.settings.pod.home_mount
    return Listing(
        username=username,
        user_home=home,
        notebook_count=len(found),
        notebooks=[
            Notebook(
                name=n["path"].rpartition("/")[2],
                path=f"{home}/{n['path']}",
                relative_path=n["path"],
                size=n["size"],
                modified=n["modified"],
            )
            for n in found
        ],
        timestamp=moment(taken),
    )


ACCEPTED: dict[int | str, dict[str, Any]] = {
    200: {"model": RunModel, "description": "The run has succeeded while you waited"},
    202: {"model": RunModel, "description": "The run is accepted"},
}


@router.post(
    "/execute",
    response_model=RunModel,
    status_code=202,
    responses=ACCEPTED | documented(403, 404, 409, 429, 504),
)
async def execute(
    call: Who,
    body: ExecuteRequest,
    response: Response,
    key: Key = None,
    wait: Wait = 0,
) -> Any:
    """Run a notebook, found by its name or given by its path."""
    may_act(call.caller, body.username)
    with _waiting(call, wait):
        run = await call.api.runs.submit(
            call.caller,
            user=body.username,
            notebook=await _notebook_of(call, body, key),
            output=None,
            parameters=body.parameters,
            how=how_of(body),
            key=key,
        )
        return await _answered(call, run, wait, response)


async def _notebook_of(call: Call, body: ExecuteRequest, key: str | None) -> str:
    """The notebook's path; raises Problem."""
    name = body.notebook_name
    if inputs.is_bare_name(name) and key:
        # A repeated request is answered although another notebook has that name by now.
        known = await call.api.runs.db(call.api.runs.store.by_key, call.caller.name, key)
        if known and known.notebook.rpartition("/")[2] == name:
            return str(known.notebook)
    return await found_notebook(call.api, body.username, name)


@router.post(
    "/run-notebook",
    response_model=RunModel,
    status_code=202,
    responses=ACCEPTED | documented(403, 404, 409, 429, 504),
)
async def run_notebook(
    call: Who,
    body: RunNotebookRequest,
    response: Response,
    key: Key = None,
    wait: Wait = 0,
) -> Any:
    """Run a notebook by its path, to a path."""
    user = body.username or call.caller.name
    may_act(call.caller, user)
    with _waiting(call, wait):
        run = await call.api.runs.submit(
            call.caller,
            user=user,
            notebook=body.input_path,
            output=body.output_path,
            parameters=body.params,
            how=how_of(body),
            key=key,
        )
        return await _answered(call, run, wait, response)


def _waiting(call: Call, wait: int) -> contextlib.AbstractContextManager[None]:
    """Raises Problem (429), before anything is begun."""
    return call.api.waiters.one(call.caller.name) if wait else contextlib.nullcontext()


async def _answered(call: Call, run: Run, wait: int, response: Response) -> Any:
    address = f"{call.api.base}/runs/{run.id}"
    response.headers["Location"] = address
    if not wait:
        return RunModel.of(run)
    deadline = asyncio.get_running_loop().time() + wait
    while True:
        run = await call.api.runs.look(run)
        if not run.active or asyncio.get_running_loop().time() >= deadline:
            break
        if await call.request.is_disconnected():  # nobody waits any more
            break
        await asyncio.sleep(POLL_SECONDS)
    if run.status == "succeeded":
        response.status_code = 200
        return RunModel.of(run)
    return answer(_waited(run, wait, address))


@router.get("/runs", response_model=RunList, responses=documented(403))
async def list_runs(
    call: Who,
    username: Annotated[UserName | None, Query()] = None,
    status: Annotated[Status | None, Query()] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    before: Annotated[
        datetime | None,
        BeforeValidator(inputs.moment),
        Query(description="runs accepted before then"),
    ] = None,
) -> RunList:
    """Runs, the newest first; an administrator's own without `username`."""
    user = username or call.caller.name
    may_act(call.caller, user)
    found = await call.api.runs.db(
        call.api.runs.store.find,
        user=user,
        status=status,
        limit=limit,
        before=before.timestamp() if before else None,
    )
    following = moment(found[-1].created) if len(found) == limit else None
    return RunList(runs=[RunModel.of(run) for run in found], next=following)


@router.get("/runs/{run_id}", response_model=RunModel, responses=documented(404))
async def get_run(call: Who, run_id: RunIdPath) -> RunModel:
    """A run and how far it is."""
    return RunModel.of(await call.api.runs.look(await call.api.runs.visible(call.caller, run_id)))


@router.post(
    "/runs/{run_id}/cancel",
    response_model=RunModel,
    status_code=202,
    responses=documented(404),
)
async def cancel_run(call: Who, run_id: RunIdPath) -> RunModel:
    """End a run; what it has done so far is kept. A run that has ended stays as it is."""
    return RunModel.of(await call.api.runs.cancel(await call.api.runs.visible(call.caller, run_id)))


@router.get("/runs/{run_id}/artifacts", response_model=Artifacts, responses=documented(404))
async def artifacts(call: Who, run_id: RunIdPath) -> Artifacts:
    """What a run has left, and where; the files are in the person's home."""
    run = await call.api.runs.look(await call.api.runs.visible(call.caller, run_id))
    found = []
    if run.size is not None:
        kind = "notebook" if run.status == "succeeded" else "partial-notebook"
        found.append(Artifact(kind=kind, path=run.output, size=run.size))  # type: ignore[arg-type]
    if run.mlflow_run_id:
        found.append(Artifact(kind="mlflow-run", mlflow_run_id=run.mlflow_run_id))
    return Artifacts(run_id=run.id, artifacts=found)


@router.get(
    "/runs/{run_id}/log",
    response_class=StreamingResponse,
    responses=LOG | documented(404, 429),
)
async def run_log(
    call: Who, run_id: RunIdPath, follow: Annotated[bool, Query()] = False
) -> StreamingResponse:
    """What a run says."""
    run = await call.api.runs.look(await call.api.runs.visible(call.caller, run_id))
    held = contextlib.ExitStack()
    if follow:
        held.enter_context(call.api.followers.one(call.caller.name))
    return _Held(
        held,
        _log(call.api, run, follow),
        media_type="text/plain; charset=utf-8",
        headers={"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"},
    )


class _Held(StreamingResponse):
    """A stream, and what is held until its end."""

    def __init__(self, held: contextlib.ExitStack, content: AsyncIterator[bytes], **more: Any):
        super().__init__(content, **more)
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._held:
            await super().__call__(scope, receive, send)


async def _log(api: Api, run: Run, follow: bool) -> AsyncIterator[bytes]:
    while run.active:
        pod = None
        with contextlib.suppress(ClusterError):
            pod = await api.runs.pod_of(run) if run.status == "running" else None
            if pod and not follow:
                yield (await api.runs.cluster.log(pod["metadata"]["name"], jobs.CONTAINER)).encode()
            elif pod:
                async with api.runs.cluster.follow(
                    pod["metadata"]["name"], jobs.CONTAINER
                ) as lines:
                    async for part in lines:
                        yield part
        if pod or not follow:
            return
        await asyncio.sleep(POLL_SECONDS)
        run = await api.runs.look(run)
    yield (await api.runs.db(api.runs.store.log, run.id) or "").encode()


def may_act(caller: Caller, user: str) -> None:
    if not caller.may_act_for(user):
        raise Problem(
            403,
            "not-yours",
            "The token is not that person's, and its owner is no administrator. Use your own name.",
        )


def how_of(body: HowToRun) -> dict[str, Any]:
    """Without a workspace where none is named, as requests were before there were any."""
    how = body.model_dump(include={"profile", "time_limit", "cell_timeout"})
    return how | ({"workspace": body.workspace} if body.workspace else {})


async def found_notebook(api: Api, user: str, name: str) -> str:
    """The path of a notebook that was given by its name or as a path; raises Problem."""
    if inputs.is_bare_name(name):
        return await api.listings.find(user, name)
    return name.removeprefix("./")


def _waited(run: Run, seconds: int, address: str) -> Problem:
    """Why a waited run is no success."""
    more = {"run_id": run.id, "run": RunModel.of(run).model_dump(mode="json")}
    headers = {"Location": address}
    if run.active:
        detail = f"The run goes on after {seconds} s; GET {address} says how far it is."
        return Problem(504, "still-running", detail, headers=headers, **more)
    status = {"cancelled": 409, "lost": 503}.get(run.status) or ENDED.get(run.reason or "", 422)
    detail = run.message or "The run failed; its log says how."
    return Problem(status, run.reason or run.status, detail, headers=headers, **more)


async def _holds(question: Any) -> bool:
    try:
        async with asyncio.timeout(3):
            await question
    except (TimeoutError, ClusterError, Problem):
        return False
    return True


def mlhub_version() -> str:
    try:
        return version("mlhub")
    except PackageNotFoundError:  # run from a checkout
        return "0"
