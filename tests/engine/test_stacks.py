"""The three cluster stacks, applied by the real CLI with the real program; `local` is in tests/e2e.

`dev` builds what `staging` and `prod` promote, so they come in that order. One stack at a time is
on the cluster, and each is walked through once: preview, `up`, `up` again, refresh, drift, destroy.
"""

import base64
import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.conftest import Server
from tests.engine.environment import Environment, environment, kubectl

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]
"""The first stack builds images, beside the browser's tests."""

STACKS = ["dev", "staging", "prod"]
KILLED = "prod"
"""The stack whose first `up` is killed in the middle."""


@pytest.fixture(scope="module", params=STACKS)
def applied(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    bin_dir: Path,
    server: Server,
) -> Iterator[Environment]:
    name = request.param
    folder = tmp_path_factory.mktemp("stacks") / name
    with environment(folder, bin_dir, name, server.url, server.admin()) as made:
        preview(made)
        if name == KILLED:
            kill_in_the_middle(made)
        made.stack.up("--refresh=false")
        yield made


def preview(made: Environment) -> None:
    """Everything is to be made, and nothing is; what a person gave is nowhere in it."""
    text = made.stack("preview", "--json")
    summary = json.loads(text[text.index("{") :])["changeSummary"]
    assert set(summary) == {"create"}, summary
    assert summary["create"] > 60
    assert not made.harbor.robots
    assert not made.keycloak.get_groups()
    for key, value in made.given.items():
        assert value not in text, key


def kill_in_the_middle(made: Environment) -> None:
    """Ends the CLI once Harbor's project is there and the release is not."""
    process = made.stack.start("up", "--yes", "--skip-preview", "--refresh=false")
    deadline = time.monotonic() + 120
    while not made.keycloak.get_groups():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, made.stack.kill(process)
        time.sleep(0.5)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    # The official plug-ins of this version do not watch their parent (docs/engine.md).
    made.stack.end_processes()
    made.stack("cancel", "--yes")


def resources(made: Environment, kind: str) -> list[str]:
    return [r["urn"] for r in made.stack.resources() if r["type"] == kind]


def test_a_second_up_changes_nothing(applied: Environment) -> None:
    assert "unchanged" in applied.stack.up("--expect-no-changes")


def test_T12_a_verification_follows_an_up_and_its_failure_breaks_none(
    applied: Environment,
) -> None:
    of_ours = ("-n", applied.namespace, "-l", "app.kubernetes.io/name=verify", "-o", "json")
    deadline = time.monotonic() + 180
    while True:
        (job,) = json.loads(kubectl("get", "jobs", *of_ours))["items"]
        true = {c["type"] for c in job["status"].get("conditions", []) if c["status"] == "True"}
        if true & {"Complete", "Failed"}:
            break
        assert time.monotonic() < deadline, job["status"]
        time.sleep(1)
    log = kubectl("-n", applied.namespace, "logs", f"job/{job['metadata']['name']}")
    assert "Failed" in true, log
    outcomes = {line[21:].partition(":")[0]: line.split()[0] for line in log.splitlines()[:-1]}
    # By the Service and not the ingress, which is not here, as if it were.
    assert outcomes["log-in"] == outcomes["the person is removed"] == "ok", log
    assert outcomes["profiles are offered"] == "failed", log
    assert "unchanged" in applied.stack.up("--expect-no-changes")


def test_everything_is_made_once(applied: Environment) -> None:
    urns = [r["urn"] for r in applied.stack.resources()]
    assert len(urns) == len(set(urns))
    assert len(applied.harbor.projects) <= 1
    robots = [robot["name"] for robot in applied.harbor.robots.values()]
    assert len(robots) == len(set(robots))
    clients = [c["clientId"] for c in applied.keycloak.get_clients()]
    assert clients.count("jupyterhub") == 1


def test_T4_the_release_comes_from_the_chart_repository(applied: Environment) -> None:
    deployed = json.loads(
        kubectl("-n", applied.namespace, "get", "deployments", "-o", "json")
    )["items"]  # fmt: skip
    ready = {d["metadata"]["name"]: d["status"].get("readyReplicas", 0) for d in deployed}
    assert ready["hub"] == ready["proxy"] == 1, ready


def test_J7_what_runs_is_what_dev_built_by_digest(applied: Environment) -> None:
    pods = json.loads(kubectl("-n", applied.namespace, "get", "pods", "-o", "json"))["items"]
    images = {c["image"] for pod in pods for c in pod["spec"]["containers"]}
    assert images
    for image in images:
        assert image.startswith("localhost:5000/engine/")
        assert "@sha256:" in image


def test_T2_no_secret_is_in_plain_state(applied: Environment) -> None:
    state = applied.stack.export()
    stored = "".join(p.read_text() for p in (applied.stack.folder / "state").rglob("*.json"))
    values = applied.given | {
        key: base64.b64decode(value).decode() for key, value in applied.generated().items()
    }
    assert len(values) > 10
    for key, value in values.items():
        if key.rpartition("/")[2] in ("username", "client_id", "access_key_id"):
            continue
        for form in (value, base64.b64encode(value.encode()).decode(), json.dumps(value)[1:-1]):
            assert form not in state, key
            assert form not in stored, key


def test_T1_drift_is_put_right_by_the_next_up(applied: Environment) -> None:
    client = applied.keycloak.get_client_id("jupyterhub")
    there = applied.keycloak.get_client(client)
    strange = there | {"redirectUris": ["*"], "directAccessGrantsEnabled": True}
    applied.keycloak.update_client(client, strange)
    kubectl("-n", applied.namespace, "patch", "resourcequota", "namespace", "--patch",
            json.dumps({"spec": {"hard": {"pods": "9999"}}}))  # fmt: skip

    applied.stack.up()

    put_right = applied.keycloak.get_client(client)
    assert put_right["redirectUris"] == there["redirectUris"]
    assert not put_right["directAccessGrantsEnabled"]
    quota = kubectl("-n", applied.namespace, "get", "resourcequota", "namespace", "-o",
                    "jsonpath={.spec.hard.pods}")  # fmt: skip
    assert quota != "9999"


def test_a_refresh_leaves_nothing_to_do(applied: Environment) -> None:
    applied.stack("refresh", "--yes", "--skip-preview")
    applied.stack.up("--refresh=false", "--expect-no-changes")


def made_things(made: Environment) -> set[str]:
    """What stands for something outside the state; a component with nothing in it does not."""
    return {
        resource["urn"]
        for resource in made.stack.resources()
        if resource["custom"] and not resource["type"].startswith("pulumi:providers:")
    }


def test_T13_destroy_is_refused_and_nothing_is_gone(applied: Environment) -> None:
    before = made_things(applied)
    said = applied.stack.fails("destroy", "--yes", "--skip-preview")
    assert "protect" in said
    # The Job of a verification holds nothing, and the next `up` makes it anew.
    assert {urn.rpartition("::")[2] for urn in before - made_things(applied)} <= {"verify-after-up"}
    assert kubectl("-n", applied.namespace, "get", "deployment", "hub", "-o", "name")
