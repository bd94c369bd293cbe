"""`runs`: notebooks that run unattended. `plans` has those that run again and again."""

import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from notebooks.cli import output
from notebooks.errors import NotebooksError, Refused
from notebooks.execution import ExecutionClient, Run

ID = re.compile("[0-9a-f]{16}")
"""Of runs, schedules and sweeps (`mlhub.execution.models.RunId`)."""

app = typer.Typer(no_args_is_help=True, help="Run notebooks unattended: start, follow, cancel.")

Notebook = Annotated[str, typer.Argument(metavar="NOTEBOOK", help="a name, or a path ./a.ipynb")]
Parameter = Annotated[
    list[str] | None, typer.Option("-p", "--parameter", metavar="NAME=VALUE", help="JSON or text")
]
User = Annotated[str | None, typer.Option(help="an admin: whose")]
Profile = Annotated[str | None, typer.Option(help="a profile of the spawn form, by its slug")]
TimeLimit = Annotated[int | None, typer.Option(help="seconds that a run may take")]
CellTimeout = Annotated[int | None, typer.Option(help="seconds that each cell may take")]
Workspace = Annotated[str | None, typer.Option(help="a workspace of yours, by its slug")]
Key = Annotated[
    str | None, typer.Option(help="your own for this start: with it again, nothing runs twice")
]
Timeout = Annotated[float | None, typer.Option(help="seconds; without it, to the end")]


def id_of(kind: str) -> Callable[[str], str]:
    """For typer: what cannot be an id is told as one that is not there."""

    def reader(given: str) -> str:
        if not ID.fullmatch(given):
            sentence = f"There is no {kind} {given!r}; `{kind}s list` shows those there are."
            raise Refused(404, f"no-{kind}", sentence)
        return given

    return reader


Id = Annotated[str, typer.Argument(metavar="ID", parser=id_of("run"))]


def finite(digits: str) -> float:
    """For json, which takes `NaN` and `1e999` where JSON has no such number; raises ValueError."""
    if not math.isfinite(number := float(digits)):
        raise ValueError(digits)
    return number


def value_of(text: str) -> Any:
    """JSON where it is some, else the text itself."""
    try:
        return json.loads(text, parse_float=finite, parse_constant=finite)
    except ValueError:
        return text


def named(given: Sequence[str] | None) -> dict[str, str]:
    """`NAME=VALUE` each; raises typer.BadParameter."""
    found = {}
    for item in given or ():
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"{item!r} is no NAME=VALUE")
        found[name] = value
    return found


def parameters_of(given: Sequence[str] | None) -> dict[str, Any]:
    return {name: value_of(value) for name, value in named(given).items()}


