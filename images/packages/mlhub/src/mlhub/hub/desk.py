"""Where every start is asked for: the cluster's pods, the promises and the hours, brought together.

One for each hub. The spawner asks it for servers and the admission API for runs, so that both share
one ledger; the pods that it watches are what the ledger counts.
"""

import asyncio
import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from kubernetes_asyncio.client.rest import ApiException
from kubespawner.clients import shared_client  # type: ignore[import-untyped]

from mlhub.admission import Answer, Ask, Charge, Hours, Ledger, Quotas
from mlhub.admission.holdings import HOLDER, RESERVATION, Holding, holding_of
from mlhub.admission.hours import HourBook
from mlhub.admission.promises import Promises
from mlhub.hub import audit, metrics
from mlhub.hub.groups import hub_group_name
from mlhub.hub.refusal import Refusal
from mlhub.hub.watch import Watch

SERVER_SECONDS = 600.0
"""How long a server's promise lasts at most, from the yes to its pod; a failed start ends it."""

LOAD_SECONDS = 10.0
FRESH_SECONDS = 1.0
"""A refusal is given on pods that were listed no longer ago than this."""

BLIND = (
    "Kubernetes does not say what runs, so nothing can be started for the moment. Servers that run "
    "stay usable. Try again in a minute; if it lasts, tell your administrator."
)


class Desk:
    """Answers every ask of one hub."""

    def __init__(self, quotas: Quotas, engine: sa.Engine, log: logging.Logger):
        self.quotas = quotas
        self.log = log
        self._groups = {hub_group_name(path): path for path in quotas.groups}
        self._book = HourBook(engine)
        self._hours: Hours = {}
        self._listed = 0.0
        self.pods: Watch[Holding] = Watch(
            "pods",
            shared_client("CoreV1Api").list_namespaced_pod,
            self._read,
            log,
            lambda held: self._book.record([held], datetime.now(UTC)),
            namespace=os.environ["POD_NAMESPACE"],
            label_selector=HOLDER,
        )
        # By the wall's clock: a promise may be older than this process.
        self.ledger = Ledger(
            quotas, lambda: self.pods.items, lambda: self._hours, time.time, Promises(engine, log)
        )

    def start(self) -> None:
        self.pods.start()

    async def stop(self) -> None:
        await self.pods.stop()

    def servers(self) -> dict[str, Holding]:
        """The pods that hold something, by what they hold."""
        return {held.name: held for held in self.pods.items.values()}

    def runs(self) -> dict[str, Holding]:
        """The pods of runs, by their uid."""
        return {uid: held for uid, held in self.pods.items.items() if held.kind == "run"}

    async def end(self, held: Holding) -> None:
        """Delete a pod, whose container has its grace. Raises ApiException and OSError."""
        try:
            await shared_client("CoreV1Api").delete_namespaced_pod(
                held.pod, os.environ["POD_NAMESPACE"], _request_timeout=10
            )
        except ApiException as error:
            if error.status != 404:
                raise

    def charges(self, owner: str, groups: list[str], workspace: str = "") -> frozenset[Charge]:
        """Whom a server or run of `owner` counts against; `groups` are Hub names."""
        found = {Charge("user", owner)}
        found |= {Charge("group", self._groups[name]) for name in groups if name in self._groups}
        if workspace:
            found.add(Charge("workspace", workspace))
        return frozenset(found)

    async def admit(
        self, ask: Ask, *, kind: str, seconds: float = SERVER_SECONDS, reservation: str = ""
    ) -> Answer:
        """Decide, and note it. Raises Refusal (503) while nobody knows what runs."""
        try:
            await self._know()
        except Refusal as refusal:
            self.note(ask, kind, refusal.jupyterhub_message, metrics.BLIND)
            raise
        answer = self.ledger.admit(ask, seconds, reservation)
        if not answer.admitted and time.monotonic() - self._listed > FRESH_SECONDS:
            # What has just been stopped may still be on the copy.
            await self._list()
            answer = self.ledger.admit(ask, seconds, reservation)
        self.note(ask, kind, answer.sentence, answer.reason)
        return answer

    def note(self, ask: Ask, kind: str, refused: str = "", reason: str = "") -> None:
        """In the audit trail and the metrics; `refused` is why, empty where it was admitted."""
        outcome = "refused" if refused else "admitted"
        audit.note(
            f"{kind}.ask",
            ask.owner,
            outcome,
            what=ask.name,
            profile=ask.profile,
            asked=ask.size.plain(),
            why=refused,
            reason=reason,
        )
        metrics.ADMISSIONS.labels(kind, outcome, reason).inc()

    async def ask(self, ask: Ask) -> Answer:
        """The answer as things are; nothing is promised and nothing noted."""
        await self._know()
        return self.ledger.ask(ask)

    def forget(self, name: str) -> None:
        """The server's pod is known to be gone before the watch says so."""
        for uid in [uid for uid, held in self.pods.items.items() if held.name == name]:
            self.pods.drop(uid)

    def count_hours(self) -> None:
        """Bring the GPU-hours up to now."""
        now = datetime.now(UTC)
        self._book.record(self.pods.items.values(), now)
        self._hours = self._book.used(now)

    async def measure(self) -> None:
        """Tell Prometheus what is held, what people's volumes ask for, how verifications ended and
        when the last backup was made."""
        metrics.SEEN.set(self.pods.loaded.is_set())
        if not self.pods.loaded.is_set():
            return
        metrics.tell(self.ledger.held(), self.quotas, self._hours)
        api = shared_client("CoreV1Api")
        metrics.tell_volumes(await _items(api.list_namespaced_persistent_volume_claim))
        verifications = await _items(api.list_namespaced_pod, label_selector=metrics.VERIFY_PODS)
        metrics.tell_verified(verifications)
        metrics.tell_backup(await _data(api.read_namespaced_config_map, metrics.BACKUP_RECORD))

    def _read(self, pod: Mapping[str, Any]) -> Holding | None:
        # The pod is there, or was: it counts itself from here on.
        self.ledger.release((pod["metadata"].get("labels") or {}).get(RESERVATION, ""))
        return holding_of(pod)

    async def _know(self) -> None:
        try:
            async with asyncio.timeout(LOAD_SECONDS):
                await self.pods.loaded.wait()
        except TimeoutError:
            raise Refusal(BLIND, reason="kubernetes", status=503) from None

    async def _list(self) -> None:
        try:
            await self.pods.refresh()
        except (ApiException, OSError, TimeoutError) as error:
            self.log.warning("A refusal is given without a fresh list of pods: %s", error)
        else:
            self._listed = time.monotonic()


async def _data(call: Callable[..., Any], name: str) -> dict[str, str] | None:
    """Of a ConfigMap; None where there is none."""
    try:
        found: dict[str, str] = (
            await call(name, os.environ["POD_NAMESPACE"], _request_timeout=10)
        ).data
    except ApiException as error:
        if error.status == 404:
            return None
        raise
    return found


async def _items(call: Callable[..., Any], **selectors: str) -> list[dict[str, Any]]:
    """What a list method of the Kubernetes client gives, as it came."""
    answer = await call(
        os.environ["POD_NAMESPACE"], **selectors, _preload_content=False, _request_timeout=10
    )
    found: list[dict[str, Any]] = json.loads(await answer.read())["items"]
    return found
