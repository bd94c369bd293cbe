"""The client of the execution API and its commands, against the service itself."""

import asyncio
import json
import time
from typing import Any

import pytest

from notebooks import cli, execution
from notebooks.cli import plans
from notebooks.cli import runs as commands
from notebooks.connection import Connection
from notebooks.errors import Refused, Unreachable
from notebooks.execution import ExecutionClient, RunFailed
from tests.services.execution import Pod
from tests.services.test_execution_api import hangs, world  # noqa: F401


@pytest.fixture
async def client(world: Any, monkeypatch: Any) -> Any:  # noqa: F811
    service = await world.start(per_minute=50)
    connection = Connection(service.url, "alice", world.alice)
    made = ExecutionClient(connection)
    monkeypatch.setattr(execution, "PAUSE_SECONDS", 0.05)
    for module in (commands, plans):
        monkeypatch.setattr(module, "ExecutionClient", lambda: made)
    return made


async def run(*args: str) -> int:
    return await asyncio.to_thread(cli.main, list(args))


async def test_P10_the_client_runs_waits_and_tells_the_cells(client):
    told: list[Any] = []

    def work() -> Any:
        started = client.run("./work/sum.ipynb", {"a": 1})
        return client.wait(started, tell=told.append), list(client.log(started.run_id, follow=True))

    ended, log = await asyncio.to_thread(work)
    assert (ended.status, ended.cells) == ("succeeded", (2, 2))
    assert "hello" in log
    assert told[-1].status == "succeeded"
    (artifact,) = await asyncio.to_thread(client.artifacts, ended.run_id)
    assert artifact["path"] == ended.output_notebook


async def test_P10_a_failure_is_an_exception_with_the_cell(client, world):  # noqa: F811
    error = {"cell": 2, "ename": "KeyError", "evalue": "'x'", "traceback": []}

    async def fails(pod: Pod) -> None:
        pod.runs()
        told = {"reason": "cell-error", "message": "Cell 2 raised.", "error": error}
        pod.ends(1, told | {"cells": [1, 3], "output": pod.task["output"]})

    world.cluster.script = fails
    started = await asyncio.to_thread(client.run, "./a.ipynb")
    with pytest.raises(RunFailed, match="Cell 2 raised") as failed:
        await asyncio.to_thread(client.wait, started)
    assert failed.value.sentence.endswith(f"As far as it came: {started.output_notebook}")
    assert failed.value.run.error["ename"] == "KeyError"
    with pytest.raises(Refused) as refused:
        await asyncio.to_thread(client.run, "../a.ipynb")
    assert (refused.value.status, refused.value.type) == (422, "invalid")


async def test_P8_a_lost_answer_is_asked_for_again_and_is_one_run(client, world, monkeypatch):  # noqa: F811
    asked, request = [], Connection.request

    def loses(self: Any, method: str, path: str, *args: Any, **more: Any) -> Any:
        answer = request(self, method, path, *args, **more)
        asked.append(path)
        if method == "POST" and len(asked) < 3:
            raise Unreachable("lost")
        return answer

    monkeypatch.setattr(Connection, "request", loses)
    await asyncio.to_thread(client.run, "./a.ipynb")
    assert len(asked) == 3
    assert len(world.cluster.runs()) == 1


@pytest.fixture
def broken(monkeypatch: Any) -> Any:
    """What is raised instead of the next answers to a GET, as `broken.append(…)` says."""
    errors: list[Exception] = []
    request = Connection.request

    def asked(self: Any, method: str, *args: Any, **more: Any) -> Any:
        if method == "GET" and errors:
            raise errors.pop(0)
        return request(self, method, *args, **more)

    monkeypatch.setattr(Connection, "request", asked)
    return errors


def silent(after: float = 0) -> Refused:
    """As the service says it while its database restarts."""
    return Refused(503, "database", "The database does not answer; try again.", after)


