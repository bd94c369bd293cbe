"""The control group below which every pod runs: made, measured, emptied and removed."""

import contextlib
from pathlib import Path

from bootstrap.node import CGROUP
from bootstrap.processes import Identity, identify

ROOT = Path("/sys/fs/cgroup")


def hierarchies(root: Path = ROOT) -> list[Path]:
    """The mounted hierarchies that account for anything: one in version 2, several in version 1."""
    if (root / "cgroup.controllers").exists():
        return [root]
    if not root.is_dir():
        return []
    found = (entry for entry in root.iterdir() if entry.is_dir() and not entry.is_symlink())
    return sorted(entry for entry in found if (entry / "cgroup.procs").exists())


def ensure(root: Path = ROOT) -> None:
    """Makes the group in each hierarchy; under version 2 hands it every controller."""
    for hierarchy in hierarchies(root):
        group = hierarchy / CGROUP
        group.mkdir(exist_ok=True)
        controllers = hierarchy / "cgroup.controllers"
        if controllers.exists():
            for name in controllers.read_text().split():
                for parent in (hierarchy, group):
                    with contextlib.suppress(OSError):
                        (parent / "cgroup.subtree_control").write_text(f"+{name}")


def members(root: Path = ROOT) -> set[Identity]:
    """Every process of every pod."""
    found = set()
    for hierarchy in hierarchies(root):
        for file in (hierarchy / CGROUP).rglob("cgroup.procs"):
            with contextlib.suppress(OSError):
                for pid in file.read_text().split():
                    identity = identify(int(pid))
                    if identity:
                        found.add(identity)
    return found


def remove(root: Path = ROOT) -> None:
    """Removes the emptied group, deepest first. A group still in use stays."""
    for hierarchy in hierarchies(root):
        top = hierarchy / CGROUP
        folders = [path for path in top.rglob("*") if path.is_dir()]
        for folder in [*sorted(folders, key=lambda path: -len(path.parts)), top]:
            with contextlib.suppress(OSError):
                folder.rmdir()
