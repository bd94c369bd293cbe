"""The application: routes, refusals, and what lives as long as it does.

Behind the hub's proxy under `base_path`, with which every request arrives.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI

from mlhub.execution.identity import Callers, HubTokens
from mlhub.execution.problems import Problem
from mlhub.execution.shell import furnish
from mlhub.workspaces.claims import Claims
from mlhub.workspaces.directory import Directory
from mlhub.workspaces.hub import HubMembers
from mlhub.workspaces.rooms import Rooms
from mlhub.workspaces.routes import Api, router
from mlhub.workspaces.settings import Settings
from mlhub.workspaces.store import Store

log = logging.getLogger(__name__)


def build_app(settings: Settings, *, keycloak_secret: str, hub_token: str) -> FastAPI:
    client = httpx.AsyncClient(timeout=10, trust_env=False)
    store = Store(settings.database_url)
    claims = Claims(settings.kubernetes_url, settings.claims)
    rooms = Rooms(
        settings,
        store=store,
        directory=Directory(settings.keycloak, keycloak_secret, client),
        claims=claims,
        hub=HubMembers(settings.hub.api_url, hub_token, client),
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(store.prepare)
        sweeping = asyncio.create_task(_sweep(rooms))
        try:
            yield
        finally:
            sweeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sweeping
            await client.aclose()
            await claims.close()
            store.close()

    app = FastAPI(
        title="mlhub workspaces",
        description="Teams' workspaces: who is in them, what is shared, their volumes.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.api = Api(rooms, Callers(HubTokens(settings.hub, client), None))
    furnish(app, settings.base_path, router)
    return app


async def _sweep(rooms: Rooms) -> None:
    """A round that fails is tried again with the next."""
    while True:
        await asyncio.sleep(rooms.settings.limits.sweep_seconds)
        try:
            await rooms.sweep()
        except Problem as error:
            log.warning("Deleted workspaces were not looked after: %s", error)
        except Exception:
            log.exception("Deleted workspaces were not looked after")