async def test_P8_a_wait_outlasts_a_database_or_a_hub_that_restarts(client, broken):
    started = await asyncio.to_thread(client.run, "./a.ipynb")
    broken += [silent() for _ in range(10)] + [Unreachable("away") for _ in range(10)]
    assert (await asyncio.to_thread(client.wait, started)).status == "succeeded"
    sweep = await asyncio.to_thread(client.sweep, "./train.ipynb", {"rate": [0.1]})
    broken += [silent() for _ in range(10)]
    ended = await asyncio.to_thread(client.wait_sweep, sweep["sweep_id"])
    assert ended["status"] == "succeeded"


async def test_P8_a_wait_asks_again_when_it_is_told_to_and_within_reason(
    client, broken, monkeypatch
):
    pauses: list[float] = []
    started = await asyncio.to_thread(client.run, "./a.ipynb")
    monkeypatch.setattr(execution.time, "sleep", pauses.append)
    broken += [silent(7), silent(3600)]
    await asyncio.to_thread(client.wait, started)
    assert pauses[:2] == [7, execution.LONGEST_PAUSE_SECONDS]


async def test_P8_a_wait_that_gives_up_names_the_run(client, broken, monkeypatch, capsys):
    started = await asyncio.to_thread(client.run, "./a.ipynb")
    monkeypatch.setattr(execution, "SILENT_SECONDS", 0.2)
    for error in (Refused(403, "login", "Log in."), *(silent() for _ in range(100))):
        broken.append(error)
    with pytest.raises(Refused, match=f"Run {started.run_id} was not seen to end: Log in."):
        await asyncio.to_thread(client.wait, started)
    assert await run("runs", "wait", started.run_id, "--json") == 1
    error = json.loads(capsys.readouterr().err)["error"]
    assert (error["type"], error["status"], error["run_id"]) == ("database", 503, started.run_id)
    assert started.run_id in error["sentence"]


async def test_P8_a_hub_that_never_answered_is_given_up_soon(client, broken):
    broken += [Unreachable("away") for _ in range(100)]
    begun = time.monotonic()
    with pytest.raises(Unreachable, match="away"):
        await asyncio.to_thread(client.wait, "0" * 16)
    assert time.monotonic() - begun < 10


async def test_P10_the_id_is_told_at_once_and_an_interrupted_wait_says_that_the_run_goes_on(
    client,
    broken,
    capsys,
):
    broken.append(KeyboardInterrupt())  # type: ignore[arg-type]
    assert await run("runs", "start", "./a.ipynb") == 130
    first, last = capsys.readouterr().err.splitlines()
    run_id = first.split()[1]
    assert first == f"Run {run_id} is queued."
    assert last == f"Run {run_id} goes on; `runs wait {run_id}` waits for it again."
    broken.append(KeyboardInterrupt())  # type: ignore[arg-type]
    assert await run("runs", "wait", run_id, "--json") == 130
    error = json.loads(capsys.readouterr().err)["error"]
    assert (error["type"], error["run_id"]) == ("interrupted", run_id)
    sweep = await told_by(capsys, "sweeps", "start", "./train.ipynb", "-g", "rate=[0.1]")
    broken.append(KeyboardInterrupt())  # type: ignore[arg-type]
    assert await run("sweeps", "wait", sweep["sweep_id"]) == 130
    assert f"Sweep {sweep['sweep_id']} goes on;" in capsys.readouterr().err


