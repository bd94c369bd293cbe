"""Sweeps: one notebook over a grid of parameters, each point a run of its own.

The points wait in the database and start as there is room: at most `parallel` of a sweep's at once,
within the person's quota, and of the starts that a person has in a minute one is left to them. Who
starts a point may die in between: its run bears a key, so that the next try finds it.
"""

import itertools
import json
import logging
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

from mlhub.execution.identity import Caller
from mlhub.execution.members import Standing
from mlhub.execution.plan_store import PlanStore, Point, Sweep, TakenError
from mlhub.execution.problems import Problem
from mlhub.execution.runs import Runs, fingerprint_of
from mlhub.execution.store import Run

log = logging.getLogger("mlhub.execution")

MOST_POINTS = 200
MOST_WAITING = 20
"""Sweeps of one person that have points left to start."""
MOST_A_DAY = 100
"""Sweeps of one person that begin in a day, whatever became of them: each is kept for long."""
LARGEST_SWEEP = 256 * 1024
"""Bytes of all its points' parameters: each point has those that all have alike as well."""
DAY_SECONDS = 86400
PAUSE_SECONDS = 10
"""Between two tries of a person's who has no room."""


def grid_points(grid: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """Every combination; the last name varies fastest. Raises ValueError beyond MOST_POINTS."""
    count = 1
    for values in grid.values():
        count *= len(values)
    if not 1 <= count <= MOST_POINTS:
        raise ValueError(f"the grid has {count} points; 1 to {MOST_POINTS} are required")
    return [dict(zip(grid, point, strict=True)) for point in itertools.product(*grid.values())]


class Sweeps:
    def __init__(self, runs: Runs, store: PlanStore, standing: Standing):
        self._runs, self.store, self._standing = runs, store, standing
        self._not_before: dict[str, float] = {}

    async def make(self, caller: Caller, key: str | None, **given: Any) -> Sweep:
        """A new sweep, or the one that the caller's key already made; raises Problem."""
        runs = self._runs
        runs.settled(given["how"])
        fingerprint = fingerprint_of("sweep", sorted(given.items()))
        if key and (known := await self._replayed(caller, key, fingerprint)):
            return known
        sweep = Sweep(
            id=secrets.token_hex(8),
            caller=caller.name,
            created=runs.clock(),
            idempotency_key=key,
            fingerprint=fingerprint,
            **given,
        )
        points = [
            Point(sweep.id, number, sweep.parameters | point)
            for number, point in enumerate(grid_points(sweep.grid))
        ]
        _check_size(points)
        async with runs.lease(f"sweeps:{sweep.user}"):
            await self._check_day(sweep)
            if len(await runs.db(self.store.waiting_sweeps, sweep.user)) >= MOST_WAITING:
                raise Problem(
                    409,
                    "too-many",
                    f"At most {MOST_WAITING} sweeps of one person wait for room; let one end, or "
                    "cancel one by POST /sweeps/<id>/cancel.",
                )
            try:
                await runs.db(self.store.add_sweep, sweep, points)
            except TakenError:
                if key and (known := await self._replayed(caller, key, fingerprint)):
                    return known
                raise
        return sweep

    async def _check_day(self, sweep: Sweep) -> None:
        """Raises Problem (429)."""
        a_day_ago = sweep.created - DAY_SECONDS
        begun = await self._runs.db(self.store.begun, sweep.user, a_day_ago)
        if len(begun) >= MOST_A_DAY:
            wait = begun[-MOST_A_DAY] - a_day_ago
            raise Problem(
                429,
                "rate",
                f"At most {MOST_A_DAY} sweeps of one person begin in a day; the next one can in "
                f"{wait / 60:.0f} minutes.",
                headers={"Retry-After": str(int(wait) + 1)},
            )

    async def _replayed(self, caller: Caller, key: str, fingerprint: str) -> Sweep | None:
        found: Sweep | None = await self._runs.db(self.store.sweep_by_key, caller.name, key)
        if found and found.fingerprint != fingerprint:
            raise Problem(
                422,
                "key-reused",
                "The Idempotency-Key was sent before with another request; send a new one.",
            )
        return found

    async def visible(self, caller: Caller, sweep_id: str) -> Sweep:
        """Raises Problem: another's sweep is as good as none."""
        found: Sweep | None = await self._runs.db(self.store.sweep, sweep_id)
        if found is None or not caller.may_act_for(found.user):
            raise Problem(
                404, "no-sweep", "There is no such sweep of yours; GET /sweeps lists them."
            )
        return found

    async def members(self, sweep: Sweep) -> list[tuple[Point, Run | None]]:
        """The points, each with its run as last known."""
        db = self._runs.db
        points = await db(self.store.points, sweep.id)
        ids = [p.run_id for p in points if p.run_id]
        runs = {run.id: run for run in await db(self._runs.store.some, ids)}
        return [(point, runs.get(point.run_id or "")) for point in points]

    async def cancel(self, sweep: Sweep) -> None:
        """What waits never starts, what runs ends; raises Problem."""
        db = self._runs.db
        await db(self.store.settle_points, sweep.id, "cancelled")
        # Whoever is just starting a point comes to the end of it, and starts no other.
        async with self._runs.lease(f"sweep:{sweep.id}"):
            # By their origin: a point may not know of its run, where the service was killed.
            for run in await db(self._runs.store.active, f"sweep/{sweep.id}"):
                await self._runs.cancel(run)

    async def look(self) -> None:
        """Start what can start; raises Problem where the database is silent."""
        full: set[str] = set()
        for sweep in await self._runs.db(self.store.waiting_sweeps):
            now = time.monotonic()
            if sweep.user in full or self._not_before.get(sweep.user, 0) > now:
                continue
            async with self._runs.lease(f"sweep:{sweep.id}"):
                if not await self._start_some(sweep):
                    # The older sweep of a person goes first.
                    full.add(sweep.user)
                    self._not_before[sweep.user] = now + PAUSE_SECONDS

    async def _start_some(self, sweep: Sweep) -> bool:
        """Whether the person has room for more, as far as this sweep found out."""
        members = await self.members(sweep)
        active = sum(bool(run and run.active) for _, run in members)
        waiting = [point for point, _ in members if point.state == "waiting"]
        startable = waiting[: max(0, sweep.parallel - active)]
        if startable and (why := await self._standing.why_not(sweep.caller, sweep.user)):
            await self._runs.db(self.store.settle_points, sweep.id, "refused", why)
            return True
        for point in startable:
            try:
                run = await self._runs.submit(
                    Caller(sweep.caller),
                    user=sweep.user,
                    notebook=sweep.notebook,
                    output=None,
                    parameters=point.parameters,
                    how=sweep.how,
                    key=f"sweep {sweep.id} {point.number}",
                    origin=f"sweep/{sweep.id}",
                )
            except Problem as problem:
                if problem.status in (429, 503):
                    return False
                if problem.kind == "profile":  # of all points, none of which is asked for in vain
                    await self._runs.db(
                        self.store.settle_points, sweep.id, "refused", problem.detail
                    )
                    return True
                await self._runs.db(
                    self.store.settle_point, point, "refused", message=problem.detail
                )
            else:
                values = {"run_id": run.id}
                if not await self._runs.db(self.store.settle_point, point, "started", **values):
                    # Cancelled meanwhile, and this run may be one that the cancel did not see.
                    await self._end_unwanted(point, run)
                    return True
        return True

    async def _end_unwanted(self, point: Point, run: Run) -> None:
        """End a run that is not its point's."""
        points = await self._runs.db(self.store.points, point.sweep)
        if all(known.run_id != run.id for known in points):
            await self._runs.cancel(run)


def _check_size(points: Sequence[Point]) -> None:
    """Raises Problem (413)."""
    if sum(len(json.dumps(point.parameters)) for point in points) > LARGEST_SWEEP:
        raise Problem(
            413,
            "too-large",
            f"All {len(points)} points' parameters together have more than "
            f"{LARGEST_SWEEP >> 10} KiB; put data into a file in the home and give its path as a "
            "parameter.",
        )


def state_of(point: Point, run: Run | None) -> str:
    """A started point is what its run is; one whose run is forgotten was."""
    return run.status if run else point.state


def status_of(counts: Mapping[str, int]) -> str:
    """The sweep's own status, from how many of its points are what."""
    if counts.keys() & {"waiting", "queued", "running"}:
        status = "running" if counts.keys() - {"waiting"} else "waiting"
    elif counts.keys() <= {"succeeded", "started"}:
        status = "succeeded"
    elif "cancelled" in counts:
        status = "cancelled"
    else:
        status = "failed"
    return status
