"""Key managers together: the same key at both ends, over one link and over many, through crashes and changes."""

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from dataclasses import replace
from itertools import pairwise
from typing import Any, cast

import pytest
from key_managers import Net, Node, audit, link_id, material, node_id, until

from qswitch.agent.errors import InsufficientKey, InvalidValue, PeerNotConnected, StorageFailed, UnknownKeyStream
from qswitch.agent.lkms import ahead, inspection, maintenance
from qswitch.agent.lkms.contents import ledger
from qswitch.agent.lkms.keys import Key
from qswitch.agent.lkms.manager import StreamConfig
from qswitch.agent.lkms.peers import Session
from qswitch.agent.lkms.tags import MAX_WAITING
from qswitch.agent.model import KeyStreamId, LinkId
from qswitch.protocol.lkms import MAX_MESSAGE, Have, Offer, Ping, Relay, WireMessage

KSID = KeyStreamId("99999999-0000-4000-8000-000000000001")


async def open_stream(
    net: Net, one: str, other: str, links: Iterable[LinkId], size: int = 32, ksid: KeyStreamId = KSID
) -> None:
    for here, there in ((one, other), (other, one)):
        await net.nodes[here].configure_stream(StreamConfig(ksid, node_id(there), tuple(links), size))
        await net.nodes[here].keys.attach(ksid)


async def read(node: Node, index: int | None, ksid: KeyStreamId = KSID) -> tuple[int, bytes, int]:
    async with asyncio.timeout(10):
        chunk = await node.keys.get_chunk(ksid, index)
    return chunk.index, bytes(chunk.key.view()), chunk.hops


async def line(net: Net, names: str, blocks: int = 40) -> None:
    """Nodes in a row, with key on each fibre; fibre n joins the n-th and the next."""
    for name in names:
        await net.node(name)
    for number, (one, other) in enumerate(pairwise(names), 1):
        await net.feed(await net.fibre(number, one, other), one, other, blocks)


async def test_a_session_that_is_no_longer_wanted_ends_at_both_ends(net: Net) -> None:
    await line(net, "ab", 2)
    a, b = net.nodes.values()
    await until(lambda: a.keys.levels(link_id(1)).usable_bits > 0 and b.keys.levels(link_id(1)).usable_bits > 0)
    await a.keys.remove_link(link_id(1))
    await until(lambda: b.keys.levels(link_id(1)).usable_bits == 0, 3)  # much sooner than by silence


# Streams on one link -----------------------------------------------------------------------------------------------------


async def test_both_ends_of_a_link_read_the_same(net: Net) -> None:
    await line(net, "ab", 8)
    a, b = net.nodes.values()
    await open_stream(net, "a", "b", [link_id(1)])
    async with asyncio.timeout(10):
        await a.keys.wait_peer_attached(KSID)
    assert b.keys.peer_attached(KSID)
    ones = [await read(a, None) for _ in range(200)]
    others = [await read(b, index) for index in range(200)]
    assert ones == others
    assert len({key for _, key, _ in ones}) == 200
    assert a.keys.consumed_bits(KSID) == b.keys.consumed_bits(KSID) == 200 * 256
    assert not a.seen.alarms and not b.seen.alarms
    audit(net, link_id(1))


async def test_key_is_allocated_for_many_chunks_at_once(net: Net) -> None:
    """An extension for each chunk would cost two messages and a commit at both ends a GET_KEY."""
    await line(net, "ab", 8)
    a, b = net.nodes.values()
    await open_stream(net, "a", "b", [link_id(1)])
    ones = [await read(a, None) for _ in range(200)]
    assert ones == [await read(b, None) for _ in range(200)]
    for node in (a, b):
        await node.keys._store.commit()
        allocated = {row.consumer for row in ledger(node.config.store) if row.kind == "stream"}
        assert 1 < len(allocated) <= 200 // 8
    audit(net, link_id(1))


