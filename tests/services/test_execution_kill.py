"""The service as its pod starts it, killed with -9 in the middle of runs, and MLflow in a run."""

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import nbformat
import pytest
from aiohttp import web
from nbformat.v4 import new_code_cell, new_notebook

from tests.ports import free_port
from tests.services.execution import BASE, Jobs, Pod, settings, succeeds
from tests.services.test_execution_api import RUN, world  # noqa: F401
from tests.services.waiting import eventually

PROGRAM = (
    "import sys, uvicorn; from mlhub.execution.__main__ import application; "
    "uvicorn.run(application(), host='127.0.0.1', port=int(sys.argv[1]), log_level='warning')"
)


class Process:
    """A replica in a process of its own."""

    def __init__(self, given: Any, folder: Path):
        self.settings, self.port = given, free_port()
        self._file = folder / "execution.json"
        self._file.write_text(given.model_dump_json())

    async def start(self) -> "Process":
        sources = Path(__file__).parents[2] / "images/packages/mlhub/src"
        environment = os.environ | {
            "MLHUB_EXECUTION_SETTINGS": str(self._file),
            "JUPYTERHUB_API_TOKEN": "token of the service",
            "PYTHONPATH": str(sources),
        }
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PROGRAM, str(self.port), env=environment
        )
        await eventually(self._well)
        return self

    async def _well(self) -> bool:
        assert self._process.returncode is None, "the service has ended"
        with contextlib.suppress(httpx.HTTPError):
            async with self.client("") as client:
                return (await client.get("/health")).status_code == 200
        return False

    def client(self, token: str) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.port}{BASE}",
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=30,
            trust_env=False,
            verify=False,  # noqa: S501 (plain HTTP; the authorities take longer to read than a run)
        )

    async def end(self, how: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(how)
        await self._process.wait()


async def admits(request: web.Request) -> web.Response:
    asked = await request.json()
    pod = {"labels": {}, "annotations": {"mlhub/owner": asked["user"]}}
    return web.json_response({"admitted": True, "reservation": "0" * 16, "pod": pod})


class Busy:
    """Pods of which three go on for as long as there are kills to come."""

    def __init__(self, cluster: Jobs):
        self._cluster, self.spared = cluster, asyncio.Event()

    async def __call__(self, pod: Pod) -> None:
        if not pod.is_small:
            pod.runs()
            while not self.spared.is_set() and len(running(self._cluster)) <= 3:
                await asyncio.sleep(0.1)
        await succeeds(pod)


def running(cluster: Jobs) -> list[Pod]:
    pods = [Pod(cluster, item) for item in cluster.pods.values()]
    return [p for p in pods if not p.is_small and p.item["status"]["phase"] == "Running"]


def kill_three(cluster: Jobs) -> dict[str, tuple[str, str]]:
    """Of the runs that go on, one loses its Job, one its node, one its processes: what each is to
    become, status and reason, by its id."""
    victims = running(cluster)[-3:]
    gone, lost, killed = victims
    ends = [("lost", "job-gone"), ("lost", "pod-gone"), ("failed", "container")]
    for pod in victims:
        cluster.tasks.pop(pod.job).cancel()
    cluster.lose(gone.job)
    lost.vanishes()
    killed.ends(137)
    return {pod.task["id"]: end for pod, end in zip(victims, ends, strict=True)}


async def all_ended(process: Process, people: list[str]) -> dict[str, tuple[str, str | None]]:
    """Status and reason of everybody's runs, once none goes on or three minutes are over."""
    deadline = time.monotonic() + 180
    while True:
        found: dict[str, tuple[str, str | None]] = {}
        for name in people:
            async with process.client(f"token-of-{name}") as client:
                listed = (await client.get("/runs?limit=200")).json()["runs"]
            found |= {run["run_id"]: (run["status"], run["reason"]) for run in listed}
        going = {"queued", "running"} & {status for status, _ in found.values()}
        if not going or time.monotonic() > deadline:
            return found
        await asyncio.sleep(0.5)


@pytest.mark.timeout(600)
async def test_P8_kills_of_the_service_between_submissions_account_for_every_run(
    world,  # noqa: F811
    serve,
    tmp_path,
):
    """Twenty people, two hundred runs at once, the service killed three times, and with it each
    time three of the pods: they end as what befell them, and all others succeed."""
    people = [f"user{n}" for n in range(20)]
    world.cluster.script = busy = Busy(world.cluster)
    world.cluster.claims = {f"claim-{name}" for name in people}
    hub = world.hub.application()
    hub.router.add_post("/hub/api/mlhub/admission", admits)
    given = settings(
        world.settings.kubernetes_url,
        await serve(hub) + "/hub/api",
        world.settings.database_url,
        limits={"per_minute": 20, "reconcile_seconds": 0.3},
    )
    process = await Process(given, tmp_path).start()
    accepted: dict[str, str] = {}
    expected: dict[str, tuple[str, str]] = {}

    async def submit(name: str, number: int) -> None:
        body = RUN | {"username": name, "parameters": {"n": number}}
        token = world.hub.person(name)
        while True:  # a client that keeps on asking, with the key that it began with
            try:
                async with process.client(token) as client:
                    answer = await client.post(
                        "/execute", json=body, headers={"Idempotency-Key": f"key-{number}"}
                    )
                if answer.status_code == 202:
                    accepted[f"{name}/{number}"] = answer.json()["run_id"]
                    return
                assert answer.status_code in (429, 503), answer.text
            except httpx.HTTPError:
                pass
            await asyncio.sleep(0.2)

    submissions = [asyncio.create_task(submit(name, n)) for name in people for n in range(10)]
    try:
        for share in (20, 80, 140):
            while len(accepted) < share or len(running(world.cluster)) < 3:
                await asyncio.sleep(0.05)
            await process.end(signal.SIGKILL)
            expected |= kill_three(world.cluster)
            process = await Process(given, tmp_path).start()
        busy.spared.set()
        await asyncio.gather(*submissions)
        assert len(accepted) == 200
        assert len(set(accepted.values())) == 200
        found = await all_ended(process, people)
    finally:
        for task in submissions:
            task.cancel()
        await process.end(signal.SIGTERM)
    assert found.keys() == set(accepted.values())
    made = [job["metadata"]["labels"]["mlhub.io/run"] for job in world.cluster.runs()]
    assert len(made) == len(set(made))
    assert set(made) <= found.keys()
    # A kill may come between the line in the database and the Job: that run is lost as well.
    never_made = found.keys() - set(made)
    assert len(never_made) <= 3 * len(people)
    expected |= dict.fromkeys(never_made, ("lost", "job-gone"))
    # Or between the Job and its start.
    never_begun = {
        job["metadata"]["labels"]["mlhub.io/run"]
        for job in world.cluster.runs()
        if job["spec"]["suspend"]
    }
    assert len(never_begun) <= 3 * len(people)
    expected |= dict.fromkeys(never_begun, ("failed", "not-started"))
    assert found == {run_id: expected.get(run_id, ("succeeded", None)) for run_id in found}


async def test_J3_an_mlflow_run_ends_as_the_notebook_does(tmp_path):
    """Against MLflow's own client and a store in files; a server is tried elsewhere."""
    home = tmp_path / "home"
    home.mkdir()
    sources = ["import os, mlflow", "mlflow.log_metric('m', 1)", "1 / 0"]
    for name, cells in (("good", sources[:2]), ("bad", sources)):
        notebook = new_notebook(cells=[new_code_cell(source) for source in cells])
        nbformat.write(notebook, home / f"{name}.ipynb")
    store = f"sqlite:///{tmp_path}/mlflow.db"
    ended = {}
    for name in ("good", "bad"):
        task = {
            "id": "0" * 16,
            "notebook": f"{name}.ipynb",
            "output": f"{name}_output_20261122_101500.ipynb",
            "replace": False,
            "parameters": {},
            "time_limit": 200,
            "cell_timeout": None,
            "experiment": "notebooks",
        }
        result = tmp_path / f"{name}.json"
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-sP",
            "-m",
            "notebooks.jobs.run",
            cwd=home,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(home),
                "PYTHONPATH": str(Path(__file__).parents[2] / "images/packages/notebooks/src"),
                "MLFLOW_TRACKING_URI": store,
                "MLHUB_RUN": json.dumps(task),
                "MLHUB_RUN_RESULT": str(result),
            },
        )
        await process.wait()
        ended[name] = json.loads(result.read_text())["mlflow_run_id"]
    from mlflow import MlflowClient

    client = MlflowClient(store)
    runs = {name: client.get_run(run_id) for name, run_id in ended.items()}
    assert {name: run.info.status for name, run in runs.items()} == {
        "good": "FINISHED",
        "bad": "FAILED",
    }
    assert runs["bad"].data.metrics == {"m": 1}
    assert [a.path for a in client.list_artifacts(ended["bad"])] == [
        "bad_output_20261122_101500.ipynb"
    ]
