"""Which work a notebook goes on with: only what was begun with the same data, parameters and code.

Runs of a sweep share the notebook's folder, and a person changes a parameter and runs again. What
an earlier run left is this one's own only where nothing but `trials` or `epochs` differs.
"""

import fcntl
import hashlib
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd


def fingerprint(*data: pd.DataFrame | np.ndarray, **settings: object) -> str:
    """Ten hexadecimal digits for tables or arrays and all that their results depend on.

    A function in `settings` counts by its source, anything else by its `repr`.
    """
    told = {
        name: inspect.getsource(value) if inspect.isfunction(value) else repr(value)
        for name, value in sorted(settings.items())
    }
    digest = hashlib.sha256(repr(told).encode())
    for part in data:
        if isinstance(part, pd.DataFrame):
            digest.update(repr((part.shape, part.dtypes.to_dict())).encode())
            values: np.ndarray = pd.util.hash_pandas_object(part).to_numpy()
        else:
            digest.update(repr((part.shape, part.dtype)).encode())
            values = part
        digest.update(values.tobytes())
    return digest.hexdigest()[:10]


def progress(work: object, done: int, wanted: int, units: str) -> str:
    """Says before the work what it begins with: `units` are trials, epochs."""
    if not done:
        return f"{work}: begins anew"
    if done < wanted:
        return f"{work}: goes on after {done} of {wanted} {units}"
    return f"{work}: finished earlier, with {done} {units}; none is added"


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Make the folder and keep other notebooks out of it: one waits, and says so, for the other.

    The lock goes with its process, so that a killed kernel leaves none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{folder}: waits for another notebook that is at the same work")
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            # Some shared file systems have none.
            print(f"{folder}: no lock ({error.strerror}); run no other notebook at the same work")
        yield
