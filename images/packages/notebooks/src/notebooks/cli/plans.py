"""`schedules` and `sweeps`: notebooks that run again and again, or over a grid of parameters."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, tzinfo
from typing import Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import typer

from notebooks.cli import output
from notebooks.cli.runs import (
    CellTimeout,
    Key,
    Notebook,
    Parameter,
    Profile,
    TimeLimit,
    Timeout,
    User,
    Workspace,
    id_of,
    parameters_of,
    waiting,
)
from notebooks.errors import NotebooksError
from notebooks.execution import ExecutionClient, counts_of

schedules = typer.Typer(no_args_is_help=True, help="Notebooks that run again and again.")
sweeps = typer.Typer(no_args_is_help=True, help="A notebook over a grid of parameters.")

TimeZone = typer.Option(help="such as Europe/Berlin")
Cron = typer.Option(help="as '30 6 * * MON-FRI': minute hour day month weekday")

ScheduleName = Annotated[str, typer.Argument(metavar="SCHEDULE", help="its name, or its id")]
SweepId = Annotated[str, typer.Argument(metavar="ID", parser=id_of("sweep"))]

# Schedules


def schedule_of(client: ExecutionClient, given: str) -> str:
    """The id of a schedule. By name go one's own, for another person may have one of that name."""
    found = (each["schedule_id"] for each in client.schedules() if each["name"] == given)
    return next(found, None) or id_of("schedule")(given)


def clock(schedule: Mapping[str, Any], moment: str) -> str:
    """A moment as the schedule's own clock shows it."""
    zone: tzinfo = UTC
    with suppress(ZoneInfoNotFoundError):  # Windows knows no zones
        zone = ZoneInfo(schedule["time_zone"])
    return f"{datetime.fromisoformat(moment).astimezone(zone):%a %F %R %Z}"


def schedule_shown(told: Mapping[str, Any]) -> None:
    coming = ", ".join(clock(told, at) for at in told["next"][:2]) or "suspended"
    output.show(told, f"{told['schedule_id']} {told['name']}: {coming}")


def warn_of_no_notebook(client: ExecutionClient, told: Mapping[str, Any]) -> None:
    """The service takes any path, since a notebook may come later; a person may have mistyped it.

    The listing leaves hidden folders out, and a workspace's volume is not in it.
    """
    path = told["input_notebook"]
    if output.as_json or told["workspace"] or path.startswith(".") or "/." in path:
        return
    try:
        known = {each["relative_path"] for each in client.notebooks(user=told["username"])}
    except NotebooksError:
        return
    if path not in known:
        output.warn(f"There is no notebook {path} in the home now; `runs notebooks` lists them.")


@schedules.command("create")
def create_schedule(
    name: Annotated[str, typer.Argument(help="your own for it")],
    notebook: Notebook,
    cron: Annotated[str, Cron],
    *,
    time_zone: Annotated[str, TimeZone] = "UTC",
    suspended: Annotated[bool, typer.Option("--suspended", help="until you resume it")] = False,
    parameter: Parameter = None,
    user: User = None,
    profile: Profile = None,
    time_limit: TimeLimit = None,
    cell_timeout: CellTimeout = None,
    workspace: Workspace = None,
) -> None:
    """Run a notebook again and again."""
    client = ExecutionClient()
    told = client.schedule(
        name,
        notebook,
        cron,
        parameters_of(parameter),
        time_zone=time_zone,
        suspended=suspended,
        user=user,
        profile=profile,
        time_limit=time_limit,
        cell_timeout=cell_timeout,
        workspace=workspace,
    )
    schedule_shown(told)
    warn_of_no_notebook(client, told)


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
            clock(item, item["next"][0]) if item["next"] else item["reason"] or "suspended",
            item["last"][0]["status"] or item["last"][0]["outcome"] if item["last"] else "",
        )
        for item in found
    ]
    human = output.table(("schedule", "name", "notebook", "when", "next", "last"), rows)
    output.show(found, human if rows else "No schedules yet.")


@schedules.command("show")
def show_schedule(schedule: ScheduleName) -> None:
    """A schedule, its next times and what became of its last."""
    client = ExecutionClient()
    told = client.get_schedule(schedule_of(client, schedule))
    when = f"{told['cron']} ({told['time_zone']})"
    rows: list[Sequence[str]] = [
        ("schedule", told["schedule_id"], "", f"{told['name']}: {told['input_notebook']}, {when}"),
        *(("next", clock(told, at), "", "") for at in told["next"]),
        *last_rows(told),
    ]
    if told["suspended"]:
        rows.insert(1, ("suspended", "", "", told["reason"] or ""))
    output.show(told, output.table(("", "", "", ""), rows, whole=3))


