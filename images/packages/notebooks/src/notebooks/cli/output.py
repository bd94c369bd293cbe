"""How the command line prints: a table or a sentence for people, JSON for programs."""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from notebooks.errors import NotebooksError

as_json = False
"""Whether `--json` was given."""


def show(plain: Any, human: RenderableType | None = None) -> None:
    """`plain` as JSON (dataclasses, times and the like included), or `human`, else its text."""
    if as_json:
        print(json.dumps(plain, default=_plain))
    else:
        Console(soft_wrap=not isinstance(human, Table)).print(
            human if human is not None else Text(str(plain))
        )


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """Of plain texts: nothing that somebody named is taken for markup."""
    head = any(columns)
    made = Table(*columns, box=None, pad_edge=False, header_style="bold", show_header=head)
    for row in rows:
        made.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
    return made


def warn(sentence: str) -> None:
    """On standard error, where a person reads it; a program has no use for it."""
    if not as_json:
        Console(stderr=True, soft_wrap=True).print(Text(sentence, style="yellow"))


def fail(error: Exception) -> None:
    """The sentence of an error, on standard error."""
    if as_json:
        known = error.plain() if isinstance(error, NotebooksError) else None
        said = known or {"type": "invalid", "sentence": str(error)}
        Console(stderr=True, soft_wrap=True).print(json.dumps({"error": said}), markup=False)
    else:
        Console(stderr=True, soft_wrap=True).print(Text(str(error), style="red"))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value)
