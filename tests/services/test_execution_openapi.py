"""The OpenAPI document, held against the running service by schemathesis."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from aiohttp.web import AppRunner, TCPSite
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.config import PositiveDataAcceptanceConfig, SchemathesisConfig
from schemathesis.generation.modes import GenerationMode

from tests.ports import free_port
from tests.services import execution


@pytest.fixture(scope="module")
def service(tmp_path_factory: Any) -> Iterator[Any]:
    """A service in a thread of its own, since schemathesis is no coroutine."""
    loop = asyncio.new_event_loop()
    folder: Path = tmp_path_factory.mktemp("openapi")
    ready, stop = threading.Event(), asyncio.Event()
    found: dict[str, Any] = {}

    async def serve() -> None:
        cluster, hub = execution.Jobs(), execution.Tokens()
        found["token"] = hub.person("alice")
        ports, runners = [free_port(), free_port()], []
        for port, app in zip(ports, (cluster.application(), hub.application()), strict=True):
            runner = AppRunner(app)
            await runner.setup()
            await TCPSite(runner, "127.0.0.1", port).start()
            runners.append(runner)
        configured = execution.settings(
            f"http://127.0.0.1:{ports[0]}",
            f"http://127.0.0.1:{ports[1]}/hub/api",
            f"sqlite:///{folder}/execution.db",
            limits={"per_minute": 400, "listing_seconds": 3600},
        )
        async with execution.serving(configured, free_port()) as running:
            found["service"] = running
            async with running.client(found["token"]) as client:
                body = {"username": "alice", "notebook_name": "./sum.ipynb"}
                found["run"] = (await client.post("/execute", json=body)).json()["run_id"]
                often = body | {"name": "often", "cron": "* * * * *"}
                made = await client.post("/schedules", json=often)
                found["schedule"] = made.json()["schedule_id"]
                swept = await client.post("/sweeps", json=body | {"grid": {"a": [1]}})
                found["sweep"] = swept.json()["sweep_id"]
            ready.set()
            await stop.wait()
        await cluster.close()
        for runner in runners:
            await runner.cleanup()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert ready.wait(120)
    yield found
    loop.call_soon_threadsafe(stop.set)
    thread.join(30)
    loop.close()


def config() -> SchemathesisConfig:
    made = SchemathesisConfig()
    # The tests bring the token; whether one is needed is a check of its own.
    made.projects.default.generation.with_security_parameters = False
    # A valid name of another person's, a notebook or run that is not there.
    made.projects.default.checks.positive_data_acceptance = PositiveDataAcceptanceConfig(
        expected_statuses=["2xx", "401", "403", "404", "409", "422"]
    )
    return made


BOUNDED = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)

OPERATIONS = [
    ("GET", "/"),
    ("GET", "/health"),
    ("GET", "/list-notebooks/{username}"),
    ("POST", "/execute"),
    ("POST", "/run-notebook"),
    ("GET", "/runs"),
    ("GET", "/runs/{run_id}"),
    ("POST", "/runs/{run_id}/cancel"),
    ("GET", "/runs/{run_id}/artifacts"),
    ("GET", "/runs/{run_id}/log"),
    ("POST", "/schedules"),
    ("GET", "/schedules"),
    ("GET", "/schedules/{schedule_id}"),
    ("PATCH", "/schedules/{schedule_id}"),
    ("DELETE", "/schedules/{schedule_id}"),
    ("POST", "/sweeps"),
    ("GET", "/sweeps"),
    ("GET", "/sweeps/{sweep_id}"),
    ("POST", "/sweeps/{sweep_id}/cancel"),
]


def test_P9_every_operation_of_the_document_is_tried_here(service):
    paths = schema_of(service).raw_schema["paths"]
    documented = {(m.upper(), path) for path, methods in paths.items() for m in methods}
    assert documented == set(OPERATIONS)


def schema_of(service: Any) -> Any:
    url = f"{service['service'].url}{execution.BASE}/openapi.json"
    return schemathesis.openapi.from_url(url, config=config())


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_P6_P9_the_service_answers_as_its_document_says(service, method, path):
    operation = schema_of(service)[path][method]
    headers = {"Authorization": f"Bearer {service['token']}"}

    known = {
        "username": "alice",
        "run_id": service["run"],
        "schedule_id": service["schedule"],
        "sweep_id": service["sweep"],
    }

    def takes(case: Any) -> None:
        # What a stranger's name or a run that is not there gets is tried elsewhere.
        case.path_parameters = {name: known[name] for name in case.path_parameters}
        if "wait" in (case.query or {}):
            case.query["wait"] = 0
        case.call_and_validate(headers=headers)

    def refuses(case: Any) -> None:
        case.call_and_validate(headers=headers)

    tries = [(GenerationMode.POSITIVE, takes)]
    if path not in ("/", "/health"):  # which take nothing that could be wrong
        tries.append((GenerationMode.NEGATIVE, refuses))
    for mode, conforms in tries:
        BOUNDED(given(case=operation.as_strategy(generation_mode=mode))(conforms))()
