"""The execution API over HTTP, with a Kubernetes, a Hub and an admission of the test's."""

import asyncio
import contextlib
import itertools
import json
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from mlhub.execution.outcome import CREATION_SECONDS
from mlhub.execution.runs import Reconciler
from mlhub.execution.store import Store
from tests.ports import free_port
from tests.services.execution import (
    Jobs,
    Pod,
    Room,
    Tokens,
    serving,
    settings,
    succeeds,
)
from tests.services.waiting import eventually

RUN = {"username": "alice", "notebook_name": "./work/sum.ipynb", "parameters": {"a": 1}}


class World:
    """Everything around the service, and the services in it."""

    def __init__(self, cluster: Jobs, hub: Tokens, room: Room, given: Any, stack: Any):
        self.cluster, self.hub, self.room, self.settings = cluster, hub, room, given
        self._stack = stack
        self.alice = hub.person("alice")
        self.bob = hub.person("bob")
        self.carol = hub.person("carol", admin=True)

    async def start(self, **limits: Any) -> Any:
        given = self.settings
        if limits:
            given = given.model_copy(update={"limits": given.limits.model_copy(update=limits)})
        return await self._stack.enter_async_context(serving(given, free_port(), self.room))

    async def client(self, service: Any, token: str | None = None) -> Any:
        return await self._stack.enter_async_context(
            service.client(self.alice if token is None else token)
        )


@pytest.fixture
async def world(serve: Any, tmp_path: Path) -> Any:
    cluster, hub, room = Jobs(), Tokens(), Room()
    given = settings(
        await serve(cluster.application()),
        await serve(hub.application()) + "/hub/api",
        f"sqlite:///{tmp_path}/execution.db",
    )
    async with contextlib.AsyncExitStack() as stack:
        yield World(cluster, hub, room, given, stack)
    await cluster.close()


@pytest.fixture
async def api(world: World) -> Any:
    return await world.client(await world.start())


async def until(api: Any, run_id: str, *statuses: str) -> Any:
    async def one_of_them() -> Any:
        run = (await api.get(f"/runs/{run_id}")).json()
        return run if run["status"] in statuses else None

    return await eventually(one_of_them)


async def artifacts_of(api: Any, run_id: str) -> Any:
    """Once there are any."""

    async def found() -> Any:
        return (await api.get(f"/runs/{run_id}/artifacts")).json()["artifacts"]

    return await eventually(found)


def problem(answer: Any, status: int, kind: str) -> Any:
    body = answer.json()
    assert (answer.status_code, body.get("type")) == (status, kind), body
    assert answer.headers["content-type"] == "application/problem+json"
    assert body["status"] == status
    assert len(body["detail"]) > 10
    return body


async def hangs(pod: Pod) -> None:
    if pod.is_small:
        await succeeds(pod)
        return
    pod.runs()
    pod.says("[mlhub] cell 1 of 4\n[mlhub] cell 3 of 4\n")
    await asyncio.Event().wait()


async def test_P1_P8_a_run_is_accepted_at_once_and_followed_to_its_end(api, world):
    answer = await api.post("/execute", json=RUN)
    assert answer.status_code == 202, answer.text
    run = answer.json()
    assert answer.headers["location"] == f"/services/execution/runs/{run['run_id']}"
    documented = {"status", "username", "input_notebook", "output_notebook", "parameters"}
    assert documented | {"timestamp"} <= run.keys()
    assert run["input_notebook"] == "work/sum.ipynb"
    ended = await until(api, run["run_id"], "succeeded")
    assert ended["cells"] == {"done": 2, "total": 2}
    assert ended["output_notebook"] == run["output_notebook"]
    (job,) = world.cluster.runs()
    assert job["metadata"]["name"] == f"run-{run['run_id']}"
    log = await api.get(f"/runs/{run['run_id']}/log")
    assert "hello" in log.text
    artifacts = (await api.get(f"/runs/{run['run_id']}/artifacts")).json()["artifacts"]
    assert artifacts == [
        {"kind": "notebook", "path": run["output_notebook"], "size": 10, "mlflow_run_id": None}
    ]
    world.cluster.lose(job["metadata"]["name"])
    assert "hello" in (await api.get(f"/runs/{run['run_id']}/log")).text


async def test_P1_execute_waits_if_asked(api):
    answer = await api.post("/execute?wait=30", json=RUN)
    assert (answer.status_code, answer.json()["status"]) == (200, "succeeded")