async def test_key_is_used_to_the_last_block_whoever_owned_it(net: Net) -> None:
    await line(net, "ab", 8)
    a, b = net.nodes.values()
    await open_stream(net, "a", "b", [link_id(1)], size=1024)
    ones = [await read(a, None) for _ in range(27)]
    assert ones == [await read(b, None) for _ in range(27)]
    await until(lambda: a.keys.levels(link_id(1)) == b.keys.levels(link_id(1)))
    left = a.keys.levels(link_id(1))
    assert left.burnt_bits == 0 and left.stored_bits == left.generated_bits - left.consumed_bits
    assert left.usable_bits < 8 * 4096, "but for a block of b's, which keeps some for its tags"
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await a.keys.get_chunk(KSID, None)
    await net.feed(link_id(1), "a", "b", 2)
    assert await read(a, None) == await read(b, None), "cancelling has lost a chunk"


async def test_reading_again_ahead_and_too_far(net: Net) -> None:
    await line(net, "ab", 8)
    a, b = net.nodes.values()
    await open_stream(net, "a", "b", [link_id(1)])
    first = await read(b, 0)
    assert await read(b, 0) == first, "a lost reply is given again"
    skipped = await read(b, 5)
    with pytest.raises(InvalidValue):
        await b.keys.get_chunk(KSID, 0)
    assert (await read(b, 3))[0] == 3, "what was skipped stays readable"
    assert [await read(a, 0), await read(a, 5)] == [first, skipped]
    with pytest.raises(InsufficientKey):
        await b.keys.get_chunk(KSID, 100_000)
    with pytest.raises(UnknownKeyStream):
        await b.keys.get_chunk(KeyStreamId("none"), 0)


async def test_a_call_that_waits_for_a_chunk_holds_up_none_for_another(net: Net) -> None:
    await line(net, "ab", 4)
    await open_stream(net, "a", "b", [link_id(1)])
    a, b = net.nodes.values()
    assert (await read(a, 0))[0] == 0
    waits = asyncio.create_task(a.keys.get_chunk(KSID, 900))
    await until(lambda: KSID in a.keys._waiters)
    assert (await read(a, 0))[1] == (await read(b, 0))[1] and (await read(a, 3))[1] == (await read(b, 3))[1]
    assert not waits.done()
    await net.feed(link_id(1), "a", "b", 20)
    assert (await waits).key == Key((await read(b, 900))[1])


async def test_the_ends_agree_on_the_size_that_was_named_first(net: Net) -> None:
    await line(net, "ab", 8)
    a, b = net.nodes.values()
    for here, there in ((a, b), (b, a)):
        await here.configure_stream(StreamConfig(KSID, there.id, (link_id(1),)))
    assert a.keys.chunk_size(KSID) == 0
    await b.configure_stream(StreamConfig(KSID, a.id, (link_id(1),), 48))
    await b.keys.attach(KSID)
    await a.configure_stream(StreamConfig(KSID, b.id, (link_id(1),), 16))
    await a.keys.attach(KSID)
    assert a.keys.chunk_size(KSID) == b.keys.chunk_size(KSID) == 48
    assert await read(a, 0) == await read(b, 0)
    with pytest.raises(InvalidValue):
        await a.configure_stream(StreamConfig(KSID, b.id, (link_id(1),), 1 << 20))


async def test_one_closes_the_other_reads_what_is_there_then_nothing_is_left(net: Net) -> None:
    await line(net, "ab", 8)
    a, b = net.nodes.values()
    await open_stream(net, "a", "b", [link_id(1)])
    ones = [await read(a, index) for index in range(5)]
    await a.keys.detach(KSID)
    await until(lambda: not b.keys.peer_attached(KSID))
    assert [await read(b, index) for index in range(5)] == ones
    with pytest.raises(PeerNotConnected):
        await b.keys.get_chunk(KSID, 500)
    await b.keys.detach(KSID)
    await until(lambda: rows(a, "chunks") == rows(b, "chunks") == 0)
    # Opened again, it is another stream of key under the same name.
    await open_stream(net, "b", "a", [link_id(1)])
    await b.keys.wait_peer_attached(KSID)
    again = [await read(b, index) for index in range(5)]
    assert again == [await read(a, index) for index in range(5)]
    assert not {key for _, key, _ in again} & {key for _, key, _ in ones}


