"""Sweeps: a grid of runs that wait for room, share the minute's starts, and end together."""

import asyncio
import time
from typing import Any

import pytest

from mlhub.execution.cluster import Cluster
from tests.services.test_execution_api import (  # noqa: F401
    RUN,
    hangs,
    nothing_left,
    problem,
    until,
    world,
)
from tests.services.waiting import eventually

SWEEP = {
    "username": "alice",
    "notebook_name": "./work/train.ipynb",
    "grid": {"rate": [0.1, 0.01], "depth": [2, 4]},
    "parameters": {"epochs": 3},
    "parallel": 4,
}


async def settled(api: Any, sweep_id: str, *statuses: str) -> Any:
    async def one_of_them() -> Any:
        sweep = (await api.get(f"/sweeps/{sweep_id}")).json()
        return sweep if sweep["status"] in statuses else None

    return await eventually(one_of_them)


async def test_P10_every_combination_is_one_run_and_the_sweep_says_what_became_of_them(world):  # noqa: F811
    api = await world.client(await world.start(per_minute=20))
    answer = await api.post("/sweeps", json=SWEEP)
    assert answer.status_code == 202, answer.text
    assert answer.json()["status"] == "waiting"
    sweep = await settled(api, answer.json()["sweep_id"], "succeeded")
    assert sweep["counts"] == {"succeeded": 4}
    assert [point["parameters"] for point in sweep["points"]] == [
        {"epochs": 3, "rate": rate, "depth": depth} for rate in (0.1, 0.01) for depth in (2, 4)
    ]
    run = (await api.get(f"/runs/{sweep['points'][0]['run_id']}")).json()
    assert run["origin"] == f"sweep/{sweep['sweep_id']}"
    assert (await api.get("/sweeps")).json()["sweeps"][0]["sweep_id"] == sweep["sweep_id"]


async def test_P10_a_sweep_is_kept_as_long_as_its_runs(world):  # noqa: F811
    service = await world.start(per_minute=20)
    api = await world.client(service)
    sweep_id = (await api.post("/sweeps", json=SWEEP)).json()["sweep_id"]
    await settled(api, sweep_id, "succeeded")
    kept = service.app.state.api.runs.settings.limits.run_kept_days * 86400
    service.app.state.api.runs.clock = lambda: time.time() + kept + 60

    async def forgotten() -> bool:
        return (await api.get("/sweeps")).json() == {"sweeps": []}

    await eventually(forgotten)
    problem(await api.get(f"/sweeps/{sweep_id}"), 404, "no-sweep")


async def test_P7_a_sweep_leaves_one_start_of_each_minute_to_its_person(world):  # noqa: F811
    api = await world.client(await world.start())
    grid = {"n": list(range(10))}
    sweep_id = (await api.post("/sweeps", json=SWEEP | {"grid": grid, "parallel": 20})).json()[
        "sweep_id"
    ]
    await eventually(lambda: len(world.cluster.runs()) >= 4)
    await asyncio.sleep(1)
    assert len(world.cluster.runs()) == 4
    assert (await api.post("/execute", json=RUN)).status_code == 202
    counts = (await api.get(f"/sweeps/{sweep_id}")).json()["counts"]
    assert counts["waiting"] == 6


async def test_P5_points_wait_for_the_quota_and_run_a_few_at_once(world, monkeypatch):  # noqa: F811
    monkeypatch.setattr("mlhub.execution.sweeps.PAUSE_SECONDS", 0.2)
    world.room.runs = 1
    world.cluster.script = hangs
    api = await world.client(await world.start(per_minute=50))
    sweep_id = (await api.post("/sweeps", json=SWEEP | {"parallel": 2})).json()["sweep_id"]
    await settled(api, sweep_id, "running")
    await eventually(world.cluster.runs)
    await asyncio.sleep(1)
    assert len(world.cluster.runs()) == 1
    world.room.runs = 10
    await eventually(lambda: len(world.cluster.runs()) > 1)
    await asyncio.sleep(1)
    assert len(world.cluster.runs()) == 2
    sweep = (await api.get(f"/sweeps/{sweep_id}")).json()
    assert sweep["counts"]["waiting"] == 2


