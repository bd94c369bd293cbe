"""The client of the execution API and its commands, against the service itself."""

import asyncio
import json
from typing import Any

import pytest

from notebooks import cli, execution
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
    monkeypatch.setattr(commands, "ExecutionClient", lambda: made)
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
        pod.ends(1, {"reason": "cell-error", "message": "Cell 2 raised.", "error": error})

    world.cluster.script = fails
    started = await asyncio.to_thread(client.run, "./a.ipynb")
    with pytest.raises(RunFailed, match="Cell 2 raised") as failed:
        await asyncio.to_thread(client.wait, started)
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


async def test_P10_runs_on_the_command_line(client, world, capsys):  # noqa: F811
    assert await run("runs", "start", "./work/sum.ipynb", "-p", "a=1", "-p", "b=text") == 0
    assert "succeeded: work/sum_output_" in capsys.readouterr().out
    (job,) = world.cluster.runs()
    env = job["spec"]["template"]["spec"]["containers"][0]["env"]
    assert json.loads(env[-1]["value"])["parameters"] == {"a": 1, "b": "text"}
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


async def test_P10_schedules_and_sweeps_on_the_command_line(client, capsys):
    made = ("schedules", "create", "daily", "./report.ipynb", "--cron", "30 6 * * MON-FRI")
    assert await run(*made, "--time-zone", "Europe/Berlin") == 0
    assert "daily: " in capsys.readouterr().out
    assert await run("schedules", "list", "--json") == 0
    (told,) = json.loads(capsys.readouterr().out)
    for verb in ("suspend", "resume", "delete"):
        assert await run("schedules", verb, told["schedule_id"]) == 0
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
