"""Draws the components of a stack and who needs whom, as an SVG.

Made of what the program registers (`tests/unit/test_architecture.py` runs it and keeps
docs/pictures/architecture.svg in step), so the picture cannot say what the code does not do.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Protocol

WIDTH, GAP, LINE, MARGIN = 256, 20, 15, 24
ROW_GAP = 60
SHOWN = 6
"""So many kinds of resources are named in a box; the others are counted."""

SYSTEMS = {
    "kubernetes": "#326ce5",
    "keycloak": "#c0392b",
    "harbor": "#1f8a4c",
    "docker-build": "#8e44ad",
    "docker": "#8e44ad",
    "random": "#7f8c8d",
}
"""Whose API a resource is of, by the package in its type, and the colour of its words."""


class Registered(Protocol):
    """What the picture needs of one RegisterResource request."""

    @property
    def urn(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def custom(self) -> bool: ...
    @property
    def parent(self) -> str: ...
    @property
    def dependencies(self) -> Collection[str]: ...
    @property
    def plain(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class Box:
    """A component: what it makes, and the components that have to be there before it."""

    urn: str
    name: str
    kind: str
    makes: tuple[tuple[str, str, int], ...]
    """Package, kind and number, most first."""
    needs: frozenset[str]
    namespaces: tuple[str, ...]

    @property
    def is_namespace(self) -> bool:
        return self.kind == "Namespace"

    @property
    def height(self) -> int:
        return 34 + LINE * (1 + len(said(self.makes))) + 8


def said(makes: Sequence[tuple[str, str, int]]) -> list[tuple[str, str]]:
    """The lines of a box, each with its colour."""
    lines = [
        (f"{number} {kind}", SYSTEMS.get(package, "#333333")) for package, kind, number in makes
    ]
    if len(lines) <= SHOWN:
        return lines
    rest = makes[SHOWN - 1 :]
    number = sum(number for _, _, number in rest)
    return [*lines[: SHOWN - 1], (f"and {number} more, of {len(rest)} kinds", "#555555")]


def boxes(resources: Sequence[Registered]) -> list[Box]:
    """The components that stand at the top of the stack, by name.

    The engine is told of them in no fixed order, since most wait for something of their own.
    """
    known = {resource.urn: resource for resource in resources}
    root = {urn: _root(urn, known) for urn in known}
    tops = [resource for resource in resources if root[resource.urn] == resource.urn]
    direct = {
        top.urn: frozenset(
            root[urn]
            for resource in resources
            if root[resource.urn] == top.urn
            for urn in resource.dependencies
            if urn in root and root[urn] != top.urn
        )
        for top in tops
    }
    components = sorted(
        (top for top in tops if top.type.startswith("mlhub:")), key=lambda top: (top.name, top.urn)
    )
    return [
        Box(
            urn=top.urn,
            name=top.name,
            kind=top.type.rsplit(":", 1)[1],
            makes=_makes(resource for resource in resources if root[resource.urn] == top.urn),
            needs=frozenset(_through_providers(direct, top.urn)),
            namespaces=_namespaces(
                resource for resource in resources if root[resource.urn] == top.urn
            ),
        )
        for top in components
    ]


def _root(urn: str, known: Mapping[str, Registered]) -> str:
    while known[urn].parent in known:
        urn = known[urn].parent
    return urn


def _through_providers(direct: Mapping[str, frozenset[str]], urn: str) -> set[str]:
    """A provider is no box: who needs it needs what it needs."""
    found = set()
    for other in direct[urn]:
        found |= set(direct[other]) if "pulumi:providers:" in other else {other}
    return found


def _namespaces(resources: Iterable[Registered]) -> tuple[str, ...]:
    found = set()
    for resource in resources:
        metadata = resource.plain.get("metadata") or resource.plain
        found.add(str(metadata.get("namespace") or ""))
    return tuple(sorted(found - {""}))


def _makes(resources: Iterable[Registered]) -> tuple[tuple[str, str, int], ...]:
    counted = Counter(
        (resource.type.split(":", 1)[0], resource.type.rsplit(":", 1)[1])
        for resource in resources
        if resource.custom
    )
    ordered = sorted(counted.items(), key=lambda item: (item[0][0] == "random", -item[1], item[0]))
    return tuple((package, kind, number) for (package, kind), number in ordered)


def reduced(found: Sequence[Box]) -> dict[str, set[str]]:
    """Each box's needs without those that another of them brings along."""
    needs = {box.urn: set(box.needs) for box in found}

    def all_below(urn: str) -> set[str]:
        return needs[urn].union(*(all_below(other) for other in needs[urn]))

    return {
        urn: {other for other in mine if not any(other in all_below(via) for via in mine - {other})}
        for urn, mine in needs.items()
    }


