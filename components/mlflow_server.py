"""How MLflow's server is started: its command, its environment, its `basic_auth.ini`.

Pure, and apart from the resources since the tests start a server of exactly this. No secret is
here: the server reads them from variables, which the pod takes from Secrets with fixed names.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from components import names

BOOTSTRAP_ADMIN = "mlhub/bootstrap"
"""MLflow insists on an admin with a password. No person can have this name, for the Hub refuses a
slash, and nobody can log in with it, for passwords are refused."""

AUTH_CONFIG_FOLDER = "/etc/mlflow"
AUTH_CONFIG_FILE = "basic_auth.ini"


@dataclass(frozen=True)
class Artifacts:
    """Where artifacts go: a bucket of an S3 service, written to by the server alone."""

    endpoint: str
    """Of the S3 service, such as `http://seaweedfs-s3.seaweedfs.svc.cluster.local:8333`."""
    bucket: str

    @property
    def destination(self) -> str:
        return f"s3://{self.bucket}/mlflow"


def tracking_uri(namespace: str) -> str:
    """`MLFLOW_TRACKING_URI` of every user pod and job (row J3)."""
    return names.address(names.in_cluster(names.MLFLOW_SERVICE, namespace), names.MLFLOW_PORT)


def hub_values(namespace: str) -> dict[str, Any]:
    """`hub` in the Release's values: MLflow as a service of the hub's that people log in to.

    Without a `url`, for the hub would wait for it whenever it starts; the route is one of the
    proxy's own. A log-in asks nothing: MLflow is a part of the platform, and learns a name.
    """
    return {
        "services": {
            names.MLFLOW: {
                "display": True,
                "oauth_no_confirm": True,
                "oauth_redirect_uri": f"{names.MLFLOW_PATH}/oauth_callback",
            }
        },
        "loadRoles": {
            "user": {
                "description": "One's own account and servers, and the services.",
                "scopes": ["self", f"access:services!service={names.MLFLOW}"],
            }
        },
        "config": {"Proxy": {"extra_routes": {f"{names.MLFLOW_PATH}/": tracking_uri(namespace)}}},
    }


def allowed_hosts(namespace: str, hub_url: str) -> list[str]:
    """The Service by each of its names, with its port, as a `Host` header has it; and the hub."""
    service = f"{names.MLFLOW_SERVICE}.{namespace}"
    return [
        f"{host}:{names.MLFLOW_PORT}"
        for host in (f"{service}.svc.cluster.local", f"{service}.svc", service)
    ] + [urlsplit(hub_url).netloc]


def server_command(
    *,
    database: str,
    destination: str,
    hosts: Sequence[str],
    hub_url: str,
    port: int = names.MLFLOW_PORT,
) -> list[str]:
    """MLflow with access control and workspaces; runs and experiments in `database`.

    `hub_url` is the hub as browsers reach it, and MLflow below it.

    `mlhub` is MLflow's own `basic-auth` with the Hub's tokens before it (`mlhub.mlflow.app`). One
    worker: each is a Python of 230 MB, and the work is in Postgres and S3.
    """
    return [
        "mlflow",
        "server",
        "--host=0.0.0.0",
        f"--port={port}",
        "--workers=1",
        f"--backend-store-uri={database}",
        "--serve-artifacts",
        f"--artifacts-destination={destination}",
        "--app-name=mlhub",
        "--enable-workspaces",
        f"--allowed-hosts={','.join(hosts)}",
        f"--cors-allowed-origins={hub_url}",
    ]


def upgrade_command(database: str) -> list[str]:
    """Makes the tables, or brings those of an older MLflow up to date, before a server starts."""
    return ["mlflow", "db", "upgrade", database]


def auth_config(database: str) -> str:
    """`basic_auth.ini`: nobody may do anything unless granted, and the Hub says who one is.

    In the database of the runs: its tables, and its table of versions, have names of their own.
    """
    return (
        "[mlflow]\n"
        "default_permission = NO_PERMISSIONS\n"
        f"database_uri = {database}\n"
        f"admin_username = {BOOTSTRAP_ADMIN}\n"
        "authorization_function = mlhub.mlflow.app:authenticate\n"
        "grant_default_workspace_access = false\n"
        # MLflow remembers also that something is not there, and it may be made a moment later.
        "workspace_cache_ttl_seconds = 0\n"
    )


def environment(
    *, hub_api: str, hub_url: str, config: str = f"{AUTH_CONFIG_FOLDER}/{AUTH_CONFIG_FILE}"
) -> dict[str, str]:
    """What the server needs beside its command.

    `hub_api` is the Hub's as the server reaches it, with `/hub/api`; `hub_url` as browsers do.
    """
    return {
        "JUPYTERHUB_API_URL": hub_api,
        "MLHUB_HUB_URL": hub_url,
        "MLFLOW_AUTH_CONFIG_PATH": config,
        # A path for which MLflow has no rule is closed, and not open.
        "MLFLOW_BASIC_AUTH_FAIL_CLOSED": "true",
        # A second server and its queue, for evaluations that are run in the server: 1.2 GB.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        # It would call addresses that people give from within the platform, and reaches no model.
        "MLFLOW_ENABLE_AI_GATEWAY": "false",
        # The last two are MLflow's own, of prompts. What is elsewhere it would open with its key of
        # S3 (`mlhub.mlflow.artifacts`), or could not.
        "MLFLOW_CREATE_MODEL_VERSION_SOURCE_VALIDATION_REGEX": (
            r"^(runs:/|models:/|mlflow-artifacts:/|dummy-source$|prompt-template$)"
        ),
        # It would ask the internet in a cluster that has none.
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "HOME": "/tmp",  # noqa: S108
    }


def s3_environment(artifacts: Artifacts) -> dict[str, str]:
    """For S3 services other than Amazon's: buckets in the path, checksums only where asked for."""
    return {
        "MLFLOW_S3_ENDPOINT_URL": artifacts.endpoint,
        "MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE": "path",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
    }
