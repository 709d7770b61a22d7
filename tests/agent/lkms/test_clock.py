"""Wall clocks that jump: no key is erased or kept by it, none comes back."""

import asyncio
import time

import pytest
from key_managers import Net, Node, link_id, until

from qswitch.agent.errors import InvalidValue
from qswitch.agent.lkms.clock import Clock
from qswitch.agent.lkms.manager import StreamConfig
from qswitch.agent.model import KeyStreamId

KSID = KeyStreamId("99999999-0000-4000-8000-000000000001")
LINK = link_id(1)
DECADE = 10 * 365 * 86400.0


class Wall:
    """The wall clock of the process, set at will."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead, real = 0.0, time.time
        monkeypatch.setattr(time, "time", lambda: real() + self.ahead)


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    return Wall(monkeypatch)


async def streaming(net: Net, ttl: int) -> tuple[Node, Node]:
    a, b = await net.node("a"), await net.node("b")
    await net.feed(await net.fibre(1, "a", "b"), "a", "b", 8)
    for here, there in ((a, b), (b, a)):
        await here.configure_stream(StreamConfig(KSID, there.id, (LINK,), 32, ttl_seconds=ttl))
        await here.keys.attach(KSID)
    return a, b


async def read(node: Node, index: int) -> tuple[bytes, int]:
    async with asyncio.timeout(10):
        chunk = await node.keys.get_chunk(KSID, index)
    return bytes(chunk.key.view()), chunk.age_ms


def test_a_clock_is_steady_and_never_before_what_is_stored(wall: Wall) -> None:
    clock = Clock()
    began = clock.now()
    wall.ahead = -DECADE
    assert 0 <= clock.now() - began < 5
    clock.not_before(began - 100)
    assert 0 <= clock.now() - began < 5
    clock.not_before(began + DECADE)
    assert 0 <= clock.now() - began - DECADE < 5
    assert abs(Clock().now() - began + DECADE) < 5, "a new process believes the wall clock"


@pytest.mark.parametrize("jump", [DECADE, -DECADE])
async def test_a_clock_that_is_set_erases_nothing_and_ages_nothing(net: Net, wall: Wall, jump: float) -> None:
    a, b = await streaming(net, 3600)
    first = await read(a, 0)
    wall.ahead = jump
    for node in (a, b):
        node.keys._expire()
    assert (await read(b, 0))[0] == first[0]
    for index in range(1, 100):  # what was there before the jump, and what came after
        one, other = await read(a, index), await read(b, index)
        assert one[0] == other[0] and max(one[1], other[1]) < 60_000


@pytest.mark.parametrize("jump", [DECADE, -DECADE])
async def test_time_to_live_ends_at_its_time_whatever_the_wall_clock_says(net: Net, wall: Wall, jump: float) -> None:
    a, b = await streaming(net, 1)
    await read(a, 0)
    wall.ahead = jump
    for node in (a, b):
        await until(lambda node=node: not node.keys._streams[KSID].chunks)  # type: ignore[misc]
    with pytest.raises(InvalidValue):
        await read(b, 3)


async def test_a_clock_set_back_while_the_node_is_down_makes_no_key_younger(net: Net, wall: Wall) -> None:
    a, b = await streaming(net, 2)
    first = await read(a, 0)
    await until(lambda: len(a.keys._streams[KSID].chunks) > 60)
    await a.keys.stop()
    wall.ahead = -DECADE
    await a.restart()
    assert (await read(a, 1))[1] >= 0
    assert (await read(b, 0))[0] == first[0]
    await until(lambda: not a.keys._streams[KSID].chunks)  # within TTL of the restart, not in ten years
    wall.ahead = 0.0
    await a.keys.stop()
    await a.restart()
    with pytest.raises(InvalidValue):  # what was erased does not come back
        await read(a, 5)


async def test_a_clock_set_ahead_while_the_node_is_down_is_a_long_rest(net: Net, wall: Wall) -> None:
    """The end that rested erases what is beyond TTL; blocks have none, and new key flows at once."""
    a, b = await streaming(net, 3600)
    await read(a, 0)
    await until(lambda: len(a.keys._streams[KSID].chunks) > 60)
    await a.keys.stop()
    wall.ahead = DECADE
    await a.restart()
    held = a.keys.levels(LINK).stored_bits
    await until(lambda: 1 not in a.keys._streams[KSID].chunks)
    assert held > 0
    last = a.keys._streams[KSID].progress.next_index
    assert (await read(a, last + 5))[0] == (await read(b, last + 5))[0]
