"""How the command line prints: a table or a sentence for people, JSON for programs."""

import dataclasses
import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from notebooks.errors import NotebooksError

COMMANDS = {
    "GET /list-notebooks/{username}": "`runs notebooks`",
    "GET /runs": "`runs list`",
    "GET /schedules": "`schedules list`",
    "GET /sweeps": "`sweeps list`",
    "PATCH it": "`schedules change` changes it",
    "POST /sweeps/<id>/cancel": "`sweeps cancel`",
}
"""What the execution service names in its sentences, and what does the same here."""

WIDE = 10_000
"""Columns where no terminal says how many it has: a row is a line for `grep`."""

as_json = False
"""Whether `--json` was given."""


def show(plain: Any, human: RenderableType | None = None) -> None:
    """`plain` as JSON (dataclasses, times and the like included), or `human`, else its text.

    What people named and services said is in these texts, so that none is read for markup.
    """
    if as_json:
        print(json.dumps(plain, default=_plain))
    else:
        console = Console(soft_wrap=not isinstance(human, Table))
        if not console.is_terminal:
            console.width = WIDE
        said = human if human is not None else str(plain)
        console.print(Text(said) if isinstance(said, str) else said)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, whole: int = 1) -> Table:
    """Of plain texts: nothing that somebody named is taken for markup.

    The first `whole` columns are never cut or folded: they have the ids, which people copy.
    """
    head = any(columns)
    made = Table(box=None, pad_edge=False, header_style="bold", show_header=head)
    texts = [["" if cell is None else str(cell) for cell in row] for row in rows]
    for place, column in enumerate(columns):
        kept = place < whole
        longest = max((cell_len(row[place]) for row in texts), default=0) if kept else None
        made.add_column(column, overflow="fold", no_wrap=kept, min_width=longest)
    for row in texts:
        made.add_row(*map(Text, row))
    return made


def note(sentence: str, style: str = "") -> None:
    """On standard error, where a person reads it; a program has no use for it."""
    if not as_json:
        Console(stderr=True, soft_wrap=True).print(Text(sentence, style=style))


def warn(sentence: str) -> None:
    note(sentence, "yellow")


def fail(error: Exception) -> None:
    """The sentence of an error, on standard error."""
    if as_json:
        known = error.plain() if isinstance(error, NotebooksError) else None
        said = known or {"type": "invalid", "sentence": str(error)}
        print(json.dumps({"error": said}), file=sys.stderr)
    else:
        sentence = str(error)
        for call, command in COMMANDS.items():
            sentence = sentence.replace(call, command)
        Console(stderr=True, soft_wrap=True).print(Text(sentence, style="red"))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value)