@contextmanager
def cells_bar() -> Iterator[Any]:
    """A bar of cells on standard error, at a terminal; what it gives is told of the run."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[cells]}"))
    console = Console(stderr=True)
    quiet = output.as_json or not console.is_terminal
    with Progress(
        *columns, TimeElapsedColumn(), console=console, transient=True, disable=quiet
    ) as bar:
        task = bar.add_task("queued", total=None, cells="")

        def tell(run: Run) -> None:
            done, total = run.cells or (0, None)
            cells = f"cell {done} of {total}" if total else ""
            bar.update(task, description=run.status, completed=done, total=total, cells=cells)

        yield tell


class Interrupted(NotebooksError):  # noqa: N818 -- as those of `notebooks.errors`
    """A wait that a person broke off."""

    type = "interrupted"


@contextmanager
def waiting(kind: str, identifier: str) -> Iterator[None]:
    """A wait that is over is a sentence and exit code 1; one broken off says what goes on."""
    try:
        yield
    except TimeoutError as error:
        raise ValueError(str(error)) from None
    except KeyboardInterrupt:
        again = f"`{kind}s wait {identifier}` waits for it again"
        stop = Interrupted(f"{kind.capitalize()} {identifier} goes on; {again}.")
        stop.about[f"{kind}_id"] = identifier
        output.fail(stop)
        raise


def shown(run: Run) -> None:
    human = f"{run.run_id} {run.status}: {run.output_notebook}"
    output.show(run.plain, human if not run.message else f"{human}\n{run.message}")


@app.command("start")
def start(
    notebook: Notebook,
    *,
    parameter: Parameter = None,
    user: User = None,
    profile: Profile = None,
    time_limit: TimeLimit = None,
    cell_timeout: CellTimeout = None,
    workspace: Workspace = None,
    output_path: Annotated[
        str | None,
        typer.Option("--output", help="a path that is new or a former run's output"),
    ] = None,
    key: Key = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="print the id and return")] = False,
) -> None:
    """Run a notebook and wait for its end; the exit code is 0 when it succeeds."""
    client = ExecutionClient()
    run = client.run(
        notebook,
        parameters_of(parameter),
        user=user,
        output=output_path,
        key=key,
        profile=profile,
        time_limit=time_limit,
        cell_timeout=cell_timeout,
        workspace=workspace,
    )
    if not no_wait:
        output.note(f"Run {run.run_id} is {run.status}.")
        with cells_bar() as tell, waiting("run", run.run_id):
            run = client.wait(run, tell=tell)
    shown(run)


@app.command("wait")
def wait(run_id: Id, timeout: Timeout = None) -> None:
    """Wait for a run's end; the exit code is 0 when it succeeds."""
    with cells_bar() as tell, waiting("run", run_id):
        run = ExecutionClient().wait(run_id, timeout=timeout, tell=tell)
    shown(run)


@app.command("list")
def list_runs(
    user: User = None,
    status: Annotated[str | None, typer.Option(help="such as running, failed or lost")] = None,
    limit: int = 20,
    before: Annotated[str | None, typer.Option(help="accepted before then (UTC)")] = None,
) -> None:
    """Your runs, the newest first."""
    found = ExecutionClient().list(user=user, status=status, limit=limit, before=before)
    rows = [
        (
            run.run_id,
            run.status,
            "" if run.cells is None else "/".join(map(str, run.cells)),
            run.input_notebook,
            run.reason,
            str(run.plain["timestamp"])[:16].replace("T", " "),
        )
        for run in found
    ]
    none = "No such runs." if status or before else "No runs yet."
    human = output.table(("run", "status", "cells", "notebook", "reason", "accepted (UTC)"), rows)
    output.show([run.plain for run in found], human if rows else none)


@app.command("show")
def show_run(run_id: Id) -> None:
    """One run."""
    shown(ExecutionClient().get(run_id))


@app.command("log")
def log(
    run_id: Id, follow: Annotated[bool, typer.Option("--follow", "-f", help="to its end")] = False
) -> None:
    """What the cells print."""
    for line in ExecutionClient().log(run_id, follow=follow):
        print(json.dumps({"line": line}) if output.as_json else line, flush=True)


@app.command("cancel")
def cancel(run_id: Id) -> None:
    """End a run; what it has done is kept."""
    shown(ExecutionClient().cancel(run_id))


@app.command("artifacts")
def artifacts(run_id: Id) -> None:
    """What a run has left, and where."""
    found = ExecutionClient().artifacts(run_id)
    rows = [(item["kind"], item["path"] or item["mlflow_run_id"], item["size"]) for item in found]
    output.show(found, output.table(("kind", "where", "bytes"), rows) if rows else "Nothing yet.")


@app.command("notebooks")
def notebooks(user: User = None) -> None:
    """The notebooks of your home, which `start` finds by their names."""
    found = ExecutionClient().notebooks(user=user)
    rows = [(item["relative_path"], item["size"], item["modified"]) for item in found]
    human = output.table(("notebook", "bytes", "changed"), rows)
    output.show(found, human if rows else "No notebooks yet.")