async def test_time_to_live_erases_what_nobody_reads(net: Net) -> None:
    await line(net, "ab", 8)
    a, b = net.nodes.values()
    for here, there in ((a, b), (b, a)):
        await here.configure_stream(StreamConfig(KSID, there.id, (link_id(1),), 32, ttl_seconds=1))
        await here.keys.attach(KSID)
    await read(a, 0)
    await until(lambda: rows(a, "chunks") > 60 and rows(b, "chunks") > 60)
    await until(lambda: rows(a, "chunks") == rows(b, "chunks") == 0)
    with pytest.raises(InvalidValue):
        await b.keys.get_chunk(KSID, 3)


async def test_a_stream_moves_to_another_link(net: Net) -> None:
    await line(net, "ab", 4)
    a, b = net.nodes.values()
    await open_stream(net, "a", "b", [link_id(1)], size=1024)
    ones = [await read(a, index) for index in range(8)]
    other = await net.fibre(2, "a", "b")
    await net.feed(other, "a", "b", 4)
    for here, there in ((a, b), (b, a)):
        await here.configure_stream(StreamConfig(KSID, there.id, (other,), 1024))
    await net.nodes["a"].keys.remove_link(link_id(1))
    ones += [await read(a, index) for index in range(8, 20)]
    assert ones == [await read(b, index) for index in range(20)]
    audit(net, link_id(1), other)


async def test_removing_a_stream_erases_it_and_it_may_come_again(net: Net) -> None:
    await line(net, "ab", 8)
    a, b = net.nodes.values()
    await open_stream(net, "a", "b", [link_id(1)])
    first = await read(a, 0)
    await a.keys.remove_stream(KSID)
    assert rows(a, "chunks") == rows(a, "streams") == 0
    await open_stream(net, "a", "b", [link_id(1)])
    again = await read(a, None)
    assert again[0] > first[0] and again[1] != first[1], "under another number: the other end may have read more"
    assert await read(b, None) == again
    with pytest.raises(InvalidValue, match="delivered or erased"):
        await read(b, 0)


# Blocks ------------------------------------------------------------------------------------------------------------------


async def test_blocks_wait_while_the_store_is_full(net: Net) -> None:
    a, b = await net.node("a", capacity_blocks=4), await net.node("b", capacity_blocks=4)
    link = await net.fibre(1, "a", "b")
    feeding = asyncio.create_task(net.feed(link, "a", "b", 6))
    await until(lambda: a.keys.levels(link).stored_bits == 4 * 8 * 4096)
    assert not feeding.done()
    assert a.keys.first_block(link) == 4
    await open_stream(net, "a", "b", [link], size=4096)
    ones = [await read(a, None) for _ in range(3)]
    assert [await read(b, None) for _ in range(3)] == ones
    async with asyncio.timeout(5):
        await feeding
    assert a.seen.changes


async def test_a_block_at_one_end_only_is_burnt(net: Net) -> None:
    a, _ = await net.node("a", doubt_seconds=0.5), await net.node("b", doubt_seconds=0.5)
    link = await net.fibre(1, "a", "b")
    await net.feed(link, "a", "b", 2)
    await until(lambda: a.keys.levels(link).usable_bits > 0)
    await a.keys.deliver(link, 2, material(link, 2))
    assert a.keys.levels(link).usable_bits < 8 * 4096 * 2 < a.keys.levels(link).stored_bits
    await until(lambda: a.keys.levels(link).burnt_bits > 0)
    assert a.keys.levels(link).burnt_bits == 8 * 4096


async def test_an_end_full_of_what_the_other_never_got_takes_new_blocks(net: Net) -> None:
    """Without a block in common the ends cannot meet, and agree on nothing: what is in doubt goes all the same."""
    a, b = [await net.node(name, doubt_seconds=0.5, capacity_blocks=4) for name in "ab"]
    link = await net.fibre(1, "a", "b")
    for number in range(4):
        await a.keys.deliver(link, number, material(link, number))
    net.numbers[link] = 4
    async with asyncio.timeout(10):
        await net.feed(link, "a", "b", 2)
    await until(lambda: a.keys.levels(link).usable_bits == b.keys.levels(link).usable_bits > 0)
    assert a.keys.levels(link).burnt_bits == 4 * 8 * 4096