async def test_P6_a_waited_run_that_goes_on_is_504_and_goes_on(api, world):
    world.cluster.script = hangs
    body = problem(await api.post("/execute?wait=1", json=RUN), 504, "still-running")
    await until(api, body["run_id"], "running")


async def test_P6_a_waited_run_that_fails_is_a_problem_with_the_structured_error(api, world):
    error = {"cell": 2, "ename": "KeyError", "evalue": "'x'", "traceback": ["line"]}
    result = {"reason": "cell-error", "message": "Cell 2 raised.", "error": error, "cells": [1, 3]}

    async def fails(pod: Pod) -> None:
        pod.runs()
        pod.ends(1, result)

    world.cluster.script = fails
    body = problem(await api.post("/execute?wait=30", json=RUN), 422, "cell-error")
    assert body["run"]["error"] == error
    assert body["run"]["cells"] == {"done": 1, "total": 3}
    run = (await api.get(f"/runs/{body['run_id']}")).json()
    assert (run["status"], run["reason"], run["error"]) == ("failed", "cell-error", error)


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        ((1, {"reason": "cell-timeout", "message": "too long"}, ""), "cell-timeout"),
        ((1, {"reason": "not-found", "message": "no such"}, ""), "not-found"),
        ((138, {"reason": "dead-kernel", "message": "died"}, ""), "dead-kernel"),
        ((137, "", "OOMKilled"), "memory"),
        ((1, {"reason": "<script>", "error": "forged"}, ""), "container"),
        ((1, "Traceback: no module named notebooks", ""), "container"),
        ((1, {"reason": "stopped", "message": "stopped"}, ""), "stopped"),
    ],
)
async def test_P6_every_end_of_a_pod_has_a_reason(api, world, end, expected):
    async def ends(pod: Pod) -> None:
        pod.runs()
        pod.ends(*end)

    world.cluster.script = ends
    run = (await api.post("/execute", json=RUN)).json()
    ended = await until(api, run["run_id"], "failed")
    assert ended["reason"] == expected
    assert ended["message"]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (1, {"reason": "cell-error", "message": "Cell 1 raised ValueError: \0", "cells": [0, 1]}),
        (0, {"mlflow_run_id": "\0", "cells": [1, 1]}),
        (0, {"size": 10**30}),
        (0, {"cells": [10**12, 1]}),
        (0, {"cells": [-1, 1]}),
        (1, "forged \0 \ud800 words"),
    ],
)
async def test_P4_no_word_of_a_pods_is_one_that_the_database_refuses(api, world, code, said):
    """PostgreSQL takes no NUL, no half surrogate pair and no number larger than its column."""

    async def says(pod: Pod) -> None:
        pod.runs()
        pod.ends(code, said)

    world.cluster.script = says
    run_id = (await api.post("/execute", json=RUN)).json()["run_id"]
    ended = await until(api, run_id, "failed" if code else "succeeded")
    told = f"{ended['message']}{ended['mlflow_run_id']}"
    assert told.isprintable(), told
    assert ended["cells"] in (None, {"done": code ^ 1, "total": 1})


async def test_P8_a_run_that_cannot_be_understood_holds_up_no_other(world):
    both = asyncio.Event()

    async def says(pod: Pod) -> None:
        pod.runs()
        await both.wait()
        pod.ends()
        if pod.task["parameters"] == {"a": 1}:
            state = pod.item["status"]["containerStatuses"][0]["state"]
            state["terminated"]["finishedAt"] = "never"

    world.cluster.script = says
    service = await world.start()
    api = await world.client(service)
    other = (await api.post("/execute", json=RUN | {"parameters": {}})).json()["run_id"]
    # The newest is looked at first.
    await api.post("/execute", json=RUN)
    both.set()

    async def ended() -> Any:
        """Without a look of its own."""
        runs = (await api.get("/runs")).json()["runs"]
        return [run["run_id"] for run in runs if run["status"] == "succeeded"]

    assert await eventually(ended, 20) == [other]


