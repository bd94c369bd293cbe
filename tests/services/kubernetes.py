"""As much of a Kubernetes API as KubeSpawner uses, over HTTP, for `make test`.

It keeps what it is given and streams it to watchers: what has changed since the version that they
name, and until the time that they give. What a kubelet or a scheduler would say about a pod, a test
says by `then`.
"""

import asyncio
import contextlib
import copy
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import yaml
from aiohttp import web

Object = dict[str, Any]


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def kubeconfig(server: str) -> str:
    """For a client of the API at that address."""
    return yaml.safe_dump(
        {
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "clusters": [{"name": "test", "cluster": {"server": server}}],
            "users": [{"name": "test", "user": {}}],
        }
    )


def selects(selector: str, item: Object) -> bool:
    """Whether a label selector of `key` and `key=value` terms takes an object."""
    labels = item["metadata"].get("labels") or {}
    terms = [term.partition("=") for term in selector.split(",") if term]
    return all(
        labels.get(key) == value if equals else key in labels for key, equals, value in terms
    )


@dataclass
class Kubernetes:
    """`then` is called with each new pod and returns its status."""

    then: Callable[[Object], Object] = lambda pod: {"phase": "Pending"}
    refuse: Callable[[str, Object], str | None] = lambda kind, item: None
    """The message with which it forbids an object, or None."""
    kept: dict[str, dict[str, Object]] = field(
        default_factory=lambda: {
            "pods": {},
            "persistentvolumeclaims": {},
            "events": {},
            "nodes": {},
            "configmaps": {},
        }
    )
    silent: set[str] = field(default_factory=set)
    """Kinds about which it answers 500."""
    lists: list[str] = field(default_factory=list)
    """The kind of each list that it was asked for."""
    late: asyncio.Event | None = None
    """For which the answer to a list waits, that is made."""
    _uids: Any = field(default_factory=itertools.count)
    _version: int = 1
    _changes: dict[str, list[tuple[int, Object]]] = field(default_factory=dict)
    """What a watch is told, by kind, each with its version."""
    _watchers: dict[str, list[tuple[str, asyncio.Queue[Object | None]]]] = field(
        default_factory=dict
    )

    def application(self) -> web.Application:
        app = web.Application()
        kind = "/api/v1/namespaces/{namespace}/{kind}"
        app.add_routes(
            [
                web.get("/api/v1/{kind:nodes}", self._list),
                web.get(kind, self._list),
                web.post(kind, self._create),
                web.get(kind + "/{name}", self._read),
                web.delete(kind + "/{name}", self._delete),
            ]
        )
        return app

    def say(self, about: Object, kind: str, reason: str, message: str) -> None:
        """An event about an object."""
        name = f"{about['metadata']['name']}.{len(self.kept['events'])}"
        event = {
            "metadata": {
                "name": name,
                "namespace": "jupyterhub",
                "uid": name,
            },
            "involvedObject": {"kind": kind, "name": about["metadata"]["name"]},
            "reason": reason,
            "message": message,
            "type": "Warning",
            "lastTimestamp": now(),
        }
        self.kept["events"][name] = event
        self.tell("events", "ADDED", event)

    def put(self, kind: str, item: Object) -> None:
        """An object that somebody else made, or changed."""
        name = item["metadata"]["name"]
        change = "MODIFIED" if name in self.kept[kind] else "ADDED"
        item["metadata"]["uid"] = f"uid-of-{name}"
        self.kept[kind][name] = item
        self.tell(kind, change, item)

    def drop(self, kind: str, name: str) -> None:
        """An object that somebody else deleted."""
        self.tell(kind, "DELETED", self.kept[kind].pop(name))

    def close(self) -> None:
        """End every watch."""
        for _, queue in itertools.chain(*self._watchers.values()):
            queue.put_nowait(None)

    def tell(self, kind: str, change: str, item: Object) -> None:
        """Whoever watches of an object that has changed."""
        self._version += 1
        item["metadata"]["resourceVersion"] = str(self._version)
        # As it is at this version: the object itself goes on changing.
        told = {"type": change, "object": copy.deepcopy(item)}
        self._changes.setdefault(kind, []).append((self._version, told))
        for selector, queue in self._watchers.get(kind, []):
            if selects(selector, item):
                queue.put_nowait(told)

    async def _list(self, request: web.Request) -> web.StreamResponse:
        kind = request.match_info["kind"]
        if kind in self.silent:
            return web.json_response({"message": "not well"}, status=500)
        selector = request.query.get("labelSelector", "")
        if "watch" not in request.query:
            self.lists.append(kind)
            items = [item for item in self.kept[kind].values() if selects(selector, item)]
            version = {"resourceVersion": str(self._version)}
            if self.late:
                await self.late.wait()
            return web.json_response({"items": items, "metadata": version})
        queue: asyncio.Queue[Object | None] = asyncio.Queue()
        since = int(request.query.get("resourceVersion") or self._version)
        for number, change in self._changes.get(kind, []):
            if number > since and selects(selector, change["object"]):
                queue.put_nowait(change)
        watcher = (selector, queue)
        self._watchers.setdefault(kind, []).append(watcher)
        stream = web.StreamResponse(headers={"Content-Type": "application/json"})
        await stream.prepare(request)
        seconds = request.query.get("timeoutSeconds")
        try:
            # A hub that was killed, and one that wants to be let go after so many seconds.
            with contextlib.suppress(ConnectionError, TimeoutError):
                async with asyncio.timeout(float(seconds) if seconds else None):
                    while told := await queue.get():
                        await stream.write(json.dumps(told).encode() + b"\n")
        finally:
            self._watchers[kind].remove(watcher)
        return stream

    async def _create(self, request: web.Request) -> web.Response:
        kind, item = request.match_info["kind"], await request.json()
        name = item["metadata"]["name"]
        if message := self.refuse(kind, item):
            return web.json_response({"message": message, "reason": "Forbidden"}, status=403)
        if name in self.kept[kind]:
            return web.json_response({"message": f"{name} exists"}, status=409)
        item["metadata"] |= {
            "namespace": request.match_info["namespace"],
            "uid": f"uid-{next(self._uids)}-of-{name}",
            "creationTimestamp": now(),
        }
        if kind == "pods":
            item["status"] = {"phase": "Pending"}
            asyncio.get_running_loop().call_later(0.05, self._go_on, item)
        self.kept[kind][name] = item
        self.tell(kind, "ADDED", item)
        return web.json_response(item, status=201)

    def _go_on(self, pod: Object) -> None:
        pod["status"] = self.then(pod)
        self.tell("pods", "MODIFIED", pod)

    async def _read(self, request: web.Request) -> web.Response:
        item = self.kept[request.match_info["kind"]].get(request.match_info["name"])
        return web.json_response(item or {"message": "not found"}, status=200 if item else 404)

    async def _delete(self, request: web.Request) -> web.Response:
        kind = request.match_info["kind"]
        item = self.kept[kind].pop(request.match_info["name"], None)
        if item:
            self.tell(kind, "DELETED", item)
        return web.json_response(item or {"message": "not found"}, status=200 if item else 404)
