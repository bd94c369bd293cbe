"""Schedules: what Kubernetes' clock starts, and what is asked anew each time that it does.

A schedule is written down, then its CronJob is made, then the Secret with the schedule's own token,
of which only the hash is kept here. Whatever dies in between, the next look finishes it: a schedule
without a CronJob gets one, a CronJob that nobody knows is written down again, one of a deleted
schedule goes.

The rules, as docs/execution.md tells them: a firing up to LATE_SECONDS late is made, a later one is
missed and not made up for; while the run before goes on a firing is skipped; a person who is no
member any more has the schedule suspended.
"""

import hashlib
import hmac
import json
import logging
import secrets
from dataclasses import replace
from typing import Any

from mlhub.execution import cron, cronjobs, jobs
from mlhub.execution.cluster import ClusterError, Object
from mlhub.execution.identity import Caller
from mlhub.execution.members import Standing
from mlhub.execution.plan_store import Firing, PlanStore, Schedule, TakenError
from mlhub.execution.problems import Problem
from mlhub.execution.runs import Runs

log = logging.getLogger("mlhub.execution")

MOST_SCHEDULES = 20
"""For one person."""

EARLY_SECONDS = 30
"""By which the cluster's clock may be ahead of ours."""

SHOWN = 5
"""Firings to come, and firings that were."""

MISSED_SECONDS = cronjobs.LATE_SECONDS + cronjobs.TRYING_SECONDS + 60
"""After this nobody calls for a firing any more."""

INVALID = (400, 422)
"""Kubernetes' answers to what it will never take, such as a time zone that it does not know."""

AGAIN = (429, 503)
"""Refusals after which the trigger asks again."""


def hashed(token: str) -> str:
    """For 256 random bits; nobody tries those out."""
    return hashlib.sha256(token.encode()).hexdigest()


