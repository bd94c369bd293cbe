"""A lease is kept for as long as it is needed, and ends by itself with the replica that has it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from mlhub.execution.problems import Problem
from mlhub.execution.store import LEASE_SECONDS

RENEW_SECONDS = LEASE_SECONDS / 3


@asynccontextmanager
async def renewed(renew: Callable[[], Awaitable[object]]) -> AsyncIterator[None]:
    """Calls `renew` every RENEW_SECONDS until the end."""
    renewing = asyncio.create_task(_forever(renew))
    try:
        yield
    finally:
        renewing.cancel()


async def _forever(renew: Callable[[], Awaitable[object]]) -> None:
    while True:
        await asyncio.sleep(RENEW_SECONDS)
        # A database that is silent for a moment is asked again before the lease ends.
        with suppress(Problem):
            await renew()
