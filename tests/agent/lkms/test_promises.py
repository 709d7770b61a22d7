"""Minima and priorities when key is scarce: as arithmetic, and between two key managers that get key slowly."""

import asyncio
from dataclasses import dataclass, field

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from key_managers import Net, Node, audit, link_id, node_id, until

from qswitch.agent.lkms.manager import DeliveryConfig, StreamConfig
from qswitch.agent.lkms.promises import BURST_SECONDS, LEAST_OCTETS, LEAST_UNITS, Promises, Terms
from qswitch.agent.model import KeyStreamId, LinkId

UNIT = 32


@dataclass
class Taker:
    """Takes of a common supply as much as it may and wants, in whole units."""

    name: str
    terms: Terms
    unit: int = UNIT
    allocated: int = 0
    wants: int = 1 << 40
    waited: int = 1 << 40  # of these

    def short(self) -> int:
        return 0

    def waits(self) -> int:
        return min(self.wants, self.waited)


@dataclass
class Link:
    """Key that comes little by little, and its consumers."""

    takers: list[Taker]
    left: int = 0
    promises: Promises = field(default_factory=Promises)

    def allocate(self, one: Taker, most: int | None, ahead: bool) -> None:
        octets = min(self.left, one.wants if ahead else one.waits(), self.left if most is None else most)
        octets -= octets % one.unit
        self.left -= octets
        one.wants -= octets
        one.waited -= min(one.waited, octets)
        one.allocated += octets

    def run(self, octets_per_second: int, seconds: int, steps: int = 20) -> None:
        for step in range(seconds * steps):
            self.left += octets_per_second * (step + 1) // steps - octets_per_second * step // steps
            self.promises.serve(self.takers, (), step / steps, self.allocate, lambda _one, _octets: None)
            assert self.left < UNIT or not any(one.wants for one in self.takers), "key lies idle"


rates = st.integers(0, 4000)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(rates, st.integers(0, 3)), min_size=1, max_size=5), st.integers(0, 2000))
def test_minima_are_held_while_they_are_no_more_than_what_comes(terms: list[tuple[int, int]], spare: int) -> None:
    takers = [Taker(f"taker {n}", Terms(8 * rate, priority)) for n, (rate, priority) in enumerate(terms)]
    Link(takers).run(sum(rate for rate, _ in terms) + spare, 10)
    for one, (rate, _) in zip(takers, terms, strict=True):
        slack = max(rate * BURST_SECONDS, LEAST_UNITS * UNIT, LEAST_OCTETS) + len(takers) * UNIT
        assert one.allocated >= 10 * rate - slack, f"{one.name} has not had its minimum"


def test_what_is_left_goes_by_priority_and_in_equal_parts_among_equals() -> None:
    high, low, two, promised = (
        Taker("high", Terms(0, 9), wants=10_000),
        Taker("low", Terms(0, 1)),
        Taker("two", Terms(0, 1)),
        Taker("promised", Terms(8 * 500, 0)),
    )
    link = Link([high, low, two, promised])
    link.run(2000, 10)
    assert high.allocated == 10_000 - 10_000 % UNIT
    assert 4000 <= promised.allocated <= 5500
    assert abs(low.allocated - two.allocated) < 0.2 * low.allocated > 0


def test_who_waits_is_served_before_who_is_more_important_and_puts_by() -> None:
    puts_by, waits = Taker("puts by", Terms(0, 9), waited=2 * UNIT), Taker("waits", Terms(0, 1), wants=3 * UNIT)
    link = Link([puts_by, waits], left=4 * UNIT)
    link.promises.serve(link.takers, (), 0.0, link.allocate, lambda _one, _octets: None)
    assert (puts_by.allocated, waits.allocated) == (2 * UNIT, 2 * UNIT)
    link.left = 4 * UNIT
    link.promises.serve(link.takers, (), 0.0, link.allocate, lambda _one, _octets: None)
    assert (puts_by.allocated, waits.allocated) == (5 * UNIT, 3 * UNIT)


