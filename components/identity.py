"""Who people are and what they may do, in Keycloak: realm, client, groups.

Everything that Keycloak would name, choose or default by itself is stated, so that what someone
clicks together in its console is put back by the next `up`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_keycloak as keycloak

from components import names
from components.config import DemoUser
from components.config import Identity as IdentityConfig
from components.secrets import password, secret
from components.service_clients import client_that_sees_people

DEFAULT_SCOPES = ["acr", "basic", "email", "profile", "roles", "web-origins"]
"""All of them: the resource is authoritative, and `basic` carries `sub`."""

IDLE, LONGEST = "8h0m0s", "24h0m0s"
"""A session outlives a meeting, not a night; memberships count for minutes, whatever its age."""


def group_paths(groups: Sequence[str]) -> list[str]:
    """Every group to make for these paths, parents before children."""
    return sorted({path for group in groups for path in names.group_chain(group)})


@dataclass(frozen=True)
class IdentityArgs:
    config: IdentityConfig
    hub_url: str
    """As browsers reach it."""
    secrets_namespace: pulumi.Input[str]
    """Where the Secret with the demo users' passwords goes."""


class Identity(pulumi.ComponentResource):
    """A realm with the hub's client, the groups and, for demonstrations, a few people."""

    client_secret: pulumi.Output[str] | None
    """None where the stack names a Secret of its own, for a client that others manage."""
    people_secret: pulumi.Output[str] | None
    """Of the client with which the hub looks people up; None where others manage its clients."""
    realm_id: pulumi.Output[str]

    def __init__(self, name: str, args: IdentityArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("mlhub:identity:Identity", name, {}, opts)
        self._child = pulumi.ResourceOptions(parent=self)

        self.realm_id = realm_id = self._realm(args.config)
        groups = self._groups(realm_id, args.config.access_groups)
        self.client_secret = self.people_secret = None
        if args.config.existing_secret is None:
            self.client_secret = self._client(realm_id, args.hub_url)
            self.people_secret = word = password("hub-keycloak-client", self._child)
            client_that_sees_people("hub", names.PEOPLE_CLIENT, realm_id, word, self._child)
        if args.config.demo_users:
            self._demo_users(realm_id, args, groups)
        self.register_outputs({"client_secret": self.client_secret, "realm_id": realm_id})

    def _realm(self, config: IdentityConfig) -> pulumi.Output[str]:
        """The realm, whose id for Keycloak's API is its name; that of others is left as it is."""
        if config.keycloak is not None:
            return pulumi.Output.from_input(config.realm)
        return keycloak.Realm(
            "realm",
            realm=config.realm,
            enabled=True,
            display_name="mlhub",
            registration_allowed=False,
            reset_password_allowed=False,
            remember_me=False,
            login_with_email_allowed=True,
            duplicate_emails_allowed=False,
            ssl_required="external",
            sso_session_idle_timeout=IDLE,
            sso_session_max_lifespan=LONGEST,
            # With the realm would go every account.
            opts=pulumi.ResourceOptions(parent=self, protect=True, retain_on_delete=True),
        ).id

    def _groups(
        self, realm_id: pulumi.Output[str], wanted: Sequence[str]
    ) -> dict[str, keycloak.Group]:
        groups: dict[str, keycloak.Group] = {}
        for path in group_paths(wanted):
            parent, _, leaf = path.rpartition("/")
            groups[path] = keycloak.Group(
                f"group-{names.group_slug(path)}",
                realm_id=realm_id,
                parent_id=groups[parent].id if parent else None,
                name=leaf,
                # With a group would go its memberships.
                opts=pulumi.ResourceOptions(parent=self, protect=True, retain_on_delete=True),
            )
        return groups

    def _client(self, realm_id: pulumi.Output[str], hub_url: str) -> pulumi.Output[str]:
        """The hub's client: the standard flow with PKCE, back to one address, and no other way."""
        client_secret = password("jupyterhub-client-secret", self._child)
        client = keycloak.openid.Client(
            "jupyterhub",
            realm_id=realm_id,
            client_id=names.OIDC_CLIENT,
            client_secret=client_secret,
            name="JupyterHub",
            enabled=True,
            access_type="CONFIDENTIAL",
            standard_flow_enabled=True,
            implicit_flow_enabled=False,
            direct_access_grants_enabled=False,
            service_accounts_enabled=False,
            full_scope_allowed=False,
            pkce_code_challenge_method="S256",
            root_url=hub_url,
            valid_redirect_uris=[names.callback_url(hub_url)],
            valid_post_logout_redirect_uris=[names.after_logout_url(hub_url)],
            web_origins=[],
            opts=self._child,
        )
        keycloak.openid.GroupMembershipProtocolMapper(
            "jupyterhub-groups",
            realm_id=realm_id,
            client_id=client.id,
            name=names.GROUPS_CLAIM,
            claim_name=names.GROUPS_CLAIM,
            # Short names would make one group of /a/team and /b/team.
            full_path=True,
            add_to_id_token=True,
            add_to_access_token=False,
            add_to_userinfo=True,
            opts=self._child,
        )
        keycloak.openid.ClientDefaultScopes(
            "jupyterhub-default-scopes",
            realm_id=realm_id,
            client_id=client.id,
            default_scopes=DEFAULT_SCOPES,
            opts=self._child,
        )
        return client_secret

    def _demo_users(
        self,
        realm_id: pulumi.Output[str],
        args: IdentityArgs,
        groups: dict[str, keycloak.Group],
    ) -> None:
        passwords = {
            user.name: self._demo_user(realm_id, user, groups) for user in args.config.demo_users
        }
        secret(
            names.DEMO_USERS_SECRET,
            namespace=args.secrets_namespace,
            data=passwords,
            opts=self._child,
        )

    def _demo_user(
        self,
        realm_id: pulumi.Output[str],
        user: DemoUser,
        groups: dict[str, keycloak.Group],
    ) -> pulumi.Output[str]:
        word = password(f"user-{user.name}", self._child)
        account = keycloak.User(
            f"user-{user.name}",
            realm_id=realm_id,
            username=user.name,
            enabled=True,
            # Whole, or Keycloak asks for the rest at the first log-in. The domain is RFC 2606's.
            email=f"{user.name}@mlhub.example",
            email_verified=True,
            first_name=user.name.capitalize(),
            last_name="Demo",
            initial_password={"value": word, "temporary": False},
            opts=self._child,
        )
        keycloak.UserGroups(
            f"user-{user.name}",
            realm_id=realm_id,
            user_id=account.id,
            group_ids=[groups[path].id for path in user.groups],
            exhaustive=True,
            opts=self._child,
        )
        return word
