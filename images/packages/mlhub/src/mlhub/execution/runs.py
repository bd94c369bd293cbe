"""What a run goes through: accepted, admitted, made into a Job, watched to its end.

The order is what makes it safe to die anywhere: a run is written down before its Job is made, and
the Job bears its id. Written and without a Job, it is `lost` after half a minute; a Job that nobody
wrote down is written down again from its annotation.
"""

import asyncio
import hashlib
import json
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any, TypeVar

import httpx
import sqlalchemy as sa

from mlhub.execution import jobs, metrics, outcome
from mlhub.execution.admission import Admission, AdmissionRequest, AdmissionSilentError, Decision
from mlhub.execution.cluster import Cluster, ClusterError, Object
from mlhub.execution.identity import Caller
from mlhub.execution.leases import renewed
from mlhub.execution.mlflow import Mlflow
from mlhub.execution.problems import Problem
from mlhub.execution.settings import Profile, Settings
from mlhub.execution.store import ASKS, LOG_CHARACTERS, KeyTakenError, Run, Store, adopted

log = logging.getLogger("mlhub.execution")
T = TypeVar("T")

STAMP = "%Y%m%d_%H%M%S"
LEASE_WAIT_SECONDS = 40
PROGRESS_SECONDS = 1
END_SECONDS = 15
"""For what has begun when the service ends; less than what its pod is given (components)."""


def output_of(notebook: str, now: float) -> str:
    """`<name>_output_YYYYMMDD_HHMMSS.ipynb` beside the notebook; UTC."""
    path = PurePosixPath(notebook)
    stamp = datetime.fromtimestamp(now, UTC).strftime(STAMP)
    return str(path.with_name(f"{path.stem}_output_{stamp}.ipynb"))


