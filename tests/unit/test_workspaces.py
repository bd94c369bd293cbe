"""Workspaces: groups with full paths, a volume each, and no more resources than that."""

from typing import Any

import pytest

from components import workspaces
from components.config import Workspace
from components.workspaces import Workspaces, WorkspacesArgs
from tests.unit.recorder import Monitor, run

GROUP = "keycloak:index/group:Group"
CLAIM = "kubernetes:core/v1:PersistentVolumeClaim"

FORECASTING = Workspace(slug="forecasting", name="Forecasting & more", size="100Gi")
RESEARCH = Workspace(slug="research-2", name="Research", size="50Gi")


def made(*wanted: Workspace, provisioner: str = "seaweedfs-csi-driver") -> Monitor:
    return run(
        lambda: Workspaces(
            "workspaces",
            WorkspacesArgs(
                workspaces=wanted,
                realm_id="mlhub",
                namespace="jupyterhub",
                class_name="jupyterhub-homes",
                provisioner=provisioner,
            ),
        )
    )


def group_paths(monitor: Monitor) -> set[str]:
    """The full path of each group, by following its parents."""
    by_id = {f"{r.name}-id": r.plain for r in monitor.of_type(GROUP)}

    def path(group: dict[str, Any]) -> str:
        above = group.get("parentId")
        return (path(by_id[above]) if above else "") + "/" + group["name"]

    return {path(group) for group in by_id.values()}


def test_M7_each_workspace_has_three_roles_as_groups_by_full_path():
    monitor = made(FORECASTING, RESEARCH)
    assert group_paths(monitor) == {
        "/workspaces",
        *(
            path
            for slug in ("forecasting", "research-2")
            for path in (
                f"/workspaces/{slug}",
                *(workspaces.group_path(slug, role) for role in ("owner", "editor", "viewer")),
            )
        ),
    }
    assert {r.plain["realmId"] for r in monitor.of_type(GROUP)} == {"mlhub"}


def test_M8_each_workspace_has_a_volume_of_its_name_and_size():
    claim = made(FORECASTING).one(CLAIM, "workspace-forecasting").plain
    assert claim["metadata"]["name"] == "workspace-forecasting"
    assert claim["metadata"]["namespace"] == "jupyterhub"
    assert claim["metadata"]["labels"]["mlhub.io/workspace"] == "forecasting"
    assert claim["metadata"]["annotations"] == {
        "mlhub.io/workspace-name": "Forecasting & more",
        "pulumi.com/skipAwait": "true",
    }
    assert claim["spec"] == {
        "accessModes": ["ReadWriteMany"],
        "storageClassName": "jupyterhub-homes",
        "resources": {"requests": {"storage": "100Gi"}},
    }


def test_T13_groups_and_volumes_are_protected_and_outlive_a_destroy():
    for registration in made(FORECASTING).registrations:
        if registration.custom:
            assert registration.protect, registration.urn
            assert registration.retain_on_delete, registration.urn


@pytest.mark.parametrize("count", [0, 1, 10, 100])
def test_a_workspace_is_five_resources_however_many_there_are(count):
    many = [Workspace(slug=f"team-{n}", name=f"Team {n}", size="1Gi") for n in range(count)]
    customs = [r for r in made(*many).registrations if r.custom]
    assert len(customs) == 1 + 5 * count