@pytest.mark.parametrize("look", ["collect", "mlflow"])
async def test_P8_what_an_ended_run_left_is_brought_home_whatever_became_of_anothers(
    world, monkeypatch, look
):
    service = await world.start(reconcile_seconds=3600)
    api = await world.client(service)
    ids = [(await api.post("/execute", json=RUN)).json()["run_id"] for _ in range(2)]
    runs, seen = service.app.state.api.runs, []

    async def fails(run: Any) -> None:
        seen.append(run.id)
        raise ValueError("A string literal cannot contain NUL (0x00) characters.")

    everything = {"status": "failed", "finished": time.time()}
    for run_id in ids:
        pending = {"collect_pending": True, "mlflow_pending": True}
        await runs.db(runs.store.change, run_id, **everything, **pending)
    monkeypatch.setattr(runs, {"collect": "collect", "mlflow": "close_mlflow"}[look], fails)
    monkeypatch.setattr(type(runs.settings), "tracked", True)
    await getattr(Reconciler(runs, ()), f"_{look}")()
    assert sorted(seen) == sorted(ids)


async def test_P6_a_killed_pods_partial_notebook_gets_its_name_by_a_pod_of_the_persons(api, world):
    async def killed(pod: Pod) -> None:
        pod.runs()
        if pod.item["spec"]["containers"][0]["command"][-1] == "notebooks.jobs.collect":
            found = {"cells": [1, 3], "size": 7, "output": pod.task["output"]}
            pod.says(f"a word\n{json.dumps(found)}\n")
            pod.ends()
        else:
            pod.ends(137, "", "OOMKilled")

    world.cluster.script = killed
    run = (await api.post("/execute", json=RUN)).json()
    await until(api, run["run_id"], "failed")
    artifacts = await artifacts_of(api, run["run_id"])
    assert artifacts[0]["kind"] == "partial-notebook"
    assert artifacts[0]["path"] == run["output_notebook"]
    ended = (await api.get(f"/runs/{run['run_id']}")).json()
    assert (ended["reason"], ended["cells"]) == ("memory", {"done": 1, "total": 3})
    (collect,) = [j for j in world.cluster.created if j["metadata"]["name"].startswith("collect-")]
    limits = collect["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits["cpu"] == "0.5"


@pytest.mark.parametrize(
    ("told", "found"),
    [
        ("work/daily_20261122_101500.ipynb", "work/daily_20261122_101500.ipynb"),
        ("work/another.ipynb", "work/daily.ipynb"),
        ("../daily_20261122_101500.ipynb", "work/daily.ipynb"),
    ],
)
async def test_P8_an_output_whose_name_was_taken_meanwhile_is_told_by_the_one_it_has(
    api, world, told, found
):
    async def ends(pod: Pod) -> None:
        pod.runs()
        pod.ends(0, {"cells": [1, 1], "size": 10, "output": told})

    world.cluster.script = ends
    body = {"input_path": "work/sum.ipynb", "output_path": "work/daily.ipynb"}
    run_id = (await api.post("/run-notebook", json=body)).json()["run_id"]
    run = await until(api, run_id, "succeeded")
    assert run["output_notebook"] == found


async def test_P8_status_tells_the_cells_and_the_log_streams(api, world):
    go = asyncio.Event()

    async def slowly(pod: Pod) -> None:
        pod.runs()
        pod.says("[mlhub] cell 2 of 4\nfirst\n")
        await go.wait()
        pod.says("second\n")
        pod.ends(0, {"cells": [4, 4]})

    world.cluster.script = slowly
    run_id = (await api.post("/execute", json=RUN)).json()["run_id"]
    await until(api, run_id, "running")

    async def cells() -> Any:
        return (await api.get(f"/runs/{run_id}")).json()["cells"]

    assert await eventually(cells) == {"done": 1, "total": 4}
    seen = []
    async with api.stream("GET", f"/runs/{run_id}/log?follow=true") as log:
        async for part in log.aiter_text():
            seen.append(part)
            if "first" in part:
                assert "second" not in part
                go.set()
    assert "second" in "".join(seen)


async def test_P8_a_cancelled_run_ends_and_takes_its_pod_along(api, world):
    world.cluster.script = hangs
    run_id = (await api.post("/execute", json=RUN)).json()["run_id"]
    await until(api, run_id, "running")
    answer = await api.post(f"/runs/{run_id}/cancel")
    assert answer.status_code == 202
    assert (await until(api, run_id, "cancelled"))["reason"] == "cancelled"
    assert f"run-{run_id}" not in world.cluster.jobs
    assert (await api.post(f"/runs/{run_id}/cancel")).json()["status"] == "cancelled"
    await nothing_left(world)


async def nothing_left(world: World) -> None:
    """No Job, that which looks for a cancelled run's notebook among them."""
    await eventually(lambda: not world.cluster.jobs)


async def test_P8_what_a_cancelled_run_had_done_is_kept_and_found_once_its_pod_is_over(api, world):
    going = asyncio.Event()

    async def stopped(pod: Pod) -> None:
        if pod.is_small:
            assert going.is_set(), "the runner was still bringing it home"
            pod.runs()
            pod.says(json.dumps({"cells": [1, 3], "size": 7, "output": pod.task["output"]}) + "\n")
            pod.ends()
            return
        pod.runs()
        pod.says("[mlhub] cell 2 of 3\nfirst\n")
        await asyncio.Event().wait()

    world.cluster.script, world.cluster.lingers = stopped, True
    run_id = (await api.post("/execute", json=RUN)).json()["run_id"]
    await until(api, run_id, "running")
    await api.post(f"/runs/{run_id}/cancel")
    await until(api, run_id, "cancelled")
    assert "first" in (await api.get(f"/runs/{run_id}/log")).text
    await asyncio.sleep(0.6)
    going.set()
    world.cluster.pods.clear()
    found = await artifacts_of(api, run_id)
    assert [(a["kind"], a["size"]) for a in found] == [("partial-notebook", 7)]
    run = (await api.get(f"/runs/{run_id}")).json()
    assert (run["status"], run["cells"]) == ("cancelled", {"done": 1, "total": 3})


async def test_P8_a_cancel_that_comes_after_the_end_leaves_the_run_as_it_ended(world):
    """Which nobody has written down yet."""
    api = await world.client(await world.start(reconcile_seconds=30))
    run_id = (await api.post("/execute", json=RUN)).json()["run_id"]
    job = world.cluster.jobs[f"run-{run_id}"]
    await eventually(lambda: job["status"].get("conditions"))
    cancelled = (await api.post(f"/runs/{run_id}/cancel")).json()
    assert (cancelled["status"], cancelled["reason"]) == ("succeeded", None)
    assert cancelled["cells"] == {"done": 2, "total": 2}
    assert "hello" in (await api.get(f"/runs/{run_id}/log")).text


async def test_P8_a_cancel_that_the_cluster_hears_after_the_end_leaves_the_run_as_it_ended(
    api, world
):
    go = asyncio.Event()

    async def ends(pod: Pod) -> None:
        pod.runs()
        await go.wait()
        pod.ends(0, {"cells": [2, 2]})

    world.cluster.script = ends
    run_id = (await api.post("/execute", json=RUN)).json()["run_id"]
    await until(api, run_id, "running")
    world.cluster.broken = 500
    await api.post(f"/runs/{run_id}/cancel")
    go.set()
    await eventually(lambda: world.cluster.jobs[f"run-{run_id}"]["status"].get("conditions"))
    world.cluster.broken = 0
    assert (await until(api, run_id, "succeeded", "cancelled"))["status"] == "succeeded"


async def test_P8_a_cancel_that_the_cluster_did_not_hear_is_carried_out_later(api, world):
    world.cluster.script = hangs
    run_id = (await api.post("/execute", json=RUN)).json()["run_id"]
    await until(api, run_id, "running")
    world.cluster.broken = 500
    assert (await api.post(f"/runs/{run_id}/cancel")).json()["status"] == "running"
    world.cluster.broken = 0
    await until(api, run_id, "cancelled")
    assert f"run-{run_id}" not in world.cluster.jobs
    await nothing_left(world)


async def test_P8_a_restart_in_the_middle_of_runs_loses_none(world):
    world.cluster.script = hangs
    world.cluster.claims = {f"claim-user{n}" for n in range(6)}
    first = await world.start()
    ids = {}
    for n in range(6):
        client = await world.client(first, world.hub.person(f"user{n}"))
        body = RUN | {"username": f"user{n}"}
        ids[n] = (await client.post("/execute", json=body)).json()["run_id"]
    await first.stop()
    pods = {
        p["metadata"]["labels"]["mlhub.io/run"]: Pod(world.cluster, p)
        for p in world.cluster.pods.values()
    }
    pods[ids[0]].ends(0, {"cells": [4, 4]})
    pods[ids[1]].ends(1, {"reason": "cell-error", "message": "no"})
    pods[ids[2]].vanishes()
    world.cluster.lose(f"run-{ids[3]}")
    second = await world.start()
    # Half a minute of doubt about the fourth is not over, however busy this machine is.
    began = time.time()
    second.app.state.api.runs.clock = lambda: began
    expected = ["succeeded", "failed", "lost", "running", "running", "running"]
    for n, status in enumerate(expected):
        client = await world.client(second, f"token-of-user{n}")
        await until(client, ids[n], status)
    # The Job that is gone without a trace: lost, once half a minute of doubt is over.
    second.app.state.api.runs.clock = lambda: time.time() + 31
    client = await world.client(second, "token-of-user3")
    assert (await until(client, ids[3], "lost"))["reason"] == "job-gone"


async def test_P8_a_run_that_the_hub_ended_says_why(api, world):
    """Its pod, which is deleted for that, cannot."""
    world.cluster.script = hangs
    run_id = (await api.post("/execute", json=RUN)).json()["run_id"]
    await until(api, run_id, "running")
    world.room.ended[run_id] = "its owner may only read the workspace churn now"
    (pod,) = world.cluster.pods.values()
    Pod(world.cluster, pod).vanishes()
    run = await until(api, run_id, "failed", "lost")
    assert (run["status"], run["reason"]) == ("failed", "role"), run
    said = "The hub ended this run. Its owner may only read the workspace churn now."
    assert run["message"] == said


async def test_P8_a_run_that_only_the_cluster_knows_is_written_down_again(world, tmp_path):
    world.cluster.script = hangs
    first = await world.start()
    client = await world.client(first)
    run_id = (await client.post("/execute", json=RUN)).json()["run_id"]
    await first.stop()
    world.settings = world.settings.model_copy(
        update={"database_url": f"sqlite:///{tmp_path}/restored.db"}
    )
    client = await world.client(await world.start())

    async def there() -> bool:
        return bool((await client.get(f"/runs/{run_id}")).status_code == 200)

    await eventually(there)
    run = await until(client, run_id, "running")
    assert (run["username"], run["parameters"]) == ("alice", {"a": 1})


async def test_P8_a_pod_that_cannot_start_fails_and_says_why(world):
    async def stuck(pod: Pod) -> None:
        pod.waits("ImagePullBackOff", "no such image")

    world.cluster.script = stuck
    api = await world.client(await world.start())
    run_id = (await api.post("/execute", json=RUN)).json()["run_id"]
    ended = await until(api, run_id, "failed")
    assert (ended["reason"], "no such image" in ended["message"]) == ("image", True)
    assert not world.cluster.jobs


async def test_P8_a_pod_without_room_does_not_wait_for_ever(world):
    async def pending(pod: Pod) -> None:
        condition = {"type": "PodScheduled", "status": "False", "message": "0/1 nodes available"}
        pod.item["status"]["conditions"] = [condition]

    world.cluster.script = pending
    api = await world.client(await world.start(start_seconds=1))
    body = problem(await api.post("/execute?wait=20", json=RUN), 504, "not-started")
    assert "0/1 nodes available" in body["detail"]
    assert not world.cluster.jobs


async def test_P3_who_has_no_valid_token_is_401_and_who_is_another_403(world):
    service = await world.start()
    for token in ("", "unknown", "a.b.c", "ü", "x" * 9000):
        async with service.client() as client:
            headers = {"Authorization": f"Bearer {token}".strip().encode()}
            answer = await client.get("/runs", headers=headers)
        problem(answer, 401, "token")
        assert answer.headers["www-authenticate"] == "Bearer"
    bob = await world.client(service, world.bob)
    problem(await bob.post("/execute", json=RUN), 403, "not-yours")
    problem(await bob.get("/list-notebooks/alice"), 403, "not-yours")
    problem(await bob.get("/runs?username=alice"), 403, "not-yours")
    no_scope = world.hub.person("dora", scopes=["access:services!service=other", "self"])
    problem(await (await world.client(service, no_scope)).get("/runs"), 403, "scope")
    world.hub.known["svc"] = {"kind": "service", "name": "svc", "scopes": ["access:services"]}
    problem(await (await world.client(service, "svc")).get("/runs"), 403, "not-a-person")
    assert not world.cluster.created


async def test_P3_an_admin_runs_for_others_and_another_sees_no_run_of_theirs(world):
    service = await world.start()
    carol = await world.client(service, world.carol)
    run = (await carol.post("/execute", json=RUN)).json()
    assert run["username"] == "alice"
    alice = await world.client(service)
    assert (await alice.get(f"/runs/{run['run_id']}")).status_code == 200
    bob = await world.client(service, world.bob)
    for method, path in (("GET", ""), ("GET", "/log"), ("GET", "/artifacts"), ("POST", "/cancel")):
        problem(await bob.request(method, f"/runs/{run['run_id']}{path}"), 404, "no-run")


async def test_P3_an_admin_no_more_sees_and_ends_nothing_of_what_was_started_for_others(world):
    world.cluster.script = hangs
    given = world.settings
    world.settings = given.model_copy(
        update={"hub": given.hub.model_copy(update={"cache_seconds": 0})}
    )
    carol = await world.client(await world.start(), world.carol)
    run_id = (await carol.post("/execute", json=RUN)).json()["run_id"]
    world.hub.person("carol")
    for method, path in (("GET", ""), ("GET", "/log"), ("GET", "/artifacts"), ("POST", "/cancel")):
        problem(await carol.request(method, f"/runs/{run_id}{path}"), 404, "no-run")
    assert f"run-{run_id}" in world.cluster.jobs


async def test_P3_tokens_are_asked_for_once_in_ten_seconds(world):
    api = await world.client(await world.start())
    await asyncio.gather(*(api.get("/runs") for _ in range(3)))
    asked = world.hub.asked
    await asyncio.gather(*(api.get("/runs") for _ in range(10)))
    assert world.hub.asked == asked


@pytest.mark.parametrize("part", ["hub", "cluster", "room"])
async def test_P6_what_is_silent_is_503_and_says_so(world, part):
    api = await world.client(await world.start())
    kind = {"hub": "identity", "cluster": "cluster", "room": "admission"}[part]
    if part == "room":
        world.room.silent = True
    else:
        getattr(world, part).broken = 500
    problem(await api.post("/execute", json=RUN), 503, kind)
    assert not world.cluster.created


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
async def test_P9_a_kubernetes_that_answers_with_an_error_is_not_healthy(api, world, status):
    """And is told of with 200: to be restarted, or left out by the proxy, would mend nothing."""
    world.cluster.broken = status
    answer = await api.get("/health")
    health = answer.json()
    assert (answer.status_code, health["status"]) == (200, "degraded")
    assert (health["kubernetes"], health["papermill_available"]) == (False, False)
    assert health["database"]
    world.cluster.broken = 0
    assert (await api.get("/health")).json()["status"] == "healthy"


async def test_P8_an_unheard_creation_is_no_run_that_goes_on_unseen(api, world):
    world.cluster.script = hangs
    world.cluster.unheard = True
    body = problem(await api.post("/execute", json=RUN), 503, "cluster")
    assert len(world.cluster.runs()) == 1
    ended = await until(api, body["run_id"], "failed")
    assert (ended["reason"], "nothing of it ran" in ended["message"]) == ("not-started", True)
    await nothing_left(world)
    assert not world.cluster.tasks


async def test_P8_a_key_whose_job_was_not_heard_of_begins_anew_and_runs_once(api, world):
    key = {"Idempotency-Key": "nightly"}
    world.cluster.unheard = True
    first = problem(await api.post("/execute", json=RUN, headers=key), 503, "cluster")
    world.cluster.unheard = False
    again = (await api.post("/execute?wait=60", json=RUN, headers=key)).json()
    assert again["status"] == "succeeded"
    assert again["run_id"] != first["run_id"]
    assert (await api.post("/execute", json=RUN, headers=key)).json()["run_id"] == again["run_id"]
    await eventually(lambda: f"run-{first['run_id']}" not in world.cluster.jobs)
    assert list(world.cluster.tasks) == [f"run-{again['run_id']}"], "the other one has begun"


@pytest.mark.parametrize("starts", ["unheard", "never"])
async def test_P8_a_start_that_was_not_heard_of_begins_no_second_run(world, starts):
    world.cluster.starts = starts
    service = await world.start()
    api = await world.client(service)
    key = {"Idempotency-Key": "nightly"}
    answers = [await api.post("/execute", json=RUN, headers=key) for _ in range(2)]
    assert {answer.status_code for answer in answers} == {202}
    (run_id,) = {answer.json()["run_id"] for answer in answers}
    if starts == "unheard":
        await until(api, run_id, "succeeded")
        return
    service.app.state.api.runs.clock = lambda: time.time() + CREATION_SECONDS + 1
    ended = await until(api, run_id, "failed")
    assert (ended["reason"], "nothing of it ran" in ended["message"]) == ("not-started", True)


async def test_P6_a_home_that_is_not_there_is_404(world):
    service = await world.start()
    carol = await world.client(service, world.carol)
    problem(await carol.post("/execute", json=RUN | {"username": "nobody"}), 404, "no-home")
    problem(await carol.get("/list-notebooks/nobody"), 404, "no-home")


async def test_P5_without_room_nothing_is_made_and_the_reason_is_the_admissions(api, world):
    world.room.runs = 1
    assert (await api.post("/execute", json=RUN)).status_code == 202
    body = problem(await api.post("/execute", json=RUN), 429, "quota")
    assert body["detail"] == "You asked for 1 core; there is nothing left."
    assert len(world.cluster.runs()) == 1
    asked = world.room.asked[0]
    assert (asked.user, asked.cpu, asked.memory, asked.gpu) == ("alice", 1, 2 * 2**30, 0)


async def test_M9_one_person_is_decided_on_once_at_a_time_by_all_replicas(world):
    services = [await world.start(per_minute=100) for _ in range(2)]
    clients = [await world.client(service) for service in services]
    answers = await asyncio.gather(*(clients[n % 2].post("/execute", json=RUN) for n in range(12)))
    assert {a.status_code for a in answers} == {202}
    assert world.room.most_at_once == 1


async def test_P8_a_run_is_as_old_as_its_start_however_long_it_waited_for_its_turn(world):
    service = await world.start()
    api = await world.client(service)
    runs = service.app.state.api.runs
    await runs.db(runs.store.take_lease, "user:alice", "another replica", runs.clock())
    asked = asyncio.create_task(api.post("/execute", json=RUN))
    await asyncio.sleep(0.5)
    assert not asked.done()
    runs.clock = lambda: time.time() + CREATION_SECONDS + 1
    accepted = datetime.fromisoformat((await asked).json()["timestamp"]).timestamp()
    assert runs.clock() - accepted < CREATION_SECONDS


async def test_P8_what_takes_longer_than_a_lease_is_still_done_by_one_at_a_time(world, monkeypatch):
    monkeypatch.setattr("mlhub.execution.store.LEASE_SECONDS", 0.3)
    monkeypatch.setattr("mlhub.execution.leases.RENEW_SECONDS", 0.1)
    runs = (await world.start(reconcile_seconds=3600)).app.state.api.runs

    async def taken() -> Any:
        return await runs.db(runs.store.take_lease, "one", "another replica", runs.clock())

    async with runs.lease("one"):
        await asyncio.sleep(1)
        assert not await taken()
    assert await taken()


async def test_P7_five_runs_start_in_a_minute_whichever_replica_is_asked(world):
    services = [await world.start() for _ in range(2)]
    clients = [await world.client(service) for service in services]
    answers = await asyncio.gather(*(clients[n % 2].post("/execute", json=RUN) for n in range(12)))
    codes = sorted(answer.status_code for answer in answers)
    assert codes == [202] * 5 + [429] * 7
    refused = next(a for a in answers if a.status_code == 429)
    problem(refused, 429, "rate")
    assert 1 <= int(refused.headers["retry-after"]) <= 61
    assert len(world.cluster.runs()) == 5
    bob = await world.client(services[0], world.bob)
    assert (await bob.post("/execute", json=RUN | {"username": "bob"})).status_code == 202


async def test_P7_a_start_that_the_quota_refuses_leaves_its_slot_to_the_next(world):
    services = [await world.start() for _ in range(2)]
    clients = [await world.client(service) for service in services]
    world.room.runs = 0
    for n in range(10):
        problem(await clients[n % 2].post("/execute", json=RUN), 429, "quota")
    world.room.runs = 100
    answers = await asyncio.gather(*(clients[n % 2].post("/execute", json=RUN) for n in range(8)))
    assert sorted(answer.status_code for answer in answers) == [202] * 5 + [429] * 3
    refused = next(a for a in answers if a.status_code == 429)
    problem(refused, 429, "rate")


async def test_P7_refusals_are_bounded_whichever_replica_is_asked_and_the_hub_is_spared(world):
    services = [await world.start() for _ in range(2)]
    clients = [await world.client(service) for service in services]
    world.room.runs = 0
    # One and the same minute, however long this takes on a busy machine.
    began, microseconds = time.time(), itertools.count()
    for service in services:
        service.app.state.api.runs.clock = lambda: began + next(microseconds) / 1e6
    answers: list[Any] = []
    for _ in range(5):
        asked = [clients[n % 2].post("/execute", json=RUN) for n in range(8)]
        answers += await asyncio.gather(*asked)
    kinds = sorted(answer.json()["type"] for answer in answers)
    assert kinds == ["quota"] * 30 + ["rate"] * 10
    assert len(world.room.asked) == 30
    refused = next(a for a in answers if a.json()["type"] == "rate")
    assert 1 <= int(refused.headers["retry-after"]) <= 61
    services[0].app.state.api.runs.clock = lambda: began + 62
    world.room.runs = 1
    assert (await clients[0].post("/execute", json=RUN)).status_code == 202


def test_P7_slots_that_are_taken_and_given_back_at_once_are_counted_once(tmp_path):
    """Two replicas' stores, without the lease that keeps a person's starts apart."""
    stores = [Store(f"sqlite:///{tmp_path}/execution.db") for _ in range(2)]
    stores[0].prepare()
    now = time.time()

    def start(number: int) -> bool:
        store, at = stores[number % 2], now + number / 1000
        taken = store.take_slot("alice", 5, at) == 0
        if taken and number >= 8:
            store.give_back_slot("alice", at)
        return taken

    with ThreadPoolExecutor(8) as pool:
        taken = [number for number, was in enumerate(pool.map(start, range(60))) if was]
    kept = [number for number in taken if number < 8]
    assert len(kept) <= 5
    assert len(taken) <= 30
    left = sum(stores[0].take_slot("alice", 5, now + 1) == 0 for _ in range(6))
    assert left == min(5 - len(kept), 30 - len(taken))
    for store in stores:
        store.close()


async def test_P8_one_idempotency_key_is_one_run_however_often_it_is_sent(world):
    services = [await world.start() for _ in range(2)]
    clients = [await world.client(service) for service in services]
    key = {"Idempotency-Key": "nightly-2026-11-22"}
    answers = await asyncio.gather(
        *(clients[n % 2].post("/execute", json=RUN, headers=key) for n in range(20))
    )
    assert {a.status_code for a in answers} == {202}
    assert len({a.json()["run_id"] for a in answers}) == 1
    assert len(world.cluster.runs()) == 1
    other = await clients[0].post("/execute", json=RUN | {"parameters": {"a": 2}}, headers=key)
    problem(other, 422, "key-reused")
    bob = await world.client(services[0], world.bob)
    mine = await bob.post("/execute", json=RUN | {"username": "bob"}, headers=key)
    assert mine.status_code == 202
    assert len(world.cluster.runs()) == 2


async def test_P6_a_refused_job_is_a_failed_run_and_says_why(api, world):
    world.cluster.refuses = "exceeded quota: namespace"
    body = problem(await api.post("/execute", json=RUN), 503, "refused")
    run = (await api.get(f"/runs/{body['run_id']}")).json()
    assert (run["status"], run["message"]) == ("failed", "exceeded quota: namespace")
    assert world.room.released == ["0" * 16]


async def test_P1_runs_are_listed_newest_first_in_pages(api):
    ids = [(await api.post("/execute", json=RUN)).json()["run_id"] for _ in range(3)]
    first = (await api.get("/runs?limit=2")).json()
    assert [run["run_id"] for run in first["runs"]] == ids[:0:-1]
    rest = (await api.get("/runs", params={"limit": 2, "before": first["next"]})).json()
    assert ([run["run_id"] for run in rest["runs"]], rest["next"]) == (ids[:1], None)
    for number in ("0.726", "2026"):
        assert (await api.get("/runs", params={"before": number})).status_code == 422, number


async def test_P9_the_service_says_what_it_is_without_a_token(world):
    service = await world.start()
    async with service.client() as client:
        health = (await client.get("/health")).json()
        assert {"status", "papermill_available", "papermill_path", "timestamp"} <= health.keys()
        assert health["status"] == "healthy"
        about = (await client.get("/")).json()
        assert "POST /execute" in about["endpoints"]
        page = await client.get("/docs")
        assert "POST /execute" in page.text
        assert "<script" not in page.text
        assert (await client.get("/openapi.json")).json()["servers"] == [
            {"url": "/services/execution"}
        ]
        world.cluster.broken = 500
        problem(await client.get("/nowhere"), 404, "http")
        wrong = await client.put("/execute")
        problem(wrong, 405, "http")
        assert wrong.headers["allow"] == "POST"
