"""Rows V: the data-science demo, whole, by two people at real browsers."""

import itertools
import json
import subprocess
import time
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect

from tests.e2e.platform import HUB_URL, NAMESPACE, WRITER, Kubectl, Person, wait_until
from tests.killing import kill_pod

OUTPUT = "sample-output.ipynb"
WHEEL = "tidy_e2e-1.0-py3-none-any.whl"
MAKE_WHEEL = f"""
import zipfile
with zipfile.ZipFile("/home/jovyan/{WHEEL}", "w") as wheel:
    info = "tidy_e2e-1.0.dist-info"
    files = dict([
        ("tidy_e2e.py", "ANSWER = 42"),
        (info + "/METADATA", "Metadata-Version: 2.1\\nName: tidy-e2e\\nVersion: 1.0"),
        (info + "/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any"),
    ])
    files[info + "/RECORD"] = "\\n".join(name + ",," for name in [*files, info + "/RECORD"])
    for name, text in files.items():
        wheel.writestr(name, text + "\\n")
"""
"""A wheel of the smallest kind, made in the pod, so that no index is needed."""


@pytest.fixture
def alice(person):
    return person("alice").log_in().start_server()


@pytest.fixture
def bob(person):
    return person("bob").log_in().start_server()


def test_T5_the_form_offers_the_profiles_of_the_stack(person, artifacts: Path):
    bob = person("bob").log_in()
    if bob.hub("GET", "users/bob")["body"]["servers"]:
        bob.stop_server()
    bob.page.goto("/hub/spawn/bob")
    form = bob.page.locator("#spawn_form")
    expect(form).to_contain_text("Standard (CPU)")
    expect(form).to_contain_text("Small (CPU)")
    expect(form.locator("input[type=radio]:checked")).to_have_count(1)
    bob.page.screenshot(path=artifacts / "spawn-form.png")
    form.get_by_text("Small (CPU)").click()
    bob.start_server(at="form")
    assert bob.hub("GET", "users/bob")["body"]["servers"][""]["ready"]


def test_V2_two_people_have_two_pods_and_two_volumes_of_10Gi(alice, bob, kubectl: Kubectl):
    for someone in (alice, bob):
        spec = kubectl.pod(someone.pod)["spec"]
        claims = [
            v["persistentVolumeClaim"]["claimName"]
            for v in spec["volumes"]
            if "persistentVolumeClaim" in v
        ]
        # Beside the shared ones, which everybody mounts.
        own = [name for name in claims if name.startswith("claim-")]
        assert own == [f"claim-{someone.name}"]
        claim = kubectl.json("-n", NAMESPACE, "get", "pvc", own[0])
        assert claim["status"]["phase"] == "Bound"
        assert claim["spec"]["resources"]["requests"]["storage"] == "10Gi"
        volume = kubectl.json("get", "pv", claim["spec"]["volumeName"])
        assert volume["spec"]["persistentVolumeReclaimPolicy"] == "Retain"


def test_V2_nobody_sees_another_persons_files_or_server(alice, bob, kubectl: Kubectl):
    alice.write("secret-plan.txt", "only mine")
    assert "secret-plan.txt" not in kubectl.exec(bob.pod, "ls", "/home/jovyan")
    assert bob.page.goto("/user/alice/lab").status in (403, 404)
    address = kubectl.pod(alice.pod)["status"]["podIP"]
    probe = f"import socket; socket.create_connection(('{address}', 8888), timeout=5)"
    refused = kubectl.exec(
        bob.pod,
        "python3",
        "-c",
        f"""
try:
    {probe}
    print("reached")
except OSError as error:
    print("refused", error)
""",
    )
    assert refused.startswith("refused")
    # The same probe from where it is allowed: a check that cannot fail is none.
    hub_pod = kubectl("-n", NAMESPACE, "get", "pods", "-l", "component=hub", "-o", "name").strip()
    kubectl("-n", NAMESPACE, "exec", hub_pod, "--", "python3", "-c", probe)