def last_rows(told: Mapping[str, Any]) -> list[Sequence[str]]:
    """What became of a schedule's last times: when, the run, how it ended and why."""
    return [
        (
            "last",
            clock(told, each["at"]),
            each["run_id"] or "",
            ": ".join(filter(None, (each["status"] or each["outcome"], each["message"]))),
        )
        for each in told["last"]
    ]


@schedules.command("change")
def change_schedule(
    schedule: ScheduleName,
    *,
    cron: Annotated[str | None, Cron] = None,
    time_zone: Annotated[str | None, TimeZone] = None,
    parameter: Parameter = None,
) -> None:
    """Change when a schedule fires, or all of its parameters; what is left out stays."""
    given = {
        "cron": cron,
        "time_zone": time_zone,
        "parameters": parameters_of(parameter) if parameter else None,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    if not changes:
        raise typer.BadParameter("nothing to change: give --cron, --time-zone or -p")
    changed(schedule, **changes)


def changed(schedule: str, **changes: Any) -> None:
    client = ExecutionClient()
    schedule_shown(client.change_schedule(schedule_of(client, schedule), **changes))


@schedules.command("suspend")
def suspend(schedule: ScheduleName) -> None:
    """Let a schedule rest."""
    changed(schedule, suspended=True)


@schedules.command("resume")
def resume(schedule: ScheduleName) -> None:
    """Let a schedule go on; what it missed is not made up for."""
    changed(schedule, suspended=False)


@schedules.command("delete")
def delete_schedule(schedule: ScheduleName) -> None:
    """Delete a schedule; a run that it has started goes on."""
    client = ExecutionClient()
    schedule_id = schedule_of(client, schedule)
    client.delete_schedule(schedule_id)
    output.show({"deleted": schedule_id}, f"{schedule} is deleted.")


# Sweeps


def sweep_shown(told: Mapping[str, Any]) -> None:
    output.show(told, f"{told['sweep_id']} {told['status']}: {counts_of(told)}")


@sweeps.command("start")
def start_sweep(
    notebook: Notebook,
    *,
    grid: Annotated[
        list[str],
        typer.Option(
            "-g", "--grid", metavar="NAME=[…]", help="a JSON list of values: 'rate=[0.1,0.2]'"
        ),
    ],
    parameter: Parameter = None,
    parallel: Annotated[int, typer.Option(help="runs at once at most")] = 2,
    user: User = None,
    profile: Profile = None,
    time_limit: TimeLimit = None,
    cell_timeout: CellTimeout = None,
    workspace: Workspace = None,
    key: Key = None,
) -> None:
    """A run for each combination of values; they wait for room."""
    values = parameters_of(grid)
    if wrong := [name for name, each in values.items() if not isinstance(each, list)]:
        raise typer.BadParameter(
            f"{', '.join(wrong)} is no JSON list; give one as 'rate=[0.1,0.2]'"
        )
    sweep_shown(
        ExecutionClient().sweep(
            notebook,
            values,
            parameters_of(parameter),
            parallel=parallel,
            user=user,
            key=key,
            profile=profile,
            time_limit=time_limit,
            cell_timeout=cell_timeout,
            workspace=workspace,
        )
    )


@sweeps.command("wait")
def wait(sweep_id: SweepId, timeout: Timeout = None) -> None:
    """Wait for the end of a sweep; the exit code is 0 when all its runs succeed."""
    with waiting("sweep", sweep_id):
        sweep_shown(ExecutionClient().wait_sweep(sweep_id, timeout=timeout))


@sweeps.command("list")
def list_sweeps(user: User = None, limit: int = 10) -> None:
    """Your sweeps, the newest first, and how many of their runs are what."""
    found = ExecutionClient().sweeps(user=user, limit=limit)
    rows = [
        (
            item["sweep_id"],
            item["status"],
            item["input_notebook"],
            counts_of(item),
            str(item["timestamp"])[:16].replace("T", " "),
        )
        for item in found
    ]
    human = output.table(("sweep", "status", "notebook", "runs", "accepted (UTC)"), rows)
    output.show(found, human if rows else "No sweeps yet.")


@sweeps.command("show")
def show_sweep(sweep_id: SweepId) -> None:
    """A sweep and its runs."""
    told = ExecutionClient().get_sweep(sweep_id)
    rows = [
        (point["number"], point["run_id"], point["status"], json.dumps(point["parameters"]))
        for point in told["points"]
    ]
    output.show(told, output.table(("point", "run", "status", "parameters"), rows, whole=2))


@sweeps.command("cancel")
def cancel_sweep(sweep_id: SweepId) -> None:
    """End a sweep: what waits never starts, what runs is ended."""
    sweep_shown(ExecutionClient().cancel_sweep(sweep_id))
