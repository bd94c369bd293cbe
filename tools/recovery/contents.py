"""How each kind of data is read out of a running stack and written into one.

Databases by pg_dump, one snapshot each; a bucket through the filer; volumes by tar. A database is
restored beside its place and renamed, so that one which does not restore leaves the old one alone.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tools.recovery.agents import ROOT, NodeError, NotMountedError, batches, mounted
from tools.recovery.errors import RecoveryError
from tools.recovery.kube import Pod, Report
from tools.recovery.place import Claim, Place, claim_of, of_one_node

FILER = (Path(__file__).parent / "filer.py").read_text(encoding="utf-8")
CHANGED = 1
"""GNU tar's status where files changed or went while they were read; the rest is whole."""

Ended = Callable[[Report], None]
Source = tuple[str, Callable[[Ended], Iterator[bytes]]]
"""A part's name, and what reads it."""


def claims_of(listed: Sequence[dict[str, Any]]) -> list[Claim]:
    return [claim_of(one) for one in listed]


def read_database(place: Place, database: str, ended: Ended) -> Iterator[bytes]:
    command = ["pg_dump", "--format=custom", "--compress=1", f"--dbname={database}"]
    return place.kubectl.take(place.postgres, *command, ended=ended)


def write_database(place: Place, database: str, chunks: Iterator[bytes]) -> Report:
    aside = f"{database}.restoring"
    place.sql(f'DROP DATABASE IF EXISTS "{aside}" WITH (FORCE)')
    if database not in place.sql("SELECT rolname FROM pg_roles"):
        raise RecoveryError(
            f"Postgres has no role {database}, which the archive's database of that name belongs "
            "to; this stack file lacks the part that uses it. Restore with the stack file of the "
            "archive's commit"
        )
    place.sql(f'CREATE DATABASE "{aside}" OWNER "{database}"')
    place.sql(f'REVOKE ALL ON DATABASE "{aside}" FROM PUBLIC')
    options = ["--exit-on-error", "--single-transaction", "--no-owner", f"--role={database}"]
    report = place.kubectl.give(place.postgres, chunks, "pg_restore", *options, f"--dbname={aside}")
    place.sql(
        f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE);\n'
        f'ALTER DATABASE "{aside}" RENAME TO "{database}";\n'
    )
    return report


def empty_database(place: Place, database: str) -> None:
    place.sql(
        f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE);\n'
        f'CREATE DATABASE "{database}" OWNER "{database}";\n'
        f'REVOKE ALL ON DATABASE "{database}" FROM PUBLIC;\n'
    )


def read_bucket(place: Place, bucket: str, ended: Ended) -> Iterator[bytes]:
    return place.kubectl.take(place.filer, "python3", "-I", "-c", FILER, "out", bucket, ended=ended)


def write_bucket(place: Place, bucket: str, chunks: Iterator[bytes]) -> Report:
    return place.kubectl.give(place.filer, chunks, "python3", "-I", "-c", FILER, "in", bucket)


def empty_bucket(place: Place, bucket: str) -> None:
    place.kubectl.execute(place.filer, "python3", "-I", "-c", FILER, "empty", bucket)


PACK = """\
cd "$0" && find . -mindepth 1 -print0 | tar --create --file=- --use-compress-program='gzip -1' \
  --verbose --sparse --ignore-failed-read --null --verbatim-files-from --no-recursion --files-from=-
"""
"""All but the volume's own folder, which on another volume belongs to somebody else."""
UNPACK = (
    "tar", "--extract", "--file=-", "--gzip", "--verbose", "--preserve-permissions",
    "--skip-old-files",
)  # fmt: skip
"""A folder that CLEAR has left is root's: whoever is not root can give it no mode, and tar would
fail over that. Of files there is none that could be skipped."""
CLEAR = """\
chmod -R u+rwX "$0"/* "$0"/.[!.]* 2>/dev/null
find "$0" -mindepth 1 -delete 2>/dev/null
left=$(find "$0" -mindepth 1 ! -type d) && [ -z "$left" ] && exit
echo "not deleted: $left" >&2
exit 1
"""
"""Where a workspace was mounted in a home, the container runtime has made folders for it, which are
root's: who restores is not root, and they hold nothing."""


