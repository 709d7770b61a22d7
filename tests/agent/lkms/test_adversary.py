"""A man in the middle of two key managers, with what he may have: a certificate of another node; in the end, TLS itself.

With a valid certificate of another node he can keep two nodes from talking, and that is all: each checks that the other's
certificate names the node that the link leads to. As the node that he is, he has no say in links of others. Who could speak
for both ends, because TLS is broken or two nodes' keys are stolen, can burn key and deny service. What is relayed, and what
the ends tell each other, he can still not change, have taken twice or in another order or session; nor does he learn a key.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from adversary import Middle, Touch, Wire, context_of
from key_managers import Net, Node, audit, link_id, material, node_id, until

from qswitch.agent.lkms.contents import ledger
from qswitch.agent.lkms.lines import Parcel
from qswitch.agent.lkms.manager import StreamConfig
from qswitch.agent.lkms.relay import Relays
from qswitch.agent.model import Endpoint, KeyStreamId, LinkId, NodeId
from qswitch.protocol.lkms import (
    VERSION,
    Alloc,
    AllocAck,
    Attach,
    Codec,
    Give,
    Have,
    Hello,
    KeyAlloc,
    KeyHello,
    Lack,
    LinkHello,
    LinkSync,
    Lost,
    Need,
    Offer,
    Ping,
    Relay,
    RelayNack,
    Segment,
    StateMessage,
    StreamHello,
    StreamState,
    StreamSync,
    Tagged,
    Want,
    WireMessage,
    build,
    build_body,
    build_state,
)

AB, BC, BD, VIRTUAL, OTHER = map(link_id, (1, 2, 3, 9, 10))
KSID = KeyStreamId("99999999-0000-4000-8000-000000000001")
BLOCKS = 40


@pytest.fixture
async def stopping() -> AsyncIterator[list[Wire]]:
    """What is put here is stopped after the test."""
    made: list[Wire] = []
    yield made
    for one in made:
        await one.stop()


async def fibre(net: Net, link: LinkId, names: str, where: Endpoint | None = None) -> None:
    """A physical link; its first end, the lower id, is told that the other is at `where`."""
    one, other = names
    config = net.physical(link, one, other)
    await net.nodes[one].configure_link(replace(config, remote_lkms=where) if where else config)
    if other in net.nodes:
        await net.nodes[other].configure_link(net.physical(link, other, one))


async def open_stream(net: Net, one: str, other: str, link: LinkId) -> None:
    for here, there in ((one, other), (other, one)):
        await net.nodes[here].configure_stream(StreamConfig(KSID, node_id(there), (link,), 32))
        await net.nodes[here].keys.attach(KSID)


async def read(node: Node, index: int) -> bytes:
    async with asyncio.timeout(15):
        return bytes((await node.keys.get_chunk(KSID, index)).key.view())


async def same(one: Node, other: Node, indexes: Iterable[int]) -> list[bytes]:
    """What both ends of the stream give at these indexes."""
    ones = [await read(one, index) for index in indexes]
    assert ones == [await read(other, index) for index in indexes] and len(set(ones)) == len(ones)
    return ones


# With a certificate of another node ----------------------------------------------------------------------------------------


async def test_two_nodes_do_not_talk_over_him(net: Net, stopping: list[Wire], caplog: pytest.LogCaptureFixture) -> None:
    """Neither end tells him anything, and he loses them no key: they only do not meet until he is gone."""
    a, b = await net.node("a"), await net.node("b")
    his = net.config("c").store.parent
    middle = Middle(b.endpoint, (his, his))
    stopping.append(middle)
    await fibre(net, AB, "ab", await middle.start())
    await net.feed(AB, "a", "b", BLOCKS)
    await until(lambda: caplog.text.count(f"refused peer=stranger expected={b.id}") >= 3)
    assert await _answer(b, his, Hello(VERSION, bytes(16)), LinkHello(AB)) == b""
    assert f"refused peer={node_id('c')} expected=None" in caplog.text
    assert not middle.octets
    for node, peer in ((a, b), (b, a)):
        assert node.keys._peers.session(peer.id) is None
        assert node.keys.levels(AB).usable_bits == 0 and node.keys.levels(AB).burnt_bits == 0
    await a.configure_link(net.physical(AB, "a", "b"))
    await until(lambda: a.keys.levels(AB).usable_bits == b.keys.levels(AB).usable_bits > 8 * 4096 * (BLOCKS - 1))
    assert not a.seen.alarms and not b.seen.alarms


async def _answer(node: Node, folder: Path, *messages: WireMessage | bytes) -> bytes:
    """All that a node says to who has this certificate, until it hangs up."""
    context = context_of(folder, ssl.PROTOCOL_TLS_CLIENT)
    reader, writer = await asyncio.open_connection(node.endpoint.address, node.endpoint.port, ssl=context)
    said = b""
    with suppress(ConnectionError):
        writer.write(b"".join(one if isinstance(one, bytes) else build(one) for one in messages))
        async with asyncio.timeout(10):
            while data := await reader.read(65536):
                said += data
    writer.transport.abort()
    return said


FAKE = (Segment(AB, 2, 0, 64),)
HINTS: tuple[WireMessage, ...] = (
    LinkHello(AB),
    Offer(AB, 900, ((0, 0, 4096),), True, True),
    Offer(VIRTUAL, 1 << 40, ((0, 0, 4096),), True, True),
    Want(AB),
    Lack(AB, 1 << 20, 1 << 20, 9),
    StreamHello(KSID, (AB,)),
    KeyHello(KSID, (AB,)),
    Relay(VIRTUAL, 0, ((900, 4096),), (Segment(AB, 2, 0, 4096 + 32),), bytes(4096), bytes(16)),
    Relay(VIRTUAL, 0, ((902, 4096),), (Segment(BD, 2, 0, 4096 + 32),), bytes(4096), bytes(16)),
    Relay(VIRTUAL, 0, ((904, 4096),), (Segment(BC, 3, 0, 4096 + 32),), bytes(4096), bytes(16)),
)
STATES: tuple[StateMessage, ...] = (
    LinkSync(AB, 1, False, 900, (), (), (), False),
    LinkSync(AB, 1, True, 900, ((0, 900),), (), (), False),
    Have(AB, ((0, 900),), True),
    Lost(AB, ((0, 900),)),
    Give(AB, ((0, 900),)),
    StreamSync(KSID, 7, 7, 32, 2, 0),
    StreamState(KSID, 1, 32, 2, 0, 9, False),
    Attach(KSID, 2, 32),
    Need(KSID, 500),
    Alloc(KSID, 7, 32, 0, 2, FAKE),
    AllocAck(KSID, 7, 900),
    KeyAlloc(KSID, 1, 32, ("one", "two"), FAKE, True),
    RelayNack(VIRTUAL, tuple(range(0, 200, 2)), "no", (AB, BD)),
)


async def test_as_who_he_is_he_has_no_say_in_links_of_others(net: Net) -> None:
    """c, a neighbour of b, says all that there is to say about the link a – b, its stream, and what b relays from a to d."""
    for name in "abd":
        await net.node(name)
    a, b, d = net.nodes.values()
    his = net.config("c").store.parent
    await fibre(net, AB, "ab")
    await fibre(net, BD, "bd")
    await b.configure_link(replace(net.physical(BC, "b", "a"), remote_node=node_id("c"), remote_lkms=None))
    for link, names in ((AB, "ab"), (BD, "bd")):
        await net.feed(link, *names, BLOCKS)
    await net.route(9, "a", "b", "d")
    await open_stream(net, "a", "b", AB)
    first = await same(a, b, range(3))
    failures = b.keys.relay_totals(VIRTUAL).failures
    for said in (HINTS, *([_bare(one)] for one in STATES), *([_in_envelope(one)] for one in STATES)):
        answer = Codec()  # the last word is no message: when b hangs up it has taken all before
        answer.receive(await _answer(b, his, Hello(VERSION, bytes(16)), *said, bytes(4)))
        while (message := answer.next_message()) is not None:
            assert isinstance(message, Hello | Ping) or getattr(message, "link", "") == BC, "b tells him of others"
    assert b.keys.relay_totals(VIRTUAL).failures == failures + 3
    assert not set(first) & set(await same(a, b, range(3, 60)))
    for node in (a, b):
        assert node.keys.levels(AB).burnt_bits == 0 and node.keys.peer_attached(KSID)
    await until(lambda: d.keys.levels(VIRTUAL).usable_bits > 0)
    same_blocks(a, d)
    assert not set(d.keys._pools[VIRTUAL]._blocks) & {900, 902, 904}
    audit(net, AB, BD, VIRTUAL)


async def test_who_goes_on_saying_what_must_not_be_is_hung_up_on(net: Net) -> None:
    """Each time is an alarm, for an operator to read."""
    b = await net.node("b")
    his = net.config("c").store.parent
    net.nodes["a"] = b  # whose address c will not dial
    await b.configure_link(replace(net.physical(BC, "b", "a"), remote_node=node_id("c"), remote_lkms=None))
    lies = [Offer(BC, (1 << 62) + number, (), False, False) for number in range(1000)]
    assert await _answer(b, his, Hello(VERSION, bytes(16)), *lies)
    assert 0 < len(b.seen.alarms) <= 10 and b.keys._peers.session(node_id("c")) is None


async def test_an_alarm_is_of_a_link_that_there_is(net: Net) -> None:
    """Whatever a neighbour names: an operator would not be told of a link that the node does not have."""
    a, b = await net.node("a"), await net.node("b")
    await fibre(net, AB, "ab")
    await net.feed(AB, "a", "b", 4)
    await until(lambda: b.keys.levels(AB).usable_bits == a.keys.levels(AB).usable_bits > 0)
    session = a.keys._peers.session(b.id)
    assert session is not None
    session.send(Relay("no link at all", 0, (), (Segment(AB, 1, 0, 64),), bytes(32), bytes(16)))
    await until(lambda: bool(b.seen.alarms))
    assert b.seen.links == [AB]


async def test_who_is_no_longer_wanted_when_he_says_hello_is_hung_up_on(net: Net) -> None:
    b = await net.node("b")
    his = net.config("c").store.parent
    net.nodes["a"] = b  # whose address c will not dial
    await b.configure_link(replace(net.physical(BC, "b", "a"), remote_node=node_id("c"), remote_lkms=None))
    failed = list[dict[str, object]]()
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: failed.append(context))
    context = context_of(his, ssl.PROTOCOL_TLS_CLIENT)
    reader, writer = await asyncio.open_connection(b.endpoint.address, b.endpoint.port, ssl=context)
    async with asyncio.timeout(10):
        await reader.readexactly(4)  # the beginning of b's hello
        await b.keys.remove_link(BC)
        writer.write(build(Hello(VERSION, bytes(16))))
        with suppress(ConnectionError):
            while await reader.read(65536):
                pass
    writer.transport.abort()
    assert not failed and b.keys._peers.session(node_id("c")) is None


async def test_of_one_node_one_connection_is_kept_that_has_not_said_hello(net: Net) -> None:
    """However many he opens, and however slowly he says a word on each: descriptors are for others, too."""
    b = await net.node("b")
    his = net.config("c").store.parent
    net.nodes["a"] = b  # whose address c will not dial
    await b.configure_link(replace(net.physical(BC, "b", "a"), remote_node=node_id("c"), remote_lkms=None))
    context, writers = context_of(his, ssl.PROTOCOL_TLS_CLIENT), list[asyncio.StreamWriter]()
    async with asyncio.timeout(10):
        for _ in range(10):
            reader, writer = await asyncio.open_connection(b.endpoint.address, b.endpoint.port, ssl=context)
            writers.append(writer)
            await reader.readexactly(4)  # the beginning of b's hello
        assert len(b.keys._peers._arriving) == 1
        writers[-1].write(build(Hello(VERSION, bytes(16))))
        await until(lambda: b.keys._peers.session(node_id("c")) is not None)
    for writer in writers:
        writer.transport.abort()


def _bare(message: StateMessage) -> bytes:
    octets = build_state(message)
    return len(octets).to_bytes(4) + octets


def _in_envelope(*messages: StateMessage) -> Tagged:
    """Under a key that he has not, of a link that is not his."""
    return Tagged(0, Segment(AB, 2, 4064, 32), build_body([build_state(one) for one in messages]), bytes(16))


def same_blocks(one: Node, other: Node) -> None:
    """Blocks of the virtual link that both ends hold are the same at both."""
    ours, theirs = one.keys._pools[VIRTUAL]._blocks, other.keys._pools[VIRTUAL]._blocks
    for number in set(ours) & set(theirs):
        if ours[number].cursor == theirs[number].cursor:
            assert ours[number].key.view() == theirs[number].key.view()


# On the wire ---------------------------------------------------------------------------------------------------------------


def once(change: Callable[[bytes], Iterable[bytes]], after: int = 6) -> Touch:
    """Does it to one piece, of those that are big enough to hold more than a handshake's end."""
    left = after

    def touch(dialer: bool, piece: bytes) -> Iterable[bytes]:
        nonlocal left
        left -= dialer
        return change(piece) if dialer and not left else (piece,)

    return touch


