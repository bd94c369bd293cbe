"""The archive: one age file around a tar, written as a stream and read as a stream.

Nothing of it is on a disk in plain. A part's size is not known before its end, so that a part is
cut into tar members `<part>/000000`, `<part>/000001` …; the last member is the manifest, with size
and SHA-256 of each part. By hand: `age --decrypt --identity KEY FILE | tar --extract`, and
`cat databases/jupyterhub/*` is the dump.

age (age-encryption.org/v1) authenticates: a file that was cut or changed does not decrypt.
"""

import contextlib
import hashlib
import json
import os
import tarfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyrage

from tools.recovery.errors import RecoveryError

FORMAT = 1
CHUNK = 4 << 20
"""Bytes of a tar member, which is held in memory."""
BLOCK = tarfile.BLOCKSIZE
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Part:
    """One thing in the archive, such as `databases/jupyterhub`."""

    name: str
    bytes: int
    sha256: str
    files: int = 0
    """How many files a part that is a tar of files holds, folders counted."""
    remarks: list[str] = field(default_factory=list)
    """What tar said of files that changed meanwhile or could not be read."""


@dataclass(frozen=True)
class Manifest:
    """What the archive is of. Times are UTC, ISO 8601."""

    stack: str
    began: str
    ended: str
    revision: str
    """The commit of the program, with `-dirty` after it where files differed."""
    images: dict[str, str]
    """What ran: the image of each workload, by digest."""
    claims: list[dict[str, Any]]
    """The claims whose files are here, as they are made again."""
    parts: list[Part]
    left_out: list[str] = field(default_factory=list)
    """Claims that were being deleted or could not be mounted, and why."""
    format: int = FORMAT


class Work(threading.Thread):
    """A thread whose error is raised where it is joined."""

    def __init__(self, work: Callable[[], None]):
        super().__init__(daemon=True)
        self._work = work
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self._error = error

    def end(self) -> None:
        self.join()
        if self._error is not None:
            raise self._error


def recipient(text: str) -> pyrage.x25519.Recipient:
    """The public key that archives are written for."""
    try:
        return pyrage.x25519.Recipient.from_str(text.strip())
    except pyrage.RecipientError:
        raise RecoveryError(
            f"RECIPIENT is {text!r}; an age public key is required, which begins with age1. "
            "`make backup-key TO=/a/safe/place/mlhub.key` makes a key and prints it."
        ) from None


