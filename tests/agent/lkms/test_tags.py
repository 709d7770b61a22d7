"""Envelopes of tagged messages: what an attacker between the two ends cannot do, and what a tag costs and is worth."""

import math
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis.stateful import invariant, rule
from two_ends import BLOCK, LINK, Agreement, End

from qswitch.agent.config import MAX_CAPACITY_BLOCKS
from qswitch.agent.errors import PeerViolation
from qswitch.agent.lkms import lines, tags
from qswitch.agent.lkms.keys import Key
from qswitch.agent.lkms.otp import TAG_KEY, BadTag, check, sign
from qswitch.agent.lkms.pool import MAX_LEAP, RESERVE, Block, Pool, Refused, Totals
from qswitch.agent.lkms.tags import Channel
from qswitch.agent.model import NodeId
from qswitch.protocol import lkms
from qswitch.protocol.lkms import (
    MAX_ENVELOPE,
    MAX_MESSAGE,
    Need,
    Offer,
    ProtocolError,
    Segment,
    Tagged,
    Want,
    WireMessage,
)


class _Unwritten:
    """A journal for cases in which nothing is restarted."""

    def __getattr__(self, _name: str) -> Any:
        return lambda *_arguments: None


FORGED = ("", "number", "key", "block", "body", "tag")

# Two ends and who is between them -----------------------------------------------------------------------------------------


