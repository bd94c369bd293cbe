"""What somebody with a valid token, or with none, may try at the execution API."""

import asyncio
import contextlib
import json
from typing import Any

import pytest

from mlhub.execution.limits import LARGEST_BODY
from tests.services.test_execution_api import RUN, hangs, problem, until, world  # noqa: F401
from tests.services.waiting import eventually

PATHS = [
    "../bob/secret.ipynb",
    "/home/jovyan/../../etc/passwd",
    "../alice-evil/x.ipynb",
    "https://example.com/evil.ipynb",
    "https://github.com/owner/name/blob/main/evil.ipynb",
    "hdfs://host/evil.ipynb",
    "abs://account/evil.ipynb",
    "adl://account/evil.ipynb",
    "s3://bucket/evil.ipynb",
    "gs://bucket/evil.ipynb",
    "~root/x.ipynb",
    "work\\..\\x.ipynb",
    "x\0.ipynb",
]
NAMES = ["a; import os; os.system('id')", "a\nimport os", "import", "a.b", "__class__ = 1 #", ""]


@pytest.fixture
async def api(world: Any) -> Any:  # noqa: F811
    return await world.client(await world.start())


@pytest.mark.parametrize("path", PATHS)
async def test_P4_a_path_out_of_the_home_is_422_on_every_route(api, world, path):  # noqa: F811
    body = problem(await api.post("/execute", json=RUN | {"notebook_name": path}), 422, "invalid")
    assert "notebook_name" in body["detail"]
    for given in ({"input_path": path}, {"input_path": "a.ipynb", "output_path": path}):
        problem(await api.post("/run-notebook", json=given), 422, "invalid")
    assert not world.cluster.created


