"""Key over several paths: what the ends get, what the nodes between see of it, and what becomes of lost shares."""

import itertools
import sqlite3
from dataclasses import replace
from functools import reduce

import msgspec
import pytest
from key_managers import Net, audit, link_id, node_id, until

from qswitch.agent.lkms.core import far_end
from qswitch.agent.lkms.keys import Key
from qswitch.agent.lkms.manager import StreamConfig
from qswitch.agent.lkms.relay import Relays
from qswitch.agent.model import KeyStreamId, LinkConfig, LinkId, LinkType, NodeId
from qswitch.protocol.lkms import Relay

KSID = KeyStreamId("9f1c1c62-77a8-4a3e-9b63-0f5b9a1d0001")
FIBRES = ("ab", "be", "ac", "ce", "ad", "de")
ROUTES = ("abe", "ace", "ade")


async def star(net: Net, blocks: int = 40, **options: object) -> None:
    """a and e, joined over b, over c and over d."""
    for name in "abcde":
        await net.node(name, **options)
    for number, (one, other) in enumerate(FIBRES, 1):
        await net.feed(await net.fibre(number, one, other), one, other, blocks)


async def read(net: Net, name: str, index: int) -> tuple[bytes, int]:
    chunk = await net.nodes[name].keys.get_chunk(KSID, index)
    return bytes(chunk.key.view()), chunk.hops


async def open_stream(net: Net, one: str, other: str, link: LinkId, size: int = 64) -> None:
    for here, there in ((one, other), (other, one)):
        await net.nodes[here].configure_stream(StreamConfig(KSID, node_id(there), (link,), size, None))
        await net.nodes[here].keys.attach(KSID)


def stored(net: Net, name: str, link: LinkId) -> dict[int, bytes]:
    """What an end holds of a link's blocks, whole ones only."""
    blocks = net.nodes[name].keys._pools[link]._blocks.values()
    return {one.number: bytes(one.key.view()) for one in blocks if len(one.key) == one.size}


def xor(*keys: bytes) -> bytes:
    return reduce(lambda one, other: bytes(a ^ b for a, b in zip(one, other, strict=True)), keys)


FORWARD = Relays._forward


