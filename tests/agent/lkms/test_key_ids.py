"""Keys with an id between key managers: the same at both ends, once, through crashes, beside streams and over relays."""

import asyncio
import sqlite3
from contextlib import closing
from itertools import pairwise

import pytest
from key_managers import Net, Node, audit, link_id, node_id, until

from qswitch.agent.errors import InsufficientKey, StorageFailed, UnknownKeyStream
from qswitch.agent.lkms import key_ids
from qswitch.agent.lkms.contents import ledger
from qswitch.agent.lkms.keys import Key
from qswitch.agent.lkms.manager import DeliveryConfig, StreamConfig
from qswitch.agent.lkms.store import Statement
from qswitch.agent.model import KeyStreamId, LinkId
from qswitch.protocol.lkms import KeyAck, KeyAlloc, KeyDrop, KeyHello, KeySync, KeyTaken, Segment

PAIR = KeyStreamId("77777777-0000-4000-8000-000000000001")
OTHER = KeyStreamId("77777777-0000-4000-8000-000000000002")
KSID = KeyStreamId("99999999-0000-4000-8000-000000000001")


async def line(net: Net, names: str, blocks: int = 40) -> None:
    for name in names:
        await net.node(name)
    for number, (one, other) in enumerate(pairwise(names), 1):
        await net.feed(await net.fibre(number, one, other), one, other, blocks)


async def associate(net: Net, one: str, other: str, *links: LinkId, ksid: KeyStreamId = PAIR, **options: float) -> None:
    for here, there in ((one, other), (other, one)):
        await net.nodes[here].configure_delivery(DeliveryConfig(ksid, node_id(there), links, **options))  # type: ignore[arg-type]


async def take(node: Node, number: int = 1, octets: int = 32, ksid: KeyStreamId = PAIR) -> dict[str, bytes]:
    async with asyncio.timeout(10):
        keys = await node.keys.take_keys(ksid, number, octets)
    assert all(len(key) == octets for key in keys.values()) and len(keys) == number
    return {key_id: bytes(key.view()) for key_id, key in keys.items()}


async def fetch(node: Node, *key_ids: str, ksid: KeyStreamId = PAIR) -> dict[str, bytes]:
    async with asyncio.timeout(10):
        released = await node.keys.release_keys({ksid: key_ids})
    return {key_id: bytes(key.view()) for key_id, key in released.items()}


def rows(node: Node) -> int:
    with closing(sqlite3.connect(f"file:{node.config.store}?mode=ro", uri=True)) as database:
        (number,) = database.execute("SELECT count(*) FROM keys").fetchone()
    return int(number)


async def test_both_ends_get_the_same_and_nothing_stays(net: Net) -> None:
    await line(net, "ab", 40)
    a, b = net.nodes.values()
    await associate(net, "a", "b", link_id(1))
    for master, slave in ((a, b), (b, a)):
        for number, octets in ((1, 32), (1, 32), (100, 32), (3, 1024), (1, 1)):
            keys = await take(master, number, octets)
            assert await fetch(slave, *keys) == keys
            assert not any(slave.keys.holds(PAIR, one) for one in keys), "each is delivered once"
    await until(lambda: a.keys.agreed(PAIR) and b.keys.agreed(PAIR))
    for node in (a, b):
        await node.keys.remove_delivery(PAIR)
        assert rows(node) == 0
    assert not a.seen.alarms and not b.seen.alarms
    audit(net, link_id(1))


async def test_many_at_once_share_no_key(net: Net) -> None:
    await line(net, "ab", 100)
    a, b = net.nodes.values()
    await associate(net, "a", "b", link_id(1))
    both = await asyncio.gather(*(take(node, 3) for _ in range(60) for node in (a, b)))
    ids = [key_id for keys in both for key_id in keys]
    assert len(set(ids)) == len(ids) == 360 == len({key for keys in both for key in keys.values()})
    for number, keys in enumerate(both):
        assert await fetch((b, a)[number % 2], *keys) == keys
    audit(net, link_id(1))


async def test_a_stream_and_keys_on_one_link_share_no_bit(net: Net) -> None:
    await line(net, "ab", 60)
    a, b = net.nodes.values()
    await associate(net, "a", "b", link_id(1))
    for here, there in ((a, b), (b, a)):
        await here.configure_stream(StreamConfig(KSID, there.id, (link_id(1),), 32))
        await here.keys.attach(KSID)

    async def stream(node: Node) -> list[bytes]:
        return [bytes((await node.keys.get_chunk(KSID, index)).key.view()) for index in range(300)]

    async def keys(node: Node) -> dict[str, bytes]:
        return {key_id: key for _ in range(100) for key_id, key in (await take(node)).items()}

    one, other, mine, theirs = await asyncio.gather(stream(a), stream(b), keys(a), keys(b))
    assert one == other
    assert await fetch(b, *mine) == mine and await fetch(a, *theirs) == theirs
    assert len({*one, *mine.values(), *theirs.values()}) == 500
    kinds = {row.kind for row in ledger(a.config.store)}
    assert {"stream", "014"} <= kinds
    audit(net, link_id(1))