@pytest.mark.parametrize("name", NAMES)
async def test_P4_a_parameters_name_never_becomes_code(api, world, name):  # noqa: F811
    problem(await api.post("/execute", json=RUN | {"parameters": {name: 1}}), 422, "invalid")
    given = {"input_path": "a.ipynb", "params": {name: 1}}
    problem(await api.post("/run-notebook", json=given), 422, "invalid")
    assert not world.cluster.created


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "[]",
        '"x"',
        '{"username": "alice"}',
        json.dumps(RUN | {"image": "evil/image"}),
        json.dumps(RUN | {"username": ["alice"]}),
        json.dumps(RUN | {"parameters": []}),
        json.dumps(RUN | {"time_limit": 10**9}),
        json.dumps(RUN | {"time_limit": "60"}),
        json.dumps(RUN | {"profile": "huge"}),
        json.dumps(RUN)[:-1] + ', "username": "bob"}',
        json.dumps(RUN | {"parameters": {"a": 1}}).replace("1}}", "NaN}}"),
        json.dumps(RUN | {"parameters": {"a": 1}}).replace("1}}", "9" * 5000 + "}}"),
        json.dumps(RUN | {"parameters": {"a": 1}}).replace("1}}", '"\\ud800"}}'),
        '{"a":' * 60 + "1" + "}" * 60,
        "[" * 50_000,
    ],
)
async def test_P6_what_is_no_request_is_422_and_makes_nothing(api, world, text):  # noqa: F811
    answer = await api.post("/execute", content=text, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert not world.cluster.created


async def test_P6_a_body_that_is_no_text_is_422(api):
    for content in (b"\xff\xfe{}", b"\x80" * 10):
        answer = await api.post(
            "/execute", content=content, headers={"Content-Type": "application/json"}
        )
        assert answer.status_code in (400, 422)
        assert answer.headers["content-type"] == "application/problem+json"


async def test_P6_too_large_is_413_whatever_its_length_says(api, world):  # noqa: F811
    large = json.dumps(RUN | {"parameters": {"a": "x" * LARGEST_BODY}})
    problem(await api.post("/execute", content=large), 413, "too-large")

    async def unending() -> Any:
        for _ in range(200):
            yield b"x" * 1024

    problem(await api.post("/execute", content=unending()), 413, "too-large")
    assert not world.cluster.created


async def test_P6_parameters_that_no_process_can_be_told_are_413(api, world):  # noqa: F811
    """Six bytes a character in the one variable of the environment, which Linux bounds."""
    told = RUN | {"parameters": {"text": "ж" * 21_000}}
    assert (await api.post("/execute", json=told)).status_code == 202
    (job,) = world.cluster.runs()
    env = job["spec"]["template"]["spec"]["containers"][0]["env"]
    assert max(len(f"{e['name']}={e['value']}") for e in env) < 128 * 1024
    large = RUN | {"parameters": {"text": "$" * 30_000}}
    problem(await api.post("/execute", json=large), 413, "too-large")
    assert len(world.cluster.runs()) == 1


async def test_P4_a_header_of_the_callers_changes_nobodys_identity(api, world):  # noqa: F811
    forged = {"X-Forwarded-User": "bob", "X-Remote-User": "carol", "X-Forwarded-For": "127.0.0.1"}
    answer = await api.get("/runs?username=bob", headers=forged)
    problem(answer, 403, "not-yours")
    async with api.stream("GET", "/runs/../list-notebooks/bob") as raw:
        assert raw.status_code in (403, 404)


async def test_P6_a_refusal_repeats_no_token(api):
    secret = "token-of-alice"
    for body in ({"username": secret, "x": 1}, {"notebook_name": secret + "\0", "username": "a"}):
        assert secret not in (await api.post("/execute", json=body)).text
    async with api.stream("GET", "/runs", headers={"Authorization": f"Basic {secret}"}) as answer:
        assert secret not in (await answer.aread()).decode()


async def test_P7_a_person_at_the_limit_holds_up_nobody_else(world):  # noqa: F811
    service = await world.start()
    alice, bob = await world.client(service), await world.client(service, world.bob)
    flood = [alice.post("/execute", json=RUN) for _ in range(30)]
    mine = bob.post("/execute", json=RUN | {"username": "bob"})
    *answers, bobs = await asyncio.gather(*flood, mine)
    assert sum(answer.status_code == 202 for answer in answers) == 5
    assert bobs.status_code == 202


async def test_P7_a_hundred_who_follow_a_log_hold_up_nobody_and_one_person_is_bounded(world):  # noqa: F811
    world.cluster.script = hangs
    service = await world.start()
    api = await world.client(service)
    run_id = (await api.post("/execute", json=RUN)).json()["run_id"]
    await until(api, run_id, "running")
    path = f"/runs/{run_id}/log?follow=true"
    async with contextlib.AsyncExitStack() as open_ones:
        for number in range(6):
            token = world.hub.person(f"admin{number}", admin=True)
            client = await open_ones.enter_async_context(service.client(token))
            for _ in range(20):
                log = await open_ones.enter_async_context(client.stream("GET", path))
                assert log.status_code == 200
        refused = problem(await client.get(path), 429, "open")
        assert "20" in refused["detail"]
        async with asyncio.timeout(10):
            assert (await api.get(f"/runs/{run_id}")).json()["status"] == "running"
            assert (await api.post("/execute", json=RUN)).status_code == 202

    async def may_again() -> bool:
        async with service.client(token) as client, client.stream("GET", path) as log:
            return bool(log.status_code == 200)

    await eventually(may_again)
    world.cluster.pods.clear()


async def test_P7_who_waits_for_one_run_often_is_bounded_and_who_went_is_not_counted(world):  # noqa: F811
    world.cluster.script = hangs
    service = await world.start()
    api = await world.client(service)
    key = {"Idempotency-Key": "one"}

    async def wait(seconds: int) -> Any:
        async with service.client(world.alice) as client:
            return await client.post(f"/execute?wait={seconds}", json=RUN, headers=key)

    waiting = [asyncio.create_task(wait(300)) for _ in range(20)]
    open_ones = service.app.state.api.waiters.open
    await eventually(lambda: open_ones["alice"] == 20)
    problem(await wait(1), 429, "open")
    assert (await api.post("/execute", json=RUN, headers=key)).status_code == 202
    assert len(world.cluster.runs()) == 1
    for task in waiting:
        task.cancel()
    await eventually(lambda: not open_ones["alice"], 20)
    problem(await wait(1), 504, "still-running")


async def test_P4_an_idempotency_key_of_another_finds_nothing(world):  # noqa: F811
    service = await world.start()
    alice, bob = await world.client(service), await world.client(service, world.bob)
    key = {"Idempotency-Key": "shared"}
    first = (await alice.post("/execute", json=RUN, headers=key)).json()
    answer = await bob.post("/execute", json=RUN, headers=key)
    problem(answer, 403, "not-yours")
    assert first["run_id"] not in answer.text
    for wrong in ("", "x" * 201, "a b", "\x7f"):
        answer = await alice.post("/execute", json=RUN, headers={"Idempotency-Key": wrong})
        problem(answer, 422, "invalid")
