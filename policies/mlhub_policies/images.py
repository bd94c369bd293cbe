"""What runs is what was reviewed: every image by its digest, from a registry of ours.

A chart's own images are not in the values. So each part of the chart that would pull one is off, or
its image is stated.
"""

import re
from collections.abc import Iterator

from mlhub_policies.limits import StackLimits
from mlhub_policies.pods import STRUCTURE, TEXTS, plain
from mlhub_policies.rule import RELEASE, Finding, Resource, breach, later
from mlhub_policies.tree import Node

DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")

BY_DIGEST = "an image by its digest (…@sha256:…) is required: a tag can move"

Place = tuple[str, ...]

ALWAYS: tuple[Place, ...] = (("hub",), ("proxy", "chp"), ("singleuser",))
"""Parts of the chart that run in every stack; each takes its image at `image`."""

UNLESS_OFF: dict[Place, tuple[Place, ...]] = {
    ("scheduling", "userScheduler", "enabled"): (("scheduling", "userScheduler"),),
    ("scheduling", "userPlaceholder", "enabled"): (("scheduling", "userPlaceholder"),),
    ("prePuller", "hook", "enabled"): (("prePuller", "hook"), ("prePuller", "pause")),
    ("prePuller", "continuous", "enabled"): (("prePuller", "pause"),),
}
"""Parts that the official chart runs unless they are switched off, with what they pull."""

IF_ON: dict[Place, tuple[Place, ...]] = {
    ("proxy", "https", "enabled"): (("proxy", "traefik"), ("proxy", "secretSync")),
}


HOLDERS = STRUCTURE | {"extraimages"}
"""Where an unknown value could hide an image."""


def by_digest_from_ours(resource: Resource, limits: StackLimits) -> Iterator[Finding]:
    if not resource.of_kubernetes:
        return
    if resource.type == RELEASE:
        yield from _chart(resource.values)
    top = resource.values if resource.type == RELEASE else resource.inputs
    for node in top.walk(skip=TEXTS):
        if node.unknown and plain(node.key) in HOLDERS:
            yield later(node)
        if _is_image(node):
            yield from _image(node, limits)


def _is_image(node: Node) -> bool:
    """By its name, or by its form: `prePuller.extraImages` has names of the user's."""
    of_form = isinstance(node.value, dict) and {"name", "tag"} <= node.value.keys()
    return of_form or (node.key == "image" and not node.path.endswith("]"))


def _image(node: Node, limits: StackLimits) -> Iterator[Finding]:
    if node.unknown:
        yield later(node)
        return
    path, text = node.path, node.value
    if isinstance(node.value, dict):
        name, tag = node["name"], node["tag"]
        if name.unknown or tag.unknown:
            yield later(name if name.unknown else tag)
            return
        if name.absent and tag.absent:
            yield from _elsewhere(node)
            return
        if tag.absent:
            # So a Release's unknown value looks in a preview: the provider leaves it out.
            yield Finding(tag.path, f"is not there; {BY_DIGEST}", unknown=True)
            return
        text = f"{name.value}:{tag.value}"
    if not isinstance(text, str) or not text:
        return
    given = Node(path, text)
    if not DIGEST.search(text):
        yield breach(given, BY_DIGEST)
    allowed = limits.registries
    if not any(text.startswith(f"{registry}/") for registry in allowed):
        yield breach(given, f"an image from {' or '.join(allowed)} is required")


def _elsewhere(node: Node) -> Iterator[Finding]:
    """`image` with other parts, such as Kubernetes' image volumes: `reference`."""
    if not node["reference"].absent:
        yield breach(node["reference"], "a container's image is the only way to bring one in")


def _chart(values: Node) -> Iterator[Finding]:
    for part in ALWAYS:
        yield from _stated(values.at(*part))
    for switch, parts in UNLESS_OFF.items():
        if values.at(*switch).value is not False:
            for part in parts:
                yield from _stated(values.at(*part), values.at(*switch))
    for switch, parts in IF_ON.items():
        if values.at(*switch).value:
            for part in parts:
                yield from _stated(values.at(*part), values.at(*switch))


def _stated(part: Node, switch: Node | None = None) -> Iterator[Finding]:
    image = part["image"]
    if part.unknown:
        yield later(part)
        return
    if image.unknown or (not image.absent and not image["name"].absent):
        return
    off = f", or {switch.path}: false" if switch else ""
    yield breach(image, f"a name and a tag are required{off}, for the chart's own image is unseen")
