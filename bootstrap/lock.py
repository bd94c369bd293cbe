"""One `up` or `down` at a time in a checkout, and on the machine."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from bootstrap.errors import BootstrapError

MACHINE = Path("/run/mlhub.lock")


@contextlib.contextmanager
def held(path: Path, verb: str) -> Iterator[None]:
    """Holds the lock; the kernel lets it go with the process, however that ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise BootstrapError(
                f"{holder} is under way and holds {path}. Wait until it ends, or stop it; then "
                "run this again."
            ) from None
        file.truncate(0)
        file.write(f"`{verb}` (process {os.getpid()})")
        file.flush()
        yield
