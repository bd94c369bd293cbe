"""How fast folders are for what people do in a home: one table, all folders in one run.

    python -m tools.throughput home=/home/jovyan node=/tmp

Needs nothing but Python and git, so that it runs in a server's pod (docs/storage.md says how).
"""

import argparse
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

SMALL_FILES, SMALL_BYTES = 1000, 4096
REPOSITORY_FILES = 500
LARGE_MB = 256
COMMITS = 100
MB = 2**20


def small_files(folder: Path) -> float:
    """Seconds to write, read and delete SMALL_FILES files of 4 KiB."""
    began = time.monotonic()
    content = os.urandom(SMALL_BYTES)
    files = [folder / f"{number % 20}" / f"{number}.txt" for number in range(SMALL_FILES)]
    for file in files:
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)
    assert all(file.read_bytes() == content for file in files)  # noqa: S101
    for file in files:
        file.unlink()
    return time.monotonic() - began


def repository(folder: Path) -> Path:
    """A repository to clone, made once, on the machine's own disk."""
    for number in range(REPOSITORY_FILES):
        file = folder / f"package{number % 25}" / f"module{number}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"# {number}\n" + "x = 1\n" * (number % 200))
    said = ["-c", "user.name=x", "-c", "user.email=x@example.com", "-c", "init.defaultBranch=main"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "all"]):
        subprocess.run(["git", *said, *command], cwd=folder, check=True)
    return folder


def clone(source: Path) -> Callable[[Path], float]:
    def run(folder: Path) -> float:
        """Seconds of a git clone of REPOSITORY_FILES files."""
        began = time.monotonic()
        subprocess.run(
            ["git", "clone", "-q", f"file://{source}", str(folder / "clone")], check=True
        )
        return time.monotonic() - began

    return run


def install(folder: Path) -> float:
    """Seconds of a virtual environment, in which pip installs itself: some 900 files."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    return time.monotonic() - began


def large_write(folder: Path) -> float:
    """MB/s of one file, written and synced."""
    block = os.urandom(MB)
    began = time.monotonic()
    with (folder / "large").open("wb") as file:
        for _ in range(LARGE_MB):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    return LARGE_MB / (time.monotonic() - began)


def large_read(folder: Path) -> float:
    """MB/s of the same file, without what the kernel still holds of it."""
    path = folder / "large"
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        began = time.monotonic()
        while file.read(MB):
            pass
    return LARGE_MB / (time.monotonic() - began)


def commits(folder: Path) -> float:
    """Milliseconds of one commit to an SQLite database."""
    with sqlite3.connect(folder / "history.sqlite") as database:
        database.execute("CREATE TABLE history (line TEXT)")
        began = time.monotonic()
        for number in range(COMMITS):
            database.execute("INSERT INTO history VALUES (?)", (f"x = {number}",))
            database.commit()
        return (time.monotonic() - began) * 1000 / COMMITS


def table(folders: dict[str, Path], source: Path) -> str:
    tries: dict[str, Callable[[Path], float]] = {
        f"{SMALL_FILES} files of 4 KiB: write, read, delete (s)": small_files,
        f"git clone, {REPOSITORY_FILES} files (s)": clone(source),
        "python -m venv (s)": install,
        f"one file of {LARGE_MB} MB: write and sync (MB/s)": large_write,
        "the same file: read (MB/s)": large_read,
        "SQLite: one commit (ms)": commits,
    }
    lines = [f"| | {' | '.join(folders)} |", "|---" * (len(folders) + 1) + "|"]
    for what, measure in tries.items():
        found = [f"{measure(folder):.1f}" for folder in folders.values()]
        lines.append(f"| {what} | {' | '.join(found)} |")
        print(lines[-1], file=sys.stderr)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", metavar="NAME=FOLDER")
    given = dict(one.split("=", 1) for one in parser.parse_args().folders)
    with tempfile.TemporaryDirectory() as made:
        folders = {
            name: Path(tempfile.mkdtemp(prefix=".throughput-", dir=folder))
            for name, folder in given.items()
        }
        try:
            print(table(folders, repository(Path(made))))
        finally:
            for folder in folders.values():
                shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
