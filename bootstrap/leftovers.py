"""What earlier runs have left on the machine: whose it is, and what becomes of it.

One cluster a machine: its device, rules and sockets have fixed names. The record of whose they are
is /run/mlhub/owner.json; whether that cluster lives is told by its processes' marks, not by the
record.
"""

import contextlib
import errno
import json
import re
import shutil
import socket
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bootstrap import cgroups, network, processes
from bootstrap.commands import JOB
from bootstrap.errors import BootstrapError
from bootstrap.files import write_private
from bootstrap.paths import RUNTIME, Layout
from bootstrap.processes import Identity, Mark

OWNER = RUNTIME / "owner.json"
SERVERS = {"etcd", "apiserver", "kubelet", "containerd", "registry", "buildkitd", "proxy"}
"""Parts by which a cluster lives; a container shim alone is a remainder."""


@dataclass(frozen=True)
class Owner:
    checkout: str
    instance: str
    boot: str


def owner_of(layout: Layout) -> Owner:
    return Owner(str(layout.checkout), processes.instance(layout), processes.boot_id())


def read_owner(path: Path = OWNER) -> Owner | None:
    try:
        return Owner(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def living(marked: dict[Identity, Mark], mine: Owner) -> dict[str, dict[str, Identity]]:
    """Servers of other checkouts, by checkout and part."""
    found: dict[str, dict[str, Identity]] = {}
    for identity, mark in marked.items():
        if mark.checkout != mine.checkout and mark.part in SERVERS and processes.leads(identity):
            found.setdefault(mark.checkout, {})[mark.part] = identity
    return found


def refusal(others: dict[str, dict[str, Identity]]) -> str:
    """Why `up` does not go on beside another cluster, and what a person can do."""
    told = [f"{checkout} ({', '.join(sorted(parts))})" for checkout, parts in others.items()]
    first = next(iter(others))
    return (
        f"Another checkout's cluster runs on this machine: {'; '.join(told)}. There is room for "
        f"one. Stop it with `make -C {first} down`, or let this run do so: "
        "`python -m bootstrap up --take-over`. Its data stays where it is."
    )


def mounts_under(folders: Iterable[Path], table: str) -> list[str]:
    """Mount points at or below the folders, innermost first. table: /proc/self/mountinfo."""
    wanted = [str(folder) for folder in folders]
    points = [line.split()[4] for line in table.splitlines() if line.strip()]
    plain = [point.encode().decode("unicode_escape") for point in points]
    below = [
        point
        for point in plain
        if any(point == folder or point.startswith(f"{folder}/") for folder in wanted)
    ]
    return list(reversed(below))


def unmount(folders: Sequence[Path]) -> int:
    """Unmounts what is mounted below the folders; what is busy is detached."""
    points = mounts_under(folders, Path("/proc/self/mountinfo").read_text())
    for point in points:
        if subprocess.run(["umount", point], capture_output=True, check=False).returncode:
            subprocess.run(["umount", "-l", point], capture_output=True, check=False)
    return len(points)


def remove_pod_networks() -> int:
    """Removes the network namespaces of pods that are ours: those with a pod's address."""
    removed = 0
    for path in sorted(network.NAMESPACES.glob("cni-*")):
        shown = subprocess.run(
            ["nsenter", f"--net={path}", "ip", "-4", "-o", "address", "show", "dev", "eth0"],
            capture_output=True,
            text=True,
            check=False,
        )
        if shown.returncode == 0 and " 10.244." not in shown.stdout:
            continue
        subprocess.run(["umount", "-l", str(path)], capture_output=True, check=False)
        with contextlib.suppress(OSError):
            path.unlink()
            removed += 1
    return removed


def remove_traces(folders: Sequence[Path]) -> None:
    """Small files that containerd and the kubelet keep outside every folder of ours."""
    for path in Path("/var/lib/cni/results").glob("*"):
        with contextlib.suppress(OSError):
            networks = re.findall(r"/run/netns/cni-[0-9a-f-]+", path.read_text())
            if networks and not any(Path(network).exists() for network in networks):
                path.unlink()
    for link in Path("/var/log/containers").glob("*.log"):
        if link.is_symlink() and any(link.readlink().is_relative_to(one) for one in folders):
            link.unlink()
    for path in Path("/run/containerd/s").glob("*"):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as shim:
            if shim.connect_ex(str(path)) == errno.ECONNREFUSED:
                path.unlink()


def end_everything(found: Mapping[Identity, Mark], folders: Sequence[Path]) -> int:
    """Ends servers, pods and shims, then unmounts; returns how many mounts. Data stays.

    The kubelet goes first, for it would start the pods anew; and what began meanwhile goes last.
    """
    whose = {(mark.checkout, mark.instance) for mark in found.values()}
    processes.stop(one for one, mark in found.items() if mark.part in ("kubelet", "proxy"))
    processes.stop(cgroups.members(), grace=10)
    processes.stop(found, grace=10)
    late = processes.marked()
    processes.stop(one for one, mark in late.items() if (mark.checkout, mark.instance) in whose)
    processes.stop(cgroups.members(), grace=0)
    unmounted = unmount([RUNTIME, *folders])
    remove_pod_networks()
    cgroups.remove()
    remove_traces(folders)
    return unmounted


def remove_from_machine(kube_proxy: Path) -> None:
    """Device, rules and sockets: nothing on the machine speaks of a cluster afterwards."""
    if kube_proxy.exists():
        subprocess.run([str(kube_proxy), "--cleanup"], capture_output=True, check=False, timeout=60)
    network.remove()
    shutil.rmtree(RUNTIME, ignore_errors=True)


def settle(layout: Layout, take_over: bool) -> str:
    """Makes room for this checkout's cluster; returns what was found and done.

    A living cluster of another checkout is refused unless it may be taken over. A dead one's
    remains are cleared. After a boot, runtime state of our own is cleared as well.
    """
    mine = owner_of(layout)
    marked = processes.marked()
    others = living(marked, mine)
    if others and not take_over:
        raise BootstrapError(refusal(others))
    foreign = {
        identity: mark
        for identity, mark in marked.items()
        if (mark.checkout, mark.instance) != (mine.checkout, mine.instance)
        and not mark.part.startswith(JOB)
    }
    owner = read_owner()
    told = []
    stale = owner != mine and (owner is not None or RUNTIME.exists())
    if foreign or stale:
        checkouts = {mark.checkout for mark in foreign.values()}
        checkouts |= {owner.checkout} if owner else set()
        folders = [Layout(Path(checkout)).data for checkout in sorted(checkouts)]
        unmounted = end_everything(foreign, folders)
        shutil.rmtree(RUNTIME, ignore_errors=True)
        whose = "an earlier boot" if owner and owner.instance == mine.instance else "another run"
        told.append(f"cleared what {whose} left: {len(foreign)} processes, {unmounted} mounts")
    RUNTIME.mkdir(mode=0o700, exist_ok=True)
    write_private(OWNER, json.dumps(asdict(mine)))
    return "; ".join(told) or "nothing left behind"
