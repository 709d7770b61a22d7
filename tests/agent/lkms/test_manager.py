"""Key managers together: the same key at both ends, over one link and over many, through crashes and changes."""

import asyncio
from collections.abc import Iterable

from key_managers import Net, Node, node_id, until

from qswitch.agent.lkms.manager import StreamConfig
from qswitch.agent.model import KeyStreamId, LinkId

KSID = KeyStreamId("99999999-0000-4000-8000-000000000001")


async def open_stream(
    net: Net, one: str, other: str, links: Iterable[LinkId], size: int = 32, ksid: KeyStreamId = KSID
) -> None:
    for here, there in ((one, other), (other, one)):
        await net.nodes[here].keys.configure_stream(StreamConfig(ksid, node_id(there), tuple(links), size))
        await net.nodes[here].keys.attach(ksid)


async def read(node: Node, index: int | None, ksid: KeyStreamId = KSID) -> tuple[int, bytes, int]:
    async with asyncio.timeout(10):
        chunk = await node.keys.get_chunk(ksid, index)
    return chunk.index, bytes(chunk.key.view()), chunk.hops


async def test_both_ends_of_a_link_read_the_same(net: Net) -> None:
    a, b = await net.node("a"), await net.node("b")
    link = await net.fibre(1, "a", "b")
    await net.feed(link, "a", "b", 8)
    await open_stream(net, "a", "b", [link])
    async with asyncio.timeout(10):
        await a.keys.wait_peer_attached(KSID)
    assert b.keys.peer_attached(KSID)
    ones = [await read(a, None) for _ in range(200)]
    others = [await read(b, index) for index in range(200)]
    assert ones == others
    assert len({key for _, key, _ in ones}) == 200
    assert a.keys.consumed_bits(KSID) == b.keys.consumed_bits(KSID) == 200 * 256
    assert not a.seen.alarms and not b.seen.alarms


async def test_a_virtual_link_carries_key_that_nodes_in_between_forget(net: Net) -> None:
    for name in "abcd":
        await net.node(name)
    for number, (one, other) in enumerate(("ab", "bc", "cd"), 1):
        await net.feed(await net.fibre(number, one, other), one, other, 60)
    link = await net.route(9, "a", "b", "c", "d")
    a, b, c, d = (net.nodes[name] for name in "abcd")
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
    assert not any(node.seen.alarms for node in net.nodes.values())
