"""Runs in MLflow as their person, in a workspace by their role, whatever happens to the pod."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from tests.services.execution import Pod, succeeds
from tests.services.test_execution_api import RUN, hangs, until, world  # noqa: F401
from tests.services.waiting import eventually


@dataclass
class Mlflow:
    """Its REST API, as far as it is asked, with one run for each that a runner began."""

    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    seen: list[tuple[str, str]] = field(default_factory=list)
    broken: int = 0

    def application(self) -> web.Application:
        app = web.Application()
        base = "/api/2.0/mlflow"
        app.router.add_get(f"{base}/experiments/get-by-name", self._experiment)
        app.router.add_post(f"{base}/runs/search", self._search)
        app.router.add_post(f"{base}/runs/update", self._update)
        return app

    def begun(self, run_id: str) -> None:
        """What the runner does before the first cell."""
        self.runs[run_id] = {"run_id": f"mlflow-{run_id}", "status": "RUNNING"}

    async def _experiment(self, request: web.Request) -> web.Response:
        who = request.headers["Authorization"], request.headers.get("X-MLFLOW-WORKSPACE", "")
        self.seen.append(who)
        if self.broken:
            return web.Response(status=self.broken)
        name = request.query["experiment_name"]
        return web.json_response({"experiment": {"experiment_id": name}})

    async def _search(self, request: web.Request) -> web.Response:
        body = await request.json()
        asked = body["filter"].removeprefix("tags.`mlhub.run` = ").strip("'")
        found = [{"info": run} for run_id, run in self.runs.items() if run_id == asked]
        return web.json_response({"runs": found} if found else {})

    async def _update(self, request: web.Request) -> web.Response:
        body = await request.json()
        (run,) = [r for r in self.runs.values() if r["run_id"] == body["run_id"]]
        run |= {"status": body["status"], "end_time": body["end_time"]}
        return web.json_response({})


@pytest.fixture
async def mlflow(serve: Any, world: Any) -> Mlflow:  # noqa: F811
    made = Mlflow()
    environment = {"MLFLOW_TRACKING_URI": await serve(made.application())}
    pod = world.settings.pod.model_copy(update={"environment": environment})
    world.settings = world.settings.model_copy(update={"pod": pod})
    return made


async def test_J3_a_runs_token_is_in_a_secret_of_its_job_and_ends_with_it(world, mlflow):  # noqa: F811
    go = asyncio.Event()

    async def slowly(pod: Pod) -> None:
        pod.runs()
        await go.wait()
        pod.ends(0, {"cells": [2, 2], "mlflow_run_id": "told"})

    world.cluster.script = slowly
    api = await world.client(await world.start())
    run_id = (await api.post("/execute", json=RUN)).json()["run_id"]
    (job,) = world.cluster.runs()
    secret = world.cluster.secrets[f"run-{run_id}"]
    owner = secret["metadata"]["ownerReferences"][0]
    assert (owner["kind"], owner["name"]) == ("Job", job["metadata"]["name"])
    assert secret["stringData"] == {"mlflow-token": "mlflow-token-of-alice"}
    assert "mlflow-token-of-alice" not in str(job)
    assert job["spec"]["suspend"] is False
    container = job["spec"]["template"]["spec"]["containers"][0]
    environment = {entry["name"]: entry for entry in container["env"]}
    token = environment["MLFLOW_TRACKING_TOKEN"]["valueFrom"]["secretKeyRef"]
    assert token["name"] == f"run-{run_id}"
    assert environment["MLHUB_MLFLOW_WORKSPACE"]["value"] == "alice--home"
    assert world.room.tokens
    go.set()
    assert (await until(api, run_id, "succeeded"))["mlflow_run_id"] == "told"
    await eventually(lambda: not world.room.tokens)
    await asyncio.sleep(0.5)
    assert not mlflow.seen


@pytest.mark.parametrize(
    ("ending", "status", "mlflow_status"),
    [("memory", "failed", "FAILED"), ("gone", "lost", "FAILED"), ("cancel", "cancelled", "KILLED")],
)
async def test_J3_the_mlflow_run_of_a_pod_that_was_killed_hard_is_ended(
    world,  # noqa: F811
    mlflow,
    ending,
    status,
    mlflow_status,
):
    async def killed(pod: Pod) -> None:
        if pod.is_small:
            await succeeds(pod)
            return
        pod.runs()
        mlflow.begun(pod.task["id"])
        await asyncio.sleep(0.1)
        if ending == "memory":
            pod.ends(137, "", "OOMKilled")
        elif ending == "gone":
            pod.vanishes()
        await asyncio.Event().wait()

    world.cluster.script = killed
    mlflow.broken = 503
    api = await world.client(await world.start())
    run_id = (await api.post("/execute", json=RUN)).json()["run_id"]
    if ending == "cancel":
        await until(api, run_id, "running")
        await api.post(f"/runs/{run_id}/cancel")
    await until(api, run_id, status)
    await asyncio.sleep(0.5)
    assert mlflow.runs[run_id]["status"] == "RUNNING"
    mlflow.broken = 0

    async def found() -> Any:
        return (await api.get(f"/runs/{run_id}")).json()["mlflow_run_id"]

    await eventually(found)
    assert mlflow.runs[run_id]["status"] == mlflow_status
    assert mlflow.seen[-1] == ("Bearer mlflow-token-of-alice", "")
    assert not world.room.tokens


async def test_M7_a_run_in_a_workspace_mounts_it_by_the_persons_role(world, mlflow):  # noqa: F811
    world.cluster.script = hangs
    api = await world.client(await world.start())
    answer = await api.post("/execute", json=RUN | {"workspace": "research"})
    assert answer.json()["workspace"] == "research"
    assert world.room.asked[0].workspace == "research"
    (job,) = world.cluster.runs()
    spec = job["spec"]["template"]["spec"]
    claim = spec["volumes"][-1]["persistentVolumeClaim"]
    assert claim == {"claimName": "workspace-research", "readOnly": True}
    mount = spec["containers"][0]["volumeMounts"][-1]
    assert mount["mountPath"] == "/home/jovyan/workspaces/research"
    assert mount["readOnly"] is True
    environment = {e["name"]: e.get("value") for e in spec["containers"][0]["env"]}
    assert environment["MLFLOW_WORKSPACE"] == "research"
    for wrong in ("../x", "A", "", "a" * 64):
        assert (await api.post("/execute", json=RUN | {"workspace": wrong})).status_code == 422
