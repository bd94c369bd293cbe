"""Lock what is installed, here and in the images: each requirements `.in` to a `.txt` with hashes.

One lock serves both architectures: it is resolved for every platform, with markers, for the
Python 3.11 that Debian and the base image have. `--check` changes nothing and fails where a lock
is not in step; `--upgrade` takes newer versions, otherwise what is locked stays.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCES = (
    "requirements.in",
    "requirements-dev.in",
    "tools/uv.in",
    "images/packages/build-requirements.in",
    "images/*/requirements.in",
)


def sources() -> list[Path]:
    """What there is to lock, in an order where an included file comes first."""
    return [file for pattern in SOURCES for file in sorted(ROOT.glob(pattern))]


def compile_lock(source: Path, lock: Path, *, upgrade: bool) -> None:
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--no-header"]
    command += ["--universal", "--python-version", "3.11", "--generate-hashes"]
    command += ["--no-annotate", "--no-config"]
    command += ["--upgrade"] if upgrade else []
    subprocess.run([*command, str(source), "--output-file", str(lock)], check=True)


def in_step(source: Path) -> bool:
    """Whether compiling again, from the versions locked, gives the same lock."""
    lock = source.with_suffix(".txt")
    if not lock.exists():
        return False
    with tempfile.TemporaryDirectory() as folder:
        again = Path(folder) / lock.name
        shutil.copy(lock, again)
        compile_lock(source, again, upgrade=False)
        return again.read_text() == lock.read_text()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--check", action="store_true", help="fail where a lock is not in step")
    choice.add_argument("--upgrade", action="store_true", help="take newer versions")
    options = parser.parse_args()
    stale = []
    for source in sources():
        start = time.monotonic()
        name = source.relative_to(ROOT)
        if options.check:
            done = in_step(source)
            stale += [] if done else [str(name)]
            what = "in step" if done else "NOT in step"
        else:
            compile_lock(source, source.with_suffix(".txt"), upgrade=options.upgrade)
            what = "locked"
        print(f"{what}: {name} ({time.monotonic() - start:.1f} s)")
    if stale:
        print(f"{', '.join(stale)}: the lock differs from its source; run `make lock`.")
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
