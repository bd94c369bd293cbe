"""Who is wired to whom. The one place where components meet."""

import hashlib
from collections.abc import Mapping
from typing import Any

import pulumi
import pulumi_docker_build as docker_build
import pulumi_kubernetes as k8s
import pulumi_random as random

from components import execution_server, names, workspace_server
from components.backups import Backups, BackupsArgs
from components.config import Foundation as FoundationConfig
from components.config import Harbor, StackFile
from components.config import Mlflow as MlflowConfig
from components.discovery import Discovery, DiscoveryArgs
from components.execution import Execution, ExecutionArgs
from components.execution_clients import ExecutionClients, ExecutionClientsArgs
from components.foundation import Foundation, FoundationArgs
from components.identity import Identity, IdentityArgs
from components.images import (
    Images,
    ImagesArgs,
    PromotedImages,
    PromotedImagesArgs,
    RanImages,
    RanImagesArgs,
    docker_provider,
)
from components.jupyterhub import JupyterHub, JupyterHubArgs
from components.mlflow import Mlflow, MlflowArgs
from components.mlflow_server import Artifacts, tracking_uri
from components.mlflow_server import hub_values as mlflow_hub_values
from components.monitoring import (
    Monitoring,
    MonitoringArgs,
    parts,
    stack_panels,
    stack_rules,
)
from components.namespace import Namespace, NamespaceArgs
from components.network import MlflowNetwork, Network, NetworkArgs, pods, tcp, to_service
from components.nodes import Nodes, NodesArgs
from components.providers import keycloak_provider, kubernetes_provider
from components.quotas import Quotas, QuotasArgs
from components.registry import Login, Registry, RegistryArgs, harbor_provider
from components.storage import Storage, StorageArgs
from components.values import BuiltImage, hub_values, internal_keycloak_url, pull_secrets
from components.verify import Verify, VerifyAfterUp, VerifyAfterUpArgs, VerifyArgs
from components.verify import settings as verify_settings
from components.volume_specs import expandable
from components.volumes import Volumes, VolumesArgs
from components.workspace_service import WorkspaceService, WorkspaceServiceArgs
from components.workspaces import Workspaces, WorkspacesArgs


def wanted_images(stack: StackFile) -> list[str]:
    """The images that the stack runs, by folder."""
    ours = ["hub", "proxy", names.POSTGRES]
    if stack.foundation.keycloak is not None:
        ours.append(names.KEYCLOAK)
    if stack.foundation.seaweedfs is not None:
        ours.append(names.SEAWEEDFS)
    if stack.mlflow is not None:
        ours.append(names.MLFLOW)
    if stack.execution is not None or stack.workspace_service is not None:
        ours.append(names.EXECUTION)
    return [*ours, *stack.user_images]


def registry_of(
    stack: StackFile,
    harbor: Harbor,
    pullers: Mapping[str, Namespace],
    providers: list[pulumi.ProviderResource],
) -> Registry:
    """The accounts of a stack with a Harbor, and the project of one that builds."""
    promote = stack.images.promote
    login = pulumi.Config().require_secret("harbor_password")
    return Registry(
        "registry",
        RegistryArgs(
            config=harbor,
            repository=promote.repository if promote else stack.registry.repository,
            stack=pulumi.get_stack(),
            builds=promote is None,
            pullers={name: space.name for name, space in pullers.items()},
        ),
        pulumi.ResourceOptions(providers=[*providers, harbor_provider(harbor, login)]),
    )


