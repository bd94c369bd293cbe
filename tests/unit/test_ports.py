"""The tests run beside each other: none may be given another's port."""

import itertools
import subprocess
import sys
from pathlib import Path

from tests import ports

OTHER = """
import itertools
from tests import ports
ports._next = itertools.count({at})
print(*[ports.free_port() for _ in range(20)], flush=True)
input()
"""


def test_two_processes_are_never_given_the_same_port(monkeypatch):
    """Where one has come to the other's numbers a test would talk to the other's server."""
    at = next(ports._next)
    with subprocess.Popen(
        [sys.executable, "-c", OTHER.format(at=at)],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        theirs = other.stdout.readline().split()
        monkeypatch.setattr(ports, "_next", itertools.count(at))
        ours = [str(ports.free_port()) for _ in range(20)]
        other.communicate("")
    assert len({*theirs, *ours}) == 40