class Runs:
    """The service without HTTP."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        cluster: Cluster,
        admission: Admission,
        clock: Callable[[], float] = time.time,
    ):
        self.settings, self.store, self.cluster = settings, store, cluster
        self.clock = clock
        self.mlflow = Mlflow(settings.pod.environment.get(jobs.TRACKING_URI, ""))
        self._admission = admission
        self._holder = secrets.token_hex(8)
        self._looked: dict[str, float] = {}
        self._starting: set[asyncio.Task[Run]] = set()

    async def db(self, call: Callable[..., T], *given: Any, **named: Any) -> T:
        """A call of the store's; raises Problem (503) where the database is silent."""
        try:
            return await asyncio.to_thread(call, *given, **named)
        except (sa.exc.OperationalError, sa.exc.TimeoutError, sa.exc.InterfaceError) as error:
            log.error("The database does not answer: %s", type(error).__name__)
            raise Problem(
                503,
                "database",
                "The service's database does not answer. Try again in a minute; a run that was "
                "accepted goes on.",
                headers={"Retry-After": "10"},
            ) from error

    @asynccontextmanager
    async def lease(self, name: str) -> AsyncIterator[None]:
        """Alone with `name` among all replicas, for as long as it takes; raises Problem (503) after
        LEASE_WAIT_SECONDS."""
        holder = f"{self._holder}-{secrets.token_hex(4)}"
        deadline = time.monotonic() + LEASE_WAIT_SECONDS
        pause = 0.02
        while not await self.db(self.store.take_lease, name, holder, self.clock()):
            if time.monotonic() > deadline:
                raise Problem(
                    503, "busy", "Too much is asked for this person at once. Try again in a minute."
                )
            await asyncio.sleep(pause)
            pause = min(0.3, pause * 1.5)
        try:
            async with renewed(lambda: self.db(self.store.renew_leases, holder, self.clock())):
                yield
        finally:
            await asyncio.shield(self.db(self.store.end_lease, name, holder))

    # A run begins

    async def submit(
        self,
        caller: Caller,
        *,
        user: str,
        notebook: str,
        output: str | None,
        parameters: dict[str, Any],
        how: Mapping[str, Any],
        key: str | None,
        origin: str | None = None,
    ) -> Run:
        """A new run, or the one that the caller's key already made; raises Problem.

        Whoever asked may leave, or the service end: what has begun comes to its end, for half of it
        would be a run that never starts."""
        fingerprint = fingerprint_of(user, notebook, output, parameters, dict(how))
        if known := await self.replayed(caller, key, fingerprint):
            return known

        def new() -> Run:
            # Its age begins here: it may have waited longer for the lease than a run may be
            # without a Job. In whole microseconds, as the API tells it, so that a page of runs
            # begins where one ended.
            now = datetime.fromtimestamp(self.clock(), UTC).timestamp()
            run = self._new_run(
                caller,
                now,
                user=user,
                notebook=notebook,
                output=output,
                parameters=parameters,
                how=how,
            )
            return replace(run, idempotency_key=key, fingerprint=fingerprint, origin=origin)

        starting = asyncio.create_task(self._start(caller, user, key, fingerprint, new))
        self._starting.add(starting)
        starting.add_done_callback(self._started)
        return await asyncio.shield(starting)

    def _started(self, starting: "asyncio.Task[Run]") -> None:
        self._starting.discard(starting)
        if not starting.cancelled():
            starting.exception()  # is whoever's who asked; nobody may be there any more

    async def end_starts(self) -> None:
        """Until what has begun has ended, or END_SECONDS."""
        if self._starting:
            await asyncio.wait(self._starting, timeout=END_SECONDS)

    async def _start(
        self, caller: Caller, user: str, key: str | None, fingerprint: str, new: Callable[[], Run]
    ) -> Run:
        async with self.lease(f"user:{user}"):
            if known := await self.replayed(caller, key, fingerprint):
                return known
            run = new()
            await self._has_home(user)
            await self._take_slot(run)
            decision = await self._admit(run)
            try:
                token = await self._token(run, decision)
                await self.db(self.store.add, run)
            except KeyTakenError:
                # The same caller's key for another person, at the same moment.
                if known := await self.replayed(caller, key, fingerprint):
                    return known
                raise
            await self._make_job(run, decision, token)
        return run

    async def _take_slot(self, run: Run) -> None:
        """Raises Problem (429). A sweep's runs leave one slot of each minute to the person."""
        most = self.settings.limits.per_minute
        if (run.origin or "").startswith("sweep/"):
            most = max(1, most - 1)
        wait = await self.db(self.store.take_slot, run.user, most, run.created)
        if wait:
            raise Problem(
                429,
                "rate",
                f"At most {most} runs start for one person in a minute, of at most {most * ASKS} "
                f"that are asked for; the next one can in {wait:.0f} s.",
                headers={"Retry-After": str(int(wait) + 1)},
            )

    async def replayed(self, caller: Caller, key: str | None, fingerprint: str) -> Run | None:
        """The run of an idempotency key; raises Problem where it was for something else."""
        if key is None:
            return None
        run = await self.db(self.store.by_key, caller.name, key)
        if run and run.fingerprint != fingerprint:
            raise Problem(
                422,
                "key-reused",
                "The Idempotency-Key was sent before with another request; send a new one.",
                run_id=run.id,
            )
        return run

    def _new_run(
        self,
        caller: Caller,
        now: float,
        *,
        user: str,
        notebook: str,
        output: str | None,
        parameters: dict[str, Any],
        how: Mapping[str, Any],
    ) -> Run:
        profile, time_limit = self.settled(how)
        if output == notebook:
            raise Problem(
                422, "output", "output_path is input_path; the original is never changed."
            )
        run = Run(
            id=secrets.token_hex(8),
            user=user,
            caller=caller.name,
            notebook=notebook,
            output=output or output_of(notebook, now),
            replace=output is not None,
            parameters=parameters,
            profile=profile.slug,
            time_limit=time_limit,
            cell_timeout=how.get("cell_timeout"),
            created=now,
            workspace=how.get("workspace"),
        )
        if not jobs.tellable(run):
            raise Problem(
                413,
                "too-large",
                f"The parameters have more than {jobs.LARGEST_VARIABLE >> 10} KiB as the runner is "
                "told them, six bytes for '$' and each character that is not ASCII; put data into "
                "a file in the home and give its path as a parameter.",
            )
        return run

    def settled(self, how: Mapping[str, Any]) -> tuple[Profile, int]:
        """The profile and the time limit that were asked for, or the defaults; raises Problem."""
        limits = self.settings.limits
        profile = self.settings.profile(asked := how.get("profile"))
        if profile is None:
            there = ", ".join(p.slug for p in self.settings.profiles)
            raise Problem(
                422,
                "profile",
                f"There is no profile {asked!r}. There are: {there}; a group's is for its members.",
            )
        longest = limits.longest_run_seconds
        time_limit = how.get("time_limit") or min(limits.run_seconds, longest)
        if time_limit > longest:
            raise Problem(
                422, "time-limit", f"time_limit is more than {longest} s, the longest of a run."
            )
        return profile, time_limit

    async def _has_home(self, user: str) -> None:
        try:
            there = await self.cluster.has_claim(jobs.claim_name(self.settings.pod, user))
        except ClusterError as error:
            raise silent_cluster(error) from error
        if not there:
            raise Problem(
                404,
                "no-home",
                "The person has no home here yet; it is made when their server first starts.",
            )

    async def _admit(self, run: Run) -> Decision:
        profile = self.settings.profile(run.profile)
        assert profile is not None  # noqa: S101 (checked in _new_run)
        asked = AdmissionRequest(
            user=run.user,
            run_id=run.id,
            profile=profile.slug,
            cpu=profile.cpu_limit,
            memory=profile.mem_limit,
            gpu=profile.gpus,
            workspace=run.workspace,
        )
        try:
            decision = await self._admission.decide(asked)
        except AdmissionSilentError as error:
            raise await self._silent_hub(run, error) from error
        if not decision.allowed:
            # As soon as there is room, the person's next try is to start.
            await self.db(self.store.give_back_slot, run.user, run.created)
            more = {"quota": dict(decision.details)} if decision.kind == "quota" else {}
            raise Problem(decision.status, decision.kind, decision.reason, **more)
        return decision

    async def _token(self, run: Run, decision: Decision) -> str | None:
        """What the run tells MLflow its person by, for as long as it may run; raises Problem."""
        if not self.settings.tracked:
            return None
        limits = self.settings.limits
        seconds = limits.start_seconds + run.time_limit + outcome.SLACK_SECONDS
        try:
            return await self._admission.token(run.user, run.id, seconds)
        except AdmissionSilentError as error:
            await self._admission.release(decision.reservation)
            raise await self._silent_hub(run, error) from error

    async def _silent_hub(self, run: Run, error: AdmissionSilentError) -> Problem:
        log.error("The hub is silent: %s", error)
        await self.db(self.store.give_back_slot, run.user, run.created)
        return Problem(
            503,
            "admission",
            "The hub, which knows whether there is room, does not answer. Try again in a minute.",
            headers={"Retry-After": "10"},
        )

    async def _make_job(self, run: Run, decision: Decision, token: str | None) -> None:
        """Raises Problem; then no Job is left, or one that never starts and that the reconciler
        deletes."""
        body = jobs.run_job(
            self.settings,
            run,
            labels=decision.labels,
            annotations=decision.annotations,
            role=decision.role,
            with_token=token is not None,
        )
        try:
            made = await self.cluster.create_job(body)
            if token is not None:
                owner = made["metadata"]["uid"]
                secret = jobs.token_secret(self.settings.pod, run.id, token, owner)
                await self.cluster.create_secret(secret)
        except ClusterError as error:
            raise await self._not_made(run, decision, error) from error
        try:
            await self.cluster.start_job(jobs.job_name(run.id))
        except ClusterError as error:
            if error.refused:
                raise await self._not_made(run, decision, error) from error
            # It may have begun, so nothing may begin in its stead; the next looks tell.
            log.error("Whether run %s has begun is not known yet: %s", run.id, error)

    async def _not_made(self, run: Run, decision: Decision, error: ClusterError) -> Problem:
        """End a run of which nothing ran; what its caller is told."""
        log.error("No Job for run %s: %s", run.id, error)
        await self._admission.release(decision.reservation)
        await self._admission.revoke(run.id)
        values: dict[str, Any] = {"status": "failed", "finished": self.clock()}
        if error.refused:
            await self._drop_job(run)
            values |= {"reason": "refused", "message": error.message}
            problem = Problem(
                503,
                "refused",
                "Kubernetes refuses the run's Job; tell an administrator.",
                run_id=run.id,
            )
        else:
            # A Job that comes yet is suspended and nobody starts it, so the same request, with the
            # same key, may be sent again.
            message = "Kubernetes was silent while the run's Job was made; nothing of it ran."
            values |= {"reason": "not-started", "message": message, "idempotency_key": None}
            await self.db(self.store.give_back_slot, run.user, run.created)
            problem = silent_cluster(error, run.id)
        if await self.db(self.store.change, run.id, **values):
            metrics.changed(run, "failed", None, values["finished"])
        return problem

    async def _drop_job(self, run: Run) -> None:
        """One that was made and whose Secret was refused; otherwise the reconciler does."""
        try:
            await self.cluster.delete_job(jobs.job_name(run.id))
        except ClusterError as error:
            log.warning("The Job of %s waits for its end: %s", run.id, error)

    # A run goes on

    async def visible(self, caller: Caller, run_id: str) -> Run:
        """Raises Problem: another's run is as good as none."""
        run = await self.db(self.store.get, run_id)
        if run is None or not caller.may_act_for(run.user):
            raise Problem(404, "no-run", "There is no such run of yours; GET /runs lists them.")
        return run

    async def look(self, run: Run) -> Run:
        """The run as the cluster knows it now; as last known where the cluster is silent."""
        if not run.active:
            return run
        try:
            job = await self.cluster.job(jobs.job_name(run.id))
            # A cancelled run's pod outlives its Job for moments, and still says what it printed.
            pod = await self.pod_of(run)
            await self.apply(run, job, pod)
        except ClusterError:
            return run
        return await self._again(run)

    async def collect(self, run: Run) -> None:
        """Give a killed run's partial notebook its name, and find a cancelled one's, by a pod of
        the person's: asked for here again and again until that pod has said what it found; raises
        ClusterError."""
        name = jobs.collect_name(run.id)
        job = await self.cluster.job(name)
        if job is None:
            pod = await self.pod_of(run)
            if pod is None or outcome.over(pod):  # else its runner may be bringing it home
                await self.cluster.create_job(jobs.collect_job(self.settings, run))
            return
        if not outcome.finished(job):
            return
        pods = await self.cluster.pods(f"job-name={name}")
        said = await self._last_words(pods[0]) if pods else ""
        values = outcome.collected(said, run)
        await self.db(self.store.settle_collected, run.id, **values)
        await self.cluster.delete_job(name)

    async def close_mlflow(self, run: Run) -> None:
        """End the MLflow run of a run whose pod could not; raises AdmissionSilentError and
        httpx.HTTPError."""
        token = await self._admission.token(run.user, f"{run.id}-end", 60)
        found = await self.mlflow.end(run, token) if token else None
        await self._admission.revoke(f"{run.id}-end")
        await self.db(self.store.settle_mlflow, run.id, found)

    async def _again(self, run: Run) -> Run:
        found: Run | None = await self.db(self.store.get, run.id)
        return found or run

    async def pod_of(self, run: Run) -> Object | None:
        found = await self.cluster.pods(f"{jobs.RUN}={run.id}")
        return found[0] if found else None

    async def apply(self, run: Run, job: Object | None, pod: Object | None) -> None:
        """Write down what Job and pod say; raises ClusterError where a Job cannot be ended."""
        change = outcome.judge(run, job, pod, self.clock(), self.settings.limits)
        if change is None:
            if run.status == "running" and pod:
                await self._note_progress(run, pod)
            return
        values: dict[str, Any] = dict(change.values)
        if "finished" in values:
            if pod:
                said = await self._last_words(pod)
                values = _progress_of(said) | values | {"log": said}
            self._looked.pop(run.id, None)
            # The runner that told its MLflow run has ended it.
            values["mlflow_pending"] = self.settings.tracked and not values.get("mlflow_run_id")
            began = pod is not None or run.status == "running"
            values["collect_pending"] = values["reason"] in outcome.KILLED or (
                values["status"] == "cancelled" and began
            )
            # The pod does not know who deleted it, and mostly is gone before its words are read.
            if values["reason"] in ("pod-gone", "stopped") and (
                why := await self._admission.why_ended(run.id)
            ):
                values |= outcome.by_the_hub(why)
        if change.delete_job:
            await self.cluster.delete_job(jobs.job_name(run.id))
        changed: bool = bool(values) and await self.db(self.store.change, run.id, **values)
        if changed and "finished" in values and self.settings.tracked:
            await self._admission.revoke(run.id)
        if changed and "status" in values:
            metrics.changed(run, values["status"], values.get("started"), values.get("finished"))
            log.info(
                "run %s of %s: %s %s",
                run.id,
                run.user,
                values["status"],
                values.get("reason") or "",
            )

    async def _note_progress(self, run: Run, pod: Object) -> None:
        now = time.monotonic()
        if now - self._looked.get(run.id, float("-inf")) < PROGRESS_SECONDS:
            return
        self._looked[run.id] = now
        values = _progress_of(await self._last_words(pod))
        if values and values["cells_done"] != run.cells_done:
            await self.db(self.store.change, run.id, **values)

    async def _last_words(self, pod: Object) -> str:
        """The log so far; empty where there is none (any more)."""
        try:
            text = await self.cluster.log(pod["metadata"]["name"], jobs.CONTAINER)
        except ClusterError:
            return ""
        return text.replace("\0", "")[:LOG_CHARACTERS]

    async def cancel(self, run: Run) -> Run:
        """Ask for the run's end, and see to it now if the cluster answers. One that has ended by
        itself, which may not be written down yet, stays as it is."""
        run = await self.look(run)
        if run.active:
            await self.db(self.store.change, run.id, cancel_requested=True)
            try:
                await self.cluster.delete_job(jobs.job_name(run.id))
            except ClusterError as error:
                log.warning("Cancelling %s waits for Kubernetes: %s", run.id, error)
        return await self.look(await self._again(run))


