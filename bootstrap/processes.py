"""Processes that outlive the command which started them, known by more than a number.

A pid is reused and a record is lost when its writer is killed. So a process is known by pid, start
time and boot, and carries the name of its checkout in its environment, where a later run finds it
even if nothing was written down. A signal goes through a pidfd, which cannot reach a successor.
"""

import contextlib
import hashlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bootstrap.files import write_private

MARK_CHECKOUT = "MLHUB_CHECKOUT"
MARK_PART = "MLHUB_PART"
PROC = Path("/proc")
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


def marked(proc: Path = PROC) -> dict[Identity, tuple[str, str]]:
    """Every process started by any checkout: (checkout, part) by identity."""
    found = {}
    for entry in proc.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            variables = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        values = dict(item.partition(b"=")[::2] for item in variables)
        checkout = values.get(MARK_CHECKOUT.encode())
        identity = identify(int(entry.name), proc) if checkout else None
        if checkout and identity:
            part = values.get(MARK_PART.encode(), b"").decode()
            found[identity] = (checkout.decode(), part)
    return found


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
    name: str,
    argv: Sequence[str],
    *,
    checkout: Path,
    run: Path,
    log: Path,
    env: Mapping[str, str],
    print_of: str,
) -> Identity:
    """Starts a process in a session of its own and records it; its output goes to `log`."""
    if log.exists() and log.stat().st_size > LOG_LIMIT:
        log.replace(log.with_suffix(".log.1"))
    variables = {**os.environ, **env, MARK_CHECKOUT: str(checkout), MARK_PART: name}
    with log.open("ab") as output:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=variables,
            cwd="/",
            start_new_session=True,
        )
    identity = identify(child.pid)
    # A child that has already failed is seen by whoever waits for it to answer.
    identity = identity or Identity(child.pid, 0, boot_id())
    record = Record(identity, print_of)
    write_private(run / f"{name}.json", json.dumps(asdict(record)))
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


def stop(identities: Iterable[Identity], grace: float = 10.0) -> int:
    """Stops processes: asks, waits up to `grace` seconds, then kills. Returns how many ran."""
    pending = list(identities)
    stopped = 0
    for number, wait in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
        fds = [fd for one in pending if (fd := _signal(one, number)) is not None]
        stopped = stopped or len(fds)
        deadline = time.monotonic() + wait
        waiting = set(fds)
        while waiting and time.monotonic() < deadline:
            ready, _, _ = select.select(list(waiting), [], [], 0.2)
            waiting -= set(ready)
        for fd in fds:
            os.close(fd)
        pending = [one for one in pending if alive(one)]
        if not pending:
            break
    return stopped
