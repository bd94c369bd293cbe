"""Who is wired to whom. The one place where components meet."""

import pulumi
import pulumi_docker_build as docker_build
import pulumi_keycloak as keycloak
import pulumi_kubernetes as k8s
import pulumi_random as random

from components import names
from components.config import Cluster, StackFile
from components.foundation import Foundation, FoundationArgs
from components.identity import Identity, IdentityArgs
from components.images import Images, ImagesArgs
from components.jupyterhub import JupyterHub, JupyterHubArgs
from components.network import Network, NetworkArgs
from components.quotas import Quotas, QuotasArgs
from components.storage import Storage, StorageArgs
from components.values import hub_values

OURS = ["hub", "proxy", names.KEYCLOAK, names.POSTGRES]
"""The images that the platform itself runs."""


def kubernetes_provider(cluster: Cluster) -> k8s.Provider:
    """The cluster by its context; the identifier says that a moved kubeconfig is still the same."""
    if cluster.context is None:
        return k8s.Provider(
            "kubernetes",
            kubeconfig=names.EMBEDDED_KUBECONFIG,
            context=names.EMBEDDED_CONTEXT,
            cluster_identifier=names.EMBEDDED_CONTEXT,
        )
    return k8s.Provider("kubernetes", context=cluster.context, cluster_identifier=cluster.context)


class Platform:
    """Every component of a stack, wired."""

    hub_url: str
    keycloak_url: str
    hub: JupyterHub

    def __init__(self, stack: StackFile):
        self.hub_url = names.address(stack.domain, stack.hub.node_port)
        self.keycloak_url = names.address(stack.domain, stack.foundation.keycloak_node_port)
        kubernetes = kubernetes_provider(stack.cluster)
        generator = random.Provider("random")

        images = Images(
            "images",
            ImagesArgs(
                repository=stack.registry.repository,
                config=stack.images,
                wanted=[*OURS, *stack.user_images],
            ),
            pulumi.ResourceOptions(providers=[docker_build.Provider("docker-build")]),
        ).built
        storage = Storage(
            "storage",
            StorageArgs(
                class_name=names.home_class(stack.hub.namespace),
                provisioner=stack.storage.provisioner,
                labels=names.labels("storage"),
            ),
            pulumi.ResourceOptions(providers=[kubernetes]),
        )
        foundation = Foundation(
            "foundation",
            FoundationArgs(
                config=stack.foundation,
                keycloak_url=self.keycloak_url,
                storage_class=storage.class_name,
                keycloak_image=images[names.KEYCLOAK].reference,
                postgres_image=images[names.POSTGRES].reference,
            ),
            pulumi.ResourceOptions(providers=[kubernetes, generator]),
        )
        realms = keycloak.Provider(
            "keycloak",
            url=self.keycloak_url,
            realm="master",
            client_id="admin-cli",
            username=foundation.admin_username,
            password=foundation.admin_password,
            # Nothing is asked of Keycloak before there is a Keycloak.
            initial_login=False,
            opts=pulumi.ResourceOptions(depends_on=[foundation]),
        )
        identity = Identity(
            "identity",
            IdentityArgs(
                config=stack.identity,
                hub_url=self.hub_url,
                secrets_namespace=foundation.namespace,
            ),
            pulumi.ResourceOptions(providers=[kubernetes, generator, realms]),
        )
        self.hub = JupyterHub(
            "jupyterhub",
            JupyterHubArgs(
                config=stack.hub,
                values=hub_values(stack, images),
                client_secret=identity.client_secret,
                database_password=foundation.hub_database_password,
                after=[foundation, identity, storage],
            ),
            pulumi.ResourceOptions(providers=[kubernetes, generator]),
        )
        Network(
            "network",
            NetworkArgs(
                hub_namespace=self.hub.namespace, foundation_namespace=foundation.namespace
            ),
            pulumi.ResourceOptions(providers=[kubernetes]),
        )
        Quotas(
            "quotas",
            QuotasArgs(
                namespace=self.hub.namespace,
                quota=stack.quotas,
                labels=names.labels("quotas"),
            ),
            pulumi.ResourceOptions(providers=[kubernetes]),
        )
