"""`make rename-home`: the home of somebody who has another user name from now on.

A home's claim is named after its owner. Whoever is renamed in Keycloak would find an empty one, and
whoever is given the former name would find theirs. So the volume goes to a claim of the new name.
"""

import json
import unicodedata
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
    _check(former, user)
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
    if not theirs and _bound(place, new) == name:
        raise RecoveryError(
            f"nothing was renamed: {user} has {new} already, and no volume is {place.hub}/{old}'s. "
            f"Either an earlier run has done it, or the hub knew the person by another name than "
            f"{former}"
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


def _check(former: str, user: str) -> None:
    """A former name may be any that a home was given to; the new one is as the hub will say it.

    The hub writes names in small letters and takes none with a `/` (JupyterHub,
    `Authenticator.normalize_username` and `validate_username`). Keycloak takes neither spaces nor
    combining marks, which somebody's keyboard may write for one letter.
    """
    if not former:
        raise RecoveryError("FROM is empty; the name that the person had at the hub is required")
    name = unicodedata.normalize("NFC", user.strip().lower())
    if not name or name != user or "/" in name:
        said = f"{name!r} is required" if name and "/" not in name else "a user name is required"
        raise RecoveryError(
            f"TO is {user!r}; {said}, since nobody who logs in has another home than that of their "
            "name as the hub writes it"
        )


def _bound(place: Place, claim: str) -> str | None:
    """The volume that the claim has; None where there is no claim or it waits for one."""
    field = f"--field-selector=metadata.name={claim}"
    found = place.kubectl.items("persistentvolumeclaims", place.hub, field)
    return found[0]["spec"].get("volumeName") if found else None


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