def read_volume(place: Place, pod: Pod, claim: Claim, ended: Ended) -> Iterator[bytes]:
    command = ["sh", "-c", PACK, f"{ROOT}/{claim.name}"]
    return place.kubectl.take(pod, *command, ended=ended, fine=(0, CHANGED))


def empty_volume(place: Place, pod: Pod, claim: Claim) -> None:
    place.kubectl.execute(pod, "sh", "-c", CLEAR, f"{ROOT}/{claim.name}")


def write_volume(place: Place, pod: Pod, claim: Claim, chunks: Iterator[bytes]) -> Report:
    empty_volume(place, pod, claim)
    return place.kubectl.give(pod, chunks, *UNPACK, f"--directory={ROOT}/{claim.name}")


class Writers:
    """Agents that write, the next batch of claims mounted when its first part comes; claims that do
    not mount together, one after the other."""

    def __init__(self, place: Place, claims: Sequence[Claim]):
        self._place = place
        self._batches = batches(claims)
        self._image = place.image()
        self._stack = ExitStack()
        self._batch: list[Claim] = []

    def __enter__(self) -> "Writers":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def pod(self, claim: Claim) -> Pod:
        if claim not in self._batch:
            self._stack.close()
            batch = next(batch for batch in self._batches if claim in batch)
            try:
                self._mount(batch)
            except NotMountedError as error:
                if len(batch) == 1:
                    raise RecoveryError(
                        f"{str(error).rstrip('.')}. The services stay stopped, for its files are "
                        "not there. Mend that volume, then run the same command again: it goes on "
                        '(docs/recovery.md, "A volume that does not mount")'
                    ) from None
                # Volumes of two zones or nodes have no node in common.
                self._batches = [*([one] for one in batch), *self._batches]
                return self.pod(claim)
        return self._pod

    def _mount(self, batch: list[Claim]) -> None:
        self._pod = self._stack.enter_context(
            mounted(self._place.kubectl, batch, self._image, writes=True)
        )
        self._batch = batch


def sources(
    place: Place, listed: Sequence[dict[str, Any]], missed: Callable[[Claim, str], None]
) -> Iterator[Source]:
    """Every part that is read from the cluster; databases before the files that they speak of.

    `missed` gets those of the `listed` claims that do not mount, and why.
    """

    def database(name: str) -> Source:
        return f"databases/{name}", lambda ended: read_database(place, name, ended)

    def bucket(name: str) -> Source:
        return f"buckets/{name}", lambda ended: read_bucket(place, name, ended)

    yield from map(database, place.databases())
    yield from map(bucket, place.buckets())
    disks = {claim_of(one) for one in listed if of_one_node(one)}
    yield from _volumes(place, claims_of(listed), disks, missed)


def _volumes(
    place: Place,
    claims: Sequence[Claim],
    disks: Collection[Claim],
    missed: Callable[[Claim, str], None],
) -> Iterator[Source]:
    """The claims, as many to an agent as mount together; where those do not, each by itself.

    The `disks` that somebody works on are of that node, which is asked for each time: reading
    takes long, and people come and go.
    """

    def volume(pod: Pod, claim: Claim) -> Source:
        return claim.part, lambda ended: read_volume(place, pod, claim, ended)

    left = [*claims]
    while left:
        nodes = place.nodes(disks)
        node = nodes.get(left[0])
        batch, *_ = batches([claim for claim in left if nodes.get(claim) == node])
        left = [claim for claim in left if claim not in batch]
        with ExitStack() as stack:
            try:
                pod = stack.enter_context(mounted(place.kubectl, batch, place.image(), node=node))
            except NotMountedError as error:
                for claim in batch:
                    if len(batch) == 1 or isinstance(error, NodeError):
                        missed(claim, str(error))
                    else:
                        yield from _volumes(place, [claim], disks, missed)
            else:
                yield from (volume(pod, claim) for claim in batch)
