"""What the pages for data scientists show, run as it is written, on the services themselves.

Addresses, ids and people of a page become those of the test. What a command prints is compared with
what the page says that it prints.
"""

import asyncio
import io
import os
import sys
import webbrowser
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import nbformat
import pytest

from notebooks import cli
from notebooks.connection import Connection
from tests import pages
from tests.pages import Shown, told
from tests.services.execution import RealRunner
from tests.services.hub import Hub
from tests.services.notebook_kernel import kernel
from tests.services.test_execution_schedules import people  # noqa: F401 (fixture)
from tests.services.test_execution_schedules import place as scheduling  # noqa: F401 (fixture)
from tests.services.test_hub_profiles import choice, gpus, node, nodes_are, resources
from tests.services.test_hub_tokens import MLFLOW
from tests.services.test_launcher import launching, made_token
from tests.services.test_workspaces_api import place, service  # noqa: F401 (fixtures)

HUB = "http://localhost:30888"
PROGRAM = "python -m notebooks.cli"
DATA_SCIENTIST, NOTEBOOKS = "docs/data-scientist.md", "docs/notebooks.md"
EXECUTION, WORKSPACES = "docs/execution.md", "docs/workspaces.md"

SIZES = {
    "cpu": {
        "display_name": "CPU",
        "choices": {str(n): choice(f"{n} CPU", cpu_limit=n) for n in (1, 2, 4)},
    },
    "memory": {
        "display_name": "Memory",
        "choices": {f"{n}G": choice(f"{n} GiB", mem_limit=f"{n}G") for n in (2, 8, 16)},
    },
}
LARGER = {
    "cpu": {"display_name": "CPU", "choices": {"8": choice("8 CPU", cpu_limit=8)}},
    "memory": {"display_name": "Memory", "choices": {"16G": choice("16 GiB", mem_limit="16G")}},
    "gpu": {"display_name": "GPUs", "choices": {"0": gpus(0), "1": gpus(1)}},
}


def own_size(name: str, options: dict[str, Any]) -> list[dict[str, Any]]:
    """The hub's profiles: the default one, and a size of one's own."""
    small, own = resources(1, "2G", 0), {"slug": "own-size", "display_name": name}
    return [
        {
            "slug": "small",
            "display_name": "Small",
            "default": True,
            "kubespawner_override": small,
        },
        {**own, "kubespawner_override": small, "profile_options": options},
    ]