class Meddled(Agreement):
    """The same two ends, over a wire on which somebody loses, doubles, reorders, changes and makes up envelopes."""

    def begin_records(self) -> None:
        if not hasattr(self, "sessions"):
            self.sessions = 0
            self.sent: dict[tuple[int, int, int], Tagged] = {}  # by session, sender and number
            self.taken: set[tuple[int, int, int]] = set()
            self.served: dict[tuple[int, int, int], bytes] = {}  # by sender, block and octet: what a tag key has tagged
            self.books: dict[tuple[int, int, Segment], int] = {}
            End.meddled = True

    def connect(self) -> None:
        self.begin_records()
        self.sessions += 1
        super().connect()

    def commit(self, end: int) -> None:
        one = self.both[end]
        before = len(one.wire) if one.wire is not None else 0
        super().commit(end)
        for message in list(one.wire or ())[before:]:
            if isinstance(message, Tagged):
                self.record(end, message)

    def record(self, end: int, message: Tagged) -> None:
        """A tag key serves one envelope at its sender, whatever became of the process in between."""
        assert self.sent.setdefault((self.sessions, end, message.number), message) is message
        book = (self.sessions, end, message.key)
        at = message.key.offset + TAG_KEY * self.books.get(book, 0)
        self.books[book] = self.books.get(book, 0) + 1
        assert at + TAG_KEY <= message.key.offset + message.key.length
        assert self.served.setdefault((end, message.key.block, at), message.body) is message.body, "a tag key was used twice"

    def hear(self, end: int, message: WireMessage) -> None:
        """What is taken was said in this session by the other end, as the next thing, once."""
        channel, place = self.both[end].channel, (self.sessions, 1 - end, getattr(message, "number", 0))
        assert channel is not None
        try:
            said = channel.open(message) if isinstance(message, Tagged) else [message]
        except (Refused, BadTag, ProtocolError, PeerViolation):
            self.connect()
            return
        if isinstance(message, Tagged):
            assert message.number == self.expected(end), "something before it is missing"
            assert self.sent[place] == message and place not in self.taken
            self.taken.add(place)
        for one in said:
            with suppress(PeerViolation):  # of octets that a forgery has burnt at this end
                self.both[end].take(one)

    def expected(self, end: int) -> int:
        return sum(place[:2] == (self.sessions, 1 - end) for place in self.taken)

    def take_pad(self, end: int, message: lkms.Relay) -> None:
        with suppress(PeerViolation):
            super().take_pad(end, message)

    def said(self, end: int) -> list[int]:
        """Has an end say something; where in its wire envelopes are."""
        one = self.both[end]
        one.send(lkms.Have(LINK, (), one.pool.full))
        self.commit(end)
        return [at for at, message in enumerate(one.wire or ()) if isinstance(message, Tagged)]

    @rule(end=Agreement.ends, which=st.integers(0, 2), what=st.sampled_from(["lost", "twice", "later"]), more=st.booleans())
    def disorder(self, end: int, which: int, what: str, more: bool) -> None:
        if not (places := self.said(end)):
            return
        at, wire = places[which % len(places)], self.both[end].wire
        assert wire
        message = wire[at]
        if what == "twice":
            wire.insert(at, message)
        else:
            del wire[at]
        if more:
            self.said(end)
        if what == "later":
            wire.append(message)
        self.arrive(1 - end, 100)

    @rule(end=Agreement.ends, which=st.none() | st.integers(0, 1000), name=st.sampled_from(FORGED), by=st.integers(-70, 70))
    def forge(self, end: int, which: int | None, name: str, by: int) -> None:
        """Says to an end what it is to hear next, or what was ever said, as it was or changed in one thing."""
        places, wire = self.said(1 - end), self.both[1 - end].wire
        if not places or wire is None:
            return
        if which is None:
            self.arrive(end, places[0])
            message = wire.popleft() if wire and wire is self.both[1 - end].wire else None
        else:
            message = list(self.sent.values())[-1 - which % len(self.sent)]
        if isinstance(message, Tagged):
            self.hear(end, self.changed(end, message, name, by))

    def changed(self, end: int, message: Tagged, name: str, by: int) -> Tagged:
        match name:
            case "number":
                return msgspec.structs.replace(message, number=self.expected(end))
            case "key":
                return msgspec.structs.replace(message, key=message.key._replace(offset=max(0, message.key.offset + by)))
            case "block":
                return msgspec.structs.replace(message, key=message.key._replace(block=max(0, message.key.block + by)))
            case "body":
                return msgspec.structs.replace(message, body=message.body[:-1] + bytes([message.body[-1] ^ (1 + by % 255)]))
            case "tag":
                return msgspec.structs.replace(message, tag=bytes([message.tag[0] ^ (1 + by % 255)]) + message.tag[1:])
        return message

    @rule(
        end=Agreement.ends, numbers=st.lists(st.integers(0, 60), max_size=8), high=st.integers(-1, 100), short=st.booleans()
    )
    def lie(self, end: int, numbers: list[int], high: int, short: bool) -> None:
        """A forged hint."""
        if self.both[end].wire is not None:
            self.hear(end, Offer(LINK, high, tuple((number, 0, BLOCK) for number in numbers), True, short))

    @rule(end=Agreement.ends)
    def repeat_a_session(self, end: int) -> None:
        """Says what was kept back in an earlier session, in the place it had."""
        kept = [one for place, one in self.sent.items() if place not in self.taken and place[:2] != (self.sessions, 1 - end)]
        fitting = [one for one in kept if one.number == self.expected(end)]
        if fitting and self.both[end].wire is not None:
            self.hear(end, fitting[-1])

    @invariant()
    def both_ends_name_the_same_consumer(self) -> None:
        """But for what a forgery said that octets were for."""
        if not hasattr(self, "both"):
            return
        one, other = (
            {
                (segment.block, octet): consumer
                for segment, kind, consumer in end.disk.uses
                if kind == "stream"
                for octet in range(segment.offset, segment.offset + segment.length)
            }
            for end in self.both
        )
        assert all(other.get(octet, consumer) == consumer for octet, consumer in one.items())

    @invariant()
    def no_block_has_two_owners(self) -> None:
        if hasattr(self, "both"):
            mine, theirs = (
                {row[0] for (kind, _), row in end.disk.rows.items() if kind == "block" and row[3]} for end in self.both
            )
            assert not mine & theirs

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            End.meddled = False


TestMeddled = Meddled.TestCase
TestMeddled.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)


@pytest.mark.soak
def test_meddled_for_long() -> None:
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(Meddled, settings=settings(max_examples=2000, stateful_step_count=100, deadline=None))


# By hand -------------------------------------------------------------------------------------------------------------


def pools(blocks: int = 4, size: int = 4096) -> tuple[Pool, Pool]:
    """Two ends that hold the same blocks, and have not met."""
    one, other = (
        Pool(LINK, NodeId(here), NodeId(there), 100, _Unwritten(), lambda _message: None, Totals())
        for here, there in (("a", "b"), ("b", "a"))
    )
    for number in range(blocks):
        key = bytes([number + 1]) * size
        assert one.add(number, Key(key), 0, 0) and other.add(number, Key(key), 0, 0)
    return one, other


def channels(one: Pool, other: Pool) -> tuple[Channel, Channel]:
    nonces = b"1" * 16, b"2" * 16
    return Channel(("a", "b"), nonces, lambda: [one]), Channel(("b", "a"), nonces[::-1], lambda: [other])


