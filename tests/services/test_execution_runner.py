"""What runs inside a run's Job: the real runner, Papermill and kernels, in a home of the test."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from notebooks.jobs import listing

SOURCES = Path(__file__).parents[2] / "images/packages/notebooks/src"
OUTPUT = "work/sum_output_20261122_101500.ipynb"


class Home:
    """A home and the runs in it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.result_file = folder.parent / "termination-log"
        self.environment: dict[str, str] = {}
        (folder / "work").mkdir(parents=True)

    def notebook(self, name: str, *sources: str) -> bytes:
        notebook = new_notebook(cells=[new_code_cell(source) for source in sources])
        notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
        file = self.folder / name
        nbformat.write(notebook, file)
        return file.read_bytes()

    def start(self, notebook: str, **task: Any) -> subprocess.Popen[str]:
        given = {
            "id": "0123456789abcdef",
            "notebook": notebook,
            "output": OUTPUT,
            "replace": False,
            "parameters": {},
            "time_limit": 120,
            "cell_timeout": None,
            "experiment": "notebooks",
        } | task
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "PYTHONPATH": str(SOURCES),
            "MLHUB_RUN": json.dumps(given),
            "MLHUB_RUN_RESULT": str(self.result_file),
            **self.environment,
        }
        return subprocess.Popen(
            [sys.executable, "-sP", "-m", "notebooks.jobs.run"],
            env=environment,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, notebook: str, **task: Any) -> tuple[int, dict[str, Any], str]:
        """Exit code, termination message and log."""
        process = self.start(notebook, **task)
        log, _ = process.communicate(timeout=200)
        return process.returncode, self.result(), log

    def collect(self, run_id: str, **given: Any) -> dict[str, Any]:
        """What is found of a run's notebook when its pod could not say."""
        task = {"id": run_id, "notebook": "work/sum.ipynb", "output": OUTPUT}
        task |= {"replace": False, "parameters": {}, "time_limit": 1, "cell_timeout": None} | given
        said = subprocess.run(
            [sys.executable, "-sP", "-m", "notebooks.jobs.collect"],
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.folder),
                "PYTHONPATH": str(SOURCES),
                "MLHUB_RUN": json.dumps(task | {"experiment": "notebooks"}),
            },
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        found: dict[str, Any] = json.loads(said.splitlines()[-1])
        return found

    def result(self) -> dict[str, Any]:
        text = self.result_file.read_text()
        assert len(text) <= 4096
        return json.loads(text)

    def outputs(self) -> list[str]:
        return sorted(p.name for p in (self.folder / "work").iterdir())


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def test_P2_P8_a_run_leaves_the_original_as_it_is_and_the_output_beside_it(home):
    before = home.notebook(
        "work/sum.ipynb", "a = 1", "print('the sum', a + b)", "open('here', 'w')"
    )
    code, result, log = home.run("work/sum.ipynb", parameters={"b": 41})
    assert code == 0, log
    assert (result["cells"], result["output"]) == ([3, 3], OUTPUT)
    assert (home.folder / "work/sum.ipynb").read_bytes() == before
    assert home.outputs() == ["here", "sum.ipynb", Path(OUTPUT).name]
    made = nbformat.read(home.folder / OUTPUT, 4)
    assert "injected-parameters" in made.cells[0].metadata.tags
    assert made.metadata.papermill.input_path == "work/sum.ipynb"
    assert "the sum 42" in log
    assert "[mlhub] cell 2 of 3" in log
    assert "cell 4" not in log, "cells count as in the person's own notebook"
    assert result["size"] == (home.folder / OUTPUT).stat().st_size


def test_P6_an_error_in_a_cell_is_structured_and_the_partial_notebook_kept(home):
    home.notebook("work/sum.ipynb", "print('first')", "1 / 0", "print('never')")
    code, result, _ = home.run("work/sum.ipynb")
    assert (code, result["reason"], result["cells"]) == (1, "cell-error", [1, 3])
    error = result["error"]
    assert (error["cell"], error["ename"]) == (2, "ZeroDivisionError")
    assert "\x1b" not in "".join(error["traceback"])
    cells = nbformat.read(home.folder / OUTPUT, 4).cells
    assert any("first" in str(cell.get("outputs")) for cell in cells)


def test_P6_a_failure_says_where_in_the_persons_notebook_and_why(home):
    why = "raise ValueError(f'no column {column}\\nof those there are')"
    home.notebook("work/sum.ipynb", "column = 'a'", why)
    code, result, log = home.run("work/sum.ipynb", parameters={"column": "profit"})
    assert (code, result["error"]["cell"]) == (1, 2)
    assert result["message"] == "Cell 2 raised ValueError: no column a"
    assert "----> 1 raise ValueError(f'no column {column}" in log
    assert "of those there are" in log
    assert log.rstrip().endswith("[mlhub] Cell 2 raised ValueError: no column a")