def kept_back() -> Touch:
    """Two pieces in the other order."""
    kept: list[bytes] = []
    count = 0

    def touch(dialer: bool, piece: bytes) -> Iterable[bytes]:
        nonlocal count
        count += dialer
        if dialer and count == 6:
            kept.append(piece)
            return ()
        return (piece, kept.pop()) if dialer and kept else (piece,)

    return touch


TOUCHES: dict[str, Callable[[], Touch]] = {
    "changed": lambda: once(lambda piece: (piece[:-1] + bytes([piece[-1] ^ 1]),)),
    "lost": lambda: once(lambda _piece: ()),
    "twice": lambda: once(lambda piece: (piece, piece)),
    "cut": lambda: once(lambda piece: (piece[:-3],)),
    "swapped": kept_back,
    "added": lambda: once(lambda piece: (piece, bytes((23, 3, 3, 0, 40)) + bytes(40))),
}


@pytest.mark.parametrize("what", TOUCHES)
async def test_what_is_done_to_the_octets_ends_the_session_and_no_more(net: Net, stopping: list[Wire], what: str) -> None:
    a, b = await net.node("a"), await net.node("b")
    wire = Wire(b.endpoint, TOUCHES[what]())
    stopping.append(wire)
    await fibre(net, AB, "ab", await wire.start())
    await net.feed(AB, "a", "b", BLOCKS)
    await open_stream(net, "a", "b", AB)
    keys = await same(a, b, range(100))
    await until(lambda: wire.callers >= 2)
    keys += await same(a, b, range(100, 300))
    assert not any(key in wire.octets for key in keys)
    assert not any(bytes(material(AB, number).view()[:32]) in wire.octets for number in range(BLOCKS))
    audit(net, AB)


