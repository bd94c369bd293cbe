"""docs/policies.md says what the rules are."""

import re

from mlhub_policies.limits import load
from mlhub_policies.rules import RULES, STACK_RULES
from tests.unit.recorder import ROOT

PAGE = (ROOT / "docs" / "policies.md").read_text()


def test_the_table_has_every_rule_in_its_own_words() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| (.*) \|$", PAGE, re.MULTILINE)
    assert rows == [(rule.name, rule.description) for rule in (*RULES, *STACK_RULES)]


def test_the_stacks_that_the_page_names_have_limits() -> None:
    (known,) = re.findall(r"it knows ([a-z, ]+)\.", " ".join(PAGE.split()))
    assert set(known.split(", ")) <= load().stacks.keys()


def test_names_of_rules_differ() -> None:
    names = [rule.name for rule in (*RULES, *STACK_RULES)]
    assert len(set(names)) == len(names)
