"""A full disk, which is real: Postgres and SeaweedFS of the stack's images on one of 1.5 GiB.

They run in a namespace of their own beside the stack. What was acknowledged before, while and after
the disk is full is there at the end, and both go on by themselves when there is room again.
"""

import contextlib
import hashlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.e2e.platform import Kubectl, wait_until
from tests.killing import kill_pod

pytestmark = pytest.mark.alone

SPACE = "e2e-full-disk"
DISK = 1536 << 20
"""Bytes; SeaweedFS keeps the last GiB free (images/seaweedfs)."""


class Disk:
    """A file system of a known size, and what fills it."""

    def __init__(self, folder: Path):
        self.image, self.mount = folder / "disk.img", folder / "disk"
        self.mount.mkdir()
        with self.image.open("wb") as file:
            file.truncate(DISK)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(self.image)], check=True)
        subprocess.run(["mount", "-o", "loop", str(self.image), str(self.mount)], check=True)
        for part in ("postgres", "seaweedfs"):
            (self.mount / part).mkdir()
            os.chown(self.mount / part, 1000, 100)

    @property
    def free(self) -> int:
        found = os.statvfs(self.mount)
        return found.f_bavail * found.f_frsize

    def fill(self) -> None:
        """To the last block."""
        with (self.mount / "others").open("wb") as file:
            # The file system takes some of it to know where the rest is.
            os.posix_fallocate(file.fileno(), 0, self.free - (16 << 20))
            os.lseek(file.fileno(), 0, os.SEEK_END)
            with contextlib.suppress(OSError):
                while os.write(file.fileno(), bytes(4096)):
                    pass

    def make_room(self) -> None:
        (self.mount / "others").unlink(missing_ok=True)

    def leave(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.mount)], check=False)
        self.image.unlink()


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk]:
    made = Disk(tmp_path_factory.mktemp("full"))
    yield made
    made.leave()


@pytest.fixture(scope="module")
def space(kubectl: Kubectl, disk: Disk) -> Iterator[None]:
    """The stack's two StatefulSets once more, their data on that disk."""
    gone = ("delete", "namespace", SPACE, "--ignore-not-found", "--wait=true")
    kubectl(*gone, timeout=180)
    kubectl("create", "namespace", SPACE)
    objects = []
    for name in ("postgres", "seaweedfs"):
        secret = {"seaweedfs": "seaweedfs-s3"}.get(name, name)
        for kind, called in (("statefulset", name), ("service", name), ("secret", secret)):
            one = kubectl.json("-n", "foundation", "get", kind, called)
            one["metadata"] = {"name": called, "namespace": SPACE}
            one.pop("status", None)
            if kind == "service":
                one["spec"] = {
                    key: one["spec"][key]
                    for key in ("selector", "ports", "publishNotReadyAddresses")
                    if key in one["spec"]
                } | {"clusterIP": "None"}
            if kind == "statefulset":
                on_the_disk(one["spec"]["template"]["spec"], disk.mount / name)
            objects.append(one)
    listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    kubectl("apply", "-f", "-", stdin=listed.replace(".foundation.svc", f".{SPACE}.svc"))
    try:
        for name in ("postgres", "seaweedfs"):
            wait = ("rollout", "status", f"statefulset/{name}", "--timeout=150s")
            kubectl("-n", SPACE, *wait, timeout=160)
        yield
    finally:
        disk.make_room()
        kubectl(*gone, timeout=180)


def on_the_disk(spec: dict[str, Any], folder: Path) -> None:
    (data,) = (volume for volume in spec["volumes"] if volume["name"] == "data")
    del data["persistentVolumeClaim"]
    data["hostPath"] = {"path": str(folder), "type": "Directory"}


class Rows:
    """One row a call, each with a content of its own."""

    def __init__(self, kubectl: Kubectl):
        self._kubectl = kubectl
        self.sql("CREATE TABLE kept (n serial PRIMARY KEY, word text);")

    def sql(self, statement: str) -> str:
        """By standard input, for one may be longer than an argument."""
        psql = ("psql", "--no-psqlrc", "-qAt", "--set=ON_ERROR_STOP=1", "-f", "-")
        where = ("-n", SPACE, "exec", "-i", "postgres-0", "--")
        return self._kubectl(*where, *psql, stdin=statement, timeout=60)

    def write(self) -> tuple[str, str]:
        word = os.urandom(200_000).hex()
        number = self.sql(f"INSERT INTO kept (word) VALUES ('{word}') RETURNING n;")  # noqa: S608
        return number.strip(), hashlib.sha256(word.encode()).hexdigest()

    def read(self) -> dict[str, str]:
        listed = self.sql("SELECT n || ' ' || encode(sha256(word::bytea), 'hex') FROM kept;")
        return dict(line.split() for line in listed.splitlines() if line)

    refused = subprocess.SubprocessError


class Files:
    """One file a call, through the filer of the pod."""

    def __init__(self, kubectl: Kubectl):
        pod = kubectl.json("-n", SPACE, "get", "pod", "seaweedfs-0")
        self._kubectl, self._address = kubectl, f"http://{pod['status']['podIP']}:8888/kept"
        self._known: dict[str, str] = {}

    def write(self) -> tuple[str, str]:
        content, name = os.urandom(200_000), str(time.time_ns())
        answer = requests.put(f"{self._address}/{name}", data=content, timeout=20)
        answer.raise_for_status()
        self._known[name] = hashlib.sha256(content).hexdigest()
        return name, self._known[name]

    def read(self) -> dict[str, str]:
        found = {}
        for name in self._known:
            answer = requests.get(f"{self._address}/{name}", timeout=20)
            answer.raise_for_status()
            found[name] = hashlib.sha256(answer.content).hexdigest()
        return found

    refused = requests.RequestException


Kept = Rows | Files


def written(by: Kept, count: int, tries: int) -> dict[str, str]:
    """What was acknowledged, at most `count`, of so many tries."""
    found: dict[str, str] = {}
    for _ in range(tries):
        try:
            name, digest = by.write()
        except by.refused:
            continue
        found[name] = digest
        if len(found) == count:
            break
    return found


def answered(ask: Callable[[], Any], refused: type[Exception]) -> Any:
    try:
        return ask()
    except refused:
        return None


@pytest.mark.parametrize("kind", [Rows, Files])
def test_T13_a_full_disk_loses_nothing_that_was_acknowledged(
    space: None, kubectl: Kubectl, disk: Disk, kind: type[Kept]
):
    by = kind(kubectl)
    kept = written(by, 20, 20)
    assert len(kept) == 20
    disk.fill()
    try:
        # Until it is refused: what is open may have room of its own.
        refused = False
        for _ in range(200):
            try:
                name, digest = by.write()
            except by.refused:
                refused = True
                break
            kept[name] = digest
        assert refused, "nothing was refused on a full disk"
        kept |= written(by, 3, 3)
        assert disk.free < 1 << 20
        pod = {Rows: "postgres-0", Files: "seaweedfs-0"}[kind]
        # And, as if that were not enough, all of it dies on the full disk.
        kill_pod(kubectl.json("-n", SPACE, "get", "pod", pod)["metadata"]["uid"])
    finally:
        disk.make_room()
    more = wait_until("it takes writes again", lambda: written(by, 1, 1), 180)
    found = wait_until("it is read", lambda: answered(by.read, by.refused), 60)
    wanted = kept | more
    assert {name: found.get(name) for name in wanted} == wanted
