"""MLflow: runs, experiments and models of everyone, in Postgres and S3, behind the Hub's tokens.

One replica: it holds nothing, so another starts in its place, and two would each remember by
themselves who is who.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_kubernetes as k8s

from components import names
from components.mlflow_server import (
    AUTH_CONFIG_FILE,
    AUTH_CONFIG_FOLDER,
    Artifacts,
    allowed_hosts,
    auth_config,
    environment,
    s3_environment,
    server_command,
    tracking_uri,
    upgrade_command,
)
from components.pods import container_security, from_secret, plain, pod
from components.secrets import fingerprint, hex_key, password, secret

TMP_LIMIT = "20Gi"
"""An artifact that is fetched lies in `/tmp` whole on its way."""

SECRET_VARIABLES = {
    "PGPASSWORD": (names.MLFLOW_SECRET, "database-password"),
    "MLFLOW_AUTH_ADMIN_PASSWORD": (names.MLFLOW_SECRET, "admin-password"),
    "MLFLOW_FLASK_SERVER_SECRET_KEY": (names.MLFLOW_SECRET, "flask-secret-key"),
    "JUPYTERHUB_API_TOKEN": (names.MLFLOW_SECRET, "hub-token"),
    "AWS_ACCESS_KEY_ID": (names.MLFLOW_S3_SECRET, "access_key_id"),
    "AWS_SECRET_ACCESS_KEY": (names.MLFLOW_S3_SECRET, "secret_access_key"),
}
"""Each with the Secret and the key that it comes from; in no pod but the server's."""


def hub_api(hub_namespace: str) -> str:
    """The Hub's API as MLflow reaches it."""
    host = names.in_cluster(names.HUB_SERVICE, hub_namespace)
    return f"{names.address(host, names.HUB_PORT)}/hub/api"


def server_pod(
    image: pulumi.Input[str],
    *,
    database: str,
    artifacts: Artifacts,
    hosts: Sequence[str],
    hub_url: str,
    variables: dict[str, str],
    pull_secrets: Sequence[str] = (),
) -> k8s.core.v1.PodSpecArgsDict:
    """Makes or upgrades its tables first, then serves."""
    health: k8s.core.v1.HTTPGetActionArgsDict = {"path": "/health", "port": names.MLFLOW_PORT}
    common: k8s.core.v1.ContainerArgsDict = {
        "name": "mlflow",
        "image": image,
        "env": [
            *plain(variables),
            *(from_secret(name, *source) for name, source in SECRET_VARIABLES.items()),
        ],
        # Idle it takes 470 MB; the rest is for artifacts on their way and answers of many rows.
        "resources": {
            "requests": {"cpu": "50m", "memory": "512Mi"},
            "limits": {"cpu": "2", "memory": "1Gi"},
        },
        "security_context": container_security(),
        "volume_mounts": [
            {"name": "config", "mount_path": AUTH_CONFIG_FOLDER, "read_only": True},
            {"name": "tmp", "mount_path": "/tmp"},  # noqa: S108
        ],
    }
    server: k8s.core.v1.ContainerArgsDict = {
        **common,
        "args": server_command(
            database=database, destination=artifacts.destination, hosts=hosts, hub_url=hub_url
        ),
        "ports": [{"name": "http", "container_port": names.MLFLOW_PORT}],
        "startup_probe": {"http_get": health, "period_seconds": 3, "failure_threshold": 100},
        "readiness_probe": {"http_get": health, "period_seconds": 10, "timeout_seconds": 5},
        "liveness_probe": {
            "http_get": health,
            "period_seconds": 20,
            "timeout_seconds": 10,
            "failure_threshold": 6,
        },
    }
    tables: k8s.core.v1.ContainerArgsDict = {
        **common,
        "name": "tables",
        "args": upgrade_command(database),
    }
    spec = pod(
        server,
        [
            {"name": "config", "config_map": {"name": names.MLFLOW}},
            {"name": "tmp", "empty_dir": {"size_limit": TMP_LIMIT}},
        ],
        pull_secrets,
    )
    return {**spec, "init_containers": [tables]}