def identities(path: Path) -> list[pyrage.x25519.Identity]:
    """The private keys of a file as `age-keygen` writes it."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        found = [
            pyrage.x25519.Identity.from_str(line.strip())
            for line in lines
            if line.strip() and not line.startswith("#")
        ]
    except (OSError, UnicodeDecodeError, pyrage.IdentityError):
        found = []
    if not found:
        raise RecoveryError(
            f"IDENTITY is {'not given' if path == Path() else path}; a file that can be read, with "
            "a line AGE-SECRET-KEY-…, is required: the one of the key that the archive was written "
            "for"
        )
    return found


def make_identity(path: Path) -> str:
    """Writes a new private key, which only its owner reads, and returns the public one."""
    if path == Path():
        raise RecoveryError("TO is not given; a file that is not there yet is required, for a key")
    identity = pyrage.x25519.Identity.generate()
    public = str(identity.to_public())
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise RecoveryError(f"{path} is there already; a key is never written over") from None
    with os.fdopen(handle, "w") as file:
        file.write(f"# public key: {public}\n{identity}\n")
    return public


class Writer:
    """Writes an archive beside its place; only a finished one gets its name."""

    def __init__(self, path: Path, recipients: Sequence[pyrage.x25519.Recipient]):
        self.path = path
        self.parts: list[Part] = []
        self._aside = path.with_name(f".{path.name}.part")
        self._recipients = recipients
        self._finished = False

    def __enter__(self) -> Self:
        self._file = os.fdopen(
            os.open(self._aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb"
        )
        out, into = os.pipe()
        self._source, self._sink = os.fdopen(out, "rb"), os.fdopen(into, "wb")
        self._encryption = Work(self._encrypt)
        self._encryption.start()
        return self

    def _encrypt(self) -> None:
        with self._source:
            pyrage.encrypt_io(self._source, self._file, list(self._recipients))

    def add(self, name: str, chunks: Iterable[bytes]) -> Part:
        """Writes a part; `chunks` may be of any size."""
        digest, size, number, held = hashlib.sha256(), 0, 0, bytearray()
        for chunk in chunks:
            held += chunk
            while len(held) >= CHUNK:
                self._member(f"{name}/{number:06}", bytes(held[:CHUNK]))
                number += 1
                del held[:CHUNK]
            digest.update(chunk)
            size += len(chunk)
        if held or not number:
            self._member(f"{name}/{number:06}", bytes(held))
        return Part(name, size, digest.hexdigest())

    def _member(self, name: str, data: bytes) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(data), 0o600
        try:
            self._sink.write(info.tobuf(tarfile.PAX_FORMAT) + data + bytes(-len(data) % BLOCK))
        except BrokenPipeError:
            self._encryption.end()
            raise

    def finish(self, manifest: Manifest) -> None:
        """Closes the archive and gives it its name, when all of it is on the disk."""
        self._member(MANIFEST, json.dumps(asdict(manifest), indent=1).encode())
        self._sink.write(bytes(2 * BLOCK))
        self._sink.close()
        self._encryption.end()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._aside.rename(self.path)
        folder = os.open(self.path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
        self._finished = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._finished:
            return
        with contextlib.suppress(OSError):
            self._sink.close()
        self._encryption.join()
        self._file.close()
        self._aside.unlink(missing_ok=True)


Members = Iterator[tuple[str, bytes]]


def _not_whole(path: Path) -> RecoveryError:
    return RecoveryError(
        f"{path} is not whole: it was cut or changed after it was written; take another archive"
    )


@contextlib.contextmanager
def _members(path: Path, keys: Sequence[pyrage.x25519.Identity]) -> Iterator[Members]:
    """The tar members of an archive, in order."""
    out, into = os.pipe()

    def decrypt() -> None:
        with (
            contextlib.suppress(BrokenPipeError),
            path.open("rb") as file,
            os.fdopen(into, "wb") as sink,
        ):
            pyrage.decrypt_io(file, sink, list(keys))

    def read(tar: tarfile.TarFile) -> Members:
        try:
            for member in tar:
                if (file := tar.extractfile(member)) is not None:
                    yield member.name, file.read()
        except tarfile.TarError:
            raise _not_whole(path) from None

    decryption, readable = Work(decrypt), True
    decryption.start()
    try:
        with os.fdopen(out, "rb") as source:
            try:
                with tarfile.open(fileobj=source, mode="r|") as tar:
                    yield read(tar)
                while source.read(CHUNK):  # or the end of the file would stay unchecked
                    pass
            except tarfile.TarError:
                readable = False  # why, the decryption knows
    finally:
        # Who reads no further has closed the pipe, which ends it. A Python that ends before it
        # is aborted (PyO3, when the thread comes back from Rust).
        decryption.join()
    try:
        decryption.end()
    except pyrage.DecryptError:
        raise RecoveryError(
            f"{path} was not written for this key; IDENTITY must be the file of the key whose "
            "public part was the RECIPIENT"
        ) from None
    except OSError as error:
        if error.errno is not None:
            raise
        raise _not_whole(path) from None
    if not readable:
        raise RecoveryError(f"{path} holds no tar and is no archive of mlhub's")


class Reader:
    """An archive that is on the disk."""

    def __init__(self, path: Path, keys: Sequence[pyrage.x25519.Identity]):
        if not path.is_file():
            given = "not given" if path == Path() else f"{path}, which is no file"
            raise RecoveryError(f"FROM is {given}; an archive is required")
        self.path = path
        self.keys = keys

    def parts(self) -> Iterator[tuple[str, Iterator[bytes]]]:
        """Each part with its content; a part that is not read to its end is passed over."""
        with _members(self.path, self.keys) as members:
            at: list[tuple[str, bytes] | None] = [next(members, None)]

            def content(part: str) -> Iterator[bytes]:
                while at[0] is not None and at[0][0].rpartition("/")[0] == part:
                    yield at[0][1]
                    at[0] = next(members, None)

            while at[0] is not None:
                name = at[0][0]
                part, _, _ = name.rpartition("/")
                chunks = content(part)
                yield part or name, chunks
                for _ in chunks:
                    pass

    def first(self, name: str) -> bytes | None:
        """A small part, unchecked, without reading on; None where the archive lacks it."""
        for part, chunks in self.parts():
            if part == name:
                return b"".join(chunks)
        return None

    def verify(self, tell: Callable[[Part], None] = lambda part: None) -> Manifest:
        """Reads all of it and holds it to its manifest, which is returned."""
        seen: dict[str, tuple[int, str]] = {}
        manifest: Manifest | None = None
        for name, chunks in self.parts():
            digest, size, last = hashlib.sha256(), 0, b""
            for chunk in chunks:
                digest.update(chunk)
                size += len(chunk)
                last = chunk
            if name == MANIFEST:
                manifest = _manifest(self.path, last)
            else:
                seen[name] = (size, digest.hexdigest())
        if manifest is None:
            raise RecoveryError(f"{self.path} has no manifest and is no archive of mlhub's")
        told = {part.name: (part.bytes, part.sha256) for part in manifest.parts}
        wrong = sorted(
            name for name in seen.keys() | told.keys() if seen.get(name) != told.get(name)
        )
        if wrong:
            raise RecoveryError(
                f"{self.path}: {', '.join(wrong)} differ from the manifest; take another archive"
            )
        for part in manifest.parts:
            tell(part)
        return manifest


def _manifest(path: Path, text: bytes) -> Manifest:
    content = json.loads(text)
    if content.get("format") != FORMAT:
        raise RecoveryError(
            f"{path} is of format {content.get('format')}; this program reads format {FORMAT}: "
            f"check out the commit {content.get('revision')} that wrote it"
        )
    return Manifest(**{**content, "parts": [Part(**part) for part in content["parts"]]})