async def test_P10_runs_on_the_command_line(client, world, capsys):  # noqa: F811
    assert await run("runs", "start", "./work/sum.ipynb", "-p", "a=1", "-p", "b=text") == 0
    assert "succeeded: work/sum_output_" in capsys.readouterr().out
    (job,) = world.cluster.runs()
    env = job["spec"]["template"]["spec"]["containers"][0]["env"]
    assert json.loads(env[-1]["value"])["parameters"] == {"a": 1, "b": "text"}
    assert await run("runs", "list", "--status", "failed") == 0
    assert "No such runs." in capsys.readouterr().out
    assert await run("runs", "list", "--json") == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert await run("runs", "log", told["run_id"]) == 0
    assert "hello" in capsys.readouterr().out
    assert await run("runs", "artifacts", told["run_id"]) == 0
    assert "notebook" in capsys.readouterr().out
    world.cluster.script = hangs
    assert await run("runs", "start", "./slow.ipynb", "--no-wait", "--json") == 0
    slow = json.loads(capsys.readouterr().out)["run_id"]
    assert await run("runs", "cancel", slow) == 0
    assert await run("runs", "wait", slow) == 1
    assert "cancelled" in capsys.readouterr().err
    assert await run("runs", "start", "./a.ipynb", "-p", "no value") == 2
    assert await run("runs", "start", "./a.ipynb", "-p", "a b=1") == 1
    assert "identifier" in capsys.readouterr().err


async def told_by(capsys: Any, *args: str) -> Any:
    """What a command says with `--json`."""
    assert await run(*args, "--json") == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


async def test_P10_an_output_of_ones_own_a_key_and_pages_on_the_command_line(
    client,
    world,  # noqa: F811
    capsys,
):
    start = ("runs", "start", "./work/sum.ipynb", "-p", "a=1", "--output", "out/sum.ipynb")
    first = await told_by(capsys, *start, "--key", "one")
    again = await told_by(capsys, *start, "--key", "one", "--no-wait")
    assert (first["output_notebook"], first["parameters"]) == ("out/sum.ipynb", {"a": 1})
    assert again["run_id"] == first["run_id"]
    assert len(world.cluster.runs()) == 1
    second = await told_by(capsys, *start[:5])
    assert second["run_id"] != first["run_id"]
    (older,) = await told_by(capsys, "runs", "list", "--before", second["timestamp"])
    assert older["run_id"] == first["run_id"]
    assert await run(*start, "--key", "has spaces") == 1
    world.cluster.script = lists
    (found,) = await told_by(capsys, "runs", "notebooks")
    assert (found["relative_path"], found["size"]) == ("work/sum.ipynb", 12)
    assert await run("runs", "notebooks") == 0
    assert "work/sum.ipynb" in capsys.readouterr().out


async def lists(pod: Pod) -> None:
    found = {"path": "work/sum.ipynb", "size": 12, "modified": "2026-11-22T10:15:00+00:00"}
    pod.runs()
    pod.says(json.dumps(found) + "\n" + json.dumps({"count": 1}) + "\n")
    pod.ends()


async def test_P10_a_schedule_is_made_to_rest_shown_and_changed_on_the_command_line(client, capsys):
    made = ("schedules", "create", "daily", "./report.ipynb", "--cron", "30 6 * * MON-FRI")
    told = await told_by(capsys, *made, "--suspended", "-p", "year=2025")
    assert (told["suspended"], told["next"]) == (True, [])
    change = ("schedules", "change", told["schedule_id"])
    changed = await told_by(capsys, *change, "--cron", "0 7 * * *", "-p", "year=2026")
    assert (changed["cron"], changed["parameters"]) == ("0 7 * * *", {"year": 2026})
    changed = await told_by(capsys, *change, "--time-zone", "Europe/Berlin")
    assert (changed["cron"], changed["time_zone"]) == ("0 7 * * *", "Europe/Berlin")
    shown = await told_by(capsys, "schedules", "show", told["schedule_id"])
    assert shown == changed
    assert await run("schedules", "resume", told["schedule_id"]) == 0
    assert await run("schedules", "show", told["schedule_id"]) == 0
    said = capsys.readouterr().out
    assert "0 7 * * * (Europe/Berlin)" in said
    assert said.count("next") == 5
    assert await run(*change) == 2
    assert await run("schedules", "show", "0" * 16) == 1
    assert "`schedules list` lists them" in capsys.readouterr().err


