"""Shares over several paths, whatever is lost, late, doubled, out of order, and whoever crashes: whole blocks only, the same
at both ends, and no more than one share of a block for any node between.

The nodes are real relays and pools; what they note is durable at once, what was in memory is lost with a crash, and what was
sent arrives in order or is lost with the session it was sent on.
"""

import random
from collections import deque
from dataclasses import dataclass, field, replace
from functools import partial, reduce

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from qswitch.agent.lkms.keys import Key
from qswitch.agent.lkms.lines import BLOCK, LinkTotals
from qswitch.agent.lkms.otp import mark
from qswitch.agent.lkms.pool import Block, Pool, Totals
from qswitch.agent.lkms.relay import Relays
from qswitch.agent.lkms.shares import LIMIT, Altered, Shares
from qswitch.agent.model import LinkConfig, LinkId, LinkType, NodeId
from qswitch.protocol import lkms
from qswitch.protocol.lkms import AnyMessage, Have, Lost, Segment

WHOLE, SIZE, WAIT = LinkId("whole"), 96, 5.0
TAG = bytes(16)


def xor(*keys: bytes) -> bytes:
    return reduce(lambda one, other: bytes(a ^ b for a, b in zip(one, other, strict=True)), keys)


# One destination -------------------------------------------------------------------------------------------------------


@given(st.data(), st.integers(2, 4))
def test_only_all_shares_once_each_are_a_block(data: st.DataObject, count: int) -> None:
    """Shares of some blocks, some left out, some doubled, in any order."""
    components = [LinkId(f"c{at}") for at in range(count)]
    draws = {(number, one): random.Random(f"{number}{one}").randbytes(SIZE) for number in range(5) for one in components}
    wholes = {number: xor(*(draws[number, one] for one in components)) for number in range(5)}
    tags = {number: mark(Key(one[-32:]), number, Key(one[:-32])) for number, one in wholes.items()}
    sent = data.draw(st.lists(st.sampled_from(sorted(draws)), max_size=40))
    shares, came = Shares(frozenset(components)), dict[int, list[LinkId]]()
    for number, component in sent:
        key = Key(draws[number, component])
        before = came.setdefault(number, [])
        if component in before:
            with pytest.raises(ValueError, match="came before"):
                shares.take(component, number, key, tags[number], 1, 0.0)
            came[number] = []
        else:
            before.append(component)
            whole = shares.take(component, number, key, tags[number], len(before), 0.0)
            assert (whole is not None) is (len(before) == count)
            if whole is not None:
                assert bytes(whole[0].view()) == wholes[number][:-32]
                assert whole[1] == count
                came[number] = []
        assert not any(key.view()), "a share is wiped"
    assert shares.held == SIZE * sum(bool(one) for one in came.values())
    assert shares.wipe() == [number for number, one in came.items() if one and number in came] or shares.held == 0


def test_what_waits_is_bounded_and_ends() -> None:
    shares = Shares(frozenset((LinkId("a"), LinkId("b"))))
    for number in range(LIMIT):
        assert shares.take(LinkId("a"), number, Key(bytes(SIZE)), TAG, 0, float(number)) is None
    with pytest.raises(ValueError, match="wait for shares"):
        shares.take(LinkId("a"), LIMIT, Key(bytes(SIZE)), TAG, 0, 0.0)
    with pytest.raises(ValueError, match="length"):
        shares.take(LinkId("b"), 7, Key(bytes(SIZE - 1)), TAG, 0, 0.0)
    assert shares.late(100.5, 50.0) == [number for number in range(51) if number != 7]
    assert shares.overtaken(60) == list(range(51, 60))
    assert len(shares.wipe()) == LIMIT - 60 and shares.held == 0


