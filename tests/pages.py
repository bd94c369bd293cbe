"""The pages of the documentation as their readers see them: blocks, commands, what these print."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^\$ ((?:.*\\\n)*.*)\n", re.MULTILINE)


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, *kinds: str) -> Iterator[str]:
    for indent, kind, body in FENCE.findall(text(page)):
        if kind in kinds:
            yield re.sub(rf"^{indent}", "", body, flags=re.MULTILINE)


@dataclass(frozen=True)
class Shown:
    """A command of a page without its comment, and what the page says that it prints."""

    command: str
    prints: str = ""

    @property
    def arguments(self) -> list[str]:
        return shlex.split(self.command)

    def is_printed(self, said: str) -> bool:
        """Whether `said` is that: numbers and ids are others each time, `…` is anything."""
        lines = (r"\s+".join(map(re.escape, line.split())) for line in self.prints.splitlines())
        pattern = re.sub(r"[0-9a-f]*[0-9][0-9a-f]*", "[0-9a-f]+", r"\s*".join(lines))
        return re.fullmatch(pattern.replace("…", ".*"), said.strip(), re.DOTALL) is not None


def shown(page: Path) -> Iterator[Shown]:
    for body in blocks(page, "console", ""):
        _, *parts = COMMAND.split(body)
        for command, prints in zip(parts[::2], parts[1::2], strict=True):
            joined = command.replace("\\\n", " ")
            yield Shown(re.sub(r"\s+# .*$", "", joined).strip(), prints)


def told(page: str, beginning: str) -> list[Shown]:
    """The commands of a page that begin so; there has to be one."""
    found = [each for each in shown(ROOT / page) if each.command.startswith(beginning)]
    assert found, f"{page} shows no `{beginning}` any more"
    return found
