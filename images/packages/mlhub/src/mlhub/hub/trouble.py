"""Why a server will not start, read from its pod and the events about it.

KubeSpawner waits until `start_timeout` and then says that it timed out. Most reasons are known
within seconds, and Kubernetes names them.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mlhub import homes, kubelet

GRACE_SECONDS = 15
"""How long a cause that often passes by itself may last: a volume that is being bound or mounted,
a node that another pod is just leaving."""

DETACH_SECONDS = 60
"""How long a disk may take to leave the node of a server that has just stopped."""

NOT_MOUNTED = 74
"""With which a server ends that does not find its volumes (`notebooks.start`): EX_IOERR."""

_IMAGE = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}
_CONTAINER = {
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
    "CrashLoopBackOff",
}
_VOLUME = {"FailedMount", "FailedAttachVolume", "FailedMapVolume", "ProvisioningFailed"}


@dataclass(frozen=True)
class Trouble:
    """One reason: a word for the metrics and a sentence for the person."""

    reason: str
    sentence: str


def find(
    pod: Mapping[str, Any] | None, events: Iterable[Mapping[str, Any]], waited: float
) -> Trouble | None:
    """The reason why `pod` will not start, or None while it may still come.

    `pod` and `events` are Kubernetes objects as plain data, the events about the pod and its
    claim, oldest first; `waited` is seconds since the pod was asked for.
    """
    if pod is None:
        return None
    if found := _given_up(pod["status"]):
        return found
    if waited < GRACE_SECONDS:
        return None
    created = _time(pod["metadata"]["creationTimestamp"])
    since = [event for event in events if event_time(event) >= created]
    return _volume(since, scheduled(pod), waited) or _capacity(since, pod)


def scheduled(pod: Mapping[str, Any]) -> bool:
    """Whether `pod` has got a node."""
    return _condition(pod).get("status") == "True"


def _condition(pod: Mapping[str, Any]) -> Mapping[str, Any]:
    """The pod's condition PodScheduled, empty where it has none yet."""
    conditions = {c["type"]: c for c in pod["status"].get("conditions") or []}
    return conditions.get("PodScheduled") or {}


def _given_up(status: Mapping[str, Any]) -> Trouble | None:
    """What the pod's own status says."""
    if status.get("phase") == "Failed":
        said = status.get("message") or status.get("reason") or "no reason given"
        return Trouble("pod", f"Kubernetes gave the server up: {_plain(said)}")
    for container in status.get("containerStatuses") or []:
        if found := _missed(container):
            return found
        waiting = (container.get("state") or {}).get("waiting") or {}
        if found := _waiting(waiting, container.get("image", "")):
            return found
    return None


def _missed(container: Mapping[str, Any]) -> Trouble | None:
    """What the server itself missed before it began (`notebooks.mounts`), in its own words."""
    for state in ("state", "lastState"):
        ended = (container.get(state) or {}).get("terminated") or {}
        if ended.get("exitCode") == NOT_MOUNTED and ended.get("message"):
            return Trouble("volume", _plain(ended["message"]))
    return None


def _volume(events: list[Mapping[str, Any]], has_node: bool, waited: float) -> Trouble | None:
    """Only the newest event counts: a mount that failed twice and then held is followed by
    `Pulling`, which may last."""
    for kind in ("Pod", "PersistentVolumeClaim"):
        of_kind = [event for event in events if event["involvedObject"]["kind"] == kind]
        if not of_kind or of_kind[-1].get("reason") not in _VOLUME:
            continue
        if kind == "Pod" or not has_node:
            said = of_kind[-1].get("message") or ""
            if not homes.is_elsewhere(said):
                return Trouble("volume", f"The server's volume cannot be used: {_plain(said)}")
            if waited >= DETACH_SECONDS:
                sentence = f"{homes.ELSEWHERE} Kubernetes says: {_plain(said)}"
                return Trouble("volume", sentence)
    return None


def _capacity(events: list[Mapping[str, Any]], pod: Mapping[str, Any]) -> Trouble | None:
    """The scheduler says, for example, `0/3 nodes are available: 1 Insufficient cpu, …`."""
    condition = _condition(pod)
    if condition.get("reason") != "Unschedulable":
        return None
    if any(event.get("reason") == "TriggeredScaleUp" for event in events):
        return None
    said = condition.get("message") or ""
    short = sorted(set(re.findall(r"Insufficient ([\w./-]*\w)", said)))
    if homes.is_elsewhere(said):
        sentence = homes.ELSEWHERE.removesuffix(".")
    elif "nvidia.com/gpu" in short:
        sentence = "No GPU is free for the server"
    elif short:
        sentence = f"No node has enough {' and '.join(short)} free for the server"
    else:
        sentence = "No node takes the server"
    return Trouble("capacity", f"{sentence}. The scheduler says: {_plain(said)}")


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def event_time(event: Mapping[str, Any]) -> datetime:
    """When an event was last seen; either field may be the one that is set."""
    return _time(event.get("lastTimestamp") or event["eventTime"])


def _waiting(waiting: Mapping[str, Any], image: str) -> Trouble | None:
    reason, said = waiting.get("reason"), waiting.get("message") or ""
    if reason in _IMAGE:
        # The first failure may be the registry's; the kubelet tries again and then backs off.
        if reason == "ErrImagePull" and "not found" not in said:
            return None
        return Trouble("image", f"The image {image} cannot be pulled: {_plain(said)}")
    if reason in _CONTAINER and not kubelet.tries_again(said):
        return Trouble("container", f"The server's container does not start: {_plain(said)}")
    return None


def refused(status: int, message: str) -> Trouble | None:
    """The reason when the Kubernetes API itself refuses the pod or its claim, or None.

    `status` is the answer's HTTP status, `message` the API's own words.
    """
    if status == 403 and "exceeded quota" in message:
        return Trouble(
            "quota",
            "The platform's quota has no room for the server. Stop one, choose a smaller size, or "
            f"ask your administrator. Kubernetes says: {_plain(message)}",
        )
    if status in (400, 403, 422):
        return Trouble("refused", f"Kubernetes refuses the server: {_plain(message)}")
    return None


def _plain(text: str) -> str:
    """One line, without an end of its own, short enough for a page."""
    line = " ".join(text.split()).rstrip(".")
    return f"{line[:400]}…" if len(line) > 400 else f"{line}."
