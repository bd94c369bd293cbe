"""Volumes on SeaweedFS as pods meet them: their size, their twins, and what a killed part costs."""

import json
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from components.pods import container_security, pod_security
from tests.e2e.platform import NAMESPACE, Kubectl, wait_until

pytestmark = pytest.mark.alone

PIPELINES = "financial-mlops-pytorch"
SHARED = "shared-data-pvc"
RUN = secrets.token_hex(3)
SMALL = f"storage-test-{RUN}"
"""Of this run alone: what another has left there would take of its size."""
DRIVER = "seaweedfs-csi-driver"

WRITER = """
import hashlib, json, os, sys, time
folder, until, kept = sys.argv[1], time.time() + float(sys.argv[2]), {}
os.makedirs(folder, exist_ok=True)
number = failed = 0
while time.time() < until:
    content = os.urandom(200_000)
    path = f"{folder}/{number}"
    try:
        with open(path, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        failed += 1
        time.sleep(0.2)
        continue
    kept[path] = hashlib.sha256(content).hexdigest()
    number += 1
print(json.dumps({"kept": kept, "failed": failed}))
"""
"""Writes until its time is over; tells what was written and acknowledged, by checksum."""

READER = """
import hashlib, json, sys
for path, digest in json.load(sys.stdin).items():
    found = hashlib.sha256(open(path, "rb").read()).hexdigest()
    if found != digest:
        print(path)
"""


def camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.title() for part in rest)


def as_kubernetes(value: Any) -> Any:
    if isinstance(value, dict):
        return {camel(key): as_kubernetes(part) for key, part in value.items()}
    return value


class Room:
    """Pods of one test, and how to run something in them."""

    def __init__(self, kubectl: Kubectl, image: str):
        self.kubectl, self.image = kubectl, image
        self.made: list[tuple[str, str]] = []

    def pod(self, name: str, claims: dict[str, str], namespace: str = NAMESPACE) -> "Pod":
        """A pod that mounts each claim at `/<claim>`; ready when this returns."""
        container = {
            "name": "test",
            "image": self.image,
            "command": ["sleep", "600"],
            "securityContext": as_kubernetes(container_security()),
            "resources": {"limits": {"cpu": "1", "memory": "256Mi"}, "requests": {"cpu": "10m"}},
            "volumeMounts": [{"name": v, "mountPath": f"/{v}"} for v in (*claims, "tmp")],
        }
        spec = {
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "securityContext": as_kubernetes(pod_security()),
            "containers": [container],
            "volumes": [
                {"name": v, "persistentVolumeClaim": {"claimName": claim}}
                for v, claim in claims.items()
            ]
            + [{"name": "tmp", "emptyDir": {}}],
        }
        document = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
        self.kubectl("-n", namespace, "apply", "-f", "-", stdin=json.dumps(document))
        self.made.append((namespace, name))
        self.kubectl(
            "-n", namespace, "wait", "--for=condition=Ready", f"pod/{name}", "--timeout=90s"
        )
        return Pod(self.kubectl, namespace, name)

    def leave(self) -> None:
        for namespace, name in self.made:
            self.kubectl("-n", namespace, "delete", "pod", name, "--ignore-not-found")


class Pod:
    def __init__(self, kubectl: Kubectl, namespace: str, name: str):
        self.kubectl, self.place = kubectl, ("-n", namespace, "exec", "-i", name, "--")

    def __call__(self, *command: str, stdin: str | None = None) -> str:
        return self.kubectl(*self.place, *command, stdin=stdin)

    def sh(self, script: str) -> str:
        return self("sh", "-c", script)


@pytest.fixture(scope="module")
def room(kubectl: Kubectl) -> Iterator[Room]:
    postgres = kubectl.json("-n", "foundation", "get", "pod", "postgres-0")
    made = Room(kubectl, postgres["spec"]["containers"][0]["image"])
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": SMALL},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "storageClassName": f"{NAMESPACE}-shared",
            "resources": {"requests": {"storage": "64Mi"}},
        },
    }
    kubectl("-n", NAMESPACE, "apply", "-f", "-", stdin=json.dumps(claim))
    yield made
    made.leave()
    volume = kubectl.json("-n", NAMESPACE, "get", "pvc", SMALL)["spec"].get("volumeName")
    kubectl("-n", NAMESPACE, "delete", "pvc", SMALL)
    if volume:
        kubectl("delete", "pv", volume)