def test_credit_is_bounded_and_ends_with_its_consumer() -> None:
    one = Taker("one", Terms(8000, 0), wants=0)
    link = Link([one])
    link.run(0, 60)
    assert link.promises.accounts["one"].credit == LEAST_OCTETS
    link.takers.clear()
    link.run(0, 1)
    assert not link.promises.accounts


# Key managers ----------------------------------------------------------------------------------------------------------

NAMES = {"gold": Terms(0, 5), "plain": Terms(0, 0), "sure": Terms(8 * 1024, 0)}


def ksid(number: int) -> KeyStreamId:
    return KeyStreamId(f"99999999-0000-4000-8000-{number:012d}")


async def reads(one: Node, other: Node, stream: KeyStreamId, had: list[int]) -> None:
    """Both ends, one chunk after the other, as fast as key comes."""
    while True:
        ones, others = await one.keys.get_chunk(stream, None), await other.keys.get_chunk(stream, None)
        assert ones.key == others.key
        had.append(len(ones.key))


async def test_two_nodes_keep_minima_and_priorities_of_streams_on_a_slow_link(net: Net) -> None:
    a, b = await net.node("a"), await net.node("b")
    link = await net.fibre(1, "a", "b")
    await net.feed(link, "a", "b", 4)
    streams = {name: ksid(number) for number, name in enumerate(NAMES, 1)}
    for name, terms in NAMES.items():
        for here, there in ((a, b), (b, a)):
            await here.configure_stream(StreamConfig(streams[name], there.id, (link,), 256, terms=terms))
            await here.keys.attach(streams[name])
    had: dict[str, list[int]] = {name: [] for name in NAMES}
    tasks = [asyncio.create_task(reads(a, b, streams[name], had[name])) for name in NAMES]
    await until(lambda: a.keys.levels(link).usable_bits < 8 * 4096)  # a reserve, and the last block of b
    before = {name: sum(octets) for name, octets in had.items()}
    for _ in range(12):  # four kilooctets in each quarter of a second: 16 KiB/s, of which 1 KiB/s are promised
        await net.feed(link, "a", "b", 1)
        await asyncio.sleep(0.25)
    got = {name: sum(octets) - before[name] for name, octets in had.items()}
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert got["sure"] >= 1024, got
    assert got["gold"] > 4 * got["plain"], got
    assert got["gold"] + got["plain"] + got["sure"] > 10 * 4096 * 0.6, got
    audit(net, link)


async def test_an_important_association_gets_its_keys_before_a_stream_that_takes_all(net: Net) -> None:
    a, b = await net.node("a"), await net.node("b")
    link = await net.fibre(1, "a", "b")
    await net.feed(link, "a", "b", 4)
    for here, there in ((a, b), (b, a)):
        await here.configure_stream(StreamConfig(ksid(1), there.id, (link,), 256))
        await here.keys.attach(ksid(1))
        await here.configure_delivery(DeliveryConfig(ksid(2), node_id(there.name), (link,), terms=Terms(0, 3)))
    had: list[int] = []
    reading = asyncio.create_task(reads(a, b, ksid(1), had))
    await until(lambda: a.keys.levels(link).usable_bits < 8 * 4096)  # a reserve, and the last block of b
    taking = asyncio.create_task(a.keys.take_keys(ksid(2), 60, 32))
    await asyncio.sleep(0)
    await net.feed(link, "a", "b", 2)
    async with asyncio.timeout(5):
        assert len(await taking) == 60
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    audit(net, link)


async def test_the_bandwidth_of_a_virtual_link_is_held_beside_a_stream_that_takes_all(net: Net) -> None:
    """On the fibre a – b, whose key a stream would use up, pads for the link a – c come first, as far as was promised."""
    for name in "abc":
        await net.node(name)
    a, b, c = net.nodes.values()
    fibre = await net.fibre(1, "a", "b")
    await net.feed(fibre, "a", "b", 4)
    await net.feed(await net.fibre(2, "b", "c"), "b", "c", 60)
    for here, there in ((a, b), (b, a)):
        await here.configure_stream(StreamConfig(ksid(1), there.id, (fibre,), 256))
        await here.keys.attach(ksid(1))
    reading = asyncio.create_task(reads(a, b, ksid(1), []))
    await until(lambda: a.keys.levels(fibre).usable_bits < 8 * 4096)
    await net.route(9, "a", "b", "c", bandwidth_bps=8 * 8192)
    for _ in range(20):
        await net.feed(fibre, "a", "b", 1)
        await asyncio.sleep(0.1)
    assert c.keys.levels(link_id(9)).generated_bits >= 8 * 4096 * 2
    reading.cancel()
    await asyncio.wait([reading])
    audit(net, fibre, link_id(2), link_id(9))