def test_V3_work_survives_a_killed_pod_and_a_stop_and_start(alice, kubectl: Kubectl):
    mark = f"written at {time.time()}"
    alice.write("work.txt", mark)
    kubectl("-n", NAMESPACE, "delete", "pod", alice.pod, "--grace-period=0", "--force")
    wait_until("the pod is gone", lambda: kubectl.pod(alice.pod) is None, 60)
    wait_until(
        "the hub knows that the server is gone",
        lambda: not alice.hub("GET", "users/alice")["body"]["servers"],
        120,
    )
    alice.start_server()
    assert alice.read("work.txt") == mark

    alice.stop_server()
    alice.start_server()
    assert alice.read("work.txt") == mark


def again_or_over(someone: Person, kubectl: Kubectl) -> bool:
    """Kubernetes starts a killed container again, unless the hub has seen its end before."""
    if (pod := kubectl.pod(someone.pod)) is None:
        return not someone.hub("GET", f"users/{someone.name}")["body"]["servers"]
    (status,) = pod["status"]["containerStatuses"]
    if not status["restartCount"]:
        return False
    # Its container is ready from its start on, before anything in it listens.
    try:
        return httpx.get(f"{HUB_URL}/user/{someone.name}/api", trust_env=False).is_success
    except httpx.HTTPError:  # the proxy asks the hub for its page of errors
        return False


def test_V3_T13_every_file_outlives_kills_of_hub_and_pod_under_load(alice, kubectl: Kubectl):
    folder = f"load-{time.time_ns()}"
    write = ("python3", "-u", "-c", WRITER, folder)
    command = ["kubectl", "-n", NAMESPACE, "exec", alice.pod, "--", *write]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout
        kept = list(itertools.islice(writer.stdout, 20))
        hub = kubectl.json("-n", NAMESPACE, "get", "pods", "-l", "component=hub")["items"][0]
        kill_pod(hub["metadata"]["uid"])
        kept += itertools.islice(writer.stdout, 20)
        assert len(kept) == 40, "a killed hub ended somebody's work"
        kubectl("-n", NAMESPACE, "rollout", "status", "deploy/hub", "--timeout=110s")
        kill_pod(kubectl.pod(alice.pod)["metadata"]["uid"])
        kept += [line for line in writer.stdout if line.endswith("\n")]
    wait_until("the server runs again or has ended", lambda: again_or_over(alice, kubectl), 120)
    # The lab that is open asks before it lets anybody leave, since it lost its server.
    alice.page.goto("about:blank")
    alice.start_server()
    there = kubectl.exec(alice.pod, "sh", "-c", f"sha256sum {folder}/*").splitlines()
    lost = {line.strip() for line in kept} - set(there)
    assert not lost, f"{len(lost)} of {len(kept)} files"
    kubectl.exec(alice.pod, "rm", "-r", folder)


def test_V5_the_lab_has_a_terminal_and_git(alice, kubectl: Kubectl, artifacts: Path):
    page = alice.page
    page.goto("/user/alice/lab?reset")
    page.get_by_role("menuitem", name="File", exact=True).click()
    page.get_by_text("New", exact=True).first.hover()
    page.locator("[data-command='terminal:create-new']").last.click()
    expect(page.locator(".jp-Terminal .xterm-screen").first).to_be_visible()
    page.locator(".jp-Terminal .xterm-helper-textarea").first.focus()
    page.keyboard.type(
        "git init -q repo && git -C repo status --branch > git.txt; id -u >> git.txt\n"
    )
    wait_until(
        "the terminal ran git as uid 1000",
        lambda: "1000" in kubectl.exec(alice.pod, "sh", "-c", "cat git.txt 2>/dev/null || true"),
    )
    page.screenshot(path=artifacts / "terminal.png")


def test_V6_both_sample_notebooks_run_in_a_persons_pod(alice, kubectl: Kubectl):
    listed = kubectl.exec(alice.pod, "sh", "-c", "ls /home/jovyan/examples/*.ipynb").split()
    samples = [path for path in listed if "knn" in path or "revenue" in path]
    assert len(samples) == 2, listed
    for path in samples:
        # The notebooks assert their own results; papermill exits non-zero when one does not hold.
        kubectl.exec(alice.pod, "papermill", "--cwd", "examples", path, OUTPUT, timeout=600)
        assert (
            json.loads(kubectl.exec(alice.pod, "cat", OUTPUT))["metadata"]["papermill"]["exception"]
            is None
        )


