"""`make restore`: a stack as its archive has it, on an empty cluster or over what is there.

Every step can be done twice, so that the same command goes on after whatever ended it. On an empty
cluster the state comes back without what went with the old one, and `up` makes that anew, with the
same secrets. Then the services stop, the data come, and the services start on them. From there on
people work, so that no data come a second time.
"""

import base64
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from keycloak.exceptions import KeycloakAuthenticationError, KeycloakError

from components import names
from tools import administrator
from tools.recovery import state
from tools.recovery.archive import Manifest, Reader
from tools.recovery.backup import Say, backup, marks, restoring
from tools.recovery.contents import Writers, claims_of, write_bucket, write_database, write_volume
from tools.recovery.errors import RecoveryError
from tools.recovery.kube import Report, wait_until
from tools.recovery.note import Note
from tools.recovery.place import HELD_ELSEWHERE, Place
from tools.recovery.state import (
    Deployment,
    Stack,
    demand_whole,
    keycloak_url,
    lineage,
    outliving,
    with_keycloak_of,
)

Secrets = list[dict[str, Any]]
"""As `Place.secrets` gives them."""

ENDED = (f"{names.RESTORING}-", f"{names.FILLED}-")
"""Takes the marks away, both at once: one that stayed would speak of another restore."""
SMALL = ("passphrase", "state.json", "stack.yaml", "secrets.json")


def prepare(reader: Reader, stack: str, say: Say) -> None:
    """On a bare machine, before the engine is set up: the passphrase of the state."""
    path = state.own_passphrase()
    content = reader.first("passphrase")
    if path is None or content is None or path.exists():
        return
    path.parent.mkdir(exist_ok=True)
    path.touch(mode=0o600)
    path.write_bytes(content)
    say(f"            {path} from the archive, for the secrets in the state of {stack}")


def restore(place: Place, stack: Stack, reader: Reader, *, replace: bool, say: Say) -> None:
    """The whole of it; `replace` says that what is there may go."""
    start = time.monotonic()
    say(f"            verify {reader.path}")
    manifest = verified(reader, stack)
    small = _small(reader)
    archived: Deployment = json.loads(small["state.json"])
    say(told(manifest, time.monotonic() - start))
    for line in manifest.left_out:
        say(f"            not in it: {line}")
    if (here := state.revision()) != manifest.revision:
        say(
            f"            this checkout is {here}, the archive was written by {manifest.revision}; "
            "should the stack not come up, check that one out and run this again"
        )
    if not _made_anew(place, stack, reader.path.name, archived, say):
        _admit(place, stack, reader, replace=replace, say=say)
    archive = reader.path.name
    if _is_filled(place, archive):
        say("            its data are in, and are not filled again")
    else:
        _mark(place, f"{names.RESTORING}={archive}", f"{names.FILLED}-")
        Note(stack).remove()
        timed(say, "services, servers and runs stopped", place.stop)
        fill(place, reader, manifest, say)
        if place.own_keycloak:
            stack.replace_state(with_keycloak_of(stack.export(), archived))
        _mark(place, f"{names.FILLED}={_filled(place, archive)}")
    secrets: Secrets = json.loads(small["secrets.json"])
    if place.own_keycloak:
        timed(say, "Keycloak runs", lambda: place.start(names.KEYCLOAK))
        _keep_administrator(place, stack, secrets, say)
    timed(say, "services run", place.start)
    stack.change("up")
    _mark(place, *ENDED)
    _compare(place, secrets, say)
    say(f"{time.monotonic() - start:>8.1f} s  restored as of {manifest.began}")


def verified(reader: Reader, stack: Stack) -> Manifest:
    """The manifest of an archive that is whole and of this stack."""
    manifest = reader.verify()
    if manifest.stack != stack.name:
        raise RecoveryError(
            f"{reader.path} is of the stack {manifest.stack} and STACK is {stack.name}; the same "
            "is required, since names of volumes and secrets are the stack's"
        )
    return manifest


def told(manifest: Manifest, seconds: float) -> str:
    size = sum(part.bytes for part in manifest.parts) / 2**20
    return (
        f"{seconds:>8.1f} s  whole: {manifest.stack} as of {manifest.began}, commit "
        f"{manifest.revision[:12]}, {len(manifest.parts)} parts, {size:.1f} MiB"
    )


