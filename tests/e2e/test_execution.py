"""Notebooks run unattended on the real cluster: as their person, beside the original, to an end."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser

from tests.e2e.beyond import server_beyond
from tests.e2e.conftest import seat
from tests.e2e.everyday import INTERNET, WORKED, WORKS, WRITES, WRITTEN, index_of_packages
from tests.e2e.platform import (
    EXECUTION_URL,
    KEYCLOAK_URL,
    NAMESPACE,
    Kubectl,
    Person,
    notebook,
    runs_are_served,
    wait_until,
)

ENDED = {"succeeded", "failed", "cancelled", "lost"}
FOLDER = "e2e-execution"


NOTEBOOKS = {
    "sum-of-years": notebook("year = 1", "import os\nprint('year', year, 'as', os.getuid())"),
    "broken": notebook("a = 1", "print('before')", "{}['absent']", "print('after')"),
    "slow": notebook("a = 1", "import time; time.sleep(15)", "print('at the end')"),
    "long": notebook("a = 1", "import time; time.sleep(120)", "print('at the end')"),
}


RATE = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
from mlhub.execution import settings
from mlhub.execution.store import Store, asks, slots

store, name = Store(settings.load().database_url), "e2e-rate"
if sys.argv[1] == "clear":
    with store.begin() as connection:
        for table in (slots, asks):
            connection.execute(table.delete().where(table.c.user == name))
    sys.exit()
how, number, at = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])

def start(n):
    now = at + number / 1000 + n / 1e6  # of nobody else's
    taken = store.take_slot(name, 5, now) == 0
    if taken and how == "refused":
        store.give_back_slot(name, now)
    return taken

time.sleep(max(0, at - time.time()))
with ThreadPoolExecutor(6) as pool:
    print(sum(pool.map(start, range(24))))
"""
"""What a replica does when somebody starts runs, at a moment that others are told as well; with
`refused`, runs for which there is no room."""


@dataclass
class Caller:
    """Somebody with a token."""

    token: str

    def __call__(self, method: str, path: str, body: Any = None, **more: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx.request(
            method, EXECUTION_URL + path, json=body, headers=headers, timeout=120, **more
        )

    def start(self, name: str, **more: Any) -> str:
        body = {"username": "alice", "notebook_name": f"./{FOLDER}/{name}", "profile": "small-cpu"}
        until = time.monotonic() + 75
        # A run that ended a moment ago counts a moment longer, and a start for a minute.
        while (answer := self("POST", "/execute", body | more)).status_code == 429:
            assert time.monotonic() < until, answer.text
            time.sleep(2)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["run_id"])

    def until(self, run_id: str, statuses: set[str], seconds: float = 150) -> Any:
        def look() -> Any:
            run = self("GET", f"/runs/{run_id}").json()
            return run if run["status"] in statuses else None

        return wait_until(f"run {run_id} is one of {statuses}", look, seconds)

    def until_a_cell_is_done(self, run_id: str) -> None:
        self.until(run_id, {"running"})

        def look() -> Any:
            return (self("GET", f"/runs/{run_id}").json()["cells"] or {}).get("done")

        wait_until("the first cell has ended", look)


@dataclass
class Alice:
    person: Person
    call: Caller
    originals: dict[str, str]

    def home(self, path: str) -> Any:
        return json.loads(self.person.read(path))


@pytest.fixture(scope="module")
def alice(browser: Browser, kubectl: Kubectl) -> Iterator[Alice]:
    """Alice at her server, with notebooks of her own and a token."""
    person = seat(browser, kubectl, "alice").log_in().start_server()
    person.server("PUT", f"contents/{FOLDER}", {"type": "directory"})
    originals = {}
    for name, text in NOTEBOOKS.items():
        path = f"{FOLDER}/{name}.ipynb"
        person.write(path, text)
        originals[path] = person.read(path)
    yield Alice(person, Caller(token(person)), originals)
    person.context.close()


def token(person: Person) -> str:
    made = person.hub("POST", f"users/{person.name}/tokens")
    assert made["status"] in (200, 201), made
    return str(made["body"]["token"])


def text_of(notebook: Any) -> str:
    return "".join(
        "".join(output.get("text", ""))
        for cell in notebook["cells"]
        for output in cell.get("outputs", ())
    )


