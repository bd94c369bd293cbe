"""Commands of others that take a while: logged, stopped with the run, found again if it dies.

A command carries the checkout's mark in its environment, as the servers do; a run that begins
ends the commands which a killed run has left.
"""

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bootstrap import processes
from bootstrap.paths import Layout
from bootstrap.schedule import Task

JOB = "job:"
"""How the mark of a command differs from that of a server."""


def start(layout: Layout, name: str, argv: Sequence[str]) -> None:
    """Starts a command that nobody waits for."""
    subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**processes.inherited(), **processes.marks(layout, f"{JOB}{name}")},
        start_new_session=True,
    )


def run(
    layout: Layout,
    task: Task,
    argv: Sequence[str],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    each: Callable[[], None] = lambda: None,
) -> int:
    """Runs a command to its end, output to `log`; returns its exit status.

    each: called about twice a second, to say how far it is.
    """
    marks = processes.marks(layout, f"{JOB}{task.name}")
    with log.open("wb") as output:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {}), **marks},
            cwd=cwd,
            start_new_session=True,
        )
        try:
            while True:
                try:
                    return child.wait(timeout=0.5)
                except subprocess.TimeoutExpired:
                    task.check()
                    each()
        except BaseException:
            _end(child)
            raise


def _end(child: "subprocess.Popen[bytes]") -> None:
    """Ends the command with all that it has started: it leads a process group of its own."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        try:
            child.wait(timeout=10)
        except subprocess.TimeoutExpired:
            continue
        break


def tail(path: Path, lines: int = 5) -> str:
    """The end of a log, for an error a person reads."""
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def end_orphans(layout: Layout) -> int:
    """Ends commands of a run that was killed. Only for the holder of the run's lock."""
    left = [
        one
        for one, mark in processes.marked().items()
        if mark.checkout == str(layout.checkout) and mark.part.startswith(JOB)
    ]
    processes.stop(left, grace=5)
    return len(left)
