"""Requests and responses, as /docs shows them."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue

from mlhub.execution import inputs
from mlhub.execution.outcome import CellError
from mlhub.execution.store import Run

Status = Literal["queued", "running", "succeeded", "failed", "cancelled", "lost"]

NOT_CONTROL = r"^[^\x00-\x1f\x7f]+$"
UserName = Annotated[str, Field(min_length=1, max_length=200, pattern=NOT_CONTROL)]
NotebookPath = Annotated[
    str, Field(min_length=1, max_length=inputs.LONGEST_PATH), AfterValidator(inputs.notebook_path)
]
RunId = Annotated[str, Field(pattern="^[0-9a-f]{16}$", examples=["3f9d2c5b7a1e4860"])]


def _name_or_path(given: str) -> str:
    """Checked, and still saying whether it was a bare name."""
    path = inputs.notebook_path(given)
    return path if inputs.is_bare_name(given) else f"./{path}"


NotebookName = Annotated[
    str, Field(min_length=1, max_length=inputs.LONGEST_PATH), AfterValidator(_name_or_path)
]
Workspace = Annotated[str, Field(pattern="^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
Parameters = Annotated[dict[str, JsonValue], AfterValidator(inputs.parameters)]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class HowToRun(Body):
    profile: str | None = Field(
        default=None,
        max_length=100,
        description="a profile of the spawn form by its slug; the default one without it",
    )
    time_limit: int | None = Field(
        default=None, ge=1, le=30 * 86400, description="seconds that the run may take"
    )
    cell_timeout: int | None = Field(
        default=None, ge=1, le=30 * 86400, description="seconds that each cell may take"
    )

    workspace: Workspace | None = Field(
        default=None, description="a workspace of the person's: mounted, counted, and in MLflow"
    )


class ExecuteRequest(HowToRun):
    username: UserName
    notebook_name: NotebookName = Field(
        description="a name, looked for in every folder of the home, or a path in it such as "
        "./report.ipynb",
        examples=["report.ipynb"],
    )
    parameters: Parameters = {}


class RunNotebookRequest(HowToRun):
    input_path: NotebookPath = Field(examples=["reports/daily.ipynb"])
    output_path: NotebookPath | None = Field(
        default=None,
        description="a path in the home; a former run's output there is replaced, nothing else",
    )
    params: Parameters = {}
    username: UserName | None = Field(default=None, description="whose home; the caller's own")


class Cells(BaseModel):
    done: int = Field(ge=0)
    total: int = Field(ge=0)


class RunModel(BaseModel):
    """A run."""

    model_config = ConfigDict(title="Run")

    run_id: RunId
    status: Status
    username: str
    input_notebook: str
    output_notebook: str = Field(description="path in the home; there once the run has ended")
    parameters: dict[str, Any]
    timestamp: datetime = Field(description="when the run was accepted")
    started: datetime | None = None
    finished: datetime | None = None
    profile: str
    time_limit: int
    cell_timeout: int | None = None
    workspace: str | None = None
    origin: str | None = Field(
        default=None, description="`schedule/<id>` or `sweep/<id>`, where one of them started it"
    )
    cells: Cells | None = None
    reason: str | None = Field(default=None, description="a word for why it ended as it did")
    message: str | None = Field(default=None, description="the same for a person")
    error: CellError | None = None
    mlflow_run_id: str | None = None

    @classmethod
    def of(cls, run: Run) -> "RunModel":
        known = run.cells_done is not None and run.cells_total is not None
        return cls(
            run_id=run.id,
            status=run.status,  # type: ignore[arg-type]
            username=run.user,
            input_notebook=run.notebook,
            output_notebook=run.output,
            parameters=run.parameters,
            timestamp=moment(run.created),
            started=moment(run.started) if run.started else None,
            finished=moment(run.finished) if run.finished else None,
            profile=run.profile,
            time_limit=run.time_limit,
            cell_timeout=run.cell_timeout,
            workspace=run.workspace,
            origin=run.origin,
            cells=Cells(done=run.cells_done, total=run.cells_total) if known else None,  # type: ignore[arg-type]
            reason=run.reason,
            message=run.message,
            error=CellError.model_validate(run.error) if run.error else None,
            mlflow_run_id=run.mlflow_run_id,
        )


class RunList(BaseModel):
    runs: list[RunModel]
    next: datetime | None = Field(default=None, description="`before` of the page that follows")


class Artifact(BaseModel):
    kind: Literal["notebook", "partial-notebook", "mlflow-run"]
    path: str | None = Field(default=None, description="in the home")
    size: int | None = None
    mlflow_run_id: str | None = None


class Artifacts(BaseModel):
    run_id: RunId
    artifacts: list[Artifact]


class Notebook(BaseModel):
    name: str
    path: str = Field(description="in the person's pods")
    relative_path: str = Field(description="in the home, as /execute takes it")
    size: int
    modified: str


class Listing(BaseModel):
    username: str
    user_home: str
    notebook_count: int
    notebooks: list[Notebook]
    timestamp: datetime


class Health(BaseModel):
    status: Literal["healthy", "degraded"]
    papermill_available: bool = Field(description="whether a Job with Papermill can be made now")
    papermill_path: str = Field(description="the image whose Papermill runs by default")
    timestamp: datetime
    database: bool
    kubernetes: bool


class Service(BaseModel):
    service: str
    docs: str
    endpoints: list[str]


def moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
