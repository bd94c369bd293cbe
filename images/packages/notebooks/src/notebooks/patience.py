"""A server waits for a hub that restarts, and does not turn its own person away.

Every five minutes it asks the hub anew who somebody is. JupyterHub's own answer to a hub that is
away is a 500 for whatever the lab asks then, the saving of a file among them. Nothing that the hub
has not said lets anybody in: the question is put again, for as long as a restart takes.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from tornado.web import HTTPError

if TYPE_CHECKING:
    from jupyter_server.serverapp import ServerApp

SECONDS = 45.0
"""After that the lab hears of it; a proxy in between waits for a minute, as a rule."""

AGAIN_SECONDS = 1.0


def away(error: HTTPError) -> bool:
    """Whether it says that the hub does not answer, or has a fault itself (JupyterHub 6.1)."""
    return error.status_code == HTTPStatus.BAD_GATEWAY or "Failed to connect" in str(
        error.log_message
    )


def patient(ask: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """`ask`, once more each second while the hub is away."""

    async def asked(*args: Any, **kwargs: Any) -> Any:
        end = time.monotonic() + SECONDS
        while True:
            try:
                return await ask(*args, **kwargs)
            except HTTPError as error:
                if not away(error) or time.monotonic() > end:
                    raise
            await asyncio.sleep(AGAIN_SECONDS)

    return asked


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    return [{"module": "notebooks.patience"}]


def _load_jupyter_server_extension(server: "ServerApp") -> None:
    hub = getattr(server.identity_provider, "hub_auth", None)
    if hub is None:
        return  # a server of nobody's hub
    hub._check_hub_authorization = patient(hub._check_hub_authorization)
    server.log.info("Who somebody is, is asked again while the hub restarts.")
