"""Whether everything that should be mounted is, and can be written to where it should.

Asked before a server starts. A volume whose mount is missing looks like an empty folder: a person
would begin anew beside their work, and what they write would be gone with the pod.
"""

import errno
import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

VARIABLE = "MLHUB_MOUNTS"
"""`{"/home/jovyan": "write", "/datasets": "read"}`, said by the hub."""

FUSE = "MLHUB_FUSE"
"""Which of them are FUSE's, so that a folder of the node in their place is found out: paths with
spaces between them; one that ends in `/` means all beneath."""

SECONDS = 10.0
"""How long a mount may take to answer: it is a network's."""

MOUNTS = Path("/proc/self/mountinfo")
FULL = (errno.ENOSPC, errno.EDQUOT)


class Trouble(Exception):  # noqa: N818 - a person's, not a program's
    """Why a server must not start, as a sentence for its owner."""


def kinds(mountinfo: str) -> dict[str, str]:
    """File system by mount point (proc(5)): the last one at a point covers those before."""
    found = {}
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        point = before.split(" ")[4].encode().decode("unicode_escape")
        found[point] = after.split(" ")[0]
    return found


def check(path: str, *, write: bool, kind: str | None, fuse: bool) -> None:
    """Raises Trouble where the mount at `path` is not as it should be."""
    if fuse and not (kind or "").startswith("fuse"):
        raise Trouble(
            f"The volume of {path} is not mounted, so its files are not there. Nothing is lost: "
            "stop the server and start it again, and tell your administrator if this stays."
        )
    probe = Path(path) / f".mlhub-probe-{os.getpid()}"
    try:
        os.listdir(path)
        if write:
            probe.write_bytes(b"")
            probe.unlink()
    except OSError as error:
        if error.errno in FULL:
            return  # whoever wants to empty it needs the server
        if error.errno == errno.EROFS:
            why = "can only be read, and has to be written to"
        else:
            why = f"does not work ({error.strerror})"
        raise Trouble(
            f"The volume of {path} {why}. Your files are kept; start the server again, and tell "
            "your administrator if this stays."
        ) from None


def wrong(environment: Mapping[str, str]) -> str | None:
    """The first thing that is wrong with the mounts, or None. Says so within SECONDS for each."""
    mounts: dict[str, str] = json.loads(environment.get(VARIABLE) or "{}")
    there = kinds(MOUNTS.read_text())
    fuse = environment.get(FUSE, "").split()
    for path, mode in mounts.items():
        told: list[str] = []
        is_fuse = any(path == one or (one.endswith("/") and path.startswith(one)) for one in fuse)

        def look(
            path: str = path, write: bool = mode == "write", fuse: bool = is_fuse, told: Any = told
        ) -> None:
            try:
                check(path, write=write, kind=there.get(path), fuse=fuse)
                told.append("")
            except Trouble as trouble:
                told.append(str(trouble))

        # In a thread of its own: a call to a mount that hangs never comes back.
        looking = threading.Thread(target=look, daemon=True)
        looking.start()
        looking.join(SECONDS)
        if not told:
            return (
                f"The volume of {path} does not answer within {SECONDS:.0f} s. Your files are "
                "kept; try again in a minute, and tell your administrator if this stays."
            )
        if told[0]:
            return told[0]
    return None
