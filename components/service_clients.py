"""Confidential clients in Keycloak without a log-in page, each for one service of the platform."""

import os

import pulumi
import pulumi_keycloak as keycloak

from components import names

SCOPES = ["basic", "profile", "service_account"]
"""`basic` carries `sub`, `profile` the name that tells a service from a person; Keycloak adds the
third itself."""

MANAGEMENT = "realm-management"
"""The realm's own client, whose roles are the rights to see and to change it."""


def service_client(
    client_id: str,
    realm_id: pulumi.Input[str],
    word: pulumi.Output[str],
    child: pulumi.ResourceOptions,
    *,
    all_roles: bool = False,
) -> keycloak.openid.Client:
    """`all_roles`: whether its tokens carry every role of its account, or none."""
    client = keycloak.openid.Client(
        client_id,
        realm_id=realm_id,
        client_id=client_id,
        client_secret=word,
        name=client_id,
        enabled=True,
        access_type="CONFIDENTIAL",
        standard_flow_enabled=False,
        implicit_flow_enabled=False,
        direct_access_grants_enabled=False,
        service_accounts_enabled=True,
        full_scope_allowed=all_roles,
        opts=child,
    )
    keycloak.openid.ClientDefaultScopes(
        f"{client_id}-default-scopes",
        realm_id=realm_id,
        client_id=client.id,
        default_scopes=[*SCOPES, "roles"] if all_roles else SCOPES,
        opts=child,
    )
    return client


def client_that_sees_people(
    name: str,
    client_id: str,
    realm_id: pulumi.Input[str],
    word: pulumi.Output[str],
    child: pulumi.ResourceOptions,
) -> None:
    """A client that may look people and their groups up, and change nobody."""
    client = service_client(client_id, realm_id, word, child, all_roles=True)
    grant(f"{name}-sees-people", client, "view-users", child)


def grant(
    name: str, client: keycloak.openid.Client, role: str, child: pulumi.ResourceOptions
) -> None:
    """One role of the realm's own client for the account of a service's."""
    keycloak.openid.ClientServiceAccountRole(
        name,
        realm_id=client.realm_id,
        service_account_user_id=client.service_account_user_id,
        client_id=_management(client.realm_id, child),
        role=role,
        # It never changes, and a preview does not know it.
        opts=pulumi.ResourceOptions.merge(
            child, pulumi.ResourceOptions(ignore_changes=["client_id"])
        ),
    )


def _management(realm_id: pulumi.Input[str], child: pulumi.ResourceOptions) -> pulumi.Input[str]:
    """The id of the realm's own client. A preview asks no server, so it has to do without; and so
    does the update in which the provider has a password that Keycloak does not know yet."""
    if pulumi.runtime.is_dry_run() or os.environ.get(names.KEYCLOAK_UNASKED):
        return MANAGEMENT
    found: pulumi.Output[str] = keycloak.openid.get_client_output(
        realm_id=realm_id,
        client_id=MANAGEMENT,
        opts=pulumi.InvokeOutputOptions(parent=child.parent),
    ).id
    return found