def images_of(
    stack: StackFile, registry: Registry | None, builder: pulumi.ProviderResource
) -> Images | PromotedImages:
    """The stack's images: promoted from where another stack pushed them, or built."""
    harbor, build, promote = stack.registry.harbor, stack.images.build, stack.images.promote
    in_use = names.in_use_tag(pulumi.get_stack()) if registry else None
    push = registry.push if registry else None
    if build is not None:
        return Images(
            "images",
            ImagesArgs(
                repository=stack.registry.repository,
                config=build,
                wanted=wanted_images(stack),
                login=push,
                cached=registry is not None,
                in_use_tag=in_use,
                programs={names.SEAWEEDFS: names.SEAWEEDFS_PROGRAMS},
            ),
            pulumi.ResourceOptions(providers=[builder]),
        )
    if promote is None:
        raise ValueError("images needs exactly one of build and promote")
    # This stack's own account is not there before the first `up`; a preview looks up as well.
    login = None
    if harbor is not None:
        login = Login(harbor.username, pulumi.Config().require_secret("harbor_password"))
    return PromotedImages(
        "images",
        PromotedImagesArgs(
            config=promote,
            wanted=wanted_images(stack),
            login=push,
            in_use_tag=in_use if marks(harbor) else None,
        ),
        pulumi.ResourceOptions(providers=[builder, docker_provider(promote.repository, login)]),
    )


def marks(harbor: Harbor | None) -> bool:
    """Whether promoted images can be tagged: docker-build makes an index over HTTPS alone."""
    return harbor is not None and harbor.url.startswith("https:")


def ran_images(
    stack: StackFile,
    registry: Registry | None,
    images: Images | PromotedImages,
    hub: JupyterHub,
    builder: pulumi.ProviderResource,
) -> RanImages | None:
    """For a stack that promotes after this one. What was built here has its tag already."""
    promote = stack.images.promote
    if promote is None or registry is None or not isinstance(images, PromotedImages):
        return None
    if not marks(stack.registry.harbor):
        return None
    args = RanImagesArgs(
        sources=images.sources,
        tag=names.ran_tag(pulumi.get_stack(), promote.tag),
        login=registry.push,
        after=hub,
    )
    return RanImages("ran-images", args, pulumi.ResourceOptions(providers=[builder]))


def home_storage(stack: StackFile, providers: list[pulumi.ProviderResource]) -> Storage:
    """The class of homes, and of all that has none of its own."""
    storage = stack.storage
    args = StorageArgs(
        class_name=names.home_class(stack.hub.namespace),
        provisioner=stack.home_provisioner,
        parameters=storage.home_parameters if storage.home_provisioner else storage.parameters,
        labels=names.labels("storage"),
        grows=grows(stack, stack.home_provisioner),
    )
    return Storage("storage", args, pulumi.ResourceOptions(providers=providers))


def shared_storage(stack: StackFile, homes: Storage, opts: pulumi.ResourceOptions) -> Storage:
    """The class of workspaces and shared volumes: that of homes, or one of their own."""
    if stack.storage.home_provisioner is None:
        return homes
    args = StorageArgs(
        class_name=names.shared_class(stack.hub.namespace),
        provisioner=stack.storage.provisioner,
        parameters=stack.storage.parameters,
        labels=names.labels("storage"),
        holds="volumes",
        grows=grows(stack, stack.storage.provisioner),
    )
    return Storage("shared-storage", args, opts)


def grows(stack: StackFile, provisioner: str) -> bool:
    """The embedded cluster's own driver makes no volume larger."""
    embedded = provisioner == names.SEAWEEDFS_CSI and stack.foundation.seaweedfs is not None
    return expandable(provisioner) and not embedded


def data_storage(stack: StackFile, providers: list[pulumi.ProviderResource]) -> Storage | None:
    """The class of the foundation's own volumes, where it is not that of homes."""
    if stack.foundation.provisioner is None:
        return None
    args = StorageArgs(
        class_name=names.data_class(stack.foundation.namespace),
        provisioner=stack.foundation.provisioner,
        parameters=stack.foundation.parameters,
        labels=names.labels("storage"),
        holds="volumes",
        grows=grows(stack, stack.foundation.provisioner),
    )
    return Storage("foundation-data", args, pulumi.ResourceOptions(providers=providers))


def mlflow_network(stack: StackFile) -> MlflowNetwork | None:
    if stack.mlflow is None:
        return None
    return MlflowNetwork(
        namespace=stack.mlflow.namespace,
        s3_endpoint=artifacts_of(stack.mlflow, stack.foundation).endpoint,
        s3_cidrs=stack.network.s3 if stack.mlflow.artifacts is not None else (),
        s3_ports=stack.network.s3_ports if stack.mlflow.artifacts is not None else (),
    )


