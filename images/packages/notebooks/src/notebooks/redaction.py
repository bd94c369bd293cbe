"""Secrets in notebooks: found and taken out of what leaves the person's home.

Found are the keys and tokens that detect-secrets knows by their form (cloud providers, GitHub,
GitLab, Slack, JSON web tokens, private keys, passwords in URLs …), what is assigned to a name such
as `password` or `api_key`, Hugging Face's tokens, and the values of this process's own secrets,
whatever they look like, should a cell have printed its environment. Long random-looking strings as
such are not: run ids and checksums are of that kind. `# pragma: allowlist secret` at the end of a
line keeps the line (detect-secrets).
"""

import os
import re
import string
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import nbformat
from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
from detect_secrets.core.scan import scan_line
from detect_secrets.filters.allowlist import is_line_allowlisted
from detect_secrets.settings import transient_settings
from detect_secrets.util.code_snippet import get_code_snippet

from notebooks.assigned import REFERENCE, assigned, beside_code

UNUSED = {
    *("Base64HighEntropyString", "HexHighEntropyString", "IPPublicDetector"),
    "KeywordDetector",
}
"""Detectors of what merely looks random, or is no secret; and the one of `notebooks.assigned`."""

ASSIGNED = "Secret Keyword"
"""detect-secrets' word for it."""

OWN_SECRET = re.compile(r"(TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|ACCESS_KEY)", re.IGNORECASE)
SHORTEST_OWN = 8
"""Characters; a shorter value of the environment would be found in innocent words."""

HUGGING_FACE = re.compile(r"\bhf_[A-Za-z0-9]{30,}")
PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY( BLOCK)?-----.*?(-----END [A-Z ]*PRIVATE KEY( BLOCK)?-----|\Z)",
    re.DOTALL,
)
TOKEN = string.ascii_letters + string.digits + "_./+=-"
"""What tokens are made of."""

BLANKS = re.compile(r"\s{16,}")

NO_TEXT = ("image/", "audio/", "video/", "application/pdf")
WINDOW, OVERLAP = 8192, 512
"""Characters of a line looked at together: a plot's output may be one line of megabytes."""


@dataclass(frozen=True)
class Finding:
    """Where a secret was, and its kind; never the secret."""

    cell: int
    """From 1; 0 for the notebook's metadata."""
    kind: str
    where: str
    """`source`, `outputs` or `metadata`."""

    def __str__(self) -> str:
        place = f"cell {self.cell}, {self.where}" if self.cell else "the notebook's metadata"
        return f"{place}: {self.kind}"


def redact(notebook: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[Finding, ...]]:
    """A copy of a notebook (its JSON) with `[redacted: kind]` for each secret; what was found."""
    made = _of_format_4(deepcopy(dict(notebook)))
    found: list[Finding] = []
    own = own_secrets(os.environ)
    with _detectors():
        for number, part in [(0, made), *enumerate(made.get("cells", ()), 1)]:
            for where in ("source", "outputs", "attachments", "metadata"):
                if where in part:
                    part[where], kinds = _clean(part[where], own, where == "metadata")
                    found += [Finding(number, kind, where) for kind in dict.fromkeys(kinds)]
    return made, tuple(found)


def redacted(text: str) -> str:
    """A text with `[redacted: kind]` for each secret."""
    with _detectors():
        return _clean_text(text, own_secrets(os.environ))[0]


@contextmanager
def _detectors() -> Iterator[None]:
    known: dict[str, type] = get_mapping_from_secret_type_to_class()
    detectors = [kind.__name__ for kind in known.values()]
    used = [{"name": name} for name in detectors if name not in UNUSED]
    # Its filters let go passwords such as 12345678, UUIDs, and whatever follows an `…_id=`.
    with transient_settings({"plugins_used": used, "filters_used": []}):
        yield


def _of_format_4(notebook: dict[str, Any]) -> dict[str, Any]:
    """Older formats have their cells elsewhere, and other names in them."""
    if notebook.get("nbformat", 4) >= 4:
        return notebook
    made: dict[str, Any] = nbformat.convert(nbformat.from_dict(notebook), 4)  # type: ignore[no-untyped-call]
    # New cells get random ids, from 4.5 on; with them equal content would be two versions.
    made["nbformat_minor"] = 4
    for cell in made["cells"]:
        cell.pop("id", None)
    return made


