"""What the hub looks after by itself, once a minute: hours, roles, tokens, what has to end."""

import asyncio
import contextlib
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from jupyterhub.user import User  # type: ignore[import-untyped]

from mlhub.admission import Holding
from mlhub.hub import audit
from mlhub.hub.background import Background
from mlhub.hub.desk import Desk
from mlhub.hub.endings import Ending, Use, ending
from mlhub.hub.settings import Settings
from mlhub.hub.tokens import Tokens
from mlhub.hub.workspaces import why_a_mount_ends

TICK_SECONDS = 60.0

MOST_ENDED = 1000
"""Of how many runs it is remembered why they were ended, until their service asks."""

ITSELF = "mlhub"
"""Who stops a server, in the audit trail, when it is the hub."""


class Keeper(Background):
    """The chores of one hub. `app` is its JupyterHub."""

    def __init__(self, app: Any, settings: Settings, desk: Desk, tokens: Tokens):
        self._app = app
        self._settings = settings
        self._desk = desk
        self._tokens = tokens
        self._out: dict[str, str] = {}
        """Who may not use the hub any more, and why."""
        self._wake = asyncio.Event()
        self._stopping: set[asyncio.Task[None]] = set()
        self._ended_runs: set[str] = set()
        """The uids of their pods, which have their grace."""
        self._why_runs_ended: dict[str, str] = {}

    def turn_out(self, name: str, why: str) -> None:
        """Stop what somebody runs, now and whatever else is found of theirs later."""
        self._out[name] = why
        self._wake.set()

    def let_in(self, name: str) -> None:
        self._out.pop(name, None)

    def has_turned_out(self, name: str) -> bool:
        return name in self._out

    def why_it_ended(self, run: str) -> str:
        """Why the hub has ended a run of late; empty where it has not."""
        return self._why_runs_ended.get(run, "")

    def look_now(self) -> None:
        """Somebody's groups have changed; whatever must stop stops now."""
        self._wake.set()

    async def _run(self) -> None:
        """A chore that fails is tried again with the next round."""
        while True:
            self._wake.clear()
            chores = (
                self._hours,
                self._ask_about_members,
                self._stop_servers,
                self._stop_runs,
                self._tend_tokens,
                self._desk.measure,
            )
            for chore in chores:
                try:
                    await chore()
                except Exception:
                    self._app.log.exception("A chore of the hub's failed")
            with contextlib.suppress(TimeoutError):
                # Not wait_for, which loses the hub's end where somebody wakes this at that moment
                # (Python 3.11): the hub would wait for another round, and for ever.
                async with asyncio.timeout(TICK_SECONDS):
                    await self._wake.wait()

    async def _hours(self) -> None:
        self._desk.count_hours()

    async def _tend_tokens(self) -> None:
        self._tokens.tend()

    async def _ask_about_members(self) -> None:
        """Who has something that runs while nobody has asked Keycloak about them for two refresh
        ages.

        A server reports its activity and is refreshed by that; one that does not, and a run, must
        not keep its owner's membership from being looked at.
        """
        oldest = time.monotonic() - 2 * self._settings.identity.refresh_seconds
        for user in self._with_something_running():
            if self._app.authenticator.asked(user) > oldest:
                continue
            if not await self._app.authenticator.ask_about(user):
                return

    def _with_something_running(self) -> list[User]:
        owners = [
            user.name
            for user in self._app.users.values()
            if any(spawner.ready for spawner in user.spawners.values())
        ]
        owners += [run.owner for run in self._desk.runs().values()]
        return [self._app.users[name] for name in dict.fromkeys(owners) if name in self._app.users]

    async def _stop_servers(self) -> None:
        """Each by itself: one whose node is lost takes minutes."""
        for user, name, why in list(self._due()):
            stop = asyncio.create_task(self._stop(user, name, why))
            self._stopping.add(stop)
            stop.add_done_callback(self._stopping.discard)

    async def _stop_runs(self) -> None:
        """Those whose owner may not have what they mount, or use the hub; what they had done by
        then is in their output."""
        runs = self._desk.runs()
        self._ended_runs &= runs.keys()
        for uid, run in runs.items():
            if uid in self._ended_runs or not (why := self._why_a_run_ends(run)):
                continue
            await self._desk.end(run)
            self._ended_runs.add(uid)
            self._why_runs_ended[run.name.rpartition("/")[2]] = why
            for oldest in list(self._why_runs_ended)[:-MOST_ENDED]:
                del self._why_runs_ended[oldest]
            audit.note("run.stop", run.owner, "stopped", what=run.name, by=ITSELF, why=why)

    def _why_a_run_ends(self, run: Holding) -> str:
        if why := self._out.get(run.owner, ""):
            return why
        if not run.mounts or run.owner not in self._app.users:
            return ""
        groups = self._app.users[run.owner].groups
        return why_a_mount_ends(run, [group.name for group in groups])

    def _due(self) -> Iterator[tuple[User, str, str]]:
        """Servers that must stop and why."""
        held = self._desk.servers()
        for user in self._app.users.values():
            for name, spawner in user.spawners.items():
                if not spawner.ready:
                    continue
                why = self._out.get(user.name, "")
                if not why and (share := held.get(spawner.holder)):
                    why = why_a_mount_ends(share, [group.name for group in user.groups])
                if not why and (end := self.ending(user, name, held)) and end.seconds <= 0:
                    why = end.why
                if why:
                    yield user, name, why

    def ending(
        self, user: User, name: str, held: Mapping[str, Holding] | None = None
    ) -> Ending | None:
        """When a server of somebody's must stop; None while it need not, or does not run.

        `held` is `Desk.servers()`, where many are asked about.
        """
        spawner = user.spawners[name]
        known = self._desk.servers() if held is None else held
        share = known.get(spawner.holder) if spawner.ready else None
        if not share:
            return None
        # As the Hub keeps its times: UTC without a zone.
        now = datetime.now(UTC).replace(tzinfo=None)
        record, used = spawner.orm_spawner, spawner.gpu_used
        began = record.started or now
        use = Use(
            age=(now - began).total_seconds(),
            idle=(now - (record.last_activity or began)).total_seconds(),
            gpu_idle=(now - used).total_seconds() if used else None,
        )
        return ending(share, use, self._settings)

    async def _stop(self, user: User, name: str, why: str) -> None:
        spawner = user.spawners[name]
        spawner.stopped_by, spawner.stopped_why = ITSELF, why
        # As the Hub does, before anything that waits: a person's own stop waits for this one.
        spawner._stop_pending = True
        spawner._stop_future = asyncio.ensure_future(self._end(user, name))
        try:
            await spawner._stop_future
        except Exception as error:
            self._app.log.error("%s/%s could not be stopped: %r", user.name, name, error)

    async def _end(self, user: User, name: str) -> None:
        spawner = user.spawners[name]
        try:
            await self._app.proxy.delete_user(user, name)
            await user.stop(name)
        finally:
            # Otherwise a proxy that did not answer would keep the next round from stopping it.
            spawner._stop_pending = False
            spawner._stop_future = None
