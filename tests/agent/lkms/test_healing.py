"""What two ends may do to each other when messages, stores or time go missing, and how they come out of it.

Each case was a defect once.
"""

import asyncio
import socket
import sqlite3
from collections import deque
from contextlib import closing
from typing import Any

import pytest
from key_managers import Net, material, until

from qswitch.agent.lkms.contents import ledger
from qswitch.agent.lkms.manager import KeyManager, StreamConfig
from qswitch.agent.lkms.pool import Pool, Totals
from qswitch.agent.model import KeyStreamId, LinkId, NodeId
from qswitch.protocol.lkms import Codec, Give, Have, LinkHello, LinkSync, Lost, ProtocolError, Segment, Want

LINK = LinkId("11111111-0000-4000-8000-000000000001")
KSID = KeyStreamId("99999999-0000-4000-8000-000000000001")


class _Unwritten:
    """A journal for cases in which nothing is restarted."""

    def __getattr__(self, _name: str) -> Any:
        return lambda *_arguments: None


class Side:
    def __init__(self, name: str, other: str, capacity: int) -> None:
        self.out: deque[Any] = deque()
        peers = (NodeId(name), NodeId(other))
        self.pool = Pool(LINK, *peers, capacity, _Unwritten(), self.out.append, Totals(), reserve=0)

    def add(self, number: int, now: float = 0.0) -> None:
        self.pool.add(number, material(LINK, number, 64), now, now)
        self.out.append(Have(LINK, [(number, number)], self.pool.full))

    def hear(self, message: Any, now: float) -> None:
        match message:
            case LinkHello():
                self.pool.hello()
            case LinkSync():
                self.pool.sync(message, now)
            case Have():
                self.pool.have(message, now)
            case Lost():
                self.pool.lost(message)
            case Want():
                self.pool.wanted()
            case Give():
                self.pool.given(message)


def settle(a: Side, b: Side, now: float = 0.0) -> None:
    for source, sink in ((a, b), (b, a)) * 20:
        while source.out:
            sink.hear(source.out.popleft(), now)


def pair(capacity: int) -> tuple[Side, Side]:
    a, b = Side("a", "b", capacity), Side("b", "a", capacity)
    a.pool.meet()
    settle(a, b)
    return a, b


def both_add(a: Side, b: Side, number: int) -> None:
    a.add(number)
    b.add(number)
    settle(a, b)


def test_octets_of_an_ignored_allocation_are_not_given_away() -> None:
    a, b = pair(8)
    both_add(a, b, 0)
    one = a.pool.allocate(32, "stream", "x")  # the message is ignored: its stream is gone at the other end
    b.pool.want()
    settle(a, b)
    two = b.pool.allocate(32, "relay", "y")
    assert one is not None
    assert two is None or two.segments != one.segments


def test_two_parts_of_one_block_in_one_claim() -> None:
    a, b = pair(8)
    both_add(a, b, 0)
    taken = b.pool.claim([Segment(LINK, 0, 0, 10), Segment(LINK, 0, 10, 10)], "relay", "x")
    assert taken.key == material(LINK, 0, 64).take(0, 20)


def test_both_ends_full_of_what_the_other_lacks() -> None:
    a, b = pair(4)
    for number in range(4):
        a.add(number)
    settle(a, b)
    a.pool.expire(20, 10)
    settle(a, b)
    for number in range(4):
        b.add(number, 21)
        a.add(number + 4, 21)
    for now in (21.0, 40.0, 1000.0):
        settle(a, b, now)
        a.pool.expire(now, 10)
        b.pool.expire(now, 10)
    settle(a, b)
    assert not (a.pool.full and b.pool.full) or a.pool.usable


def test_scarce_key_does_not_go_to_and_fro() -> None:
    a, b = pair(8)
    both_add(a, b, 0)
    gifts = 0
    for _ in range(50):
        for source, sink in ((a, b), (b, a)):
            source.pool.allocate(100, "relay", "x")
            gifts += sum(isinstance(one, Give) and bool(one.blocks) for one in source.out)
            while source.out:
                sink.hear(source.out.popleft(), 0.0)
    assert gifts < 10


