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
from components.namespace import Namespace, NamespaceArgs
from components.network import Network, NetworkArgs
from components.quotas import Quotas, QuotasArgs
from components.storage import Storage, StorageArgs
from components.values import hub_values


def wanted_images(stack: StackFile) -> list[str]:
    """The images that the stack runs, by folder."""
    ours = ["hub", "proxy", names.POSTGRES]
    if stack.foundation.keycloak is not None:
        ours.append(names.KEYCLOAK)
    return [*ours, *stack.user_images]


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


def keycloak_provider(stack: StackFile, foundation: Foundation) -> keycloak.Provider:
    """Keycloak by a client of the realm, or our own by its administrator."""
    server = stack.identity.keycloak
    if server is not None:
        return keycloak.Provider(
            "keycloak",
            url=server.url,
            realm=stack.identity.realm,
            client_id=server.client_id,
            client_secret=pulumi.Config().require_secret("keycloak_client_secret"),
            initial_login=False,
        )
    return keycloak.Provider(
        "keycloak",
        url=stack.keycloak_url,
        realm="master",
        client_id="admin-cli",
        username=foundation.admin_username,
        password=foundation.admin_password,
        # Nothing is asked of Keycloak before there is a Keycloak.
        initial_login=False,
        opts=pulumi.ResourceOptions(depends_on=[foundation]),
    )


class Platform:
    """Every component of a stack, wired."""

    hub_url: str
    keycloak_url: str
    hub_namespace: pulumi.Output[str]
    hub_release: pulumi.Output[str]

    def __init__(self, stack: StackFile):
        self.hub_url = stack.hub_url
        self.keycloak_url = stack.keycloak_url
        kubernetes = kubernetes_provider(stack.cluster)
        generator = random.Provider("random")

        images = Images(
            "images",
            ImagesArgs(
                repository=stack.registry.repository,
                config=stack.images,
                wanted=wanted_images(stack),
            ),
            pulumi.ResourceOptions(providers=[docker_build.Provider("docker-build")]),
        )
        built = images.built
        storage = Storage(
            "storage",
            StorageArgs(
                class_name=names.home_class(stack.hub.namespace),
                provisioner=stack.storage.provisioner,
                parameters=stack.storage.parameters,
                labels=names.labels("storage"),
            ),
            pulumi.ResourceOptions(providers=[kubernetes]),
        )
        spaces = {
            name: Namespace(
                name,
                NamespaceArgs(namespace=namespace, labels=names.labels(name)),
                pulumi.ResourceOptions(providers=[kubernetes]),
            )
            for name, namespace in [
                ("jupyterhub", stack.hub.namespace),
                ("foundation", stack.foundation.namespace),
            ]
        }
        hub_space, foundation_space = spaces["jupyterhub"].name, spaces["foundation"].name
        network = Network(
            "network",
            NetworkArgs(
                hub_namespace=hub_space,
                foundation_namespace=foundation_space,
                keycloak=stack.foundation.keycloak is not None,
            ),
            pulumi.ResourceOptions(providers=[kubernetes]),
        )
        quotas = Quotas(
            "quotas",
            QuotasArgs(
                namespace=hub_space,
                quota=stack.quotas.namespace,
                labels=names.labels("quotas"),
            ),
            pulumi.ResourceOptions(providers=[kubernetes]),
        )
        foundation = Foundation(
            "foundation",
            FoundationArgs(
                config=stack.foundation,
                namespace=foundation_space,
                databases=[names.HUB_DATABASE],
                keycloak_url=self.keycloak_url,
                storage_class=storage.class_name,
                postgres_image=built[names.POSTGRES].reference,
                keycloak_image=(
                    built[names.KEYCLOAK].reference if names.KEYCLOAK in built else None
                ),
            ),
            pulumi.ResourceOptions(providers=[kubernetes, generator]),
        )
        realms = keycloak_provider(stack, foundation)
        identity = Identity(
            "identity",
            IdentityArgs(
                config=stack.identity,
                hub_url=self.hub_url,
                secrets_namespace=foundation_space,
            ),
            pulumi.ResourceOptions(providers=[kubernetes, generator, realms]),
        )
        hub = JupyterHub(
            "jupyterhub",
            JupyterHubArgs(
                config=stack.hub,
                namespace=hub_space,
                values=hub_values(stack, built),
                client_secret=identity.client_secret,
                database_password=foundation.database_passwords[names.HUB_DATABASE],
                after=[images, storage, *spaces.values(), network, quotas, foundation, identity],
            ),
            pulumi.ResourceOptions(providers=[kubernetes, generator]),
        )
        self.hub_namespace = hub_space
        self.hub_release = hub.status
