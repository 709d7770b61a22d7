"""Two ends of an association, whatever is lost, doubled or late and whoever crashes when: once, same, confirmed.

The ends are the real pools and deliveries over a disk that is a dictionary: what was committed survives a crash, nothing
else does; a session hands messages on in order until it breaks, and what of an older session arrives then is not for it.
"""

import random
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from qswitch.agent.errors import PeerViolation
from qswitch.agent.lkms import delivery_master
from qswitch.agent.lkms.ahead import MOST
from qswitch.agent.lkms.delivery import Delivery
from qswitch.agent.lkms.delivery_end import DeliveryConfig, Order, StoredKey
from qswitch.agent.lkms.keys import Key
from qswitch.agent.lkms.pool import Block, Pool, Refused, Totals
from qswitch.agent.lkms.tags import Channel
from qswitch.agent.model import KeyStreamId, LinkId, NodeId
from qswitch.protocol import lkms
from qswitch.protocol.lkms import AnyMessage, Codec, Have, KeyAlloc, Segment, Tagged, WireMessage, build

LINK, KSID = LinkId("link"), KeyStreamId("pair")
BLOCK, USUAL, LIMIT, RESERVE = 512, 8, 40, 128
Wire = deque[WireMessage]


@dataclass
class Disk:
    rows: dict[tuple[str, Any], Any] = field(default_factory=dict)
    uses: list[tuple[Segment, str, str]] = field(default_factory=list)
    ever: dict[tuple[str, Any], Any] = field(default_factory=dict)  # what the rows have been