def artifacts_of(mlflow: MlflowConfig, foundation: FoundationConfig) -> Artifacts:
    """Where MLflow's artifacts go: to the stack file's S3 service, or to the foundation's."""
    given = mlflow.artifacts
    if given is not None:
        return Artifacts(endpoint=given.endpoint, bucket=given.bucket)
    host = names.in_cluster(names.SEAWEEDFS_S3, foundation.namespace)
    return Artifacts(
        endpoint=names.address(host, names.SEAWEEDFS_S3_PORT), bucket=names.MLFLOW_BUCKET
    )


def mlflow_of(
    stack: StackFile,
    spaces: Mapping[str, Namespace],
    foundation: Foundation,
    built: Mapping[str, BuiltImage],
    providers: list[pulumi.ProviderResource],
) -> Mlflow | None:
    """MLflow, where the stack has one."""
    if stack.mlflow is None:
        return None
    given = stack.mlflow.artifacts
    if given is not None:
        access_key: pulumi.Input[str] = given.access_key
        secret_key = pulumi.Config().require_secret("s3_secret_key")
    elif foundation.s3_access_key is not None and foundation.s3_secret_key is not None:
        access_key, secret_key = foundation.s3_access_key, foundation.s3_secret_key
    else:
        raise ValueError("mlflow.artifacts and foundation.seaweedfs are both missing")
    args = MlflowArgs(
        namespace=stack.mlflow.namespace,
        hub_namespace=stack.hub.namespace,
        hub_url=stack.hub_url,
        postgres_namespace=stack.foundation.namespace,
        artifacts=artifacts_of(stack.mlflow, stack.foundation),
        s3_access_key=access_key,
        s3_secret_key=secret_key,
        database_password=foundation.database_passwords[names.MLFLOW_DATABASE],
        image=built[names.MLFLOW].reference,
        pull_secrets=pull_secrets(stack),
        after=[spaces["mlflow"], foundation],
    )
    return Mlflow("mlflow", args, pulumi.ResourceOptions(providers=providers))


def databases_of(stack: StackFile) -> list[str]:
    """What the stack keeps in its Postgres, beside Keycloak's."""
    mlflow = [names.MLFLOW_DATABASE] if stack.mlflow is not None else []
    execution = [names.EXECUTION_DATABASE] if stack.execution is not None else []
    workspaces = [names.WORKSPACES_DATABASE] if stack.workspace_service is not None else []
    return [names.HUB_DATABASE, *mlflow, *execution, *workspaces]


def execution_of(
    stack: StackFile,
    spaces: Mapping[str, Namespace],
    foundation: Foundation,
    identity: Identity,
    built: Mapping[str, BuiltImage],
    *,
    values: Mapping[str, Any],
    providers: list[pulumi.ProviderResource],
) -> Execution | None:
    """The execution API, where the stack has one; `values` are the Release's."""
    if stack.execution is None:
        return None
    clients = ExecutionClients(
        "execution-clients",
        ExecutionClientsArgs(
            realm_id=identity.realm_id,
            namespace=spaces["jupyterhub"].name,
            clients=stack.execution.clients,
        ),
        pulumi.ResourceOptions(providers=providers),
    )
    args = ExecutionArgs(
        namespace=spaces["jupyterhub"].name,
        foundation_namespace=spaces["foundation"].name,
        settings=execution_server.settings(stack, values),
        image=built[names.EXECUTION].reference,
        pull_secrets=pull_secrets(stack),
        database_password=foundation.database_passwords[names.EXECUTION_DATABASE],
        keycloak_secret=clients.client_secret,
        kubernetes_api=kubernetes_api_egress(stack),
        keycloak=keycloak_egress(stack),
        mlflow_namespace=spaces["mlflow"].name if stack.mlflow is not None else None,
    )
    opts = pulumi.ResourceOptions(providers=providers, depends_on=[foundation, clients])
    return Execution("execution", args, opts)