@dataclass(frozen=True)
class MlflowArgs:
    namespace: str
    """A text, since its documented address holds it; `after` waits for it."""
    hub_namespace: str
    hub_url: str
    """As browsers reach it."""
    postgres_namespace: str
    artifacts: Artifacts
    s3_access_key: pulumi.Input[str]
    s3_secret_key: pulumi.Input[str]
    database_password: pulumi.Input[str]
    """Of the role `mlflow`, which owns the database of that name."""
    image: pulumi.Input[str]
    pull_secrets: Sequence[str] = ()
    after: Sequence[pulumi.Resource] = ()
    """The namespace and the database."""


class Mlflow(pulumi.ComponentResource):
    """The tracking server and registry, with its Secrets and its Service."""

    tracking_uri: pulumi.Output[str]
    hub_token: pulumi.Output[str]
    """The service's token of the Hub's, which is also the secret of its OAuth client."""

    def __init__(self, name: str, args: MlflowArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("mlhub:mlflow:Mlflow", name, {}, opts)
        self._args = args
        self._child = pulumi.ResourceOptions(parent=self, depends_on=list(args.after))

        self.hub_token = hex_key("mlflow-hub-token", self._child)
        words = {
            "database-password": pulumi.Output.from_input(args.database_password),
            "admin-password": password("mlflow-admin", self._child),
            "flask-secret-key": hex_key("mlflow-flask", self._child),
            "hub-token": self.hub_token,
        }
        keys = {
            "access_key_id": pulumi.Output.from_input(args.s3_access_key),
            "secret_access_key": pulumi.Output.from_input(args.s3_secret_key),
        }
        needed = [
            secret(names.MLFLOW_SECRET, namespace=args.namespace, data=words, opts=self._child),
            secret(names.MLFLOW_S3_SECRET, namespace=args.namespace, data=keys, opts=self._child),
            self._config(),
        ]
        self._deployment(fingerprint(*words.values()), needed)
        service = k8s.core.v1.Service(
            names.MLFLOW_SERVICE,
            metadata=self._metadata(names.MLFLOW_SERVICE),
            spec={
                "selector": names.selector(names.MLFLOW),
                "ports": [{"name": "http", "port": names.MLFLOW_PORT}],
            },
            opts=self._child,
        )
        self.tracking_uri = service.id.apply(lambda _: tracking_uri(args.namespace))
        self.register_outputs({"tracking_uri": self.tracking_uri, "hub_token": self.hub_token})

    def _metadata(self, name: str) -> k8s.meta.v1.ObjectMetaArgsDict:
        return {
            "name": name,
            "namespace": self._args.namespace,
            "labels": names.labels(names.MLFLOW),
        }

    def _config(self) -> k8s.core.v1.ConfigMap:
        database = names.database_url(names.MLFLOW_DATABASE, self._args.postgres_namespace)
        return k8s.core.v1.ConfigMap(
            names.MLFLOW,
            metadata=self._metadata(names.MLFLOW),
            data={AUTH_CONFIG_FILE: auth_config(database)},
            opts=self._child,
        )

    def _deployment(self, known: pulumi.Output[str], needed: Sequence[pulumi.Resource]) -> None:
        args = self._args
        hub = environment(hub_api=hub_api(args.hub_namespace), hub_url=args.hub_url)
        k8s.apps.v1.Deployment(
            names.MLFLOW,
            metadata=self._metadata(names.MLFLOW),
            spec={
                "replicas": 1,
                # An older server must not meet the tables of a newer one.
                "strategy": {"type": "Recreate"},
                "selector": {"match_labels": names.selector(names.MLFLOW)},
                "template": {
                    "metadata": {
                        "labels": names.labels(names.MLFLOW),
                        "annotations": {names.FINGERPRINT: known},
                    },
                    "spec": server_pod(
                        args.image,
                        database=names.database_url(names.MLFLOW_DATABASE, args.postgres_namespace),
                        artifacts=args.artifacts,
                        hosts=allowed_hosts(args.namespace, args.hub_url),
                        hub_url=args.hub_url,
                        variables=hub | s3_environment(args.artifacts),
                        pull_secrets=args.pull_secrets,
                    ),
                },
            },
            opts=pulumi.ResourceOptions.merge(
                self._child, pulumi.ResourceOptions(depends_on=list(needed))
            ),
        )
