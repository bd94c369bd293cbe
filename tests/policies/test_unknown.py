"""No rule passes over what is not known yet: not where it breaks, and not in any part above that.

Taken from the tables of breaches, so that a rule with a new breach is held to this as well. The
update knows the value, and the breach itself is refused there (`tests/engine/test_policies.py`).
"""

import functools
from collections.abc import Iterator

import pytest

from mlhub_policies.limits import load
from mlhub_policies.rule import Finding, Resource, Rule, StackRule
from mlhub_policies.rules import KNOWN, RULES, STACK_RULES, findings, stack_findings
from tests.policies import test_prod, test_release, test_resources
from tests.policies.stack import HUB, UNKNOWN, Place, changed, extra, program

Case = tuple[str, str, tuple[str, str], Place]
"""A rule, a stack, a resource of it and a place in that."""

BY_NAME: dict[str, Rule | StackRule] = {rule.name: rule for rule in (*RULES, *STACK_RULES)}

RIGHTS = [
    ("ClusterRoleBinding", ("roleRef", "name")),
    ("ClusterRoleBinding", ("subjects", 0, "name")),
    ("Role", ("rules", 0, "verbs", 0)),
    ("Role", ("rules", 0, "resources", 0)),
    ("ClusterRole", ("aggregationRule",)),
]


def breaches() -> Iterator[Case]:
    """Where each breach of the tables is."""
    for place, _, rule, _ in test_release.BREACHES.values():
        yield rule, "local", HUB, place
    for which, place, _, rule, _ in test_resources.BREACHES.values():
        yield rule, "local", which, place
    for which, place, _, rule, _ in test_prod.BREACHES.values():
        yield rule, "prod", which, place


def places() -> list[Case]:
    """Each of those, and each part that it is in; `protect` is always known."""
    found: dict[Case, None] = {}
    for rule, stack, which, place in breaches():
        for depth in range(len(place), 0, -1):
            if place != ("protect",):
                found[rule, stack, which, place[:depth]] = None
    return list(found)


recorded = functools.cache(program)


def found_by(rule: str, resources: list[Resource], which: tuple[str, str]) -> list[Finding]:
    """What a rule finds in a resource, or in the whole stack."""
    of, limits = BY_NAME[rule], load()
    if isinstance(of, StackRule):
        return [finding for _, finding in stack_findings(of, resources, limits)]
    (resource,) = [r for r in resources if (r.type, r.name) == which]
    return list(findings(of, resource, limits))


BY_ITS_NAME = ("image_spec", "singleuser_privileged")
"""What a profile may not set to anything."""


@pytest.mark.parametrize("rule", sorted({rule for rule, *_ in places()}))
def test_an_unknown_part_is_remarked_and_neither_refused_nor_passed_over(rule: str) -> None:
    for told_rule, stack, which, place in places():
        if told_rule == rule:
            made = changed(recorded(stack), which, {place: UNKNOWN})
            found = found_by(rule, made, which)
            assert found, place
            if place[-1] not in BY_ITS_NAME:
                assert [f.says for f in found if not f.unknown] == [], place
            assert UNKNOWN not in str([f.says for f in found])


@pytest.mark.parametrize(("kind", "place"), RIGHTS)
def test_T14_rights_that_are_not_known_yet_are_remarked(kind: str, place: Place) -> None:
    token = f"kubernetes:rbac.authorization.k8s.io/v1:{kind}"
    inputs = {
        "roleRef": {"name": "nodes"},
        "subjects": [test_resources.SUBJECT],
        "rules": [test_resources.ROLE],
    }
    whole = extra(token, "rights", inputs)
    for depth in range(len(place), 0, -1):
        made = changed([whole], (token, "rights"), {place[:depth]: UNKNOWN})
        found = found_by("small-rights", made, (token, "rights"))
        assert found, place[:depth]
        assert all(finding.unknown for finding in found), place[:depth]


def test_a_person_whose_password_is_not_known_yet_is_made_up_all_the_same() -> None:
    token = "keycloak:index/user:User"
    person = extra(token, "eve", {"initialPassword": UNKNOWN}, stack="prod")
    (finding,) = found_by("no-demo-users", [person], (token, "eve"))
    assert not finding.unknown


def test_every_rule_has_a_breach_and_an_unknown_here_or_by_name() -> None:
    """A stack's name, by which its limits are found, is always known."""
    by_name = {"small-rights", "no-demo-users"}
    assert {rule for rule, *_ in places()} | by_name | {KNOWN.name} == set(BY_NAME)