def with_services(values: dict[str, Any], stack: StackFile) -> dict[str, Any]:
    """The Release's values with what the hub is told of its services."""
    told = []
    if stack.execution is not None:
        told.append(execution_server.hub_values(stack.hub.namespace))
    if stack.mlflow is not None:
        told.append(mlflow_hub_values(stack.mlflow.namespace))
    if stack.workspace_service is not None:
        told.append(workspace_server.hub_values(stack.hub.namespace))
    if not told:
        return values
    services: dict[str, Any] = {}
    roles: dict[str, Any] = {}
    routes: dict[str, str] = {}
    for part in told:
        services |= part["services"]
        routes |= part["config"]["Proxy"]["extra_routes"]
        for name, role in part["loadRoles"].items():
            scopes = [*roles.get(name, {}).get("scopes", []), *role["scopes"]]
            roles[name] = role | {"scopes": list(dict.fromkeys(scopes))}
    hub = values["hub"]
    config = hub["config"] | {"Proxy": {"extra_routes": routes}}
    return values | {"hub": hub | {"services": services, "loadRoles": roles, "config": config}}


def keycloak_egress(stack: StackFile) -> k8s.networking.v1.NetworkPolicyEgressRuleArgsDict:
    """The way to the realm's keys."""
    if stack.identity.keycloak is None:
        to = [pods(names.selector(names.KEYCLOAK), stack.foundation.namespace)]
        return {"to": to, "ports": [tcp(names.KEYCLOAK_PORT)]}
    network = stack.network
    return to_service(internal_keycloak_url(stack), network.keycloak, network.keycloak_ports)


def kubernetes_api_egress(
    stack: StackFile,
) -> k8s.networking.v1.NetworkPolicyEgressRuleArgsDict:
    """The way to the API server behind its Service."""
    return {
        "to": [{"ip_block": {"cidr": cidr}} for cidr in stack.network.kubernetes_api],
        "ports": [tcp(port) for port in stack.network.kubernetes_api_ports],
    }


def volumes_of(
    stack: StackFile,
    hub_space: Namespace,
    storage: Storage,
    foundation: Foundation,
    *,
    built: Mapping[str, BuiltImage],
    providers: list[pulumi.ProviderResource],
) -> list[Volumes]:
    """What every server mounts, where there is any."""
    if not stack.storage.volumes:
        return []
    args = VolumesArgs(
        namespace=stack.hub.namespace,
        volumes=stack.storage.volumes,
        provisioner=stack.storage.provisioner,
        parameters=stack.storage.parameters,
        class_name=storage.class_name,
        image=built["hub"].reference,
        pull_secrets=pull_secrets(stack),
        # A SeaweedFS of our own has to run before a folder can be made on it.
        after=[hub_space, *([foundation] if stack.foundation.seaweedfs else [])],
    )
    return [Volumes("volumes", args, pulumi.ResourceOptions(providers=providers))]


def workspaces_of(
    stack: StackFile,
    hub_space: Namespace,
    storage: Storage,
    identity: Identity,
    providers: list[pulumi.ProviderResource],
) -> list[Workspaces]:
    """The teams' workspaces, where there are any, or may be."""
    if not stack.workspaces and stack.workspace_service is None:
        return []
    args = WorkspacesArgs(
        workspaces=stack.workspaces,
        realm_id=identity.realm_id,
        namespace=hub_space.name,
        class_name=storage.class_name,
        provisioner=stack.storage.provisioner,
    )
    return [Workspaces("workspaces", args, pulumi.ResourceOptions(providers=providers))]


def workspace_service_of(
    stack: StackFile,
    spaces: Mapping[str, Namespace],
    foundation: Foundation,
    identity: Identity,
    built: Mapping[str, BuiltImage],
    *,
    providers: list[pulumi.ProviderResource],
) -> WorkspaceService | None:
    """The API for people's own workspaces, where the stack has one."""
    if stack.workspace_service is None:
        return None
    args = WorkspaceServiceArgs(
        realm_id=identity.realm_id,
        namespace=spaces["jupyterhub"].name,
        foundation_namespace=spaces["foundation"].name,
        settings=workspace_server.settings(stack),
        image=built[names.EXECUTION].reference,
        pull_secrets=pull_secrets(stack),
        database_password=foundation.database_passwords[names.WORKSPACES_DATABASE],
        kubernetes_api=kubernetes_api_egress(stack),
        keycloak=keycloak_egress(stack),
    )
    opts = pulumi.ResourceOptions(providers=providers, depends_on=[foundation])
    return WorkspaceService("workspace-service", args, opts)


