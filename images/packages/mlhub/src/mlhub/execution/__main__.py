"""`python -m mlhub.execution`: serve on port 8002."""

import os
import sys

from fastapi import FastAPI

from mlhub import logs
from mlhub.execution import settings
from mlhub.execution.admission import HubAdmission
from mlhub.execution.app import build_app
from mlhub.execution.cluster import Cluster
from mlhub.execution.shell import serve
from mlhub.execution.store import Store

PORT = 8002
HUB_TOKEN = "JUPYTERHUB_API_TOKEN"  # noqa: S105 (the names of variables)
KEYCLOAK_SECRET = "KEYCLOAK_CLIENT_SECRET"  # noqa: S105


def application() -> FastAPI:
    """The service as its pod configures it; ends the process where that is wrong."""
    logs.configure()
    try:
        given = settings.load()
    except settings.SettingsError as error:
        sys.exit(f"mlhub.execution: {error}")
    token = os.environ.get(HUB_TOKEN)
    if not token:
        sys.exit(f"mlhub.execution: {HUB_TOKEN} is not set; it comes from the service's Secret.")
    return build_app(
        given,
        store=Store(given.database_url),
        cluster=Cluster(given.kubernetes_url, given.pod.namespace),
        admission=HubAdmission(given.hub.api_url, token),
        keycloak_secret=os.environ.get(KEYCLOAK_SECRET, ""),
    )


def main() -> None:
    serve(application(), PORT)


if __name__ == "__main__":
    main()