def test_P6_what_a_failure_says_holds_no_secret_and_is_short(home, monkeypatch):
    secret = "ghp_" + "a1" * 18
    home.notebook("work/sum.ipynb", f"key = {secret!r}\nraise ValueError(key + ' x' * 10_000)")
    code, result, log = home.run("work/sum.ipynb")
    assert (code, result["error"]["ename"]) == (1, "ValueError")
    assert result["message"].startswith("Cell 1 raised ValueError: [redacted: GitHub Token] x x")
    assert len(result["message"]) < 300
    assert secret not in json.dumps(result)
    assert secret not in log
    assert len(log) < 40_000


def test_P6_an_enormous_error_fits_the_termination_message(home):
    home.notebook("work/sum.ipynb", "raise ValueError('é' * 100_000)")
    code, result, _ = home.run("work/sum.ipynb")
    assert (code, result["error"]["ename"]) == (1, "ValueError")


def test_P6_a_dead_kernel_exits_138_and_counts_only_what_was_done(home):
    home.notebook("work/sum.ipynb", "1", "import os; os.kill(os.getpid(), 9)", "2")
    code, result, _ = home.run("work/sum.ipynb")
    assert (code, result["reason"], result["cells"]) == (138, "dead-kernel", [1, 3])
    assert (home.folder / OUTPUT).exists()


def test_P4_a_parameters_value_never_becomes_code(home):
    values = [
        "'); open('evil', 'w') #",
        '"""\nopen("evil", "w")\n"""',
        "\\",
        "{open('evil', 'w')}",
        "%%bash\ntouch evil",
        "!touch evil",
        {"key'); open('evil', 'w') #": ["\\'", None, True, 1e-300]},
    ]
    home.notebook("work/sum.ipynb", "import json", "print(json.dumps(given))")
    code, _, log = home.run("work/sum.ipynb", parameters={"given": values})
    assert code == 0, log
    assert json.dumps(values) in log
    assert home.outputs() == ["sum.ipynb", Path(OUTPUT).name]


@pytest.mark.parametrize(
    ("limit", "reason"), [({"cell_timeout": 6}, "cell-timeout"), ({"time_limit": 25}, "time-limit")]
)
def test_P5_a_cell_and_a_run_have_a_time_limit(home, limit, reason):
    """Long enough for the first cell, and for all that comes before it, on a busy machine."""
    home.notebook("work/sum.ipynb", "1", "import time; time.sleep(300)", "2")
    code, result, _ = home.run("work/sum.ipynb", **limit)
    assert (code, result["reason"], result["cells"]) == (1, reason, [1, 3])
    assert (home.folder / OUTPUT).exists()


def test_P8_a_stopped_run_keeps_what_it_had(home):
    home.notebook("work/sum.ipynb", "1", "import time; time.sleep(300)", "2")
    process = home.start("work/sum.ipynb")
    for line in process.stdout:
        if "cell 2 of 3" in line:
            break
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    result = home.result()
    assert (process.returncode, result["reason"], result["cells"]) == (1, "stopped", [1, 3])
    assert home.outputs() == ["sum.ipynb", Path(OUTPUT).name]
    # A cancelled run's pod is gone before it can say so; what it left is found, as no other's.
    assert home.collect("0123456789abcdef")["cells"] == [1, 3]
    assert home.collect("f" * 16) == {}


