"""The node restarts in the middle of runs: everything dies at once, and each run comes to an end.
The hub dies before the eyes of who waits for it.

Needs root and the embedded cluster, as `make e2e` has after `make up`.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import expect

from bootstrap import cgroups, processes
from bootstrap.paths import here
from tests.e2e.platform import HUB_URL, NAMESPACE, Kubectl, runs_are_served, wait_until
from tests.e2e.test_execution import ENDED, Caller, alice  # noqa: F401 (a fixture)

pytestmark = pytest.mark.alone

ENDS = {"succeeded", "failed", "lost"}


def kill_the_node() -> None:
    """SIGKILL for all that `up` has started and for all that runs in pods, as a loss of power.

    What starts something anew goes first, so that nothing outlives this.
    """
    ours = {
        identity: mark
        for identity, mark in processes.marked().items()
        if mark.checkout == str(here().checkout)
    }
    masters = ("kubelet", "containerd")
    first = [identity for identity, mark in ours.items() if mark.part in masters]
    assert {ours[identity].part for identity in first} == set(masters)
    for identity in [*first, *cgroups.members(), *ours]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(identity.pid, signal.SIGKILL)


def bootstrap(*verb: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bootstrap", *verb],
        cwd=here().checkout,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def told(call: Caller, path: str) -> Any:
    """What the service says, or None while it, or what is on the way to it, starts."""
    try:
        answer = call("GET", path)
        return answer.json() if answer.is_success else None
    except (httpx.HTTPError, ValueError):
        return None


def workloads(kubectl: Kubectl) -> list[str]:
    """Deployments and StatefulSets with a pod that is not ready."""
    found = kubectl.json("get", "deployments,statefulsets", "--all-namespaces")["items"]
    return [
        item["metadata"]["name"]
        for item in found
        if item["status"].get("readyReplicas", 0) < item["spec"]["replicas"]
    ]


def folder_of(kubectl: Kubectl, claim: str) -> Path:
    """Where a claim's files are on this machine."""
    name = kubectl.json("-n", NAMESPACE, "get", "pvc", claim)["spec"]["volumeName"]
    return Path(kubectl.json("get", "pv", name)["spec"]["hostPath"]["path"])


def test_P8_V1_a_restart_of_the_node_ends_every_run_and_the_next_one_succeeds(
    alice,  # noqa: F811
    kubectl: Kubectl,
):
    before = alice.call.start("sum-of-years")
    assert alice.call.until(before, ENDED)["status"] == "succeeded"
    deep = alice.call.start("long")
    alice.call.until_a_cell_is_done(deep)
    fresh = [alice.call.start("slow") for _ in range(2)]

    kill_the_node()
    # What a boot takes away: mounts, the pods' networks, device, rules, and /run. Data stays.
    bootstrap("down")
    bootstrap("up", "--only-cluster")

    wait_until("the service answers again", runs_are_served, 150)
    ends = {}
    for run_id in (deep, *fresh):

        def ended(run_id: str = run_id) -> Any:
            run = told(alice.call, f"/runs/{run_id}")
            return run if run and run["status"] in ENDED else None

        ends[run_id] = wait_until(f"run {run_id} has ended", ended, 120)
    assert {run["status"] for run in ends.values()} <= ENDS, ends
    assert ends[deep]["status"] in ("failed", "lost"), ends[deep]
    assert (told(alice.call, f"/runs/{before}") or {})["status"] == "succeeded"
    wait_until("every part is ready", lambda: not workloads(kubectl), 120)
    after = alice.call.start("sum-of-years")
    assert alice.call.until(after, ENDED, 120)["status"] == "succeeded"
    home = folder_of(kubectl, "claim-alice")
    for path, text in alice.originals.items():
        assert (home / path).read_text() == text, f"{path} was changed"
    # Whatever became of her server: the tests that follow begin with none.
    alice.person.stop_server()


@contextlib.contextmanager
def no_hub(kubectl: Kubectl) -> Iterator[None]:
    """As while its pod is replaced, for as long as a test likes."""
    scale = ("-n", NAMESPACE, "scale", "deployment/hub")
    kubectl(*scale, "--replicas=0")
    try:
        kubectl("-n", NAMESPACE, "wait", "--for=delete", "pod", "-l", "component=hub")
        yield
    finally:
        kubectl(*scale, "--replicas=1")


def test_a_start_that_the_hub_forgot_is_told_to_who_watches_it(person, kubectl, artifacts):
    """Hub and server go while somebody waits for the lab, and somebody else comes while there is no
    hub: both pages come back without them."""
    carol = person("carol").log_in()
    carol.page.goto(f"/hub/spawn/{carol.name}")
    carol.page.locator("#spawn_form [type=submit]").click()
    wait_until("the pod is there", lambda: kubectl.pod(carol.pod))
    with no_hub(kubectl):
        kubectl("-n", NAMESPACE, "delete", "pod", carol.pod, "--force", "--grace-period=0")
        without = person("carol")
        without.page.goto("/hub/home")
        expect(without.page.get_by_text("This page tries again by itself")).to_be_visible()
        without.page.screenshot(path=artifacts / "no-hub.png")
    # Or it was on its way to the lab already, and the hub says that the server is down.
    told = carol.page.locator("#start").or_(carol.page.get_by_role("link", name="from the hub"))
    expect(told.or_(carol.page.locator("#jp-main-dock-panel"))).to_be_visible(timeout=120_000)
    log_in = without.page.locator("a.btn-jupyter[href*='oauth_login']")
    expect(log_in.or_(without.page.locator("#username"))).to_be_visible()
    carol.start_server()
    carol.stop_server()


TRAINING = """
import pathlib, time, mlflow
mlflow.set_experiment("e2e-no-hub")
step = 0
with mlflow.start_run():
    while not pathlib.Path("e2e-enough").exists():
        mlflow.log_metric("loss", 1 / (step + 1), step=step)
        pathlib.Path("e2e-began").touch()
        step += 1
        time.sleep(0.5)
print("logged", step)
"""


def test_T13_saving_waits_for_a_hub_that_restarts_and_training_goes_on(person, kubectl):
    """The save has a token that the server has not seen, as each is after five minutes; what MLflow
    heard of the training's is older than the ten seconds after which it asks the hub again."""
    bob = person("bob").log_in().start_server()
    token = bob.hub("POST", "users/bob/tokens")["body"]["token"]

    def save() -> int:
        address = f"{HUB_URL}/user/bob/api/contents/e2e-no-hub.txt"
        body = {"type": "file", "format": "text", "content": "kept"}
        headers = {"Authorization": f"token {token}"}
        with httpx.Client(trust_env=False, timeout=90) as client:
            return client.put(address, json=body, headers=headers).status_code

    def began() -> bool:
        return bool(kubectl.exec(bob.pod, "sh", "-c", "ls e2e-began || true"))

    with ThreadPoolExecutor() as pool:
        training = pool.submit(kubectl.exec, bob.pod, "python3", "-c", TRAINING)
        wait_until("the training logs", began, 90)
        with no_hub(kubectl):
            time.sleep(10)
            saved = pool.submit(save)
            time.sleep(5)
            assert not training.done(), training.result()
            assert not saved.done(), f"HTTP {saved.result()}"
            kubectl.exec(bob.pod, "touch", "e2e-enough")
            assert int(training.result(60).split()[-1]) > 10
        assert saved.result(120) == 201
    assert kubectl.exec(bob.pod, "cat", "e2e-no-hub.txt") == "kept"
    kubectl.exec(bob.pod, "rm", "e2e-no-hub.txt", "e2e-began", "e2e-enough")
    bob.stop_server()