async def test_a_recorded_session_cannot_be_played_again(net: Net, stopping: list[Wire]) -> None:
    a, b = await net.node("a"), await net.node("b")
    wire = Wire(b.endpoint)
    stopping.append(wire)
    await fibre(net, AB, "ab", await wire.start())
    await net.feed(AB, "a", "b", BLOCKS)
    await open_stream(net, "a", "b", AB)
    await same(a, b, range(20))
    session = b.keys._peers.session(a.id)
    reader, writer = await asyncio.open_connection(b.endpoint.address, b.endpoint.port)
    writer.write(b"".join(data for dialer, data in wire.heard if dialer))
    async with asyncio.timeout(10):
        with suppress(ConnectionError):
            while await reader.read(65536):  # its hello, then that what follows is not for it
                pass
    writer.transport.abort()
    assert b.keys._peers.session(a.id) is session and session is not None
    await same(a, b, range(20, 60))
    audit(net, AB)


# Within TLS, were it broken ------------------------------------------------------------------------------------------------


def changed(message: Relay) -> Iterable[Relay]:
    flipped = bytes([message.ciphertext[0] ^ 1]) + message.ciphertext[1:]
    yield msgspec.structs.replace(message, ciphertext=flipped)


def tag_changed(message: Relay) -> Iterable[Relay]:
    yield msgspec.structs.replace(message, tag=bytes([message.tag[0] ^ 1]) + message.tag[1:])


