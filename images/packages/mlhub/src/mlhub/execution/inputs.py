"""What a caller may give: names, paths, parameters. Pure checks, each raising ValueError.

Values of parameters are safe (Papermill writes them as literals); their names are not, for they
become assignments in a cell of code.
"""

import keyword
import math
import re
from pathlib import PurePosixPath
from typing import Any

LONGEST_PATH = 500
LONGEST_SEGMENT = 200
"""A file's name holds 255 bytes, with room for `_output_…` and a character of several bytes."""

DEEPEST = 20
"""Levels of nesting in a parameter."""

MOST_PARAMETERS = 200
LARGEST_INTEGER = 2**63
IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\\]")


def notebook_path(given: str) -> str:
    """A notebook's path in the home, without `./`; the suffix may be left out."""
    if CONTROL.search(given):
        raise ValueError("a path holds no control character and no backslash")
    if "://" in given or re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", given):
        raise ValueError("a path in the home is required, not an address")
    if given.startswith(("/", "~")):
        raise ValueError("a path relative to the home is required")
    parts = PurePosixPath(given).parts
    if ".." in parts:
        raise ValueError("a path inside the home is required, without '..'")
    if not parts or given.endswith("/"):
        raise ValueError("the name of a notebook is required")
    if not given.endswith(".ipynb"):
        parts = (*parts[:-1], f"{parts[-1]}.ipynb")
    if not parts[-1].removesuffix(".ipynb").strip() or any(not part.strip() for part in parts):
        raise ValueError("the name of a notebook is required")
    if any(len(part.encode()) > LONGEST_SEGMENT for part in parts):
        raise ValueError(f"each name in a path has at most {LONGEST_SEGMENT} bytes")
    path = "/".join(parts)
    if len(path) > LONGEST_PATH:
        raise ValueError(f"a path has at most {LONGEST_PATH} characters")
    return path


def is_bare_name(given: str) -> bool:
    """Whether a notebook is to be looked for in every folder; `./name` says which one."""
    return "/" not in given


def parameters(given: dict[str, Any]) -> dict[str, Any]:
    """Parameters whose names are Python's, and whose values every JSON reader reads alike."""
    if len(given) > MOST_PARAMETERS:
        raise ValueError(f"at most {MOST_PARAMETERS} parameters")
    for name, value in given.items():
        if not IDENTIFIER.fullmatch(name) or keyword.iskeyword(name):
            raise ValueError(
                "each parameter's name is a Python identifier of at most 100 letters, digits and _ "
                "that is no keyword"
            )
        _value(value, 1)
    return given


def _value(value: Any, depth: int) -> None:
    if depth > DEEPEST:
        raise ValueError(f"parameters are nested at most {DEEPEST} deep")
    if isinstance(value, str):
        _text(value)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a parameter's number is finite; JSON has no NaN and no Infinity")
    elif isinstance(value, int) and not -LARGEST_INTEGER <= value < LARGEST_INTEGER:
        raise ValueError("a parameter's whole number has at most 64 bits; give it as a string")
    elif isinstance(value, list):
        for item in value:
            _value(item, depth + 1)
    elif isinstance(value, dict):
        for key, item in value.items():
            _text(key)
            _value(item, depth + 1)


def _text(value: str) -> None:
    if re.search("[\ud800-\udfff]", value):
        raise ValueError("a parameter's text is Unicode, without half surrogate pairs")


def moment(given: Any) -> Any:
    """A date-time as RFC 3339 writes it, as the API tells it; a number would be seconds to some."""
    if isinstance(given, str) and not re.match(r"\d{4}-\d\d-\d\d", given):
        raise ValueError("a date-time is required, such as 2026-11-22T10:15:00Z")
    return given


def depth_of(body: bytes, limit: int) -> bool:
    """Whether JSON text nests deeper than `limit`, before a parser recurses into it."""
    depth, quoted, escaped = 0, False, False
    for byte in body:
        if quoted:
            if escaped:
                escaped = False
            elif byte == 0x5C:
                escaped = True
            elif byte == 0x22:
                quoted = False
        elif byte == 0x22:
            quoted = True
        elif byte in b"[{":
            depth += 1
            if depth > limit:
                return True
        elif byte in b"]}":
            depth -= 1
    return False
