"""What the workspaces' service is told, and what the hub is told of it. Pure."""

from typing import Any

from components import names
from components.config import StackFile, in_bytes
from components.values import internal_keycloak_url
from components.volume_specs import access_mode

SCOPE = f"access:services!service={names.WORKSPACES}"
"""What a person's token must be allowed."""

MEMBERS_SCOPE = "custom:mlhub:members"
"""What the service's own token is allowed, and no more (`mlhub.hub.api`)."""


def hub_values(namespace: str) -> dict[str, Any]:
    """`hub` in the Release's values: the service's token, its scopes, its address in the proxy.

    Without a `url`, for the hub would wait for it whenever it starts; the route is one of the
    proxy's own. The built-in roles `user` and `server` are stated whole, since a role of that name
    replaces them.
    """
    target = names.address(names.in_cluster(names.WORKSPACES, namespace), names.WORKSPACES_PORT)
    return {
        "services": {names.WORKSPACES: {"display": False}},
        "loadRoles": {
            names.WORKSPACES: {
                "description": "Say what somebody's role in a workspace has become.",
                "scopes": [MEMBERS_SCOPE],
                "services": [names.WORKSPACES],
            },
            "user": {
                "description": "One's own account and servers, and the services.",
                "scopes": ["self", SCOPE],
            },
            "server": {
                "description": "Post activity, and use the services from a notebook.",
                "scopes": ["users:activity!user", "access:servers!server", SCOPE],
            },
        },
        "config": {"Proxy": {"extra_routes": {f"{names.WORKSPACES_PATH}/": target}}},
    }


def settings(stack: StackFile) -> dict[str, Any]:
    """The service's settings (`mlhub.workspaces.settings`)."""
    given = stack.workspace_service
    if given is None:
        raise ValueError("the stack has no workspace_service section")
    # Where homes have a class of their own, that of workspaces is another (platform).
    of = names.shared_class if stack.storage.home_provisioner else names.home_class
    hub = names.address(names.in_cluster(names.HUB_SERVICE, stack.hub.namespace), names.HUB_PORT)
    return {
        "database_url": names.database_url(names.WORKSPACES_DATABASE, stack.foundation.namespace),
        "base_path": names.WORKSPACES_PATH,
        "hub": {"api_url": f"{hub}/hub/api", "scope": SCOPE},
        "keycloak": {
            "url": internal_keycloak_url(stack),
            "realm": stack.identity.realm,
            "client_id": names.WORKSPACES_CLIENT,
            "access_groups": list(stack.identity.access_groups),
        },
        "claims": {
            "namespace": stack.hub.namespace,
            "storage_class": of(stack.hub.namespace),
            "access_mode": access_mode(stack.storage.provisioner),
            "size_gib": gibibytes(given.size),
            "largest_gib": gibibytes(given.largest),
        },
        "limits": {"per_person": given.per_person, "grace_days": given.grace_days},
    }


def gibibytes(size: str) -> int:
    return in_bytes(size) // in_bytes("1G")
