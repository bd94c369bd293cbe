"""What a person sees: one line for each thing done, with its time, and what runs meanwhile."""

import json
import sys
import time
from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from bootstrap.files import write_private
from bootstrap.paths import Layout
from bootstrap.schedule import Done, Task

HEARTBEAT = 30.0
"""Seconds between lines about a running step, where no terminal can redraw one."""


def span(seconds: float) -> str:
    """A time as people say it: `0.4 s`, `42 s`, `3 min 05 s`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60:02d} s"


def remaining(task: Task) -> str:
    parts = [f"{task.fraction:.0%}"] if task.fraction is not None else []
    if task.remaining is not None:
        parts.append(f"about {span(max(1.0, task.remaining))} left")
    return ", ".join(parts)


class Lines:
    """For a log: a line when a step ends, and every half minute one about all that run."""

    def __init__(self) -> None:
        self.began_at = self.told_at = time.monotonic()

    def began(self, task: Task) -> None:
        pass

    def ended(self, done: Done) -> None:
        print(f"{span(done.seconds):>12}  {done.name}: {done.outcome}", flush=True)

    def tick(self, running: Sequence[Task]) -> None:
        now = time.monotonic()
        if running and now - self.told_at >= HEARTBEAT:
            self.told_at = now
            print(f"{span(now - self.began_at):>12}  … {pending(running)}", flush=True)

    def close(self) -> None:
        pass


def pending(running: Sequence[Task]) -> str:
    """What runs now, in one line; steps that wait for the same thing are named together."""
    told: dict[str, list[str]] = {}
    for task in running:
        note = " ".join(filter(None, [task.note, remaining(task)])) or "under way"
        told.setdefault(note, []).append(task.name)
    return "; ".join(f"{', '.join(names)}: {note}" for note, names in told.items())


class Bars:
    """For a terminal: the running steps below, each with its bar; done ones scroll up."""

    def __init__(self) -> None:
        self.progress = Progress(
            TextColumn("{task.fields[title]:>24}"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn("{task.fields[told]}"),
            console=Console(highlight=False),
            transient=True,
        )
        self.shown: dict[str, TaskID] = {}
        self.progress.start()

    def began(self, task: Task) -> None:
        self.shown[task.name] = self.progress.add_task("", total=None, title=task.name, told="")

    def ended(self, done: Done) -> None:
        self.progress.remove_task(self.shown.pop(done.name))
        self.progress.print(f"{span(done.seconds):>12}  {done.name}: {done.outcome}", markup=False)

    def tick(self, running: Sequence[Task]) -> None:
        for task in running:
            told = " ".join(filter(None, [task.note, remaining(task)]))
            total = None if task.fraction is None else 1.0
            self.progress.update(
                self.shown[task.name], total=total, completed=task.fraction or 0, told=told
            )

    def close(self) -> None:
        self.progress.stop()


def watcher() -> Lines | Bars:
    return Bars() if sys.stdout.isatty() else Lines()


def say(text: str) -> None:
    print(text, flush=True)


def table(done: Sequence[Done], total: float) -> str:
    """Where the time went, longest first. Steps run side by side, so they add up to more."""
    longest = sorted(done, key=lambda one: -one.seconds)
    rows = [f"{span(one.seconds):>12}  {one.name}" for one in longest if one.seconds >= 0.5]
    return "\n".join(["where the time went", *rows, f"{span(total):>12}  altogether"])


def write_times(layout: Layout, done: Sequence[Done], total: float) -> None:
    """`.mlhub/log/times.json`: the same table for CI, in seconds."""
    steps = [{"step": one.name, "seconds": round(one.seconds, 2)} for one in done]
    content = {"seconds": round(total, 2), "steps": steps}
    write_private(layout.log / "times.json", json.dumps(content, indent=1), mode=0o644)