def layers(found: Sequence[Box]) -> list[list[Box]]:
    """The boxes in rows, each below all that it needs."""
    by_urn = {box.urn: box for box in found}
    depth: dict[str, int] = {}

    def deep(urn: str) -> int:
        if urn not in depth:
            depth[urn] = 1 + max((deep(other) for other in by_urn[urn].needs), default=-1)
        return depth[urn]

    rows: list[list[Box]] = [[] for _ in range(1 + max(deep(box.urn) for box in found))]
    for box in found:
        rows[deep(box.urn)].append(box)
    return rows


def svg(resources: Sequence[Registered], title: str) -> str:
    """The picture. The same resources give the same text."""
    found = boxes(resources)
    rows = layers(found)
    width = max(len(row) for row in rows) * (WIDTH + GAP) - GAP + 2 * MARGIN
    places: dict[str, tuple[float, int]] = {}
    y = MARGIN + 40
    for row in rows:
        x = (width - len(row) * (WIDTH + GAP) + GAP) / 2
        for box in row:
            places[box.urn] = (x, y)
            x += WIDTH + GAP
        y += max(box.height for box in row) + ROW_GAP
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y - ROW_GAP + MARGIN}" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        f'<text x="{MARGIN}" y="{MARGIN + 8}" font-size="15" font-weight="bold">'
        f"{escape(title)}</text>",
        *_legend(found),
    ]
    heights = {box.urn: box.height for box in found}
    # A line from each namespace to all that is in it would hide the others.
    spaces = {box.urn for box in found if box.is_namespace}
    for urn, needs in reduced(found).items():
        lines += [
            _line(places[other], heights[other], places[urn])
            for other in sorted(needs)
            if other not in spaces
        ]
    for box in found:
        lines += _box(box, *places[box.urn])
    return "\n".join([*lines, "</svg>"]) + "\n"


def _legend(found: Sequence[Box]) -> list[str]:
    used = {package for box in found for package, _, _ in box.makes}
    spans = "   ".join(
        f'<tspan fill="{colour}">{package}</tspan>'
        for package, colour in SYSTEMS.items()
        if package in used
    )
    return [
        f'<text x="{MARGIN}" y="{MARGIN + 27}" xml:space="preserve" fill="#555">'
        f"A line leads down from what is needed to what needs it, the shortest ways alone. "
        f"Made through: {spans}</text>"
    ]


def _line(above: tuple[float, int], height: int, below: tuple[float, int]) -> str:
    x1, y1 = above[0] + WIDTH / 2, above[1] + height
    x2, y2 = below[0] + WIDTH / 2, below[1]
    return (
        f'<path d="M{x1:g},{y1} C{x1:g},{y2 - 28} {x2:g},{y2 - 44} {x2:g},{y2}" '
        'fill="none" stroke="#9aa5b1" stroke-width="1.3"/>'
    )


def _box(box: Box, x: float, y: int) -> list[str]:
    title = box.name if box.kind.lower() == box.name.replace("-", "") else f"{box.name} {box.kind}"
    lines = [
        f'<rect x="{x:g}" y="{y}" width="{WIDTH}" height="{box.height}" rx="6" fill="#f7f9fb" '
        'stroke="#5b6b7b"/>',
        f'<text x="{x + 10:g}" y="{y + 19}" font-weight="bold">{escape(title)}</text>',
    ]
    where = [
        (f"in {', '.join(box.namespaces)}" if box.namespaces else "in no namespace", "#555555")
    ]
    if box.is_namespace:
        where = []
    return lines + [
        f'<text x="{x + 10:g}" y="{y + 37 + LINE * at}" fill="{colour}">{escape(text)}</text>'
        for at, (text, colour) in enumerate([*where, *said(box.makes)])
    ]
