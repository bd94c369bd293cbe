"""The hub's own behaviour, the same under Zero to JupyterHub and under `charts/jupyterhub-lite`.

Either chart enters it by one line of `hub.extraConfig`, which both execute last:

    from mlhub.hub import configure
    configure(c)

What the charts' vocabulary has a key for stays in the values; here is the rest.
"""

from pathlib import Path
from typing import Any

from traitlets.config import Config

from mlhub.hub import audit, settings
from mlhub.hub.api import MEMBERS_SCOPE, SCOPE
from mlhub.hub.identity import KeycloakAuthenticator, hub_groups
from mlhub.hub.offers import Profile
from mlhub.hub.settings import SettingsError
from mlhub.hub.spawner import MlhubSpawner

__all__ = ["KeycloakAuthenticator", "MlhubSpawner", "SettingsError", "configure"]

PAGES = str(Path(__file__).with_name("pages"))
"""The folder of pages that differ from JupyterHub's."""

SERVER_SCOPES = ["users:activity!user", "access:servers!server"]
"""The built-in role's (JupyterHub, `get_default_roles`)."""


def configure(c: Config) -> None:
    """Set the traits of the hub from the mounted values; ends the hub when they are wrong."""
    try:
        given = settings.load()
    except SettingsError as error:
        raise SystemExit(f"mlhub.hub: {error}") from None
    audit.configure()
    for section, traits in {
        "JupyterHub": _hub(c),
        "KeycloakAuthenticator": _authenticator(given.identity) | {"mlhub": given},
        "MlhubSpawner": _SPAWNER | _profiles(c),
    }.items():
        c[section].update(traits)


def _hub(c: Config) -> dict[str, Any]:
    return {
        # A line of JSON for each record; JupyterHub's own line has no level that a program reads.
        "logging_config": {"formatters": {"console": {"class": "mlhub.logs.JsonFormatter"}}},
        # A site's own pages come before ours.
        "template_paths": [*c.JupyterHub.get("template_paths", []), PAGES],
        "authenticator_class": KeycloakAuthenticator,
        "spawner_class": MlhubSpawner,
        "allow_named_servers": True,
        "load_roles": _roles(c),
        "custom_scopes": {
            **c.JupyterHub.get("custom_scopes", {}),
            SCOPE: {"description": "Reserve a run's share of somebody's quota, and release it."},
            MEMBERS_SCOPE: {"description": "Say what somebody's role in a workspace has become."},
        },
        # A refusal comes within a second: long enough for it to be the answer to the request
        # itself, where with 0 the request is accepted and the reason is found on a later page.
        "tornado_settings": {**c.JupyterHub.get("tornado_settings", {}), "slow_spawn_timeout": 1},
    }


def _roles(c: Config) -> list[dict[str, Any]]:
    """The chart's roles, and servers that may start, see and stop their owner's other servers.

    Code in a notebook is its owner's already; the token still makes no other tokens.
    """
    roles = {role["name"]: role for role in c.JupyterHub.get("load_roles", [])}
    server = {"name": "server", "scopes": SERVER_SCOPES} | roles.get("server", {})
    scopes = {*server["scopes"], "read:users:name!user", "read:users:groups!user", "servers!user"}
    return [*(roles | {"server": server | {"scopes": sorted(scopes)}}).values()]


def _authenticator(identity: settings.Identity) -> dict[str, Any]:
    return {
        "login_service": "Keycloak",
        "authorize_url": identity.public("auth"),
        "token_url": identity.internal("token"),
        "userdata_url": identity.internal("userinfo"),
        "discovery_url": identity.discovery,
        "end_session_url": identity.public("logout"),
        "oauth_callback_url": identity.callback_url,
        "after_logout_url": identity.login_url,
        "scope": ["openid", "profile"],
        "username_claim": "preferred_username",
        "groups_claim": identity.groups_claim,
        "enable_pkce": True,
        "http_request_kwargs": {"connect_timeout": 3, "request_timeout": 10},
        "manage_groups": True,
        "allowed_groups": hub_groups(identity.access_groups),
        "admin_groups": hub_groups(identity.admin_groups),
        "custom_403_message": (
            "You are logged in at Keycloak, but your account is not a member of a group that may "
            f"use this hub ({', '.join(identity.access_groups)}). Ask an administrator to add it."
        ),
        # Membership is asked for again with the tokens of the log-in, which the Hub keeps
        # encrypted (CryptKeeper); strictly, so that API tokens end with it, too.
        "enable_auth_state": True,
        "auth_refresh_age": identity.refresh_seconds,
        "auth_refresh_strict": True,
        "refresh_pre_spawn": True,
    }


def _profiles(c: Config) -> dict[str, Any]:
    """The chart's profiles, as each person is offered them; without any there is no form."""
    return {"profile_list": _offered} if c.KubeSpawner.get("profile_list") else {}


async def _offered(spawner: MlhubSpawner) -> list[Profile]:
    offered: list[Profile] = await spawner.authenticator.office.offered(spawner)
    return offered


_SPAWNER: dict[str, Any] = {
    # KubeSpawner applies them itself; without a hook the Hub warns that nobody does.
    "apply_user_options": lambda spawner, user_options: None,
    # Names that no two people share, and a home that outlives a deleted user record.
    "slug_scheme": "safe",
    "delete_pvc": False,
    "automount_service_account_token": False,
    "pod_security_context": {
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
        # Without it each start walks the whole home.
        "fsGroupChangePolicy": "OnRootMismatch",
    },
    # The chart's values mount what has to be written to: the home, the shared volumes and /tmp.
    "container_security_context": {
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    },
}
