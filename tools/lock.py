"""Lock what is installed, here and in the images: each requirements `.in` to a `.txt` with hashes.

Those of projects are where the stack files say (`images.build.projects`).

One lock serves both architectures: it is resolved for every platform, with markers, for the
Python 3.11 that Debian and the base image have. `--check` changes nothing and fails where a lock
is not in step; `--upgrade` takes newer versions, otherwise what is locked stays.

A source that includes another by `-r` gets that one's versions wherever it can: an image then adds
to the layers of the image below instead of replacing them.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
SOURCES = (
    "requirements.in",
    "requirements-dev.in",
    "policies/requirements.in",
    "tools/uv.in",
    "tools/audit.in",
    "images/packages/build-requirements.in",
    "images/*/requirements.in",
)


def sources(root: Path = ROOT) -> list[Path]:
    """What there is to lock, each once, an included file before those that include it."""
    found = [file for pattern in SOURCES for file in sorted(root.glob(pattern))]
    each = dict.fromkeys([*found, *of_projects(root)])
    return sorted(each, key=lambda source: len(lineage(source)))


def of_projects(root: Path = ROOT) -> Iterator[Path]:
    """The sources of the projects' images, whose locks the stack files name. Raises SystemExit with
    a sentence for one that is not there.
    """
    for file in sorted(root.glob("stacks/Pulumi.*.yaml")):
        config = (yaml.safe_load(file.read_text(encoding="utf-8")) or {}).get("config") or {}
        build = config.get("mlhub:images", {}).get("build") or {}
        for number, project in enumerate(build.get("projects") or ()):
            lock = Path(project["requirements"])
            source = lock.with_suffix(".in")
            if not (root / source).is_file():
                raise SystemExit(
                    f"{file.relative_to(root)}: images.build.projects[{number}].requirements is "
                    f"{lock}; write {source}, of which it is made"
                )
            yield root / source


def lineage(source: Path) -> list[Path]:
    """The source that `source` includes by `-r`, the one that this includes, and so on."""
    included = re.search(r"^-r (\S+)", source.read_text(), re.MULTILINE)
    if included is None:
        return []
    below = (source.parent / included[1]).resolve()
    return [below, *lineage(below)]


def entries(lock: Path) -> dict[str, str]:
    """The text of a lock's entries by package; a package has several where markers differ."""
    found: dict[str, str] = {}
    for entry in (
        re.split(r"^(?=\S)", lock.read_text(), flags=re.MULTILINE) if lock.exists() else ()
    ):
        name = re.split("[=<>!~ ;]", entry, maxsplit=1)[0]
        found[name] = found.get(name, "") + entry
    return found


def preferred(source: Path, *, upgrade: bool) -> str:
    """The versions to keep where they fit, as a lock: the included one's before its own."""
    below: dict[str, str] = {}
    for included in reversed(lineage(source)):
        below |= entries(included.with_suffix(".txt"))
    own = {} if upgrade else entries(source.with_suffix(".txt"))
    return "".join((own | below).values())


def compile_lock(source: Path, *, upgrade: bool) -> str:
    """The lock of `source`, made anew."""
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--no-header"]
    command += ["--universal", "--python-version", "3.11", "--generate-hashes"]
    command += ["--no-annotate", "--no-config"]
    with tempfile.TemporaryDirectory() as folder:
        # uv keeps the versions that it finds in its output file.
        lock = Path(folder) / "lock.txt"
        lock.write_text(preferred(source, upgrade=upgrade))
        subprocess.run([*command, str(source), "--output-file", str(lock)], check=True)
        return lock.read_text()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--check", action="store_true", help="fail where a lock is not in step")
    choice.add_argument("--upgrade", action="store_true", help="take newer versions")
    options = parser.parse_args()
    stale = []
    for source in sources():
        start = time.monotonic()
        name, lock = source.relative_to(ROOT), source.with_suffix(".txt")
        if options.check:
            done = lock.exists() and lock.read_text() == compile_lock(source, upgrade=False)
            stale += [] if done else [str(name)]
            what = "in step" if done else "NOT in step"
        else:
            lock.write_text(compile_lock(source, upgrade=options.upgrade))
            what = "locked"
        print(f"{what}: {name} ({time.monotonic() - start:.1f} s)")
    if stale:
        print(f"{', '.join(stale)}: the lock differs from its source; run `make lock`.")
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