def test_without_key_hints_go_ahead_and_the_rest_waits_in_order() -> None:
    a, b = pools()
    out, into = channels(a, b)
    batch = lkms.Relay(LINK, 0, (), (), b"", b"")
    for item in (Need("x", 1), Want(LINK), batch, Need("x", 2), lambda: Need("x", 3)):
        out.put(item)
    assert out.mute and out.flush() == [Want(LINK)] and out.blocked and out.waiting == 4
    assert out.waits(Need, "x") and not out.waits(Need, "y") and not out.waits(lkms.Alloc, "x")
    a.offered(b.offer(short=False), 0)
    first, second, third = out.flush()
    assert isinstance(first, Tagged) and second is batch and isinstance(third, Tagged) and not out.blocked
    assert into.open(first) == [Need("x", 1)] and into.open(third) == [Need("x", 2), Need("x", 3)]


def test_books_grow_with_the_session_and_only_the_rest_of_one_is_lost() -> None:
    a, b = pools(size=64 * 1024)
    out, into = channels(a, b)
    a.offered(b.offer(short=False), 0)
    books: dict[Segment, int] = {}
    for number in range(200):
        out.put(Need("x", number))
        (message,) = out.flush()
        assert isinstance(message, Tagged) and into.open(message) == [Need("x", number)]
        books[message.key] = books.get(message.key, 0) + 1
    sizes = [key.length // TAG_KEY for key in books]
    assert sizes == [1, 2, 4, 8, 16, 32, 32, 32, 32, 32, 32] and all(key.length <= 1024 for key in books)
    assert list(books.values())[:-1] == sizes[:-1], "every key of a book is used before the next is drawn"
    assert a.totals.consumed == b.totals.consumed == TAG_KEY * sum(sizes)
    assert b.totals.burnt == 0


def test_a_lost_book_is_burnt_by_the_next_one_and_by_a_meeting() -> None:
    for meets in (False, True):
        a, b = pools()
        a.offered(b.offer(short=False), 0)
        lost, _ = a.draw(1, "x") or pytest.fail("no key")
        if meets:
            assert not b.sync(a._snapshot(reply=False), 0)
        else:
            out, into = channels(a, b)
            out.put(Need("x", 1))
            (message,) = out.flush()
            assert isinstance(message, Tagged) and into.open(message)
        assert a._blocks[0].end == b._blocks[0].end < lost.offset + lost.length and b.totals.burnt == lost.length


def test_messages_about_a_block_and_their_tags_may_be_of_one_block() -> None:
    """Whichever is taken first."""
    a, b = pools(2)
    assert not b.sync(a._snapshot(reply=False), 0)
    a._epoch = 1
    assert not a.sync(msgspec.structs.replace(b._snapshot(reply=True), epoch=1), 0)
    taken = a.allocate(100, "stream", "x")
    book, key = a.draw(2, "t") or pytest.fail("no key")
    assert taken is not None and book.block == taken.segments[0].block == 0
    assert b.claim_back(book, "t") == key
    assert b.claim(taken.segments, "stream", "x").key == taken.key
    assert b.totals.burnt == 0


def test_what_is_kept_for_tags_goes_to_nothing_else() -> None:
    a, b = pools(2)
    b.sync(a._snapshot(reply=False), 0)
    a._epoch = 1
    a.sync(msgspec.structs.replace(b._snapshot(reply=True), epoch=1), 0)
    assert a.available == 4096 - RESERVE and a.usable == 2 * a.available
    assert a.allocate(a.available + 1, "stream", "x") is None
    assert a.allocate(a.available, "stream", "x") and a.available == 0 and a.usable == b.available
    for left in range(RESERVE // TAG_KEY, 0, -1):
        assert a.can_tag() and a._own == left * TAG_KEY
        assert a.draw(1, "t")
    assert not a.can_tag() and a.draw(1, "t") is None


def test_an_end_gives_none_of_its_reserve_away() -> None:
    a, b = pools(2)
    b.sync(a._snapshot(reply=False), 0)
    a._epoch = 1
    a.sync(msgspec.structs.replace(b._snapshot(reply=True), epoch=1), 0)
    a.wanted()
    assert a.available > 0, "its last block"


def test_a_store_put_back_from_a_copy_tags_with_nothing_that_was_used() -> None:
    a, b = pools(4)
    a.offered(b.offer(short=False), 0)
    out, into = channels(a, b)
    out.put(Need("x", 1))
    (message,) = out.flush()
    assert isinstance(message, Tagged) and message.key.block == 0 and into.open(message)
    again, _ = pools(4)
    again.offered(b.offer(short=False), 0)
    book, _ = again.draw(1, "x") or pytest.fail("no key")
    assert book.block == 2, "of block 0 the other end knows a use that is unknown here"


def test_however_many_blocks_were_used_elsewhere_they_are_one_alarm() -> None:
    a, b = pools(40)
    for number in range(0, 40, 2):
        b.claim_back(Segment(LINK, number, 4064, TAG_KEY), "forged")
    a._epoch = 1
    assert "20 blocks" in a.sync(msgspec.structs.replace(b._snapshot(reply=True), epoch=1), 0)
    assert a.counts()[0] == 20


def test_an_absurd_number_in_a_hint_does_not_use_the_numbers_up() -> None:
    a, _ = pools(4)
    with pytest.raises(PeerViolation):
        a.offered(Offer(LINK, 4 + MAX_LEAP, (), True, False), 0)
    a.offered(Offer(LINK, 100, (), True, False), 0)
    assert a.next_numbers(2, both=True) == [101, 102]
    a.part()
    assert a.next_numbers(2, both=True) == [5, 6]


def test_a_number_that_no_store_can_hold_is_nowhere_counted_on() -> None:
    """A device, a relay node or the far end may name one; the store of this node must not fail over it."""
    a, b = pools(4)
    assert not a.add((1 << 63) - 1, Key(b"x"), 0, 0) and a.totals.highest == 3
    assert a.fits(3 + MAX_LEAP) and not a.fits(4 + MAX_LEAP)
    a._epoch = 1
    assert not a.sync(msgspec.structs.replace(b._snapshot(reply=True), epoch=1, high=(1 << 63) - 1), 0)
    assert a.synced and a.next_numbers(1) == a.next_numbers(4, both=True) == []


def test_no_end_holds_more_than_it_can() -> None:
    """A source that relays on and on, and uses nothing, fills neither memory nor disk."""
    a, _ = pools(0)
    for number in range(3000):
        if a.fits(number):
            a.add(number, Key(b"x"), 0, 0)
    assert a.counts()[0] == 16 * 100 + 1000


def test_who_makes_the_blocks_gives_the_far_end_some_to_tag_with() -> None:
    a, _ = pools(0)
    assert a.next_numbers(4) == [1, 2, 4, 6]
    a.add(1, Key(bytes(4096)), 0, 0)
    assert a.next_numbers(4) == [2, 4, 6, 8]


def full_and_not_met(there: range) -> tuple[Pool, Pool]:
    """One end is full, the other has these of its blocks. They have a session, and their disks are slow."""
    a, _ = pools(100)
    b = Pool(LINK, NodeId("b"), NodeId("a"), 100, _Unwritten(), lambda _message: None, Totals())
    for number in there:
        b.add(number, Key(bytes([number + 1]) * 4096), 0, 0)
    a.offered(b.offer(short=False), 0)
    b.offered(a.offer(short=False), 0)
    assert a.full
    return a, b


def test_a_meeting_that_takes_its_time_burns_nothing() -> None:
    """Whose disk fails has heard the other end and cannot answer it; what both hold, they will learn."""
    a, b = full_and_not_met(range(100))
    assert not a.expire(1000, 10, mute=False) and not b.expire(1000, 10, mute=False)
    assert a.counts() == (100, 100)


@pytest.mark.parametrize("which", [0, 1])
def test_room_is_made_for_what_is_lacking_and_no_more(which: int) -> None:
    """An end that is full of blocks that the other never got takes new ones in, for one of the two to tag with."""
    a, _ = full_and_not_met(range(1 - which, 100, 2))
    a.peer_short = bool(which)
    burnt = a.expire(1000, 10, mute=True)
    gone = set(range(100)) - set(a._blocks)
    assert burnt == len(gone) == 21 and not a.full
    assert {number % 2 for number in gone} == {which}, "of those that are of no use"
    assert min(gone) == which and max(gone) == which + 40, "the oldest"
    assert not a.expire(2000, 10, mute=True)


@pytest.mark.parametrize(("held", "refill_percent"), [(100, 100), (99, 80)])
def test_room_is_made_for_a_block_of_each_end(held: int, refill_percent: int) -> None:
    """Also where an end is almost full: the source of a virtual link begins it with two."""
    blocks = [Block(number, 4096, 0, number % 2 == 0, 0, Key(bytes(4096))) for number in range(held)]
    names = NodeId("a"), NodeId("b")
    pool = Pool(LINK, *names, 100, _Unwritten(), lambda _message: None, Totals(), blocks, refill_percent)
    pool.offered(Offer(LINK, -1, (), True, True), 0)
    assert pool.expire(1000, 10, mute=True) and pool.counts()[0] == 98


def test_much_goes_in_several_envelopes_and_too_much_is_an_error() -> None:
    a, b = pools(40)
    out, into = channels(a, b)
    a.offered(b.offer(short=False), 0)
    long = [lkms.KeyTaken("x", [f"{number:036}" for number in range(one, one + 4000)]) for one in range(4)]
    for item in long:
        out.put(item)
    envelopes = [one for one in out.flush() if isinstance(one, Tagged)]
    assert len(envelopes) == 4 and all(len(one.body) <= MAX_ENVELOPE for one in envelopes)
    assert [message for one in envelopes for message in into.open(one)] == long
    out.put(lkms.KeyAlloc("x", 1, 32, ("y",), (), True, bytes(MAX_MESSAGE)))
    with pytest.raises(ProtocolError):
        out.flush()


def test_what_the_largest_store_holds_goes_into_one_message() -> None:
    """Too much to tell would end every session as soon as it has begun: at worst each second block is there, begun, given
    away, and has a large number."""
    first, step = (1 << 62) - 4 * MAX_CAPACITY_BLOCKS, 4
    blocks = [Block(first + step * at, 9000, 256, False, 0, Key(bytes(300))) for at in range(MAX_CAPACITY_BLOCKS)]
    pool = Pool(LINK, NodeId("a"), NodeId("b"), len(blocks), _Unwritten(), lambda _message: None, Totals(), blocks)
    said = pool._snapshot(reply=False)
    assert len(said.held) == len(said.partial) == len(said.swapped) == len(blocks)
    assert lkms.build_state(said)


@given(st.binary(max_size=300), st.binary(max_size=300), st.integers(0, 10_000))
def test_a_tag_is_for_one_header_and_one_body(header: bytes, body: bytes, at: int) -> None:
    secret = sha256(header + body).digest()
    tag = sign(Key(secret), header, body)
    check(Key(secret), header, body, tag)
    other = bytearray(header + body + tag)
    other[at // 8 % len(other)] ^= 1 << at % 8
    ends = len(header), len(header) + len(body)
    with pytest.raises(BadTag):
        check(Key(secret), bytes(other[: ends[0]]), bytes(other[ends[0] : ends[1]]), bytes(other[ends[1] :]))
    with pytest.raises(BadTag):
        check(Key(secret), header + b"x", body, tag)
    with pytest.raises(BadTag):
        check(Key(sha256(secret).digest()), header, body, tag)


def test_what_the_documents_say_of_tags_is_so() -> None:
    """docs/architecture.md, "What a tag is worth"."""
    text = " ".join((Path(__file__).parents[3] / "docs" / "architecture.md").read_text().split())

    def bound(octets: int) -> float:
        return math.log2(8 * math.ceil(octets / 16)) - 106

    batch = lines.BATCH_BLOCKS * lines.BLOCK
    assert "taken, envelope or relay, has 1 MiB: that is 2^-87" in text and bound(MAX_MESSAGE) <= -87
    assert "a million tries stay below 2^-67" in text and bound(MAX_MESSAGE) + math.log2(1e6) < -67
    assert "largest batch of a relay (4 blocks of 4 KiB) it is 2^-92" in text and bound(batch + 1024) < -92
    assert f"at most {(tags.MAX_BOOK - 1) * TAG_KEY} octets" in text
    for octets, said in (
        (batch, "2 KiB (0.2 %) for a MiB of key in batches of 16 KiB"),
        (lines.BLOCK, "8 KiB (0.8 %) in batches of 4 KiB"),
    ):
        assert said in text and f"{TAG_KEY * (1 << 20) // octets >> 10} KiB" in said
        assert f"{100 * TAG_KEY / octets:.1f} %" in said
    assert f"1 to {tags.MAX_BOOK} at once" in text and f"The last {RESERVE} octets" in text
    assert f"at most {MAX_ENVELOPE >> 10} KiB" in text


@pytest.mark.parametrize("who", [0, 1])
def test_ends_that_meet_late_in_a_session_know_what_to_tag_with(who: int) -> None:
    """None of the blocks that were offered at its beginning is left, and there was never need to offer more."""
    world = Agreement()
    world.begin(())
    channel = world.both[0].channel
    for _ in range(6):
        world.feed((0, 1), 4)
        world.run()
        for end in (0, 1):
            world.pad(end, world.both[end].pool.available - 400)
        world.run()
    world.feed((0, 1), 4)
    world.run()
    for end in (0, 1):
        world.both[end].channel.close()  # type: ignore[union-attr]  # what is left of the books
    world.both[who].pool.meet()
    world.run()
    assert world.both[0].channel is channel
    assert all(end.pool.synced for end in world.both)
