"""The application: routes, refusals, and what lives as long as it does.

Port 8002; behind the hub's proxy under `base_path`, with which every request arrives.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI

from mlhub.execution import jobs, plan_routes
from mlhub.execution.admission import Admission
from mlhub.execution.cluster import Cluster
from mlhub.execution.identity import Callers, HubTokens, ServiceTokens
from mlhub.execution.listing import Listings
from mlhub.execution.members import Members, Standing
from mlhub.execution.plan_store import PlanStore
from mlhub.execution.routes import Api, mlhub_version, router
from mlhub.execution.runs import Reconciler, Runs
from mlhub.execution.schedules import Schedules
from mlhub.execution.settings import Settings
from mlhub.execution.shell import furnish
from mlhub.execution.store import Store
from mlhub.execution.sweeps import Sweeps


def build_app(
    settings: Settings,
    *,
    store: Store,
    cluster: Cluster,
    admission: Admission,
    keycloak_secret: str = "",
    listing_wait: float = jobs.LISTING_SECONDS,
) -> FastAPI:
    """The application; it owns what it is given and closes it."""
    client = httpx.AsyncClient(timeout=5, trust_env=False)
    callers = Callers(
        HubTokens(settings.hub, client),
        ServiceTokens(settings.keycloak, client) if settings.keycloak else None,
    )
    runs = Runs(settings, store, cluster, admission)
    keycloak = settings.keycloak
    members = Members(keycloak, keycloak_secret, client) if keycloak else None
    plans, standing = PlanStore(store), Standing(keycloak, members)
    schedules, sweeps = Schedules(runs, plans, standing), Sweeps(runs, plans, standing)

    looks = (schedules.look, sweeps.look)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(store.prepare)
        reconciler = asyncio.create_task(Reconciler(runs, looks).forever())
        try:
            yield
        finally:
            reconciler.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reconciler
            await runs.end_starts()
            for owned in (client.aclose, cluster.close, admission.close):
                await owned()
            store.close()

    app = FastAPI(
        title="mlhub execution",
        description="Runs notebooks unattended, each as its person in a pod of its own.",
        version=mlhub_version(),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.api = Api(runs, callers, Listings(runs, listing_wait), schedules, sweeps)
    furnish(app, settings.base_path, router, plan_routes.router)
    return app
