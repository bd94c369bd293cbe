"""The spawn form as a page: which profile is chosen in it, and what a screen reader says."""

import re
from types import SimpleNamespace
from typing import Any

import pytest

from mlhub.admission import Ask, Charge, Quotas, Size
from mlhub.admission.decision import decide
from mlhub.hub.form import render

CORES = {"large": 16, "standard": 4, "small": 1}
"""The profiles in the form's order, `standard` the default."""


def page(quotas: dict[str, Any], chosen: dict[str, str], *slugs: str) -> str:
    profiles = [
        {"slug": slug, "display_name": slug.title(), "default": slug == "standard"}
        for slug in slugs
    ]
    offers: Any = SimpleNamespace(least=lambda profile: Size(cpu=CORES[profile["slug"]]))
    limits = Quotas.model_validate(quotas)
    nothing = Ask("alice/", "alice", Size(), frozenset({Charge("user", "alice")}))
    state = decide(nothing, [], limits, {})
    return render(profiles, offers, state, limits, chosen, roles={}, names={})


@pytest.mark.parametrize(
    ("most", "last", "checked"),
    [
        (32, "large", ["large"]),
        (32, "", ["standard"]),
        (32, "gone", ["standard"]),
        (8, "large", ["standard"]),
        (2, "large", ["small"]),
        (2, "", ["small"]),
        (0.5, "large", []),
    ],
)
def test_a_profile_that_can_be_had_is_chosen_where_there_is_one(most, last, checked):
    shown = page({"server": {"cpu": most}}, {"profile": last}, *CORES)
    assert re.findall(r'value="(\w+)" checked', shown) == checked


def test_nothing_is_chosen_where_nothing_more_may_start():
    shown = page({"user": {"servers": 0}}, {"profile": "small"}, *CORES)
    assert shown.count(" disabled") == len(CORES)
    assert " checked" not in shown


def test_the_profiles_are_a_group_with_a_name():
    shown = page({}, {}, *CORES)
    group = re.search(
        r"<fieldset>\s*<legend [^>]*>(.*?)</legend>(.*?)</fieldset>", shown, re.DOTALL
    )
    assert group
    assert group[1] == "Profile"
    assert group[2].count('type="radio"') == len(CORES)
    assert "<fieldset" not in page({}, {}), "there is no group of none"
