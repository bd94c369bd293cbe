"""Who holds what in the cluster, read from the pods themselves.

A pod states its owner and whom it is charged to in annotations, and what it takes in the limits of
its containers, so that nothing has to be remembered: after a restart one list of pods is the truth.
A run is a Job, whose pod carries the same; a pod that is done holds nothing.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from mlhub.admission.sizes import Size, of_containers
from mlhub.workspaces.mounts import mounted

HOLDER = "mlhub/holder"
"""Label of every pod that counts; its value is `server` or `run`."""
RESERVATION = "mlhub/reservation"
"""Label with the id of the reservation under which the pod was made."""
NAME = "mlhub/name"
OWNER = "mlhub/owner"
CHARGES = "mlhub/charges"
PROFILE = "mlhub/profile"

DONE = ("Succeeded", "Failed")


class Charge(NamedTuple):
    """Something with a limit, e.g. `("user", "alice")` or `("group", "/mlhub/users")`."""

    kind: str
    name: str


@dataclass(frozen=True)
class Holding:
    """One server or run and what it takes. `name` is `alice/`, `alice/second` or a run's id."""

    name: str
    owner: str
    size: Size
    charges: frozenset[Charge]
    uid: str = ""
    """The pod's; empty while there is none."""
    reservation: str = ""
    node: str = ""
    profile: str = ""
    started: datetime | None = None
    """When its node took it in; None while it waits for one."""
    mounts: frozenset[tuple[str, bool]] = frozenset()
    """The workspaces in it; True where it can write."""
    pod: str = ""
    """The pod's name."""
    kind: str = ""
    """`server` or `run`; empty while there is no pod."""


def metadata(holding: Holding, kind: str) -> dict[str, dict[str, str]]:
    """Labels and annotations for a pod that is to hold `holding`; `kind` is `server` or `run`."""
    return {
        "labels": {HOLDER: kind, RESERVATION: holding.reservation},
        "annotations": {
            NAME: holding.name,
            OWNER: holding.owner,
            CHARGES: json.dumps(sorted(holding.charges)),
            PROFILE: holding.profile,
        },
    }


def holding_of(pod: Mapping[str, Any]) -> Holding | None:
    """What a pod (Kubernetes' JSON) holds; None for one that is done or is not ours."""
    about, status = pod["metadata"], pod.get("status") or {}
    notes = about.get("annotations") or {}
    if status.get("phase") in DONE or OWNER not in notes:
        return None
    try:
        charges = frozenset(Charge(kind, name) for kind, name in json.loads(notes[CHARGES]))
    except (KeyError, ValueError, TypeError):
        charges = frozenset({Charge("user", notes[OWNER])})
    started = status.get("startTime")
    return Holding(
        name=notes.get(NAME, about["name"]),
        owner=notes[OWNER],
        size=of_containers(pod["spec"]["containers"]),
        charges=charges,
        uid=about["uid"],
        pod=about["name"],
        kind=(about.get("labels") or {}).get(HOLDER, ""),
        reservation=(about.get("labels") or {}).get(RESERVATION, ""),
        node=pod["spec"].get("nodeName") or "",
        profile=notes.get(PROFILE, ""),
        started=datetime.fromisoformat(started) if started else None,
        mounts=mounted(pod["spec"]),
    )