class Schedules:
    def __init__(self, runs: Runs, store: PlanStore, standing: Standing):
        self._runs, self.store, self._standing = runs, store, standing

    async def make(self, caller: Caller, **given: Any) -> Schedule:
        """A new schedule, with its CronJob if the cluster answers; raises Problem."""
        runs = self._runs
        now = runs.clock()
        schedule = Schedule(
            id=secrets.token_hex(8),
            caller=caller.name,
            reason=None,
            token_hash="",
            armed=False,
            deleted=False,
            created=now,
            checked=now,
            **given,
        )
        runs.settled(schedule.how)
        async with runs.lease(f"schedules:{schedule.user}"):
            mine = await runs.db(self.store.schedules, schedule.user)
            if any(s.name == schedule.name for s in mine):
                raise Problem(
                    409,
                    "name-taken",
                    "A schedule of that name is there; PATCH it, or choose another name.",
                )
            if len(mine) >= MOST_SCHEDULES:
                raise Problem(
                    409,
                    "too-many",
                    f"At most {MOST_SCHEDULES} schedules for one person; delete one first.",
                )
            try:
                await runs.db(self.store.add_schedule, schedule)
            except TakenError as error:
                raise Problem(
                    409, "name-taken", "One of that name is being deleted; try again in a minute."
                ) from error
        return await self._carried_out(schedule)

    async def visible(self, caller: Caller, schedule_id: str) -> Schedule:
        """Raises Problem: another's schedule is as good as none."""
        found: Schedule | None = await self._runs.db(self.store.schedule, schedule_id)
        if found is None or found.deleted or not caller.may_act_for(found.user):
            raise Problem(
                404, "no-schedule", "There is no such schedule of yours; GET /schedules lists them."
            )
        return found

    async def change(self, schedule: Schedule, **values: Any) -> Schedule:
        """Raises Problem. One that goes on, or has other times, begins anew: what it missed before
        is not told."""
        changed = replace(schedule, **values)
        self._runs.settled(changed.how)
        if not changed.suspended:
            values["reason"] = None
        times = (schedule.cron, schedule.time_zone)
        resumed = schedule.suspended and not changed.suspended
        if resumed or times != (changed.cron, changed.time_zone):
            values["checked"] = self._runs.clock()
        await self._runs.db(self.store.change_schedule, schedule.id, **values)
        return await self._carried_out(replace(schedule, **values))

    async def delete(self, schedule: Schedule) -> None:
        await self._runs.db(self.store.change_schedule, schedule.id, deleted=True)
        await self._carried_out(replace(schedule, deleted=True))

    async def _carried_out(self, schedule: Schedule) -> Schedule:
        """Bring the cluster in line now if it answers; otherwise the next look does."""
        try:
            await self.carry_out(schedule)
        except ClusterError as error:
            await self._not_carried_out(schedule, error)
        found: Schedule | None = await self._runs.db(self.store.schedule, schedule.id)
        return found or schedule

    # A firing

    async def fire(self, schedule_id: str, authorization: str | None, at: float) -> Firing:
        """What the schedule's own trigger asks for; raises Problem, after which it asks again."""
        db, now = self._runs.db, self._runs.clock()
        schedule: Schedule | None = await db(self.store.schedule, schedule_id)
        given = (authorization or "").removeprefix("Bearer ")
        if schedule is None or not hmac.compare_digest(hashed(given), schedule.token_hash):
            raise Problem(401, "token", "The token is not this schedule's.")
        if not now - MISSED_SECONDS <= at <= now + EARLY_SECONDS or not cron.fires_at(
            schedule.cron, schedule.time_zone, at
        ):
            raise Problem(409, "not-its-time", "That is no time of this schedule's about now.")
        async with self._runs.lease(f"firing:{schedule.id}"):
            known: Firing | None = await db(self.store.firing, schedule.id, at)
            if known and known.outcome != "refused":
                return known
            try:
                firing = await self._fired(schedule, at)
            except Problem as problem:
                # Told to the person whether or not a later try succeeds.
                firing = Firing(schedule.id, at, "refused", problem.kind, problem.detail)
                await db(self.store.note_firing, firing)
                if problem.status in AGAIN:
                    raise
            else:
                await db(self.store.note_firing, firing)
        log.info("schedule %s of %s: %s", schedule.id, schedule.user, firing.outcome)
        return firing

    async def _fired(self, schedule: Schedule, at: float) -> Firing:
        # No caller's key has a space.
        key = f"schedule {schedule.id} {at:.0f}"
        if known := await self._runs.db(self._runs.store.by_key, schedule.caller, key):
            # Who started it was killed before it was noted.
            return Firing(schedule.id, at, "started", run_id=known.id)
        if schedule.deleted or schedule.suspended:
            return Firing(schedule.id, at, "skipped", "suspended", "The schedule was suspended.")
        if why := await self._standing.why_not(schedule.caller, schedule.user):
            await self._suspend(schedule, why)
            return Firing(schedule.id, at, "refused", "not-a-member", why)
        if before := await self._still_running(schedule):
            sentence = f"Run {before}, which the schedule started before, still went on."
            return Firing(schedule.id, at, "skipped", "overlap", sentence)
        run = await self._runs.submit(
            Caller(schedule.caller),
            user=schedule.user,
            notebook=schedule.notebook,
            output=None,
            parameters=schedule.parameters,
            how=schedule.how,
            key=key,
            origin=f"schedule/{schedule.id}",
        )
        return Firing(schedule.id, at, "started", run_id=run.id)

    async def _suspend(self, schedule: Schedule, why: str) -> None:
        log.warning("schedule %s of %s is suspended: %s", schedule.id, schedule.user, why)
        values = {"suspended": True, "reason": why}
        await self._runs.db(self.store.change_schedule, schedule.id, **values)
        await self._carried_out(replace(schedule, suspended=True, reason=why))

    async def _still_running(self, schedule: Schedule) -> str | None:
        # By the run's origin: the firing that began it may be many skipped ones ago.
        origin = f"schedule/{schedule.id}"
        for run in await self._runs.db(self._runs.store.active, origin):
            if (await self._runs.look(run)).active:
                return str(run.id)
        return None

    # In line with the cluster

    async def look(self) -> None:
        """Bring every CronJob in line with its schedule; raises ClusterError and Problem."""
        runs = self._runs
        known = {s.id: s for s in await runs.db(self.store.schedules)}
        found = {
            item["metadata"]["labels"].get(cronjobs.SCHEDULE): item
            for item in await runs.cluster.cron_jobs(f"{jobs.KIND}=schedule")
        }
        for schedule in known.values():
            try:
                await self.carry_out(schedule, found.get(schedule.id, {}))
            except ClusterError as error:
                await self._not_carried_out(schedule, error)
            await self._note_missed(schedule)
        for schedule_id, item in found.items():
            if schedule_id not in known:
                await self._adopt(item)
        await runs.db(self.store.forget, runs.clock() - runs.settings.limits.run_kept_days * 86400)

    async def carry_out(self, schedule: Schedule, found: Object | None = None) -> None:
        """Make, change or delete the CronJob; `found` is it, empty where there is none."""
        cluster, name = self._runs.cluster, cronjobs.cron_job_name(schedule.id)
        if found is None:
            found = await cluster.cron_job(name) or {}
        if schedule.deleted:
            if found:
                await cluster.delete_cron_job(name)
            else:
                await self._runs.db(self.store.drop_schedule, schedule.id)
        elif not found or not schedule.armed:
            async with self._runs.lease(f"arming:{schedule.id}"):
                await self._arm(schedule.id)
        else:
            wanted = cronjobs.cron_job(self._runs.settings, schedule)
            if _differs(wanted, found):
                await cluster.patch_cron_job(name, wanted)

    async def _not_carried_out(self, schedule: Schedule, error: ClusterError) -> None:
        """The next look tries it again; what will not do then either is told to the person."""
        log.warning("Schedule %s waits for Kubernetes: %s", schedule.id, error)
        if error.status in INVALID and not schedule.suspended:
            why = f"Kubernetes calls the schedule invalid: {error.message}"
            values = {"suspended": True, "reason": why}
            await self._runs.db(self.store.change_schedule, schedule.id, **values)

    async def _arm(self, schedule_id: str) -> None:
        """A CronJob and a token for it; only then is the schedule armed."""
        runs, token = self._runs, secrets.token_urlsafe(32)
        name = cronjobs.cron_job_name(schedule_id)
        fresh: Schedule | None = await runs.db(self.store.schedule, schedule_id)
        if fresh is None or fresh.deleted:
            return
        if await runs.cluster.cron_job(name):
            if not fresh.armed:
                # Killed before its token was there: made anew once this one is gone.
                await runs.cluster.delete_cron_job(name)
            return
        values: dict[str, Any] = {"token_hash": hashed(token), "armed": False}
        await runs.db(self.store.change_schedule, schedule_id, **values)
        fresh = replace(fresh, **values)
        made = await runs.cluster.create_cron_job(cronjobs.cron_job(runs.settings, fresh))
        owner = made["metadata"]["uid"]
        secret = cronjobs.token_secret(runs.settings, fresh, token, owner)
        await runs.cluster.create_secret(secret)
        await runs.db(self.store.change_schedule, schedule_id, armed=True)

    async def _note_missed(self, schedule: Schedule) -> None:
        """Write down the firings for which nobody called."""
        runs, now = self._runs, self._runs.clock()
        until = now - MISSED_SECONDS
        if schedule.deleted or schedule.suspended or schedule.checked > until - 60:
            return
        since = max(schedule.checked, now - 7 * 86400)
        for at in cron.between(schedule.cron, schedule.time_zone, since, until):
            if await runs.db(self.store.firing, schedule.id, at) is None:
                sentence = "Neither the cluster nor this service was there at that time."
                firing = Firing(schedule.id, at, "missed", "late", sentence)
                await runs.db(self.store.note_firing, firing)
        await runs.db(self.store.change_schedule, schedule.id, checked=until)

    async def _adopt(self, item: Object) -> None:
        """A schedule that only the cluster knows, since the database was restored."""
        name = item["metadata"]["name"]
        try:
            held = json.loads(item["metadata"]["annotations"][jobs.REQUEST])
            if await self._runs.db(self.store.schedule, held["id"]):  # made a moment ago
                return
            now = self._runs.clock()
            schedule = Schedule(**held, armed=True, deleted=False, checked=now)
            await self._runs.db(self.store.add_schedule, schedule)
        except (KeyError, TypeError, ValueError):
            log.error("CronJob %s is no schedule of ours", name)
        except TakenError:
            log.error("CronJob %s is a schedule whose name is taken; delete it", name)
        else:
            log.warning("schedule %s was known to the cluster alone; written down again", name)


def _differs(wanted: Object, found: Object) -> bool:
    """Whether what a schedule decides differs; Kubernetes adds defaults to all else."""
    keys = ("schedule", "timeZone", "suspend")
    return any(wanted["spec"][key] != found["spec"].get(key) for key in keys) or (
        wanted["metadata"]["annotations"][jobs.REQUEST]
        != (found["metadata"].get("annotations") or {}).get(jobs.REQUEST)
        or _image(wanted) != _image(found)
    )


def _image(item: Object) -> Any:
    containers = item["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    return containers[0]["image"]
