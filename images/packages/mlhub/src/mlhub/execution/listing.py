"""Which notebooks a person has. Only a pod of theirs may look into their home.

So a short Job of theirs does, and what it says counts for seconds, for all replicas. The other way,
through their running server, would need a token for everybody's servers: far more than to look.
"""

import asyncio
import json
import secrets
import time
from typing import Any

from mlhub.execution import inputs, jobs, outcome
from mlhub.execution.cluster import ClusterError
from mlhub.execution.problems import Problem
from mlhub.execution.runs import Runs, silent_cluster

POLL_SECONDS = 0.5
MOST_MATCHES = 20
LISTING_BYTES = 4 * 2**20
"""Of a listing, which has at most 5000 lines (`notebooks.jobs.listing`)."""


class Listings:
    def __init__(self, runs: Runs, wait_seconds: float = jobs.LISTING_SECONDS):
        self._runs, self._wait = runs, wait_seconds

    async def of(self, user: str, *, since: float | None = None) -> tuple[float, list[Any]]:
        """When it was taken, and the notebooks; raises Problem. `since` asks for a newer one."""
        runs = self._runs
        asked = runs.clock()
        oldest = asked - runs.settings.limits.listing_seconds if since is None else since
        if found := await runs.db(runs.store.listing, user, oldest):
            return found
        async with runs.lease(f"listing:{user}"):
            # Someone may have looked while this one waited.
            if found := await runs.db(runs.store.listing, user, oldest):
                return found
            await runs._has_home(user)
            notebooks = await self._look(user)
            now = runs.clock()
            await runs.db(runs.store.keep_listing, user, notebooks, now)
            return now, notebooks

    async def find(self, user: str, name: str) -> str:
        """The path of the one notebook of that bare name; raises Problem: 404, 409."""
        asked = self._runs.clock()
        taken, notebooks = await self.of(user)
        paths = _matches(notebooks, name)
        if not paths and taken < asked:  # saved a moment ago, perhaps
            _, notebooks = await self.of(user, since=asked)
            paths = _matches(notebooks, name)
        if not paths:
            raise Problem(
                404,
                "no-notebook",
                "There is no notebook of that name in any folder of the home; "
                "GET /list-notebooks/{username} lists those that are.",
            )
        if len(paths) > 1:
            raise Problem(
                409,
                "ambiguous",
                f"{len(paths)} notebooks have that name; give the path of one, such as "
                f"./{paths[0]}.",
                matches=paths[:MOST_MATCHES],
            )
        return paths[0]

    async def _look(self, user: str) -> list[Any]:
        runs, name = self._runs, f"list-{secrets.token_hex(8)}"
        try:
            await runs.cluster.create_job(jobs.listing_job(runs.settings, user, name))
            try:
                said = await self._said(name)
            finally:
                await asyncio.shield(runs.cluster.delete_job(name))
        except ClusterError as error:
            raise silent_cluster(error) from error
        if said is not None and _too_many(said):
            raise Problem(
                409,
                "too-many-notebooks",
                "The home has more notebooks than are listed, which is 5000 or 4 MiB of their "
                "paths; give the notebook's path, such as ./work/report.ipynb.",
            )
        notebooks = _parsed(said) if said is not None else None
        if notebooks is None:
            raise Problem(
                504,
                "listing",
                f"The home was not read within {self._wait:.0f} s: the cluster may have no room "
                "for a small pod, or the home's volume is in use elsewhere. Try again, or give the "
                "notebook's path.",
            )
        return notebooks

    async def _said(self, name: str) -> str | None:
        """The log of the Job's pod once it has ended, or None."""
        deadline = time.monotonic() + self._wait
        while time.monotonic() < deadline:
            found = await self._runs.cluster.pods(f"job-name={name}")
            if found and outcome.over(found[0]):
                return await self._runs.cluster.log(
                    found[0]["metadata"]["name"], jobs.CONTAINER, LISTING_BYTES
                )
            job = await self._runs.cluster.job(name)
            if job is None or (outcome.finished(job) and not found):
                return None
            await asyncio.sleep(POLL_SECONDS)
        return None


def _too_many(said: str) -> bool:
    """Whether the pod left some out, or its words were cut."""
    return said.endswith(', "more": true}\n') or len(said.encode()) >= LISTING_BYTES


def _parsed(said: str) -> list[dict[str, Any]] | None:
    """The listing's lines, whole and of the right kind; it comes from a pod of the person's."""
    try:
        *found, last = [json.loads(line) for line in said.splitlines()]
        if last != {"count": len(found)}:
            return None
        return [
            {
                "path": inputs.notebook_path(str(item["path"])),
                "size": int(item["size"]),
                "modified": str(item["modified"])[:40],
            }
            for item in found
            if runnable(str(item["path"]))
        ]
    except (ValueError, KeyError, TypeError):
        return None


def runnable(path: str) -> bool:
    """Whether /execute would take it; a name may hold what no request may."""
    try:
        return inputs.notebook_path(path) == path
    except ValueError:
        return False


def _matches(notebooks: list[Any], name: str) -> list[str]:
    return [n["path"] for n in notebooks if n["path"].rpartition("/")[2] == name]