@given(st.integers(0, 8 * SIZE - 1), st.booleans())
def test_a_share_that_was_changed_is_found_out(bit: int, in_share: bool) -> None:
    """Any bit of a share, or of its tag, by a node that is on one of the two paths."""
    one, other = random.Random(1).randbytes(SIZE), random.Random(2).randbytes(SIZE)
    whole = xor(one, other)
    tag = mark(Key(whole[-32:]), 4, Key(whole[:-32]))
    shares = Shares(frozenset((LinkId("a"), LinkId("b"))))
    assert shares.take(LinkId("a"), 4, Key(one), tag, 0, 0.0) is None
    changed = bytearray(other if in_share else tag)
    changed[bit // 8 % len(changed)] ^= 1 << bit % 8
    clamped = in_share and bit // 8 - (SIZE - 32) in range(16)  # bits of Poly1305's r that do not count
    try:
        found = shares.take(LinkId("b"), 4, Key(changed if in_share else other), bytes(tag if in_share else changed), 0, 0.0)
        assert clamped and found is not None and bytes(found[0].view()) == whole[:-32]
    except Altered:
        assert shares.held == 0


# A network -------------------------------------------------------------------------------------------------------------


@dataclass
class Disk:
    """What survives a crash, of all links of a node."""

    blocks: dict[tuple[LinkId, int], tuple[int, int, int, bool, float, bytes]] = field(default_factory=dict)
    high: dict[LinkId, Totals] = field(default_factory=dict)
    uses: list[Segment] = field(default_factory=list)

    def block(self, link: LinkId, number: int, cursor: int, size: int, ours: bool, made: float, key: Key) -> None:
        self.blocks[link, number] = (number, size, cursor, ours, made, bytes(key.view()))

    def block_owner(self, link: LinkId, number: int, ours: bool) -> None:
        row = self.blocks[link, number]
        self.blocks[link, number] = (*row[:3], ours, *row[4:])

    def block_gone(self, link: LinkId, number: int) -> None:
        self.blocks.pop((link, number), None)

    def used(self, segment: Segment, _kind: str, _consumer: str) -> None:
        self.uses.append(segment)

    def totals(self, link: LinkId, totals: Totals) -> None:
        self.high[link] = replace(totals)

    def relay_totals(self, link: LinkId, totals: LinkTotals) -> None:
        pass


class Site:
    def __init__(self, net: "Network", name: str, links: dict[LinkId, str]) -> None:
        """`links` are the links that end here, with the node at their other end."""
        self.net, self.name, self.links, self.disk = net, name, links, Disk()
        self.routes: dict[LinkId, LinkConfig] = {}
        self.seen: dict[int, list[bytes]] = {}
        self.boot()

    def boot(self) -> None:
        self.pools = {link: self._pool(link, far) for link, far in self.links.items()}
        self.relays = Relays(
            local=NodeId(self.name),
            journal=self.disk,
            send=self.send,
            pools=self.pools,
            reachable=lambda far: self.net.up(self.name, far),
            arrived=self._arrived,
            made=partial(self._arrived, hops=0),
            random=self.net.draw,
            mute=lambda _: False,
            wait_seconds=WAIT,
        )
        for route in self.routes.values():
            self.relays.configure(route)

    def _pool(self, link: LinkId, far: str) -> Pool:
        rows = [row for (name, _), row in self.disk.blocks.items() if name == link]
        blocks = [Block(*row[:5], Key(row[5])) for row in rows]
        totals = replace(self.disk.high.get(link, Totals()))
        capacity = 16 if link == WHOLE else 400
        return Pool(
            link, NodeId(self.name), NodeId(far), capacity, self.disk, partial(self.send, NodeId(far)), totals, blocks
        )

    def send(self, far: NodeId, message: AnyMessage) -> None:
        self.net.put(self.name, far, message)

    def _arrived(self, link: LinkId, number: int, key: Key, hops: int) -> None:
        pool = self.pools[link]
        good = pool.add(number, key, self.net.now, 0.0, hops)
        self.send(pool.remote, Have(link, [(number, number)], pool.full) if good else Lost(link, [(number, number)]))

    def configure(self, route: LinkConfig) -> None:
        self.routes[route.link] = route
        self.relays.configure(route)

    def remove(self, link: LinkId) -> None:
        self.routes.pop(link, None)
        self.relays.remove(link)

    def take(self, sender: str, message: AnyMessage) -> None:
        now, far = self.net.now, NodeId(sender)
        if isinstance(message, lkms.Relay):
            self.relays.on_relay(far, message, now)
        elif isinstance(message, lkms.RelayNack):
            self.relays.on_nack(far, message, now)
        elif pool := self.pools.get(LinkId(getattr(message, "link", ""))):
            self._take(pool, message)

    def _take(self, pool: Pool, message: AnyMessage) -> None:
        match message:
            case lkms.LinkHello():
                pool.hello()
            case lkms.LinkSync():
                assert not pool.sync(message, self.net.now)
            case Have():
                pool.have(message, self.net.now)
            case Lost():
                pool.lost(message)
                self.relays.on_lost(message)
            case lkms.Want():
                pool.wanted()
            case lkms.Lack():
                pool.lacking(message)
            case lkms.Give():
                pool.given(message)


RELAYS = ("p", "q", "r")
ENDS = ("a", "z")


def hop(one: str, other: str) -> LinkId:
    return LinkId("-".join(sorted((one, other))))


class Network(RuleBasedStateMachine):
    """From a to z over two of p, q, r at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.drawn, self.numbers = 0.0, 0, dict[LinkId, int]()
        self.wires: dict[tuple[str, str], deque[AnyMessage]] = {}
        self.routes = 0
        sites = {"a": {hop("a", one): one for one in RELAYS} | {WHOLE: "z"}}
        sites |= {"z": {hop(one, "z"): one for one in RELAYS} | {WHOLE: "a"}}
        sites |= {one: {hop("a", one): "a", hop(one, "z"): "z"} for one in RELAYS}
        self.sites = {name: Site(self, name, links) for name, links in sites.items()}
        self.made: dict[int, bytes] = {}

    @initialize()
    def begin(self) -> None:
        for one in RELAYS:
            for end in ENDS:
                self.connect(end, one)
                self.feed(end, one, 40)
        self.connect(*ENDS)
        self.over: tuple[LinkId, ...] = (self.route("p"), self.route("q"))
        self.switch("a")
        self.switch("z")
        self.run()

    # What nodes call -----------------------------------------------------------------------------------------------------

    def draw(self, octets: int) -> bytes:
        self.drawn += 1
        return random.Random(self.drawn).randbytes(octets)

    def up(self, one: str, other: str) -> bool:
        return (one, other) in self.wires

    def put(self, one: str, other: str, message: AnyMessage) -> None:
        if (wire := self.wires.get((one, other))) is not None:
            wire.append(message)

    # What is done --------------------------------------------------------------------------------------------------------

    def route(self, over: str) -> LinkId:
        """Another component over this node, known there and nowhere else."""
        self.routes += 1
        link = LinkId(f"{over}{self.routes}")
        common = LinkConfig(link, LinkType.VIRTUAL, component_of=WHOLE)
        self.sites[over].configure(replace(common, previous_hop=NodeId("a"), next_hops=(NodeId("z"),)))
        return link

    def switch(self, end: str) -> None:
        """One of the ends takes what `over` says, at once."""
        site = self.sites[end]
        for link in self.over:
            common = LinkConfig(link, LinkType.VIRTUAL, component_of=WHOLE)
            hops = {"next_hops": (NodeId(link[0]),)} if end == "a" else {"previous_hop": NodeId(link[0])}
            site.configure(replace(common, **hops))  # type: ignore[arg-type]
        for link in [one for one in site.routes if one not in (*self.over, WHOLE)]:
            site.remove(link)
        site.configure(LinkConfig(WHOLE, LinkType.VIRTUAL, components=tuple(sorted(self.over))))

    @rule(one=st.sampled_from(ENDS), other=st.sampled_from((*RELAYS, "z")))
    def connect(self, one: str, other: str) -> None:
        if one == other or self.up(one, other):
            return
        self.wires[one, other], self.wires[other, one] = deque(), deque()
        for here, there in ((one, other), (other, one)):
            for pool in self.sites[here].pools.values():
                if pool.remote == there:
                    pool.meet()

    @rule(one=st.sampled_from(ENDS), other=st.sampled_from((*RELAYS, "z")))
    def cut(self, one: str, other: str) -> None:
        """What is on its way is lost."""
        if self.wires.pop((one, other), None) is not None:
            del self.wires[other, one]
            for here, there in ((one, other), (other, one)):
                for pool in self.sites[here].pools.values():
                    if pool.remote == there:
                        pool.part()

    @rule(name=st.sampled_from((*ENDS, *RELAYS)))
    def crash(self, name: str) -> None:
        others = [other for one, other in list(self.wires) if one == name]
        for other in others:
            self.cut(*((name, other) if (name, other) in self.wires else (other, name)))
        self.sites[name].boot()
        for other in others:
            self.connect(*((name, other) if name in ENDS else (other, name)))

    def feed(self, end: str, one: str, count: int) -> None:
        link = hop(end, one)
        for _ in range(count):
            number = self.numbers[link] = self.numbers.get(link, -1) + 1
            for site in (self.sites[end], self.sites[one]):
                site._arrived(link, number, Key(random.Random(f"{link}{number}").randbytes(4096)), 0)

    @rule()
    def fill(self) -> None:
        for site in self.sites.values():
            site.relays.expire(self.now)
            for one in site.relays.passages():
                site.relays.fill(one.next_hop, self.now)

    @rule(seconds=st.sampled_from([0.1, 1.0, 7.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        for site in self.sites.values():
            for pool in site.pools.values():
                pool.expire(self.now, 2 * WAIT)

    @rule(over=st.sampled_from(RELAYS), at=st.integers(0, 1))
    def reroute(self, over: str, at: int) -> None:
        """The source changes; the destination when `arrive_at` says so, or at the end."""
        kept = self.over[1 - at]
        if kept[0] != over:
            self.over = (kept, self.route(over))
            self.switch("a")

    @rule()
    def arrive_at(self) -> None:
        self.switch("z")

    @rule(burnt=st.integers(0, 40))
    def use(self, burnt: int) -> None:
        """Room for more."""
        self.sites["a"].pools[WHOLE].burn(
            [number for number in list(self.sites["a"].pools[WHOLE]._blocks) if number <= burnt]
        )

    @rule(which=st.integers(0, 100), count=st.integers(1, 12))
    def deliver(self, which: int, count: int) -> None:
        """Some messages of one wire, in order; how far the wires are of each other is anybody's guess."""
        busy = [key for key, wire in sorted(self.wires.items()) if wire]
        for _ in range(count if busy else 0):
            sender, receiver = busy[which % len(busy)]
            if wire := self.wires[sender, receiver]:
                self._give(sender, receiver, wire.popleft())

    def _give(self, sender: str, receiver: str, message: AnyMessage) -> None:
        if isinstance(message, lkms.Relay) and receiver in RELAYS:
            self.spy(receiver, message)
        self.sites[receiver].take(sender, message)

    def spy(self, at: str, message: lkms.Relay) -> None:
        """Notes which blocks a relay node gets shares of."""
        for number, _ in message.blocks:
            self.sites[at].seen.setdefault(number, []).append(message.ciphertext)

    def run(self) -> None:
        while any(self.wires.values()):
            for (sender, receiver), wire in sorted(self.wires.items()):
                while wire:
                    self._give(sender, receiver, wire.popleft())

    # What must be so -----------------------------------------------------------------------------------------------------

    @invariant()
    def both_ends_hold_the_same(self) -> None:
        one, other = (self.sites[end].pools[WHOLE]._blocks for end in ENDS)
        for number in one.keys() & other.keys():
            assert one[number].key == other[number].key
        for number, block in one.items():
            assert self.made.setdefault(number, bytes(block.key.view())) == bytes(block.key.view())
        for number, block in other.items():
            assert self.made.get(number) == bytes(block.key.view()), "never anything but what the source made"

    @invariant()
    def who_confirms_holds(self) -> None:
        source, destination = (self.sites[end].pools[WHOLE] for end in ENDS)
        confirmed = {number for number in source._blocks if source.confirmed(number)}
        assert all(number in destination._blocks or number <= destination.totals.highest for number in confirmed)

    @invariant()
    def no_node_between_gets_two_shares_of_a_block(self) -> None:
        for name in RELAYS:
            assert all(len(shares) == 1 for shares in self.sites[name].seen.values())

    @invariant()
    def memory_is_bounded(self) -> None:
        assert self.sites["z"].relays.held(WHOLE) <= LIMIT * (BLOCK + 32)

    @invariant()
    def nothing_is_used_twice(self) -> None:
        for site in self.sites.values():
            used: set[tuple[LinkId, int, int]] = set()
            for segment in site.disk.uses:
                octets = {(LinkId(segment.link), segment.block, segment.offset + at) for at in range(segment.length)}
                assert not octets & used
                used |= octets

    def teardown(self) -> None:
        """When all is well again, key comes and nothing waits."""
        for end in ENDS:
            for one in RELAYS:
                self.connect(end, one)
        self.connect(*ENDS)
        self.switch("z")
        for one in RELAYS:
            for end in ENDS:
                self.feed(end, one, 20)
        self.run()
        source, destination = (self.sites[end].pools[WHOLE] for end in ENDS)
        source.burn(list(source._blocks))
        for _ in range(30):
            self.wait(1.0)
            self.fill()
            self.run()
        assert len(destination._blocks) >= 12, "no key comes any more"
        assert self.sites["z"].relays.held(WHOLE) == 0
        assert {number for number in source._blocks if source.confirmed(number)} == set(destination._blocks)
        for check in (self.both_ends_hold_the_same, self.no_node_between_gets_two_shares_of_a_block):
            check()


TestNetwork = Network.TestCase
TestNetwork.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)


@pytest.mark.soak
def test_a_network_for_long() -> None:
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(Network, settings=settings(max_examples=1000, stateful_step_count=100, deadline=None))
