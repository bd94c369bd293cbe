"""Files that are whole or absent: written aside, then renamed."""

import os
import tempfile
from pathlib import Path


def write_private(path: Path, content: str | bytes, mode: int = 0o600) -> None:
    """Replaces `path` in one step. A reader, or a run killed here, sees the old or the new."""
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    fd, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(aside).chmod(mode)
        Path(aside).replace(path)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise


def write_if_changed(path: Path, content: str, mode: int = 0o600) -> bool:
    """Writes only what differs; returns whether it did."""
    if path.exists() and path.read_text() == content:
        path.chmod(mode)
        return False
    write_private(path, content, mode)
    return True
