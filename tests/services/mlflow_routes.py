"""Prints the routes of MLflow's application that upstream guards by no rule of its own, as JSON.

Run apart from the tests: the application is made of its environment when it is imported.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from mlflow.server import app as flask
from mlflow.server import auth

from mlhub.mlflow.app import closed, create_app

GUARDS = re.compile(r"_?validate_\w+|sender_is_admin")
"""Names of upstream's rules, each of which asks for a right to the very thing."""

GUARDS_OF_FASTAPI = {
    "_get_gateway_validator.<locals>.validator",
    "_get_otel_validator.<locals>.validator",
    "_get_fastapi_proxy_artifact_validator.<locals>.validator",
    "_get_mcp_server_validator.<locals>.validator",
}

PREFIX = re.compile(r"^/(ajax-)?api/\d\.\d")


def flask_routes() -> Iterator[tuple[str, str, bool]]:
    """Method, path and whether a rule of upstream's guards it, or it is closed."""
    for rule in flask.url_map.iter_rules():
        path = re.sub(r"<(?:[^:>]+:)?[^>]+>", "x", rule.rule)
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            with flask.test_request_context(path, method=method) as context:
                yield method, rule.rule, is_guarded(context.request)


def is_guarded(request: Any) -> bool:
    if auth.is_unprotected_route(request.path):
        return False
    if (validator := auth._find_validator(request)) is not None:
        return bool(GUARDS.fullmatch(validator.__name__))
    if auth._is_proxy_artifact_path(request.path):
        return auth._get_proxy_artifact_validator(request.method, request.view_args) is not None
    return not auth._authorized_outside_before_request(request)


def fastapi_routes(app: Any) -> Iterator[tuple[str, str, bool]]:
    for router in app.routes:
        for route in getattr(router, "effective_route_contexts", lambda one=router: [one])():
            for method in getattr(route, "methods", None) or ():
                validator = auth._find_fastapi_validator(route.path, method)
                name = getattr(validator, "__qualname__", None)
                yield method, route.path, name in GUARDS_OF_FASTAPI


def unguarded() -> dict[str, list[str]]:
    app = create_app()
    found = {"flask": flask_routes(), "fastapi": fastapi_routes(app)}
    return {
        kind: sorted(
            {
                f"{method} {PREFIX.sub('', path)}"
                for method, path, guarded in routes
                if not guarded and not closed(method, path, admin=False)
            }
        )
        for kind, routes in found.items()
    }


if __name__ == "__main__":
    print(json.dumps(unguarded()))