def test_P1_P2_P5_P10_a_notebook_by_its_name_runs_as_its_person_and_lands_beside_the_original(
    alice, kubectl: Kubectl
):
    command = ("python", "-m", "notebooks.cli", "--json", "runs", "start", "sum-of-years")
    told = kubectl.exec(alice.person.pod, *command, "-p", "year=2026", "--profile", "small-cpu")
    run = json.loads(told)
    assert run["status"] == "succeeded", run
    assert run["input_notebook"] == f"{FOLDER}/sum-of-years.ipynb"
    assert run["output_notebook"].startswith(f"{FOLDER}/sum-of-years_output_")
    assert "year 2026 as 1000" in text_of(alice.home(run["output_notebook"]))
    log = alice.call("GET", f"/runs/{run['run_id']}/log")
    assert "year 2026 as 1000" in log.text
    for path, text in alice.originals.items():
        assert alice.person.read(path) == text, f"{path} was changed"
    assert in_mlflow(kubectl, alice, run["mlflow_run_id"]) == "FINISHED"


def test_T14_P5_a_run_works_as_ever_and_cannot_write_to_its_image(alice, tmp_path: Path):
    mirror = f"http://{INTERNET}"
    plot = "import matplotlib.pyplot as plt; plt.plot([1, 3, 2]); plt.show()"
    writes, works = WRITES.format(folders=[*WRITTEN]), WORKS.format(mirror=mirror)
    alice.person.write(f"{FOLDER}/everyday.ipynb", notebook("a = 1", writes, works, plot))
    with server_beyond(INTERNET, "inet", index_of_packages(tmp_path)):
        run = alice.call.until(alice.call.start("everyday"), ENDED, 180)
    assert run["status"] == "succeeded", run
    cells = alice.home(run["output_notebook"])["cells"]
    *printed, shown = [cell["outputs"] for cell in cells if cell["outputs"]]
    told = [
        json.loads("".join(out["text"]))
        for outputs in printed
        for out in outputs
        if out.get("name") == "stdout"
    ]
    assert told == [WRITTEN, WORKED]
    assert any("image/png" in out.get("data", {}) for out in shown)


def in_mlflow(kubectl: Kubectl, alice: Alice, mlflow_run_id: str) -> str:
    """The status there, as alice's own server sees it."""
    ask = f"import mlflow; print(mlflow.MlflowClient().get_run({mlflow_run_id!r}).info.status)"
    return kubectl.exec(alice.person.pod, "python", "-c", ask).split()[-1]


def test_P6_P8_errors_are_structured_cancel_ends_and_a_restart_in_between_loses_nothing(
    alice, kubectl: Kubectl
):
    broken = alice.call.start("broken")
    slow = alice.call.start("slow")
    alice.call.until(slow, {"running"})
    kubectl("-n", NAMESPACE, "delete", "pod", "-l", "app.kubernetes.io/name=execution", "--wait")
    wait_until("the service answers again", runs_are_served, 150)

    run = alice.call.until(broken, ENDED)
    assert (run["status"], run["reason"]) == ("failed", "cell-error")
    assert (run["error"]["cell"], run["error"]["ename"]) == (3, "KeyError")
    partial = alice.home(run["output_notebook"])
    assert "before" in text_of(partial)
    assert "after" not in text_of(partial)

    cancelled = alice.call.start("slow")
    alice.call.until_a_cell_is_done(cancelled)
    assert alice.call("POST", f"/runs/{cancelled}/cancel").status_code == 202
    assert alice.call.until(cancelled, ENDED)["status"] == "cancelled"
    assert "cell 2 of 3" in alice.call("GET", f"/runs/{cancelled}/log").text

    def kept() -> Any:
        left = alice.call("GET", f"/runs/{cancelled}/artifacts").json()["artifacts"]
        return [each["path"] for each in left if each["kind"] == "partial-notebook"]

    (partial_path,) = wait_until("what the cancelled run had done is found", kept, 120)
    assert alice.home(partial_path)["metadata"]["papermill"]["mlhub_run"] == cancelled

    run = alice.call.until(slow, ENDED)
    assert run["status"] == "succeeded", run
    assert "at the end" in text_of(alice.home(run["output_notebook"]))


