"""`python -m notebooks.jobs.cells`: Papermill on one notebook, telling how far it is.

The child of `notebooks.jobs.run`, which outlives it: it may be killed for its memory at any moment,
and then the parent still has the notebook as it was after the last cell. Reads a JSON object from
standard input, writes progress and the cells' output to standard output, what went wrong to
`report`. Exits 0, 1 for an error in a cell or its time limit, 138 for a dead kernel (Papermill).
"""

import json
import os
import re
import sys
from pathlib import Path
from typing import Any, ClassVar

import papermill  # type: ignore[import-untyped,unused-ignore]
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.engines import (  # type: ignore[import-untyped,unused-ignore]
    NBClientEngine,
    NotebookExecutionManager,
    papermill_engines,
)
from papermill.iorw import papermill_io  # type: ignore[import-untyped,unused-ignore]

from notebooks.jobs.counting import own

DEAD_KERNEL = 138
ATOMIC = "whole://"
"""A path that Papermill writes through `WholeFile`."""

LOGGED_BYTES = 256 * 1024
"""How much of the cells' output the log repeats; all of it is in the notebook."""

LONGEST_REASON = 200
"""Characters of an exception's own words in a run's message, which is one line in lists."""

LONGEST_TOLD = 8 * 1024
"""Characters of an exception, and of a part of its traceback; all of it is in the notebook."""

COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class WholeFile:
    """Papermill's file handler, other than its own never leaving half a notebook."""

    def write(self, text: str, path: str) -> None:
        file = Path(path.removeprefix(ATOMIC))
        unfinished = file.with_name(f"{file.name}.writing")
        with open(unfinished, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(unfinished, file)

    def pretty_path(self, path: str) -> str:
        return path.removeprefix(ATOMIC)


class Echo:
    """The cells' output on standard output, up to a limit."""

    def __init__(self) -> None:
        self.left = LOGGED_BYTES

    def write(self, text: str) -> None:
        if self.left <= 0:
            return
        sys.stdout.write(text[: self.left])
        self.left -= len(text)
        if self.left <= 0:
            say("the output goes on in the notebook; the log ends here")

    def flush(self) -> None:
        sys.stdout.flush()


def say(what: str) -> None:
    print(f"\n[mlhub] {what}", flush=True)


class Manager(NotebookExecutionManager):  # type: ignore[misc]
    """Papermill's own, saying where it is. `noted` are the notebooks' names in the home and the
    run's id, for the notebook's own metadata."""

    noted: ClassVar[dict[str, str]] = {}
    numbers: ClassVar[list[int]] = []
    """Of each cell, as the person counts them; the injected one has that of the cell before it."""

    def notebook_start(self, **kwargs: Any) -> None:
        self.nb.metadata.papermill.update(self.noted)
        cells = self.nb.cells
        type(self).numbers = [len(own(cells[: place + 1])) for place in range(len(cells))]
        super().notebook_start(**kwargs)

    def cell_start(self, cell: Any, cell_index: int | None = None, **kwargs: Any) -> None:
        if own([cell]):
            say(f"cell {self.numbers[cell_index or 0]} of {self.numbers[-1]}")
        super().cell_start(cell, cell_index, **kwargs)

    def cell_complete(self, cell: Any, cell_index: int | None = None, **kwargs: Any) -> None:
        # Papermill calls a cell completed that its time limit or a dead kernel ended, and with it
        # all that were never begun.
        if sys.exc_info()[1] is not None:
            cell.metadata.papermill["status"] = self.FAILED
        super().cell_complete(cell, cell_index, **kwargs)


class Engine(NBClientEngine):  # type: ignore[misc]
    @classmethod
    def execute_notebook(
        cls, nb: Any, kernel_name: str, output_path: str | None = None, **kwargs: Any
    ) -> Any:
        for handled_here in ("progress_bar", "log_output", "autosave_cell_every"):
            kwargs.pop(handled_here, None)
        manager = Manager(nb, output_path=output_path, progress_bar=False)
        manager.notebook_start()
        try:
            cls.execute_managed_notebook(manager, kernel_name, **kwargs)
        finally:
            manager.notebook_complete()
        return manager.nb


def failed(error: papermill.PapermillExecutionError) -> dict[str, Any]:
    """What is told of an error in a cell; the traceback goes to the log, too.

    It leaves the home, so that what looks like a secret is taken out of it.
    """
    # Seconds that a run without an error need not wait.
    from notebooks.redaction import redacted  # noqa: PLC0415

    def told(text: str) -> str:
        # Twice as much is looked at, so that no secret is cut before it is found.
        return redacted(COLOURS.sub("", text)[: 2 * LONGEST_TOLD])[:LONGEST_TOLD]

    cell, evalue = max(1, Manager.numbers[error.cell_index]), told(error.evalue)
    traceback = [told(part) for part in error.traceback]
    say("\n".join(["the traceback:", *traceback])[-2 * LONGEST_TOLD :])
    why = evalue.strip().partition("\n")[0]
    if len(why) > LONGEST_REASON:
        why = f"{why[:LONGEST_REASON]}…"
    return {
        "reason": "cell-error",
        "message": f"Cell {cell} raised {error.ename[:100]}: {why}".removesuffix(": "),
        "error": {
            "cell": cell,
            "ename": error.ename,
            "evalue": evalue,
            "traceback": traceback,
        },
    }


def kernel_of(copy: Path) -> dict[str, str]:
    """`kernel_name` and `language`, where a notebook made by a program leaves them out: Python's.

    Papermill refuses one without a language. Raises ValueError for what is no notebook.
    """
    try:
        metadata = json.loads(copy.read_bytes())["metadata"]
        spec, info = metadata.get("kernelspec") or {}, metadata.get("language_info") or {}
        return {
            "kernel_name": str(spec.get("name") or "python3"),
            "language": str(spec.get("language") or info.get("name") or "python"),
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError("the file is no notebook; open it in JupyterLab and save it") from None


def execute(task: dict[str, Any]) -> dict[str, Any]:
    """`reason`, `message` and, for an error in a cell, `error`; empty when all is well."""
    papermill_io.register(ATOMIC, WholeFile())
    papermill_engines.register("mlhub", Engine)
    Manager.noted = {
        "input_path": task["notebook"],
        "output_path": task["output"],
        "mlhub_run": task["id"],
    }
    echo = Echo()
    try:
        papermill.execute_notebook(
            task["copy"],
            ATOMIC + task["unfinished"],
            parameters=task["parameters"],
            engine_name="mlhub",
            **kernel_of(Path(task["copy"])),
            cwd=task["folder"],
            progress_bar=False,
            stdout_file=echo,
            stderr_file=echo,
            execution_timeout=task["cell_timeout"],
        )
    except papermill.PapermillExecutionError as error:
        return failed(error)
    except DeadKernelError:
        return {
            "reason": "dead-kernel",
            "message": "The kernel died, most often for want of memory; take a larger profile.",
        }
    except CellTimeoutError:
        return {
            "reason": "cell-timeout",
            "message": f"A cell took longer than its limit of {task['cell_timeout']} s.",
        }
    except Exception as error:  # whatever a notebook's file or kernel can be
        words = " ".join(f"{type(error).__name__}: {error}".split())[:500]
        return {"reason": "not-runnable", "message": f"The notebook cannot be run: {words}"}
    return {}


def main() -> int:
    task = json.load(sys.stdin)
    found = execute(task)
    Path(task["report"]).write_text(json.dumps(found), encoding="utf-8")
    if found.get("reason") == "dead-kernel":
        return DEAD_KERNEL
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
