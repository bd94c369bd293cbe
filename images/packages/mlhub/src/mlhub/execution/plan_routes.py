"""The addresses of schedules and sweeps; runs have theirs in `routes`."""

from collections import Counter
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from mlhub.execution.models import RunId, UserName
from mlhub.execution.plan_models import (
    FireRequest,
    FiringModel,
    ScheduleChange,
    ScheduleList,
    ScheduleModel,
    ScheduleRequest,
    SweepList,
    SweepModel,
    SweepPoint,
    SweepRequest,
    SweepSummary,
)
from mlhub.execution.plan_store import Schedule, Sweep
from mlhub.execution.problems import documented
from mlhub.execution.routes import Api, Given, Key, Who, found_notebook, how_of, may_act
from mlhub.execution.schedules import SHOWN

router = APIRouter()
ScheduleId = Annotated[RunId, Path()]
SweepId = Annotated[RunId, Path()]
Name = Annotated[UserName | None, Query()]


@router.post(
    "/schedules",
    response_model=ScheduleModel,
    status_code=201,
    responses=documented(403, 404, 409, 504),
)
async def make_schedule(call: Who, body: ScheduleRequest, response: Response) -> ScheduleModel:
    """Run a notebook again and again. It is its person's, whoever makes it."""
    may_act(call.caller, body.username)
    schedule = await call.api.schedules.make(
        call.caller,
        user=body.username,
        name=body.name,
        notebook=await found_notebook(call.api, body.username, body.notebook_name),
        parameters=body.parameters,
        how=how_of(body),
        cron=body.cron,
        time_zone=body.time_zone,
        suspended=body.suspended,
    )
    response.headers["Location"] = f"{call.api.base}/schedules/{schedule.id}"
    return await _told(call.api, schedule)


@router.get("/schedules", response_model=ScheduleList, responses=documented(403))
async def list_schedules(call: Who, username: Name = None) -> ScheduleList:
    """Schedules, the oldest first; an administrator's own without `username`."""
    user = username or call.caller.name
    may_act(call.caller, user)
    found = await call.api.runs.db(call.api.schedules.store.schedules, user)
    return ScheduleList(schedules=[await _told(call.api, schedule) for schedule in found])


@router.get("/schedules/{schedule_id}", response_model=ScheduleModel, responses=documented(404))
async def get_schedule(call: Who, schedule_id: ScheduleId) -> ScheduleModel:
    """A schedule, when it fires next and what became of its last times."""
    return await _told(call.api, await call.api.schedules.visible(call.caller, schedule_id))


@router.patch("/schedules/{schedule_id}", response_model=ScheduleModel, responses=documented(404))
async def change_schedule(
    call: Who, schedule_id: ScheduleId, body: ScheduleChange
) -> ScheduleModel:
    """Change, suspend or resume a schedule; a run that it has started goes on."""
    schedule = await call.api.schedules.visible(call.caller, schedule_id)
    changed = await call.api.schedules.change(schedule, **body.model_dump(exclude_none=True))
    return await _told(call.api, changed)


@router.delete("/schedules/{schedule_id}", status_code=204, responses=documented(404))
async def delete_schedule(call: Who, schedule_id: ScheduleId) -> None:
    """Delete a schedule; a run that it has started goes on."""
    await call.api.schedules.delete(await call.api.schedules.visible(call.caller, schedule_id))


@router.post("/schedules/{schedule_id}/fire", include_in_schema=False)
async def fire_schedule(
    api: Given, request: Request, schedule_id: ScheduleId, body: FireRequest
) -> FiringModel:
    """What a schedule's own CronJob calls, with the schedule's own token."""
    authorization = request.headers.get("Authorization")
    return FiringModel.of(await api.schedules.fire(schedule_id, authorization, body.at))


async def _told(api: Api, schedule: Schedule) -> ScheduleModel:
    last = []
    for firing in await api.runs.db(api.schedules.store.last_firings, schedule.id, SHOWN):
        run = await api.runs.db(api.runs.store.get, firing.run_id) if firing.run_id else None
        last.append(FiringModel.of(firing, run))
    return ScheduleModel.of(schedule, api.runs.clock(), last, SHOWN)


@router.post(
    "/sweeps",
    response_model=SweepModel,
    status_code=202,
    responses=documented(403, 404, 409, 429, 504),
)
async def make_sweep(
    call: Who, body: SweepRequest, response: Response, key: Key = None
) -> SweepModel:
    """Run a notebook for every combination of a grid; the runs wait for room."""
    may_act(call.caller, body.username)
    sweep = await call.api.sweeps.make(
        call.caller,
        key,
        user=body.username,
        notebook=await found_notebook(call.api, body.username, body.notebook_name),
        parameters=body.parameters,
        grid=body.grid,
        how=how_of(body),
        parallel=body.parallel,
    )
    response.headers["Location"] = f"{call.api.base}/sweeps/{sweep.id}"
    return await _swept(call.api, sweep)


@router.get("/sweeps", response_model=SweepList, responses=documented(403))
async def list_sweeps(
    call: Who, username: Name = None, limit: Annotated[int, Query(ge=1, le=50)] = 10
) -> SweepList:
    """Sweeps without their points, the newest first; an administrator's own without `username`."""
    user = username or call.caller.name
    may_act(call.caller, user)
    db, store = call.api.runs.db, call.api.sweeps.store
    found = await db(store.sweeps, user, limit)
    counts = await db(store.counts, [sweep.id for sweep in found])
    return SweepList(sweeps=[SweepSummary.of(sweep, counts[sweep.id]) for sweep in found])


@router.get("/sweeps/{sweep_id}", response_model=SweepModel, responses=documented(404))
async def get_sweep(call: Who, sweep_id: SweepId) -> SweepModel:
    """A sweep and what its runs are."""
    return await _swept(call.api, await call.api.sweeps.visible(call.caller, sweep_id))


@router.post(
    "/sweeps/{sweep_id}/cancel",
    response_model=SweepModel,
    status_code=202,
    responses=documented(404),
)
async def cancel_sweep(call: Who, sweep_id: SweepId) -> SweepModel:
    """End a sweep: what waits never starts, what runs is ended."""
    sweep = await call.api.sweeps.visible(call.caller, sweep_id)
    await call.api.sweeps.cancel(sweep)
    return await _swept(call.api, sweep)


async def _swept(api: Api, sweep: Sweep) -> SweepModel:
    points = [SweepPoint.of(point, run) for point, run in await api.sweeps.members(sweep)]
    return SweepModel.of(sweep, Counter(point.status for point in points), points=points)
