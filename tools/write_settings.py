"""Writes docs/settings.md from the model, each key of it: `python -m tools.write_settings`.

Made of the schema that editors use, so page, completion and errors say the same.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from components.config import SECRET_KEYS
from components.stackfile import PREFIX, schema

PAGE = Path(__file__).resolve().parent.parent / "docs" / "settings.md"

HEAD = """\
# Settings

For the platform engineer: every key that `stacks/Pulumi.<stack>.yaml` may have. Made from the
model by `python -m tools.write_settings`; do not edit. An editor that knows `stacks/schema.json`
completes them, and a wrong file is refused before anything is made, with each key, what was given
and what is right. Every key begins with `{prefix}`, also where Pulumi would take it without.
`[]` stands for each element of a list.

Secrets are in this file encrypted alone, as `pulumi config set --secret` writes them
([secrets.md](secrets.md)): {secrets}.
"""
TABLE = "| key | takes | default |\n|---|---|---|"

Schema = Mapping[str, Any]


def resolved(part: Schema, defs: Mapping[str, Schema]) -> Schema:
    """The schema behind a reference and beside `null`, with the field's own words first."""
    shown = dict(part)
    for choice in part.get("anyOf", []):
        if choice.get("type") != "null":
            shown = dict(choice) | {k: v for k, v in part.items() if k != "anyOf"}
    if "$ref" in shown:
        shown = dict(defs[shown.pop("$ref").rsplit("/", 1)[1]]) | shown
    return shown


def rows(path: str, part: Schema, needed: bool, defs: Mapping[str, Schema]) -> Iterator[str]:
    """A line of the table for a key and for each key below it."""
    found = resolved(part, defs)
    yield f"| `{path}` | {sentence(found)} | {left_out(part, needed)} |"
    yield from children(path, found, defs)


def left_out(part: Schema, needed: bool) -> str:
    """What holds where the key is not given."""
    if needed:
        return "required"
    if "default" not in part:
        return "as said"  # the model computes it from another key
    default = part["default"]
    return "none" if default in (None, [], {}) else f"`{json.dumps(default)}`"


def sentence(found: Schema) -> str:
    words = str(found.get("description", "see its keys below")).split("\n\n")[0]
    return words.replace("\n", " ").replace("|", "\\|")


def children(path: str, found: Schema, defs: Mapping[str, Schema]) -> Iterator[str]:
    if found.get("type") == "array":
        element = resolved(found["items"], defs)
        if "properties" in element:
            yield from children(f"{path}[]", element, defs)
        return
    required = found.get("required", [])
    for name, part in found.get("properties", {}).items():
        yield from rows(f"{path}.{name}", part, name in required, defs)


def text() -> str:
    """The whole page."""
    whole = schema()
    config, defs = whole["properties"]["config"], whole["$defs"]
    secrets = ", ".join(f"`{PREFIX}{key}`" for key in SECRET_KEYS)
    lines = [HEAD.format(prefix=PREFIX, secrets=secrets)]
    for key, part in config["properties"].items():
        name = key.removeprefix(PREFIX)
        needed = key in config["required"]
        lines += [f"## {key}", "", *introduction(part, needed, defs), TABLE]
        found = resolved(part, defs)
        below = list(children(name, found, defs))
        lines += [*(below or rows(name, part, needed, defs)), ""]
    return "\n".join(lines).rstrip() + "\n"


def introduction(part: Schema, needed: bool, defs: Mapping[str, Schema]) -> list[str]:
    """What a section is for, from its class, and whether it may be left out."""
    words = sentence(resolved(part, defs)).rstrip(".")
    words = words[:1].upper() + words[1:]
    return [f"{words}. {'Required' if needed else 'May be left out'}.", ""]


if __name__ == "__main__":
    PAGE.write_text(text(), encoding="utf-8")
    print(f"wrote docs/{PAGE.name}")