def renumbered(message: Relay) -> Iterable[Relay]:
    yield msgspec.structs.replace(message, blocks=[(number + 2, size) for number, size in message.blocks])


def other_hops(message: Relay) -> Iterable[Relay]:
    yield msgspec.structs.replace(message, hops=message.hops + 1)


def as_a_share(message: Relay) -> Iterable[Relay]:
    """Of two, as if its blocks were only half of a key each."""
    yield msgspec.structs.replace(message, shares=2, marks=[bytes(16)] * len(message.blocks))


def another_link(message: Relay) -> Iterable[Relay]:
    yield msgspec.structs.replace(message, link=OTHER)


def pads_moved(message: Relay) -> Iterable[Relay]:
    first, *rest = message.pad
    yield msgspec.structs.replace(message, pad=[first._replace(offset=first.offset + 1), *rest])


def cut(message: Relay) -> Iterable[Relay]:
    yield msgspec.structs.replace(message, ciphertext=message.ciphertext[:-16])


def cut_with_its_blocks(message: Relay) -> Iterable[Relay]:
    """As if it had been a shorter batch, with its pads."""
    size = message.blocks[0][1]
    left, pad = 32 + size, list[Segment]()
    for one in message.pad:
        pad += [one._replace(length=min(left, one.length))] if left else []
        left -= pad[-1].length if left else 0
    yield msgspec.structs.replace(message, blocks=message.blocks[:1], ciphertext=message.ciphertext[:size], pad=pad)


