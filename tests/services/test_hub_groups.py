"""Group names: two Keycloak groups are never one Hub group."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jupyterhub.orm import Group

from mlhub.hub.groups import ROLES, hub_group_name, workspace_roles
from mlhub.slugs import workspace_slug

paths = st.lists(st.text("ab-_~. é/", max_size=6), max_size=4).map(
    lambda parts: "/" + "/".join(parts)
)


def test_T3_a_plain_path_stays_readable():
    assert hub_group_name("/mlhub/users") == "mlhub--users"
    assert hub_group_name("/workspaces/data-science/owner") == "workspaces--data-science--owner"


@pytest.mark.parametrize(
    "other",
    ["/a--team", "/a-/team", "/a/-team", "a/team", "/a//team", "/a/team/", "/A/team", "/team"],
)
def test_T3_no_other_path_takes_the_name_of_a_group(other):
    assert hub_group_name(other) != hub_group_name("/a/team")


@given(paths, paths)
def test_T3_two_paths_are_two_names(one, other):
    assert (hub_group_name(one) == hub_group_name(other)) == (one == other)


@given(st.text(max_size=400).map("/".__add__))
def test_every_name_suits_the_hubs_routes_and_database(path):
    name = hub_group_name(path)
    assert "/" not in name
    assert 0 < len(name) <= Group.name.type.length


@given(st.text(max_size=60), st.sampled_from(ROLES))
def test_M7_a_workspaces_slug_is_read_back_from_its_groups_name(name, role):
    slug = workspace_slug(name)
    assert workspace_roles([hub_group_name(f"/workspaces/{slug}/{role}")]) == {slug: role}


@pytest.mark.parametrize(
    "path",
    [
        "/workspaces/default/owner",  # MLflow's own
        "/workspaces/alice--home/owner",  # somebody's
        "/workspaces/UPPER/owner",
        "/workspaces/fraud/guest",
        "/workspaces/fraud",
        "/workspaces/fraud/owner/deputies",
        "/other/fraud/owner",
        "/workspaces-fraud-0123456789abcdef0123/owner",
    ],
)
def test_M7_no_other_group_is_a_role_in_a_workspace(path):
    assert workspace_roles([hub_group_name(path)]) == {}


def test_M7_the_strongest_role_wins():
    groups = [hub_group_name(f"/workspaces/fraud/{role}") for role in ("viewer", "owner", "editor")]
    assert workspace_roles(groups) == {"fraud": "owner"}
