"""`make restore ONLY=…`: one volume's files out of an archive, beside those that are there.

Nothing is stopped and nothing is replaced: they come into a folder of their own, from which whoever
misses something takes it.
"""

import datetime
from collections.abc import Iterator

from tools.recovery.agents import ROOT, mounted
from tools.recovery.archive import Manifest, Reader
from tools.recovery.backup import STAMP, Say
from tools.recovery.contents import UNPACK, claims_of
from tools.recovery.errors import RecoveryError
from tools.recovery.place import Claim, Place, claim_of, of_one_node
from tools.recovery.restore import verified
from tools.recovery.state import Stack

UNPACK_ASIDE = 'mkdir "$0" && exec "$@" --directory="$0"'
"""A folder that is there already is refused."""


def restore_beside(place: Place, stack: Stack, reader: Reader, only: str, say: Say) -> None:
    """The files of the claim `only`, into a new folder at the top of its volume."""
    manifest = verified(reader, stack)
    claim = _claim(manifest, reader, only)
    here = {claim_of(one): one for one in place.claims()}
    if claim not in here:
        raise RecoveryError(
            f"{claim} is not on the cluster, or is being deleted; let its person start a server, "
            "or `make rebind` where its claim was deleted, then run this again"
        )
    stamp = datetime.datetime.now(datetime.UTC).strftime(STAMP)
    folder = f"{ROOT}/{claim.name}/restored-{stamp}"
    say(f"            {claim} as of {manifest.began}, into the folder restored-{stamp}")
    node = place.nodes([claim] if of_one_node(here[claim]) else []).get(claim)
    with mounted(place.kubectl, [claim], place.image(), writes=True, node=node) as pod:
        command = ["sh", "-c", UNPACK_ASIDE, folder, *UNPACK]
        report = place.kubectl.give(pod, _content(reader, claim), *command)
    (wanted,) = [part for part in manifest.parts if part.name == claim.part]
    if report.sha256 != wanted.sha256:
        raise RecoveryError(
            f"{claim.part} changed on its way into the cluster; remove the folder "
            f"restored-{stamp} and run this again"
        )
    say(f"            {wanted.files} files, {report.bytes / 2**20:.1f} MiB")


def _claim(manifest: Manifest, reader: Reader, only: str) -> Claim:
    claims = claims_of(manifest.claims)
    found = [claim for claim in claims if only in (claim.name, str(claim))]
    if len(found) != 1:
        there = ", ".join(map(str, found or claims))
        raise RecoveryError(
            f"ONLY is {only!r}; one volume of {reader.path} is required: {there or 'it has none'}"
        )
    return found[0]


def _content(reader: Reader, claim: Claim) -> Iterator[bytes]:
    for name, chunks in reader.parts():
        if name == claim.part:
            yield from chunks
            return
