"""What the execution service needs around it: a Kubernetes that runs Jobs, a Hub, an admission.

The Kubernetes behaves as far as the service looks: a Job gets a pod, a pod runs and ends, a deleted
Job takes its pod along, names are unique, labels select. What a pod does, a test says by `script`;
`RealRunner` does what the pod's command says, in a home of the test's.
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from aiohttp import web
from fastapi import FastAPI

from mlhub.execution.admission import AdmissionRequest, AdmissionSilentError, Decision
from mlhub.execution.app import build_app
from mlhub.execution.cluster import Cluster
from mlhub.execution.settings import Settings
from mlhub.execution.store import Store

Object = dict[str, Any]
SOURCES = Path(__file__).parents[2] / "images/packages/notebooks/src"
BASE = "/services/execution"
SCOPE = "access:services!service=execution"


def moment() -> str:
    return datetime.now(UTC).isoformat()


def settings(kubernetes_url: str, hub_url: str, database: str, **given: Any) -> Settings:
    return Settings.model_validate(
        {
            "database_url": database,
            "base_path": BASE,
            "kubernetes_url": kubernetes_url,
            "pod": {
                "namespace": "jupyterhub",
                "labels": {"app": "jupyterhub", "component": "singleuser-server"},
                "home_claim": "claim-{username}",
                "home_mount": "/home/jovyan",
                "uid": 1000,
                "fs_gid": 100,
            },
            "profiles": [
                {
                    "slug": "small",
                    "default": True,
                    "image": "registry/ml-cpu@sha256:1",
                    "cpu_limit": 1,
                    "cpu_guarantee": 0.1,
                    "mem_limit": "2G",
                    "mem_guarantee": "512M",
                }
            ],
            "hub": {"api_url": hub_url, "scope": SCOPE, "patience_seconds": 0},
            "trigger": {"image": "registry/execution@sha256:2", "url": "http://execution:8002"},
            "limits": {"reconcile_seconds": 0.2},
        }
        | given
    )


@dataclass
class Pod:
    """A pod for a script to move; each call is what a kubelet would report."""

    cluster: "Jobs"
    item: Object

    @property
    def name(self) -> str:
        return str(self.item["metadata"]["name"])

    @property
    def job(self) -> str:
        return str(self.item["metadata"]["labels"]["job-name"])

    @property
    def environment(self) -> dict[str, str]:
        env = self.item["spec"]["containers"][0]["env"]
        return {e["name"]: e["value"] for e in env if "value" in e}

    @property
    def task(self) -> Object:
        return dict(json.loads(self.environment["MLHUB_RUN"]))

    @property
    def is_small(self) -> bool:
        """Whether it is a listing or a collection, and no run."""
        return not str(self.item["spec"]["containers"][0]["command"][-1]).endswith(".run")

    def runs(self) -> None:
        self._state({"running": {"startedAt": moment()}}, "Running")

    def waits(self, reason: str, message: str) -> None:
        self._state({"waiting": {"reason": reason, "message": message}}, "Pending")

    def says(self, text: str) -> None:
        self.cluster.logs[self.name] = self.cluster.logs.get(self.name, "") + text

    def ends(self, code: int = 0, result: Object | str | None = None, reason: str = "") -> None:
        message = result if isinstance(result, str) else json.dumps(result or {})
        now = moment()
        terminated = {"exitCode": code, "startedAt": now, "finishedAt": now, "message": message}
        terminated["reason"] = reason or ("Completed" if code == 0 else "Error")
        self._state({"terminated": terminated}, "Succeeded" if code == 0 else "Failed")
        self.cluster.job_ends(self.item, "Complete" if code == 0 else "Failed", "BackoffLimit")

    def vanishes(self) -> None:
        """Its node is gone, and the Job controller gives up."""
        self.cluster.pods.pop(self.name, None)
        self.cluster.job_ends(self.item, "Failed", "BackoffLimitExceeded")

    def _state(self, state: Object, phase: str) -> None:
        container = {"name": "notebook", "state": state}
        self.item["status"] |= {"phase": phase, "containerStatuses": [container]}


async def succeeds(pod: Pod) -> None:
    """What most pods do: run at once and succeed soon."""
    pod.runs()
    if "collect" in str(pod.item["spec"]["containers"][0]["command"]):
        pod.says("{}\n")
        pod.ends()
        return
    if "listing" in str(pod.item["spec"]["containers"][0]["command"]):
        pod.says(json.dumps({"count": 0}) + "\n")
        pod.ends()
        return
    pod.says("[mlhub] cell 1 of 2\nhello\n[mlhub] cell 2 of 2\n")
    pod.ends(0, {"cells": [2, 2], "size": 10, "output": pod.task["output"]})


Script = Callable[[Pod], Any]


@dataclass
class Jobs:
    """A Kubernetes for Jobs."""

    script: Script = succeeds
    claims: set[str] = field(default_factory=lambda: {"claim-alice", "claim-bob"})
    broken: int = 0
    """The status with which it answers everything, when it is not well."""
    refuses: str = ""
    """The message with which it forbids Jobs."""
    invalid: str = ""
    """The message with which it calls CronJobs invalid."""
    lingers: bool = False
    """Whether a deleted Job's pod stays, as in its grace, until the test takes it away."""
    unheard: bool = False
    """Whether it makes Jobs and never says so."""
    starts: str = "heard"
    """Or `unheard`, when it starts Jobs and never says so, or `never`, when it does neither."""
    jobs: dict[str, Object] = field(default_factory=dict)
    pods: dict[str, Object] = field(default_factory=dict)
    logs: dict[str, str] = field(default_factory=dict)
    created: list[Object] = field(default_factory=list)
    cron_jobs: dict[str, Object] = field(default_factory=dict)
    secrets: dict[str, Object] = field(default_factory=dict)
    tasks: dict[str, "asyncio.Task[None]"] = field(default_factory=dict)

    def application(self) -> web.Application:
        batch = "/apis/batch/v1/namespaces/{namespace}/jobs"
        cron = "/apis/batch/v1/namespaces/{namespace}/cronjobs"
        core = "/api/v1/namespaces/{namespace}"
        app = web.Application(middlewares=[self._well])
        app.add_routes(
            [
                web.get(batch, self._list_jobs),
                web.post(batch, self._create),
                web.get(batch + "/{name}", self._read),
                web.patch(batch + "/{name}", self._start),
                web.delete(batch + "/{name}", self._delete),
                web.get(cron, self._list_cron_jobs),
                web.post(cron, self._create_cron_job),
                web.get(cron + "/{name}", self._read_cron_job),
                web.patch(cron + "/{name}", self._patch_cron_job),
                web.delete(cron + "/{name}", self._delete_cron_job),
                web.post(core + "/secrets", self._create_secret),
                web.get(core + "/pods", self._list_pods),
                web.get(core + "/pods/{name}/log", self._log),
                web.get(core + "/persistentvolumeclaims/{name}", self._claim),
            ]
        )
        return app

    def runs(self) -> list[Object]:
        """The Jobs that were made for runs."""
        return [j for j in self.created if j["metadata"]["labels"]["mlhub.io/kind"] == "run"]

    def job_ends(self, pod: Object, kind: str, reason: str) -> None:
        job = self.jobs.get(pod["metadata"]["labels"]["job-name"])
        if job:
            condition = {"type": kind, "status": "True", "reason": reason, "message": ""}
            job["status"]["conditions"] = [condition]

    def lose(self, name: str) -> None:
        """A Job that is gone with all that was its."""
        self.jobs.pop(name, None)
        if self.lingers:
            return
        if task := self.tasks.pop(name, None):
            task.cancel()
        self.pods.pop(f"{name}-x", None)

    async def close(self) -> None:
        for task in self.tasks.values():
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)

    @web.middleware
    async def _well(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if self.broken:
            return web.json_response({"message": "not well"}, status=self.broken)
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _create(self, request: web.Request) -> web.Response:
        job = await request.json()
        name = job["metadata"]["name"]
        if self.refuses:
            return web.json_response({"message": self.refuses}, status=403)
        if name in self.jobs:
            return web.json_response({"message": f"{name} exists"}, status=409)
        job["status"] = {}
        self.jobs[name] = job
        self.created.append(job)
        pod = self._pod_of(name, job)
        job["metadata"]["uid"] = f"uid-of-{name}"
        if not job["spec"].get("suspend"):
            self._begin(name, pod)
        if self.unheard:
            return web.json_response({"message": "timed out"}, status=504)
        return web.json_response(job, status=201)

    def _pod_of(self, name: str, job: Object) -> Object:
        template = job["spec"]["template"]
        return {
            "metadata": {
                "name": f"{name}-x",
                "labels": {**template["metadata"]["labels"], "job-name": name},
            },
            "spec": template["spec"],
            "status": {"phase": "Pending"},
        }

    def _begin(self, name: str, pod: Object) -> None:
        self.pods[f"{name}-x"] = pod
        self.tasks[name] = asyncio.create_task(self.script(Pod(self, pod)))

    async def _start(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        assert request.content_type == "application/merge-patch+json"
        assert await request.json() == {"spec": {"suspend": False}}
        job = self.jobs[name]
        if self.starts != "never":
            job["spec"]["suspend"] = False
            self._begin(name, self._pod_of(name, job))
        if self.starts != "heard":
            return web.json_response({"message": "timed out"}, status=504)
        return web.json_response(job)

    async def _create_secret(self, request: web.Request) -> web.Response:
        secret = await request.json()
        self.secrets[secret["metadata"]["name"]] = secret
        return web.json_response({}, status=201)

    async def _create_cron_job(self, request: web.Request) -> web.Response:
        item = await request.json()
        name = item["metadata"]["name"]
        if self.invalid:
            return web.json_response({"message": self.invalid}, status=422)
        if name in self.cron_jobs:
            return web.json_response({"message": f"{name} exists"}, status=409)
        item["metadata"]["uid"] = f"uid-of-{name}"
        self.cron_jobs[name] = item
        return web.json_response(item, status=201)

    async def _read_cron_job(self, request: web.Request) -> web.Response:
        item = self.cron_jobs.get(request.match_info["name"])
        return web.json_response(item or {"message": "not found"}, status=200 if item else 404)

    async def _patch_cron_job(self, request: web.Request) -> web.Response:
        item = self.cron_jobs[request.match_info["name"]]
        change = await request.json()
        item["spec"] |= change["spec"]
        item["metadata"]["annotations"] = change["metadata"]["annotations"]
        return web.json_response(item)

    async def _delete_cron_job(self, request: web.Request) -> web.Response:
        """With the Secrets that it owns, as the garbage collector does."""
        item = self.cron_jobs.pop(request.match_info["name"], None)
        for name, secret in list(self.secrets.items()):
            owners = secret["metadata"]["ownerReferences"]
            if item and owners[0]["uid"] == item["metadata"]["uid"]:
                del self.secrets[name]
        return web.json_response({}, status=200 if item else 404)

    async def _list_cron_jobs(self, request: web.Request) -> web.Response:
        return self._selected(request, self.cron_jobs)

    async def _read(self, request: web.Request) -> web.Response:
        job = self.jobs.get(request.match_info["name"])
        return web.json_response(job or {"message": "not found"}, status=200 if job else 404)

    async def _delete(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        assert (await request.json())["propagationPolicy"] == "Background"
        there = name in self.jobs
        self.lose(name)
        return web.json_response({"message": "not found"}, status=200 if there else 404)

    async def _list_jobs(self, request: web.Request) -> web.Response:
        return self._selected(request, self.jobs)

    async def _list_pods(self, request: web.Request) -> web.Response:
        return self._selected(request, self.pods)

    def _selected(self, request: web.Request, items: dict[str, Object]) -> web.Response:
        """In pages of three, so that whoever reads only one page is found out."""
        key, _, value = request.query.get("labelSelector", "").partition("=")
        found = [i for i in items.values() if not key or i["metadata"]["labels"].get(key) == value]
        start = int(request.query.get("continue") or 0)
        more = str(start + 3) if len(found) > start + 3 else ""
        return web.json_response(
            {"items": found[start : start + 3], "metadata": {"continue": more}}
        )

    async def _log(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        if "follow" not in request.query:
            limit = int(request.query["limitBytes"])
            return web.Response(body=self.logs.get(name, "").encode()[:limit])
        stream = web.StreamResponse()
        await stream.prepare(request)
        sent = 0
        while True:
            text = self.logs.get(name, "")
            await stream.write(text[sent:].encode())
            sent = len(text)
            if self.pods.get(name, {}).get("status", {}).get("phase") in (
                "Succeeded",
                "Failed",
                None,
            ):
                return stream
            await asyncio.sleep(0.02)

    async def _claim(self, request: web.Request) -> web.Response:
        there = request.match_info["name"] in self.claims
        return web.json_response({"message": "not found"}, status=200 if there else 404)


@dataclass
class RealRunner:
    """A kubelet that does what the Job's command says, with the home in a folder of the test's."""

    home: Path

    async def __call__(self, pod: Pod) -> None:
        container = pod.item["spec"]["containers"][0]
        module = container["command"][-1]
        result = self.home.parent / f"{pod.name}.result"
        environment = pod.environment | {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "PYTHONPATH": str(SOURCES),
            "MLHUB_RUN_RESULT": str(result),
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-sP",
            "-m",
            module,
            env=environment,
            cwd=self.home,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        pod.runs()
        assert process.stdout
        try:
            while line := await process.stdout.readline():
                pod.says(line.decode())
            code = await process.wait()
        except asyncio.CancelledError:
            process.terminate()
            await process.wait()
            raise
        pod.ends(code, result.read_text() if result.exists() else "")


@dataclass
class Tokens:
    """The Hub's `/user`, for tokens that a test hands out."""

    known: dict[str, Object] = field(default_factory=dict)
    asked: int = 0
    broken: int = 0

    def person(self, name: str, *, admin: bool = False, scopes: list[str] | None = None) -> str:
        token = f"token-of-{name}"
        self.known[token] = {
            "kind": "user",
            "name": name,
            "admin": admin,
            "scopes": [SCOPE] if scopes is None else scopes,
        }
        return token

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/hub/api/user", self._user)
        return app

    async def _user(self, request: web.Request) -> web.Response:
        self.asked += 1
        if self.broken:
            return web.Response(status=self.broken)
        token = request.headers["Authorization"].removeprefix("token ")
        model = self.known.get(token)
        return web.json_response(model or {"message": "no"}, status=200 if model else 403)


@dataclass
class Room:
    """An admission with so much room."""

    runs: int = 10_000
    silent: bool = False
    asked: list[AdmissionRequest] = field(default_factory=list)
    released: list[str] = field(default_factory=list)
    tokens: dict[str, str] = field(default_factory=dict)
    """Those given and not revoked, by run; an MLflow is there where a test wants one."""
    at_once: int = 0
    most_at_once: int = 0
    ended: dict[str, str] = field(default_factory=dict)
    """Why, by run."""

    async def decide(self, request: AdmissionRequest) -> Decision:
        self.asked.append(request)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0.01)
        self.at_once -= 1
        if self.silent:
            raise AdmissionSilentError("test")
        if self.runs < 1:
            return Decision(
                False, "You asked for 1 core; there is nothing left.", details={"fits": None}
            )
        self.runs -= 1
        return Decision(
            True,
            reservation="0" * 16,
            labels={"mlhub/holder": "run"},
            annotations={"mlhub/owner": request.user},
            role="viewer" if request.workspace else "",
        )

    async def release(self, reservation: str) -> None:
        self.released.append(reservation)

    async def token(self, user: str, run_id: str, seconds: int) -> str | None:
        self.tokens[run_id] = f"mlflow-token-of-{user}"
        return self.tokens[run_id]

    async def revoke(self, run_id: str) -> None:
        self.tokens.pop(run_id, None)

    async def why_ended(self, run_id: str) -> str:
        return self.ended.get(run_id, "")

    async def close(self) -> None: ...


@dataclass
class Service:
    """A replica that serves."""

    url: str
    app: FastAPI
    server: uvicorn.Server
    task: "asyncio.Task[None]"

    def client(self, token: str = "", **more: Any) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.AsyncClient(
            base_url=self.url + BASE, headers=headers, timeout=60, trust_env=False, **more
        )

    async def stop(self) -> None:
        self.server.should_exit = True
        await asyncio.wait_for(self.task, 60)


@asynccontextmanager
async def serving(given: Settings, port: int, room: Room | None = None) -> AsyncIterator[Service]:
    app = build_app(
        given,
        store=Store(given.database_url),
        cluster=Cluster(given.kubernetes_url, given.pod.namespace),
        admission=room or Room(),
        listing_wait=20,
    )
    config = uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning")
    config.timeout_graceful_shutdown = 1
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    task = asyncio.create_task(server.serve())
    while not server.started:
        assert not task.done(), task.exception()
        await asyncio.sleep(0.02)
    service = Service(f"http://127.0.0.1:{port}", app, server, task)
    try:
        yield service
    finally:
        if not task.done():
            await service.stop()
