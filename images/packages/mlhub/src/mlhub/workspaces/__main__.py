"""`python -m mlhub.workspaces`: serve on port 8003."""

import os
import sys

from fastapi import FastAPI

from mlhub import audit, logs
from mlhub.execution.settings import SettingsError
from mlhub.execution.shell import serve
from mlhub.workspaces import settings
from mlhub.workspaces.app import build_app

PORT = 8003


def application() -> FastAPI:
    """The service as its pod configures it; ends the process where that is wrong."""
    logs.configure()
    audit.configure()
    try:
        given = settings.load()
    except SettingsError as error:
        sys.exit(f"mlhub.workspaces: {error}")
    secrets = {}
    for variable in ("JUPYTERHUB_API_TOKEN", "KEYCLOAK_CLIENT_SECRET"):
        if not (value := os.environ.get(variable)):
            sys.exit(f"mlhub.workspaces: {variable} is not set; it comes from the Secret.")
        secrets[variable] = value
    return build_app(
        given,
        keycloak_secret=secrets["KEYCLOAK_CLIENT_SECRET"],
        hub_token=secrets["JUPYTERHUB_API_TOKEN"],
    )


def main() -> None:
    serve(application(), PORT)


if __name__ == "__main__":
    main()
