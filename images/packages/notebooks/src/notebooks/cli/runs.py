"""`runs`, `schedules` and `sweeps`: notebooks that run unattended."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from notebooks.cli import output
from notebooks.execution import ExecutionClient, Run

app = typer.Typer(no_args_is_help=True, help="Run notebooks unattended: start, follow, cancel.")
schedules = typer.Typer(no_args_is_help=True, help="Notebooks that run again and again.")
sweeps = typer.Typer(no_args_is_help=True, help="A notebook over a grid of parameters.")

Notebook = Annotated[str, typer.Argument(metavar="NOTEBOOK", help="a name, or a path ./a.ipynb")]
Parameter = Annotated[
    list[str] | None, typer.Option("-p", "--parameter", metavar="NAME=VALUE", help="JSON or text")
]
User = Annotated[str | None, typer.Option(help="an admin: whose")]
Profile = Annotated[str | None, typer.Option(help="a profile of the spawn form, by its slug")]
TimeLimit = Annotated[int | None, typer.Option(help="seconds that a run may take")]
CellTimeout = Annotated[int | None, typer.Option(help="seconds that each cell may take")]
Workspace = Annotated[str | None, typer.Option(help="a workspace of yours, by its slug")]
Id = Annotated[str, typer.Argument(metavar="ID")]


def value_of(text: str) -> Any:
    """JSON where it is some, else the text itself."""
    try:
        return json.loads(text)
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
    no_wait: Annotated[bool, typer.Option("--no-wait", help="print the id and return")] = False,
) -> None:
    """Run a notebook and wait for its end; the exit code is 0 when it succeeds."""
    client = ExecutionClient()
    run = client.run(
        notebook,
        parameters_of(parameter),
        user=user,
        profile=profile,
        time_limit=time_limit,
        cell_timeout=cell_timeout,
        workspace=workspace,
    )
    if not no_wait:
        with cells_bar() as tell:
            run = client.wait(run, tell=tell)
    shown(run)


@app.command("wait")
def wait(run_id: Id, timeout: Annotated[float | None, typer.Option(help="seconds")] = None) -> None:
    """Wait for a run's end; the exit code is 0 when it succeeds."""
    with cells_bar() as tell:
        try:
            run = ExecutionClient().wait(run_id, timeout=timeout, tell=tell)
        except TimeoutError as error:
            raise ValueError(str(error)) from None
    shown(run)


@app.command("list")
def list_runs(user: User = None, status: str | None = None, limit: int = 20) -> None:
    """Your runs, the newest first."""
    found = ExecutionClient().list(user=user, status=status, limit=limit)
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
    human = output.table(("run", "status", "cells", "notebook", "reason", "accepted (UTC)"), rows)
    output.show([run.plain for run in found], human if rows else "No runs yet.")


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


# Schedules


def schedule_shown(told: Mapping[str, Any]) -> None:
    coming = ", ".join(str(at) for at in told["next"][:2]) or "suspended"
    output.show(told, f"{told['schedule_id']} {told['name']}: {coming}")


@schedules.command("create")
def create_schedule(
    name: Annotated[str, typer.Argument(help="your own for it")],
    notebook: Notebook,
    cron: Annotated[str, typer.Option(help="as '30 6 * * MON-FRI': minute hour day month weekday")],
    *,
    time_zone: Annotated[str, typer.Option(help="such as Europe/Berlin")] = "UTC",
    parameter: Parameter = None,
    user: User = None,
    profile: Profile = None,
    time_limit: TimeLimit = None,
    cell_timeout: CellTimeout = None,
    workspace: Workspace = None,
) -> None:
    """Run a notebook again and again."""
    schedule_shown(
        ExecutionClient().schedule(
            name,
            notebook,
            cron,
            parameters_of(parameter),
            time_zone=time_zone,
            user=user,
            profile=profile,
            time_limit=time_limit,
            cell_timeout=cell_timeout,
            workspace=workspace,
        )
    )


@schedules.command("list")
def list_schedules(user: User = None) -> None:
    """Your schedules, when they fire next and what became of their last time."""
    found = ExecutionClient().schedules(user=user)
    rows = [
        (
            item["schedule_id"],
            item["name"],
            item["input_notebook"],
            f"{item['cron']} ({item['time_zone']})",
            item["next"][0] if item["next"] else item["reason"] or "suspended",
            item["last"][0]["status"] or item["last"][0]["outcome"] if item["last"] else "",
        )
        for item in found
    ]
    human = output.table(("schedule", "name", "notebook", "when", "next", "last"), rows)
    output.show(found, human if rows else "No schedules yet.")


@schedules.command("suspend")
def suspend(schedule_id: Id) -> None:
    """Let a schedule rest."""
    schedule_shown(ExecutionClient().change_schedule(schedule_id, suspended=True))


@schedules.command("resume")
def resume(schedule_id: Id) -> None:
    """Let a schedule go on; what it missed is not made up for."""
    schedule_shown(ExecutionClient().change_schedule(schedule_id, suspended=False))


@schedules.command("delete")
def delete_schedule(schedule_id: Id) -> None:
    """Delete a schedule; a run that it has started goes on."""
    ExecutionClient().delete_schedule(schedule_id)
    output.show({"deleted": schedule_id}, f"{schedule_id} is deleted.")


# Sweeps


def sweep_shown(told: Mapping[str, Any]) -> None:
    counts = ", ".join(f"{count} {what}" for what, count in told["counts"].items())
    output.show(told, f"{told['sweep_id']} {told['status']}: {counts}")


@sweeps.command("start")
def start_sweep(
    notebook: Notebook,
    *,
    grid: Annotated[
        list[str], typer.Option("-g", "--grid", metavar="NAME=[…]", help="a JSON list of values")
    ],
    parameter: Parameter = None,
    parallel: Annotated[int, typer.Option(help="runs at once at most")] = 2,
    user: User = None,
    profile: Profile = None,
    time_limit: TimeLimit = None,
    cell_timeout: CellTimeout = None,
    workspace: Workspace = None,
) -> None:
    """A run for each combination of values; they wait for room."""
    values = parameters_of(grid)
    if wrong := [name for name, each in values.items() if not isinstance(each, list)]:
        raise typer.BadParameter(f"{', '.join(wrong)} is no JSON list; give one as rate=[0.1,0.2]")
    sweep_shown(
        ExecutionClient().sweep(
            notebook,
            values,
            parameters_of(parameter),
            parallel=parallel,
            user=user,
            profile=profile,
            time_limit=time_limit,
            cell_timeout=cell_timeout,
            workspace=workspace,
        )
    )


@sweeps.command("show")
def show_sweep(sweep_id: Id) -> None:
    """A sweep and its runs."""
    told = ExecutionClient().get_sweep(sweep_id)
    rows = [
        (point["number"], point["status"], json.dumps(point["parameters"]), point["run_id"])
        for point in told["points"]
    ]
    output.show(told, output.table(("point", "status", "parameters", "run"), rows))


@sweeps.command("cancel")
def cancel_sweep(sweep_id: Id) -> None:
    """End a sweep: what waits never starts, what runs is ended."""
    sweep_shown(ExecutionClient().cancel_sweep(sweep_id))