def timed(say: Say, what: str, do: Callable[[], object]) -> None:
    start = time.monotonic()
    do()
    say(f"{time.monotonic() - start:>8.1f} s  {what}")


def _small(reader: Reader) -> dict[str, bytes]:
    found = {}
    for name, chunks in reader.parts():
        if name not in SMALL:
            break
        found[name] = b"".join(chunks)
    return found


def _made_anew(place: Place, stack: Stack, archive: str, archived: Deployment, say: Say) -> bool:
    """Whether all that is there was made here, with the archive's secrets, and so has no data.

    Volumes of a stack that was destroyed are there before its `up`.
    """
    present = stack.export()
    if not state.resources(present):
        say("            the stack is made anew, with the archive's secrets")
        stack.replace_state(outliving(archived, own_keycloak=place.own_keycloak))
        present = stack.export()
    if lineage(present) != lineage(archived):
        raise RecoveryError(
            f"the stack {stack.name} was made anew and has secrets of its own, which the archive's "
            "data do not know; remove that stack with its data (docs/recovery.md), then run this "
            "again"
        )
    note = Note(stack)
    goes_on = note.holds(archive, place)
    if place.there() and not place.lacks_seaweedfs() and not goes_on:
        return False
    anew = goes_on or not [*place.bound()]
    if anew and not goes_on:
        note.leave(archive)
    stack.change("up")
    return anew


def _admit(place: Place, stack: Stack, reader: Reader, *, replace: bool, say: Say) -> None:
    """Nothing is replaced unasked, nor before it is in an archive of its own."""
    found = marks(place)
    under_way = found.get(names.RESTORING)
    if under_way is not None and under_way != reader.path.name:
        raise RecoveryError(
            f"a restore of {under_way} has begun and not ended; run that one again, or give it up: "
            f"make resume STACK={stack.name}"
        )
    filled = found.get(names.FILLED, "") if under_way else ""
    whole = filled.partition(" ")[0] == under_way
    if whole and filled != _filled(place, reader.path.name):
        raise RecoveryError(
            "all data of this restore were in, and since then databases or buckets got another "
            "volume, so that it would neither go on nor begin anew without a loss; give it up, "
            f"make resume STACK={stack.name}, and restore with REPLACE=yes"
        )
    if place.own_keycloak and not whole:
        demand_whole(stack.name, stack.export())
    if under_way or not (data := place.has_data()):
        return
    if not replace:
        raise RecoveryError(
            f"the stack {stack.name} has data: {'; '.join(data)}. Restoring replaces them by the "
            "archive's; say so: REPLACE=yes. What is there is then kept in an archive of its own"
        )
    say("            what is there, kept first:")
    backup(place, stack, reader.path.parent, [key.to_public() for key in reader.keys], say)


def resume(place: Place, stack: Stack, say: Say) -> None:
    """Gives a restore up: what it stopped runs again, on what is there by now.

    The mark goes first, since a part may not start on half of its data, and what brings the rest
    is another restore.
    """
    note = Note(stack)
    under_way = restoring(place)
    archive, stopped = under_way or note.archive(), place.stopped()
    if archive is None and not stopped:
        raise RecoveryError(
            f"no restore of {stack.name} has begun and not ended, and nothing is stopped; there is "
            "nothing to resume"
        )
    whole = under_way is not None and _is_filled(place, under_way)
    if under_way:
        _mark(place, *ENDED)
    note.remove()
    if archive:
        stays = "all its data are in and stay" if whole else "what it has written stays"
        say(f"            the restore of {archive} is given up; {stays}")
    for one in stopped:
        say(f"            {one} starts again")
    timed(say, "services run", place.start)


def _mark(place: Place, *changes: str) -> None:
    place.kubectl("annotate", "namespace", place.hub, "--overwrite", *changes)


def _is_filled(place: Place, archive: str) -> bool:
    """Whether its restore is under way and all its data are in."""
    found = marks(place)
    under_way = found.get(names.RESTORING) == archive
    return under_way and found.get(names.FILLED) == _filled(place, archive)


