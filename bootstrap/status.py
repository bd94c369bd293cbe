"""`status`: each part of the platform, its health, memory and address, and the total."""

import contextlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bootstrap import cgroups, control_plane, leftovers, node, processes, registry, service, stack
from bootstrap.errors import BootstrapError
from bootstrap.node import CGROUP
from bootstrap.paths import LOGIN_URL, Layout
from bootstrap.service import Service
from components import names

NOTEBOOK = ("component", "singleuser-server")
"""The label of people's servers, which are not the platform's own need."""


@dataclass(frozen=True)
class Row:
    """memory_bytes: proportional set size, so that what processes share counts once."""

    part: str
    healthy: bool
    said: str
    memory_bytes: int
    address: str
    notebook: bool = False


def memory_of(pids: Iterable[int], proc: Path = Path("/proc")) -> int:
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in (proc / str(pid) / "smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


def services(layout: Layout) -> list[Service]:
    return [
        registry.registry(layout),
        registry.buildkit(layout),
        node.containerd(layout),
        control_plane.etcd(layout),
        control_plane.api_server(layout),
        control_plane.controller_manager(layout),
        control_plane.scheduler(layout),
        node.kubelet(layout),
        node.proxy(layout),
    ]


def _server(layout: Layout, one: Service, marked: Mapping[processes.Identity, Any]) -> Row:
    here = (str(layout.checkout), one.name)
    pids = [who.pid for who, mark in marked.items() if (mark.checkout, mark.part) == here]
    leads = service.running(one.name, layout)
    healthy = bool(leads) and service.answers(one, layout)
    said = "answers" if healthy else "does not answer" if leads else "does not run"
    address = one.url or (f"unix://{one.socket}" if one.socket else "")
    return Row(one.name, healthy, said, memory_of(pids), address)


def pod_processes(uid: str) -> set[int]:
    """Every process of a pod, by its control group; `_` for `-` under the systemd driver."""
    found: set[int] = set()
    for hierarchy in cgroups.hierarchies():
        for group in (hierarchy / CGROUP).rglob(f"pod{uid}"):
            for file in group.rglob("cgroup.procs"):
                with contextlib.suppress(OSError):
                    found |= {int(pid) for pid in file.read_text().split()}
    return found


def _firings(pod: Mapping[str, Any]) -> str:
    """What fires the pod's Job, whose name ends in a number of its own; empty for none."""
    meta = pod["metadata"]
    name, _, number = meta.get("labels", {}).get("job-name", "").rpartition("-")
    return f"{meta['namespace']}/{name}" if number.isdigit() else ""


def mended(pods: Iterable[Mapping[str, Any]]) -> set[str]:
    """The uids of pods that a CronJob has fired again since: Kubernetes keeps its last failed Job
    until another one fails, however well the ones after it went."""
    pods = list(pods)
    last: dict[str, str] = {}
    for pod in pods:
        fired, made = _firings(pod), pod["metadata"]["creationTimestamp"]
        last[fired] = max(last.get(fired, ""), made)
    return {
        pod["metadata"]["uid"]
        for pod in pods
        if (fired := _firings(pod)) and pod["metadata"]["creationTimestamp"] < last[fired]
    }


def pod_row(pod: Mapping[str, Any], memory: int, *, over: bool = False) -> Row:
    """A pod as the API server tells of it; `over`: its failure is mended by a later one."""
    meta, status = pod["metadata"], pod.get("status", {})
    conditions = {one["type"]: one["status"] for one in status.get("conditions", [])}
    labels = meta.get("labels", {})
    notebook = labels.get(NOTEBOOK[0]) == NOTEBOOK[1]
    # A run that failed is its person's matter, and says nothing of the platform.
    ended = ("Succeeded", "Failed") if notebook or over else ("Succeeded",)
    finished = status.get("phase") in ended
    waiting = [
        reason
        for one in status.get("containerStatuses", [])
        if (reason := one.get("state", {}).get("waiting", {}).get("reason"))
    ]
    restarts = sum(one.get("restartCount", 0) for one in status.get("containerStatuses", []))
    said = waiting[0] if waiting else str(status.get("phase", "Unknown"))
    if restarts:
        said += f", {restarts} restarts"
    return Row(
        part=f"{meta['namespace']}/{meta['name']}",
        healthy=finished or conditions.get("Ready") == "True",
        said=said,
        memory_bytes=memory,
        address=status.get("podIP", ""),
        notebook=notebook,
    )


def pods(layout: Layout, context: str | None) -> list[Row]:
    asked = ("get", "pods", "-A", "-o", "json", "--request-timeout=10s")
    done = stack.kubectl(layout, context, *asked)
    if done.returncode:
        return []
    found = json.loads(done.stdout)["items"]
    over = mended(found)
    return [
        pod_row(pod, memory_of(pod_processes(uid)), over=uid in over)
        for pod in found
        for uid in [pod["metadata"]["uid"]]
    ]


def last_backup(layout: Layout, context: str | None) -> dict[str, str] | None:
    """What `make backup` has left in the cluster: when it began, the archive and its bytes."""
    space = stack.hub_namespace(layout)
    asked = ("-n", space, "get", "configmap", names.BACKUP_RECORD, "-o", "json")
    done = stack.kubectl(layout, context, *asked)
    return None if done.returncode else dict(json.loads(done.stdout)["data"])


def table(rows: list[Row]) -> str:
    width = max(len(row.part) for row in rows)
    said = max(len(row.said) for row in rows)
    lines = [
        f"{'ok ' if row.healthy else 'BAD'}  {row.part:<{width}}  {row.said:<{said}}  "
        f"{row.memory_bytes / 2**20:>6.0f} MiB  {row.address}".rstrip()
        for row in rows
    ]
    platform = sum(row.memory_bytes for row in rows if not row.notebook)
    people = sum(row.memory_bytes for row in rows if row.notebook)
    lines.append(
        f"\nplatform {platform / 2**30:.2f} GiB, notebook servers {people / 2**30:.2f} GiB"
    )
    return "\n".join(lines)


def run(layout: Layout, *, as_json: bool) -> None:
    """Prints the table; an error when a part that should run is not healthy."""
    context = stack.own_context(layout)
    rows: list[Row] = []
    if context is None:
        owner = leftovers.read_owner()
        if owner is None or owner.checkout != str(layout.checkout):
            whose = f"; the one on this machine is {owner.checkout}'s" if owner else ""
            raise BootstrapError(f"The embedded cluster does not run{whose}. Start it: `make up`.")
        marked = processes.marked()
        rows += [_server(layout, one, marked) for one in services(layout)]
    rows += pods(layout, context)
    if not rows:
        raise BootstrapError(
            f"The cluster of the context {context} tells of no pods. See `kubectl --context "
            f"{context} get nodes`."
        )
    healthy = all(row.healthy for row in rows)
    backup = last_backup(layout, context)
    if as_json:
        content = {
            "healthy": healthy,
            "memory_bytes": sum(row.memory_bytes for row in rows if not row.notebook),
            "notebook_bytes": sum(row.memory_bytes for row in rows if row.notebook),
            "login": LOGIN_URL,
            "backup": backup,
            "parts": [asdict(row) for row in rows],
        }
        print(json.dumps(content, indent=1))
    else:
        print(table(rows))
        print(f"last backup {backup['began']}: {backup['archive']}" if backup else "no backup yet")
    bad = [row.part for row in rows if not row.healthy]
    if bad:
        raise BootstrapError(
            f"Not healthy: {', '.join(bad)}. `make up` heals servers; for a pod see "
            "`kubectl describe` and its log."
        )
