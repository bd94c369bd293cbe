"""MLflow's server behind the Hub's tokens.

Around MLflow's own `basic-auth` application, which decides what a person may do, goes one layer
that decides who they are, before anything else looks at the request; MLflow's
`authorization_function` merely repeats it. Who names no workspace is in their own.
"""

import os
from contextvars import ContextVar

from flask import Response
from mlflow.server import auth
from mlflow.utils.workspace_utils import WORKSPACE_HEADER_NAME
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from werkzeug.datastructures import Authorization

from mlhub.mlflow.hub import Hub, HubSilentError
from mlhub.mlflow.people import SILENT_SECONDS, People
from mlhub.slugs import personal_workspace

NOTHING_GIVEN = (
    "MLflow takes a token of the Hub and the request has none; on the Hub it is in "
    "MLFLOW_TRACKING_TOKEN already, elsewhere set that to a token from the Hub's page Token."
)
UNKNOWN = (
    "The Hub knows no person with this token, which has expired, was revoked or is another Hub's; "
    "restart your server, or get a new token from the Hub's page Token."
)
SILENT = (
    "MLflow cannot ask the Hub whose token this is, because the Hub does not answer; "
    "try again in a minute."
)

_name: ContextVar[str] = ContextVar("name")
"""Of the person whose request this is."""


def authenticate() -> Authorization | Response:
    """MLflow's `authorization_function`."""
    name = _name.get(None)
    if name is None:
        return auth.make_basic_auth_response()
    return Authorization("basic", {"username": name})


class HubTokens:
    """Lets a request through to `app` under the name of its token's owner."""

    def __init__(self, app: ASGIApp, people: People):
        self._app = app
        self._people = people

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or auth.is_unprotected_route(scope["path"]):
            return await self._app(scope, receive, send)
        scheme, _, token = Headers(scope=scope).get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            return await refusal(401, NOTHING_GIVEN)(scope, receive, send)
        try:
            person = await run_in_threadpool(self._people.bearer, token.strip())
        except HubSilentError:
            return await refusal(503, SILENT)(scope, receive, send)
        if person is None:
            return await refusal(401, UNKNOWN)(scope, receive, send)
        MutableHeaders(scope=scope).setdefault(
            WORKSPACE_HEADER_NAME, personal_workspace(person.name)
        )
        _name.set(person.name)
        return await self._app(scope, receive, send)


def refusal(status: int, message: str) -> JSONResponse:
    """In the form that MLflow's client shows as it is."""
    code, header = {
        401: ("UNAUTHENTICATED", {"WWW-Authenticate": 'Bearer realm="mlflow"'}),
        503: ("TEMPORARILY_UNAVAILABLE", {"Retry-After": str(SILENT_SECONDS)}),
    }[status]
    return JSONResponse({"error_code": code, "message": message}, status, header)


def create_app() -> Starlette:
    """The application that `mlflow server --app-name=mlhub` serves."""
    app: Starlette = auth.create_app()
    app.add_middleware(HubTokens, people=People(Hub(os.environ["JUPYTERHUB_API_URL"])))
    return app
