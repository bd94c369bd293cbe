"""What the execution service is told, and what the hub is told of it.

Pure, and apart from the resources. What a run's pod is comes from the hub's own values
(`singleuser`), so that a server and a run are alike by construction.
"""

from collections.abc import Mapping
from typing import Any

from components import names
from components.config import StackFile
from components.values import internal_keycloak_url

SCOPE = f"access:services!service={names.EXECUTION}"
"""What a person's token must be allowed."""

ADMISSION_SCOPE = "custom:mlhub:admission"
"""What the service's own token is allowed, and no more (`mlhub.hub.api`)."""

OVERRIDES = {
    "image",
    "cpu_limit",
    "cpu_guarantee",
    "mem_limit",
    "mem_guarantee",
    "extra_resource_limits",
    "extra_resource_guarantees",
    "node_selector",
    "tolerations",
}
"""The `kubespawner_override` that a run's pod has a place for."""


def hub_values(namespace: str) -> dict[str, Any]:
    """`hub` in the Release's values: the service's token, its scopes, its address in the proxy.

    A service with a `url` is waited for whenever the hub starts, 40 s where it is down, and gets a
    route from that; so it has none, and the route is one of the proxy's own. The built-in roles
    `user` and `server` are stated whole, since a role of that name replaces them.
    """
    target = names.address(names.in_cluster(names.EXECUTION, namespace), names.EXECUTION_PORT)
    return {
        "services": {names.EXECUTION: {"display": False}},
        "loadRoles": {
            names.EXECUTION: {
                "description": "Ask whether a run may start.",
                "scopes": [ADMISSION_SCOPE],
                "services": [names.EXECUTION],
            },
            "user": {
                "description": "One's own account, servers and runs.",
                "scopes": ["self", SCOPE],
            },
            "server": {
                "description": "Post activity, and start runs from a notebook.",
                "scopes": ["users:activity!user", "access:servers!server", SCOPE],
            },
        },
        "config": {"Proxy": {"extra_routes": {f"{names.EXECUTION_PATH}/": target}}},
    }


def settings(stack: StackFile, values: Mapping[str, Any]) -> dict[str, Any]:
    """The service's settings (`mlhub.execution.settings`) from the Release's values.

    Raises ValueError for a profile that a run's pod could not follow.
    """
    if stack.execution is None:
        raise ValueError("the stack has no execution section")
    singleuser = values["singleuser"]
    realm, keycloak = f"realms/{stack.identity.realm}", internal_keycloak_url(stack)
    hub = names.address(names.in_cluster(names.HUB_SERVICE, stack.hub.namespace), names.HUB_PORT)
    return {
        "database_url": names.database_url(names.EXECUTION_DATABASE, stack.foundation.namespace),
        "base_path": names.EXECUTION_PATH,
        "pod": pod_policy(stack.hub.namespace, values),
        "profiles": [profile(given) for given in singleuser["profileList"]],
        "hub": {"api_url": f"{hub}/hub/api", "scope": SCOPE},
        "keycloak": {
            "issuer": f"{stack.keycloak_url}/{realm}",
            "jwks_url": f"{keycloak}/{realm}/protocol/openid-connect/certs",
            "audience": names.EXECUTION_AUDIENCE,
            "clients": {c.name: list(c.for_users) for c in stack.execution.clients},
            "token_url": f"{keycloak}/{realm}/protocol/openid-connect/token",
            "admin_url": f"{keycloak}/admin/{realm}",
            "client_id": names.EXECUTION_AUDIENCE,
            "members": list(stack.identity.access_groups),
        },
        "limits": {
            "run_seconds": stack.execution.run_seconds,
            "longest_run_seconds": stack.execution.run_seconds,
            "start_seconds": stack.hub.start_timeout,
            "run_kept_days": stack.execution.keep_days,
        },
    }


def pod_policy(namespace: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """What every pod of a person has, with the labels that the chart's policies select by."""
    singleuser = values["singleuser"]
    storage = singleuser["storage"]
    return {
        "namespace": namespace,
        "labels": {
            "app": "jupyterhub",
            "release": names.HUB_RELEASE,
            "component": "singleuser-server",
            "hub.jupyter.org/network-access-hub": "true",
        },
        "home_claim": storage["dynamic"]["pvcNameTemplate"],
        "home_mount": storage["homeMountPath"],
        "one_node": storage["dynamic"]["storageAccessModes"] == ["ReadWriteOnce"],
        "uid": singleuser["uid"],
        "fs_gid": singleuser["fsGid"],
        "environment": dict(singleuser.get("extraEnv") or {}),
        "pull_secrets": list(values.get("imagePullSecrets") or []),
        "volumes": listed(storage.get("extraVolumes")),
        "volume_mounts": listed(storage.get("extraVolumeMounts")),
    }


def listed(given: Any) -> list[Any]:
    """A list, whether the values hold one or a mapping of names to its items."""
    return list(given.values()) if isinstance(given, Mapping) else list(given or [])


def profile(given: Mapping[str, Any]) -> dict[str, Any]:
    """One of the spawn form's profiles as a size of runs; raises ValueError."""
    override = given["kubespawner_override"]
    if strange := sorted(set(override) - OVERRIDES):
        raise ValueError(
            f"profile {given['slug']} overrides {', '.join(strange)}, which a run's pod has no "
            "place for; give mlhub.execution.jobs one, and name it in OVERRIDES"
        )
    return {"slug": given["slug"], "default": given.get("default", False), **override}