def played_again(message: Relay) -> Iterable[Relay]:
    yield message
    yield message


def dropped(message: Relay) -> Iterable[Relay]:
    return ()


def injected(message: Relay) -> Iterable[Relay]:
    """One of his own first, in the same pads: what he knows is who takes them."""
    yield msgspec.structs.replace(message, ciphertext=bytes(len(message.ciphertext)), tag=bytes(16))
    yield message


def swapped() -> Callable[[Relay], Iterable[Relay]]:
    kept: list[Relay] = []

    def swap(message: Relay) -> Iterable[Relay]:
        if not kept:
            kept.append(message)
            return ()
        return (message, kept.pop())

    return swap


CHANGES: dict[str, Callable[[], Callable[[Relay], Iterable[Relay]]]] = {
    one.__name__: (lambda one=one: one)  # type: ignore[misc]
    for one in (changed, tag_changed, renumbered, other_hops, as_a_share, another_link, pads_moved, cut, cut_with_its_blocks,
                played_again, dropped, injected)
} | {"swapped": swapped}  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
async def test_with_both_certificates_he_cannot_change_nor_learn_what_is_relayed(
    net: Net, stopping: list[Wire], what: str
) -> None:
    """Of the hop b – c he has it all. Two batches are meddled with: they are burnt, the rest arrives as it was made."""
    for name in "abc":
        await net.node(name, doubt_seconds=2.0)
    a, b, c = net.nodes.values()
    a.keys._relays.pause_seconds = 0.1
    change, left, meddled = CHANGES[what](), 2, list[Relay]()

    def meddle(dialer: bool, message: WireMessage) -> Iterable[WireMessage]:
        nonlocal left
        if not dialer or not isinstance(message, Relay) or not left:
            return (message,)
        if what == "cut_with_its_blocks" and len(message.blocks) < 2:  # nothing to cut from the first, small batches
            return (message,)
        left -= 1
        meddled.append(message)
        return change(message)

    middle = Middle(c.endpoint, (net.folder / "c", net.folder / "b"), meddle)
    stopping.append(middle)
    await fibre(net, AB, "ab")
    await fibre(net, BC, "bc", await middle.start())
    for link, names in ((AB, "ab"), (BC, "bc")):
        await net.feed(link, *names, 2 * BLOCKS)
    for link in (VIRTUAL, OTHER):
        await net.route(9 if link == VIRTUAL else 10, "a", "b", "c")
    await until(lambda: not left, 30)
    await until(lambda: c.keys.levels(VIRTUAL).usable_bits > 0, 20)
    await net.feed(AB, "a", "b", BLOCKS)
    await net.feed(BC, "b", "c", BLOCKS)
    await open_stream(net, "a", "c", VIRTUAL)
    keys = await same(a, c, range(40))
    same_blocks(a, c)
    relayed = [bytes(block.key.view()[:32]) for block in c.keys._pools[VIRTUAL]._blocks.values()]
    pads = [bytes(material(BC, number).view()[:32]) for number in range(2 * BLOCKS)]
    assert not any(key in middle.octets for key in keys + relayed + pads)
    audit(net, AB, VIRTUAL)
    for node in (b, c):  # what c wrote down of a forgery's pads says what the forgery said they were for
        audit(replace(net, nodes={node.name: node}), BC)
    if what != "dropped":
        assert a.keys.relay_totals(VIRTUAL).failures + a.keys.relay_totals(OTHER).failures > 0
    if what not in ("dropped", "played_again", "swapped"):
        assert c.seen.alarms, "a forgery was not noticed"
    assert not a.seen.alarms and not b.seen.alarms
    await until(lambda: lost(b, c) == costs(what, meddled))