async def test_over_a_relay(net: Net) -> None:
    await line(net, "abc", 100)
    route = await net.route(9, "a", "b", "c")
    await associate(net, "a", "c", route)
    keys = await take(net.nodes["a"], 20)
    back = await take(net.nodes["c"], 20)
    assert await fetch(net.nodes["c"], *keys) == keys and await fetch(net.nodes["a"], *back) == back
    audit(net, link_id(1), link_id(2))


async def test_two_at_one_node_need_no_link(net: Net) -> None:
    a = await net.node("a")
    await a.configure_delivery(DeliveryConfig(PAIR, a.id, (), limit=5))
    keys = await take(a, 3)
    await a.crash()
    await a.restart()
    assert await fetch(a, *list(keys)[:2]) == dict(list(keys.items())[:2])
    assert a.keys.ready_keys(PAIR, 32) == 4
    with pytest.raises(InsufficientKey):
        await take(a, 5)
    assert rows(a) == 1


@pytest.mark.parametrize("crashing", ["a", "b", "ab"])
async def test_what_was_delivered_or_put_by_outlives_crashes(net: Net, crashing: str) -> None:
    await line(net, "ab", 40)
    a, b = net.nodes.values()
    await associate(net, "a", "b", link_id(1))
    given: dict[str, bytes] = {}
    for _ in range(3):
        given |= await take(a, 2)
        given |= await take(a, 1, 48)
        for name in crashing:
            await net.nodes[name].crash()
        for name in crashing:
            await net.nodes[name].restart()
        first = next(iter(given))
        assert await fetch(b, first) == {first: given.pop(first)}
    assert await fetch(b, *given) == given
    await take(a, 5)
    audit(net, link_id(1))


async def test_what_was_delivered_never_comes_again_after_a_crash(net: Net) -> None:
    await line(net, "ab", 40)
    a, b = net.nodes.values()
    await associate(net, "a", "b", link_id(1))
    seen = await take(a, 40)
    await fetch(b, *seen)
    for node in (a, b):
        await node.crash()
        await node.restart()
    assert not any(b.keys.holds(PAIR, key_id) for key_id in seen)
    again = await take(a, 100)
    assert not set(again) & set(seen) and not set(again.values()) & set(seen.values())


async def test_cancelled_calls_lose_nothing_that_is_put_by(net: Net) -> None:
    await line(net, "ab", 4)
    a, b = net.nodes.values()
    await associate(net, "a", "b", link_id(1))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await a.keys.take_keys(PAIR, 4, 64 * 1024)
    keys = await take(a, 1)
    assert await fetch(b, *keys) == keys
    await net.feed(link_id(1), "a", "b", 8)
    await take(a, 100)
    audit(net, link_id(1))


