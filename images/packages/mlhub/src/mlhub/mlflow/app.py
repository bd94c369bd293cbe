"""MLflow's server behind the Hub's tokens.

Around MLflow's own `basic-auth` application, which decides what a person may do, goes one layer
that decides who they are, before anything else looks at the request; MLflow's
`authorization_function` merely repeats it. Who names no workspace is in their own.

A program bears its token; a browser, which comes through the hub's proxy, has it in a cookie
(`mlhub.mlflow.browser`). Who may do what is not MLflow's to say, so its own ways to give rights,
accounts and passwords are closed.
"""

import os
import re
from contextvars import ContextVar
from typing import Any

from flask import Response
from mlflow.server import auth
from mlflow.server.handlers import build_server_info_payload
from mlflow.utils.server_info import (
    SERVER_INFO_MULTIPART_DOWNLOADS_ENABLED,
    SERVER_INFO_MULTIPART_UPLOADS_ENABLED,
)
from mlflow.utils.workspace_utils import WORKSPACE_HEADER_NAME
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from werkzeug.datastructures import Authorization

from mlhub.mlflow.artifacts import open_workspaces_alone
from mlhub.mlflow.browser import CALLBACK, PATH, Browser, opens_a_page
from mlhub.mlflow.hub import Hub, HubSilentError
from mlhub.mlflow.people import SILENT_SECONDS, People
from mlhub.mlflow.words import refuse_them
from mlhub.slugs import personal_workspace

NOTHING_GIVEN = (
    "MLflow takes a token of the Hub and the request has none; on the Hub it is in "
    "MLFLOW_TRACKING_TOKEN already, elsewhere set that to a token from the Hub's page Token."
)
UNKNOWN = (
    "The Hub knows no person with this token, which has expired, was revoked or is another Hub's; "
    "restart your server, or get a new token from the Hub's page Token."
)
LOGGED_OUT = "You are not logged in at the Hub any more; load the page again to log in."
SILENT = (
    "MLflow cannot ask the Hub whose token this is, because the Hub does not answer; "
    "try again in a minute."
)
FOREIGN = "Another page than MLflow's own made this request, so it was not carried out."
NOT_HERE = (
    "Accounts and roles are not given in MLflow: people come from the Hub, and their roles from "
    "their workspaces' groups in Keycloak."
)

NO_NAMES = "MLflow tells admins alone who uses it; `workspaces members` tells who is in yours."

NO_ASSISTANT = "MLflow's assistant is off here: it would run commands in the server itself."

NO_DEMO = "MLflow's demo is off here: it would write into any workspace, for whoever asks."

NO_SIGNED_ADDRESSES = (
    "Artifacts go through MLflow here, for nobody else reaches S3; ask for them without "
    "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD and MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD."
)

_INFO = re.compile(r"/(ajax-)?api/\d\.\d/mlflow/server-info")
_SIGNED = re.compile(r"/(ajax-)?api/\d\.\d/mlflow-artifacts/(presigned|mpu)(/.*)?")
_ASSISTANT = re.compile(r"/(ajax-)?api/\d\.\d/mlflow/assistant(/.*)?")
_DEMO = re.compile(r"/(ajax-)?api/\d\.\d/mlflow/demo(/.*)?")
_NAMES = re.compile(r"/(ajax-)?api/\d\.\d/mlflow/users/list")
_GIVING = re.compile(r"/(ajax-)?api/\d\.\d/mlflow/(users|roles|(.+/)?permissions)(/.*)?")
"""Paths by which MLflow gives accounts and rights."""

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

    def __init__(self, app: ASGIApp, people: People, browser: Browser):
        self._app = app
        self._people = people
        self._browser = browser

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        path: str = scope["path"]
        answer: ASGIApp | None = None
        through_the_hub = path.startswith(f"{PATH}/")
        if path == PATH:
            answer = RedirectResponse(f"{PATH}/")
        elif path == CALLBACK:
            answer = await self._browser.callback(Request(scope))
        else:
            if through_the_hub:
                path, raw = path.removeprefix(PATH), scope["raw_path"].removeprefix(PATH.encode())
                scope = {**scope, "path": path, "raw_path": raw}
            if _INFO.fullmatch(path):
                answer = JSONResponse(await run_in_threadpool(server_info))
            elif not auth.is_unprotected_route(path):
                answer = await self._refusal(Request(scope), through_the_hub)
        await (answer or self._app)(scope, receive, send)

    async def _refusal(self, request: Request, through_the_hub: bool) -> ASGIApp | None:
        """None for a request that goes on, under a name and in a workspace."""
        path = request.scope["path"]
        token = bearer(request)
        by_cookie = through_the_hub and token is None
        if by_cookie:
            token = self._browser.token(request)
            if token is not None and self._browser.is_foreign(request):
                return refusal(403, FOREIGN)
        try:
            person = await run_in_threadpool(self._people.bearer, token) if token else None
        except HubSilentError:
            return refusal(503, SILENT)
        if person is None:
            if by_cookie and opens_a_page(request):
                return self._browser.log_in(path, request.url.query)
            sentence = LOGGED_OUT if by_cookie else UNKNOWN
            return refusal(401, sentence if token else NOTHING_GIVEN)
        if shut := closed(request.method, path, admin=person.admin):
            return refusal(*shut)
        MutableHeaders(scope=request.scope).setdefault(
            WORKSPACE_HEADER_NAME, personal_workspace(person.name)
        )
        _name.set(person.name)
        return None


