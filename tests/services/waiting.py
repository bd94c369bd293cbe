"""Waiting for what is to come."""

import asyncio
import inspect
from collections.abc import Callable
from typing import Any


async def eventually(holds: Callable[[], Any], seconds: float = 120, *, every: float = 0.05) -> Any:
    """What `holds()` gives, awaited if it has to be, once that is true. A guard alone: a busy
    machine may be slow, and what a stopped replica had a lease of is kept for half a minute."""
    async with asyncio.timeout(seconds):
        while True:
            found = holds()
            if inspect.isawaitable(found):
                found = await found
            if found:
                return found
            await asyncio.sleep(every)
