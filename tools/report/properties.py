"""The difference between two property trees, as paths that a person would write.

Lists whose items have a name of their own are compared by it: a profile that is put first is one
profile more, not every profile changed.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from tools.report.previews import UNKNOWN, Step

MISSING = object()
IDENTITIES = ("slug", "name", "key", "mountPath", "containerPort", "displayName", "title")
NOISE = re.compile(
    r"^__|(^|\.)(managedFields|resourceVersion|uid|creationTimestamp|generation|selfLink|status"
    r"|ownerReferences)$"
    r"|annotations\[?\.?[\"']?(pulumi\.com/|kubectl\.kubernetes\.io/last-applied"
    r"|deployment\.kubernetes\.io/revision|meta\.helm\.sh/)"
    r"|labels\[?\.?[\"']?app\.kubernetes\.io/managed-by"
    r"|(^|\.)(initialApiVersion|fieldManager|resourceNames|checksum|stackTrace|sourcePosition)$"
)
"""What Kubernetes, Helm and the engine write for themselves."""

SHOWN_CHARACTERS = 160


@dataclass(frozen=True)
class Change:
    """One property; MISSING on the side that lacks it."""

    path: str
    old: Any
    new: Any

    @property
    def added(self) -> bool:
        return self.old is MISSING

    @property
    def removed(self) -> bool:
        return self.new is MISSING

    @property
    def leaf(self) -> str:
        return re.split(r"[.\[]", self.path)[-1].rstrip("]").strip('"')


def of_step(step: Step) -> list[Change]:
    """What a step changes; nothing for what is created or deleted whole."""
    if step.old is None or step.new is None:
        return []
    found = list(changes(step.old.inputs, step.new.inputs, "", step.detailed))
    if not step.detailed and not step.type.startswith(("kubernetes:", "docker")):
        # A provider whose own settings are not known yet was not asked, so defaults are missing.
        found = [change for change in found if not change.removed or "." in change.path]
    for path in sorted(step.detailed):
        # The inputs agree: somebody changed the thing itself, and the update puts it back.
        change = Change(path, at(step.old.outputs, path), at(step.new.inputs, path))
        same = at(step.old.inputs, path) == change.new
        if same and change.old != change.new and change.new is not MISSING:
            found += [] if NOISE.search(path) else [change]
    return found


def changes(
    old: Any, new: Any, path: str = "", detailed: Mapping[str, str] | None = None
) -> Iterator[Change]:
    """The leaves that differ.

    A key that only the old side has may be one that is not known yet, since the CLI leaves unknown
    values out of a Release's. Where the provider lists what changes (`detailed`) and does not call
    it deleted, it is that.
    """
    if path and NOISE.search(path):
        return
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in [*old, *(key for key in new if key not in old)]:
            below = joined(path, key)
            after = new.get(key, MISSING)
            if after is MISSING and left_out(key, below, detailed):
                after = UNKNOWN
            yield from changes(old.get(key, MISSING), after, below, detailed)
    elif isinstance(old, list) and isinstance(new, list):
        yield from of_lists(old, new, path, detailed)
    elif old != new:
        before, after = cleaned(old, path), cleaned(new, path)
        if before != after and not (before in (MISSING, {}) and after in (MISSING, {})):
            yield Change(path, before, after)


def cleaned(value: Any, path: str) -> Any:
    """`value` without NOISE in it."""
    if not isinstance(value, Mapping):
        return value
    return {
        key: cleaned(part, joined(path, key))
        for key, part in value.items()
        if not NOISE.search(joined(path, key))
    }


def left_out(key: str, path: str, detailed: Mapping[str, str] | None) -> bool:
    if not detailed:
        return key in ("tag", "image", "digest")
    deleted = (each for each, kind in detailed.items() if kind.startswith("delete"))
    return not any(path == each or path.startswith((f"{each}.", f"{each}[")) for each in deleted)


def of_lists(
    old: list[Any], new: list[Any], path: str, detailed: Mapping[str, str] | None
) -> Iterator[Change]:
    identity = shared_identity(old, new)
    if identity:
        olds, news = ({item[identity]: item for item in side} for side in (old, new))
        for name in [*olds, *(name for name in news if name not in olds)]:
            before, after = olds.get(name, MISSING), news.get(name, MISSING)
            yield from changes(before, after, f"{path}[{name}]", {} if detailed else None)
        return
    gone = [item for item in old if item not in new]
    come = [item for item in new if item not in old]
    if len(gone) == 1 and len(come) == 1 and isinstance(gone[0], type(come[0])):
        place = f"{path}[{old.index(gone[0])}]"
        yield from changes(gone[0], come[0], place, {} if detailed else None)
        return
    for item in gone:
        yield Change(f"{path}[]", item, MISSING)
    for item in come:
        yield Change(f"{path}[]", MISSING, item)
    if not gone and not come and old != new:
        yield Change(path, f"{len(old)} items", "the same in another order or number")


def shared_identity(old: Sequence[Any], new: Sequence[Any]) -> str | None:
    """The key by which every item of both lists is known, and differs from the others."""
    items = [*old, *new]
    if not items or not all(isinstance(item, Mapping) for item in items):
        return None
    for key in IDENTITIES:
        if all(isinstance(item.get(key), str | int) for item in items) and all(
            len({item[key] for item in side}) == len(side) for side in (old, new)
        ):
            return key
    return None


def joined(path: str, key: str) -> str:
    if not re.fullmatch(r"[\w-]+", key):
        return f'{path}["{key}"]'
    return f"{path}.{key}" if path else key


def at(tree: Any, path: str) -> Any:
    """What stands at a path such as `spec.hard["limits.cpu"]`, or MISSING."""
    for quoted, number, key in re.findall(r'\["([^"]+)"\]|\[(\d+)\]|([^.\[\]"]+)', path):
        if number:
            if not isinstance(tree, list) or int(number) >= len(tree):
                return MISSING
            tree = tree[int(number)]
        else:
            name = quoted or key
            if not isinstance(tree, Mapping) or name not in tree:
                return MISSING
            tree = tree[name]
    return tree


def shown(value: Any) -> str:
    """A value in one line, short; digests to twelve digits."""
    if value is MISSING:
        return "nothing"
    if isinstance(value, bool) or value is None:
        said = str(value).lower().replace("none", "null")
    elif isinstance(value, Mapping | list):
        said = yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False).strip()
    else:
        said = str(value) or '""'
    said = re.sub(r"(sha256:[0-9a-f]{12})[0-9a-f]{52}", r"\1", said.replace("`", "'"))
    said = " ⏎ ".join(part.strip() for part in said.splitlines() if part.strip())
    return said if len(said) <= SHOWN_CHARACTERS else f"{said[: SHOWN_CHARACTERS - 1]}…"
