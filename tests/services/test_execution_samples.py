"""The samples of docs/samples, run as they are read."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from starlette.middleware.base import BaseHTTPMiddleware

from mlhub.execution.problems import Problem, answer
from tests.services.execution import Pod, succeeds
from tests.services.test_execution_api import world  # noqa: F401
from tests.services.test_execution_identity import realm, service  # noqa: F401
from tests.services.waiting import eventually

ROOT = Path(__file__).parents[2]


async def sample(name: str, *args: str, **environment: str) -> tuple[int, str, str]:
    """Exit code, and what it said on standard output and on standard error."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("JUPYTERHUB")}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(ROOT / "docs" / "samples" / name),
        *args,
        env=kept | {"PYTHONPATH": str(ROOT / "images/packages/notebooks/src")} | environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def logged_in(world: Any, folder: Path) -> str:  # noqa: F811
    """Where a laptop keeps a log-in of alice's."""
    running = await world.start()
    file = folder / "mlhub" / "login.json"
    file.parent.mkdir()
    kept = {"hub_url": running.url, "user": "alice", "token": world.alice}
    file.write_text(json.dumps(kept))
    return str(folder)


async def test_P10_the_clients_sample_runs(world, tmp_path):  # noqa: F811
    home = await logged_in(world, tmp_path)
    code, out, err = await sample("run_report.py", "./r.ipynb", "year=2026", XDG_CONFIG_HOME=home)
    assert code == 0, err
    assert "notebook r_output_" in out
    code, _, err = await sample("run_report.py", "../r.ipynb", XDG_CONFIG_HOME=home)
    assert code == 1
    assert "inside the home" in err


async def test_P10_the_schedulers_sample_runs_and_twice_is_one_schedule(world, tmp_path):  # noqa: F811
    home = await logged_in(world, tmp_path)
    for _ in range(2):
        code, out, err = await sample("morning_report.py", "./r.ipynb", XDG_CONFIG_HOME=home)
        assert code == 0, err
        assert "next: 20" in out
    (item,) = world.cluster.cron_jobs.values()
    assert (item["spec"]["schedule"], item["spec"]["timeZone"]) == (
        "30 6 * * MON-FRI",
        "Europe/Berlin",
    )


async def test_P10_the_pipelines_sample_runs_once_for_a_key(service):  # noqa: F811
    given = {"HUB": service.url, "REALM": service.realm_url, "CLIENT_ID": "pipeline"}
    for _ in range(2):
        code, out, err = await sample(
            "pipeline.py", "alice", "./r.ipynb", "2026-11-22", CLIENT_SECRET="secret", **given
        )
        assert (code, out.split()[0]) == (0, "succeeded"), err
    assert len(service.cluster.runs()) == 1
    code, _, err = await sample(
        "pipeline.py", "bob", "./r.ipynb", "2026-11-22", CLIENT_SECRET="secret", **given
    )
    assert code == 1
    assert "not that person" in err


async def test_P10_the_pipelines_sample_outlasts_a_service_that_is_silent(service):  # noqa: F811
    """A problem's `status` is 503, which is no run's."""
    looks = []

    async def slow(pod: Pod) -> None:
        pod.runs()
        await eventually(lambda: len(looks) > 2)
        await succeeds(pod)

    async def silent_twice(request: Any, call_next: Any) -> Any:
        if request.method == "GET" and "/runs/" in request.url.path:
            looks.append(request.url.path)
            if len(looks) < 3:
                return answer(Problem(503, "database", "The database does not answer."))
        return await call_next(request)

    service.cluster.script = slow
    service.app.middleware_stack = BaseHTTPMiddleware(service.app.middleware_stack, silent_twice)
    given = {"HUB": service.url, "REALM": service.realm_url, "CLIENT_ID": "pipeline"}
    code, out, err = await sample(
        "pipeline.py", "alice", "./r.ipynb", "2026-11-22", CLIENT_SECRET="secret", **given
    )
    assert (code, out.split()[:1]) == (0, ["succeeded"]), err
    assert looks[0].rpartition("/")[2] in err, "the run's id is told at once"
