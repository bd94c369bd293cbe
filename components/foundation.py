"""Postgres, and Keycloak and SeaweedFS for a stack that has none of its own to use.

One replica each: what they hold is on one volume, protected here and kept when all else goes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_kubernetes as k8s

from components import names
from components.config import Foundation as FoundationConfig
from components.config import FoundationKeycloak
from components.pods import container_security, from_secret, plain, pod
from components.seaweedfs import SeaweedFS, SeaweedFSArgs
from components.secrets import fingerprint, password, secret

KEYCLOAK_MANAGEMENT_PORT = 9000
"""Health and metrics; on no Service."""


def keycloak_environment(namespace: str, public_url: str) -> list[k8s.core.v1.EnvVarArgsDict]:
    """Keycloak's options. Browsers get the public address, pods whichever they called."""
    settings = {
        "KC_DB_URL_HOST": names.in_cluster(names.POSTGRES, namespace),
        "KC_DB_URL_PORT": str(names.POSTGRES_PORT),
        "KC_DB_URL_DATABASE": names.KEYCLOAK_DATABASE,
        "KC_DB_USERNAME": names.KEYCLOAK_DATABASE,
        "KC_HTTP_ENABLED": "true",
        "KC_HOSTNAME": public_url,
        "KC_HOSTNAME_BACKCHANNEL_DYNAMIC": "true",
    }
    return [
        *plain(settings),
        from_secret("KC_DB_PASSWORD", names.POSTGRES_SECRET, f"{names.KEYCLOAK_DATABASE}-password"),
        from_secret("KC_BOOTSTRAP_ADMIN_USERNAME", names.KEYCLOAK_ADMIN_SECRET, "username"),
        from_secret("KC_BOOTSTRAP_ADMIN_PASSWORD", names.KEYCLOAK_ADMIN_SECRET, "password"),
    ]


def postgres_pod(
    image: pulumi.Input[str], pull_secrets: Sequence[str]
) -> k8s.core.v1.PodSpecArgsDict:
    return pod(
        {
            "name": "postgres",
            "image": image,
            "ports": [{"name": "postgres", "container_port": names.POSTGRES_PORT}],
            "readiness_probe": {
                "exec_": {"command": ["pg_isready", "--quiet"]},
                "period_seconds": 5,
            },
            "resources": {
                "requests": {"cpu": "50m", "memory": "128Mi"},
                "limits": {"cpu": "1", "memory": "512Mi"},
            },
            "security_context": container_security(),
            "volume_mounts": [
                {"name": "data", "mount_path": "/var/lib/postgresql/data"},
                {"name": "passwords", "mount_path": "/run/secrets/postgres"},
                {"name": "run", "mount_path": "/var/run/postgresql"},
                {"name": "tmp", "mount_path": "/tmp"},  # noqa: S108
            ],
        },
        [
            {"name": "data", "persistent_volume_claim": {"claim_name": names.POSTGRES_CLAIM}},
            {
                "name": "passwords",
                "secret": {"secret_name": names.POSTGRES_SECRET, "default_mode": 0o440},
            },
            {"name": "run", "empty_dir": {}},
            {"name": "tmp", "empty_dir": {}},
        ],
        pull_secrets,
    )


def keycloak_pod(
    image: pulumi.Input[str],
    environment: list[k8s.core.v1.EnvVarArgsDict],
    pull_secrets: Sequence[str],
) -> k8s.core.v1.PodSpecArgsDict:
    def health(path: str) -> k8s.core.v1.HTTPGetActionArgsDict:
        return {"path": f"/health/{path}", "port": KEYCLOAK_MANAGEMENT_PORT}

    return pod(
        {
            "name": "keycloak",
            "image": image,
            "env": list(environment),
            "ports": [
                {"name": "http", "container_port": names.KEYCLOAK_PORT},
                {"name": "health", "container_port": KEYCLOAK_MANAGEMENT_PORT},
            ],
            # The first start makes the schema, on a busy machine for minutes.
            "startup_probe": {
                "http_get": health("started"),
                "period_seconds": 3,
                "failure_threshold": 200,
            },
            "readiness_probe": {
                "http_get": health("ready"),
                "period_seconds": 5,
                "timeout_seconds": 3,
            },
            "liveness_probe": {
                "http_get": health("live"),
                "period_seconds": 15,
                "timeout_seconds": 5,
                "failure_threshold": 8,
            },
            "resources": {
                "requests": {"cpu": "100m", "memory": "512Mi"},
                "limits": {"cpu": "2", "memory": "1Gi"},
            },
            "security_context": container_security(),
            "volume_mounts": [
                {"name": "data", "mount_path": "/opt/keycloak/data"},
                {"name": "tmp", "mount_path": "/tmp"},  # noqa: S108
            ],
        },
        [{"name": "data", "empty_dir": {}}, {"name": "tmp", "empty_dir": {}}],
        pull_secrets,
    )


