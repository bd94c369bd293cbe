"""What a resource says, with the two things that a plain dict would lose: unknowns and secrets.

A rule walks nodes, so that each of its sentences can name the place. What is not there is a node
too, whose value is None.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SIGNATURE = "4dabf18193072939515e22adb298388d"
SECRET = "1b47061264138c4ac30d75fd1eb44270"  # noqa: S105
"""A secret on the wire is an object whose SIGNATURE key is SECRET (Pulumi, property values)."""

UNKNOWNS = frozenset(
    {
        "1c4a061d-8072-4f0a-a4cb-0ff528b18fe7",
        "3eeb2bf0-c639-47a8-9e75-3b44932eb421",
        "04da6b54-80e4-46f7-96ec-b56ff0331ba9",
        "6a19a0b0-7e62-4c92-b797-7f8e31da9cc2",
        "030794c1-ac77-496b-92df-f27374a8bd58",
        "e48ece36-62e2-4504-bad9-02848725956a",
        "dd056dcd-154b-4c76-9bd3-c8f88648b5ff",
    }
)
"""What stands on the wire for a value that is computed later, one for each kind of value."""

SHOWN = 160
"""How much of a wrong value a refusal repeats."""


@dataclass(frozen=True)
class Node:
    """A value at its place, e.g. `singleuser.profileList[2].kubespawner_override.cpu_limit`."""

    path: str
    value: Any
    key: str = ""
    """The last name of the path; of a list's part, the list's."""
    secret: bool = False

    @classmethod
    def of(cls, raw: Any, path: str = "", key: str = "", secret: bool = False) -> "Node":
        """The node of a value as it is on the wire."""
        while isinstance(raw, Mapping) and raw.get(SIGNATURE) == SECRET:
            raw, secret = raw.get("value"), True
        return cls(path, raw, key, secret)

    @property
    def unknown(self) -> bool:
        return isinstance(self.value, str) and self.value in UNKNOWNS

    @property
    def absent(self) -> bool:
        return self.value is None

    def __getitem__(self, name: str) -> "Node":
        """The part of that name. Of an unknown every part is unknown."""
        path = f"{self.path}.{name}" if self.path else name
        if self.unknown:
            return Node(path, self.value, name, self.secret)
        part = self.value.get(name) if isinstance(self.value, Mapping) else None
        return Node.of(part, path, name, self.secret)

    def at(self, *names: str) -> "Node":
        found = self
        for name in names:
            found = found[name]
        return found

    def parts(self) -> Iterator["Node"]:
        """What a mapping or a list holds; one unknown part of an unknown; nothing of all else.

        So a rule that goes through the parts comes upon what is not known, and cannot pass it over.
        """
        if self.unknown:
            yield self
        elif isinstance(self.value, Mapping):
            for name in self.value:
                yield self[str(name)]
        elif isinstance(self.value, Sequence) and not isinstance(self.value, str):
            for number, part in enumerate(self.value):
                yield Node.of(part, f"{self.path}[{number}]", self.key, self.secret)

    def walk(self, *, skip: frozenset[str] = frozenset()) -> Iterator["Node"]:
        """This node and all beneath it, save the text beneath a name of `skip`.

        Where more than text is beneath it, that name is one of the user's own making.
        """
        yield self
        for part in () if self.unknown else self.parts():
            if part.key not in skip or isinstance(self.value, list) or not part.is_text():
                yield from part.walk(skip=skip)

    def is_text(self) -> bool:
        """Whether this is a text or a mapping to texts, such as labels are."""
        if isinstance(self.value, Mapping):
            return all(isinstance(part.value, str) for part in self.parts())
        return self.absent or isinstance(self.value, str)

    def shown(self) -> str:
        """The value as a refusal repeats it. Never a secret's."""
        if self.secret:
            return "a secret"
        if self.absent:
            return "not given"
        if self.unknown:
            return "not known yet"
        if isinstance(self.value, bool):
            return str(self.value).lower()
        if isinstance(self.value, float):
            return f"{self.value:g}"
        text = self.value if isinstance(self.value, str) else str(self.value)
        return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