class Journal:
    """Notes that become durable, and messages that leave, at `commit`."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.notes: list[Callable[[], object]] = []

    def block(self, _link: LinkId, number: int, cursor: int, size: int, ours: bool, made: float, key: Key) -> None:
        self._put(("block", number), [number, size, cursor, ours, made, bytes(key.view())])

    def block_owner(self, _link: LinkId, number: int, ours: bool) -> None:
        self.notes.append(lambda: self.disk.rows["block", number].__setitem__(3, ours))

    def block_gone(self, _link: LinkId, number: int) -> None:
        self.notes.append(lambda: self.disk.rows.pop(("block", number), None))

    def used(self, segment: Segment, kind: str, consumer: str) -> None:
        self.notes.append(lambda: self.disk.uses.append((segment, kind, consumer)))

    def totals(self, _link: LinkId, totals: Totals) -> None:
        self._put(("totals", 0), replace(totals))

    def key(self, _ksid: KeyStreamId, key_id: str, ours: bool, stored: StoredKey) -> None:
        self._put(("key", key_id), [ours, bytes(stored.key.view()), stored.made, stored.hops, stored.since])

    def key_since(self, _ksid: KeyStreamId, key_id: str, since: float) -> None:
        self.notes.append(lambda: self.disk.rows["key", key_id].__setitem__(4, since))

    def key_gone(self, _ksid: KeyStreamId, key_id: str) -> None:
        self.notes.append(lambda: self.disk.rows.pop(("key", key_id), None))

    def keys_gone(self, _ksid: KeyStreamId) -> None:
        self.notes.append(lambda: [self.disk.rows.pop(row) for row in list(self.disk.rows) if row[0] == "key"])

    def ahead(self, _ksid: KeyStreamId, octets: int) -> None:
        self._put(("ahead", 0), octets)

    def after(self, callback: Callable[[], None]) -> None:
        self.notes.append(callback)

    def _put(self, row: tuple[str, Any], value: object) -> None:
        self.notes.append(lambda: [rows.__setitem__(row, value) for rows in (self.disk.rows, self.disk.ever)])

    def commit(self) -> None:
        for do in self.notes:
            do()
        self.notes.clear()


def _ids(name: str) -> Iterator[str]:
    number = 0
    while True:
        number += 1
        yield f"{name}{number}"


class End:
    def __init__(self, name: str, other: str) -> None:
        self.name, self.other, self.disk = NodeId(name), NodeId(other), Disk()
        self.wire: Wire | None = None
        self.channel: Channel | None = None
        self.offering = False
        self.sent: list[AnyMessage] = []
        self.now = 0.0
        self.ids = _ids(name)
        self.boot()

    def boot(self) -> None:
        """Starts with what the disk has."""
        self.journal, rows = Journal(self.disk), self.disk.rows
        rows["ahead", 0] = 0  # burnt
        blocks = [Block(*row[:5], Key(row[5])) for (kind, _), row in rows.items() if kind == "block"]
        totals = replace(rows.get(("totals", 0), Totals()))
        names = self.name, self.other
        self.pool = Pool(LINK, *names, 40, self.journal, self.send, totals, blocks, reserve=RESERVE)
        keys = {key_id: row for (kind, key_id), row in rows.items() if kind == "key"}
        held, stock = (
            {key_id: StoredKey(Key(row[1]), *row[2:]) for key_id, row in keys.items() if row[0] is ours}
            for ours in (False, True)
        )
        self.orders: list[Order] = []
        self.delivery = Delivery(
            config=DeliveryConfig(KSID, self.other, (LINK,), USUAL, LIMIT, 100.0),
            asks=self.name < self.other,
            journal=self.journal,
            send=self.send,
            pools={LINK: self.pool},
            new_id=lambda: next(self.ids),
            clock=lambda: self.now,
            spare=lambda: 1000,
            held=held,
            doubtful=stock,
        )

    def join(self, nonces: tuple[bytes, bytes]) -> None:
        """A session is up."""
        self.wire = deque()
        self.channel = Channel((self.name, self.other), nonces, lambda: [self.pool])
        self.offering = True

    def part(self) -> None:
        self.wire = self.channel = None
        self.pool.part()
        self.delivery.part()

    def send(self, message: AnyMessage) -> None:
        if self.channel is not None:
            assert not isinstance(message, Tagged)
            self.sent.append(message)
            self.channel.put(message)

    def commit(self) -> None:
        if self.channel is not None and self.wire is not None:
            if self.offering:
                self.channel.put(self.pool.offer(self.pool.heard and self.channel.mute))
                self.offering = False
            self.journal.notes += [partial(self.wire.append, message) for message in self.channel.flush()]
        self.journal.commit()

    def add(self, number: int) -> None:
        if self.pool.add(number, Key(random.Random(number).randbytes(BLOCK)), self.now, self.now):
            self.send(Have(LINK, [(number, number)], self.pool.full))
            self.offering |= self.pool.peer_low

    def take(self, message: AnyMessage) -> None:
        pool, one = self.pool, self.delivery
        match message:
            case lkms.Offer():
                pool.offered(message, self.now)
                self.offering |= message.asks
            case lkms.LinkHello():
                pool.hello()
            case lkms.LinkSync():
                assert not pool.sync(message, self.now)
            case lkms.Have():
                pool.have(message)
            case lkms.Lost():
                pool.lost(message)
            case lkms.Want():
                pool.wanted()
            case lkms.Lack():
                pool.lacking(message)
            case lkms.Give():
                pool.given(message)
            case lkms.KeyHello():
                if message.links and pool.synced:
                    pool.meet()
                one.on_hello()
            case lkms.KeySync():
                one.on_sync(message)
            case lkms.KeyMeet():
                one.on_meet(message)
            case lkms.KeyMet():
                one.on_met(message)
            case lkms.KeyAlloc():
                one.on_alloc(message)
            case lkms.KeyAck():
                one.on_ack(message)
            case lkms.KeyTaken():
                one.on_taken(message)
            case lkms.KeyDrop():
                one.on_drop(message)


@settings(max_examples=200, stateful_step_count=50, deadline=None)
class Agreement(RuleBasedStateMachine):
    ends = st.sampled_from([0, 1])

    @initialize()
    def begin(self) -> None:
        self.both = End("a", "b"), End("b", "a")
        self.number = 0
        self.got: dict[str, bytes] = {}  # as master
        self.fetched: dict[str, bytes] = {}  # as slave
        self.bits: set[bytes] = set()
        self.old: list[Wire] = []
        self.connect()
        self.feed(8)
        self.run()

    # What the world does.

    @rule(count=st.integers(1, 4))
    def feed(self, count: int) -> None:
        for _ in range(count):
            for end in self.both:
                end.add(self.number)
            self.number += 1

    def connect(self) -> None:
        self.disconnect()
        one, other = random.randbytes(16), random.randbytes(16)
        self.both[0].join((one, other))
        self.both[1].join((other, one))
        self.both[0].pool.meet()
        self.both[0].delivery.meet()

    @rule()
    def disconnect(self) -> None:
        for end in self.both:
            end.part()

    @rule(crashing=st.sampled_from([(), (0,), (1,), (0, 1)]), settle=st.booleans(), late=st.booleans())
    def trouble(self, crashing: tuple[int, ...], settle: bool, late: bool) -> None:
        """The session breaks, with crashes; a new one comes up, and things go on at once or wait.

        An end that is configured late has not heard what the other opened the session with, and says hello.
        """
        self.disconnect()
        for one in (self.both[end] for end in crashing):
            lost = sum(map(one.delivery.ahead.free, one.delivery.ready))
            assert lost * USUAL <= one.disk.rows["ahead", 0] < MOST * USUAL, "burnt, and not counted"
            one.boot()
        self.connect()
        if late:
            self.both[0].channel._items.clear()  # type: ignore[union-attr]
            self.both[1].pool.meet()
            self.both[1].delivery.meet()
        if settle:
            self.run()

    @rule(end=ends)
    def ends_in_order(self, end: int) -> None:
        """Of what is put by, nothing is lost."""
        self.disconnect()
        one = self.both[end]
        before = {**one.delivery.doubtful, **one.delivery.ready}
        one.delivery.put_back()
        one.journal.commit()
        assert not one.disk.rows["ahead", 0]
        one.boot()
        after = one.delivery.doubtful
        assert {name: bytes(before[name].key.view()) for name in before} == {
            name: bytes(after[name].key.view()) for name in after
        }
        self.connect()

    @rule(end=ends)
    def commit(self, end: int) -> None:
        self.both[end].commit()

    @rule(end=ends, count=st.integers(1, 8), twice=st.booleans())
    def arrive(self, end: int, count: int, twice: bool = False) -> None:
        for _ in range(count):
            if not (wire := self.both[1 - end].wire):
                return
            codec = Codec()
            codec.receive(build(wire.popleft()))
            message = codec.next_message()
            assert message is not None
            self.hear(end, message, twice)

    def hear(self, end: int, message: WireMessage, twice: bool) -> None:
        one = self.both[end]
        assert one.channel is not None
        try:
            said = one.channel.open(message) if isinstance(message, Tagged) else [message]
        except Refused:
            self.connect()
            return
        for part in said:
            one.take(part)
            if twice and isinstance(part, lkms.KeyAlloc | lkms.KeyAck | lkms.KeyTaken | lkms.KeyDrop | lkms.KeySync):
                try:
                    one.take(part)
                except PeerViolation:
                    assert isinstance(part, lkms.KeyAlloc)

    @rule()
    def run(self) -> None:
        """Lets all that is under way come to an end."""
        for _ in range(16):
            for end in (0, 1):
                self.both[end].delivery.serve()
                self.commit(end)
                self.arrive(1 - end, 100)

    @rule(seconds=st.sampled_from([1, 20, 120]))
    def wait(self, seconds: int) -> None:
        for end in self.both:
            end.now += seconds
            end.pool.expire(end.now, 10)
            end.delivery.tick(end.now)

    # What applications do.

    @rule(end=ends, number=st.integers(1, 5), octets=st.sampled_from([USUAL, USUAL, 5, 20]))
    def asks(self, end: int, number: int, octets: int) -> None:
        one = self.both[end]
        one.orders.append(one.delivery.order(number, octets))

    @rule(end=ends, times=st.integers(4, 12))
    def goes_on_asking(self, end: int, times: int) -> None:
        """One key after the other, so that the stock gets ahead of its commits."""
        for _ in range(times):
            self.asks(end, 1, USUAL)
            self.is_served(end)

    @rule(end=ends)
    def is_served(self, end: int) -> None:
        one = self.both[end]
        one.delivery.serve()
        for order in [order for order in one.orders if order.done]:
            one.orders.remove(order)
            if not order.sure:
                one.commit()
            one.delivery.delivered(order)
            for key_id, stored in order.keys.items():
                self.hand_out(key_id, stored, self.got)

    @rule(end=ends)
    def gives_up(self, end: int) -> None:
        one = self.both[end]
        one.delivery.serve()
        for order in one.orders:
            one.delivery.cancel(order)
        one.orders.clear()

    @rule(end=ends, count=st.integers(1, 4), fails=st.booleans())
    def fetches(self, end: int, count: int, fails: bool) -> None:
        """The slave asks for keys that its master has told it of."""
        one = self.both[end]
        known = [key_id for key_id in self.got if key_id in one.delivery.held][:count]
        released = one.delivery.release(known)
        if fails:
            one.delivery.give_back(released)
            return
        one.commit()
        for key_id, stored in released.items():
            self.hand_out(key_id, stored, self.fetched)
            assert self.fetched[key_id] == self.got[key_id], "the ends differ"

    def hand_out(self, key_id: str, stored: StoredKey, to: dict[str, bytes]) -> None:
        assert key_id not in to, "delivered twice"
        to[key_id] = bytes(stored.key.view())
        assert any(to[key_id]), "a wiped key"
        if to is self.got:
            other = self.both[1] if key_id.startswith("a") else self.both[0]
            row = other.disk.ever.get(("key", key_id))
            assert row is not None and row[1] == to[key_id], "delivered before the other end held it durably"

    # What must hold.

    @invariant()
    def no_octet_is_used_twice(self) -> None:
        if not hasattr(self, "both"):
            return
        consumers: dict[tuple[int, int], str] = {}
        for end in self.both:
            once: set[tuple[int, int]] = set()
            for segment, kind, consumer in end.disk.uses:
                octets = {(segment.block, octet) for octet in range(segment.offset, segment.offset + segment.length)}
                assert not once & octets
                once |= octets
                if kind != "burnt":
                    assert all(consumers.setdefault(octet, consumer) == consumer for octet in octets)

    @invariant()
    def nothing_delivered_stays_on_disk(self) -> None:
        for end in getattr(self, "both", ()):
            stock = {name for (kind, name), row in end.disk.rows.items() if kind == "key" and row[0]}
            assert not stock & set(self.got)

    @invariant()
    def an_end_holds_no_more_than_it_has_room_for(self) -> None:
        if hasattr(self, "both"):
            assert all(len(end.delivery.held) <= LIMIT for end in self.both)

    def teardown(self) -> None:
        """Healed, every pair of ends gets on: both ways, from the stock and beyond it."""
        if not hasattr(self, "both"):
            return
        self.connect()
        self.run()
        for end in self.both:
            for order in end.orders:
                end.delivery.cancel(order)
            end.orders.clear()
        self.feed(8)
        for seconds in (1, 120, 1):  # what was delivered, and is not fetched, makes room
            self.wait(seconds)
            self.run()
        orders = [end.delivery.order(number, octets) for end in self.both for number, octets in ((3, USUAL), (2, 20))]
        self.run()
        assert all(order.done for order in orders)


TestAgreement = Agreement.TestCase


# By hand -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Agreement:
    monkeypatch.setattr(delivery_master, "STOCK", (4, 16))
    one = Agreement()
    one.begin()
    return one


def puts_by(machine: Agreement) -> None:
    """A key was asked for and handed out, and now others are held ready at both ends."""
    machine.asks(0, 1, USUAL)
    machine.run()
    machine.is_served(0)
    machine.run()


def test_from_the_stock_a_key_costs_no_message(machine: Agreement) -> None:
    a = machine.both[0]
    puts_by(machine)
    assert len(machine.got) == 1 and a.delivery.ready
    machine.disconnect()
    machine.asks(0, 1, USUAL)
    machine.is_served(0)
    assert len(machine.got) == 2, "what both hold is delivered while they are apart"


def test_the_stock_survives_a_crash_of_either_end_and_of_both(machine: Agreement) -> None:
    a, b = machine.both
    puts_by(machine)
    machine.asks(0, 1, USUAL)
    machine.run()
    before = list(a.delivery.ready)
    burnt = a.pool.totals.burnt
    for crashing in ((0,), (1,), (0, 1)):
        machine.trouble(crashing, True, False)
        assert list(a.delivery.ready) == before and a.pool.totals.burnt == burnt == b.pool.totals.burnt


def test_what_only_one_end_knows_of_is_burnt(machine: Agreement) -> None:
    a, b = machine.both
    a.delivery.target = 8
    a.delivery.serve()
    a.commit()
    machine.disconnect()  # the allocation was on its way
    machine.connect()
    machine.run()
    assert not set(a.delivery.ready) - set(b.delivery.held)
    assert not [row for row in a.disk.rows if row[0] == "key" and row[1] not in b.delivery.held]


def test_no_more_than_there_is_room_for(machine: Agreement) -> None:
    machine.asks(0, LIMIT, 5)
    machine.asks(0, 1, 5)
    machine.run()
    a, b = machine.both
    done = [order.done for order in a.orders]
    assert done == [True, False] and len(b.delivery.held) == LIMIT
    machine.is_served(0)
    machine.fetches(1, 1, False)
    machine.run()
    assert all(order.done for order in a.orders), "room is told"


def test_keys_that_nobody_fetches_are_erased_in_time(machine: Agreement) -> None:
    b = machine.both[1]
    machine.asks(0, 2, USUAL)
    machine.asks(0, 2, 5)
    machine.run()
    machine.is_served(0)
    machine.wait(1)
    machine.run()
    held = set(b.delivery.held)
    assert set(machine.got) <= held
    machine.wait(120)
    assert not set(machine.got) & set(b.delivery.held)
    assert set(b.delivery.held) == held - set(machine.got), "what is put by stays"


def test_what_the_other_end_takes_for_delivered_is_not_put_back(machine: Agreement) -> None:
    """A call is given up while its commit is under way, and the ends have met meanwhile: there its time runs."""
    a, b = machine.both
    puts_by(machine)
    for end in (0, 1):
        order = machine.both[end].delivery.order(1, USUAL)
        machine.both[end].delivery.target = 4
        machine.run()
        (key_id,) = order.keys
        machine.trouble((), True, False)
        machine.both[end].delivery.cancel(order)
        machine.run()
        assert key_id not in {**machine.both[end].delivery.ready, **machine.both[end].delivery.doubtful}
        assert key_id not in machine.both[1 - end].delivery.held
    assert set(a.delivery.ready) <= set(b.delivery.held)


def test_what_the_other_end_has_lost_is_not_put_back(machine: Agreement) -> None:
    """It says so while a call has the key, which is given up then."""
    a, b = machine.both
    puts_by(machine)
    (key_id,) = list(a.delivery.ready)[:1]
    b.delivery.held.pop(key_id)
    machine.connect()
    order = a.delivery.order(1, USUAL)
    a.delivery.serve()
    assert list(order.keys) == [key_id] and not a.delivery.synced
    machine.run()
    assert a.delivery.synced
    a.delivery.cancel(order)
    assert key_id not in {**a.delivery.ready, **a.delivery.doubtful}


def test_what_waits_for_the_rest_of_its_order_is_not_delivered_when_the_other_end_has_lost_it(machine: Agreement) -> None:
    a, b = machine.both
    order = a.delivery.order(5, 20)
    a.delivery.serve(2 * 20)
    for end in (0, 1):
        machine.commit(end)
        machine.arrive(1 - end, 100)
    assert len(order.keys) == 2
    lost = set(order.keys)
    b.delivery.held.clear()
    machine.connect()
    machine.run()
    assert order.done and len(order.keys) == 5 and not lost & set(order.keys)
    assert set(order.keys) <= set(b.delivery.held)


def test_a_key_that_was_asked_for_and_not_handed_out_is_erased_in_time(machine: Agreement) -> None:
    """Even if its master says only in between that it has it."""
    b = machine.both[1]
    puts_by(machine)
    machine.asks(0, 1, USUAL)
    machine.is_served(0)
    key_id = list(machine.got)[-1]
    released = b.delivery.release([key_id])
    machine.wait(1)
    machine.run()
    b.delivery.give_back(released)
    machine.wait(120)
    assert key_id not in b.delivery.held


def test_a_key_that_was_given_reaches_the_other_end_under_a_pad(machine: Agreement) -> None:
    a, b = machine.both
    keys = {"k1": Key(b"x" * 16), "k2": Key(b"y" * 16)}
    order = a.delivery.order(2, 16, keys)
    a.delivery.serve()
    sent = a.sent[-1]
    assert isinstance(sent, KeyAlloc)
    assert len(sent.sealed) == 32 and b"xx" not in sent.sealed
    machine.run()
    assert order.done and {key_id: bytes(one.key.view()) for key_id, one in b.delivery.held.items()} == {
        "k1": b"x" * 16,
        "k2": b"y" * 16,
    }


@pytest.mark.parametrize("what", ["sealed", "tag", "ids", "size"])
def test_a_given_key_that_was_tampered_with_burns_its_pad_only(machine: Agreement, what: str) -> None:
    a, b = machine.both
    order = a.delivery.order(2, 16, {"k1": Key(b"x" * 16), "k2": Key(b"y" * 16)})
    a.delivery.serve()
    assert a.channel is not None
    sent = a.channel._items.pop()
    assert isinstance(sent, KeyAlloc)
    values = {name: getattr(sent, name) for name in sent.__struct_fields__}
    wrong = {"sealed": bytes(32), "tag": bytes(16), "ids": ["k1", "k3"], "size": 8}
    a.send(KeyAlloc(**(values | {what: wrong[what]})))
    with pytest.raises(PeerViolation):
        machine.run()
    machine.run()
    assert not order.done and order.cancelled and not b.delivery.held
    machine.asks(0, 1, USUAL)
    machine.run()
    assert a.orders[0].done, "they get on"
