"""Whether this machine can carry the node, and what a person can do where it cannot.

Every check looks and changes nothing, so that `doctor` runs the same ones as `up`.
"""

import contextlib
import os
import platform
import shutil
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bootstrap import cgroups, processes
from bootstrap.paths import API_PORT, NODE_ADDRESS, Layout

OWN_CLUSTER = (
    "or use a cluster of your own: set mlhub:cluster.context in the stack file, and nothing of "
    "the embedded cluster runs (docs/bootstrap.md says what else that file then names)"
)
GIB = 2**30
DISK_FIRST = 14 * GIB
"""Free bytes for a first `up`: parts and their build 6, images and their layers 8."""
DISK_LATER = 2 * GIB
MEMORY = 6 * GIB
"""Bytes of memory below which the platform and one notebook server do not fit."""

SOCKET = "kubelet/pod-resources/kubelet.sock"
SOCKET_PATH_LIMIT = 107
"""Bytes of a Unix socket's path (unix(7)); the kubelet has one below the checkout."""

PORTS: Mapping[tuple[str, int], str] = {
    ("127.0.0.1", 2379): "etcd",
    ("127.0.0.1", 5000): "registry",
    ("127.0.0.1", 10248): "kubelet",
    ("127.0.0.1", 10249): "proxy",
    ("127.0.0.1", 10257): "controller-manager",
    ("127.0.0.1", 10259): "scheduler",
    (NODE_ADDRESS, API_PORT): "apiserver",
}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. do: what to do where it is not as it should be."""

    what: str
    fine: bool
    do: str = ""


def system() -> Finding:
    told = f"{sys.platform} {platform.machine()}"
    fine = sys.platform == "linux" and platform.machine() == "x86_64"
    return Finding(f"system: {told}", fine, f"use a Linux machine (x86_64), {OWN_CLUSTER}")


def root() -> Finding:
    fine = os.geteuid() == 0
    do = f"run it as root (the node makes network devices, mounts and containers), {OWN_CLUSTER}"
    return Finding(f"user id: {os.geteuid()}", fine, do)


def kernel(proc: Path = Path("/proc"), groups: Path = cgroups.ROOT) -> Finding:
    """What the node cannot do without: overlay mounts, bridges and control groups."""
    systems = (proc / "filesystems").read_text().split()
    lacking = [] if "overlay" in systems else ["overlay file systems"]
    v2 = groups / "cgroup.controllers"
    known = (
        set(v2.read_text().split())
        if v2.exists()
        else {name for path in cgroups.hierarchies(groups) for name in path.name.split(",")}
    )
    wanted = {"cpu", "memory", "pids", "cpuset"}
    lacking += [f"control group {name}" for name in sorted(wanted - known)]
    do = f"boot a kernel that has {', '.join(lacking)}, {OWN_CLUSTER}"
    return Finding(f"kernel {platform.release()}", not lacking, do)


def disk(layout: Layout) -> Finding:
    folder = next(path for path in (layout.data, layout.checkout) if path.exists())
    free = shutil.disk_usage(folder).free
    needed = DISK_LATER if (layout.cluster / "etcd").exists() else DISK_FIRST
    told = f"free disk at {folder}: {free / GIB:.1f} GiB of {needed / GIB:.0f} GiB needed"
    return Finding(told, free >= needed, "free some, or move the checkout to a larger disk")


def memory(meminfo: str) -> Finding:
    """meminfo: /proc/meminfo."""
    fields = dict(line.split(":", 1) for line in meminfo.splitlines() if ":" in line)
    total = int(fields["MemTotal"].split()[0]) * 1024
    told = f"memory: {total / GIB:.1f} GiB of {MEMORY / GIB:.0f} GiB needed"
    return Finding(told, total >= MEMORY, f"use a larger machine, {OWN_CLUSTER}")


def path_length(layout: Layout) -> Finding:
    length = len(os.fsencode(layout.cluster / SOCKET))
    room = SOCKET_PATH_LIMIT - length + len(os.fsencode(layout.checkout))
    told = f"path of the checkout: {len(os.fsencode(layout.checkout))} bytes of {room} allowed"
    return Finding(told, length <= SOCKET_PATH_LIMIT, "clone it into a folder with a shorter path")


def listener(address: str, port: int, proc: Path = Path("/proc")) -> str | None:
    """Who listens there, as `name (pid)`; None where the port is free."""
    probe = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        probe.bind((address, port))
    except PermissionError:
        return None
    except OSError as error:
        if error.errno != 98:  # EADDRINUSE; the node's address is not there before the device
            return None
    else:
        return None
    finally:
        probe.close()
    inodes = set()
    for line in (proc / "net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[1].rpartition(":")[2], 16) == port and fields[3] == "0A":
            inodes.add(f"socket:[{fields[9]}]")
    for entry in proc.iterdir():
        if entry.name.isdigit() and inodes & _held(entry):
            name = (entry / "comm").read_text().strip()
            return f"{name} (process {entry.name})"
    return "another program"


def _held(process: Path) -> set[str]:
    """What a process has open, as far as it can still be told."""
    held = set()
    with contextlib.suppress(OSError):
        for descriptor in (process / "fd").iterdir():
            with contextlib.suppress(OSError):
                held.add(os.readlink(descriptor))
    return held


def ports(layout: Layout) -> list[Finding]:
    """Ports that the node needs and others hold; its own servers do not count."""
    ours = {mark.part for mark in processes.marked().values()}
    found = []
    for (address, port), part in PORTS.items():
        holder = None if part in ours else listener(address, port)
        if holder:
            what = f"port {address}:{port}, for {part}, is taken by {holder}"
            found.append(Finding(what, False, f"stop it, {OWN_CLUSTER}"))
    return found or [Finding("ports: free", True)]


def findings(layout: Layout) -> list[Finding]:
    """All that `up` looks at before it changes anything, in the order of importance."""
    first = system()
    if not first.fine:
        return [first]
    checks: list[Callable[[], Finding]] = [
        root,
        kernel,
        lambda: disk(layout),
        lambda: path_length(layout),
        lambda: memory(Path("/proc/meminfo").read_text()),
    ]
    return [first, *(check() for check in checks), *ports(layout)]