# Both ends ---------------------------------------------------------------------------------------------------------------


@dataclass
class Rivals:
    """On one link, a key stream, for which a allocates, and keys with ids, which b is master of; both take all they get."""

    net: Net
    link: LinkId
    stream: Terms
    pair: Terms

    async def got(self, feeds: int, seconds: float) -> tuple[int, int]:
        """The octets that stream and pair have had, after so many blocks, one by one."""
        a, b = self.net.nodes["a"], self.net.nodes["b"]
        for here, there in ((a, b), (b, a)):
            await here.configure_stream(StreamConfig(ksid(1), there.id, (self.link,), 256, terms=self.stream))
            await here.keys.attach(ksid(1))
            await here.configure_delivery(DeliveryConfig(ksid(2), there.id, (self.link,), limit=100_000, terms=self.pair))
        chunks, keys = list[int](), list[int]()
        tasks = [asyncio.create_task(reads(a, b, ksid(1), chunks)), *(asyncio.create_task(takes(b, keys)) for _ in range(4))]
        await until(lambda: max(one.keys.levels(self.link).usable_bits for one in (a, b)) < 8 * 2 * 4096)
        had = sum(chunks), sum(keys)
        for _ in range(feeds):
            await self.net.feed(self.link, "a", "b", 1)
            await asyncio.sleep(seconds)
        got = sum(chunks) - had[0], sum(keys) - had[1]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert sum(got) > 0.6 * 4096 * feeds, f"key lies idle: {got}"
        audit(self.net, self.link)
        return got


async def takes(one: Node, had: list[int]) -> None:
    while True:
        for key in (await one.keys.take_keys(ksid(2), 64, 32)).values():
            had.append(len(key))
            key.wipe()


@pytest.fixture
async def fibre(net: Net) -> LinkId:
    await net.node("a")
    await net.node("b")
    link = await net.fibre(1, "a", "b")
    await net.feed(link, "a", "b", 6)
    return link


@pytest.mark.parametrize("promised", ["stream", "pair"])
async def test_a_minimum_beyond_the_half_that_an_end_owns_is_held_with_what_the_other_gives(
    net: Net, fibre: LinkId, promised: str
) -> None:
    """40 KiB/s come, 28 KiB/s are promised to what one end allocates for."""
    sure, rest = Terms(8 * 28 * 1024, 0), Terms(0, 0)
    rivals = Rivals(net, fibre, sure, rest) if promised == "stream" else Rivals(net, fibre, rest, sure)
    stream, pair = await rivals.got(40, 0.1)
    assert (stream if promised == "stream" else pair) > 2 * (pair if promised == "stream" else stream), (stream, pair)
    assert min(stream, pair) > 0, "what is not promised is for the other"


@pytest.mark.parametrize("important", ["stream", "pair"])
async def test_priority_holds_among_consumers_of_both_ends(net: Net, fibre: LinkId, important: str) -> None:
    high, low = Terms(0, 7), Terms(0, 1)
    rivals = Rivals(net, fibre, high, low) if important == "stream" else Rivals(net, fibre, low, high)
    stream, pair = await rivals.got(40, 0.05)
    assert (stream if important == "stream" else pair) > 3 * (pair if important == "stream" else stream), (stream, pair)


async def test_equals_at_both_ends_get_equal_parts(net: Net, fibre: LinkId) -> None:
    stream, pair = await Rivals(net, fibre, Terms(), Terms()).got(40, 0.05)
    assert 0.5 < stream / pair < 2, (stream, pair)
