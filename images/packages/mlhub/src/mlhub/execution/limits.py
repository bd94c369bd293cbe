"""What is refused before a body is parsed, and the address under which the service is reached."""

import json
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mlhub.execution.inputs import DEEPEST, depth_of
from mlhub.execution.problems import Problem, answer

LARGEST_BODY = 64 * 1024
"""A run's parameters go into an environment variable and an annotation; both have limits."""

DRAINED = 4 * 2**20
"""How much more is read and thrown away, so that a client that is still writing gets its answer."""


class BodyLimits:
    """Reads a request's body whole, within the limit, and looks at it before anything else does."""

    def __init__(self, app: ASGIApp, base_path: str = ""):
        self._app, self._base = app, base_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._base and scope["path"].startswith(f"{self._base}/"):
            # The proxy hands on the whole path; ASGI's `path` holds its `root_path`.
            scope = {**scope, "root_path": self._base}
        try:
            body = await _read(receive)
            _look(scope, body)
        except Problem as problem:
            await answer(problem)(scope, receive, send)
            return
        given = False

        async def replay() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, replay, send)


async def _read(receive: Receive) -> bytes:
    body, seen = b"", 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return body
        part: bytes = message.get("body", b"")
        seen += len(part)
        if seen <= LARGEST_BODY:
            body += part
        if seen > DRAINED or (seen > LARGEST_BODY and not message.get("more_body")):
            raise Problem(
                413,
                "too-large",
                f"A request has at most {LARGEST_BODY >> 10} KiB; put data into a file in the home "
                "and give its path as a parameter.",
                headers={"Connection": "close"},
            )
        if not message.get("more_body"):
            return body


def _look(scope: Scope, body: bytes) -> None:
    if not body:
        return
    if depth_of(body, DEEPEST + 3):
        raise Problem(422, "too-deep", f"Parameters are nested at most {DEEPEST} deep.")
    kind = dict(scope["headers"]).get(b"content-type", b"").decode("latin-1")
    if not kind.partition(";")[0].strip().lower().endswith("json"):
        return
    try:
        json.loads(body, object_pairs_hook=_once, parse_int=_integer)
    except _DoubleNameError as double:
        raise Problem(
            422, "invalid", "A name is there twice in one object; which one counts is not clear."
        ) from double
    except ValueError as error:
        raise Problem(422, "invalid", "The body is no JSON.") from error


class _DoubleNameError(Exception):
    pass


def _once(pairs: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) < len(pairs):
        raise _DoubleNameError


def _integer(text: str) -> int:
    if len(text) > 30:
        raise ValueError("too long")
    return int(text)
