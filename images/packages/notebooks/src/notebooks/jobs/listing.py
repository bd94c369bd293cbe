"""`python -m notebooks.jobs.listing`: the notebooks of a home, one JSON object a line.

The last line says how many they are, and whether there are more than that, so that a listing that
was cut off is not taken for a whole one. Hidden folders are left out, for editors keep copies
there, and links are not followed.
"""

import json
import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

LARGEST = 5000
"""Notebooks at most; a home with more is no list that a person reads."""

SKIPPED = {"__pycache__", "node_modules", "site-packages", "lost+found"}


def notebooks(home: Path) -> Iterator[dict[str, Any]]:
    """`path` relative to the home, `size` in bytes, `modified` in ISO 8601, UTC."""
    for folder, folders, files in os.walk(home):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f not in SKIPPED)
        for name in sorted(files):
            file = Path(folder) / name
            if not name.endswith(".ipynb") or name.startswith(".") or file.is_symlink():
                continue
            try:
                path = file.relative_to(home).as_posix()
                path.encode()
                seen = file.stat()
            except (OSError, UnicodeEncodeError):  # gone since, or with a name that is no text
                continue
            modified = datetime.fromtimestamp(seen.st_mtime, UTC).isoformat(timespec="seconds")
            yield {"path": path, "size": seen.st_size, "modified": modified}


def main() -> None:
    found = notebooks(Path.home())
    count = 0
    for notebook in islice(found, LARGEST):
        count += 1
        print(json.dumps(notebook))
    more = {"more": True} if next(found, None) else {}
    print(json.dumps({"count": count, **more}))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
