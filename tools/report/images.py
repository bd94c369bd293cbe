"""Which images change, from which digest to which."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tools.report.previews import UNKNOWN, Preview, Step
from tools.report.properties import MISSING, Change, of_step

ANEW = "built anew"
REFERENCE = re.compile(r"^(?P<repository>[a-z0-9.:-]+(/[a-z0-9._-]+)+):(?P<rest>[^/]+)$")


@dataclass(frozen=True)
class ImageChange:
    """An image by its repository; `old` and `new` are `tag@sha256:…`, a digest, or a remark."""

    repository: str
    old: str
    new: str


def of(preview: Preview) -> list[ImageChange]:
    """Every image that a step builds or that a Release or a workload begins to use."""
    found: dict[str, tuple[str, str]] = {}
    for step in preview.steps:
        for repository, old, new in [*built(step), *used(step)]:
            known_old, known_new = found.get(repository, ("", ""))
            found[repository] = (better(known_old, old), better(known_new, new))
    return [ImageChange(name, *found[name]) for name in sorted(found)]


def better(known: str, said: str) -> str:
    """What has a digest says more than what has none."""
    return said if "sha256:" in said or not known else known


def built(step: Step) -> Iterator[tuple[str, str, str]]:
    """A step of docker-build or docker."""
    if step.type not in ("docker-build:index:Image", "docker:index/image:Image"):
        return
    if step.op == "delete" and step.old:
        yield repository(step), digest(step.old.outputs), "no longer built"
    elif step.new is not None:
        old = digest(step.old.outputs) if step.old else "none"
        new = digest(step.new.outputs) if step.op == "import" else ANEW
        yield repository(step), old, new


def repository(step: Step) -> str:
    tags = step.side.inputs.get("tags") or [step.side.inputs.get("imageName", step.name)]
    found = REFERENCE.match(str(tags[0]))
    return found["repository"] if found else str(tags[0])


def digest(outputs: Mapping[str, Any]) -> str:
    found = str(outputs.get("digest") or outputs.get("repoDigest") or "unknown")
    return found.rpartition("@")[2]


def used(step: Step) -> Iterator[tuple[str, str, str]]:
    """Image references among what a step changes."""
    if step.old is None or step.new is None:
        return
    for change in of_step(step):
        if not about_image(change):
            continue
        old, new = split(change.old), split(change.new)
        name = (old or new or ("", ""))[0] or named(step, change)
        if name:
            yield name, (old or ("", tag(change.old)))[1], (new or ("", tag(change.new)))[1]


def about_image(change: Change) -> bool:
    """Whether a property is an image's reference, or the tag beside its name."""
    parent = change.path.rpartition(".")[0]
    return change.leaf == "image" or (change.leaf == "tag" and parent.endswith("image"))


def split(value: Any) -> tuple[str, str] | None:
    """Repository and tag. docker-build gives an empty digest in a preview that builds anew."""
    found = REFERENCE.match(value) if isinstance(value, str) else None
    return (found["repository"], tag(found["rest"])) if found else None


def tag(value: Any) -> str:
    if value is MISSING:
        return "none"
    return ANEW if value == UNKNOWN or str(value).endswith("@") else str(value)


def named(step: Step, change: Change) -> str:
    """The `name` beside a changed `tag`."""
    tree: Any = step.side.inputs
    for part in change.path.split(".")[:-1]:
        tree = tree.get(part) if isinstance(tree, Mapping) else None
    name = tree.get("name") if isinstance(tree, Mapping) else None
    return name if isinstance(name, str) else ""