@pytest.fixture(scope="module")
def server(room: Room) -> Pod:
    """Where people work: the hub's namespace, a volume of 64 MiB and the shared one."""
    return room.pod(SMALL, {"small": SMALL, "shared": SHARED})


@pytest.fixture(scope="module")
def pipeline(room: Room) -> Pod:
    return room.pod(SMALL, {"shared": SHARED}, PIPELINES)


def kill(matches: Callable[[list[str]], bool]) -> int:
    """SIGKILL for each process of the machine whose command line matches; how many there were."""
    found = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if matches(command):
            os.kill(int(process.name), signal.SIGKILL)
            found += 1
    return found


def test_M8_writing_past_the_size_is_refused_and_deleting_makes_room(server: Pod):
    said = server.sh("head -c 80M /dev/urandom 2>&1 > /small/large; true")
    assert "No space left on device" in said
    stored = int(server("stat", "-c", "%s", "/small/large"))
    assert 56 * 2**20 <= stored <= 64 * 2**20
    server("rm", "/small/large")
    wait_until(
        "what was deleted is room again",
        lambda: "0" in server.sh("head -c 10M /dev/urandom > /small/next 2>/dev/null; echo $?"),
        120,
    )


def test_J4_T8_what_one_mount_writes_is_read_through_another_at_once(server: Pod, pipeline: Pod):
    for here, there in ((pipeline, server), (server, pipeline)):
        name = f"/shared/raw/test-{time.time_ns()}"
        here.sh(f"echo of-the-other > {name}")
        assert there("cat", name) == "of-the-other\n"
        assert there("stat", "-c", "%u:%g", "/shared/raw", name).split() == ["1000:100"] * 2
        there("rm", name)


def whole(reader: Pod, kept: dict[str, str]) -> bool:
    """Whether each file can be read; fails for one that is not what was written."""
    try:
        other = reader("python3", "-c", READER, stdin=json.dumps(kept))
    except subprocess.CalledProcessError:
        return False
    assert other == "", f"not as they were written: {other}"
    return True


@pytest.mark.parametrize("part", ["volume", "filer"])
def test_T13_what_was_acknowledged_outlives_a_killed_part(
    server: Pod, pipeline: Pod, kubectl: Kubectl, part: str
):
    folder = f"/shared/test-{part}-{time.time_ns()}"
    server.sh(f"python3 -c '{WRITER}' {folder} 10 > /tmp/{part}.json &")
    time.sleep(3)
    kubectl("-n", "foundation", "exec", "seaweedfs-0", "-c", part, "--", "pkill", "-KILL", "weed")
    report = wait_until("the writer has ended", lambda: server.sh(f"cat /tmp/{part}.json"), 120)
    kept = json.loads(report)["kept"]
    assert len(kept) >= 10
    kubectl(
        "-n", "foundation", "wait", "--for=condition=Ready", "pod/seaweedfs-0", "--timeout=110s"
    )
    for reader in (server, pipeline):
        # A volume server that is ready may not be known to the master yet.
        wait_until("every file is read as it was written", lambda r=reader: whole(r, kept), 120)
    server.sh(f"rm -r {folder}")


def test_a_killed_node_plug_in_ends_no_mount_and_mounts_again(
    room: Room, server: Pod, kubectl: Kubectl
):
    server.sh("echo before > /shared/test-plugin")
    assert kill(lambda command: command[:2] == ["/seaweedfs-csi", "node"]) >= 1
    assert server("cat", "/shared/test-plugin") == "before\n"
    later = room.pod(f"{SMALL}-later", {"small": SMALL, "shared": SHARED})
    assert later("cat", "/shared/test-plugin") == "before\n"
    server("rm", "/shared/test-plugin")


def test_T8_a_mount_that_died_is_no_empty_folder_and_the_next_pod_has_its_files(
    room: Room, server: Pod, kubectl: Kubectl
):
    server.sh("echo kept > /small/kept")
    claim = kubectl.json("-n", NAMESPACE, "get", "pvc", SMALL)
    path = f"/buckets/{claim['spec']['volumeName']}"
    assert kill(lambda c: c[:1] == ["/weed-mount"] and path in c) == 1
    assert "not connected" in server.sh("ls /small 2>&1; true")
    again = room.pod(f"{SMALL}-again", {"small": SMALL})
    assert again("cat", "/small/kept") == "kept\n"
