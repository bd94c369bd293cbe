"""`make rollback`: the revision that was applied before, with the same secrets and, unless it is
asked otherwise, the same data. Also what brings volumes back that lost their claim.
"""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from components.stackfile import path_of
from tools.recovery.backup import Say, restoring
from tools.recovery.begun import Rollback, RollbackNote
from tools.recovery.contents import Writers, claims_of, empty_bucket, empty_database, empty_volume
from tools.recovery.errors import RecoveryError
from tools.recovery.place import Place
from tools.recovery.restore import timed
from tools.recovery.state import DIRTY, HEAD, Stack, demand_whole, git, outliving, resources

RELEASE = "kubernetes:helm.sh/v3:Release"
"""Protected for what runs in it; its data are in Postgres and in claims."""
FOLLOWS = {"cronjobs": "mlhub.io/kind", "jobs": "app.kubernetes.io/name=storage"}
"""By kind and label, what is there because of data, or in place of them."""
LINKED = {".venv": "requirements.txt", "policies/.venv": "policies/requirements.txt"}
"""Environments that serve another revision as well, if it locks the same packages."""


def current(updates: Sequence[dict[str, Any]]) -> str:
    """The revision of the newest `up`, whatever became of it; empty where none is known."""
    heads = (u.get("environment", {}).get(HEAD, "") for u in updates if u["kind"] == "update")
    return str(next(heads, ""))


def before(updates: Sequence[dict[str, Any]]) -> str:
    """The revision that was applied before the current one: `updates` has the newest first."""
    applied = [u for u in updates if u["kind"] == "update" and u.get("result") == "succeeded"]
    for update in applied:
        head = update.get("environment", {}).get(HEAD, "")
        if head and head != current(updates):
            if update["environment"].get(DIRTY) == "true":
                raise RecoveryError(
                    f"before this revision {head[:12]} was applied, with changes that were not "
                    "committed, so that nobody can apply it again; name another: TO=<commit>"
                )
            return str(head)
    raise RecoveryError(
        "the stack's history has no other revision that was applied; name one: TO=<commit>"
    )


def roll_back(
    place: Place, stack: Stack, wanted: str, *, drop: bool, confirm: str, say: Say
) -> None:
    """Applies `wanted`, or the revision of a rollback that has not ended, or the one before this
    one, from a clone of its own."""
    updates, note = stack.updates(), RollbackNote(stack.name)
    begun = note.read(updates)
    target = wanted or (begun.revision if begun else before(updates))
    revision = git("rev-parse", "--verify", f"{target}^{{commit}}")
    say(f"            {git('log', '-1', '--format=%h %s', revision)}")
    if begun is None or begun.revision != revision:
        begun = Rollback(revision, current(updates))
    if drop and not begun.emptied:
        _confirmed(place, stack, confirm)
    note.leave(begun)
    try:
        if begun.emptied:
            say("            its data were emptied before, and are not emptied again")
        elif drop:
            _drop(place, say)
            note.leave(replace(begun, emptied=True))
        rebind(place, say)
        _apply(stack, revision)
        if drop or begun.emptied:
            timed(say, "services run", place.start)
    except RecoveryError as error:
        raise RecoveryError(f"{error} (this rollback by name: TO={revision[:12]})") from error
    note.remove()
    forth = f"; TO={begun.left[:12]} goes forth again" if begun.left else ""
    say(f"            {stack.name} is at {revision[:12]}{forth}")


def _apply(stack: Stack, revision: str) -> None:
    with tempfile.TemporaryDirectory(prefix="mlhub-rollback-", dir=".mlhub") as made:
        folder = Path(made) / "checkout"
        clone(revision, folder)
        _environments(folder)
        if stack.config_file:
            shutil.copyfile(folder / path_of(stack.name), stack.config_file)
        Stack(stack.name, stack.config_file, folder).change("up")


def clone(revision: str, folder: Path) -> None:
    """A checkout of that revision with this one's environments, cluster and address.

    A clone and no worktree: the CLI writes the commit into the history from `.git` itself.
    """
    here = Path.cwd()
    git("clone", "--quiet", "--shared", "--no-checkout", str(here), str(folder))
    git("-C", str(folder), "checkout", "--quiet", "--detach", revision)
    if origin := git("config", "--default", "", "--get", "remote.origin.url"):
        # Images are labelled with it.
        git("-C", str(folder), "remote", "set-url", "origin", origin)
    (folder / ".mlhub").symlink_to(here / ".mlhub")
    for environment, lock in LINKED.items():
        same = (folder / lock).read_bytes() == (here / lock).read_bytes()
        if same and (here / environment).exists():
            (folder / environment).symlink_to(here / environment)


def _environments(folder: Path) -> None:
    """What is not linked is made."""
    wanted = [f"{environment}/run.stamp" for environment in LINKED]
    made = [stamp for stamp in wanted if not (folder / stamp).parent.is_symlink()]
    if made and subprocess.run(["make", "--silent", *made], cwd=folder, check=False).returncode:
        raise RecoveryError(f"the packages of that revision were not installed: make {made[0]}")


