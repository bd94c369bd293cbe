"""`mlhub-start COMMAND …`: look for the mounts, seed the home, begin as asked, become the command.

The entry point of every user image. A volume that is not there, or cannot be written to, ends it
with a sentence. Whatever else is wrong with the home is said in the log and never keeps the server
from starting: a person whose disk is full needs their server to empty it.

The command is the image's, not the home's. A person may install anything into `~/.local`, also
another version of Jupyter by accident; the server neither finds its commands nor imports its
modules there. Kernels and terminals do.
"""

import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from notebooks import mounts
from notebooks.begin import begin
from notebooks.seed import seed

NOT_MOUNTED = 74
"""EX_IOERR; the hub shows what LAST_WORD says (`mlhub.hub.trouble`)."""

LAST_WORD = Path("/dev/termination-log")
"""Kubernetes' `terminationMessagePath`."""


def say(what: str) -> None:
    print(f"mlhub-start: {what}", file=sys.stderr, flush=True)


def seed_without_failing(home: Path) -> None:
    start = time.monotonic()
    try:
        seeded = seed(home)
    except Exception as error:  # any trouble of the home: the server must start
        say(f"no examples copied to {home}: {error}; the server starts without them.")
        return
    if seeded.copied:
        names = ", ".join(seeded.copied)
        say(f"copied to {home}/examples: {names} ({time.monotonic() - start:.2f} s)")
    if seeded.kept:
        say(f"already in {home}/examples, left as it is: {', '.join(seeded.kept)}")


def image_path(path: str, home: Path) -> str:
    """A search path without the folders of the home."""
    return os.pathsep.join(p for p in path.split(os.pathsep) if not Path(p).is_relative_to(home))


def command_line(argv: Sequence[str], home: Path, path: str) -> list[str] | None:
    """What to execute for a command, or None where the image has no such command.

    A Python script runs with `-s`, so that it imports nothing from `~/.local`.
    """
    program = shutil.which(argv[0], path=image_path(path, home))
    if program is None:
        return None
    with open(program, "rb") as stream:
        first = stream.readline()
    if first.startswith(b"#!") and b"python" in first:
        return [sys.executable, "-s", program, *argv[1:]]
    return [program, *argv[1:]]


def main() -> None:
    home = Path.home()
    argv = sys.argv[1:]
    if not argv:
        sys.exit("usage: mlhub-start COMMAND …, for instance mlhub-start jupyterhub-singleuser")
    line = command_line(argv, home, os.environ.get("PATH", os.defpath))
    if line is None:
        say(f"the image has no command {argv[0]}; it was looked for in {os.environ.get('PATH')}.")
        sys.exit(127)
    if why := mounts.wrong(os.environ):
        say(why)
        LAST_WORD.write_text(why)
        sys.exit(NOT_MOUNTED)
    seed_without_failing(home)
    try:
        begin(home, os.environ, say)
    except Exception as error:  # as above
        say(f"not all that this session was to begin with is there: {error}")
    os.execv(line[0], line)  # noqa: S606


if __name__ == "__main__":
    main()
