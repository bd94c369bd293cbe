"""Steps that wait for each other, run side by side.

A step starts when what it needs is done and its resource has room. The first failure ends the run:
what has not begun does not begin, what runs is asked to stop, and the failure is told.
"""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Protocol

from bootstrap.errors import BootstrapError


class CancelledError(Exception):
    """The run ends for another step's failure."""


@dataclass
class Task:
    """What a running step says of itself, and how it learns that it should stop.

    fraction: how much is done, 0 to 1; None where nobody can say.
    remaining: seconds that are still to come, as well as one can tell.
    """

    name: str
    cancelled: threading.Event
    started: float = field(default_factory=time.monotonic)
    note: str = ""
    fraction: float | None = None
    remaining: float | None = None

    def say(self, note: str) -> None:
        self.check()
        self.note = note

    def check(self) -> None:
        if self.cancelled.is_set():
            raise CancelledError(self.name)


@dataclass(frozen=True)
class Step:
    """run: does the work, returns in a few words what was done."""

    name: str
    run: Callable[[Task], str]
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Done:
    name: str
    seconds: float
    outcome: str


class Watcher(Protocol):
    """Shows a run to a person."""

    def began(self, task: Task) -> None: ...

    def ended(self, done: Done) -> None: ...

    def tick(self, running: Sequence[Task]) -> None: ...


def check(steps: Sequence[Step]) -> None:
    """Every need names a step, no name is taken twice, and no step waits for itself."""
    names = [step.name for step in steps]
    if len(set(names)) != len(names):
        raise ValueError(f"a step is there twice: {sorted(names)}")
    left = {step.name: set(step.needs) for step in steps}
    for name, needs in left.items():
        if missing := needs - left.keys():
            raise ValueError(f"step {name} needs {sorted(missing)}, which no step is")
    while left:
        free = [name for name, needs in left.items() if not needs & left.keys()]
        if not free:
            raise ValueError(f"steps wait for each other: {sorted(left)}")
        for name in free:
            del left[name]


def run(steps: Sequence[Step], watcher: Watcher, tick: float = 0.5) -> list[Done]:
    """Runs all steps; returns them in the order in which they ended.

    Raises the first failure; one that a person reads begins with its step's name.
    """
    check(steps)
    waiting = list(steps)
    cancelled = threading.Event()
    running: dict[Future[str], tuple[Step, Task]] = {}
    done: list[Done] = []
    failure: BaseException | None = None
    with ThreadPoolExecutor(max_workers=max(1, len(steps))) as pool:
        try:
            while waiting or running:
                finished = {one.name for one in done}
                for step in [] if failure else list(waiting):
                    if not finished.issuperset(step.needs):
                        continue
                    waiting.remove(step)
                    task = Task(step.name, cancelled)
                    watcher.began(task)
                    running[pool.submit(step.run, task)] = (step, task)
                if not running:
                    break
                ended, _ = wait(running, timeout=tick, return_when=FIRST_COMPLETED)
                for future in ended:
                    step, task = running.pop(future)
                    error = future.exception()
                    seconds = time.monotonic() - task.started
                    if error is None:
                        done.append(Done(step.name, seconds, future.result()))
                        watcher.ended(done[-1])
                    elif not isinstance(error, CancelledError):
                        failure = failure or _told(step, error)
                        cancelled.set()
                watcher.tick([task for _, task in running.values()])
        except BaseException:
            cancelled.set()
            raise
    if failure:
        raise failure
    return done


def _told(step: Step, error: BaseException) -> BaseException:
    if isinstance(error, BootstrapError):
        return BootstrapError(f"{step.name}: {error}")
    return error
