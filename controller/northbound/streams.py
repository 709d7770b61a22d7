"""Events as newline-delimited JSON (application/x-ndjson), kept alive by blank lines."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress

from ..model import Event, to_json

MEDIA_TYPE = "application/x-ndjson"
# A reader that hears nothing for three of these may take the controller for gone.
HEARTBEAT_SECONDS = 15.0
_HEARTBEAT = b"\n"


async def ndjson(events: AsyncIterator[Event], after: int, heartbeat_seconds: float) -> AsyncIterator[bytes]:
    """One line for each event with a `seq` above `after`, as it comes; an empty one whenever none came for a while.

    Ends with the events, and closes them when the reader goes.
    """
    coming: asyncio.Task[Event | None] | None = None
    try:
        while True:
            # A task, so that a heartbeat does not cancel (and so end) the iterator that is waited for.
            coming = coming or asyncio.create_task(_next(events))
            done, _ = await asyncio.wait((coming,), timeout=heartbeat_seconds)
            if not done:
                yield _HEARTBEAT
                continue
            event, coming = coming.result(), None
            if event is None:
                return
            if event.seq > after:
                yield line(event)
    finally:
        await _close(events, coming)


def line(event: Event) -> bytes:
    return json.dumps(to_json(event), ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


async def _next(events: AsyncIterator[Event]) -> Event | None:
    """None at the end: a task cannot hand on StopAsyncIteration."""
    return await anext(events, None)


async def _close(events: AsyncIterator[Event], coming: asyncio.Task[Event | None] | None) -> None:
    if coming is not None:
        coming.cancel()
        with suppress(asyncio.CancelledError):
            await coming
    if isinstance(events, AsyncGenerator):
        await events.aclose()
