"""Refusals as `application/problem+json` (RFC 9457): what was given, what is right, what to do."""

from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import Counter
from starlette.exceptions import HTTPException

MEDIA_TYPE = "application/problem+json"

TITLES = {
    400: "The request cannot be read",
    401: "No valid token",
    403: "Not allowed",
    404: "Not found",
    405: "No such method here",
    409: "In the way of something else",
    413: "Too large",
    422: "Not acceptable",
    429: "Too much at once",
    500: "A fault of the service",
    503: "Not available for the moment",
    504: "Not done in time",
}

REFUSED = Counter(
    "mlhub_requests_refused",
    "Answers other than a yes, by the problem's type; `job` says of which service.",
    ["status", "reason"],
)
REFUSED.labels("500", "fault")

SCHEMA: dict[str, Any] = {
    "type": "object",
    "title": "Problem",
    "description": "RFC 9457. `type` names the kind of problem, `detail` says what to do.",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "examples": ["ambiguous"]},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "run_id": {"type": "string", "description": "the run, where there is one"},
        "run": {"$ref": "#/components/schemas/Run"},
        "matches": {"type": "array", "items": {"type": "string"}},
        "quota": {"type": "object", "description": "what remains, and to whom"},
        "errors": {"type": "array", "items": {"type": "object"}},
    },
}


class Problem(Exception):  # noqa: N818 (the RFC's word)
    """An answer other than a yes. `kind` is a word that a program can rely on."""

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        *,
        headers: dict[str, str] | None = None,
        **more: Any,
    ):
        super().__init__(detail)
        self.status, self.kind, self.detail = status, kind, detail
        self.headers, self.more = headers or {}, more


def answer(problem: Problem) -> JSONResponse:
    REFUSED.labels(str(problem.status), problem.kind).inc()
    body = {
        "type": problem.kind,
        "title": TITLES[problem.status],
        "status": problem.status,
        "detail": problem.detail,
        **problem.more,
    }
    return JSONResponse(
        body, status_code=problem.status, headers=problem.headers, media_type=MEDIA_TYPE
    )


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """`responses` of an endpoint; what every one may answer is added."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        status: {"description": TITLES[status], "content": content}
        for status in sorted({400, 401, 413, 422, 500, 503, *statuses})
    }


async def on_problem(_: Request, problem: Exception) -> JSONResponse:
    assert isinstance(problem, Problem)  # noqa: S101 (registered for that class)
    return answer(problem)


async def on_http(_: Request, error: Exception) -> JSONResponse:
    """What the framework itself refuses."""
    assert isinstance(error, HTTPException)  # noqa: S101 (registered for that class)
    status = error.status_code if error.status_code in TITLES else 400
    detail = {
        404: "There is no such address; see /docs.",
        405: "The address takes another method; see /docs.",
    }.get(status, str(error.detail))
    headers = dict(error.headers or {})
    return answer(Problem(status, "http", detail, headers=headers))


async def on_invalid(_: Request, error: Exception) -> JSONResponse:
    """A request that does not have the documented shape. What was given is not repeated: a token
    in the wrong field would be."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 (registered for that class)
    errors = [
        {
            "field": ".".join(str(part) for part in fault["loc"][1:]) or "body",
            "message": fault["msg"].removeprefix("Value error, "),
        }
        for fault in error.errors()
    ]
    detail = "; ".join(f"{fault['field']}: {fault['message']}" for fault in errors[:5])
    return answer(Problem(422, "invalid", detail or "The request is not valid.", errors=errors))


async def on_fault(_: Request, __: Exception) -> JSONResponse:
    return answer(Problem(500, "fault", "The service has a fault; tell an administrator."))