def costs(what: str, meddled: list[Relay]) -> set[tuple[int, int]]:
    """The pads of what he has meddled with, and nothing else: none when it was whole and in its turn."""
    if what == "another_link":
        meddled = [one for one in meddled if one.link != OTHER]  # of that one he has changed nothing
    spoilt = {"played_again": [], "swapped": meddled[:1]}.get(what, meddled)
    return set[tuple[int, int]]().union(*(octets(one.pad) for one in spoilt))


def octets(segments: Iterable[Segment]) -> set[tuple[int, int]]:
    return {(one.block, octet) for one in segments for octet in range(one.offset, one.offset + one.length)}


def lost(sender: Node, receiver: Node) -> set[tuple[int, int]]:
    """Octets of the hop's key that are used up, and of which nothing has arrived; with what is burnt at either end."""
    there = {(link, block) for link in (VIRTUAL, OTHER) for block in receiver.keys._pools[link]._blocks}
    there |= {(LinkId(row.link), row.block) for row in ledger(receiver.config.store)}
    found = set[tuple[int, int]]()
    for node in (sender, receiver):
        for row in ledger(node.config.store):
            if row.link != BC or row.kind == "tag":
                continue
            link, first, _ = row.consumer.split("/") if row.kind == "relay" else ("", "0", "")
            if row.kind == "burnt" or (LinkId(link), int(first)) not in there:
                found |= octets([Segment(row.link, row.block, row.offset, row.length)])
    return found


# What the ends tell each other ------------------------------------------------------------------------------------------


def forged(message: Tagged) -> Iterable[Tagged]:
    """A gift of all there is, and what else would do harm, under the key of a message that he keeps back."""
    body = build_body([build_state(one) for one in STATES])
    yield msgspec.structs.replace(message, body=body)


def retagged(message: Tagged) -> Iterable[Tagged]:
    yield msgspec.structs.replace(message, tag=bytes([message.tag[0] ^ 1]) + message.tag[1:])


def counted_on(message: Tagged) -> Iterable[Tagged]:
    yield msgspec.structs.replace(message, number=message.number + 1)


def under_another_key(message: Tagged) -> Iterable[Tagged]:
    key = message.key
    yield msgspec.structs.replace(message, key=key._replace(offset=max(0, key.offset - 32)))


def under_all_of_the_block(message: Tagged) -> Iterable[Tagged]:
    yield msgspec.structs.replace(message, key=message.key._replace(offset=0, length=4096))


def under_a_block_of_the_receiver(message: Tagged) -> Iterable[Tagged]:
    """A young one, which is not used up when he names it."""
    yield msgspec.structs.replace(message, key=Segment(AB, BLOCKS - 1 - message.key.block % 2, 0, 32))


def out_of_its_envelope(message: Tagged) -> Iterable[Tagged]:
    """The same octets, in the name of another session: what his own TLS sessions would let him do."""
    yield msgspec.structs.replace(message, body=message.body, tag=bytes(16))


def said_again(message: Tagged) -> Iterable[Tagged]:
    yield message
    yield message


def kept(message: Tagged) -> Iterable[Tagged]:
    return ()