@dataclass(frozen=True)
class FoundationArgs:
    config: FoundationConfig
    namespace: pulumi.Input[str]
    databases: Sequence[str]
    """To be there beside Keycloak's; each is owned by a role of its name."""
    pull_secrets: Sequence[str]
    storage_class: pulumi.Input[str]
    postgres_image: pulumi.Input[str]
    keycloak_image: pulumi.Input[str] | None
    """None for a stack whose Keycloak is elsewhere."""
    keycloak_url: str
    """As browsers reach it."""
    seaweedfs_image: pulumi.Input[str] | None = None
    """None for a stack whose SeaweedFS is elsewhere."""


class Foundation(pulumi.ComponentResource):
    """Postgres with a database for each that needs one, and Keycloak on it."""

    database_passwords: dict[str, pulumi.Output[str]]
    """Of each database's owner, by the database."""
    admin_username: pulumi.Output[str] | None
    admin_password: pulumi.Output[str] | None
    """Keycloak's; None where it is elsewhere."""
    s3_access_key: pulumi.Output[str] | None
    s3_secret_key: pulumi.Output[str] | None
    """Of MLflow's bucket; None where S3 is elsewhere."""

    def __init__(self, name: str, args: FoundationArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("mlhub:foundation:Foundation", name, {}, opts)
        child = pulumi.ResourceOptions(parent=self)
        self._namespace = args.namespace

        self.admin_username = self.admin_password = None
        keycloak = [names.KEYCLOAK_DATABASE] if args.config.keycloak is not None else []
        self.database_passwords = {
            database: password(f"postgres-{database}", child)
            for database in [*args.databases, *keycloak]
        }

        database = self._postgres(args, child)
        if args.config.keycloak is not None and args.keycloak_image is not None:
            self.admin_username = pulumi.Output.from_input("admin")
            self.admin_password = password("keycloak-admin", child)
            admin = secret(
                names.KEYCLOAK_ADMIN_SECRET,
                namespace=self._namespace,
                data={"username": self.admin_username, "password": self.admin_password},
                opts=child,
            )
            image = args.keycloak_image
            known = fingerprint(
                self.admin_password, self.database_passwords[names.KEYCLOAK_DATABASE]
            )
            after = _after(child, admin, database)
            self._keycloak(args, args.config.keycloak, image, known, after)
        self.s3_access_key = self.s3_secret_key = None
        if args.config.seaweedfs is not None and args.seaweedfs_image is not None:
            files = SeaweedFS(
                names.SEAWEEDFS,
                SeaweedFSArgs(
                    namespace=self._namespace,
                    namespace_name=args.config.namespace,
                    size=args.config.seaweedfs.volume,
                    storage_class=args.storage_class,
                    image=args.seaweedfs_image,
                    pull_secrets=args.pull_secrets,
                    state=args.config.seaweedfs.state,
                ),
                child,
            )
            self.s3_access_key, self.s3_secret_key = files.access_key, files.secret_key
        self.register_outputs(
            {
                "admin_username": self.admin_username,
                "admin_password": self.admin_password,
                "database_passwords": self.database_passwords,
                "s3_access_key": self.s3_access_key,
                "s3_secret_key": self.s3_secret_key,
            }
        )

    def _metadata(self, name: str, component: str) -> k8s.meta.v1.ObjectMetaArgsDict:
        return {"name": name, "namespace": self._namespace, "labels": names.labels(component)}

    def _postgres(
        self, args: FoundationArgs, child: pulumi.ResourceOptions
    ) -> k8s.apps.v1.StatefulSet:
        words = {"postgres-password": password("postgres-superuser", child)} | {
            f"{database}-password": word for database, word in self.database_passwords.items()
        }
        passwords = secret(names.POSTGRES_SECRET, namespace=self._namespace, data=words, opts=child)
        data = k8s.core.v1.PersistentVolumeClaim(
            names.POSTGRES_CLAIM,
            metadata={
                **self._metadata(names.POSTGRES_CLAIM, names.POSTGRES),
                "annotations": names.CLAIM_ANNOTATIONS,
            },
            spec={
                "access_modes": ["ReadWriteOnce"],
                "storage_class_name": args.storage_class,
                "resources": {"requests": {"storage": args.config.postgres.volume}},
            },
            opts=pulumi.ResourceOptions(
                parent=self,
                protect=True,
                retain_on_delete=True,
                # A claim stays of the class that it was made from.
                ignore_changes=["spec.storageClassName"],
            ),
        )
        k8s.core.v1.Service(
            names.POSTGRES,
            metadata=self._metadata(names.POSTGRES, names.POSTGRES),
            spec={
                "selector": names.selector(names.POSTGRES),
                "ports": [{"name": "postgres", "port": names.POSTGRES_PORT}],
            },
            opts=child,
        )
        return k8s.apps.v1.StatefulSet(
            names.POSTGRES,
            metadata=self._metadata(names.POSTGRES, names.POSTGRES),
            spec={
                "replicas": 1,
                "service_name": names.POSTGRES,
                "selector": {"match_labels": names.selector(names.POSTGRES)},
                "template": {
                    # It makes databases and sets passwords when it starts.
                    "metadata": _pod_metadata(names.POSTGRES, fingerprint(*words.values())),
                    "spec": postgres_pod(args.postgres_image, args.pull_secrets),
                },
            },
            opts=_after(child, passwords, data),
        )

    def _keycloak(
        self,
        args: FoundationArgs,
        config: FoundationKeycloak,
        image: pulumi.Input[str],
        known: pulumi.Output[str],
        opts: pulumi.ResourceOptions,
    ) -> None:
        k8s.core.v1.Service(
            names.KEYCLOAK,
            metadata=self._metadata(names.KEYCLOAK, names.KEYCLOAK),
            spec={
                "type": "NodePort",
                "selector": names.selector(names.KEYCLOAK),
                "ports": [
                    {
                        "name": "http",
                        "port": names.KEYCLOAK_PORT,
                        "node_port": config.node_port,
                    }
                ],
            },
            opts=pulumi.ResourceOptions(parent=self),
        )
        environment = keycloak_environment(args.config.namespace, args.keycloak_url)
        k8s.apps.v1.Deployment(
            names.KEYCLOAK,
            metadata=self._metadata(names.KEYCLOAK, names.KEYCLOAK),
            spec={
                "replicas": 1,
                # Two of them would each keep sessions that the other does not know.
                "strategy": {"type": "Recreate"},
                "progress_deadline_seconds": 900,
                "selector": {"match_labels": names.selector(names.KEYCLOAK)},
                "template": {
                    "metadata": _pod_metadata(names.KEYCLOAK, known),
                    "spec": keycloak_pod(image, environment, args.pull_secrets),
                },
            },
            opts=opts,
        )


def _pod_metadata(component: str, known: pulumi.Output[str]) -> k8s.meta.v1.ObjectMetaArgsDict:
    """`known` is the fingerprint of the secrets that the pod is started with."""
    return {"labels": names.labels(component), "annotations": {names.FINGERPRINT: known}}


def _after(child: pulumi.ResourceOptions, *needed: pulumi.Resource) -> pulumi.ResourceOptions:
    return pulumi.ResourceOptions.merge(child, pulumi.ResourceOptions(depends_on=list(needed)))