def own_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """Values of this process that are secrets by their name, and what to call them."""
    return {
        value: f"the value of {name}"
        for name, value in environment.items()
        if OWN_SECRET.search(name) and len(value) >= SHORTEST_OWN and not value.startswith("/")
    }


def _clean(part: Any, own: Mapping[str, str], named: bool) -> tuple[Any, list[str]]:
    """A part of the notebook without secrets; their kinds. `named`: a key names its value."""
    if isinstance(part, str):
        return _clean_text(part, own)
    if isinstance(part, list) and part and all(isinstance(line, str) for line in part):
        text, kinds = _clean_text("".join(part), own)
        return (text.splitlines(keepends=True), kinds) if kinds else (part, [])
    kinds = []
    if isinstance(part, list):
        for place, value in enumerate(part):
            part[place], more = _clean(value, own, named)
            kinds += more
    elif isinstance(part, dict):
        for key, value in part.items():
            if key.startswith(NO_TEXT):
                continue
            part[key], more = _clean(value, own, named)
            if named and isinstance(value, str) and not more:
                said = f'{key} = "{value}"'
                cleaned, more = _clean_text(said, own)
                part[key] = f"[redacted: {more[0]}]" if cleaned != said else value
            kinds += more
    return part, kinds


def _clean_text(text: str, own: Mapping[str, str]) -> tuple[str, list[str]]:
    kinds = []
    for value, kind in own.items():
        if value in text:
            text = text.replace(value, f"[redacted: {kind}]")
            kinds.append(kind)
    for pattern, kind in ((PRIVATE_KEY, "Private Key"), (HUGGING_FACE, "Hugging Face Token")):
        text, times = pattern.subn(f"[redacted: {kind}]", text)
        kinds += [kind] * bool(times)
    lines = text.splitlines(keepends=True)
    for number, (line, beside) in enumerate(zip(lines, tuple(beside_code(lines)), strict=True)):
        if "pragma" in line and is_line_allowlisted("", line, get_code_snippet([line], 1)):
            continue
        lines[number], more = _clean_line(line, beside)
        kinds += more
    return "".join(lines), kinds


def _clean_line(line: str, beside: tuple[re.Pattern[str], ...]) -> tuple[str, list[str]]:
    places: list[tuple[int, int]] = []
    for begin, end in sorted(
        (start + begin, start + end)
        for start, part in _windows(line)
        for begin, end in assigned(part, beside)
    ):
        if places and begin < places[-1][1]:
            places[-1] = (places[-1][0], max(end, places[-1][1]))
        else:
            places.append((begin, end))
    values = {line[begin:end] for begin, end in places}
    for begin, end in reversed(places):
        line = f"{line[:begin]}[redacted: {ASSIGNED}]{line[end:]}"
    for value in values:
        if len(value) >= SHORTEST_OWN:
            line = line.replace(value, f"[redacted: {ASSIGNED}]")
    kinds = [ASSIGNED] * bool(places)
    for kind, value in list(_by_form(line)):
        line = _without(line, kind, value)
        kinds.append(kind)
    return line, kinds


def _windows(line: str) -> Iterator[tuple[int, str]]:
    for start in range(0, max(1, len(line) - OVERLAP), WINDOW - OVERLAP):
        yield start, line[start : start + WINDOW]


def _by_form(line: str) -> Iterator[tuple[str, str]]:
    for _, part in _windows(line):
        # No secret has blanks in it; over thousands of them a detector takes minutes (IBM's).
        for secret in scan_line(BLANKS.sub(" ", part)):
            value = secret.secret_value
            if value and "[redacted: " not in value and not REFERENCE.fullmatch(value):
                yield secret.type, value


def _without(line: str, kind: str, value: str) -> str:
    """The whole token goes: for some forms the detector names its beginning alone."""
    more = "" if kind == "Basic Auth Credentials" else TOKEN
    made, rest = "", line
    while value in rest:
        before, _, after = rest.partition(value)
        made += before.rstrip(more) + f"[redacted: {kind}]"
        rest = after.lstrip(more)
    return made + rest
