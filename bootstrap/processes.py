"""Processes that outlive the command which started them, known by more than a number.

A pid is reused and a record is lost when its writer is killed. So a process is known by pid, start
time and boot, and carries the name of its checkout in its environment, where a later run finds it
even if nothing was written down. A signal goes through a pidfd, which cannot reach a successor.
"""

import contextlib
import hashlib
import json
import os
import secrets
import select
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bootstrap.files import write_private
from bootstrap.paths import Layout

MARK_CHECKOUT = "MLHUB_CHECKOUT"
MARK_INSTANCE = "MLHUB_INSTANCE"
MARK_PART = "MLHUB_PART"
PROC = Path("/proc")
KEPT = ("PATH", "HOME", "LANG", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR")
LOG_LIMIT = 20 * 1024 * 1024
"""Bytes of a part's log above which the next start sets it aside."""


@dataclass(frozen=True)
class Identity:
    """A process that no other process can be mistaken for.

    started: clock ticks after boot (proc(5), /proc/pid/stat, field 22).
    """

    pid: int
    started: int
    boot: str


@dataclass(frozen=True)
class Mark:
    """Whose a process is. instance: the data it works on, which a new clone does not share."""

    checkout: str
    instance: str
    part: str


@dataclass(frozen=True)
class Record:
    """What a start leaves behind: who runs, and from which command and configuration."""

    identity: Identity
    fingerprint: str


def boot_id(proc: Path = PROC) -> str:
    return (proc / "sys/kernel/random/boot_id").read_text().strip()


def identify(pid: int, proc: Path = PROC) -> Identity | None:
    """The process that has this pid now; None where there is none, or only its remains."""
    try:
        stat = (proc / str(pid) / "stat").read_text()
    except OSError:
        return None
    fields = stat[stat.rindex(")") + 2 :].split()
    if fields[0] in "ZX":
        return None
    return Identity(pid=pid, started=int(fields[19]), boot=boot_id(proc))


def alive(identity: Identity, proc: Path = PROC) -> bool:
    return identify(identity.pid, proc) == identity


def instance(layout: Layout) -> str:
    """The name of this checkout's data, made with it and removed with it; empty before."""
    path = layout.cluster / "instance"
    return path.read_text() if path.exists() else ""


def name_instance(layout: Layout) -> None:
    """Gives the data its name, once."""
    path = layout.cluster / "instance"
    if not path.exists():
        write_private(path, secrets.token_hex(8))


def marks(layout: Layout, part: str) -> dict[str, str]:
    """The environment by which a later run finds what was started here."""
    return {
        MARK_CHECKOUT: str(layout.checkout),
        MARK_INSTANCE: instance(layout),
        MARK_PART: part,
    }


def inherited() -> dict[str, str]:
    """What a server takes over from whoever starts it; the rest of a shell is not its business."""
    return {name: os.environ[name] for name in KEPT if name in os.environ}


def marked(proc: Path = PROC) -> dict[Identity, Mark]:
    """Every process that any checkout has started, and what those have started in turn.

    Processes in another network than ours, a container's for instance, are no neighbours.
    """
    found = {}
    here = network(proc / "self")
    for entry in proc.iterdir():
        if not entry.name.isdigit() or network(entry) != here:
            continue
        try:
            variables = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        values = dict(item.partition(b"=")[::2] for item in variables)
        if MARK_CHECKOUT.encode() not in values:
            continue
        identity = identify(int(entry.name), proc)
        if identity:
            names = (MARK_CHECKOUT, MARK_INSTANCE, MARK_PART)
            found[identity] = Mark(*(values.get(n.encode(), b"").decode() for n in names))
    return found


def network(entry: Path) -> str:
    """The network namespace of a process, by its folder in /proc."""
    try:
        return os.readlink(entry / "ns" / "net")
    except OSError:
        return ""


def leads(identity: Identity, proc: Path = PROC) -> bool:
    """Whether it leads a session, as what we start does and what inherits its mark does not."""
    try:
        fields = (proc / str(identity.pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return int(fields[3]) == identity.pid


def fingerprint(argv: Sequence[str], files: Mapping[Path, str], env: Mapping[str, str]) -> str:
    """Changes when a running process no longer is what would be started."""
    digest = hashlib.sha256()
    binary = Path(argv[0]).resolve()
    if binary.exists():
        stat = binary.stat()
        digest.update(f"{binary} {stat.st_size} {stat.st_mtime_ns}".encode())
    for text in (*argv, *(f"{p}={files[p]}" for p in sorted(files)), *sorted(env.items())):
        digest.update(repr(text).encode())
    return digest.hexdigest()


def read_record(path: Path) -> Record | None:
    """The record, or None where there is none that can be read (a run killed while writing)."""
    try:
        found = json.loads(path.read_text())
        return Record(Identity(**found["identity"]), found["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def start(
    layout: Layout, name: str, argv: Sequence[str], env: Mapping[str, str], print_of: str
) -> Identity:
    """Starts a process in a session of its own and records it; its output goes to its log."""
    log = layout.log / f"{name}.log"
    if log.exists() and log.stat().st_size > LOG_LIMIT:
        log.replace(log.with_suffix(".log.1"))
    with log.open("ab") as output:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**inherited(), **env, **marks(layout, name)},
            cwd="/",
            start_new_session=True,
        )
    # A child that has already failed is seen by whoever waits for it to answer.
    identity = identify(child.pid) or Identity(child.pid, 0, boot_id())
    record = Record(identity, print_of)
    write_private(layout.run / f"{name}.json", json.dumps(asdict(record)))
    return identity


def _signal(identity: Identity, number: signal.Signals) -> int | None:
    """Sends a signal and returns the open pidfd; None where the process is no more."""
    try:
        fd = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return None
    if not alive(identity):
        os.close(fd)
        return None
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(fd, number)
    return fd


def stop(identities: Iterable[Identity], grace: float = 10.0) -> None:
    """Stops processes: asks, waits up to `grace` seconds, then kills."""
    pending = list(identities)
    for number, wait in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
        fds = [fd for one in pending if (fd := _signal(one, number)) is not None]
        deadline = time.monotonic() + wait
        waiting = set(fds)
        while waiting and time.monotonic() < deadline:
            ready, _, _ = select.select(list(waiting), [], [], 0.2)
            waiting -= set(ready)
        for fd in fds:
            os.close(fd)
        pending = [one for one in pending if alive(one)]