async def test_nothing_is_released_while_the_disk_fails(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    await line(net, "ab", 40)
    a, b = net.nodes.values()
    await associate(net, "a", "b", link_id(1))
    keys = await take(a, 2)
    await take(a, 2)

    def fails(_statements: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        for node in (a, b):
            patch.setattr(node.keys._store, "_execute", fails)
        with pytest.raises(StorageFailed):
            await b.keys.release_keys({PAIR: list(keys)})
        with pytest.raises(StorageFailed):
            await a.keys.take_keys(PAIR, 1, 32)
        with pytest.raises(StorageFailed):
            await a.keys.take_keys(PAIR, 1, 32)
    await until(lambda: a.keys._store.failing is None and b.keys._store.failing is None)
    assert await fetch(b, *keys) == keys, "nothing was lost"
    more = await take(a, 2)
    assert await fetch(b, *more) == more


async def test_keys_of_several_pairs_are_released_together_or_not_at_all(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    await line(net, "ab", 40)
    a, b = net.nodes.values()
    wanted, keys = dict[KeyStreamId, list[str]](), dict[str, bytes]()
    for ksid in (PAIR, OTHER):
        await associate(net, "a", "b", link_id(1), ksid=ksid)
        keys |= (some := await take(a, 2, ksid=ksid))
        wanted[ksid] = list(some)
    execute, done = b.keys._store._execute, 0

    def fails_later(statements: list[Statement]) -> None:
        nonlocal done
        if any("DELETE FROM keys" in str(statement) for statement in statements):
            done += 1
        if done > 1:
            raise sqlite3.OperationalError("disk I/O error")
        execute(statements)

    with monkeypatch.context() as patch:
        patch.setattr(b.keys._store, "_execute", fails_later)
        released = await b.keys.release_keys(wanted)
    assert {key_id: bytes(key.view()) for key_id, key in released.items()} == keys


async def test_one_key_for_applications_at_several_nodes(net: Net) -> None:
    for name in "abc":
        await net.node(name)
    for number, other in ((1, "b"), (2, "c")):
        await net.feed(await net.fibre(number, "a", other), "a", other, 20)
        await associate(net, "a", other, link_id(number), ksid=(PAIR, OTHER)[number - 1])
    a, b, c = net.nodes.values()
    keys = await take(a, 3)
    async with asyncio.timeout(10):
        await a.keys.share_keys(OTHER, {key_id: Key(key) for key_id, key in keys.items()})
    assert await fetch(b, *keys) == keys == await fetch(c, *keys, ksid=OTHER)
    many = await take(a, 40, 1024)
    async with asyncio.timeout(10):
        await a.keys.share_keys(OTHER, {key_id: Key(key) for key_id, key in many.items()})
    assert await fetch(b, *many) == many == await fetch(c, *many, ksid=OTHER)
    gone = await take(a, 2)
    await a.keys.withdraw_keys(PAIR, list(gone))
    await until(lambda: not any(b.keys.holds(PAIR, one) for one in gone))
    audit(net, link_id(1), link_id(2))


async def test_a_third_node_has_no_say_in_the_keys_of_two_others(net: Net) -> None:
    """It has a valid certificate, and a session with either; it knows the pair's id and the keys'."""
    await line(net, "abc", 20)
    a, b, c = net.nodes.values()
    await associate(net, "a", "b", link_id(1))
    keys = await take(a, 3)
    one = next(iter(keys))
    segments = [Segment(link_id(2), 0, 0, 32)]
    forged = [
        KeyDrop(PAIR, list(keys)),
        KeyTaken(PAIR, list(keys)),
        KeySync(PAIR, 1 << 60, []),
        KeyHello(PAIR),
        KeyAlloc(PAIR, 1, 32, [one], segments, False),
        KeyAlloc(PAIR, 1, 32, ["00000000-0000-4000-8000-00000000abcd"], segments, False),
        KeyAck(PAIR, 1 << 60, 1 << 60),
    ]
    await until(lambda: c.keys._peers.session(b.id) is not None)
    for message in forged:
        c.keys._send(b.id, message)
    await c.configure_delivery(DeliveryConfig(OTHER, b.id, (link_id(2),)))
    await b.configure_delivery(DeliveryConfig(OTHER, c.id, (link_id(2),)))
    theirs = await take(c, ksid=OTHER)  # what was sent before has arrived
    assert await fetch(b, *keys) == keys
    assert await fetch(b, *theirs, ksid=OTHER) == theirs
    assert not b.keys.held_anywhere("00000000-0000-4000-8000-00000000abcd")
    more = await take(a, 3)
    assert await fetch(b, *more) == more
    audit(net, link_id(1), link_id(2))


async def test_a_node_holds_so_many_keys_of_all_pairs(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_ids, "MAX_HELD", 60)
    await line(net, "ab", 20)
    a, b = net.nodes.values()
    await associate(net, "a", "b", link_id(1))
    await associate(net, "a", "b", link_id(1), ksid=OTHER)
    first = await take(a, 30, 16)
    second = await take(a, 25, 16, OTHER)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await a.keys.take_keys(OTHER, 10, 16)
    assert sum(b.keys.holds(PAIR, one) for one in first) + sum(b.keys.holds(OTHER, one) for one in second) == 55
    assert await fetch(b, *first) == first
    third = await take(a, 10, 16, OTHER)
    assert await fetch(b, *second, *third, ksid=OTHER) == second | third
    assert not b.seen.alarms
    audit(net, link_id(1))


async def test_unknown_associations(net: Net) -> None:
    a = await net.node("a")
    with pytest.raises(UnknownKeyStream):
        await a.keys.take_keys(PAIR, 1, 32)
    with pytest.raises(UnknownKeyStream):
        await a.keys.release_keys({PAIR: []})
    assert not a.keys.holds(PAIR, "x") and not a.keys.held_anywhere("x") and a.keys.ready_keys(PAIR, 32) == 0
