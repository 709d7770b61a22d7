"""What relay costs when a node goes, or a message: its own pads, and nothing else. What relay nodes keep: nothing."""

import asyncio
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from key_managers import Net, Node, audit, link_id, until

from qswitch.agent.lkms import inspection, store
from qswitch.agent.lkms.contents import SEALED
from qswitch.agent.lkms.database import mark, unseal
from qswitch.agent.lkms.manager import StreamConfig
from qswitch.agent.lkms.master_key import find
from qswitch.agent.lkms.seal import opened
from qswitch.agent.model import KeyStreamId

KSID = KeyStreamId("99999999-0000-4000-8000-000000000001")
VIRTUAL = link_id(9)


async def line(net: Net, names: str, blocks: int, **options: object) -> list[Node]:
    for name in names:
        await net.node(name, **options)
    for number, (one, other) in enumerate(pairwise(names), 1):
        await net.feed(await net.fibre(number, one, other), one, other, blocks)
    return list(net.nodes.values())


async def use_up(one: Node, other: Node, chunks: int) -> None:
    """Makes the virtual link draw new key."""
    for here, there in ((one, other), (other, one)):
        await here.configure_stream(StreamConfig(KSID, there.id, (VIRTUAL,), 4096))
        await here.keys.attach(KSID)
    for index in range(chunks):
        async with asyncio.timeout(10):
            assert (await one.keys.get_chunk(KSID, index)).key == (await other.keys.get_chunk(KSID, index)).key


def burnt(*nodes: Node) -> int:
    return sum(node.keys.levels(VIRTUAL).burnt_bits for node in nodes)


async def test_a_next_hop_that_comes_back_soon_costs_nothing(net: Net) -> None:
    """Key on its way waits at the node before, in memory, and arrives."""
    a, b, c, d = await line(net, "abcd", 200, doubt_seconds=20.0)
    await net.route(9, *"abcd")
    await until(lambda: a.keys.levels(VIRTUAL).usable_bits == d.keys.levels(VIRTUAL).usable_bits > 8 * 4096 * 62)
    await c.crash()
    await until(lambda: b.keys._peers.session(c.id) is None)
    reading = asyncio.create_task(use_up(a, d, 40))
    await until(lambda: b.keys.relay_totals(VIRTUAL).held_bits > 0)
    await c.restart()
    await reading
    await until(lambda: b.keys.relay_totals(VIRTUAL).held_bits == 0)
    await until(lambda: a.keys.levels(VIRTUAL).usable_bits == d.keys.levels(VIRTUAL).usable_bits > 8 * 4096 * 51)
    assert burnt(a, d) == 0 and a.keys.relay_totals(VIRTUAL).failures == 0
    assert not any(node.seen.alarms for node in net.nodes.values())
    audit(net, VIRTUAL, *map(link_id, (1, 2, 3)))


async def test_relayed_key_waits_for_nothing_before_it_is_written(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until then a crash of the far end burns the pads it came under: notes of blocks may linger, this one may not."""
    a, _, c = await line(net, "abc", 400)
    await net.route(9, *"abc")
    await until(lambda: a.keys.levels(VIRTUAL).usable_bits == c.keys.levels(VIRTUAL).usable_bits > 8 * 4096 * 62)
    monkeypatch.setattr(store, "LINGER_SECONDS", 3600.0)
    await net.route(9, *"abc", bandwidth_bps=2_500_000)  # of which twice as much is kept ready
    await until(lambda: a.keys.levels(VIRTUAL).usable_bits == c.keys.levels(VIRTUAL).usable_bits > 8 * 4096 * 148)
    audit(net, VIRTUAL, *map(link_id, (1, 2)))


async def test_a_next_hop_that_does_not_come_back_costs_what_was_on_its_way(net: Net) -> None:
    a, b, c, d = await line(net, "abcd", 200, doubt_seconds=2.0)
    await net.route(9, *"abcd")
    await until(lambda: a.keys.levels(VIRTUAL).usable_bits == d.keys.levels(VIRTUAL).usable_bits > 8 * 4096 * 62)
    await c.crash()
    await until(lambda: b.keys._peers.session(c.id) is None)
    reading = asyncio.create_task(use_up(a, d, 40))
    await until(lambda: b.keys.relay_totals(VIRTUAL).held_bits > 0)
    held = b.keys.relay_totals(VIRTUAL).held_bits
    await until(lambda: a.keys.relay_totals(VIRTUAL).failures > 0)
    await reading
    await until(lambda: a.keys.levels(VIRTUAL).burnt_bits >= held)
    assert d.keys.levels(VIRTUAL).burnt_bits == 0, "what has arrived stays"
    await c.restart()
    await until(lambda: a.keys.levels(VIRTUAL).usable_bits == d.keys.levels(VIRTUAL).usable_bits > 8 * 4096 * 51)
    audit(net, VIRTUAL, *map(link_id, (1, 2, 3)))


def rows(node: Node) -> bytes:
    """All key that a node's store holds, opened with its master key."""
    with inspection.reading(node.config.store) as database:
        seal = unseal(database, find(node.config.master_key, mark(database)).key)
        return b"".join(bytes(key.view()) for _, _, key in opened(database, SEALED, seal) if key is not None)


def files(node: Node) -> Iterator[tuple[Path, bytes]]:
    for path in node.config.store.parent.iterdir():
        if path.is_file():
            yield path, path.read_bytes()


def made_by(node: Node) -> list[bytes]:
    """The beginnings of all blocks of the virtual link at its source."""
    return [bytes(block.key.view()[:32]) for block in node.keys._pools[VIRTUAL]._blocks.values()]


async def test_relay_nodes_write_no_relayed_key(net: Net) -> None:
    """Neither what has passed, nor what waits there for pads, nor when they are killed: in no file, and no row opened."""
    for name in "abc":
        await net.node(name, doubt_seconds=20.0)
    a, b, c = net.nodes.values()
    for number, (one, other), blocks in ((1, "ab", 200), (2, "bc", 20)):
        await net.feed(await net.fibre(number, one, other), one, other, blocks)
    await net.route(9, *"abc")
    await until(lambda: c.keys.levels(VIRTUAL).usable_bits > 0 and b.keys.relay_totals(VIRTUAL).held_bits > 0)
    await b.keys._store.commit()
    relayed = made_by(a)
    assert len(relayed) > len(c.keys._pools[VIRTUAL]._blocks) > 4
    check_nothing(b, relayed)
    assert all(key in rows(a) for key in relayed), "what is looked for would be found"
    await b.crash()
    check_nothing(b, relayed)


def check_nothing(node: Node, keys: list[bytes]) -> None:
    content = rows(node)
    assert not any(key in content for key in keys)
    for path, octets in files(node):
        assert not any(key in octets for key in keys), path
