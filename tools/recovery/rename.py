"""`make rename-home`: the home of somebody who has another user name from now on.

A home's claim is named after its owner. Whoever is renamed in Keycloak would find an empty one, and
whoever is given the former name would find theirs. So the volume goes to a claim of the new name.
"""

import json
from typing import Any

from mlhub.execution.slugs import slug
from tools.recovery.backup import Say
from tools.recovery.errors import RecoveryError
from tools.recovery.place import Claim, Place

OWNER = "hub.jupyter.org/username"
"""KubeSpawner's label and annotation of a home: the slug and the name itself."""


def claim_name(user: str) -> str:
    """As the chart's values have it, `claim-{username}`."""
    return f"claim-{slug(user)}"


def rename_home(place: Place, former: str, user: str, say: Say) -> None:
    """Gives the home of `former` to `user`. Killed at any point, the same again goes on."""
    old, new = claim_name(former), claim_name(user)
    if old == new:
        raise RecoveryError(f"{former} and {user} have one home, {old}; two people are required")
    theirs, owned = _volumes(place, old), _volumes(place, new)
    if theirs and owned:
        raise RecoveryError(
            f"{user} has a home already ({new}, {owned[0]['metadata']['name']}); bring what is in "
            f"the two together by hand, for nobody else knows what to keep"
        )
    if len(theirs or owned) != 1:
        found = ", ".join(v["metadata"]["name"] for v in theirs or owned) or "no volume"
        raise RecoveryError(
            f"{place.hub}/{old} has {found}; one is required: name the person as the hub knew them"
        )
    (volume,) = theirs or owned
    name = volume["metadata"]["name"]
    if volume["spec"]["persistentVolumeReclaimPolicy"] != "Retain":
        raise RecoveryError(
            f"{name} would be deleted with its claim; set its persistentVolumeReclaimPolicy to "
            "Retain, then run this again"
        )
    if theirs:
        _free(place, old)
        here = {"namespace": place.hub, "name": new, "uid": None, "resourceVersion": None}
        place.kubectl(
            "patch", "persistentvolume", name, "--type=merge",
            "--patch", json.dumps({"spec": {"claimRef": here}}),
        )  # fmt: skip
    place.kubectl.apply(_claim(place, volume, new, user))
    say(f"            {name}, the home of {former}, is {user}'s: {place.hub}/{new}")


def _volumes(place: Place, claim: str) -> list[dict[str, Any]]:
    """Those that the claim has, or had until it was deleted."""
    return [
        volume
        for volume in place.kubectl.json("get", "persistentvolumes")["items"]
        if (ref := volume["spec"].get("claimRef"))
        if (ref["namespace"], ref["name"]) == (place.hub, claim)
    ]


def _free(place: Place, claim: str) -> None:
    """Deletes the claim, which leaves the volume, unless somebody works in it."""
    if pods := place.mounting(Claim(place.hub, claim)):
        raise RecoveryError(
            f"{', '.join(pods)} still has {claim} mounted; stop the server or run, then run this "
            "again"
        )
    place.kubectl(
        "delete", "persistentvolumeclaim", claim, "--namespace", place.hub, "--ignore-not-found",
        "--wait=true",
    )  # fmt: skip


def _claim(place: Place, volume: dict[str, Any], name: str, user: str) -> dict[str, Any]:
    """What the hub would make for that person, on this volume."""
    spec = volume["spec"]
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": name,
            "namespace": place.hub,
            "labels": {OWNER: slug(user)},
            "annotations": {OWNER: user},
        },
        "spec": {
            "accessModes": spec["accessModes"],
            "storageClassName": spec.get("storageClassName", ""),
            "volumeName": volume["metadata"]["name"],
            "resources": {"requests": {"storage": spec["capacity"]["storage"]}},
        },
    }