def said_later() -> Callable[[Tagged], Iterable[Tagged]]:
    """In the place of the next one, which follows."""
    waiting: list[Tagged] = []

    def late(message: Tagged) -> Iterable[Tagged]:
        waiting.append(message)
        return () if len(waiting) == 1 else (waiting[-1], waiting[0])

    return late


def of_the_session_before() -> Callable[[Tagged], Iterable[Tagged]]:
    """Keeps the first envelope of a session, which ends of it, and has it said as the first of the next one."""
    first: list[Tagged] = []

    def again(message: Tagged) -> Iterable[Tagged]:
        if not first:
            first.append(message)
            return ()
        return (msgspec.structs.replace(first[0], number=message.number), message)

    return again


LIES: dict[str, Callable[[], Callable[[Tagged], Iterable[Tagged]]]] = {
    one.__name__: (lambda one=one: one)  # type: ignore[misc]
    for one in (forged, retagged, counted_on, under_another_key, under_all_of_the_block, under_a_block_of_the_receiver,
                out_of_its_envelope, said_again, kept)
} | {"said_later": said_later, "of_the_session_before": of_the_session_before}  # fmt: skip
QUIET = {"counted_on", "said_again", "kept", "said_later"}  # seen by the count alone, and nobody's key is burnt for it


@pytest.mark.parametrize("from_dialer", [True, False], ids=["from_a", "from_b"])
@pytest.mark.parametrize("what", LIES)
async def test_with_both_certificates_he_cannot_change_what_the_ends_tell_each_other(
    net: Net, stopping: list[Wire], what: str, from_dialer: bool
) -> None:
    """Whatever he does to an envelope ends the session, and costs tag keys; in the end the two have agreed on everything."""
    a, b = await net.node("a"), await net.node("b")
    lie, left, after = LIES[what](), 2, 3

    def meddle(dialer: bool, message: WireMessage) -> Iterable[WireMessage]:
        nonlocal left, after
        if not isinstance(message, Tagged) or dialer is not from_dialer or not left:
            return (message,)
        after -= 1
        if message.number if what == "of_the_session_before" else after >= 0:
            return (message,)
        left -= 1
        return lie(message)

    middle = Middle(b.endpoint, (net.folder / "b", net.folder / "a"), meddle)
    stopping.append(middle)
    await fibre(net, AB, "ab", await middle.start())
    await net.feed(AB, "a", "b", BLOCKS)
    await open_stream(net, "a", "b", AB)
    chatter = asyncio.create_task(_chatter(a, b))  # who keeps the last message of all back only delays what follows
    keys = await same(a, b, range(100))
    await until(lambda: middle.callers >= 2)
    keys += await same(a, b, range(100, 200))
    chatter.cancel()
    assert not left and not any(key in middle.octets for key in keys)
    await until(lambda: a.keys.levels(AB).usable_bits == b.keys.levels(AB).usable_bits > 0)
    no_block_has_two_owners(a, b)
    for node in (a, b):  # what was claimed for a forged tag is used up here, and burnt there for whatever it was allocated
        audit(replace(net, nodes={node.name: node}), AB)
    liar, told = (a, b) if from_dialer else (b, a)
    assert bool(told.seen.alarms) is (what not in QUIET)
    if what != "under_another_key":  # which has the other end use more of the block than its owner did
        assert not liar.seen.alarms


async def _chatter(*ends: Node) -> None:
    while True:
        for one, other in zip(ends, ends[::-1], strict=True):
            one.keys._send(other.id, Have(AB, (), False))
        await asyncio.sleep(0.1)


def no_block_has_two_owners(a: Node, b: Node) -> None:
    ones, others = a.keys._pools[AB]._blocks, b.keys._pools[AB]._blocks
    assert set(ones) & set(others)
    assert not [number for number in set(ones) & set(others) if ones[number].ours and others[number].ours]


