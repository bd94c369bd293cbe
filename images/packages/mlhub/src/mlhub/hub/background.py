"""What goes on in the hub's event loop from its start to its end."""

import asyncio


class Background:
    """A task that ends with the hub; `_run` is what it does."""

    _task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        raise NotImplementedError
