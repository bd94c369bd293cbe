"""Requests and responses about schedules and sweeps, as /docs shows them."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue

from mlhub.execution import cron, inputs, sweeps
from mlhub.execution.models import (
    Body,
    HowToRun,
    NotebookName,
    Parameters,
    RunId,
    Status,
    UserName,
    moment,
)
from mlhub.execution.plan_store import Firing, Point, Schedule, Sweep
from mlhub.execution.store import Run

Name = Annotated[str, Field(pattern="^[A-Za-z0-9]([-A-Za-z0-9_. ]{0,78}[A-Za-z0-9])?$")]
Cron = Annotated[str, Field(max_length=cron.LONGEST), AfterValidator(cron.expression)]
Zone = Annotated[str, Field(max_length=100), AfterValidator(cron.zone)]
Values = Annotated[list[JsonValue], Field(min_length=1, max_length=sweeps.MOST_POINTS)]


def _grid(given: dict[str, list[Any]]) -> dict[str, list[Any]]:
    for point in sweeps.grid_points(given):
        inputs.parameters(point)
    return given


Grid = Annotated[dict[str, Values], Field(min_length=1), AfterValidator(_grid)]

CRON = Field(
    description="minute, hour, day of the month, month, day of the week, as Kubernetes' CronJob "
    "takes them",
    examples=["30 6 * * MON-FRI"],
)


class ScheduleRequest(HowToRun):
    name: Name = Field(description="one's own for the schedule", examples=["morning-report"])
    username: UserName
    notebook_name: NotebookName = Field(
        description="a name, looked for now in every folder of the home, or a path such as "
        "./report.ipynb",
        examples=["./report.ipynb"],
    )
    parameters: Parameters = Field(default={})
    cron: Cron = CRON
    time_zone: Zone = Field(default="UTC", description="such as Europe/Berlin")
    suspended: bool = False


class ScheduleChange(Body):
    """What is left out stays."""

    cron: Cron | None = None
    time_zone: Zone | None = None
    suspended: bool | None = None
    parameters: Parameters | None = None


class FiringModel(BaseModel):
    """What became of one time."""

    model_config = ConfigDict(title="Firing")

    at: datetime
    outcome: Literal["started", "skipped", "refused", "missed"]
    reason: str | None = Field(
        default=None, description="a word for programs, of the time or else of its run"
    )
    message: str | None = Field(default=None, description="the same for a person")
    run_id: RunId | None = None
    status: Status | None = Field(default=None, description="of the run")

    @classmethod
    def of(cls, firing: Firing, run: Run | None = None) -> Self:
        return cls(
            at=moment(firing.at),
            outcome=firing.outcome,  # type: ignore[arg-type]
            reason=firing.reason or (run.reason if run else None),
            message=firing.message or (run.message if run else None),
            run_id=firing.run_id,
            status=run.status if run else None,  # type: ignore[arg-type]
        )


class ScheduleModel(BaseModel):
    """A notebook that runs again and again."""

    model_config = ConfigDict(title="Schedule")

    schedule_id: RunId
    name: str
    username: str
    input_notebook: str
    parameters: dict[str, Any]
    profile: str | None = None
    time_limit: int | None = None
    cell_timeout: int | None = None
    workspace: str | None = None
    cron: str
    time_zone: str
    suspended: bool
    reason: str | None = Field(default=None, description="why it is suspended, where you did not")
    next: list[datetime] = Field(description="when it fires; none while it is suspended")
    last: list[FiringModel] = Field(description="what became of its last times, the newest first")

    @classmethod
    def of(cls, schedule: Schedule, now: float, last: list[FiringModel], shown: int) -> Self:
        following = (
            []
            if schedule.suspended
            else cron.following(schedule.cron, schedule.time_zone, now, shown)
        )
        return cls(
            schedule_id=schedule.id,
            name=schedule.name,
            username=schedule.user,
            input_notebook=schedule.notebook,
            parameters=schedule.parameters,
            cron=schedule.cron,
            time_zone=schedule.time_zone,
            suspended=schedule.suspended,
            reason=schedule.reason,
            next=[moment(at) for at in following],
            last=last,
            **schedule.how,
        )


class ScheduleList(BaseModel):
    schedules: list[ScheduleModel]


class FireRequest(Body):
    at: int = Field(ge=0, description="seconds since 1970")


class SweepRequest(HowToRun):
    username: UserName
    notebook_name: NotebookName = Field(examples=["./train.ipynb"])
    grid: Grid = Field(
        description="the values of each parameter; every combination is one run, at most "
        f"{sweeps.MOST_POINTS}",
        examples=[{"rate": [0.1, 0.01], "depth": [2, 4, 8]}],
    )
    parameters: Parameters = Field(default={}, description="those that all runs have alike")
    parallel: int = Field(default=2, ge=1, le=20, description="how many run at once at most")


class SweepPoint(BaseModel):
    number: int
    parameters: dict[str, Any]
    status: str = Field(description="`waiting`, `refused`, or what its run is")
    run_id: RunId | None = None
    message: str | None = None

    @classmethod
    def of(cls, point: Point, run: Run | None) -> Self:
        return cls(
            number=point.number,
            parameters=point.parameters,
            status=sweeps.state_of(point, run),
            run_id=point.run_id,
            message=point.message or (run.message if run else None),
        )


class SweepSummary(BaseModel):
    """Runs of one notebook over a grid, counted."""

    sweep_id: RunId
    status: Literal["waiting", "running", "succeeded", "failed", "cancelled"]
    username: str
    input_notebook: str
    grid: dict[str, list[Any]]
    parallel: int
    timestamp: datetime = Field(description="when it was accepted")
    counts: dict[str, int] = Field(description="how many of its points are what")

    @classmethod
    def of(cls, sweep: Sweep, counts: dict[str, int], **more: Any) -> Self:
        return cls(
            sweep_id=sweep.id,
            status=sweeps.status_of(counts),  # type: ignore[arg-type]
            username=sweep.user,
            input_notebook=sweep.notebook,
            grid=sweep.grid,
            parallel=sweep.parallel,
            timestamp=moment(sweep.created),
            counts=counts,
            **more,
        )


class SweepModel(SweepSummary):
    """Runs of one notebook over a grid, each with what became of it."""

    model_config = ConfigDict(title="Sweep")

    points: list[SweepPoint]


class SweepList(BaseModel):
    sweeps: list[SweepSummary]
