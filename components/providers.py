"""The explicit providers of a stack: which cluster, and which Keycloak as whom."""

import pulumi
import pulumi_keycloak as keycloak
import pulumi_kubernetes as k8s

from components import names
from components.config import Cluster, StackFile
from components.foundation import Foundation


def kubernetes_provider(cluster: Cluster) -> k8s.Provider:
    """The cluster by its context; the identifier says that a moved kubeconfig is still the same,
    and that a context of another name is another cluster, where every object is to be made anew.

    Secrets change in place. Otherwise one is deleted and another made: pods that start in between
    would fail, and after a kill in between there would be none.
    """
    if cluster.context is None:
        return k8s.Provider(
            "kubernetes",
            kubeconfig=names.EMBEDDED_KUBECONFIG,
            context=names.EMBEDDED_CONTEXT,
            cluster_identifier=names.EMBEDDED_CONTEXT,
            enable_secret_mutable=True,
            enable_config_map_mutable=True,
        )
    return k8s.Provider(
        "kubernetes",
        context=cluster.context,
        cluster_identifier=cluster.context,
        enable_secret_mutable=True,
        enable_config_map_mutable=True,
    )


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
