"""What people may do in their teams' workspaces: their Keycloak groups, as MLflow's own roles.

Nothing else gives a right there. MLflow lets whoever makes an experiment or a model manage it, and
that stays with owners and editors alone; roles that somebody gave by another way are taken away.
"""

from collections.abc import Mapping

from mlflow.entities import Workspace
from mlflow.server.auth import store
from mlflow.server.auth.entities import Role
from mlflow.server.workspace_helpers import _get_workspace_store

from mlhub.mlflow.made import unless_there

GRANTS = {
    "owner": {("workspace", "*"): "MANAGE"},
    "editor": {
        ("workspace", "*"): "USE",
        ("experiment", "*"): "EDIT",
        ("registered_model", "*"): "EDIT",
    },
    "viewer": {("experiment", "*"): "READ", ("registered_model", "*"): "READ"},
}
"""Of a role in a workspace. Whoever has USE of one may make something there, and sees all of it."""

MAKERS = ("owner", "editor")


def assign(user_id: int, own: str, workspaces: Mapping[str, str]) -> None:
    """Give somebody exactly these roles, by workspace, beside what they have in their `own`."""
    missing = dict(workspaces)
    for role in store.list_user_roles(user_id):
        of_their_own = role.name == store._synthetic_user_role_name(user_id)
        if of_their_own:
            if role.workspace == own:
                continue
            if workspaces.get(role.workspace) in MAKERS:
                _narrow(role)
            else:
                store.delete_role(role.id)
        elif workspaces.get(role.workspace) == role.name:
            del missing[role.workspace]
            _correct(role)
        else:
            store.unassign_role_from_user(user_id, role.id)
    for workspace, name in missing.items():
        role = _made(workspace, name)
        _correct(role)
        with unless_there():
            store.assign_role_to_user(user_id, role.id)


def _narrow(role: Role) -> None:
    """Leave what somebody made; who made a model that is called `*` would manage all of them."""
    for grant in role.permissions:
        if grant.resource_pattern == "*":
            store.remove_role_permission(grant.id)


def _made(workspace: str, name: str) -> Role:
    """The role, and the workspace, whether or not they were there."""
    for role in store.list_roles([workspace]):
        if role.name == name:
            return role
    with unless_there():
        _get_workspace_store().create_workspace(Workspace(name=workspace))
    with unless_there():
        store.create_role(name, workspace)
    return store.get_role_by_name(workspace, name)


def _correct(role: Role) -> None:
    """Bring the grants of a role in line with what it is here."""
    wanted = dict(GRANTS[role.name])
    for grant in role.permissions:
        if wanted.get((grant.resource_type, grant.resource_pattern)) == grant.permission:
            del wanted[grant.resource_type, grant.resource_pattern]
        else:
            store.remove_role_permission(grant.id)
    for (resource, pattern), permission in wanted.items():
        with unless_there():
            store.add_role_permission(role.id, resource, pattern, permission)
