"""The rules over the real program: every stack of ours keeps all of them."""

import pytest

from tests.policies.stack import program, refusals, remarks
from tests.unit.recorder import ROOT

STACKS = sorted(
    path.name.removeprefix("Pulumi.").removesuffix(".yaml")
    for path in (ROOT / "stacks").glob("Pulumi.*.yaml")
)


@pytest.mark.parametrize("stack", STACKS)
def test_the_programs_own_stack_breaks_no_rule(stack: str) -> None:
    resources = program(stack)
    assert any(r.type.endswith(":Release") for r in resources)
    assert refusals(resources) == []
    assert remarks(resources) == []


def test_a_stack_that_the_organization_does_not_know_is_refused_whole() -> None:
    resources = [
        type(r)(r.urn.replace(":local::", ":mine::"), r.type, r.name, r.properties, r.protect)
        for r in program("local")
    ]
    told = refusals(resources)
    assert len(told) == len(resources)
    assert {rule for rule, _ in told} == {"known-stack"}
    assert (
        "Release jupyterhub: stack is mine; policies/limits.yaml knows no stack mine" in told[-1][1]
    )
    assert "Add stacks.mine there" in told[-1][1]
