"""A workspace on the running stack: made by its API, mounted by role, and stopped with the role.

Row M7, on the real Keycloak, Hub and node. What the test makes it takes away at its end, so that
the days of grace of a deleted workspace do not fill anybody's limit.
"""

import json
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from keycloak import KeycloakAdmin

from tests.e2e.platform import (
    HUB_URL,
    KEYCLOAK_URL,
    NAMESPACE,
    Kubectl,
    Person,
    notebook,
    wait_until,
)

RUNS = "/services/execution"
SERVER = "team"
"""A named server, so that nobody's own is in the way."""


class Hand:
    """Somebody's token at the Hub and its services."""

    def __init__(self, someone: Person):
        body = {"expires_in": 900, "note": "workspaces test"}
        url = f"/hub/api/users/{someone.name}/tokens"
        made = someone._fetch("POST", url, body, "/hub/home")
        assert made["status"] == 201, made
        self.name, self.token = someone.name, made["body"]["token"]

    def __call__(self, method: str, path: str, **body: Any) -> requests.Response:
        headers = {"Authorization": f"Bearer {self.token}"}
        return requests.request(
            method, HUB_URL + path, json=body or None, headers=headers, timeout=60
        )

    def workspaces(self, method: str, path: str = "", **body: Any) -> requests.Response:
        return self(method, f"/services/workspaces/workspaces{path}", **body)

    def start(self, workspace: str) -> requests.Response:
        return self(
            "POST",
            f"/hub/api/users/{self.name}/servers/{SERVER}",
            profile="small-cpu",
            workspace=workspace,
        )

    def running(self) -> bool:
        found = self("GET", f"/hub/api/users/{self.name}").json()["servers"]
        return bool(found.get(SERVER, {}).get("ready"))

    def stopped(self) -> bool:
        return SERVER not in self("GET", f"/hub/api/users/{self.name}").json()["servers"]

    def stop(self) -> None:
        self("DELETE", f"/hub/api/users/{self.name}/servers/{SERVER}")
        wait_until("the server has stopped", self.stopped, 120)


@pytest.fixture
def hand(person: Callable[[str], Person]) -> Iterator[Callable[[str], Hand]]:
    """`hand("alice")`: logged in, with a token; their server is gone afterwards."""
    made: list[Hand] = []

    def give(name: str) -> Hand:
        made.append(Hand(person(name).log_in()))
        return made[-1]

    yield give
    for each in made:
        if not each.stopped():
            each.stop()
        each("DELETE", f"/hub/api/users/{each.name}/servers/{SERVER}", remove=True)


@pytest.fixture
def name(kubectl: Kubectl) -> Iterator[str]:
    """Of a workspace that no earlier run has made; nothing is left of it."""
    name = f"e2e-{uuid.uuid4().hex[:8]}"
    yield name
    admin = kubectl.secret("foundation", "keycloak-admin")
    keycloak = KeycloakAdmin(
        server_url=KEYCLOAK_URL, username=admin["username"], password=admin["password"],
        realm_name="mlhub", user_realm_name="master", client_id="admin-cli",
    )  # fmt: skip
    above = keycloak.get_group_by_path("/workspaces")
    for group in keycloak.get_group_children(above["id"]):
        if group["name"].startswith(name):
            keycloak.delete_group(group["id"])
    volume = json.loads(kubectl("-n", NAMESPACE, "get", "pvc", f"workspace-{name}", "-o", "json"))[
        "spec"
    ].get("volumeName")
    kubectl("-n", NAMESPACE, "delete", "pvc", f"workspace-{name}", "--wait=false")
    if volume:
        kubectl("delete", "pv", volume, "--wait=false")


def server_of_bob(kubectl: Kubectl) -> str:
    """Its pod."""
    selector = f"hub.jupyter.org/username=bob,hub.jupyter.org/servername={SERVER}"
    pods = kubectl.json("-n", NAMESPACE, "get", "pods", "-l", selector)["items"]
    (pod,) = [each["metadata"]["name"] for each in pods]
    return str(pod)