def server_info() -> dict[str, object]:
    """What MLflow tells clients of itself, without a way around it for large artifacts.

    It would sign addresses of S3 for them, which people's servers do not reach, and wait in vain.
    """
    return build_server_info_payload() | {
        SERVER_INFO_MULTIPART_DOWNLOADS_ENABLED: False,
        SERVER_INFO_MULTIPART_UPLOADS_ENABLED: False,
    }


def closed(method: str, path: str, *, admin: bool) -> tuple[int, str] | None:
    """The status and the sentence for what nobody may do, and for what admins alone may."""
    if _SIGNED.fullmatch(path):
        return 501, NO_SIGNED_ADDRESSES
    if _ASSISTANT.fullmatch(path):
        return 403, NO_ASSISTANT
    if _DEMO.fullmatch(path):
        return 403, NO_DEMO
    if not admin and _NAMES.fullmatch(path):
        return 403, NO_NAMES
    if method not in ("GET", "HEAD") and _GIVING.fullmatch(path):
        return 403, NOT_HERE
    return None


def bearer(request: Request) -> str | None:
    """The token in the header, or None."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return (token.strip() or None) if scheme.lower() == "bearer" else None


def refusal(status: int, message: str) -> JSONResponse:
    """In the form that MLflow's client shows as it is."""
    code, header = {
        401: ("UNAUTHENTICATED", {"WWW-Authenticate": 'Bearer realm="mlflow"'}),
        403: ("PERMISSION_DENIED", {}),
        501: ("NOT_IMPLEMENTED", {}),
        503: ("TEMPORARILY_UNAVAILABLE", {"Retry-After": str(SILENT_SECONDS)}),
    }[status]
    return JSONResponse({"error_code": code, "message": message}, status, header)


def let_members_see_workspaces() -> None:
    """MLflow has a rule for a workspace's address, and seeks it by the address, not by its pattern.

    It finds none, and so the workspace is closed (3.17, `_find_validator`).
    """
    mlflow: Any = auth
    found = mlflow._find_validator

    def find(request: Any) -> Any:
        if request.endpoint == "_get_workspace_handler":
            return mlflow.validate_can_view_workspace
        return found(request)

    mlflow._find_validator = find


def create_app() -> Starlette:
    """The application that `mlflow server --app-name=mlhub` serves."""
    app: Starlette = auth.create_app()
    open_workspaces_alone()
    refuse_them()
    let_members_see_workspaces()
    hub = Hub(os.environ["JUPYTERHUB_API_URL"], os.environ["JUPYTERHUB_API_TOKEN"])
    browser = Browser(
        hub, os.environ["MLHUB_HUB_URL"], os.environ["MLFLOW_FLASK_SERVER_SECRET_KEY"]
    )
    app.add_middleware(HubTokens, people=People(hub), browser=browser)
    return app
