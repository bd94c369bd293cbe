"""The applied stack, as the platform engineer meets it."""

import base64
import json
import subprocess
from collections import Counter
from typing import Any

import pytest
from keycloak import KeycloakAdmin

from tests.e2e.platform import KEYCLOAK_URL, NAMESPACE, Kubectl, Secret, wait_until

pytestmark = pytest.mark.alone

CONFIG = ("--config-file", ".mlhub/stacks/Pulumi.local.yaml")
"""The copy that `make up` gives the CLI, so that the tracked stack file stays as it is."""


def pulumi(*args: str, seconds: float = 600) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["pulumi", *args, "--stack", "local", "--non-interactive"],
        check=False,
        capture_output=True,
        text=True,
        timeout=seconds,
    )


def must(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def secrets(kubectl: Kubectl) -> dict[str, Secret]:
    """Every secret value that the stack generated, by where it lives."""
    found = {}
    for namespace, name in [
        ("foundation", "demo-users"),
        ("foundation", "keycloak-admin"),
        ("foundation", "postgres"),
        (NAMESPACE, "jupyterhub-oidc-secret"),
        (NAMESPACE, "mlhub-hub"),
    ]:
        for key, value in kubectl.secret(namespace, name).items():
            if key not in ("username", "client_id"):
                found[f"{namespace}/{name}/{key}"] = value
    assert len(found) >= 10
    return found


def readable(secrets: dict[str, Secret], text: str) -> list[str]:
    """The places of those secrets whose value stands in the text; never the values."""
    return [place for place, value in secrets.items() if value in text]


def test_a_second_up_changes_nothing_and_keeps_every_secret(kubectl: Kubectl, secrets):
    output = must(pulumi("up", "--yes", "--skip-preview", *CONFIG))
    summary = [line.split() for line in output.splitlines() if line.strip().endswith("unchanged")]
    assert summary, output
    for verb in ("created", "updated", "deleted", "replaced"):
        assert not any(line.strip().endswith(f" {verb}") for line in output.splitlines()), output
    for place, value in secrets.items():
        namespace, name, key = place.split("/")
        same = kubectl.secret(namespace, name)[key] == value
        assert same, f"{place} changed"


def kept(kubectl: Kubectl) -> dict[str, str]:
    """What must never be made anew: Secrets, volumes and their claims, by uid."""
    found = kubectl.json("get", "secrets,persistentvolumeclaims,persistentvolumes", "-A")["items"]
    return {
        "/".join((item["kind"], item["metadata"].get("namespace", ""), item["metadata"]["name"])): (
            item["metadata"]["uid"]
        )
        for item in found
        # Helm writes one for each revision of a release, which goes after ten.
        if item.get("type") != "helm.sh/release.v1"
    }


def test_T1_T13_drift_is_put_right_though_the_up_that_began_it_was_killed(kubectl: Kubectl):
    account = kubectl.secret("foundation", "keycloak-admin")
    admin: Any = KeycloakAdmin(
        server_url=KEYCLOAK_URL,
        realm_name="mlhub",
        user_realm_name="master",
        username=account["username"],
        password=account["password"],
    )
    client = admin.get_client_id("jupyterhub")
    there = admin.get_client(client)
    limits = ("-n", NAMESPACE, "get", "resourcequota", "namespace", "-o", "jsonpath={.spec.hard}")
    hard, before = kubectl(*limits), kept(kubectl)
    admin.update_client(client, there | {"redirectUris": ["*"], "directAccessGrantsEnabled": True})
    more = json.dumps({"spec": {"hard": {"pods": "9999"}}})
    kubectl("-n", NAMESPACE, "patch", "resourcequota", "namespace", "--patch", more)
    kubectl("-n", NAMESPACE, "delete", "limitrange", "container-defaults")

    up = subprocess.Popen(
        ["pulumi", "up", "--yes", "--skip-preview", "--stack=local", "--non-interactive", *CONFIG],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until("the up has begun to change things", lambda: kubectl(*limits) == hard, 300)
        assert up.poll() is None, "the up had ended before it was killed"
    finally:
        up.kill()
        up.wait()
    must(pulumi("cancel", "--yes"))
    must(pulumi("up", "--yes", "--skip-preview", *CONFIG))

    put_right = admin.get_client(client)
    assert put_right["redirectUris"] == there["redirectUris"]
    assert not put_right["directAccessGrantsEnabled"]
    assert kubectl(*limits) == hard
    assert kubectl("-n", NAMESPACE, "get", "limitrange", "container-defaults", "-o", "name")
    assert kept(kubectl).items() >= before.items()
    state = json.loads(must(pulumi("stack", "export")))["deployment"]
    urns = Counter(resource["urn"] for resource in state["resources"])
    # Creating may have been interrupted; the engine forgets that when told to (docs/engine.md).
    assert {o["resource"]["urn"] for o in state.get("pending_operations") or []} <= urns.keys()
    assert [urn for urn, times in urns.items() if times > 1] == []
    must(pulumi("refresh", "--yes", "--skip-preview", "--clear-pending-creates", *CONFIG))
    state = json.loads(must(pulumi("stack", "export")))["deployment"]
    assert not state.get("pending_operations")
    must(pulumi("up", "--yes", "--skip-preview", "--refresh=false", "--expect-no-changes", *CONFIG))


def test_V9_no_secret_is_plain_in_the_state_the_preview_or_the_cluster_values(kubectl, secrets):
    seen = {
        "state": must(pulumi("stack", "export")),
        "preview": must(pulumi("preview", "--json", *CONFIG)),
        "outputs": must(pulumi("stack", "output", "--json")),
        "values": json.dumps(_release_values(kubectl)),
    }
    for where, text in seen.items():
        found = readable(secrets, text)
        assert not found, f"in the {where}"


def _release_values(kubectl: Kubectl) -> Any:
    """What the hub pod gets mounted as values, and the ConfigMaps beside it."""
    hub = kubectl.json("-n", NAMESPACE, "get", "secret", "hub")["data"]
    maps = kubectl.json("-n", NAMESPACE, "get", "configmaps")["items"]
    return [base64.b64decode(v).decode() for v in hub.values()], [m.get("data") for m in maps]


def test_V9_no_secret_is_in_a_log(kubectl: Kubectl, secrets):
    for namespace in ("foundation", NAMESPACE):
        for pod in kubectl.json("-n", namespace, "get", "pods")["items"]:
            log = kubectl("-n", namespace, "logs", pod["metadata"]["name"], "--all-containers")
            found = readable(secrets, log)
            assert not found, f"in the log of {pod['metadata']['name']}"


def test_destroy_is_refused_while_data_is_protected():
    answer = pulumi("destroy", "--yes", "--skip-preview", *CONFIG)
    assert answer.returncode != 0
    assert "protect" in answer.stdout + answer.stderr


def test_images_run_by_digest(kubectl: Kubectl):
    for namespace in ("foundation", NAMESPACE):
        for pod in kubectl.json("-n", namespace, "get", "pods")["items"]:
            for container in pod["spec"]["containers"]:
                assert "@sha256:" in container["image"], container["image"]


def test_the_idle_platform_takes_less_than_4_GiB():
    status = json.loads(
        subprocess.run(
            ["python", "-m", "bootstrap", "status", "--json"],
            check=True,
            capture_output=True,
            text=True,
            timeout=120,
        ).stdout
    )
    assert status["memory_bytes"] < 4 * 2**30, status
