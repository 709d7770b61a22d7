"""Envelopes of tagged messages: what an attacker between the two ends cannot do, and what a tag costs and is worth."""

from contextlib import suppress
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import settings
from hypothesis.stateful import invariant, rule
from two_ends import BLOCK, LINK, Agreement, End

from qswitch.agent.errors import PeerViolation
from qswitch.agent.lkms.otp import TAG_KEY, BadTag
from qswitch.agent.lkms.pool import Refused
from qswitch.protocol import lkms
from qswitch.protocol.lkms import Offer, ProtocolError, Segment, Tagged, WireMessage


class _Unwritten:
    """A journal for cases in which nothing is restarted."""

    def __getattr__(self, _name: str) -> Any:
        return lambda *_arguments: None


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
            assert self.sent[place] == message and place not in self.taken
            self.taken.add(place)
        for one in said:
            with suppress(PeerViolation):  # of octets that a forgery has burnt at this end
                self.both[end].take(one)

    def take_pad(self, end: int, message: lkms.Relay) -> None:
        with suppress(PeerViolation):
            super().take_pad(end, message)

    @rule(end=Agreement.ends, which=st.integers(0, 10), what=st.sampled_from(["lost", "twice", "later"]))
    def disorder(self, end: int, which: int, what: str) -> None:
        wire = self.both[end].wire
        if wire is None or not (places := [at for at, one in enumerate(wire) if isinstance(one, Tagged)]):
            return
        at = places[which % len(places)]
        message = wire[at]
        if what == "twice":
            wire.insert(at, message)
            return
        del wire[at]
        if what == "later":
            wire.append(message)

    @rule(
        end=Agreement.ends,
        which=st.integers(0, 1000),
        name=st.sampled_from(["", "number", "number", "key", "block", "body", "tag"]),
        by=st.integers(-70, 70),
    )
    def forge(self, end: int, which: int, name: str, by: int) -> None:
        """Says to an end what was ever said to it or by it, as it was or changed in one thing."""
        if self.both[end].wire is None or not self.sent:
            return
        message = list(self.sent.values())[-1 - which % len(self.sent)]
        if name == "number":
            message = msgspec.structs.replace(
                message, number=len([one for one in self.taken if one[:2] == (self.sessions, 1 - end)])
            )
        elif name == "key":
            message = msgspec.structs.replace(message, key=message.key._replace(offset=max(0, message.key.offset + by)))
        elif name == "block":
            message = msgspec.structs.replace(message, key=message.key._replace(block=max(0, message.key.block + by)))
        elif name == "body":
            message = msgspec.structs.replace(message, body=message.body + bytes([by % 256]))
        elif name == "tag":
            message = msgspec.structs.replace(message, tag=bytes([message.tag[0] ^ (1 + by % 255)]) + message.tag[1:])
        self.hear(end, message)

    @rule(
        end=Agreement.ends, numbers=st.lists(st.integers(0, 60), max_size=8), high=st.integers(-1, 100), short=st.booleans()
    )
    def lie(self, end: int, numbers: list[int], high: int, short: bool) -> None:
        """A forged hint."""
        if self.both[end].wire is not None:
            self.hear(end, Offer(LINK, high, tuple((number, 0, BLOCK) for number in numbers), True, short))

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