def _confirmed(place: Place, stack: Stack, confirm: str) -> None:
    """Nothing is emptied unless the stack is named, nor what a restore takes for filled."""
    if confirm != stack.name:
        claims = claims_of(place.claims())
        raise RecoveryError(
            f"DATA=drop empties the databases {', '.join(place.databases())}, the buckets "
            f"{', '.join(place.buckets()) or '(none)'} and {len(claims)} volumes: "
            f"{', '.join(claim.name for claim in claims)}. Nothing but a backup brings them back. "
            f"Say so: CONFIRM={stack.name}"
        )
    if archive := restoring(place):
        raise RecoveryError(
            f"a restore of {archive} has begun and not ended; run it again, or give it up before "
            f"its data are emptied: make resume STACK={stack.name}"
        )


def _drop(place: Place, say: Say) -> None:
    """Empties databases, buckets and volumes, which themselves stay, as do all secrets.

    The services stay stopped: the present ones would give the empty databases their own, newer
    form. `up` starts those of the revision that is applied.
    """
    claims, databases, buckets = claims_of(place.claims()), place.databases(), place.buckets()
    timed(say, "services, servers and runs stopped", place.stop)
    with Writers(place, claims) as writers:
        for claim in claims:
            empty_volume(place, writers.pod(claim), claim)
            say(f"            emptied {claim.namespace}/{claim.name}")
    for bucket in buckets:
        empty_bucket(place, bucket)
        say(f"            emptied the bucket {bucket}")
    for database in databases:
        empty_database(place, database)
        say(f"            emptied the database {database}")
    # A CronJob is a schedule, which a fresh database would be given back. Folders that a job has
    # made in a shared volume are made by that job alone.
    for kind, selector in FOLLOWS.items():
        place.kubectl("delete", kind, "--namespace", place.hub, "--selector", selector)


def rebind(place: Place, say: Say) -> None:
    """Volumes whose claim was deleted wait for a claim of the same name, with what is on them."""
    released: dict[tuple[str, str], list[str]] = {}
    for volume in place.kubectl.json("get", "persistentvolumes")["items"]:
        claim = volume["spec"].get("claimRef", {})
        if volume["status"]["phase"] == "Released" and claim.get("namespace") in place.namespaces:
            key = (claim["namespace"], claim["name"])
            released.setdefault(key, []).append(volume["metadata"]["name"])
    if not released:
        say("            no volume is Released")
    for claim in place.leaving():
        pods = ", ".join(place.mounting(claim)) or "no pod"
        say(f"            Terminating: {claim}, held by {pods}; its volume is not Released yet")
    for (namespace, name), volumes in sorted(released.items()):
        field = f"--field-selector=metadata.name={name}"
        present = place.kubectl.items("persistentvolumeclaims", namespace, field)
        has = present[0]["spec"].get("volumeName") if present else None
        if has:
            say(f"            {namespace}/{name} has {has}; {', '.join(volumes)} stay aside")
        elif len(volumes) > 1:
            say(
                f"            {namespace}/{name}: {', '.join(volumes)} were its volumes one after "
                "the other; remove claimRef.uid and claimRef.resourceVersion from the right one"
            )
        else:
            place.kubectl(
                "patch", "persistentvolume", volumes[0], "--type=json",
                "--patch", json.dumps([
                    {"op": "remove", "path": f"/spec/claimRef/{key}"}
                    for key in ("uid", "resourceVersion")
                ]),
            )  # fmt: skip
            say(f"            {volumes[0]} is {namespace}/{name}'s again")


def destroy(stack: Stack, confirm: str, say: Say) -> None:
    """Takes the stack off its cluster. Namespaces, claims and volumes stay there, generated secrets
    and what is in Keycloak and Harbor stay in the state, and an `up` finds all of them again.
    """
    if confirm != stack.name:
        raise RecoveryError(
            f"destroy ends everything that runs of {stack.name}; claims, volumes and secrets stay, "
            f"and `up` brings it back. Say so: CONFIRM={stack.name}"
        )
    present = stack.export()
    demand_whole(stack.name, present)
    kept = {r["urn"]: r for r in resources(outliving(present, own_keycloak=False))}
    exposed = [
        resource["urn"].rpartition("::")[2]
        for resource in resources(present)
        if resource.get("protect") and not resource.get("retainOnDelete")
        if resource["urn"] not in kept and resource["type"] != RELEASE
    ]
    if exposed:
        raise RecoveryError(
            f"{', '.join(exposed)} are protected and would be deleted on the cluster, since they "
            "lack retainOnDelete; apply this revision first, or take them out of the state"
        )
    # What stays must not hold on to what goes.
    present["deployment"]["resources"] = [kept.get(r["urn"], r) for r in resources(present)]
    stack.replace_state(present)
    excluded = [part for urn in kept for part in ("--exclude", urn)]
    stack.change("destroy", "--ignore-protect", "--refresh=false", *excluded)
    say("            claims, volumes and secrets stay; `up` finds them again")