def write(kubectl: Kubectl, slug: str) -> bool:
    """Whether Bob's server can write to the workspace, as its user."""
    command = f"date >> ~/workspaces/{slug}/from-bob.txt && echo written"
    said = kubectl.exec(server_of_bob(kubectl), "sh", "-c", f"{{ {command}; }} 2>&1 || true")
    assert "written" in said or "Read-only file system" in said, said
    return "written" in said


def begin_a_run(kubectl: Kubectl, bob: Hand, slug: str) -> str:
    """The path of one that writes to the workspace and goes on for long, once it has begun."""
    path = f"workspaces/{slug}/from-a-run.txt"
    long = notebook(
        "a = 1", f"open('/home/jovyan/{path}', 'w').close()\nimport time; time.sleep(600)"
    )
    save = ("exec", "-i", server_of_bob(kubectl), "--", "sh", "-c", "cat > e2e-long.ipynb")
    kubectl("-n", NAMESPACE, *save, stdin=long)
    asked = {"username": "bob", "notebook_name": "./e2e-long", "profile": "small-cpu"}
    begun = bob("POST", f"{RUNS}/execute", workspace=slug, **asked)
    assert begun.status_code == 202, begun.text
    there = f"test -e {path} && echo yes || true"
    wait_until(
        "the run has written to the workspace",
        lambda: kubectl.exec(server_of_bob(kubectl), "sh", "-c", there),
        150,
    )
    return f"{RUNS}/runs/{begun.json()['run_id']}"


def test_M7_a_workspace_from_the_invitation_to_the_lost_role(
    hand: Callable[[str], Hand], kubectl: Kubectl, name: str
) -> None:
    alice, bob = hand("alice"), hand("bob")
    made = alice.workspaces("POST", name=name, description="of a test")
    assert made.status_code == 201, made.text
    slug = made.json()["id"]
    assert bob.workspaces("GET", f"/{slug}").status_code == 404
    assert bob.start(slug).status_code == 403, "who is no member mounts nothing"

    invited = alice.workspaces("PUT", f"/{slug}/members", user="bob@mlhub.example", role="viewer")
    assert invited.json()["user"] == "bob", invited.text
    refused = alice.workspaces("PUT", f"/{slug}/members", user="mallory", role="viewer")
    assert (refused.status_code, refused.json()["type"]) == (403, "no-access")
    assert bob.workspaces("DELETE", f"/{slug}").status_code == 403

    assert bob.start(slug).status_code in (201, 202), "the invitation counts at once"
    wait_until("Bob's server runs", bob.running, 180)
    assert not write(kubectl, slug), "a viewer reads"
    assert alice.workspaces("PUT", f"/{slug}/members", user="bob", role="editor").ok
    time.sleep(2)
    assert bob.running(), "a stronger role stops nothing"

    bob.stop()
    assert bob.start(slug).status_code in (201, 202)
    wait_until("Bob's server runs again", bob.running, 180)
    assert write(kubectl, slug), "an editor writes"
    note = {"resource_type": "notebook", "resource_path": "reports/churn.ipynb"}
    assert bob.workspaces("POST", f"/{slug}/resources", **note).status_code == 201
    (shared,) = alice.workspaces("GET", f"/{slug}/resources").json()["resources"]
    assert (shared["resource_path"], shared["shared_by"]) == ("reports/churn.ipynb", "bob")

    run = begin_a_run(kubectl, bob, slug)
    assert alice.workspaces("PUT", f"/{slug}/members", user="bob", role="viewer").ok
    wait_until("the server that could write stops with the role", bob.stopped, 120)
    wait_until(
        "so does the run",
        lambda: bob("GET", run).json()["status"] not in ("queued", "running"),
        120,
    )
    ended = bob("GET", run).json()
    assert (ended["status"], ended["reason"]) == ("failed", "role"), ended
    assert f"may only read the workspace {slug}" in ended["message"]
    last = alice.workspaces("DELETE", f"/{slug}/members/alice")
    assert (last.status_code, last.json()["type"]) == (409, "last-owner")
    assert alice.workspaces("DELETE", f"/{slug}").ok
    assert bob.start(slug).status_code == 403, "a deleted workspace is nobody's"
    (mine,) = alice.workspaces("GET", "?deleted=true").json()["workspaces"]
    assert mine["id"] == slug
