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
from components.service_clients import client_that_sees_people, service_client


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
        client_that_sees_people(
            names.EXECUTION,
            names.EXECUTION_AUDIENCE,
            args.realm_id,
            self.client_secret,
            self._child,
        )
        for client in args.clients:
            self._service(client, args.namespace)
        self.register_outputs({"client_secret": self.client_secret})

    def _service(self, client: ServiceClient, namespace: pulumi.Input[str]) -> None:
        name = names.execution_client(client.name)
        word = password(name, self._child)
        made = service_client(client.name, self._realm_id, word, self._child)
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