def test_P10_a_schedules_cronjob_runs_it_as_its_person_and_goes_with_it(alice, kubectl: Kubectl):
    # The firing is one of the five starts of a minute, which the tests before may have used up.
    starts = [run["timestamp"] for run in alice.call("GET", "/runs").json()["runs"]]
    last = max(map(datetime.fromisoformat, starts))
    time.sleep(max(0.0, 62 - (datetime.now(UTC) - last).total_seconds()))
    for left in alice.call("GET", "/schedules").json()["schedules"]:
        if left["name"] == "e2e":  # of a test that was killed
            assert alice.call("DELETE", f"/schedules/{left['schedule_id']}").status_code == 204
    now = int(time.time() // 60)
    moment = time.gmtime(now * 60)
    body = {
        "username": "alice",
        "name": "e2e",
        "notebook_name": f"./{FOLDER}/sum-of-years",
        "parameters": {"year": 1999},
        "profile": "small-cpu",
        # This very minute and no other today: the clock itself has passed it by.
        "cron": f"{moment.tm_min} {moment.tm_hour} * * *",
    }
    while "is being deleted" in (made := alice.call("POST", "/schedules", body)).text:
        time.sleep(2)
    assert made.status_code == 201, made.text
    path = f"/schedules/{made.json()['schedule_id']}"
    name = f"schedule-{made.json()['schedule_id']}"
    try:
        # As the CronJob controller makes it, name and all.
        job = ("create", "job", f"{name}-{now}", f"--from=cronjob/{name}")
        kubectl("-n", NAMESPACE, *job)
        last = wait_until("the firing is told", lambda: alice.call("GET", path).json()["last"], 120)
        assert last[0]["outcome"] == "started", last
        run = alice.call.until(last[0]["run_id"], ENDED)
        assert run["status"] == "succeeded", run
        assert "year 1999 as 1000" in text_of(alice.home(run["output_notebook"]))
    finally:
        assert alice.call("DELETE", path).status_code == 204
    wait_until("the CronJob is gone", lambda: name not in kubectl("-n", NAMESPACE, "get", "cj"))
    wait_until("its Secret is gone", lambda: name not in kubectl("-n", NAMESPACE, "get", "secrets"))


def test_J3_P8_a_pod_that_is_killed_hard_ends_its_run_here_and_in_mlflow(alice, kubectl: Kubectl):
    run_id = alice.call.start("slow")
    alice.call.until_a_cell_is_done(run_id)
    kill = ("delete", "pod", "-l", f"mlhub.io/run={run_id}", "--force", "--grace-period=0")
    kubectl("-n", NAMESPACE, *kill)
    assert alice.call.until(run_id, ENDED)["status"] in ("lost", "failed")

    def traced() -> Any:
        run = alice.call("GET", f"/runs/{run_id}").json()
        return run["mlflow_run_id"]

    mlflow_run_id = wait_until("its MLflow run is known", traced, 120)
    assert in_mlflow(kubectl, alice, mlflow_run_id) in ("FAILED", "KILLED")


def test_P3_P7_another_is_refused_and_the_sixth_in_a_minute_waits(alice, browser, kubectl):
    bob = seat(browser, kubectl, "bob").log_in()
    call = Caller(token(bob))
    body = {"username": "alice", "notebook_name": f"./{FOLDER}/slow"}
    assert call("POST", "/execute", body).status_code == 403
    run_id = alice.call("GET", "/runs").json()["runs"][0]["run_id"]
    assert call("GET", f"/runs/{run_id}").status_code == 404
    assert httpx.post(f"{EXECUTION_URL}/execute", json=body, timeout=60).status_code == 401
    # What is not there takes its slot, and ends by itself. What the quota refuses takes none, and
    # is asked for thirty times at most.
    missing = {"username": "alice", "notebook_name": "./none", "profile": "small-cpu"}
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: alice.call("POST", "/execute", missing), range(36)))
    refused = [answer.json()["type"] for answer in answers if answer.status_code == 429]
    assert "rate" in refused, [answer.text for answer in answers]
    assert sum(answer.status_code == 202 for answer in answers) <= 5
    bob.context.close()


@pytest.mark.parametrize(("how", "most"), [("started", 5), ("refused", 30)])
def test_P7_the_rate_is_one_for_all_processes_that_share_the_platforms_database(
    kubectl: Kubectl, how: str, most: int
):
    def replica(*args: str) -> int:
        pod = ("-n", NAMESPACE, "exec", "deploy/execution", "--")
        return int(kubectl(*pod, "python3", "-c", RATE, *args) or 0)

    replica("clear")
    try:
        together = str(time.time() + 15)
        with ThreadPoolExecutor(3) as pool:
            taken = list(pool.map(lambda n: replica(how, str(n), together), range(3)))
        # Of the refused, a few find all five slots with others for a moment.
        assert sum(taken) == most if how == "started" else 5 < sum(taken) <= most, taken
    finally:
        replica("clear")


def test_P3_a_service_runs_for_its_people_with_keycloaks_credentials(alice, kubectl: Kubectl):
    given = kubectl.secret(NAMESPACE, "execution-client-nightly-reports")
    answer = httpx.post(
        f"{KEYCLOAK_URL}/realms/mlhub/protocol/openid-connect/token",
        data={"grant_type": "client_credentials"},
        auth=(given["client_id"], given["client_secret"]),
        timeout=60,
    )
    assert answer.status_code == 200, answer.text
    call = Caller(answer.json()["access_token"])
    assert call("GET", "/runs?username=alice").status_code == 200
    body = {"username": "bob", "notebook_name": "./none"}
    assert call("POST", "/execute", body).status_code == 403
