"""A live copy of one kind of Kubernetes object, kept by a watch.

Not KubeSpawner's reflector: that one needs a namespace on each object, which nodes have not, lists
everything anew every ten seconds, and gives up for good after half a minute without an API.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Generic, TypeVar

from kubernetes_asyncio import client, watch

from mlhub.hub.background import Background

T = TypeVar("T")
Parse = Callable[[Mapping[str, Any]], T | None]

RENEW_SECONDS = 300
RETRY_SECONDS = 5.0


class Watch(Background, Generic[T]):
    """What `parse` makes of each object, by uid; objects for which it gives None are left out.

    `call` is a list method of the Kubernetes client, `arguments` its namespace and selectors;
    `gone` is told each item that leaves.
    """

    def __init__(
        self,
        what: str,
        call: Callable[..., Any],
        parse: Parse[T],
        log: logging.Logger,
        gone: Callable[[T], None] = lambda item: None,
        **arguments: str,
    ):
        self.what = what
        self.items: dict[str, T] = {}
        self.loaded = asyncio.Event()
        """Set while `items` is what the API says."""
        self.tried = asyncio.Event()
        """Set once the API has answered, or failed."""
        self._call = call
        self._parse = parse
        self._log = log
        self._gone = gone
        self._arguments = arguments
        self._asked: asyncio.Task[str] | None = None
        self._version = 0
        """Of the API's newest state that `items` has."""

    async def refresh(self) -> None:
        """List anew; requests that come meanwhile share the answer. Raises what the client does."""
        if self._asked is None or self._asked.done():
            self._asked = asyncio.create_task(self._list())
        await asyncio.shield(self._asked)

    async def _list(self) -> str:
        answer = await self._call(**self._arguments, _preload_content=False, _request_timeout=10)
        body = json.loads(await answer.read())
        if answer.status != 200:
            raise client.ApiException(status=answer.status, reason=body.get("message"))
        version = int(body["metadata"]["resourceVersion"])
        # While it was on its way the watch, or another list, may have told of more. (Versions are
        # numbers that grow, within a kind: Kubernetes, "Resource versions".)
        if version >= self._version:
            items = {item["metadata"]["uid"]: self._parse(item) for item in body["items"]}
            self.items = {uid: item for uid, item in items.items() if item is not None}
            self._version = version
        self.loaded.set()
        self.tried.set()
        return str(version)

    async def _run(self) -> None:
        silent = False
        while True:
            try:
                version = await self._list()
                if silent:
                    self._log.info("Kubernetes tells about %s again", self.what)
                silent = False
            except Exception as error:
                if not silent:
                    # Without the headers and the body that the client's own text has.
                    said = getattr(error, "reason", None) or error
                    self._log.error("Kubernetes does not tell about %s: %s", self.what, said)
                silent = True
                self.items, self._version = {}, 0
                self.loaded.clear()
                self.tried.set()
                await asyncio.sleep(RETRY_SECONDS)
                continue
            try:
                await self._follow(version)
            except Exception as error:
                # A connection that was cut, a version too old to follow: listed anew, all is well.
                self._log.debug("The watch of %s ended: %r", self.what, error)
                await asyncio.sleep(1)

    async def _follow(self, version: str) -> None:
        """Apply changes until the watch ends."""
        stream = watch.Watch()
        try:
            async with stream.stream(
                # A partial hides the documented return type, which the client would build.
                partial(self._call, **self._arguments),
                resource_version=version,
                timeout_seconds=RENEW_SECONDS,
                _request_timeout=RENEW_SECONDS + 30,
            ) as events:
                async for event in events:
                    self._apply(event["type"], event["raw_object"])
        finally:
            stream.stop()
            await stream.close()

    def _apply(self, change: str, item: Mapping[str, Any]) -> None:
        uid, parsed = item["metadata"]["uid"], self._parse(item)
        self._version = max(self._version, int(item["metadata"]["resourceVersion"]))
        if parsed is None or change == "DELETED":
            self.drop(uid)
        else:
            self.items[uid] = parsed

    def drop(self, uid: str) -> None:
        """The object is gone."""
        if (item := self.items.pop(uid, None)) is not None:
            self._gone(item)