def verify_of(
    stack: StackFile,
    hub_space: Namespace,
    identity: Identity,
    images: Images | PromotedImages,
    providers: list[pulumi.ProviderResource],
) -> Verify | None:
    """What tries the stack, where it is to be tried."""
    if stack.verify is None:
        return None
    args = VerifyArgs(
        config=stack.verify,
        realm_id=identity.realm_id,
        namespace=hub_space.name,
        settings=verify_settings(stack, stack.verify),
        image=images.built["hub"].reference,
        pull_secrets=pull_secrets(stack),
        keycloak=keycloak_egress(stack),
    )
    opts = pulumi.ResourceOptions(providers=providers, depends_on=[images])
    return Verify("verify", args, opts)


def verify_after_up(
    stack: StackFile,
    hub: JupyterHub,
    verify: Verify | None,
    built: Mapping[str, BuiltImage],
    kubernetes: pulumi.ProviderResource,
) -> None:
    """One verification of what this `up` has changed, where the stack wants it."""
    if verify is None or stack.verify is None or not stack.verify.after_up:
        return
    args = VerifyAfterUpArgs(
        namespace=stack.hub.namespace,
        image=built["hub"].reference,
        pull_secrets=pull_secrets(stack),
        applied=applied(stack, hub, verify, built),
    )
    opts = pulumi.ResourceOptions(providers=[kubernetes], depends_on=[hub, verify])
    VerifyAfterUp("verify-after-up", args, opts)


def applied(
    stack: StackFile, hub: JupyterHub, verify: Verify, built: Mapping[str, BuiltImage]
) -> pulumi.Output[str]:
    """A digest of the stack file, the images and the Release: what an `up` may change."""
    images = [built[name].reference for name in sorted(built)]
    parts = [stack.model_dump_json(), hub.revision, verify.known, *images]
    return pulumi.Output.all(*parts).apply(
        lambda found: hashlib.sha256("\0".join(found).encode()).hexdigest()[:16]
    )


def discovery_of(
    stack: StackFile, hub_space: Namespace, providers: list[pulumi.ProviderResource]
) -> Discovery:
    mlflow = stack.mlflow
    args = DiscoveryArgs(
        namespace=stack.hub.namespace,
        hub_url=stack.hub_url,
        mlflow_uri=tracking_uri(mlflow.namespace) if mlflow is not None else None,
        after=(hub_space,),
    )
    return Discovery("discovery", args, pulumi.ResourceOptions(providers=providers))


