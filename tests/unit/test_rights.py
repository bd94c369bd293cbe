"""Who is bound to which role, by which names: another name would replace it on people's stacks."""

import pytest

from tests.unit.recorder import ROOT, STACKS, platform

MADE = {
    "Role": {"mlhub-backup": "hub", "execution": "execution", "workspaces": "workspaces"},
    "ClusterRole": {"jupyterhub-hub-nodes": "hub"},
}
"""Each role's name with the account that has it. That of nodes is where a profile has a GPU."""
PARENTS = {
    "mlhub-backup": "mlhub:backups:Backups",
    "jupyterhub-hub-nodes": "mlhub:nodes:Nodes",
    "execution": "mlhub:execution:Execution",
    "workspaces": "mlhub:service:WorkspaceService",
}


@pytest.mark.parametrize("stack", STACKS)
def test_T14_each_role_is_bound_to_one_account_and_keeps_its_urn(stack):
    group = "kubernetes:rbac.authorization.k8s.io/v1"
    made = platform(stack)
    for kind, accounts in MADE.items():
        found = {r.name for r in made.of_type(f"{group}:{kind}")}
        assert found == (set() if (stack, kind) == ("local", "ClusterRole") else set(accounts))
        for name in found:
            account = accounts[name]
            role = made.one(f"{group}:{kind}", name)
            binding = made.one(f"{group}:{kind}Binding", name)
            assert role.urn.endswith(f"::{PARENTS[name]}${group}:{kind}::{name}")
            assert binding.urn.endswith(f"::{PARENTS[name]}${group}:{kind}Binding::{name}")
            assert role.urn in binding.dependencies
            assert role.plain["metadata"] == binding.plain["metadata"]
            assert role.plain["metadata"].get("namespace") == (
                "jupyterhub" if kind == "Role" else None
            )
            assert binding.plain["roleRef"] == {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": kind,
                "name": name,
            }
            assert binding.plain["subjects"] == [
                {"kind": "ServiceAccount", "name": account, "namespace": "jupyterhub"}
            ]


def test_roles_are_made_in_one_place():
    making = {
        path.stem
        for path in (ROOT / "components").glob("*.py")
        if "rbac.v1.Role" in path.read_text() or "rbac.v1.ClusterRole" in path.read_text()
    }
    assert making == {"rights"}
