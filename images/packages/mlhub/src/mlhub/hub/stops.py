"""Why a server that ran has stopped, in words for its owner.

Apart from the owner's no name is in them: who else stops servers is for the audit trail alone.
"""

from collections.abc import Mapping
from typing import Any

from mlhub.hub import trouble

CULLERS = ("mlhub", "jupyterhub-idle-culler")
"""Who stops servers for their age or idleness: the hub itself and the charts' service."""

FULL = "OOMKilled"
"""Kubernetes' word for a container that has taken more memory than its limit."""


def said(owner: str, by: str, why: str, pod: Mapping[str, Any] | None) -> str:
    """One or two sentences, none where the owner did it. `by` and `why` are what the hub knows of
    the stop, empty where the server ended by itself; `pod` is its last one (Kubernetes' JSON).
    """
    if why:
        return f"The hub stopped this server. {why[0].upper()}{why[1:].rstrip('.')}."
    if by in CULLERS:
        return "The hub stopped this server, for it was idle, or ran, for longer than a server may."
    if by == owner:
        return ""
    if by:
        return "An administrator stopped this server, or a service of the hub's."
    return _ended(pod)


def _ended(pod: Mapping[str, Any] | None) -> str:
    # Whoever else deletes it ends the container, too, which then looks as if it had ended first.
    if pod is None or "deletionTimestamp" in pod["metadata"]:
        return "The server's pod is gone from Kubernetes, as when its node is emptied or lost."
    status = pod["status"]
    for container in status.get("containerStatuses") or []:
        ended = (container.get("state") or {}).get("terminated") or {}
        if container["name"] != "notebook" or not ended:
            continue
        if ended.get("reason") == FULL:
            return "This server took more memory than it may, and Kubernetes ended it."
        if status.get("phase") != "Failed" or not status.get("message"):
            return f"This server ended by itself, with the exit code {ended['exitCode']}."
    if found := trouble.find(pod, [], 0):
        return found.sentence
    return "This server ended by itself."