def monitoring_of(
    stack: StackFile, hub_space: Namespace, providers: list[pulumi.ProviderResource]
) -> Monitoring | None:
    """What Prometheus and Grafana are told, where the stack says that they are there."""
    if stack.monitoring is None:
        return None
    args = MonitoringArgs(
        config=stack.monitoring,
        namespace=hub_space.name,
        parts=parts(stack),
        rules=stack_rules(stack, stack.monitoring.docs),
        dashboard=stack_panels(stack),
    )
    return Monitoring("monitoring", args, pulumi.ResourceOptions(providers=providers))


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

        storage = home_storage(stack, [kubernetes])
        shared = shared_storage(stack, storage, pulumi.ResourceOptions(providers=[kubernetes]))
        data = data_storage(stack, [kubernetes])
        wanted_spaces = {
            "jupyterhub": stack.hub.namespace,
            "foundation": stack.foundation.namespace,
        }
        if stack.mlflow is not None:
            wanted_spaces["mlflow"] = stack.mlflow.namespace
        spaces = {
            name: Namespace(
                name,
                NamespaceArgs(namespace=namespace, labels=names.labels(name)),
                pulumi.ResourceOptions(providers=[kubernetes]),
            )
            for name, namespace in wanted_spaces.items()
        }
        registry = None
        if (harbor := stack.registry.harbor) is not None:
            registry = registry_of(stack, harbor, spaces, [kubernetes, generator])
        builder = docker_build.Provider("docker-build")
        images = images_of(stack, registry, builder)
        built = images.built
        hub_space, foundation_space = spaces["jupyterhub"].name, spaces["foundation"].name
        network = Network(
            "network",
            NetworkArgs(
                hub_namespace=hub_space,
                foundation_namespace=foundation_space,
                keycloak=stack.foundation.keycloak is not None,
                mlflow=mlflow_network(stack),
                seaweedfs=stack.foundation.seaweedfs,
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
        nodes = (
            Nodes(
                "nodes",
                NodesArgs(
                    role_name=names.hub_nodes(stack.hub.namespace),
                    hub_namespace=hub_space,
                    labels=names.labels("nodes"),
                ),
                pulumi.ResourceOptions(providers=[kubernetes]),
            )
            if stack.with_gpus
            else None
        )
        backups = Backups(
            "backups",
            BackupsArgs(namespace=hub_space, labels=names.labels("backups")),
            pulumi.ResourceOptions(providers=[kubernetes]),
        )
        foundation = Foundation(
            "foundation",
            FoundationArgs(
                config=stack.foundation,
                namespace=foundation_space,
                databases=databases_of(stack),
                pull_secrets=pull_secrets(stack),
                keycloak_url=self.keycloak_url,
                storage_class=(data or storage).class_name,
                postgres_image=built[names.POSTGRES].reference,
                keycloak_image=(
                    built[names.KEYCLOAK].reference if names.KEYCLOAK in built else None
                ),
                seaweedfs_image=(
                    built[names.SEAWEEDFS].reference if names.SEAWEEDFS in built else None
                ),
            ),
            pulumi.ResourceOptions(
                providers=[kubernetes, generator],
                # All of them, and with it the services: where one cannot be built, all stays.
                depends_on=[images, *([registry] if registry else [])],
            ),
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
        values = with_services(hub_values(stack, built), stack)
        execution = execution_of(
            stack,
            spaces,
            foundation,
            identity,
            built,
            values=values,
            providers=[kubernetes, generator, realms],
        )
        mlflow = mlflow_of(stack, spaces, foundation, built, [kubernetes, generator])
        workspaces = workspace_service_of(
            stack,
            spaces,
            foundation,
            identity,
            built,
            providers=[kubernetes, generator, realms],
        )
        place = spaces["jupyterhub"]
        verify = verify_of(stack, place, identity, images, [kubernetes, generator, realms])
        rooms = [
            *volumes_of(stack, place, shared, foundation, built=built, providers=[kubernetes]),
            *workspaces_of(stack, place, shared, identity, [kubernetes, realms]),
            discovery_of(stack, place, [kubernetes]),
            *([execution] if execution else []),
            *([mlflow] if mlflow else []),
            *([workspaces] if workspaces else []),
            *([verify] if verify else []),
        ]
        monitoring = monitoring_of(stack, place, [kubernetes])
        services = {
            names.EXECUTION: execution,
            names.MLFLOW: mlflow,
            names.WORKSPACES: workspaces,
        }
        hub = JupyterHub(
            "jupyterhub",
            JupyterHubArgs(
                config=stack.hub,
                namespace=hub_space,
                values=values,
                service_tokens={
                    name: service.hub_token for name, service in services.items() if service
                },
                client_secret=identity.client_secret,
                people_secret=identity.people_secret,
                database_password=foundation.database_passwords[names.HUB_DATABASE],
                after=[
                    *([registry] if registry else []),
                    images,
                    storage,
                    shared,
                    *([data] if data else []),
                    *spaces.values(),
                    network,
                    quotas,
                    foundation,
                    identity,
                    *([nodes] if nodes else []),
                    backups,
                    *([monitoring] if monitoring else []),
                    *rooms,
                ],
            ),
            pulumi.ResourceOptions(providers=[kubernetes, generator]),
        )
        ran_images(stack, registry, images, hub, builder)
        verify_after_up(stack, hub, verify, built, kubernetes)
        self.hub_namespace = hub_space
        self.hub_release = hub.status