class SlowMlflow(ThreadingHTTPServer):
    """An MLflow that begins a run, but for what it is to leave without an answer."""

    def __init__(self, silent: str):
        super().__init__(("127.0.0.1", 0), Asked)
        self.silent, self.reached, self.go_on = silent, threading.Event(), threading.Event()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def environment(self) -> dict[str, str]:
        return {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{self.server_port}"}

    def reached_by(self, process: subprocess.Popen[str]) -> None:
        """Return once it keeps a run waiting."""
        deadline = time.monotonic() + 150
        while not self.reached.wait(0.2):
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline


class Asked(BaseHTTPRequestHandler):
    server: SlowMlflow

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path, status = self.path.partition("?")[0], 200
        if path.endswith(self.server.silent):
            self.server.reached.set()
            self.server.go_on.wait(120)
        if path.endswith("/experiments/get-by-name"):
            body: Any = {"experiment": {"experiment_id": "1", "lifecycle_stage": "active"}}
        elif path.endswith("/runs/create"):
            body = {"run": {"info": {"run_id": "r1", "experiment_id": "1", "status": "RUNNING"}}}
        else:
            body, status = {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "test"}, 404
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def slow_mlflow(request: pytest.FixtureRequest, home: Home) -> Iterator[SlowMlflow]:
    server = SlowMlflow(request.param)
    home.environment = server.environment
    yield server
    server.go_on.set()
    server.shutdown()
    server.server_close()


def stopped_at(mlflow: SlowMlflow, home: Home, cell: str) -> subprocess.Popen[str]:
    """A run of one cell that is told to end while it waits for MLflow."""
    home.notebook("work/sum.ipynb", cell)
    process = home.start("work/sum.ipynb")
    mlflow.reached_by(process)
    process.send_signal(signal.SIGTERM)
    return process


@pytest.mark.parametrize("slow_mlflow", ["/experiments/get-by-name"], indirect=True)
def test_P8_a_run_that_is_stopped_while_mlflow_is_asked_begins_no_cell(home, slow_mlflow):
    process = stopped_at(slow_mlflow, home, "open('begun', 'w')")
    stopped = time.monotonic()
    log, _ = process.communicate(timeout=60)
    assert time.monotonic() - stopped < 20, "a pod has no longer"
    assert (process.returncode, home.result()["reason"]) == (1, "stopped"), log
    assert home.outputs() == ["sum.ipynb"]


@pytest.mark.parametrize("slow_mlflow", ["/runs/get"], indirect=True)
def test_P8_a_run_that_is_stopped_after_its_last_cell_still_says_how_it_ended(home, slow_mlflow):
    process = stopped_at(slow_mlflow, home, "1")
    time.sleep(1)
    slow_mlflow.go_on.set()
    log, _ = process.communicate(timeout=60)
    assert process.returncode == 0, log
    assert (home.result()["output"], home.result()["mlflow_run_id"]) == (OUTPUT, "r1")


def test_P8_a_killed_papermill_is_a_dead_kernel_and_not_a_hang(home):
    source = "import os, time; os.kill(os.getppid(), 9); time.sleep(300)"
    home.notebook("work/sum.ipynb", "1", source)
    start = time.monotonic()
    code, result, _ = home.run("work/sum.ipynb")
    assert (code, result["reason"], result["output"]) == (138, "dead-kernel", OUTPUT)
    assert time.monotonic() - start < 110, "the run's own limit was waited for"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("../secret.ipynb", "path-refused"),
        ("/etc/passwd", "path-refused"),
        ("https://example.com/a.ipynb", "path-refused"),
        ("work/out.ipynb", "path-refused"),
        ("work/folder/x.ipynb", "path-refused"),
        ("work/beside.ipynb", "path-refused"),
        ("work/pipe.ipynb", "path-refused"),
        ("work/none.ipynb", "not-found"),
        ("work/garbage.ipynb", "not-runnable"),
    ],
)
def test_P4_the_runner_resolves_the_path_itself(home, path, reason):
    outside = home.folder.parent / "secret.ipynb"
    outside.write_text("{}")
    (home.folder / "work/out.ipynb").symlink_to(outside)
    (home.folder / "work/folder").symlink_to(home.folder.parent)
    beside = home.folder.with_name(f"{home.folder.name}-of-another")
    beside.mkdir()
    beside.joinpath("x.ipynb").write_text("{}")
    (home.folder / "work/beside.ipynb").symlink_to(beside / "x.ipynb")
    (home.folder / "work/garbage.ipynb").write_text("not json")
    os.mkfifo(home.folder / "work/pipe.ipynb")
    code, result, _ = home.run(path)
    assert (code, result["reason"]) == (1, reason), result
    assert outside.read_text() == "{}"


def test_P2_P4_an_output_never_replaces_what_a_person_made(home):
    original = home.notebook("work/sum.ipynb", "1")
    mine = home.notebook("work/mine.ipynb", "2")
    (home.folder / "work/link.ipynb").hardlink_to(home.folder / "work/sum.ipynb")
    for output in ("work/sum.ipynb", "work/link.ipynb", "work/mine.ipynb"):
        code, result, _ = home.run("work/sum.ipynb", output=output, replace=True)
        assert (code, result["reason"]) == (1, "output-exists")
    code, result, _ = home.run("work/sum.ipynb", output="../out.ipynb", replace=True)
    assert (code, result["reason"]) == (1, "path-refused")
    assert (home.folder / "work/sum.ipynb").read_bytes() == original
    assert (home.folder / "work/mine.ipynb").read_bytes() == mine


