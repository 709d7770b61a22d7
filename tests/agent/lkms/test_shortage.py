"""What is told of who draws from a link, to the bit as the ledgers have it, and of who waits, as long as it is so."""

import asyncio
from collections import Counter
from itertools import pairwise

from key_managers import Net, Node, link_id, node_id, until

from qswitch.agent.lkms.contents import ledger
from qswitch.agent.lkms.manager import DeliveryConfig, StreamConfig
from qswitch.agent.lkms.promises import UNPROMISED, Terms
from qswitch.agent.model import KeyStreamId, LinkId

KSID = KeyStreamId("99999999-0000-4000-8000-000000000001")
OTHER = KeyStreamId("99999999-0000-4000-8000-000000000002")
PAIR = KeyStreamId("77777777-0000-4000-8000-000000000001")
A_BLOCK = 8 * 4096


async def line(net: Net, names: str, blocks: int) -> None:
    for name in names:
        await net.node(name)
    for number, (one, other) in enumerate(pairwise(names), 1):
        await net.feed(await net.fibre(number, one, other), one, other, blocks)


async def stream(
    net: Net, one: str, other: str, link: LinkId, size: int = 32, terms: Terms = UNPROMISED, ksid: KeyStreamId = KSID
) -> None:
    for here, there in ((one, other), (other, one)):
        config = StreamConfig(ksid, node_id(there), (link,), size, terms=terms)
        await net.nodes[here].configure_stream(config)
        await net.nodes[here].keys.attach(ksid)


async def associate(net: Net, one: str, other: str, link: LinkId) -> None:
    for here, there in ((one, other), (other, one)):
        await net.nodes[here].configure_delivery(DeliveryConfig(PAIR, node_id(there), (link,)))


async def used(node: Node, link: LinkId) -> dict[str, int]:
    """Bits by consumer, as the node's ledger has them."""
    await node.keys._store.commit()
    found: Counter[str] = Counter()
    for row in ledger(node.config.store):
        if row.link == link and row.kind != "burnt":
            name = row.kind if row.kind in ("tag", "relay") else row.consumer.partition("/")[0]
            found[name] += 8 * row.length
    return dict(found)


async def at_rest(node: Node, link: LinkId) -> tuple[dict[str, int], int]:
    """What is drawn and consumed, while the ledger does not change."""
    async with asyncio.timeout(10):
        while True:
            before = await used(node, link)
            drawn, consumed = dict(node.keys.drawn(link)), node.keys.levels(link).consumed_bits
            if before == await used(node, link):
                return drawn, consumed


async def test_what_is_drawn_is_what_the_ledgers_of_both_ends_have(net: Net) -> None:
    await line(net, "abc", 60)
    a, b, c = net.nodes.values()
    route = await net.route(9, "a", "b", "c", bandwidth_bps=100_000)
    await stream(net, "a", "b", link_id(1), 256)
    await associate(net, "a", "c", route)
    for index in range(100):
        (await a.keys.get_chunk(KSID, index)).key.wipe()
    async with asyncio.timeout(10):
        for master in (a, c):
            await master.keys.take_keys(PAIR, 40, 32)
    for link, ends in ((link_id(1), (a, b)), (link_id(2), (b, c)), (route, (a, c))):
        for node in ends:
            drawn, consumed = await at_rest(node, link)
            assert drawn == await used(node, link)
            assert sum(drawn.values()) == consumed
            if link != route:
                assert node.keys.levels(link).generated_bits == 60 * A_BLOCK
                assert drawn["relay"] == node.keys.relay_totals(link).pad_bits > 0
    assert a.keys.drawn(link_id(1))[KSID] == b.keys.drawn(link_id(1))[KSID] >= 100 * 256 * 8
    assert a.keys.drawn(route)[PAIR] == c.keys.drawn(route)[PAIR] >= 80 * 32 * 8
    await a.keys.remove_stream(KSID)
    assert KSID not in a.keys.drawn(link_id(1))


async def test_a_stream_waits_at_both_ends_until_there_is_key(net: Net) -> None:
    await line(net, "ab", 2)
    a, b = net.nodes.values()
    await stream(net, "a", "b", link_id(1), 1024)
    assert not a.keys.waiting() and not b.keys.waiting()
    asked = [asyncio.ensure_future(node.keys.get_chunk(KSID, 20)) for node in (a, b)]
    for node in (a, b):
        await until(lambda: node.keys.waiting() == {link_id(1)} and node.keys.waits(KSID))  # noqa: B023
    await net.feed(link_id(1), "a", "b", 12)
    async with asyncio.timeout(10):
        for chunk in await asyncio.gather(*asked):
            chunk.key.wipe()
    for node in (a, b):
        await until(lambda: not node.keys.waiting() and not node.keys.waits(KSID))  # noqa: B023
    assert a.keys.allocated_bits(KSID) == b.keys.allocated_bits(KSID) >= 21 * 8 * 1024


async def test_nobody_waits_once_either_application_has_closed(net: Net) -> None:
    await line(net, "ab", 2)
    a, b = net.nodes.values()
    await stream(net, "a", "b", link_id(1), 1024)
    asked = asyncio.ensure_future(a.keys.get_chunk(KSID, 20))
    await until(lambda: a.keys.waits(KSID))
    await b.keys.detach(KSID)
    await until(lambda: not a.keys.waiting())
    asked.cancel()


async def test_what_a_stream_was_promised_is_not_kept_for_it_once_either_application_has_closed(net: Net) -> None:
    await line(net, "ab", 8)
    a, b = net.nodes.values()
    await stream(net, "a", "b", link_id(1), 64 * 1024, Terms(1_000_000))
    asked = asyncio.ensure_future(a.keys.get_chunk(KSID, 0))
    await until(lambda: a.keys.waits(KSID))
    await b.keys.detach(KSID)
    await until(lambda: not a.keys.peer_attached(KSID))
    await stream(net, "a", "b", link_id(1), 1024, ksid=OTHER)
    async with asyncio.timeout(5):
        (await a.keys.get_chunk(OTHER, 5)).key.wipe()
    asked.cancel()


async def test_who_asks_for_a_key_with_an_id_waits_too(net: Net) -> None:
    await line(net, "ab", 2)
    a, b = net.nodes.values()
    await associate(net, "a", "b", link_id(1))
    assert not a.keys.waiting()
    asked = asyncio.ensure_future(a.keys.take_keys(PAIR, 20, 1024))
    await until(lambda: a.keys.waiting() == {link_id(1)} and a.keys.waits(PAIR))
    assert not b.keys.waiting()
    asked.cancel()  # refused for want of key, as after its time
    await until(lambda: not a.keys.waiting())


async def test_a_virtual_link_waits_for_what_it_was_promised_and_for_no_more(net: Net) -> None:
    await line(net, "abc", 6)
    a = net.nodes["a"]
    route = await net.route(9, "a", "b", "c")  # promised nothing: it takes what is left, and there is none
    await until(lambda: bool(a.keys._relays.lacking))
    assert not a.keys.waiting()
    await net.route(9, "a", "b", "c", bandwidth_bps=10_000_000)
    await until(lambda: a.keys.waiting() == {link_id(1)})
    assert route not in a.keys.waiting()
