"""Whose notebooks, versions and runs these are, by the name that the hub has for a person."""

import getpass
import os

CURRENT_USER = "/api/2.0/mlflow/users/current"
"""mlflow 3.17, `server/auth/routes.py`."""


def person() -> str:
    """A server's environment says who; in an unattended run and on a laptop MLflow does, of the
    token. Where that knows no people it is the machine's user. Raises MLflow's exceptions.
    """
    if name := os.environ.get("JUPYTERHUB_USER"):
        return name
    # Seconds, that a start without MLflow does not spend.
    from mlflow import get_tracking_uri  # noqa: PLC0415
    from mlflow.utils.credentials import get_default_host_creds  # noqa: PLC0415
    from mlflow.utils.rest_utils import http_request, verify_rest_response  # noqa: PLC0415

    server = get_tracking_uri()
    if server.startswith("http"):
        credentials = get_default_host_creds(server)  # type: ignore[no-untyped-call]
        answer = http_request(credentials, CURRENT_USER, "GET")  # type: ignore[no-untyped-call]
        if answer.status_code != 404:
            return str(verify_rest_response(answer, CURRENT_USER).json()["user"]["username"])
    return getpass.getuser()
