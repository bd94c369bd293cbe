"""Copy the example notebooks into a home, once.

A file is copied when its name was never offered to this home before and nothing of that name is
there. What was offered is kept in `~/.local/share/mlhub/examples.json`, so an example that a person
deleted stays deleted, one that they changed stays as it is, and a new image brings only new ones.

Each copy appears whole or not at all. A killed run is repeated by the next start: the record is
written after the copies, and a copy that is already there counts as offered.
"""

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

EXAMPLES = Path(__file__).parent / "examples"
FOLDER = "examples"
RECORD = Path(".local/share/mlhub/examples.json")
UNFINISHED = ".seeding"


class RecordError(Exception):
    """What was offered to this home is not known, so nothing can safely be copied."""


@dataclass(frozen=True)
class Seeded:
    """Names copied now, and names that were left alone because the person had such a file."""

    copied: tuple[str, ...]
    kept: tuple[str, ...]


def read_record(file: Path) -> set[str]:
    """Names offered to this home so far.

    Raises RecordError for a file that is no record.
    """
    try:
        return set(json.loads(file.read_text(encoding="utf-8"))["offered"])
    except FileNotFoundError:
        return set()
    except (ValueError, KeyError, TypeError) as error:
        raise RecordError(
            f"{file} is not the record of examples that it should be; "
            "delete it to be offered all examples again."
        ) from error


def write_whole(file: Path, content: bytes) -> None:
    """Write a file that did not exist, so that it appears with all its content.

    Raises FileExistsError rather than replace anything.
    """
    handle, unfinished = tempfile.mkstemp(UNFINISHED, f".{file.name}.", file.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(unfinished, 0o644)
        try:
            os.link(unfinished, file)
        except FileExistsError:
            raise
        except OSError:  # some network file systems have no hard links
            if os.path.lexists(file):
                raise FileExistsError(file) from None
            os.rename(unfinished, file)
            return
    finally:
        Path(unfinished).unlink(missing_ok=True)


def write_record(file: Path, offered: set[str]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, unfinished = tempfile.mkstemp(UNFINISHED, f".{file.name}.", file.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            json.dump({"offered": sorted(offered)}, stream, indent=1)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(unfinished, file)
    finally:
        Path(unfinished).unlink(missing_ok=True)


def seed(home: Path, source: Path = EXAMPLES) -> Seeded:
    """Copy the examples that this home was never offered into `home/examples`.

    Raises OSError where the home cannot be written, and RecordError.
    """
    record = home / RECORD
    offered = read_record(record)
    new = sorted(file for file in source.glob("*.ipynb") if file.name not in offered)
    if not new:
        return Seeded((), ())

    folder = home / FOLDER
    folder.mkdir(exist_ok=True)
    for leftover in folder.glob(f".*{UNFINISHED}"):  # of a killed run
        leftover.unlink()
    copied, kept = [], []
    for file in new:
        try:
            write_whole(folder / file.name, file.read_bytes())
            copied.append(file.name)
        except FileExistsError:
            kept.append(file.name)
    write_record(record, offered | {file.name for file in new})
    return Seeded(tuple(copied), tuple(kept))
