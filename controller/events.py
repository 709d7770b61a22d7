"""What happened in the network, lately: a bounded ring with rising numbers, and followers of what is to come."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator
from datetime import UTC, datetime

from .model import Event, KeyStreamId, LinkId

log = logging.getLogger(__name__)

REMEMBERED = 2000


class EventLog:
    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._ring: deque[Event] = deque(maxlen=remembered)
        self._followers: set[asyncio.Event] = set()
        self._seq = 0

    def add(
        self, kind: str, message: str, node: str | None = None, link: LinkId | None = None, ksid: KeyStreamId | None = None
    ) -> None:
        """Remembers an event and wakes the followers."""
        self._seq += 1
        self._ring.append(Event(self._seq, datetime.now(UTC), node, kind, message, link, ksid))
        log.info("event seq=%d type=%s node=%s link=%s ksid=%s message=%s", self._seq, kind, node, link, ksid, message)
        for follower in self._followers:
            follower.set()

    async def read(self, follow: bool) -> AsyncIterator[Event]:
        """The remembered events; with `follow`, then those to come. A follower that falls behind the ring misses the oldest,
        which shows as a gap in `seq`."""
        seen, wake = 0, asyncio.Event()
        self._followers.add(wake)
        try:
            while True:
                wake.clear()
                for event in [one for one in self._ring if one.seq > seen]:
                    seen = event.seq
                    yield event
                if not follow:
                    return
                if self._seq == seen:
                    await wake.wait()
        finally:
            self._followers.discard(wake)
