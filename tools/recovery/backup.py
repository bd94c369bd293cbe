"""`make backup`: everything that a stack could not do without, in one archive."""

import datetime
import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pyrage

from components import names
from components.stackfile import path_of
from tools.recovery import state
from tools.recovery.archive import Manifest, Part, Writer
from tools.recovery.contents import sources
from tools.recovery.errors import RecoveryError
from tools.recovery.kube import Report
from tools.recovery.place import HELD_ELSEWHERE, Claim, Place, claim_of
from tools.recovery.state import Stack

STAMP = "%Y%m%dT%H%M%SZ"

LOOK_SECONDS = 60
"""How often a backup looks whether the stack is still the one that it began with."""
TRIES = 6
PAUSE_SECONDS = 600
"""Between two tries: about as long as an `up` takes."""

Say = Callable[[str], None]


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def told(part: Part, seconds: float) -> str:
    size = f"{part.bytes / 2**20:.1f} MiB"
    files = f", {part.files} files" if part.files else ""
    return f"{seconds:>8.1f} s  {part.name}: {size}{files}"


def marks(place: Place) -> dict[str, str]:
    """Annotations of the hub's namespace, none where there is none."""
    found = place.kubectl.items(
        "namespaces", place.hub, f"--field-selector=metadata.name={place.hub}"
    )
    return dict(found[0]["metadata"].get("annotations", {})) if found else {}


def restoring(place: Place) -> str | None:
    """The archive of a restore that has begun and not ended."""
    return marks(place).get(names.RESTORING)


class ChangedError(RecoveryError):
    """The stack is no longer the one that the backup began with."""


class Watch:
    """Of a stack's state, which every step of an `up` writes anew, its beginning and its end."""

    def __init__(self, stack: Stack):
        self.state = stack.export()
        self._stack, self._looked = stack, time.monotonic()

    def now_and_then(self) -> None:
        if time.monotonic() - self._looked >= LOOK_SECONDS:
            self.look()

    def look(self) -> None:
        """Raises ChangedError."""
        if self._stack.export() != self.state:
            raise ChangedError(
                f"the stack {self._stack.name} was changed while its backup was made; what was "
                "written is half of one and half of the other, and is not kept"
            )
        self._looked = time.monotonic()


def backup(
    place: Place,
    stack: Stack,
    folder: Path,
    recipients: Sequence[pyrage.x25519.Recipient],
    say: Say,
) -> Path:
    """Writes `mlhub-<stack>-<time>.age` to the folder and returns its path.

    An `up` keeps it from nothing, and it keeps no `up` waiting: what an `up` changed in the middle
    is made again.
    """
    for left in reversed(range(TRIES)):
        try:
            return attempt(place, stack, folder, recipients, say)
        except ChangedError as changed:
            if not left:
                raise ChangedError(f"{changed}; run this again when nobody applies it") from None
            say(f"            {changed}; again in {PAUSE_SECONDS // 60} min")
            time.sleep(PAUSE_SECONDS)
    raise AssertionError("the last try returns or raises")


def attempt(
    place: Place,
    stack: Stack,
    folder: Path,
    recipients: Sequence[pyrage.x25519.Recipient],
    say: Say,
) -> Path:
    """As `backup`, once. Raises ChangedError."""
    if not place.there():
        raise RecoveryError(
            f"the stack {stack.name} is not on this cluster; first `make up` for local, `pulumi up "
            f"--stack {stack.name} --policy-pack policies` elsewhere"
        )
    if archive := restoring(place):
        raise RecoveryError(
            f"a restore of {archive} has begun and not ended; run it again first, for what is "
            "there now is half of one and half of the other"
        )
    folder.mkdir(parents=True, exist_ok=True)
    began, start = now(), time.monotonic()
    stamp = datetime.datetime.now(datetime.UTC).strftime(STAMP)
    path = folder / f"mlhub-{stack.name}-{stamp}.age"
    watch = Watch(stack)
    listed, leaving = place.claims_and_leaving()
    left_out = [
        f"{claim} is being deleted; its volume stays"
        for claim in leaving
        if claim.name not in HELD_ELSEWHERE
    ]
    missed: dict[Claim, str] = {}
    parts: list[Part] = []
    with Writer(path, recipients) as writer:

        def small(name: str, content: bytes) -> None:
            parts.append(writer.add(name, [content]))

        if (passphrase := state.own_passphrase()) is not None:
            small("passphrase", passphrase.read_bytes())
        small("state.json", json.dumps(watch.state).encode())
        small("stack.yaml", Path(path_of(stack.name)).read_bytes())
        small("secrets.json", json.dumps(place.secrets()).encode())
        for name, read in sources(place, listed, missed.__setitem__):
            at, reports = time.monotonic(), list[Report]()
            part = writer.add(name, read(reports.append))
            (report,) = reports
            if report.sha256 != part.sha256:
                raise RecoveryError(f"{name} changed on its way here; run this again")
            remarks = [line for line in report.said if not line.endswith("socket ignored")]
            parts.append(replace(part, files=report.files, remarks=remarks))
            say(told(parts[-1], time.monotonic() - at))
            watch.now_and_then()
        watch.look()
        left_out += [f"{claim.namespace}: {why}" for claim, why in missed.items()]
        writer.finish(
            Manifest(
                stack=stack.name,
                began=began,
                ended=now(),
                revision=state.revision(),
                images=place.images(),
                claims=[claim for claim in listed if claim_of(claim) not in missed],
                parts=parts,
                left_out=left_out,
            )
        )
    for line in left_out:
        say(f"            left out: {line}")
    for part in parts:
        for remark in part.remarks:
            say(f"            {part.name}: {remark}")
    size = path.stat().st_size
    say(f"{time.monotonic() - start:>8.1f} s  {path}: {size / 2**20:.1f} MiB")
    if missed:
        raise RecoveryError(
            f"{path} is whole but for {', '.join(map(str, missed))}, which could not be mounted; "
            "mend or delete those claims and run this again. Older archives stay"
        )
    record(place, path, began, size)
    return path


def record(place: Place, path: Path, began: str, size: int) -> None:
    """Says in the cluster when a backup last succeeded; the hub tells Prometheus, and `make status`
    shows it."""
    place.kubectl.apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": names.BACKUP_RECORD, "namespace": place.hub},
            "data": {"began": began, "archive": path.name, "bytes": str(size)},
        }
    )


def keep(folder: Path, stack: str, count: int, say: Say) -> None:
    """Leaves the newest `count` archives of a stack; nothing else in the folder is touched."""
    if count < 1:
        raise RecoveryError(
            f"KEEP is {count}; a number of archives to keep, 1 or more, is required"
        )
    name = re.compile(rf"mlhub-{re.escape(stack)}-\d{{8}}T\d{{6}}Z\.age")
    archives = sorted(path for path in folder.iterdir() if name.fullmatch(path.name))
    for path in archives[:-count]:
        path.unlink()
        say(f"            {path.name} removed, KEEP is {count}")
