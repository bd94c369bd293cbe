"""Writes `stacks/schema.json` from the model: `python -m tools.write_schema`."""

import json
from pathlib import Path

from components.stackfile import schema

SCHEMA = Path(__file__).resolve().parent.parent / "stacks" / "schema.json"


def text() -> str:
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    SCHEMA.write_text(text(), encoding="utf-8")
    print(f"wrote stacks/{SCHEMA.name}")