async def test_no_number_comes_twice(net: Net) -> None:
    a = await net.node("a")
    await net.node("b")
    link = await net.fibre(1, "a", "b")
    await a.keys.deliver(link, 7, material(link, 7))
    await a.keys.deliver(link, 7, material(link, 7))
    assert len(a.seen.alarms) == 1
    await a.keys.remove_link(link)
    await net.fibre(1, "a", "b")
    assert a.keys.first_block(link) == 8


# Crashes -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["a", "b", "ab"])
async def test_after_a_crash_the_ends_go_on_with_the_same(net: Net, who: str) -> None:
    await line(net, "ab", 20)
    a, b = net.nodes.values()
    await open_stream(net, "a", "b", [link_id(1)])
    ones = {index: await read(a, index) for index in range(40)}
    others = {index: await read(b, index) for index in range(20)}
    for name in who:
        await net.nodes[name].crash()
    for name in who:
        await net.nodes[name].restart()
    assert a.keys.peer_attached(KSID), "who is connected is remembered"
    if "a" in who:
        assert await read(a, 39) == ones[39], "the last one delivered is there again"
        with pytest.raises(InvalidValue):
            await a.keys.get_chunk(KSID, 38)
    ones |= {index: await read(a, index) for index in range(40, 200)}
    others |= {index: await read(b, index) for index in range(20, 200)}
    assert ones == others
    assert not a.seen.alarms and not b.seen.alarms
    audit(net, link_id(1))


async def test_a_crash_costs_a_fast_reader_what_was_released_ahead_of_it_and_no_more(net: Net) -> None:
    await net.node("a", release_ahead=31)
    await net.node("b")
    a, b = net.nodes.values()
    await net.feed(await net.fibre(1, "a", "b"), "a", "b", 20)
    await open_stream(net, "a", "b", [link_id(1)])
    before = {index: await read(a, index) for index in range(100)}
    others = {index: await read(b, index) for index in range(300)}
    stream = a.keys._streams[KSID]
    lost = {index for index in stream.ahead if index > 99}
    assert 0 < len(lost) < ahead.MOST
    await a.crash()
    with closing(sqlite3.connect(a.config.store)) as database:
        on_disk = {number for (number,) in database.execute("SELECT number FROM chunks")}
    assert not on_disk & (set(before) | {index for index in lost if stream.ahead.free(index)})
    await a.restart()
    after = dict[int, tuple[int, bytes, int]]()
    while max(after, default=0) < 299:
        chunk = await read(a, None)
        after[chunk[0]] = chunk
    assert not set(before) & set(after), "delivered twice"
    missing = set(range(300)) - set(before) - set(after)
    assert missing <= lost
    assert 32 * len(missing) <= inspection.status(a.config, None)["ahead"]["burnt_octets"] < 32 * ahead.MOST
    assert all(others[index] == chunk for index, chunk in (before | after).items())
    assert not a.seen.alarms and not b.seen.alarms
    audit(net, link_id(1))


async def test_a_connection_in_its_handshake_is_closed_at_the_end(net: Net) -> None:
    """One that says nothing: no session of ours stands behind it yet."""
    endpoint = (await net.node("a")).endpoint
    reader, writer = await asyncio.open_connection(endpoint.address, endpoint.port)
    acceptor = net.nodes["a"].keys._peers._acceptor
    assert acceptor is not None
    async with asyncio.timeout(2):
        while not acceptor._strangers:
            await asyncio.sleep(0)
        await net.nodes["a"].keys.stop()
        assert await reader.read() == b""
    writer.close()


