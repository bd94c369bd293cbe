"""No two names meet in one slug."""

import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlhub.slugs import LONGEST, RESERVED, personal_workspace, workspace_slug

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")

close_names = st.text(alphabet="aA-_ b1.é", min_size=0, max_size=6)
slugs_themselves = st.builds(workspace_slug, st.text(max_size=60))
names = st.one_of(
    st.text(max_size=80),
    close_names,
    slugs_themselves,
    st.text(alphabet=string.ascii_lowercase + string.digits + "-", min_size=40, max_size=70),
    st.sampled_from(sorted(RESERVED)),
)


@given(names)
def test_M8_every_name_gives_a_label_of_2_to_50_characters(name):
    slug = workspace_slug(name)
    assert LABEL.fullmatch(slug)
    assert 2 <= len(slug) <= LONGEST
    assert slug not in RESERVED


@given(names, names)
def test_M8_no_two_names_meet_in_one_slug(one, other):
    assert (workspace_slug(one) == workspace_slug(other)) == (one == other)
    assert (personal_workspace(one) == personal_workspace(other)) == (one == other)


@given(names, names)
def test_T11_a_persons_workspace_is_no_teams(user, team):
    assert personal_workspace(user) != workspace_slug(team)
    assert LABEL.fullmatch(personal_workspace(user))
    assert len(personal_workspace(user)) <= 63


@given(names)
def test_a_slug_with_a_hash_is_not_left_as_it_is_when_given_as_a_name(name):
    slug = workspace_slug(name)
    if slug != name:
        assert workspace_slug(slug) != slug


@pytest.mark.parametrize("name", ["fraud-detection", "team1", "a1"])
def test_what_is_a_slug_already_stays(name):
    assert workspace_slug(name) == name


@pytest.mark.parametrize(
    "name", ["Fraud Detection", "a", "", "a--b", "-a", "default", "x" * 51, "é"]
)
def test_what_is_none_gets_a_hash(name):
    assert re.search(r"--[0-9a-f]{20}$", workspace_slug(name))