def test_V6_a_person_opens_a_sample_and_runs_it_all(alice, kubectl: Kubectl, artifacts: Path):
    name = next(n for n in kubectl.exec(alice.pod, "ls", "examples").split() if "knn" in n)
    page = alice.page
    page.goto(f"/user/alice/lab/tree/examples/{name}?reset")
    expect(page.locator(".jp-Notebook")).to_be_visible()
    expect(page.get_by_text("Python 3 (ipykernel) | Idle")).to_be_visible(timeout=90_000)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.locator("[data-command='runmenu:run-all']").click()
    expect(page.locator(".jp-OutputArea-output img").first).to_be_visible(timeout=180_000)
    expect(page.get_by_text("Python 3 (ipykernel) | Idle")).to_be_visible(timeout=180_000)
    page.locator(".jp-OutputArea-output img").last.scroll_into_view_if_needed()
    page.screenshot(path=artifacts / "lab.png")
    assert (
        page.locator(".jp-RenderedText[data-mime-type='application/vnd.jupyter.stderr']").count()
        == 0
    )


def test_V7_seeding_again_never_touches_a_persons_file(alice, kubectl: Kubectl):
    name = next(n for n in kubectl.exec(alice.pod, "ls", "examples").split() if "revenue" in n)
    alice.write(f"examples/{name}", "mine now")
    deleted = next(n for n in kubectl.exec(alice.pod, "ls", "examples").split() if "knn" in n)
    kubectl.exec(alice.pod, "mv", f"examples/{deleted}", "/home/jovyan/kept-elsewhere.ipynb")
    alice.stop_server()
    alice.start_server()
    try:
        assert kubectl.exec(alice.pod, "cat", f"examples/{name}") == "mine now"
        assert deleted not in kubectl.exec(alice.pod, "ls", "examples")
    finally:  # the next test finds the examples as a new person would
        kubectl.exec(
            alice.pod, "sh", "-c", "rm -rf examples .local/share/mlhub kept-elsewhere.ipynb"
        )
        alice.stop_server()
    alice.start_server()
    assert {name, deleted} <= set(kubectl.exec(alice.pod, "ls", "examples").split())


def test_V8_the_pod_carries_the_limit_and_the_guarantee(alice, kubectl: Kubectl):
    resources = kubectl.pod(alice.pod)["spec"]["containers"][0]["resources"]
    assert set(resources["limits"]) >= {"cpu", "memory"}
    assert set(resources["requests"]) >= {"cpu", "memory"}
    limit = kubectl.exec(alice.pod, "printenv", "MEM_LIMIT").strip()
    assert resources["limits"]["memory"] == limit


def test_T14_the_pod_of_a_person_has_no_right_in_the_cluster(alice, kubectl: Kubectl):
    spec = kubectl.pod(alice.pod)["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert (
        kubectl.exec(
            alice.pod, "sh", "-c", "ls /var/run/secrets/kubernetes.io 2>/dev/null | wc -l"
        ).strip()
        == "0"
    )
    assert kubectl.exec(alice.pod, "sh", "-c", "command -v sudo | wc -l").strip() == "0"
    context = spec["containers"][0]["securityContext"]
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"]["drop"] == ["ALL"]


def test_J6_T7_the_home_and_what_pip_installed_survive_a_restart_and_scratch_does_not(
    alice, kubectl: Kubectl
):
    scratch = "/home/jovyan/scratch"
    kubectl.exec(alice.pod, "sh", "-c", f"echo passing > {scratch}/passing.txt")
    kubectl.exec(alice.pod, "python3", "-c", MAKE_WHEEL)
    kubectl.exec(alice.pod, "pip", "install", "--user", "--no-index", f"/home/jovyan/{WHEEL}")
    alice.stop_server()
    alice.start_server()
    check = "import tidy_e2e; print(tidy_e2e.ANSWER)"
    assert kubectl.exec(alice.pod, "python3", "-c", check).strip() == "42"
    assert kubectl.exec(alice.pod, "ls", "-A", scratch).strip() == ""
    kubectl.exec(alice.pod, "pip", "uninstall", "-y", "tidy-e2e")
