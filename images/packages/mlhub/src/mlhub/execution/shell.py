"""What both services that speak HTTP beside the hub have around their routes."""

from typing import Any

import uvicorn
from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException

from mlhub import metrics
from mlhub.execution.limits import BodyLimits
from mlhub.execution.problems import SCHEMA, Problem, on_fault, on_http, on_invalid, on_problem


def furnish(app: FastAPI, base_path: str, *routers: APIRouter) -> None:
    """Refusals as problems, bounds for bodies, the routes, and a document that tells of them."""
    for error, handler in (
        (Problem, on_problem),
        (HTTPException, on_http),
        (RequestValidationError, on_invalid),
        (Exception, on_fault),
    ):
        app.add_exception_handler(error, handler)
    app.add_middleware(BodyLimits, base_path=base_path)
    for router in routers:
        app.include_router(router)
    app.openapi = lambda: _openapi(app, base_path)  # type: ignore[method-assign]


def serve(app: FastAPI, port: int) -> None:
    """Until a signal ends it; metrics are on a port of their own (`mlhub.metrics`)."""
    metrics.serve()
    # A caller's address is the proxy's; nothing is decided by it.
    uvicorn.run(
        app,
        host="0.0.0.0",  # noqa: S104 (network policies decide who reaches it)
        port=port,
        proxy_headers=False,
        server_header=False,
        # Whoever waits for a run or follows a log asks again; the rest of the pod's grace period
        # is for what the service has begun.
        timeout_graceful_shutdown=10,
        log_config=None,  # as every other record of the service's
    )


def _openapi(app: FastAPI, base: str) -> dict[str, Any]:
    if not app.openapi_schema:
        made = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
            servers=[{"url": base or "/"}],
        )
        made["components"]["schemas"]["Problem"] = SCHEMA
        app.openapi_schema = made
    return app.openapi_schema
