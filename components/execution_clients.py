"""The execution API in Keycloak: its own client, and one for each service that may run notebooks.

Its own looks up whether a person is still a member when a schedule fires; it may see people and
change nobody. A service's takes tokens for itself alone (client credentials), for this API alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_keycloak as keycloak

from components import names
from components.config import ServiceClient
from components.secrets import password, secret

SCOPES = ["basic", "profile", "service_account"]
"""`basic` carries `sub`, `profile` the name that tells a service from a person; Keycloak adds the
third itself."""

MANAGEMENT = "realm-management"
"""The realm's own client, whose roles are the rights to see and to change it."""


@dataclass(frozen=True)
class ExecutionClientsArgs:
    realm_id: pulumi.Input[str]
    namespace: pulumi.Input[str]
    """Where the Secrets of the services' clients go, `execution-client-<name>`."""
    clients: Sequence[ServiceClient]


class ExecutionClients(pulumi.ComponentResource):
    """Confidential clients without a log-in page."""

    client_secret: pulumi.Output[str]
    """Of the API's own client, whose id is the audience of services' tokens."""

    def __init__(
        self, name: str, args: ExecutionClientsArgs, opts: pulumi.ResourceOptions | None = None
    ):
        super().__init__("mlhub:clients:ExecutionClients", name, {}, opts)
        self._child = pulumi.ResourceOptions(parent=self)
        self._realm_id = args.realm_id

        self.client_secret = password("execution-keycloak-client", self._child)
        own = self._client(names.EXECUTION_AUDIENCE, self.client_secret, all_roles=True)
        keycloak.openid.ClientServiceAccountRole(
            f"{names.EXECUTION}-sees-people",
            realm_id=args.realm_id,
            service_account_user_id=own.service_account_user_id,
            client_id=self._management(),
            role="view-users",
            # It never changes, and a preview does not know it.
            opts=pulumi.ResourceOptions(parent=self, ignore_changes=["client_id"]),
        )
        for client in args.clients:
            self._service(client, args.namespace)
        self.register_outputs({"client_secret": self.client_secret})

    def _management(self) -> pulumi.Input[str]:
        """The id of the realm's own client. A preview asks no server, so it has to do without."""
        if pulumi.runtime.is_dry_run():
            return MANAGEMENT
        found: pulumi.Output[str] = keycloak.openid.get_client_output(
            realm_id=self._realm_id,
            client_id=MANAGEMENT,
            opts=pulumi.InvokeOutputOptions(parent=self),
        ).id
        return found

    def _service(self, client: ServiceClient, namespace: pulumi.Input[str]) -> None:
        name = names.execution_client(client.name)
        word = password(name, self._child)
        made = self._client(client.name, word)
        keycloak.openid.AudienceProtocolMapper(
            name,
            realm_id=self._realm_id,
            client_id=made.id,
            name=names.EXECUTION_AUDIENCE,
            included_custom_audience=names.EXECUTION_AUDIENCE,
            add_to_id_token=False,
            add_to_access_token=True,
            opts=self._child,
        )
        secret(
            name,
            namespace=namespace,
            data={"client_id": client.name, "client_secret": word},
            opts=self._child,
        )

    def _client(
        self, client_id: str, word: pulumi.Output[str], *, all_roles: bool = False
    ) -> keycloak.openid.Client:
        """`all_roles`: whether its tokens carry every role of its account, or none."""
        client = keycloak.openid.Client(
            client_id,
            realm_id=self._realm_id,
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
            opts=self._child,
        )
        keycloak.openid.ClientDefaultScopes(
            f"{client_id}-default-scopes",
            realm_id=self._realm_id,
            client_id=client.id,
            default_scopes=[*SCOPES, "roles"] if all_roles else SCOPES,
            opts=self._child,
        )
        return client
