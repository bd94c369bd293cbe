"""The few calls to Kubernetes that the service makes, over its HTTP API."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
PAGE = 500
LOG_BYTES = 400_000

Object = dict[str, Any]


class ClusterError(Exception):
    """Kubernetes refused, or did not answer: then `status` is 0."""

    def __init__(self, status: int, message: str):
        super().__init__(f"Kubernetes answers {status or 'nothing'}: {message}")
        self.status, self.message = status, message

    @property
    def refused(self) -> bool:
        """Whether nothing was done, and nothing would be the next time."""
        return 400 <= self.status < 500 and self.status != 429


class Cluster:
    """One namespace of one cluster."""

    def __init__(self, url: str, namespace: str, account: Path = ACCOUNT):
        authority = account / "ca.crt"
        self._token = account / "token"
        verify = str(authority) if authority.exists() else True

        def client(connections: int) -> httpx.AsyncClient:
            return httpx.AsyncClient(
                base_url=url,
                verify=verify,
                timeout=httpx.Timeout(10, pool=30),
                limits=httpx.Limits(max_connections=connections),
                trust_env=False,
            )

        self._client = client(100)
        # A log that is followed keeps its connection for as long as its run goes on.
        self._followed = client(500)
        self._batch = f"/apis/batch/v1/namespaces/{namespace}/jobs"
        self._cron = f"/apis/batch/v1/namespaces/{namespace}/cronjobs"
        self._core = f"/api/v1/namespaces/{namespace}"

    async def close(self) -> None:
        await self._client.aclose()
        await self._followed.aclose()

    def _headers(self) -> dict[str, str]:
        # Read anew each time: the kubelet renews a bound token within the hour.
        return (
            {"Authorization": f"Bearer {self._token.read_text().strip()}"}
            if self._token.exists()
            else {}
        )

    async def _call(
        self, method: str, path: str, more_headers: dict[str, str] | None = None, **more: Any
    ) -> Any:
        headers = self._headers() | (more_headers or {})
        try:
            answer = await self._client.request(method, path, headers=headers, **more)
        except httpx.HTTPError as error:
            raise ClusterError(0, type(error).__name__) from error
        if answer.is_error:
            raise ClusterError(answer.status_code, _message(answer))
        try:
            return answer.json()
        except ValueError as error:
            raise ClusterError(0, "no JSON") from error

    async def create_job(self, body: Object) -> Object:
        made: Object = await self._call("POST", self._batch, json=body)
        return made

    async def job(self, name: str) -> Object | None:
        return await self._get(f"{self._batch}/{name}")

    async def _get(self, path: str) -> Object | None:
        try:
            found: Object = await self._call("GET", path)
        except ClusterError as error:
            if error.status == 404:
                return None
            raise
        return found

    async def start_job(self, name: str) -> None:
        """Let a Job that was made suspended make its pod."""
        await self._patch(f"{self._batch}/{name}", {"spec": {"suspend": False}})

    async def delete_job(self, name: str) -> None:
        """With its pod, which gets its grace; no error where there is none."""
        await self._delete(f"{self._batch}/{name}")

    async def _patch(self, path: str, body: Object) -> None:
        kind = {"Content-Type": "application/merge-patch+json"}
        await self._call("PATCH", path, content=json.dumps(body), more_headers=kind)

    async def _delete(self, path: str) -> None:
        """No error where there is nothing."""
        options = {"kind": "DeleteOptions", "propagationPolicy": "Background"}
        try:
            await self._call("DELETE", path, json=options)
        except ClusterError as error:
            if error.status != 404:
                raise

    async def create_secret(self, body: Object) -> None:
        """What is in it is never read again: the service has no right to."""
        await self._call("POST", f"{self._core}/secrets", json=body)

    async def create_cron_job(self, body: Object) -> Object:
        made: Object = await self._call("POST", self._cron, json=body)
        return made

    async def cron_job(self, name: str) -> Object | None:
        return await self._get(f"{self._cron}/{name}")

    async def cron_jobs(self, selector: str) -> list[Object]:
        return await self._list(self._cron, selector)

    async def patch_cron_job(self, name: str, body: Object) -> None:
        await self._patch(f"{self._cron}/{name}", body)

    async def delete_cron_job(self, name: str) -> None:
        """With the Jobs and the Secret that are its."""
        await self._delete(f"{self._cron}/{name}")

    async def jobs(self, selector: str) -> list[Object]:
        return await self._list(self._batch, selector)

    async def pods(self, selector: str) -> list[Object]:
        return await self._list(f"{self._core}/pods", selector)

    async def _list(self, path: str, selector: str) -> list[Object]:
        items: list[Object] = []
        more = ""
        while True:
            query = {"labelSelector": selector, "limit": str(PAGE)}
            answer = await self._call(
                "GET", path, params=query | ({"continue": more} if more else {})
            )
            items += answer["items"]
            more = answer["metadata"].get("continue") or ""
            if not more:
                return items

    async def has_claim(self, name: str) -> bool:
        try:
            await self._call("GET", f"{self._core}/persistentvolumeclaims/{name}")
        except ClusterError as error:
            if error.status == 404:
                return False
            raise
        return True

    async def log(self, pod: str, container: str, most: int = LOG_BYTES) -> str:
        """What a container has said so far, up to `most` bytes."""
        query = {"container": container, "limitBytes": str(most)}
        try:
            answer = await self._client.get(
                f"{self._core}/pods/{pod}/log", params=query, headers=self._headers()
            )
        except httpx.HTTPError as error:
            raise ClusterError(0, type(error).__name__) from error
        if answer.is_error:
            raise ClusterError(answer.status_code, _message(answer))
        return answer.content.decode(errors="replace")

    @asynccontextmanager
    async def follow(self, pod: str, container: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """The log from its beginning, as it comes, until the container ends."""
        query = {"container": container, "follow": "true"}
        path = f"{self._core}/pods/{pod}/log"
        try:
            async with self._followed.stream(
                "GET",
                path,
                params=query,
                headers=self._headers(),
                timeout=httpx.Timeout(10, read=None),
            ) as answer:
                if answer.is_error:
                    await answer.aread()
                    raise ClusterError(answer.status_code, _message(answer))
                yield answer.aiter_bytes()
        except httpx.HTTPError as error:
            raise ClusterError(0, type(error).__name__) from error

    async def ping(self) -> None:
        """Whether Jobs can be seen: unlike the version, they need a token, rights and etcd."""
        await self._call("GET", self._batch, params={"limit": "1"}, timeout=3)


def _message(answer: httpx.Response) -> str:
    """Kubernetes' own words."""
    try:
        return str(answer.json()["message"])[:1000]
    except (ValueError, KeyError, TypeError):
        return answer.reason_phrase
