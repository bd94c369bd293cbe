"""Where a run may read and write: inside the home, whatever the path says."""

import os
from pathlib import Path, PurePosixPath


class PathRefusedError(Exception):
    """A path that a run does not take; the sentence says why and what to do."""

    def __init__(self, reason: str, sentence: str):
        super().__init__(sentence)
        self.reason = reason


def inside(home: Path, relative: str) -> Path:
    """The real path of `relative` under `home`; raises PathRefusedError where it leads out of it.

    Links are followed first and judged by where they end, as is the parent of a file that does not
    exist yet.
    """
    given = PurePosixPath(relative)
    if given.is_absolute() or ".." in given.parts or "\0" in relative or "://" in relative:
        raise PathRefusedError(
            "path-refused", f"{relative!r} is no path inside the home; name one relative to it."
        )
    real_home = home.resolve()
    real = (real_home / given).resolve()
    if real == real_home or not real.is_relative_to(real_home):
        raise PathRefusedError(
            "path-refused",
            f"{relative!r} leads out of the home by a link; copy the file into the home.",
        )
    return real


def read_notebook(home: Path, relative: str, largest: int) -> bytes:
    """The content of a notebook of at most `largest` bytes; raises PathRefusedError."""
    path = inside(home, relative)
    if path.suffix != ".ipynb":
        raise PathRefusedError(
            "path-refused", f"{relative!r} is no notebook; its name ends in .ipynb."
        )
    try:
        # Neither a link put there since, nor a pipe that would never end.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise PathRefusedError(
            "not-found", f"There is no notebook {relative!r} in the home; list those that are."
        ) from None
    except OSError as error:
        raise PathRefusedError(
            "path-refused", f"{relative!r} cannot be read: {error.strerror}."
        ) from None
    with os.fdopen(handle, "rb") as stream:
        if not path.is_file():
            raise PathRefusedError("path-refused", f"{relative!r} is no file.")
        content = stream.read(largest + 1)
    if len(content) > largest:
        raise PathRefusedError(
            "too-large",
            f"{relative!r} is larger than {largest >> 20} MiB; clear its outputs and save it.",
        )
    return content


def publish(finished: Path, place: Path) -> None:
    """Move `finished` to `place`, whole, where nothing is yet; raises FileExistsError."""
    try:
        os.link(finished, place)
    except FileExistsError:
        raise
    except OSError:  # some network file systems have no hard links
        if os.path.lexists(place):
            raise FileExistsError(place) from None
        os.rename(finished, place)
        return
    finished.unlink()
