"""The ring of events and its followers."""

import asyncio

from qswitch.controller.events import EventLog
from qswitch.controller.model import Event


async def collect(log: EventLog, follow: bool = False, count: int | None = None) -> list[Event]:
    found: list[Event] = []
    async for event in log.read(follow):
        found.append(event)
        if len(found) == count:
            break
    return found


async def test_numbers_rise_and_the_oldest_go() -> None:
    log = EventLog(remembered=3)
    for number in range(5):
        log.add("link_up", str(number))
    assert [(one.seq, one.message) for one in await collect(log)] == [(3, "2"), (4, "3"), (5, "4")]


async def test_a_follower_gets_what_comes() -> None:
    log = EventLog()
    log.add("link_up", "before")
    follower = asyncio.create_task(collect(log, follow=True, count=3))
    await asyncio.sleep(0)
    log.add("link_down", "after")
    await asyncio.sleep(0)
    log.add("link_up", "later")
    async with asyncio.timeout(2):
        assert [one.message for one in await follower] == ["before", "after", "later"]
