"""What a rule is given and what it finds."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlhub_policies.limits import StackLimits
from mlhub_policies.tree import Node

RELEASE = "kubernetes:helm.sh/v3:Release"
KUBERNETES = "kubernetes:"


@dataclass(frozen=True)
class Resource:
    """A resource as the engine is about to make it."""

    urn: str
    type: str
    name: str
    properties: Mapping[str, Any]
    """As on the wire: secrets and unknowns are marked."""
    protect: bool = False

    @property
    def inputs(self) -> Node:
        return Node.of(self.properties)

    @property
    def kind(self) -> str:
        """`Release` of `kubernetes:helm.sh/v3:Release`; a patch counts as what it patches."""
        kind = self.type.rpartition(":")[2]
        return kind.removesuffix("Patch") if self.type.startswith(KUBERNETES) else kind

    @property
    def of_kubernetes(self) -> bool:
        return self.type.startswith(KUBERNETES)

    @property
    def values(self) -> Node:
        """A Release's values, whose paths begin inside them: that is where people look."""
        values = self.inputs["values"]
        return Node("", values.value, secret=values.secret)


@dataclass(frozen=True)
class Finding:
    """One sentence about one place: a breach, or a value that is not known yet."""

    path: str
    says: str = ""
    unknown: bool = False

    def message(self, resource: Resource) -> str:
        return f"{resource.kind} {resource.name}: {self.path} {self.says}"


def breach(node: Node, wanted: str) -> Finding:
    """What is wrong at a node, and what would be right."""
    return Finding(node.path, f"is {node.shown()}; {wanted}")


def later(node: Node) -> Finding:
    return Finding(node.path, "is not known yet", unknown=True)


Check = Callable[[Resource, StackLimits], Iterator[Finding]]
StackCheck = Callable[[Sequence[Resource], StackLimits], Iterator[tuple[Resource, Finding]]]


@dataclass(frozen=True)
class Rule:
    """A rule over each resource by itself. All are mandatory: there is no other kind."""

    name: str
    description: str
    """What holds where the rule does, as a whole sentence."""
    check: Check


@dataclass(frozen=True)
class StackRule:
    """A rule over all resources together: something has to be there."""

    name: str
    description: str
    check: StackCheck