async def test_P5_who_has_enough_sweeps_waiting_lets_one_end_first(world, monkeypatch):  # noqa: F811
    monkeypatch.setattr("mlhub.execution.sweeps.MOST_WAITING", 2)
    world.room.runs = 0
    api = await world.client(await world.start(per_minute=50))
    key = {"Idempotency-Key": "first"}
    first = (await api.post("/sweeps", json=SWEEP, headers=key)).json()["sweep_id"]
    answers = await asyncio.gather(*(api.post("/sweeps", json=SWEEP) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [202, 409, 409, 409]
    refused = next(answer for answer in answers if answer.status_code == 409)
    assert "let one end" in problem(refused, 409, "too-many")["detail"]
    again = await api.post("/sweeps", json=SWEEP, headers=key)
    assert again.json()["sweep_id"] == first, "what was promised once is answered as it was"
    await api.post(f"/sweeps/{first}/cancel")
    assert (await api.post("/sweeps", json=SWEEP)).status_code == 202


async def test_P7_sweeps_that_are_cancelled_at_once_are_bounded_by_the_day(world, monkeypatch):  # noqa: F811
    monkeypatch.setattr("mlhub.execution.sweeps.MOST_A_DAY", 2)
    service = await world.start()
    api, bob = await world.client(service), await world.client(service, world.bob)
    for _ in range(2):
        sweep_id = (await api.post("/sweeps", json=SWEEP)).json()["sweep_id"]
        await api.post(f"/sweeps/{sweep_id}/cancel")
    refused = await api.post("/sweeps", json=SWEEP)
    assert "2 sweeps" in problem(refused, 429, "rate")["detail"]
    assert 86000 < int(refused.headers["retry-after"]) <= 86401
    assert (await bob.post("/sweeps", json=SWEEP | {"username": "bob"})).status_code == 202
    service.app.state.api.runs.clock = lambda: time.time() + 86400
    assert (await api.post("/sweeps", json=SWEEP)).status_code == 202


@pytest.mark.parametrize("long", ["parameters", "grid"])
async def test_P7_a_small_request_does_not_become_megabytes_of_points(world, long):  # noqa: F811
    api = await world.client(await world.start())
    grid, text = {"n": list(range(200))}, "x" * 50_000
    body = SWEEP | {"parameters": {"text": text}, "grid": grid}
    if long == "grid":
        body = SWEEP | {"grid": {"text": [text]} | grid}
    refused = problem(await api.post("/sweeps", json=body), 413, "too-large")
    assert "256 KiB" in refused["detail"]
    assert (await api.get("/sweeps")).json() == {"sweeps": []}


async def test_P7_a_list_of_sweeps_counts_their_points_and_does_not_repeat_them(world):  # noqa: F811
    world.cluster.script = hangs
    api = await world.client(await world.start(per_minute=3))
    first = (await api.post("/sweeps", json=SWEEP)).json()["sweep_id"]

    async def both_run() -> bool:
        counts = (await api.get(f"/sweeps/{first}")).json()["counts"]
        return bool(counts.get("running") == 2)

    await eventually(both_run)
    second = (await api.post("/sweeps", json=SWEEP)).json()["sweep_id"]
    await api.post(f"/sweeps/{second}/cancel")
    await settled(api, second, "cancelled")
    whole = [(await api.get(f"/sweeps/{each}")).json() for each in (second, first)]
    listed = (await api.get("/sweeps")).json()["sweeps"]
    assert listed == [{k: v for k, v in sweep.items() if k != "points"} for sweep in whole]
    assert listed[1]["counts"]["waiting"] == 2


async def test_P8_cancel_ends_what_runs_and_what_waits(world):  # noqa: F811
    world.cluster.script = hangs
    api = await world.client(await world.start(per_minute=50))
    sweep_id = (await api.post("/sweeps", json=SWEEP | {"parallel": 2})).json()["sweep_id"]
    await eventually(lambda: len(world.cluster.runs()) == 2)
    assert (await api.post(f"/sweeps/{sweep_id}/cancel")).status_code == 202
    sweep = await settled(api, sweep_id, "cancelled")
    assert sweep["counts"] == {"cancelled": 4}
    assert not {job for job in world.cluster.jobs if job.startswith("run-")}
    await nothing_left(world)
    assert len(world.cluster.runs()) == 2


async def no_run_goes_on(api: Any) -> None:
    async def ended() -> bool:
        runs = (await api.get("/runs")).json()["runs"]
        return {run["status"] for run in runs} == {"cancelled"}

    await eventually(ended, 20)


async def test_P8_cancel_ends_the_point_that_is_being_started_however_long_that_takes(
    world,  # noqa: F811
    monkeypatch,
):
    monkeypatch.setattr("mlhub.execution.store.LEASE_SECONDS", 0.3)
    monkeypatch.setattr("mlhub.execution.leases.RENEW_SECONDS", 0.1)
    asked, go, decide = asyncio.Event(), asyncio.Event(), world.room.decide

    async def slowly(request: Any) -> Any:
        asked.set()
        await go.wait()
        return await decide(request)

    monkeypatch.setattr(world.room, "decide", slowly)
    world.cluster.script = hangs
    api = await world.client(await world.start(per_minute=50))
    sweep_id = (await api.post("/sweeps", json=SWEEP)).json()["sweep_id"]
    await asked.wait()
    cancelling = asyncio.create_task(api.post(f"/sweeps/{sweep_id}/cancel"))
    await asyncio.sleep(1.5)
    go.set()
    assert (await cancelling).status_code == 202
    await no_run_goes_on(api)
    assert (await api.get(f"/sweeps/{sweep_id}")).json()["counts"] == {"cancelled": 4}
    assert len(world.cluster.runs()) <= 1


async def test_P8_cancel_finds_the_run_of_a_point_that_nobody_noted(world, monkeypatch):  # noqa: F811
    """As where the service is killed between the two."""
    world.cluster.script = hangs
    service = await world.start(per_minute=50)
    api = await world.client(service)

    def killed(*_: Any, **__: Any) -> bool:
        raise RuntimeError("killed")

    monkeypatch.setattr(service.app.state.api.sweeps.store, "settle_point", killed)
    sweep_id = (await api.post("/sweeps", json=SWEEP)).json()["sweep_id"]
    await eventually(world.cluster.runs)
    assert (await api.post(f"/sweeps/{sweep_id}/cancel")).status_code == 202
    await no_run_goes_on(api)


async def test_P8_two_replicas_and_a_restart_start_each_point_once(world):  # noqa: F811
    first, second = [await world.start(per_minute=50) for _ in range(2)]
    api = await world.client(second)
    key = {"Idempotency-Key": "one"}
    grid = {"n": list(range(12))}
    bodies = [SWEEP | {"grid": grid, "parallel": 3}] * 3
    answers = [await api.post("/sweeps", json=body, headers=key) for body in bodies]
    (sweep_id,) = {answer.json()["sweep_id"] for answer in answers}
    await asyncio.sleep(0.5)
    await first.stop()
    sweep = await settled(api, sweep_id, "succeeded")
    assert sweep["counts"] == {"succeeded": 12}
    assert len(world.cluster.runs()) == 12
    other = await api.post("/sweeps", json=bodies[0] | {"parallel": 4}, headers=key)
    problem(other, 422, "key-reused")


async def test_P8_a_service_that_ends_comes_to_the_end_of_what_it_starts(world, monkeypatch):  # noqa: F811
    """The point's run had a Job that nobody started, and failed when its time was over."""
    reached, go_on, start = asyncio.Event(), asyncio.Event(), Cluster.start_job

    async def start_later(self: Cluster, name: str) -> None:
        reached.set()
        await go_on.wait()
        await start(self, name)

    first = await world.start(per_minute=50)
    monkeypatch.setattr(Cluster, "start_job", start_later)
    api = await world.client(first)
    sweep_id = (await api.post("/sweeps", json=SWEEP | {"parallel": 1})).json()["sweep_id"]
    await eventually(reached.is_set)
    ending = asyncio.create_task(first.stop())
    await asyncio.sleep(1)
    assert not ending.done()
    go_on.set()
    await ending
    (job,) = world.cluster.runs()
    assert not job["spec"]["suspend"]
    api = await world.client(await world.start(per_minute=50))
    assert (await settled(api, sweep_id, "succeeded"))["counts"] == {"succeeded": 4}


async def test_P8_a_silence_of_kubernetes_loses_no_point(world, monkeypatch):  # noqa: F811
    monkeypatch.setattr("mlhub.execution.sweeps.PAUSE_SECONDS", 0.2)
    api = await world.client(await world.start(per_minute=50))
    world.cluster.unheard = True
    sweep_id = (await api.post("/sweeps", json=SWEEP)).json()["sweep_id"]
    await eventually(world.cluster.runs)
    world.cluster.unheard = False
    sweep = await settled(api, sweep_id, "succeeded", "cancelled", "failed")
    assert sweep["counts"] == {"succeeded": 4}


async def test_P6_a_point_that_is_refused_is_told_and_holds_up_nothing(world):  # noqa: F811
    world.cluster.claims.discard("claim-alice")
    api = await world.client(await world.start(per_minute=50))
    sweep_id = (await api.post("/sweeps", json=SWEEP)).json()["sweep_id"]
    sweep = await settled(api, sweep_id, "failed")
    assert sweep["counts"] == {"refused": 4}
    assert "no home" in sweep["points"][0]["message"]


@pytest.mark.parametrize(
    "change",
    [
        {"grid": {}},
        {"grid": {"a": []}},
        {"grid": {"a": list(range(201))}},
        {"grid": {"a": list(range(15)), "b": list(range(15))}},
        {"grid": {"import os": [1]}},
        {"grid": {"a": [float("1e308")], "class": [1]}},
        {"grid": {f"p{n}": [1, 2] for n in range(60)}},
        {"parallel": 0},
        {"parameters": {"a b": 1}},
        {"profile": "huge"},
    ],
)
async def test_P6_a_grid_is_bounded_and_its_names_are_identifiers(world, change):  # noqa: F811
    api = await world.client(await world.start())
    answer = await api.post("/sweeps", json=SWEEP | change)
    assert answer.status_code == 422, answer.text
    assert (await api.get("/sweeps")).json() == {"sweeps": []}


async def test_P3_a_sweep_is_its_persons(world):  # noqa: F811
    service = await world.start()
    api, bob = await world.client(service), await world.client(service, world.bob)
    sweep_id = (await api.post("/sweeps", json=SWEEP)).json()["sweep_id"]
    problem(await bob.get(f"/sweeps/{sweep_id}"), 404, "no-sweep")
    problem(await bob.post(f"/sweeps/{sweep_id}/cancel"), 404, "no-sweep")
    problem(await bob.post("/sweeps", json=SWEEP), 403, "not-yours")
    problem(await bob.get("/sweeps?username=alice"), 403, "not-yours")
    run = (await settled(api, sweep_id, "running", "succeeded"))["points"][0]["run_id"]
    await until(api, run, "succeeded")