def test_P2_a_named_output_is_renewed_and_a_stamped_one_never(home):
    home.notebook("work/sum.ipynb", "print(n)")
    for n in (1, 2):
        code, _, log = home.run(
            "work/sum.ipynb", parameters={"n": n}, output="work/daily.ipynb", replace=True
        )
        assert code == 0, log
        assert f"{n}\n" in str(
            nbformat.read(home.folder / "work/daily.ipynb", 4).cells[1].outputs[0].text
        )
    names = []
    for _ in range(2):
        names.append(home.run("work/sum.ipynb", parameters={"n": 1})[1]["output"])
    assert names == [OUTPUT, OUTPUT.replace("101500", "101501")]


def test_P2_what_a_person_saves_at_the_outputs_place_meanwhile_stays_theirs(home):
    mine = home.notebook("theirs.ipynb", "'an afternoon of work'")
    saved = "import shutil; shutil.copy('../theirs.ipynb', 'daily.ipynb')"
    home.notebook("work/sum.ipynb", saved, "print('done')")
    code, result, log = home.run("work/sum.ipynb", output="work/daily.ipynb", replace=True)
    assert code == 0, log
    assert (home.folder / "work/daily.ipynb").read_bytes() == mine
    assert re.fullmatch(r"work/daily_\d{8}_\d{6}\.ipynb", result["output"])
    assert "done" in (home.folder / result["output"]).read_text()
    name = result["output"].removeprefix("work/")
    assert f"daily.ipynb is taken and stays; the output is {name}" in log
    # Nor is a killed run's lost where it cannot have its name.
    hidden = home.folder / "work/.daily.0123456789abcdef.partial.ipynb"
    (home.folder / result["output"]).rename(hidden)
    found = home.collect("0123456789abcdef", output="work/daily.ipynb", replace=True)
    assert re.fullmatch(r"work/daily_\d{8}_\d{6}\.ipynb", found["output"])
    assert (home.folder / "work/daily.ipynb").read_bytes() == mine
    assert not hidden.exists()


def test_a_module_of_the_home_does_not_come_before_the_runners(home):
    (home.folder / "json.py").write_text("raise SystemExit('the wrong json')")
    home.notebook("work/sum.ipynb", "1")
    assert home.run("work/sum.ipynb")[0] == 0


def test_P1_the_listing_leaves_out_hidden_files_and_links(home):
    home.notebook("work/sum.ipynb", "1")
    home.notebook("top.ipynb", "1")
    for hidden in (".ipynb_checkpoints/sum.ipynb", ".local/x.ipynb", "work/.part.ipynb"):
        (home.folder / hidden).parent.mkdir(exist_ok=True, parents=True)
        home.notebook(hidden, "1")
    (home.folder / "linked.ipynb").symlink_to("/etc/passwd")
    (home.folder / "up").symlink_to("/")
    done = subprocess.run(
        [sys.executable, "-sP", "-m", "notebooks.jobs.listing"],
        env={"HOME": str(home.folder), "PYTHONPATH": str(SOURCES), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    *found, last = map(json.loads, done.stdout.splitlines())
    assert [n["path"] for n in found] == ["top.ipynb", "work/sum.ipynb"]
    assert last == {"count": 2}
    assert found[0]["modified"].endswith("+00:00")


def test_P6_a_listing_that_ends_before_the_last_notebook_says_so(home, monkeypatch, capsys):
    for name in ("one", "two", "three"):
        home.notebook(f"{name}.ipynb", "1")
    monkeypatch.setenv("HOME", str(home.folder))
    for largest, more in ((2, {"more": True}), (3, {})):
        monkeypatch.setattr(listing, "LARGEST", largest)
        listing.main()
        *found, last = map(json.loads, capsys.readouterr().out.splitlines())
        assert (len(found), last) == (largest, {"count": largest, **more})


def test_P6_a_pod_that_was_killed_hard_leaves_a_partial_notebook_that_gets_its_name(home):
    home.notebook("work/sum.ipynb", "print('first')", "import time; time.sleep(300)", "print('no')")
    process = home.start("work/sum.ipynb")
    hidden = home.folder / "work" / f".{Path(OUTPUT).stem}.0123456789abcdef.partial.ipynb"
    deadline = time.monotonic() + 150
    while not (hidden.exists() and '"status": "completed"' in hidden.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    kill_all(process.pid)
    assert not (home.folder / OUTPUT).exists()
    # The second time as if the runner had brought it home and could not say so.
    for expected in [{"cells": [1, 3], "output": OUTPUT}] * 2:
        found = home.collect("0123456789abcdef")
        assert {key: found.get(key) for key in expected} == expected
    assert home.outputs() == ["sum.ipynb", Path(OUTPUT).name]


def kill_all(pid: int) -> None:
    """A process and all that it started, at once, as a container's end by memory is."""
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    for process in processes:
        process.kill()
    psutil.wait_procs(processes, 20)