def _filled(place: Place, archive: str) -> str:
    """What the mark says once all data of an archive are in: a new volume has none of them."""
    volumes = [
        claim["spec"]["volumeName"]
        for claim in place.bound()
        if claim["metadata"]["namespace"] == place.foundation
        if claim["metadata"]["name"] in HELD_ELSEWHERE
    ]
    return " ".join([archive, *sorted(volumes)])


def fill(place: Place, reader: Reader, manifest: Manifest, say: Say) -> None:
    """Every part to where it belongs, each checked where it arrived."""
    for claim in manifest.claims:
        meta = claim["metadata"]
        there = [c["metadata"]["name"] for c in place.kubectl.items("pvc", meta["namespace"])]
        if meta["name"] not in there:
            place.kubectl.apply(claim)
    wanted = {part.name: part for part in manifest.parts}
    by_part = {claim.part: claim for claim in claims_of(manifest.claims)}
    with Writers(place, [by_part[name] for name in wanted if name in by_part]) as writers:

        def write(name: str, chunks: Iterator[bytes]) -> Report:
            kind, _, rest = name.partition("/")
            if kind == "databases":
                return write_database(place, rest, chunks)
            if kind == "buckets":
                return write_bucket(place, rest, chunks)
            claim = by_part[name]
            return write_volume(place, writers.pod(claim), claim, chunks)

        for name, chunks in reader.parts():
            if name not in wanted or name in SMALL:
                continue
            start = time.monotonic()
            report = write(name, chunks)
            if report.sha256 != wanted[name].sha256:
                raise RecoveryError(f"{name} changed on its way into the cluster; run this again")
            say(f"{time.monotonic() - start:>8.1f} s  {name}: {report.bytes / 2**20:.1f} MiB")


def _keep_administrator(place: Place, stack: Stack, archived: Secrets, say: Say) -> None:
    """Keycloak's database has the password of then, and `up` logs in with the present one."""
    old, new = administrator_password(archived), administrator_password(place.secrets())
    if old is None or new is None or old == new:
        return
    url = keycloak_url(stack.export())

    def handed_over() -> bool:
        try:
            administrator.hand_over(url, old, new)
        except KeycloakAuthenticationError:
            raise RecoveryError(
                f"Keycloak at {url} takes neither the archive's password of the administrator "
                f"{administrator.NAME} nor the present one of the Secret "
                f"{names.KEYCLOAK_ADMIN_SECRET}; set this one there, then run the same again"
            ) from None
        except KeycloakError:
            return False
        return True

    wait_until(f"Keycloak at {url} has its administrator's present password", handed_over, 300)
    say("            Keycloak's administrator has the present password, not the archive's")


def administrator_password(secrets: Secrets) -> str | None:
    """Of a Keycloak of the stack's own."""
    for secret in secrets:
        if secret["metadata"]["name"] == names.KEYCLOAK_ADMIN_SECRET:
            return base64.b64decode(secret["data"]["password"]).decode()
    return None


def _compare(place: Place, archived: Secrets, say: Say) -> None:
    """The Secrets as they are beside those of the archive; names alone are said."""

    def by_name(secrets: Secrets) -> dict[str, object]:
        return {json.dumps(one["metadata"], sort_keys=True): one.get("data") for one in secrets}

    here, there = by_name(place.secrets()), by_name(archived)
    differ = sorted(name for name in there if here.get(name) != there[name])
    say(f"            {len(there) - len(differ)} of {len(there)} Secrets are the archive's")
    for name in differ:
        meta = json.loads(name)
        say(f"            {meta['namespace']}/{meta['name']} is another than in the archive")


def inspect(path: Path, reader: Reader, say: Say) -> None:
    """`make backup-verify`: reads all of it, and says what is in it."""
    start = time.monotonic()
    manifest = reader.verify()
    for part in manifest.parts:
        files = f", {part.files} files" if part.files else ""
        say(f"            {part.name}: {part.bytes / 2**20:.1f} MiB{files}")
        for remark in part.remarks:
            say(f"            {part.name}: {remark}")
    for line in manifest.left_out:
        say(f"            left out: {line}")
    say(told(manifest, time.monotonic() - start))