def test_an_end_with_nothing_to_give_does_not_say_so() -> None:
    """Who runs short asks each second; each answer would cost the other one tag key, of the last that it has."""
    a, b = pair(8)
    both_add(a, b, 0)
    a.pool.allocate(8, "stream", "x")  # what is left of it is not given away
    for now in range(1, 20):
        b.pool.expire(now, 100)
        b.pool.want()
        assert [type(one) for one in b.out] == [Want]
        a.hear(b.out.popleft(), now)
        assert not a.out


async def test_the_leader_attaches_while_the_ends_meet(net: Net) -> None:
    a, b = await net.node("a"), await net.node("b")
    link = await net.fibre(1, "a", "b")
    await net.feed(link, "a", "b", 8)
    await until(lambda: a.keys.levels(link).usable_bits > 0)
    for here, there in ((b, a), (a, b)):
        await here.keys.configure_stream(StreamConfig(KSID, there.id, (link,), 32))
        await here.keys.attach(KSID)
    async with asyncio.timeout(3):
        await b.keys.wait_peer_attached(KSID)


async def test_ttl_does_not_end_a_stream(net: Net) -> None:
    a, b = await net.node("a"), await net.node("b")
    link = await net.fibre(1, "a", "b")
    await net.feed(link, "a", "b", 8)
    for here, there in ((a, b), (b, a)):
        await here.keys.configure_stream(StreamConfig(KSID, there.id, (link,), 32, 1))
        await here.keys.attach(KSID)
    async with asyncio.timeout(3):
        await a.keys.get_chunk(KSID, None)
    await asyncio.sleep(3.2)
    for here in (a, b):
        async with asyncio.timeout(3):
            await here.keys.get_chunk(KSID, None)


async def test_failed_handshakes_leave_nothing(net: Net) -> None:
    a = await net.node("a")
    for _ in range(50):
        with socket.create_connection((a.keys.endpoint.address, a.keys.endpoint.port)) as stranger:
            stranger.sendall(b"no TLS")
    await until(lambda: not a.keys._peers._arriving)


async def test_a_source_that_lost_its_store_makes_no_old_numbers_anew(net: Net) -> None:
    """The far end still holds other key under the numbers of before."""
    for name in "abc":
        await net.node(name)
    first, second = await net.fibre(1, "a", "b"), await net.fibre(2, "b", "c")
    await net.feed(first, "a", "b", 40)
    await net.feed(second, "b", "c", 40)
    a, c = net.nodes["a"], net.nodes["c"]
    virtual = await net.route(9, "a", "b", "c", bandwidth_bps=100_000)
    await until(lambda: a.keys.levels(virtual).usable_bits == c.keys.levels(virtual).usable_bits > 0)
    await a.keys.stop()
    for file in a.config.store.parent.glob("keys.sqlite*"):
        file.unlink()
    a.keys = KeyManager(a.id, a.config, a.seen)
    await a.keys.start()
    await a.keys.configure_link(net.physical(first, "a", "b"))
    await net.route(9, "a", "b", "c", bandwidth_bps=100_000)
    net.numbers[first] = 100
    feeding = asyncio.create_task(net.feed(first, "a", "b", 40))
    for here, there in ((a, c), (c, a)):
        await here.keys.configure_stream(StreamConfig(KSID, there.id, (virtual,), 32))
    for here in (a, c):
        await here.keys.attach(KSID)
    async with asyncio.timeout(20):
        for index in range(40):
            assert (await a.keys.get_chunk(KSID, index)).key == (await c.keys.get_chunk(KSID, index)).key
        await feeding


def test_stores_of_very_different_size_meet() -> None:
    a, b = Side("a", "b", 5000), Side("b", "a", 100)
    for number in range(5000):
        a.add(number)
    a.out.clear()
    a.pool.meet()
    settle(a, b)
    assert a.pool.synced
    assert b.pool.synced