async def test_P10_a_schedule_of_a_notebook_that_is_not_there_is_doubted(client, world, capsys):  # noqa: F811
    made = ("--cron", "30 6 * * *")
    world.cluster.script = lists
    assert await run("schedules", "create", "sum", "./work/sum.ipynb", *made) == 0
    assert capsys.readouterr().err == ""
    assert await run("schedules", "create", "lost", "./work/lost.ipynb", *made) == 0
    said = capsys.readouterr()
    assert "There is no notebook work/lost.ipynb in the home now" in said.err
    assert "lost: " in said.out


async def test_P10_sweeps_are_listed_and_waited_for_on_the_command_line(client, world, capsys):  # noqa: F811
    assert await run("sweeps", "list") == 0
    assert "No sweeps yet." in capsys.readouterr().out
    start = ("sweeps", "start", "./train.ipynb", "-g", "rate=[0.1,0.2]", "--key", "one")
    sweep = await told_by(capsys, *start)
    assert (await told_by(capsys, *start))["sweep_id"] == sweep["sweep_id"]
    ended = await told_by(capsys, "sweeps", "wait", sweep["sweep_id"])
    assert (ended["status"], ended["counts"]) == ("succeeded", {"succeeded": 2})
    world.cluster.script = hangs
    going = await told_by(capsys, "sweeps", "start", "./slow.ipynb", "-g", "rate=[0.1]")
    assert await run("sweeps", "wait", going["sweep_id"], "--timeout", "0.1") == 1
    assert "goes on" in capsys.readouterr().err
    listed = await told_by(capsys, "sweeps", "list")
    assert [each["sweep_id"] for each in listed] == [going["sweep_id"], sweep["sweep_id"]]
    assert [
        each["sweep_id"] for each in await told_by(capsys, "sweeps", "list", "--limit", "1")
    ] == [going["sweep_id"]]
    assert await run("sweeps", "cancel", going["sweep_id"]) == 0
    assert await run("sweeps", "wait", going["sweep_id"], "--json") == 1
    error = json.loads(capsys.readouterr().err)["error"]
    assert (error["type"], error["sweep"]["counts"]) == ("cancelled", {"cancelled": 1})
    assert await run("sweeps", "list") == 0
    said = capsys.readouterr().out
    assert "2 succeeded" in said
    assert "1 cancelled" in said
    assert await run("sweeps", "list", "--user", "bob") == 1


async def test_P10_schedules_and_sweeps_on_the_command_line(client, capsys):
    made = ("schedules", "create", "daily", "./report.ipynb", "--cron", "30 6 * * MON-FRI")
    assert await run(*made, "--time-zone", "Europe/Berlin") == 0
    assert "daily: " in capsys.readouterr().out
    assert await run("schedules", "list", "--json") == 0
    (told,) = json.loads(capsys.readouterr().out)
    for verb in ("show", "suspend", "resume"):
        assert await run("schedules", verb, told["schedule_id"]) == 0
        assert await run("schedules", verb, "daily") == 0
    assert await run("schedules", "change", "daily", "--cron", "30 7 * * MON-FRI") == 0
    said = capsys.readouterr().out
    assert "07:30 CE" in said, "in the schedule's own zone"
    assert "05:30" not in said
    assert await run("schedules", "delete", "daily") == 0
    assert await run("schedules", "delete", "daily") == 1
    sentence = "There is no schedule 'daily'; `schedules list` shows those there are."
    assert sentence in capsys.readouterr().err
    assert await run("schedules", "list") == 0
    assert "No schedules yet." in capsys.readouterr().out
    assert await run(*made[:4], "--cron", "whenever") == 1
    assert "five fields" in capsys.readouterr().err

    assert await run("sweeps", "start", "./train.ipynb", "-g", "rate=[0.1,0.2]", "--json") == 0
    sweep = json.loads(capsys.readouterr().out)["sweep_id"]
    assert await run("sweeps", "show", sweep) == 0
    assert '{"rate": 0.1}' in capsys.readouterr().out
    assert await run("sweeps", "cancel", sweep) == 0
    assert await run("sweeps", "start", "./train.ipynb", "-g", "rate=0.1") == 2