@pytest.fixture
def run(monkeypatch: Any, tmp_path: Path, capsys: Any) -> Any:
    """`await run(shown)`: the exit code and what was printed, at a laptop that is a test's own."""
    for variable in ("HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.delenv("JUPYTERHUB_API_TOKEN", raising=False)

    async def run(shown: Shown, **becomes: str) -> tuple[int, str, str]:
        assert shown.command.startswith(PROGRAM)
        argv = shown.arguments[3:]
        for written, meant in becomes.items():
            argv = [each.replace(written, meant) for each in argv]
        # Not among the loop's own threads, with which the hub beside it looks up addresses.
        with ThreadPoolExecutor(1) as laptop:
            code = await asyncio.get_running_loop().run_in_executor(laptop, cli.main, argv)
        said = capsys.readouterr()
        # The services are in this process, and their audit trail is on its standard output.
        lines = said.out.splitlines(keepends=True)
        return code, "".join(line for line in lines if not line.startswith('{"time"')), said.err

    return run


async def in_a_thread(body: str) -> dict[str, Any]:
    """A block of Python; the names that it leaves."""
    names: dict[str, Any] = {}
    await asyncio.to_thread(exec, compile(body, "page", "exec"), names)
    return names


def block(page: str, beginning: str) -> str:
    (found,) = [b for b in pages.blocks(pages.ROOT / page, "python") if b.startswith(beginning)]
    return found


async def logged_in(run: Any, hub: Hub, pasted: str, monkeypatch: Any, page: str) -> None:
    (login,) = told(page, f"{PROGRAM} login")
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{pasted}\n"))
    code, out, err = await run(login, **{HUB: hub.url})
    assert code == 0, err
    assert f"Logged in to {hub.url} as alice for 30 days" in out


@pytest.fixture
def start(start_hub: Any, kubernetes: Any, serve: Any) -> Any:
    """`await start(profiles)`: a hub."""
    return partial(launching, start_hub, kubernetes, serve)


async def test_the_pages_log_in_and_sessions(run, start, keycloak, monkeypatch):
    hub = await start(own_size("A size of your own (CPU)", SIZES))
    pasted = await made_token(hub, keycloak, "alice")
    await logged_in(run, hub, pasted, monkeypatch, NOTEBOOKS)

    first, third, fourth = told(NOTEBOOKS, f"{PROGRAM} launch")
    code, out, err = await run(first)
    assert code == 0, err
    # Here the server runs at the first look, so that there is no way there to tell of; lines with a
    # percentage: tests/unit/test_notebooks_launcher.py.
    rest = "\n".join(line for line in first.prints.splitlines() if " % " not in line)
    assert Shown("", rest.replace(HUB, hub.url)).is_printed(out)
    name = out.split()[1]

    (small,) = told(DATA_SCIENTIST, f"{PROGRAM} launch")
    assert (await run(small))[0] == 0
    assert (await run(third))[0] == 0, "the third, by the default profile"
    for refused in (third, fourth):
        code, out, err = await run(refused)
        assert (code, out) == (1, "")
        # Beside the hub's own log, which is on the standard error of this process.
        assert any(refused.is_printed(line) for line in err.splitlines()), err

    written = {"alice/notebook-3fa9c2": name, "notebook-3fa9c2": name.partition("/")[2]}
    listed, stop, restore, opened = told(NOTEBOOKS, f"{PROGRAM} sessions")
    code, out, err = await run(listed)
    assert code == 0, err
    assert Shown("", listed.prints.splitlines()[0]).is_printed(out.splitlines()[0])
    assert any(Shown("", listed.prints.splitlines()[1]).is_printed(row) for row in out.splitlines())
    code, out, err = await run(stop, **written)
    assert code == 0, err
    assert stop.is_printed(out)
    browsed: list[str] = []
    monkeypatch.setattr(webbrowser, "open", browsed.append)
    for command in (restore, opened):
        code, out, err = await run(command, **written)
        assert code == 0, err
    assert browsed == [f"{hub.url}/user/{name}/lab"]


async def test_the_pages_launches_with_a_GPU(run, start, kubernetes, keycloak, monkeypatch):
    keycloak.people["alice"] = ["/mlhub/users", "/workspaces/forecasting/editor"]
    # Products as NVIDIA's feature discovery labels them.
    for number, product in enumerate(("NVIDIA-A100-SXM4-80GB", "nvidia-tesla-v100")):
        kubernetes.put("nodes", node(f"node-{number}", 4, product))
    options = {**SIZES, "gpu": LARGER["gpu"]}
    for key in ("cpu", "memory"):
        options[key] = {
            "display_name": key,
            "choices": {**SIZES[key]["choices"], **LARGER[key]["choices"]},
        }
    mlflow = {"hub": {"services": {"mlflow": MLFLOW["hub"]["services"]["mlflow"]}}}
    hub = await start(own_size("A size of your own", options), mlflow)
    await nodes_are(hub, 2)
    pasted = await made_token(hub, keycloak, "alice")

    (curl,) = told("docs/hub.md", "curl -X POST")
    shell = await asyncio.create_subprocess_exec(
        *("bash", "-c", curl.command.replace("curl", "curl --fail-with-body --silent")),
        env=os.environ | {"HUB": hub.url, "TOKEN": pasted},
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await shell.communicate()
    assert shell.returncode == 0, said

    await logged_in(run, hub, pasted, monkeypatch, DATA_SCIENTIST)
    names = await in_a_thread(block(NOTEBOOKS, "from notebooks import NotebookLauncher"))
    session = names["session"]
    assert (session.user, session.status) == ("alice", "running")
    limits = [
        pod["spec"]["containers"][0]["resources"]["limits"]
        for pod in kubernetes.kept["pods"].values()
    ]
    found = {(each["cpu"], each["memory"], each["nvidia.com/gpu"]) for each in limits}
    assert found == {(8, 16 * 2**30, "1"), (4, 16 * 2**30, "1")}


async def test_the_pages_runs_sweeps_and_schedules(
    run,
    scheduling,  # noqa: F811
    monkeypatch,
    tmp_path,
):
    execution = await scheduling.start(per_minute=50)
    found = Connection(execution.url, "alice", scheduling.alice)
    monkeypatch.setattr(Connection, "find", classmethod(lambda cls: found))
    starts = [command for page in (DATA_SCIENTIST, EXECUTION) for command in told(page, PROGRAM)]
    ours = [each for each in starts if each.arguments[3] in ("runs", "sweeps", "schedules")]
    assert len(ours) == 5
    for number, command in enumerate(ours):
        # A schedule's name is its person's once, and two pages make it.
        code, out, err = await run(command, morning=f"morning-{number}")
        assert code == 0, err
        assert not command.prints or command.is_printed(out), out

    home = tmp_path / "home"
    (home / "work").mkdir(parents=True)
    nbformat.write(nbformat.v4.new_notebook(), home / "work/report.ipynb")
    scheduling.cluster.script = RealRunner(home)
    api, curl = told(EXECUTION, "API=") + told(EXECUTION, "curl")
    commands = f"{api.command}; {curl.command}".replace(HUB, execution.url)
    shell = await asyncio.create_subprocess_exec(
        *("bash", "-c", commands),
        env=os.environ | {"TOKEN": scheduling.alice},
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await shell.communicate()
    assert curl.is_printed(said.decode()), said


async def test_the_pages_workspaces(run, service, monkeypatch, capsys):  # noqa: F811
    found = Connection(service.url, "olga", "token-of-olga")
    monkeypatch.setattr(Connection, "find", classmethod(lambda cls: found))
    create, add = told(WORKSPACES, f"{PROGRAM} workspaces")
    code, out, err = await run(create)
    assert code == 0, err
    assert create.is_printed(out)
    slug = out.split()[1]
    code, out, err = await run(add, **{"churn-models--4f0c…": slug, "bob": "edda"})
    assert code == 0, err
    assert Shown("", add.prints.replace("bob", "edda")).is_printed(out)

    body = block(WORKSPACES, "from notebooks import WorkspaceManager")
    await in_a_thread(body.replace("alice", "olga").replace("bob", "edda"))
    assert capsys.readouterr().out == "notebook reports/churn.ipynb\n"


def test_the_pages_magics_versions_and_runs(alices_mlflow, tmp_path):
    notebook = tmp_path / "report.ipynb"
    cells = [nbformat.v4.new_code_cell("depth = 3")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), notebook)
    (magics,) = [b for b in pages.blocks(pages.ROOT / "docs/templates.md", "") if b[0] == "%"]
    assert len(magics.splitlines()) == 4
    with kernel(notebook, tmp_path, alices_mlflow) as lab:
        for source in (
            "depth, loss, epoch = 3, 0.5, 1",
            *magics.splitlines(),
            "import mlflow\nrun_id = mlflow.active_run().info.run_id\nmlflow.end_run()",
            block("docs/templates.md", "from notebooks import MLflow"),
            "print([tracking.notebook_of(run_id).path, len(tracking.snapshots())])",
            block("docs/mlflow.md", "import mlflow"),
        ):
            said = lab.run(source)
            assert not said.error, f"{source}: {said.error}"
            if source.startswith("print([tracking"):
                assert said.text == "['report.ipynb', 1]\n"
    assert (tmp_path / "report-v1.ipynb").is_file()
