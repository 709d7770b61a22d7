"""Pushes what the node is to the operational datastore: soon after a change, and about once a second."""

import asyncio
from collections.abc import Awaitable, Callable

from .model import NodeState

PERIOD_SECONDS = 1.0
# What changes together is pushed together; a burst of changes costs one push.
GATHER_SECONDS = 0.1


class Pusher:
    """`changed` wakes it; `refresh` samples, `state` assembles, `push` writes. One push at a time."""

    def __init__(
        self,
        refresh: Callable[[], None],
        state: Callable[[], NodeState],
        push: Callable[[NodeState], Awaitable[None]],
    ) -> None:
        self._refresh, self._state, self._push = refresh, state, push
        self._wake = asyncio.Event()

    def changed(self) -> None:
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        refreshed = loop.time()
        while True:
            self._wake.clear()
            await self._push(self._state())
            await self._pause(refreshed + PERIOD_SECONDS - loop.time())
            if loop.time() >= refreshed + PERIOD_SECONDS:
                refreshed = loop.time()
                self._refresh()

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self._wake.wait()
        except TimeoutError:
            return
        await asyncio.sleep(GATHER_SECONDS)
