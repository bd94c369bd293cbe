"""A stack to break: the program's own, as the engine would be asked for it."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mlhub_policies.limits import Limits, load
from mlhub_policies.rule import RELEASE, Finding, Resource
from mlhub_policies.rules import RULES, STACK_RULES, findings, stack_findings
from mlhub_policies.tree import SECRET, SIGNATURE
from tests.unit.recorder import Monitor, platform

GONE = object()
"""As a value: the key is taken out."""

UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
"""As a value: it is computed later."""

HUB = (RELEASE, "jupyterhub")

Place = tuple[str | int, ...]
Told = tuple[str, str]
"""A rule's name and its message."""


def marked(value: str) -> dict[str, str]:
    return {SIGNATURE: SECRET, "value": value}


def program(stack: str) -> list[Resource]:
    """Every resource of the program for a stack, as recorded."""
    return resources_of(platform(stack), stack)


def resources_of(recorded: Monitor, stack: str) -> list[Resource]:
    return [
        Resource(
            f"urn:pulumi:{stack}::{r.urn.split('::', 1)[1]}", r.type, r.name, r.inputs, r.protect
        )
        for r in recorded.registrations
    ]


def put(into: Any, place: Place, value: Any) -> None:
    """Sets what is at a place; makes the mappings on the way."""
    *ahead, last = place
    for name in ahead:
        into = into[name] if isinstance(into, list) else into.setdefault(name, {})
    if value is GONE:
        del into[last]
    elif isinstance(into, list) and last == len(into):
        into.append(value)
    else:
        into[last] = value


def changed(
    resources: list[Resource], which: tuple[str, str], changes: Mapping[Place, Any]
) -> list[Resource]:
    """The stack with one resource changed; a place `("protect",)` is the option."""
    found = [r for r in resources if (r.type, r.name) == which]
    assert len(found) == 1, which
    inputs = copy.deepcopy(dict(found[0].properties))
    protect = found[0].protect
    for place, value in changes.items():
        if place == ("protect",):
            protect = value
        else:
            put(inputs, place, value)
    other = replace(found[0], properties=inputs, protect=protect)
    return [other if r is found[0] else r for r in resources]


def without(resources: list[Resource], token: str, name: str) -> list[Resource]:
    left = [r for r in resources if (r.type, r.name) != (token, name)]
    assert len(left) == len(resources) - 1
    return left


def extra(token: str, name: str, inputs: Mapping[str, Any], *, stack: str = "local") -> Resource:
    """A resource that the program does not have."""
    return Resource(f"urn:pulumi:{stack}::mlhub::{token}::{name}", token, name, inputs)


def judged(resources: list[Resource], limits: Limits | None = None) -> list[tuple[str, Finding]]:
    """What every rule finds, by the rule's name."""
    known = limits or load()
    found = [
        (rule.name, finding, r)
        for rule in RULES
        for r in resources
        for finding in findings(rule, r, known)
    ]
    found += [
        (rule.name, finding, r)
        for rule in STACK_RULES
        for r, finding in stack_findings(rule, resources, known)
    ]
    return [(name, replace(f, says=f.message(r))) for name, f, r in found]


def refusals(resources: list[Resource], limits: Limits | None = None) -> list[Told]:
    return [(name, f.says) for name, f in judged(resources, limits) if not f.unknown]


def remarks(resources: list[Resource], limits: Limits | None = None) -> list[tuple[str, str]]:
    """The places that are not known yet, by rule."""
    return [(name, f.path) for name, f in judged(resources, limits) if f.unknown]