async def _fed(net: Net) -> tuple[Any, Any, LinkId]:
    a, b = await net.node("a"), await net.node("b")
    link = await net.fibre(1, "a", "b")
    await net.feed(link, "a", "b", 8)
    await until(lambda: a.keys.levels(link).usable_bits == b.keys.levels(link).usable_bits > 8 * 4096 * 7)
    return a, b, link


async def _joined(net: Net) -> tuple[Any, Any]:
    a, b, link = await _fed(net)
    for here, there in ((a, b), (b, a)):
        await here.keys.configure_stream(StreamConfig(KSID, there.id, (link,), 32))
        await here.keys.attach(KSID)
    return a, b


async def test_a_cancelled_call_for_the_next_chunk_skips_none(net: Net) -> None:
    a, _ = await _joined(net)
    async with asyncio.timeout(5):
        await a.keys.get_chunk(KSID, None)
        one, two = (asyncio.create_task(a.keys.get_chunk(KSID, None)) for _ in range(2))
        await asyncio.sleep(0)
        one.cancel()
        assert [(await two).index, (await a.keys.get_chunk(KSID, None)).index] == [1, 2]


async def test_key_of_a_link_removed_meanwhile_is_erased(net: Net) -> None:
    a, _, _ = await _fed(net)
    await a.keys.stop()
    a.keys = KeyManager(a.id, a.config, a.seen)
    await a.keys.start()
    await a.keys.prune((), ())
    with closing(sqlite3.connect(a.config.store)) as database:
        assert database.execute("SELECT count(*) FROM blocks").fetchone() == (0,)


async def test_whoever_reads_the_ledger_holds_up_no_commit(net: Net) -> None:
    a, _ = await _joined(net)
    async with asyncio.timeout(3):
        await a.keys.get_chunk(KSID, None)
        reading = ledger(a.config.store)
        next(reading)
        folding = asyncio.create_task(a.keys._store.fold())
        await asyncio.sleep(0.01)
        await a.keys.get_chunk(KSID, None)
        await folding
        reading.close()


@pytest.mark.parametrize("body", [b"\x91\xa4\xff\xfe\xfd\xfc", b"\x92\xa4want\xa2\xff\xfe", b"\xdd\xff\xff\xff\xff"])
def test_octets_that_are_no_message_are_refused_as_such(body: bytes) -> None:
    codec = Codec()
    codec.receive(len(body).to_bytes(4) + body)
    with pytest.raises(ProtocolError):
        codec.next_message()


async def test_a_stream_of_big_chunks_is_not_starved_by_relay(net: Net) -> None:
    for name in "abc":
        await net.node(name)
    first, second = await net.fibre(1, "a", "b"), await net.fibre(2, "b", "c")
    await net.feed(second, "b", "c", 200)
    a, b = net.nodes["a"], net.nodes["b"]
    await net.route(9, "a", "b", "c")
    for here, there in ((a, b), (b, a)):
        await here.keys.configure_stream(StreamConfig(KSID, there.id, (first,), 16_000))
        await here.keys.attach(KSID)
    chunk = asyncio.create_task(a.keys.get_chunk(KSID, None))
    for _ in range(60):
        await net.feed(first, "a", "b", 1)
        await asyncio.sleep(0.02)
    async with asyncio.timeout(1):
        assert (await chunk).index == 0


def test_a_full_link_takes_no_more_until_below_its_low_mark() -> None:
    """One that is full at its very edge would stop and start its device, and tell the other end, at every block."""
    a, b = pair(10)
    for number in range(10):
        assert not a.pool.full
        both_add(a, b, number)
    assert a.pool.full and b.pool.peer_full and a.pool.low_mark == 8
    a.pool.burn([0, 1])
    assert a.pool.full
    a.pool.burn([2])
    assert not a.pool.full
    a.add(10)
    a.add(11)
    assert not a.pool.full, "between the marks it goes on filling"
    a.add(12)
    assert a.pool.full


def test_a_link_of_one_block_is_refilled() -> None:
    a, b = pair(1)
    both_add(a, b, 0)
    assert a.pool.full
    a.pool.burn([0])
    assert not a.pool.full