async def test_who_holds_a_stream_outlasts_a_crash_and_goes_with_the_stream(net: Net) -> None:
    await line(net, "ab", 8)
    await open_stream(net, "a", "b", [link_id(1)])
    a = net.nodes["a"]
    await a.keys.hold(KSID, {"qkd://a/one": True, "qkd://a/two": True})
    await a.keys.hold(KSID, {"qkd://a/one": True, "qkd://a/three": False})
    await a.crash()
    await a.restart()
    assert a.keys.holders(KSID) == {"qkd://a/one": True, "qkd://a/three": False}
    await a.keys.remove_stream(KSID)
    assert not a.keys.holders(KSID)
    a.streams.clear()
    await a.crash()
    await a.restart()
    assert not a.keys.holders(KSID)


async def test_a_store_that_fails_releases_nothing_and_recovers(net: Net) -> None:
    await line(net, "ab", 8)
    a, b = net.nodes.values()
    await open_stream(net, "a", "b", [link_id(1)])
    first = await read(a, 0)
    await a.keys._store._run(lambda: a.keys._store._database.execute("PRAGMA busy_timeout = 10"))  # type: ignore[union-attr]
    with closing(sqlite3.connect(a.config.store, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")  # as good as a full disk
        with pytest.raises(StorageFailed):
            await read(a, 1)
        assert a.seen.alarms
        with pytest.raises(StorageFailed):
            await a.keys.get_chunk(KSID, 2)
        other.execute("ROLLBACK")
    await until(lambda: a.keys._store.failing is None)
    assert [first, await read(a, 1)] == [await read(b, 0), await read(b, 1)]


async def test_a_store_is_opened_by_one_only_and_with_its_own_master_key(net: Net) -> None:
    await line(net, "ab", 1)
    one = net.nodes["a"]
    with pytest.raises(StorageFailed, match="in use"):
        await Node("a", one.config).keys.start()
    await one.keys.stop()
    right = one.config.master_key.read_bytes()
    one.config.master_key.write_bytes(bytes(32))
    with pytest.raises(StorageFailed, match="does not open"):
        await Node("a", one.config).keys.start()
    one.config.master_key.write_bytes(right[:31])
    with pytest.raises(StorageFailed, match="31 octets"):
        await Node("a", one.config).keys.start()
    one.config.master_key.write_bytes(right)
    one.config.master_key.chmod(0o640)
    with pytest.raises(StorageFailed, match="chmod 600"):
        await Node("a", one.config).keys.start()


async def test_no_key_on_disk_or_in_logs(net: Net, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    await line(net, "abc", 8)
    link = await net.route(9, "a", "b", "c")
    await open_stream(net, "a", "c", [link], size=16)
    keys = [(await read(net.nodes["a"], None))[1] for _ in range(20)]
    await net.nodes["c"].crash()
    await net.nodes["c"].restart()
    keys += [bytes(material(link_id(1), number).view()[:16]) for number in range(8)]
    files = b"".join(
        path.read_bytes() for node in net.nodes.values() for path in node.config.store.parent.iterdir() if path.is_file()
    )
    said = caplog.text
    for key in keys:
        assert key not in files
        assert key.hex() not in said and repr(key) not in said


# Sessions ----------------------------------------------------------------------------------------------------------------


async def test_strangers_are_refused(net: Net) -> None:
    """A certificate of the network, but another node's than the one that is expected."""
    a, b = await net.node("a"), await net.node("b")
    mallory = await net.node("c")
    link = link_id(1)
    await b.configure_link(net.physical(link, "b", "a"))
    await a.configure_link(replace(net.physical(link, "a", "b"), remote_lkms=mallory.endpoint))
    await mallory.configure_link(net.physical(link, "c", "b"))
    await asyncio.sleep(0.5)
    assert not any(node.keys._peers.session(other.id) for node in (a, b, mallory) for other in (a, b, mallory))
    await a.configure_link(net.physical(link, "a", "b"))
    await until(lambda: a.keys._peers.session(b.id) is not None)


# Relay -------------------------------------------------------------------------------------------------------------------


async def test_a_virtual_link_carries_key_that_nodes_in_between_forget(net: Net) -> None:
    await line(net, "abcd", 60)
    link = await net.route(9, "a", "b", "c", "d")
    a, b, c, d = net.nodes.values()
    await until(lambda: a.keys.levels(link).usable_bits > 0)
    await open_stream(net, "a", "d", [link])
    ones = [await read(a, index) for index in range(300)]
    others = [await read(d, index) for index in range(300)]
    assert ones == others
    assert others[-1][2] == 2
    for between in (b, c):
        assert between.keys.levels(link).stored_bits == 0
        assert between.keys.relay_totals(link).held_bits == 0
        assert between.keys.relay_totals(link).relayed_bits > 0
        with sqlite3.connect(between.config.store) as database:
            assert not database.execute("SELECT * FROM blocks WHERE link = ?", (link,)).fetchall()
    assert not any(node.seen.alarms for node in net.nodes.values())
    audit(net, *map(link_id, (1, 2, 3, 9)))


async def test_the_source_may_have_the_higher_id(net: Net) -> None:
    await line(net, "abc", 30)
    link = await net.route(9, "c", "b", "a")
    await open_stream(net, "c", "a", [link])
    assert await read(net.nodes["a"], 3) == await read(net.nodes["c"], 3)


async def test_a_virtual_link_takes_another_route(net: Net) -> None:
    """a–b–d first; then b is gone, and the link goes over c. The stream does not notice."""
    for name in "abcd":
        await net.node(name)
    for number, (one, other) in enumerate(("ab", "bd", "ac", "cd"), 1):
        await net.feed(await net.fibre(number, one, other), one, other, 16)
    link = await net.route(9, "a", "b", "d")
    a, b, _, d = net.nodes.values()
    await open_stream(net, "a", "d", [link], size=1024)
    ones = [await read(a, index) for index in range(10)]
    await b.crash()
    await net.route(9, "a", "c", "d")
    ones += [await read(a, index) for index in range(10, 70)]
    assert ones == [await read(d, index) for index in range(70)]
    await b.restart()
    audit(net, *map(link_id, (1, 2, 3, 4, 9)))


async def test_what_is_tampered_with_is_noticed_and_never_stored(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    await line(net, "abc", 30)
    a, b, c = net.nodes.values()
    honest = b.keys._send

    def tampering(peer: object, message: object) -> None:
        if isinstance(message, Relay):
            message = Relay(
                message.link,
                message.hops,
                message.blocks,
                message.pad,
                bytes([message.ciphertext[0] ^ 1]) + message.ciphertext[1:],
                message.tag,
            )
        honest(peer, message)  # type: ignore[arg-type]

    monkeypatch.setattr(b.keys._relays, "send", tampering)
    link = await net.route(9, "a", "b", "c")
    await until(lambda: bool(c.seen.alarms))
    assert "not authentic" in c.seen.alarms[0]
    assert c.keys.levels(link).stored_bits == 0
    await until(lambda: a.keys.relay_totals(link).failures > 0)
    assert a.keys.levels(link).usable_bits == 0
    monkeypatch.setattr(b.keys._relays, "send", honest)
    await until(lambda: c.keys.levels(link).usable_bits > 0)


async def test_a_relay_without_pads_waits_then_gives_up(net: Net) -> None:
    for name in "abc":
        await net.node(name, doubt_seconds=1.0)
    await net.feed(await net.fibre(1, "a", "b"), "a", "b", 30)
    last = await net.fibre(2, "b", "c")
    link = await net.route(9, "a", "b", "c")
    a, b, c = net.nodes.values()
    await until(lambda: b.keys.relay_totals(link).held_bits > 0)
    await until(lambda: a.keys.relay_totals(link).failures > 0)
    await net.feed(last, "b", "c", 30)
    await until(lambda: c.keys.levels(link).usable_bits > 0)
    await until(lambda: b.keys.relay_totals(link).held_bits == 0)


def rows(node: Node, table: str) -> int:
    with suppress(sqlite3.OperationalError), sqlite3.connect(node.config.store) as database:
        return int(database.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
    return -1


# Without key in common ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", ["abc", "cba"])
@pytest.mark.parametrize("loser", [0, 2], ids=["source", "far_end"])
async def test_a_virtual_link_begins_anew_when_an_end_has_lost_all_key(net: Net, names: str, loser: int) -> None:
    """Neither end can tag what it has to tell the other, until the source has relayed a block for each of them."""
    for name in sorted(names):
        await net.node(name)
    fibres = [await net.fibre(number, *sorted(pair)) for number, pair in enumerate(pairwise(names), 1)]
    for number, pair in zip(fibres, pairwise(names), strict=True):
        await net.feed(number, *pair, 40)
    link = await net.route(9, *names)
    ends = net.nodes[names[0]], net.nodes[names[-1]]
    await until(lambda: min(end.keys.levels(link).usable_bits for end in ends) > 0)
    lost = net.nodes[names[loser]]
    await lost.keys.stop()
    maintenance.purge(lost.config.store, None, True)
    await lost.restart()
    for number, pair in zip(fibres, pairwise(names), strict=True):
        if lost.name in pair:
            await net.feed(number, *pair, 40)
    await until(lambda: ends[0].keys.levels(link).usable_bits == ends[1].keys.levels(link).usable_bits > 0, 20)
    await open_stream(net, *sorted(names[::2]), [link])
    ones = [await read(ends[0], None) for _ in range(20)]
    assert ones == [await read(ends[1], None) for _ in range(20)]
    assert not any(node.seen.alarms for node in net.nodes.values())
    audit(net, link, *fibres)


@pytest.mark.parametrize("who", ["a", "b"])
async def test_ends_that_meet_late_in_a_session_know_what_to_tag_with(net: Net, who: str) -> None:
    """None of the blocks that were offered at its beginning is left."""
    await line(net, "ab", 2)
    a, b = net.nodes.values()
    link = link_id(1)
    await until(lambda: a.keys.levels(link).usable_bits == b.keys.levels(link).usable_bits > 0)
    session, pool = a.keys._peers.session(b.id), net.nodes[who].keys._pools[link]
    await net.feed(link, "a", "b", 40)
    await until(lambda: a.keys.levels(link).usable_bits == b.keys.levels(link).usable_bits > 8 * 4096 * 40)
    await open_stream(net, "a", "b", [link], 1024)
    ones = [await read(a, index) for index in range(100)]
    b.keys._pools[link].burn([1])
    await until(lambda: not {0, 1} & set(a.keys._pools[link]._blocks))
    for node in (a, b):
        for channel in node.keys._channels.values():
            channel._book.wipe()
            channel._book = Key(bytearray())  # none is left over
    pool.meet()
    assert not pool.synced
    await until(lambda: a.keys._pools[link].synced and b.keys._pools[link].synced)
    assert ones == [await read(b, index) for index in range(100)]
    assert await read(a, None) == await read(b, None) and a.keys._peers.session(b.id) is session


async def test_ends_without_any_key_say_so_once(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[WireMessage] = []

    def send(session: Session, message: WireMessage, sent: Callable[[Session, WireMessage], None] = Session.send) -> None:
        said.append(message)
        sent(session, message)

    monkeypatch.setattr(Session, "send", send)
    a, b = [await net.node(name) for name in "ab"]
    link = await net.fibre(1, "a", "b")
    await until(lambda: sum(isinstance(one, Ping) for one in said) >= 4 or len(said) > 50)
    assert sum(isinstance(one, Offer) for one in said) <= 8
    assert all(node.keys._pools[link].peer_short for node in (a, b))
    await net.feed(link, "a", "b", 4)
    await until(lambda: a.keys.levels(link).usable_bits == b.keys.levels(link).usable_bits > 0)


async def test_what_is_told_for_too_long_without_key_ends_the_session(net: Net, caplog: pytest.LogCaptureFixture) -> None:
    a, b = [await net.node(name) for name in "ab"]
    link = await net.fibre(1, "a", "b")
    await until(lambda: a.keys._peers.session(b.id) is not None)
    session = a.keys._peers.session(b.id)
    for _ in range(MAX_WAITING + 1):
        a.keys._send(b.id, Have(link, (), False))
    await until(lambda: a.keys._peers.session(b.id) not in (session, None))
    assert "no key to tell a key manager anything with" in caplog.text
    await net.feed(link, "a", "b", 4)
    await until(lambda: a.keys.levels(link).usable_bits == b.keys.levels(link).usable_bits > 0)
    assert not a.seen.alarms and not b.seen.alarms


# What must not end a part for ever --------------------------------------------------------------------------------------


class _Counted:
    """A number of another kind than int, such as numpy's, which SQLite does not take."""

    def __init__(self, value: int) -> None:
        self._value = value

    def __index__(self) -> int:
        return self._value

    def __le__(self, other: int) -> bool:
        return self._value <= other

    def __gt__(self, other: int) -> bool:
        return self._value > other

    def __mod__(self, other: int) -> int:
        return self._value % other


async def test_a_block_number_that_is_no_int_does_not_fail_the_store_for_ever(net: Net) -> None:
    """One device of a vendor who counts with a library would keep all links of the node from being written."""
    await line(net, "ab", 2)
    a, b = net.nodes.values()
    await until(lambda: a.keys.levels(link_id(1)).usable_bits == b.keys.levels(link_id(1)).usable_bits > 0)
    for node in (a, b):
        await node.keys.deliver(link_id(1), cast(int, _Counted(50)), material(link_id(1), 50))
    with pytest.raises(TypeError):
        await a.keys.deliver(link_id(1), cast(int, 51.0), material(link_id(1), 51))
    await until(lambda: all(one.keys.levels(link_id(1)).usable_bits > 2 * 8 * 4096 for one in (a, b)), 3)
    for node in (a, b):
        await node.keys._store.commit()
        assert node.seen.alarms == []
        await node.keys.stop()
        await node.restart()  # all rows open


async def test_a_tick_that_fails_is_not_the_last_one(net: Net, caplog: pytest.LogCaptureFixture) -> None:
    """Expiry, what was released ahead, the folding of the log and who waits for a disk all rest on it."""
    await line(net, "ab", 2)
    a, _ = net.nodes.values()
    real, ticks = a.keys._expire, list[str]()

    def expire() -> None:
        ticks.append("tick")
        if len(ticks) == 1:
            raise RuntimeError("a defect")
        real()

    a.keys._expire = expire  # type: ignore[method-assign]
    await until(lambda: len(ticks) > 1, 5)
    assert "a defect" in caplog.text


async def test_a_dial_that_fails_in_an_unforeseen_way_is_not_the_last_one(
    net: Net, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Such as a RuntimeError of the loop about a closed handle: the peer would never be reached again."""
    loop, calls = asyncio.get_running_loop(), list[str]()
    real = loop.create_connection

    async def connect(*args: Any, **options: Any) -> Any:
        calls.append("dial")
        if len(calls) == 1:
            raise RuntimeError("unable to perform operation on a closed handle")
        return await real(*args, **options)

    monkeypatch.setattr(loop, "create_connection", connect)
    await line(net, "ab", 2)
    a, b = net.nodes.values()
    await until(lambda: all(one.keys.levels(link_id(1)).usable_bits > 0 for one in (a, b)), 5)
    assert "closed handle" in caplog.text


async def test_a_block_that_no_message_can_name_is_not_taken_in(net: Net, caplog: pytest.LogCaptureFixture) -> None:
    """Offsets in it would go beyond what a message may say: the two nodes would end every session of theirs, for ever."""
    await line(net, "ab", 2)
    a, b = net.nodes.values()
    await until(lambda: a.keys.levels(link_id(1)).usable_bits == b.keys.levels(link_id(1)).usable_bits > 0)
    for node in (a, b):
        await node.keys.deliver(link_id(1), 50, material(link_id(1), 50, MAX_MESSAGE + 1))
        await node.keys.deliver(link_id(1), 51, material(link_id(1), 51, MAX_MESSAGE))
    if (session := a.keys._peers.session(b.id)) is not None:
        session.close()
    await until(lambda: all(one.keys.levels(link_id(1)).usable_bits > 8 * (MAX_MESSAGE + 4096) for one in (a, b)), 5)
    await open_stream(net, "a", "b", [link_id(1)])
    assert await read(a, None) == await read(b, None)
    assert "broken" not in caplog.text
    assert all(len(one.seen.alarms) == 1 and "block 50" in one.seen.alarms[0] for one in (a, b))