def _progress_of(log_text: str) -> dict[str, Any]:
    found = outcome.progress(log_text)
    return {"cells_done": found[0], "cells_total": found[1]} if found else {}


def fingerprint_of(*given: Any) -> str:
    return hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()


def silent_cluster(error: ClusterError, run_id: str | None = None) -> Problem:
    more = {"run_id": run_id} if run_id else {}
    log.error("%s", error)
    return Problem(
        503,
        "cluster",
        "The cluster does not answer. Try again in a minute.",
        headers={"Retry-After": "10"},
        **more,
    )


class Reconciler:
    """Brings the database in line with the cluster, for ever. Every replica runs one; changes are
    conditional, so that they do not get in each other's way."""

    def __init__(self, runs: Runs, looks: Sequence[Callable[[], Awaitable[None]]]):
        """`looks` is what else is looked after, each time the runs are."""
        self._runs, self._looks = runs, (self.once, *looks, self._mlflow, self._collect)

    async def forever(self) -> None:
        """Each look at its own pace: a silent hub holds up what waits for it, and no run's end."""
        await asyncio.gather(*(self._again_and_again(look) for look in self._looks))

    async def _again_and_again(self, look: Callable[[], Awaitable[None]]) -> None:
        pause = self._runs.settings.limits.reconcile_seconds
        while True:
            try:
                await look()
            except (ClusterError, Problem) as error:
                log.warning("Not reconciled: %s", error)
            except Exception:  # whatever comes, the next look is seconds away
                log.exception("Not reconciled")
            await asyncio.sleep(pause)

    async def once(self) -> None:
        runs = self._runs
        # Runs first: whoever is written down after this is not missed in the Jobs.
        active = {run.id: run for run in await runs.db(runs.store.active)}
        found = await runs.cluster.jobs(f"{jobs.KIND}=run")
        by_run = {job["metadata"]["labels"].get(jobs.RUN): job for job in found}
        pods: dict[str, Object] = {}
        if active:
            for pod in await runs.cluster.pods(f"{jobs.KIND}=run"):
                pods[pod["metadata"]["labels"].get(jobs.RUN)] = pod
        for run_id, run in active.items():
            try:
                await runs.apply(run, by_run.get(run_id), pods.get(run_id))
            except ClusterError as error:
                log.warning("Run %s waits: %s", run_id, error)
            except Problem:  # the database is silent, for all of them
                raise
            except Exception:  # one run's fault is no other's
                log.exception("Run %s is not understood", run_id)
        metrics.tell(active.values(), runs.clock())
        await self._strays({k: v for k, v in by_run.items() if k and k not in active})
        await runs.db(runs.store.forget, runs.clock() - runs.settings.limits.run_kept_days * 86400)

    async def _mlflow(self) -> None:
        """End the MLflow runs of runs that could not; for a day, then MLflow has lost them."""
        runs = self._runs
        if not runs.settings.tracked:
            return
        for run in await runs.db(runs.store.mlflow_pending, runs.clock() - 86400):
            try:
                await runs.close_mlflow(run)
            except (AdmissionSilentError, httpx.HTTPError) as error:
                log.warning("The MLflow run of %s waits: %s", run.id, type(error).__name__)
            except Problem:
                raise
            except Exception:
                log.exception("The MLflow run of %s is not ended", run.id)

    async def _collect(self) -> None:
        runs = self._runs
        for run in await runs.db(runs.store.collect_pending):
            try:
                await runs.collect(run)
            except ClusterError as error:
                log.warning("The notebook of %s waits: %s", run.id, error)
            except Problem:
                raise
            except Exception:
                log.exception("The notebook of %s is not collected", run.id)

    async def _strays(self, strays: dict[str, Object]) -> None:
        """Jobs without an active run: of one that has ended, or of one that nobody remembers."""
        runs = self._runs
        known = await runs.db(runs.store.known, list(strays))
        for run_id, job in strays.items():
            if run_id in known:
                run = await runs.db(runs.store.get, run_id)
                if run and not run.active and not outcome.finished(job):
                    await runs.cluster.delete_job(job["metadata"]["name"])
                continue
            try:
                request = json.loads(job["metadata"]["annotations"][jobs.REQUEST])
                await runs.db(runs.store.add, adopted(request))
                log.warning("run %s was known to the cluster alone; written down again", run_id)
            except (KeyError, TypeError, ValueError):
                log.error("Job %s is no run of ours", job["metadata"]["name"])
            except KeyTakenError:
                continue
