"""Which notebooks there are, and the whole way: HTTP, Job, real runner, the person's home."""

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from tests.services.execution import Pod, RealRunner
from tests.services.test_execution_api import RUN, problem, until, world  # noqa: F401
from tests.services.waiting import eventually


def save(home: Path, name: str, *sources: str) -> None:
    file = home / name
    file.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=[new_code_cell(source) for source in sources]), file)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
async def api(world: Any, home: Path) -> Any:  # noqa: F811
    world.cluster.script = RealRunner(home)
    return await world.client(await world.start())


def named(name: str, **more: Any) -> dict[str, Any]:
    return {"username": "alice", "notebook_name": name} | more


async def test_P1_a_homes_notebooks_are_listed_as_documented(api, home, world):  # noqa: F811
    save(home, "top.ipynb")
    save(home, "work/deep/sum.ipynb")
    listing = (await api.get("/list-notebooks/alice")).json()
    assert (listing["username"], listing["user_home"]) == ("alice", "/home/jovyan")
    assert listing["notebook_count"] == 2
    assert listing["notebooks"][1] == {
        "name": "sum.ipynb",
        "path": "/home/jovyan/work/deep/sum.ipynb",
        "relative_path": "work/deep/sum.ipynb",
        "size": (home / "work/deep/sum.ipynb").stat().st_size,
        "modified": listing["notebooks"][1]["modified"],
    }
    assert not world.cluster.jobs


async def test_P1_one_look_serves_all_who_ask_within_seconds(api, home, world):  # noqa: F811
    save(home, "top.ipynb")
    answers = await asyncio.gather(*(api.get("/list-notebooks/alice") for _ in range(8)))
    assert {answer.status_code for answer in answers} == {200}
    assert len(world.cluster.created) == 1


async def test_P1_a_name_is_found_in_a_sub_folder_and_run(api, home):
    save(home, "work/deep/sum.ipynb", "print(6 * 7)")
    answer = await api.post("/execute?wait=120", json=named("sum"))
    assert answer.status_code == 200, answer.text
    run = answer.json()
    assert run["input_notebook"] == "work/deep/sum.ipynb"
    output = nbformat.read(home / run["output_notebook"], 4)
    assert output.cells[0].outputs[0].text == "42\n"
    assert "42" in (await api.get(f"/runs/{run['run_id']}/log")).text


async def test_P1_an_ambiguous_name_is_409_and_a_path_says_which(api, home, world):  # noqa: F811
    save(home, "sum.ipynb", "1")
    save(home, "work/sum.ipynb", "1")
    body = problem(await api.post("/execute", json=named("sum.ipynb")), 409, "ambiguous")
    assert body["matches"] == ["sum.ipynb", "work/sum.ipynb"]
    assert not world.cluster.runs()
    answer = await api.post("/execute?wait=120", json=named("./sum.ipynb"))
    assert (answer.status_code, answer.json()["input_notebook"]) == (200, "sum.ipynb")


async def test_P1_a_notebook_that_was_just_saved_is_found(api, home):
    save(home, "old.ipynb")
    assert (await api.get("/list-notebooks/alice")).json()["notebook_count"] == 1
    save(home, "new.ipynb", "1")
    assert (await api.post("/execute", json=named("new.ipynb"))).status_code == 202
    problem(await api.post("/execute", json=named("none.ipynb")), 404, "no-notebook")


async def test_P6_a_path_that_is_not_there_is_404_for_who_waits(api, home):
    answer = await api.post("/execute?wait=120", json=named("./none.ipynb"))
    problem(answer, 404, "not-found")


async def test_P4_a_link_out_of_the_home_is_refused_inside_the_job(api, home):
    (home.parent / "secret.ipynb").write_text("{}")
    (home / "link.ipynb").symlink_to(home.parent / "secret.ipynb")
    answer = await api.post("/execute?wait=120", json=named("./link.ipynb"))
    problem(answer, 422, "path-refused")
    problem(await api.post("/execute", json=named("link.ipynb")), 404, "no-notebook")


async def test_P6_P8_an_error_and_a_cancel_keep_the_partial_notebook(api, home, world):  # noqa: F811
    save(home, "fails.ipynb", "print('kept')", "1 / 0")
    body = problem(
        await api.post("/execute?wait=120", json=named("./fails.ipynb")), 422, "cell-error"
    )
    assert body["run"]["error"]["ename"] == "ZeroDivisionError"
    assert "kept" in (home / body["run"]["output_notebook"]).read_text()
    save(home, "long.ipynb", "print('kept')", "import time; time.sleep(300)")
    run = (await api.post("/execute", json=named("./long.ipynb"))).json()

    async def first_cell_done() -> bool:
        found = (await api.get(f"/runs/{run['run_id']}")).json()
        return bool(found["cells"] and found["cells"]["done"] == 1)

    await eventually(first_cell_done)
    task = world.cluster.tasks[f"run-{run['run_id']}"]
    await api.post(f"/runs/{run['run_id']}/cancel")
    await until(api, run["run_id"], "cancelled")
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert "kept" in (home / run["output_notebook"]).read_text()


async def test_P4_a_forged_listing_is_no_listing(world):  # noqa: F811
    service = await world.start()
    api = await world.client(service)

    def forges(text: str) -> Any:
        async def script(pod: Pod) -> None:
            pod.runs()
            pod.says(text)
            pod.ends()

        return script

    escape = {"path": "../../etc/x.ipynb", "size": 1, "modified": "now"}
    for text in ("", "x", '{"count": 1}\n', '{"path": "a.ipynb"}\n{"count": 1}\n', "null\n"):
        world.cluster.script = forges(text)
        problem(await api.get("/list-notebooks/alice"), 504, "listing")
    world.cluster.script = forges(json.dumps(escape) + '\n{"count": 1}\n')
    assert (await api.get("/list-notebooks/alice")).json()["notebooks"] == []


@pytest.mark.parametrize(("count", "length"), [(5000, 300), (5001, 20), (5000, 1000)])
async def test_P6_a_home_of_very_many_notebooks_is_listed_or_called_so(world, count, length):  # noqa: F811
    async def lists(pod: Pod) -> None:
        """As `notebooks.jobs.listing` does, which ends at 5000."""
        pod.runs()
        for number in range(min(count, 5000)):
            path = "/".join(f"{number:0{length // 5}}" for _ in range(5)) + ".ipynb"
            pod.says(json.dumps({"path": path, "size": 1, "modified": "now"}) + "\n")
        pod.says(json.dumps({"count": 5000} | ({"more": True} if count > 5000 else {})) + "\n")
        pod.ends()

    world.cluster.script = lists
    api = await world.client(await world.start())
    answer = await api.get("/list-notebooks/alice")
    if (count, length) == (5000, 300):
        assert answer.json()["notebook_count"] == 5000
        return
    told = problem(answer, 409, "too-many-notebooks")
    assert "give the notebook's path" in told["detail"]
    problem(await api.post("/execute", json=named("sum")), 409, "too-many-notebooks")


async def test_P6_a_home_that_cannot_be_looked_into_is_504_and_leaves_no_job(world):  # noqa: F811
    async def pending(pod: Pod) -> None:
        return None

    world.cluster.script = pending
    service = await world.start()
    service.app.state.api.listings._wait = 1
    api = await world.client(service)
    problem(await api.get("/list-notebooks/alice"), 504, "listing")
    assert not world.cluster.jobs
    run = await api.post("/execute", json=RUN)
    assert run.status_code == 202