async def test_no_relay_nor_any_two_know_what_the_ends_share(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    await star(net)
    seen: dict[str, dict[int, bytes]] = {name: {} for name in "bcd"}

    def spy(self: Relays, sender: NodeId, message: Relay, key: Key, now: float) -> None:
        mine = next((seen[name] for name in "bcd" if net.nodes[name].keys._relays is self), None)
        if mine is not None:
            octets = bytes(key.view())
            for at, (number, size) in enumerate(message.blocks):
                assert number not in mine
                mine[number] = octets[at * size : at * size + 4096]  # what follows is for the tag
        FORWARD(self, sender, message, key, now)

    monkeypatch.setattr(Relays, "_forward", spy)
    link = await net.paths(90, *ROUTES)
    a, e = net.nodes["a"], net.nodes["e"]
    await until(lambda: e.keys.levels(link).usable_bits > 8 * 4096 * 10)
    keys = stored(net, "a", link)
    at_far_end = stored(net, "e", link)
    both = keys.keys() & at_far_end.keys()
    assert len(both) >= 10
    for number in both:
        shares = [seen[name][number] for name in "bcd"]
        assert keys[number] == at_far_end[number] == xor(*shares)
        for count in (1, 2):
            assert all(xor(*some) != keys[number] for some in itertools.combinations(shares, count))
    await open_stream(net, "a", "e", link)
    ones = [await read(net, "a", index) for index in range(200)]
    assert ones == [await read(net, "e", index) for index in range(200)]
    assert ones[-1][1] == 1, "one node on each way"
    for name in "bcd":
        relay = net.nodes[name]
        with sqlite3.connect(relay.config.store) as database:
            assert {row[0] for row in database.execute("SELECT DISTINCT link FROM blocks")} <= set(map(link_id, range(1, 7)))
    assert not any(node.seen.alarms for node in net.nodes.values())
    assert a.keys.relay_totals(link).pad_bits > 3 * a.keys.relay_totals(link).relayed_bits
    audit(net, *map(link_id, (*range(1, 7), 90)))


async def test_the_direct_link_may_be_one_of_the_paths_and_the_source_the_higher_end(net: Net) -> None:
    for name in "abc":
        await net.node(name)
    for number, (one, other) in enumerate(("ab", "bc", "ac"), 1):
        await net.feed(await net.fibre(number, one, other), one, other, 20)
    link = await net.paths(90, "ca", "cba")
    await open_stream(net, "c", "a", link)
    assert [await read(net, "a", index) for index in range(50)] == [await read(net, "c", index) for index in range(50)]
    audit(net, *map(link_id, (1, 2, 3, 90)))


async def test_pads_for_all_first_hops_are_taken_or_none(net: Net) -> None:
    for name in "abcde":
        await net.node(name)
    for number, (one, other) in enumerate(FIBRES, 1):
        link = await net.fibre(number, one, other)
        if (one, other) != ("a", "d"):
            await net.feed(link, one, other, 40)
    link = await net.paths(90, *ROUTES)
    a, e = net.nodes["a"], net.nodes["e"]
    await until(lambda: a.keys._pools[link].heard)
    assert not any(a.keys.relay_totals(link_id(number)).pad_bits for number in (1, 3, 5, 91, 92, 93))
    await net.feed(link_id(5), "a", "d", 16)
    await until(lambda: e.keys.levels(link).usable_bits > 0 and a.keys._pools[link_id(5)].available < 4096 + 32)
    spent = [[a.keys.relay_totals(link_id(number)).pad_bits for number in numbers] for numbers in ((1, 3, 5), (91, 92, 93))]
    assert spent[0] == spent[1] and len(set(spent[0])) == 1, "as much to every neighbour"


async def test_a_path_that_fails_costs_what_was_on_its_way_and_heals(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    await star(net, 60)
    a, c, e = (net.nodes[name] for name in "ace")
    honest, sent = c.keys._send, 0

    def losing(peer: NodeId, message: object) -> None:
        nonlocal sent
        if isinstance(message, Relay):
            sent += 1
            if sent == 2:
                changed = bytes([message.ciphertext[0] ^ 1]) + message.ciphertext[1:]
                message = msgspec.structs.replace(message, ciphertext=changed)
        honest(peer, message)  # type: ignore[arg-type]

    monkeypatch.setattr(c.keys._relays, "send", losing)
    a.keys._relays.pause_seconds = 0.1
    link = await net.paths(90, *ROUTES)
    await until(lambda: a.keys.relay_totals(link_id(92)).failures > 0)
    await until(lambda: e.keys.levels(link).usable_bits > 8 * 4096 * 40)
    assert "not authentic" in e.seen.alarms[0]
    assert a.keys.levels(link).burnt_bits >= 8 * 4096
    both = stored(net, "a", link).keys() & stored(net, "e", link).keys()
    assert all(stored(net, "a", link)[one] == stored(net, "e", link)[one] for one in both)
    await until(lambda: e.keys.relay_totals(link).held_bits == 0)
    audit(net, *map(link_id, (*range(1, 7), 90)))


async def test_a_relay_node_that_changes_its_share_is_found_out(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    """The node itself, which has the share in clear and tags what it makes of it."""
    await star(net, 60)
    a, c, e = (net.nodes[name] for name in "ace")
    honest = [False]

    def lying(self: Relays, sender: NodeId, message: Relay, key: Key, now: float) -> None:
        if self is c.keys._relays and not honest[0]:
            for at in range(0, len(key), 4096 + 32):
                key._material[at] ^= 1
        FORWARD(self, sender, message, key, now)

    monkeypatch.setattr(Relays, "_forward", lying)
    a.keys._relays.pause_seconds = 0.1
    link = await net.paths(90, *ROUTES)
    await until(lambda: bool(e.seen.alarms))
    assert "a node on one of the paths has changed them" in e.seen.alarms[0]
    await until(lambda: e.keys.relay_totals(link).failures > 2)
    assert e.keys.levels(link).generated_bits == 0 and a.keys.levels(link).usable_bits == 0
    honest[0] = True
    await until(lambda: e.keys.levels(link).usable_bits > 8 * 4096 * 8)
    mine, theirs = stored(net, "a", link), stored(net, "e", link)
    assert mine.keys() & theirs.keys() and all(mine[one] == theirs[one] for one in mine.keys() & theirs.keys())


async def test_a_crash_of_the_destination_loses_shares_and_nothing_else(net: Net) -> None:
    await star(net, 60)
    a, e = net.nodes["a"], net.nodes["e"]
    link = await net.paths(90, *ROUTES)
    await open_stream(net, "a", "e", link)
    ones = [await read(net, "a", index) for index in range(20)]
    others = [await read(net, "e", index) for index in range(10)]
    for name in ("e", "b", "a"):
        await net.nodes[name].crash()
        await net.nodes[name].restart()
    ones += [await read(net, "a", index) for index in range(20, 200)]
    others += [await read(net, "e", index) for index in range(10, 200)]
    assert ones == others
    assert not a.seen.alarms and not e.seen.alarms
    await until(lambda: e.keys.relay_totals(link).held_bits == 0)
    audit(net, *map(link_id, (*range(1, 7), 90)))


async def test_a_share_that_never_comes_is_given_up_at_both_ends(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    await star(net, 60, doubt_seconds=1.0)
    a, b, e = (net.nodes[name] for name in "abe")
    honest, silent = b.keys._send, [True]

    def losing(peer: NodeId, message: object) -> None:
        if not (silent[0] and isinstance(message, Relay)):
            honest(peer, message)  # type: ignore[arg-type]

    monkeypatch.setattr(b.keys._relays, "send", losing)
    link = await net.paths(90, *ROUTES)
    await until(lambda: e.keys.relay_totals(link).held_bits > 0)
    waiting = e.keys._relays.shares[link].waiting
    first = min(waiting)
    await until(lambda: first not in waiting)
    assert e.keys.levels(link).generated_bits == 0
    silent[0] = False
    await until(lambda: e.keys.levels(link).usable_bits > 8 * 4096 * 8)
    await until(lambda: a.keys.levels(link).burnt_bits > 0)
    both = stored(net, "a", link).keys() & stored(net, "e", link).keys()
    assert both
    assert all(stored(net, "a", link)[one] == stored(net, "e", link)[one] for one in both)


async def test_a_share_is_never_taken_for_key(net: Net) -> None:
    """The destination believes that what the source sends shares over is a link of its own, or makes key of two shares."""
    await star(net)
    a, e = net.nodes["a"], net.nodes["e"]
    link = await net.paths(90, *ROUTES)
    await until(lambda: e.keys.levels(link).usable_bits > 0)
    for number in (91, 92, 93):
        alone = replace(e.links[link_id(number)], component_of=None, remote_lkms=a.endpoint)
        await e.configure_link(alone)
    await e.configure_link(replace(e.links[link], components=(link_id(91), link_id(92))))
    failures = a.keys.relay_totals(link_id(91)).failures
    await drain(net, link)
    await until(lambda: a.keys.relay_totals(link_id(91)).failures > failures)
    assert all(e.keys.levels(link_id(number)).stored_bits == 0 for number in (91, 92, 93))
    for number in (91, 92):
        await e.configure_link(replace(e.links[link_id(number)], component_of=link))
    before, failures = e.keys.levels(link).generated_bits, a.keys.relay_totals(link_id(91)).failures
    await until(lambda: a.keys.relay_totals(link_id(91)).failures > failures)
    assert e.keys.levels(link).generated_bits == before


async def drain(net: Net, link: LinkId) -> None:
    """Takes what is there of a link, so that the source makes more."""
    net.nodes["a"].keys._pools[link].burn(list(net.nodes["a"].keys._pools[link]._blocks))
    net.nodes["a"].keys._poke()


async def test_another_path_takes_over(net: Net) -> None:
    """From b and c to b and d, as a controller does it: another component for the new path, the ends change at once."""
    await star(net, 150)
    a, e = net.nodes["a"], net.nodes["e"]
    link = await net.paths(90, "abe", "ace")
    await open_stream(net, "a", "e", link, 1024)
    ones = [await read(net, "a", index) for index in range(20)]
    await net.route(95, "a", "d", "e", component_of=link)
    for end in (a, e):
        await end.configure_link(replace(end.links[link], components=(link_id(91), link_id(95))))
        await end.keys.remove_link(link_id(92))
    ones += [await read(net, "a", index) for index in range(20, 200)]
    assert ones == [await read(net, "e", index) for index in range(200)]
    await until(lambda: net.nodes["d"].keys.relay_totals(link_id(95)).relayed_bits > 0)
    audit(net, *map(link_id, (*range(1, 7), 90)))


async def test_what_fewer_paths_brought_is_burnt_when_there_are_to_be_more(net: Net) -> None:
    """A node between knows it, and whoever asks for more paths is to be served from the link."""
    await star(net, 150)
    link = await net.route(90, "a", "b", "e")
    for routes in (("abe", "ace"), ROUTES):
        await until(lambda: len(stored(net, "a", link).keys() & stored(net, "e", link).keys()) > 4)
        known = {*stored(net, "a", link).values(), *stored(net, "e", link).values()}
        await net.paths(90, *routes)
        assert known and not known & {*stored(net, "a", link).values(), *stored(net, "e", link).values()}
    await open_stream(net, "a", "e", link)
    assert await read(net, "a", 0) == await read(net, "e", 0)
    assert not any(node.seen.alarms for node in net.nodes.values())


async def test_what_fewer_paths_brought_is_burnt_also_when_nodes_learn_of_more_as_they_start(net: Net) -> None:
    """Neither end was there when the link was given more paths, so that only their stores know how many there were."""
    await star(net, 150)
    link = await net.route(90, "a", "b", "e")
    await until(lambda: len(stored(net, "a", link).keys() & stored(net, "e", link).keys()) > 4)
    a, e = net.nodes["a"], net.nodes["e"]
    known = {*stored(net, "a", link).values(), *stored(net, "e", link).values()}
    for end in (a, e):
        await end.keys.stop()
        del end.links[link]
    for end in (a, e):
        await end.restart()
    await net.paths(90, *ROUTES)
    await until(lambda: len(stored(net, "a", link).keys() & stored(net, "e", link).keys()) > 4)
    assert known and not known & {*stored(net, "a", link).values(), *stored(net, "e", link).values()}
    kept = stored(net, "a", link)
    await a.crash()
    await a.restart()
    assert stored(net, "a", link).items() & kept.items(), "as many paths as before: it is kept"
    await open_stream(net, "a", "e", link)
    assert await read(net, "a", 0) == await read(net, "e", 0)
    assert [node.seen.alarms for node in (a, e)] == [[], []]


def test_a_component_has_no_store() -> None:
    config = LinkConfig(link_id(1), LinkType.VIRTUAL, remote_node=node_id("b"), next_hops=(node_id("b"),))
    assert far_end(config) == node_id("b")
    assert far_end(replace(config, component_of=link_id(2))) is None