async def test_with_both_certificates_no_block_gets_two_owners(net: Net, stopping: list[Wire]) -> None:
    """What both ends own, both may take pads from: who sees the two messages knows the XOR of what was relayed in them."""
    a, b = await net.node("a"), await net.node("b")
    middle = Middle(b.endpoint, (net.folder / "b", net.folder / "a"))
    stopping.append(middle)
    await fibre(net, AB, "ab", await middle.start())
    await net.feed(AB, "a", "b", BLOCKS)
    await until(lambda: a.keys.levels(AB).usable_bits == b.keys.levels(AB).usable_bits > 8 * 4096 * (BLOCKS - 1))
    last = [message for dialer, message in middle.seen if dialer and isinstance(message, Tagged)][-1]
    body = build_body([build_state(Give(AB, ((20, 20),)))])
    middle.say(True, msgspec.structs.replace(last, number=last.number + 1, body=body))
    await until(lambda: middle.callers == 2 and b.keys.levels(AB).usable_bits > 0)
    assert b.seen.alarms
    no_block_has_two_owners(a, b)
    audit(net, AB)


async def test_with_both_certificates_his_hints_cost_messages_and_no_key_but_tags(net: Net, stopping: list[Wire]) -> None:
    """They have the ends meet again, and give blocks to who seems to want them: each is as true as before."""
    a, b = await net.node("a"), await net.node("b")
    middle = Middle(b.endpoint, (net.folder / "b", net.folder / "a"))
    stopping.append(middle)
    await fibre(net, AB, "ab", await middle.start())
    await net.feed(AB, "a", "b", BLOCKS)
    await open_stream(net, "a", "b", AB)
    keys = await same(a, b, range(50))
    for hint in (
        LinkHello(AB),
        Want(AB),
        Lack(AB, 1 << 20, 1 << 20, 9),
        StreamHello(KSID, (AB,)),
        KeyHello(KSID, (AB,)),
        Offer(AB, 10_000, tuple((number, 0, 4096) for number in range(200)), True, True),
        Offer(AB, 1 << 50, (), True, False),
    ):
        for to_listener in (True, False):
            middle.say(to_listener, *[hint] * 20)
    keys += await same(a, b, range(50, 150))
    await until(lambda: a.keys.levels(AB).usable_bits == b.keys.levels(AB).usable_bits > 0)
    for node in (a, b):
        left = node.keys.levels(AB)
        assert left.stored_bits + left.consumed_bits + left.burnt_bits == left.generated_bits
        assert left.burnt_bits < 8 * 4096, "what was on its way"
    no_block_has_two_owners(a, b)
    assert not any(key in middle.octets for key in keys)
    audit(net, AB)


# As a relay node -----------------------------------------------------------------------------------------------------------


def beyond(parcel: Parcel) -> Parcel:
    """Under the last numbers that a message can have."""
    return replace(parcel, blocks=tuple(((1 << 63) - 8 + at, size) for at, (_, size) in enumerate(parcel.blocks)))


async def test_a_relay_node_does_not_use_the_numbers_of_a_link_up(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers never come twice: with the last of them the link would have none left, and whoever counts on no store."""
    for name in "abc":
        await net.node(name)
    a, b, c = net.nodes.values()
    for link, names in ((AB, "ab"), (BC, "bc")):
        await fibre(net, link, names)
        await net.feed(link, *names, 200)
    honest, left = Relays._pass_on, 3

    def pass_on(relays: Relays, parcel: Parcel, next_hop: NodeId) -> int:
        nonlocal left
        left -= relays.local == b.id
        return honest(relays, beyond(parcel) if relays.local == b.id and left >= 0 else parcel, next_hop)

    monkeypatch.setattr(Relays, "_pass_on", pass_on)
    await net.route(9, "a", "b", "c")
    await until(lambda: left < 0)
    await until(lambda: a.keys.levels(VIRTUAL).usable_bits == c.keys.levels(VIRTUAL).usable_bits > 8 * 4096 * 40)
    session = c.keys._peers.session(a.id)
    assert session is not None
    session.close()
    await until(lambda: c.keys._peers.session(a.id) not in (session, None) and a.keys._pools[VIRTUAL].synced)
    await until(lambda: a.keys.levels(VIRTUAL).usable_bits == c.keys.levels(VIRTUAL).usable_bits > 8 * 4096 * 40)
    assert any("number" in alarm for alarm in c.seen.alarms)
    for node in (a, c):
        assert node.keys._store.failing is None and node.keys._pools[VIRTUAL].totals.highest < 1000
    same_blocks(a, c)
    audit(net, AB, BC, VIRTUAL)
