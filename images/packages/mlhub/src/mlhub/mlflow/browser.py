"""Log-in to MLflow's page: the Hub's OAuth, whose token the browser keeps sealed in a cookie.

The page is behind the hub's proxy, at `PATH`, so that the browser is logged in at the Hub already
or goes there first. The cookie holds a token of the Hub's that may tell a name and use MLflow, and
nothing else; what it is worth, the Hub is asked anew every few seconds, as of any other token. A
log-out at the Hub revokes it.
"""

import base64
import hashlib
import secrets
from urllib.parse import urlencode

from cryptography.fernet import Fernet, InvalidToken
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from mlhub.mlflow.hub import Hub, HubSilentError

PATH = "/services/mlflow"
CALLBACK = f"{PATH}/oauth_callback"
AUTHORIZE = "/hub/api/oauth2/authorize"
"""On the address by which the browser came: MLflow knows the Hub by another."""

COOKIE = "mlhub-mlflow"
STATE = "mlhub-mlflow-state-"
"""With the state of one log-in behind it, so that two tabs may log in at once."""
STATE_SECONDS = 600
LONGEST = 1000
"""Of an address to come back to; a cookie holds 4096 bytes."""

SAME_SITE = ("same-origin", "none")
"""`Sec-Fetch-Site` of a page's own requests, and of an address that was typed."""


class Browser:
    """`hub_url` is the hub as browsers reach it; `key` seals the cookies."""

    def __init__(self, hub: Hub, hub_url: str, key: str):
        self._hub = hub
        self._origin = hub_url
        self._seal = Fernet(base64.urlsafe_b64encode(hashlib.sha256(key.encode()).digest()))

    def token(self, request: Request) -> str | None:
        """The Hub's token in the cookie, or None."""
        try:
            return self._seal.decrypt(request.cookies.get(COOKIE, "")).decode()
        except InvalidToken:
            return None

    def is_foreign(self, request: Request) -> bool:
        """Whether another page than MLflow's has made the browser ask.

        A link from elsewhere may open a page, and nothing more.
        """
        origin = request.headers.get("origin")
        if origin is not None and origin != self._origin:
            return True
        site = request.headers.get("sec-fetch-site", "same-origin")
        return site not in SAME_SITE and not opens_a_page(request)

    def log_in(self, path: str, query: str) -> Response:
        """To the Hub, and from there back to `path` below `PATH`, with its query."""
        state = secrets.token_urlsafe(16)
        asked = {
            "client_id": self._hub.oauth_client,
            "redirect_uri": CALLBACK,
            "response_type": "code",
            "state": state,
        }
        answer = RedirectResponse(f"{AUTHORIZE}?{urlencode(asked)}", 302)
        wanted = f"{path}?{query}" if query else path
        self._set(answer, STATE + state, wanted if len(wanted) < LONGEST else "/", STATE_SECONDS)
        return answer

    async def callback(self, request: Request) -> Response:
        """Back from the Hub; only this browser's own log-in, and each once."""
        state, code = request.query_params.get("state", ""), request.query_params.get("code", "")
        try:
            sealed = request.cookies.get(STATE + state, "")
            wanted = self._seal.decrypt(sealed, STATE_SECONDS).decode()
        except InvalidToken:
            return page(400, "This log-in was not begun in this browser, or too long ago.")
        try:
            token = await run_in_threadpool(self._hub.exchange, code, CALLBACK)
        except HubSilentError:
            return page(503, "The Hub does not answer.")
        if token is None:
            return page(403, "The Hub did not let you in.")
        answer = RedirectResponse(PATH + wanted, 302)
        answer.delete_cookie(STATE + state, path=PATH)
        self._set(answer, COOKIE, token)
        return answer

    def _set(self, answer: Response, name: str, value: str, seconds: int | None = None) -> None:
        answer.set_cookie(
            name,
            self._seal.encrypt(value.encode()).decode(),
            max_age=seconds,
            path=PATH,
            secure=self._origin.startswith("https:"),
            httponly=True,
            samesite="lax",
        )


def opens_a_page(request: Request) -> bool:
    """Whether a person is waiting for a page, rather than a page for its data."""
    mode = request.headers.get("sec-fetch-mode", "navigate")
    wants = "text/html" in request.headers.get("accept", "")
    return request.method == "GET" and mode == "navigate" and wants


def page(status: int, sentence: str) -> Response:
    again = f'<a href="{PATH}/">Try again</a>'
    return HTMLResponse(f"<!doctype html><title>MLflow</title><p>{sentence} {again}.</p>", status)
