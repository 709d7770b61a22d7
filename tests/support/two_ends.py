"""Two ends of a link and a stream, whatever is lost and whoever crashes when: once, same, confirmed.

The ends are the real pools, streams and tagged channels over a disk that is a dictionary: what was committed survives a
crash, nothing else does; what was sent arrives in order or is lost with the session.
"""

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from qswitch.agent.errors import NodeError
from qswitch.agent.lkms.ahead import MOST
from qswitch.agent.lkms.keys import Key
from qswitch.agent.lkms.pool import Block, Pool, Refused, Totals
from qswitch.agent.lkms.readers import Readers, Reading
from qswitch.agent.lkms.stream_end import Attachment, Progress, StoredChunk, StreamConfig
from qswitch.agent.lkms.streams import Stream
from qswitch.agent.lkms.tags import Channel
from qswitch.agent.model import KeyStreamId, LinkId, NodeId
from qswitch.protocol import lkms
from qswitch.protocol.lkms import AnyMessage, Codec, Have, Segment, Tagged, WireMessage, build

LINK, KSID = LinkId("link"), KeyStreamId("stream")
BLOCK, CHUNK, RESERVE = 260, 10, 64
Wire = deque[WireMessage]


@dataclass
class Disk:
    rows: dict[tuple[str, int], Any] = field(default_factory=dict)
    uses: list[tuple[Segment, str, str]] = field(default_factory=list)
    readings: dict[str, tuple[int, int]] = field(default_factory=dict)
    had: dict[int, set[str]] = field(default_factory=dict)


class Journal:
    """Notes that become durable, and messages that leave, at `commit`."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.notes: list[Callable[[], object]] = []
        self.leaving: list[Callable[[], object]] = []

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

    def chunk(self, _ksid: KeyStreamId, _incarnation: int, index: int, chunk: StoredChunk) -> None:
        self._put(("chunk", index), [bytes(chunk.key.view()), chunk.made, chunk.since, chunk.hops])

    def chunk_gone(self, _ksid: KeyStreamId, index: int) -> None:
        self.notes.append(lambda: self.disk.rows.pop(("chunk", index), None))

    def stream(self, progress: Progress) -> None:
        self._put(("stream", 0), replace(progress))

    def stream_gone(self, _ksid: KeyStreamId) -> None:
        self.notes.append(lambda: [self.disk.rows.pop(row) for row in list(self.disk.rows) if row[0] in ("chunk", "stream")])
        self.ahead(_ksid, 0)

    def ahead(self, _ksid: KeyStreamId, octets: int) -> None:
        self._put(("ahead", 0), octets)

    def after(self, callback: Callable[[], None]) -> None:
        self.leaving.append(callback)

    def reading(self, _ksid: KeyStreamId, reader: str, released: int, highest_read: int) -> None:
        self.notes.append(lambda: self.disk.readings.__setitem__(reader, (released, highest_read)))

    def had(self, _ksid: KeyStreamId, index: int, reader: str) -> None:
        self.notes.append(lambda: self.disk.had.setdefault(index, set()).add(reader))

    def had_gone(self, _ksid: KeyStreamId, index: int) -> None:
        self.notes.append(lambda: self.disk.had.pop(index, None))

    def readers_gone(self, _ksid: KeyStreamId) -> None:
        self.notes.append(lambda: (self.disk.readings.clear(), self.disk.had.clear()))

    def _put(self, row: tuple[str, int], value: object) -> None:
        self.notes.append(lambda: self.disk.rows.__setitem__(row, value))

    def commit(self) -> None:
        for do in [*self.notes, *self.leaving]:
            do()
        self.notes.clear()
        self.leaving.clear()


class End:
    meddled = False  # by whom has the key of neither end, and the words of both

    def __init__(self, name: str, other: str) -> None:
        self.name, self.other, self.disk = NodeId(name), NodeId(other), Disk()
        self.wire: Wire | None = None
        self.channel: Channel | None = None
        self.offering = False
        self.now = 0.0
        self.readers: tuple[str, ...] = ()
        self.boot()

    def boot(self) -> None:
        """Starts with what the disk has."""
        self.journal, rows = Journal(self.disk), self.disk.rows
        rows["ahead", 0] = 0  # burnt
        blocks = [Block(*row[:5], Key(row[5])) for (kind, _), row in rows.items() if kind == "block"]
        totals = replace(rows.get(("totals", 0), Totals()))
        names = self.name, self.other
        self.pool = Pool(LINK, *names, 40, self.journal, self.send, totals, blocks, reserve=RESERVE)
        chunks = {index: StoredChunk(Key(row[0]), *row[1:]) for (kind, index), row in rows.items() if kind == "chunk"}
        progress = replace(rows.get(("stream", 0), Progress(KSID, self.other)))
        had = {index: set(readers) for index, readers in self.disk.had.items()}
        readings = {reader: Reading(*row) for reader, row in self.disk.readings.items()}
        self.make_stream(progress, chunks, Readers(readings, had))

    def make_stream(self, progress: Progress, chunks: dict[int, StoredChunk], readers: Readers) -> None:
        config = StreamConfig(KSID, self.other, (LINK,), CHUNK, readers=self.readers)
        leads, pools = self.name < self.other, {LINK: self.pool}
        random_id, clock = lambda: random.getrandbits(62) + 1, lambda: self.now
        self.stream = Stream(
            config, leads, self.journal, self.send, pools, random_id, clock, progress, chunks, readers, most=MOST
        )
        self.stream.prefetch = 4
        self.stream.configure(config)
        self.stream.attach(Attachment.CONNECTED)

    def join(self, nonces: tuple[bytes, bytes]) -> None:
        """A session is up."""
        self.wire = deque()
        self.channel = Channel((self.name, self.other), nonces, lambda: [self.pool])
        self.offering = True

    def part(self) -> None:
        self.wire = self.channel = None
        self.pool.part()
        self.stream.part()

    def send(self, message: AnyMessage) -> None:
        if self.channel is not None:
            assert not isinstance(message, Tagged)
            self.channel.put(message)

    def commit(self) -> None:
        if self.channel is not None and self.wire is not None:
            if self.offering:
                self.channel.put(self.pool.offer(self.pool.heard and self.channel.mute))
                self.offering = False
            self.journal.leaving += [partial(self.wire.append, message) for message in self.channel.flush()]
            self.offering |= self.channel.blocked and self.pool.heard and not self.pool.told_short
        self.journal.commit()

    def add(self, number: int) -> None:
        key = random.Random(number).randbytes(BLOCK)
        if self.pool.add(number, Key(key), self.now, self.now):
            self.send(Have(LINK, [(number, number)], self.pool.full))
            self.offering |= self.pool.peer_low

    def hear(self, message: WireMessage) -> None:
        """Raises Refused for what is tagged with key that is not here."""
        assert self.channel is not None
        for one in self.channel.open(message) if isinstance(message, Tagged) else (message,):
            self.take(one)

    def take(self, message: AnyMessage) -> None:
        match message:
            case lkms.Offer():
                self.pool.offered(message, self.now)
                self.offering |= message.asks or (message.short and self.pool.has_news)
            case lkms.LinkHello():
                self.pool.hello()
            case lkms.LinkSync():
                violations = self.pool.sync(message, self.now)
                assert self.meddled or not violations
            case lkms.Have():
                self.pool.have(message)
            case lkms.Lost():
                self.pool.lost(message)
            case lkms.Want():
                self.pool.wanted()
            case lkms.Lack():
                self.pool.lacking(message)
            case lkms.Give():
                self.pool.given(message)
            case lkms.StreamHello():
                if message.links and self.pool.synced:
                    self.pool.meet()
                self.stream.meet()
            case lkms.StreamSync():
                self.stream.on_sync(message)
            case lkms.StreamState():
                self.stream.on_state(message)
            case lkms.Attach():
                self.stream.on_attach(message)
            case lkms.Need():
                self.stream.on_need(message)
            case lkms.Alloc():
                self.stream.on_alloc(message)
            case lkms.AllocAck():
                self.stream.on_ack(message)


class Agreement(RuleBasedStateMachine):
    ends = st.sampled_from([0, 1])

    @initialize(readers=st.sampled_from([(), ("x", "y"), ("x", "y", "z")]))
    def begin(self, readers: tuple[str, ...]) -> None:
        self.both = End("a", "b"), End("b", "a")
        self.number = 0
        self.read: dict[tuple[int, int], bytes] = {}
        self.last: dict[tuple[int, str], tuple[int, bytes]] = {}
        self.had: dict[tuple[int, str], set[tuple[int, int]]] = {}
        self.pads: dict[tuple[Segment, ...], bytes] = {}
        self.forgotten: set[int] = set()
        self.lost = [False, False]
        self.numbered: tuple[dict[int, bytes], dict[int, bytes]] = {}, {}
        self.share(1, readers)
        self.connect()
        self.feed((0, 1), 8)
        self.run()

    # What the world does.

    @rule(which=st.sampled_from([(0,), (1,), (0, 1), (0, 1), (0, 1), (0, 1)]), count=st.integers(1, 6))
    def feed(self, which: tuple[int, ...], count: int) -> None:
        for _ in range(count):
            for end in which:
                self.both[end].add(self.number)
            self.number += 1

    def connect(self) -> None:
        """A new session; of the one before nothing counts any more."""
        self.disconnect()
        one, other = random.randbytes(16), random.randbytes(16)
        self.both[0].join((one, other))
        self.both[1].join((other, one))
        self.both[0].pool.meet()
        self.both[0].stream.meet()

    @rule()
    def disconnect(self) -> None:
        for end in self.both:
            end.part()

    def crash(self, end: int) -> None:
        self.disconnect()
        one = self.both[end]
        ahead, released = one.stream.ahead, one.stream.progress.released
        lost = [index for index in ahead if index != released and ahead.free(index)]
        assert len(lost) * CHUNK <= one.disk.rows["ahead", 0] < MOST * CHUNK, "burnt, and not counted"
        one.boot()
        self.forget_last(end)

    def forgets(self, end: int) -> None:
        self.forgotten |= {each.stream.progress.incarnation for each in self.both}
        self.lost[end] = True
        if all(self.lost):  # nobody knows the numbers any more
            for numbers in self.numbered:
                numbers.clear()

    @rule(end=ends)
    def loses_its_store(self, end: int) -> None:
        """What was used stays used: numbers of blocks never come twice."""
        self.forgets(end)
        self.disconnect()
        one = self.both[end]
        one.disk.rows.clear()
        one.disk.readings.clear()
        one.disk.had.clear()
        one.boot()
        self.forget_last(end)
        self.connect()

    @rule(end=ends)
    def ends_in_order(self, end: int) -> None:
        """Of what was released ahead, nothing is lost."""
        self.disconnect()
        one = self.both[end]
        one.stream.put_back()
        one.commit()
        before, at = {index: bytes(chunk.key.view()) for index, chunk in one.stream.chunks.items()}, one.stream.progress
        assert not one.disk.rows["ahead", 0]
        over = one.stream._closed()
        one.boot()
        assert before == {index: bytes(chunk.key.view()) for index, chunk in one.stream.chunks.items()}
        if not over:  # else the application that is there at once has begun another life of it
            assert (one.stream.progress.released, one.stream.progress.consumed) == (at.released, at.consumed)
        self.connect()

    @rule(end=ends)
    def rests(self, end: int) -> None:
        self.both[end].stream.rest(self.both[end].now + 100)
        assert not self.both[end].stream.ahead

    def forget_last(self, end: int) -> None:
        self.last = {whose: one for whose, one in self.last.items() if whose[0] != end}

    @rule(crashing=st.sampled_from([(), (0,), (1,), (0, 1)]), settle=st.booleans(), more=st.integers(0, 8))
    def trouble(self, crashing: tuple[int, ...], settle: bool, more: int) -> None:
        """The session breaks, with crashes; a new one comes up, and things go on at once or wait."""
        self.disconnect()
        for end in crashing:
            self.crash(end)
        self.connect()
        self.feed((0, 1), more)
        if settle:
            self.run()

    @rule(end=ends)
    def commit(self, end: int) -> None:
        self.both[end].commit()

    @rule(end=ends, count=st.integers(1, 8))
    def arrive(self, end: int, count: int) -> None:
        for _ in range(count):
            if not (wire := self.both[1 - end].wire):
                return
            codec = Codec()
            codec.receive(build(wire.popleft()))
            message = codec.next_message()
            assert message is not None
            if isinstance(message, lkms.Relay):
                self.take_pad(end, message)
                continue
            self.hear(end, message)

    def hear(self, end: int, message: WireMessage) -> None:
        try:
            self.both[end].hear(message)
        except Refused:
            self.connect()

    @rule()
    def run(self) -> None:
        """Lets all that is under way come to an end."""
        for _ in range(16):
            for end in (0, 1):
                self.both[end].stream.refill()
                self.commit(end)
                self.arrive(1 - end, 100)

    @rule(end=ends)
    def refill(self, end: int) -> None:
        self.both[end].stream.refill()

    @rule(end=ends)
    def meet(self, end: int) -> None:
        """The ends are, or are said to be, out of step."""
        if self.both[end].wire is not None:
            self.both[end].pool.meet()

    @rule(seconds=st.sampled_from([1, 20]))
    def wait(self, seconds: int) -> None:
        for end in self.both:
            end.now += seconds
            end.pool.expire(end.now, 10, end.pool.peer_short or (end.channel is not None and end.channel.mute))

    # What consumers do.

    @rule(end=ends, who=st.integers(0, 2), skip=st.sampled_from([0, 0, 0, 0, 1, 3, -1, -2]), times=st.integers(1, 6))
    def gets(self, end: int, who: int, skip: int, times: int) -> None:
        readers = self.both[end].readers or ("",)
        for _ in range(times):
            self.both[end].stream.refill()
            self.get(end, readers[who % len(readers)], skip)

    def get(self, end: int, reader: str, skip: int) -> None:
        one = self.both[end]
        index, before = max(0, one.stream.next_unread(reader) + skip), one.stream.released(reader)
        try:
            chunk = one.stream.read(index, one.now, reader)
        except NodeError:
            return
        if chunk is None:
            return
        if not one.stream.sure:
            self.commit(end)
        key, place = bytes(chunk.key.view()), (one.stream.progress.incarnation, chunk.index)
        assert self.read.setdefault(place, key) == key, "the ends differ"
        had = self.had.setdefault((end, reader), set())
        assert place not in had or before == index, "given twice to the same client"
        had.add(place)
        self.last[end, reader] = (chunk.index, key)
        self.check_other_end(end, place, key)

    def check_other_end(self, end: int, place: tuple[int, int], key: bytes) -> None:
        """It holds the chunk durably, if it has not lost the stream since; and while neither application has closed, what
        it has read under this number is the same, whatever was lost in between."""
        one, other = self.both[end], self.both[1 - end]
        known = other.disk.rows.get(("stream", 0))
        held = known is not None and known.incarnation == place[0] and known.next_index > place[1]
        assert held or place[0] in self.forgotten, "released, and not known to be held"
        if one.stream.progress.attachment is Attachment.CONNECTED:
            self.lost[end] = False
            self.numbered[end][place[1]] = key
            assert self.numbered[1 - end].get(place[1], key) == key, "another chunk under a number that was read"

    @rule(end=ends, who=st.integers(0, 2), times=st.integers(4, 12))
    def reads_on(self, end: int, who: int, times: int) -> None:
        """A fast reader that is not held up, so that it gets ahead of its commits."""
        self.run()
        readers = self.both[end].readers or ("",)
        for _ in range(times):
            self.get(end, readers[who % len(readers)], 0)

    @rule(end=ends)
    def get_again(self, end: int) -> None:
        """A reply was lost."""
        stream = self.both[end].stream
        for (_, reader), last in [item for item in self.last.items() if item[0][0] == end]:
            shares = reader in self.both[end].readers if reader else not self.both[end].readers
            if shares and stream.released(reader) == last[0] and not stream._closed():
                chunk = stream.read(last[0], self.both[end].now, reader)
                assert chunk is None or bytes(chunk.key.view()) == last[1]

    @rule(end=ends, readers=st.sampled_from([(), ("x", "y"), ("x", "y", "z"), ("y", "z")]))
    def share(self, end: int, readers: tuple[str, ...]) -> None:
        """Other clients are to share the key, or none are."""
        one = self.both[end]
        one.readers = readers
        one.stream.configure(replace(one.stream.config, readers=readers))
        self.forget_last(end)

    @invariant()
    def what_all_have_had_is_gone(self) -> None:
        for one in getattr(self, "both", ()):
            readers, stream = one.stream.readers, one.stream
            assert bool(readers.had) <= bool(one.readers) and set(readers.had) <= set(stream.chunks)
            held = {reading.released for reader, reading in readers.readings.items() if reader in one.readers}
            assert not [index for index, had in readers.had.items() if had >= set(one.readers) and index not in held]

    @rule(end=ends, owed=st.integers(0, 4 * BLOCK), waited=st.integers(0, 4 * BLOCK), priority=st.integers(0, 2))
    def lack(self, end: int, owed: int, waited: int, priority: int) -> None:
        """Consumers wait for more than an end owns."""
        self.both[end].send(lkms.Lack(LINK, owed, waited, priority))

    @rule(end=ends, priority=st.integers(-1, 2))
    def give(self, end: int, priority: int) -> None:
        self.both[end].pool.give_owed()
        self.both[end].pool.give_before(priority)

    @rule(end=ends, octets=st.integers(1, 2 * BLOCK))
    def pad(self, end: int, octets: int) -> None:
        one = self.both[end]
        if one.wire is not None and (taken := one.pool.allocate(octets, "relay", f"pad {random.getrandbits(60)}")):
            self.pads[taken.segments] = bytes(taken.key.view())
            one.send(lkms.Relay(LINK, 0, [], taken.segments, b"", b""))

    def take_pad(self, end: int, message: lkms.Relay) -> None:
        segments = tuple(message.pad)
        try:
            taken = self.both[end].pool.claim(segments, "relay", f"of {segments}")
        except Refused:
            return
        assert bytes(taken.key.view()) == self.pads[segments]

    @rule(end=ends)
    def forget_stream(self, end: int) -> None:
        """The stream is removed and configured again at one end."""
        one = self.both[end]
        self.forgets(end)
        one.stream.erase()
        one.make_stream(Progress(KSID, one.other), {}, Readers())
        self.forget_last(end)
        if one.wire is not None:
            one.stream.meet()

    @rule(end=ends, attachment=st.sampled_from([Attachment.CONNECTED, Attachment.CONNECTED, Attachment.CLOSED]))
    def attach(self, end: int, attachment: Attachment) -> None:
        self.both[end].stream.attach(attachment)
        if attachment is Attachment.CLOSED:
            self.numbered[end].clear()
            self.last.clear()  # what was delivered may be erased from now on

    # What must be.

    @invariant()
    def different_places_have_different_key(self) -> None:
        if hasattr(self, "read"):
            assert len(set(self.read.values())) == len(self.read)

    @invariant()
    def nothing_used_stays_on_disk(self) -> None:
        """But for what was delivered last: its reply may have been lost."""
        for number, end in enumerate(getattr(self, "both", ())):
            if end.journal.notes or end.readers or end.stream.readers.readings:
                continue
            had, stream = {self.read[place] for place in self.had.get((number, ""), ())}, end.stream
            last = {bytes(one.key.view()) for index, one in stream.chunks.items() if index == stream.progress.released}
            assert not (had - last) & {row[0] for (kind, _), row in end.disk.rows.items() if kind == "chunk"}

    @invariant()
    def every_octet_goes_to_one_consumer(self) -> None:
        for end in getattr(self, "both", ()):
            used: set[tuple[int, int]] = set()
            for segment, kind, _ in end.disk.uses:
                octets = {(segment.block, octet) for octet in range(segment.offset, segment.offset + segment.length)}
                assert not octets & used, f"{kind} takes what was taken before"
                used |= octets

    @invariant()
    def both_ends_name_the_same_consumer(self) -> None:
        if not hasattr(self, "both"):
            return
        one, other = ({}, {})
        for end, consumers in zip(self.both, (one, other), strict=True):
            for segment, kind, consumer in end.disk.uses:
                for octet in range(segment.offset, segment.offset + segment.length):
                    if kind != "burnt":
                        consumers[segment.block, octet] = (kind, consumer if kind in ("stream", "tag") else "")
        assert all(other.get(octet, consumer) == consumer for octet, consumer in one.items())

    @invariant()
    def counters_are_true(self) -> None:
        for end in getattr(self, "both", ()):
            pool = end.pool
            blocks = pool._blocks.values()
            assert pool.stored == sum(block.left for block in blocks)
            assert pool._common == sum(block.left for block in blocks if pool.confirmed(block.number))
            own = [block for block in blocks if block.ours and pool.confirmed(block.number)]
            assert pool._own == sum(block.left for block in own)
            assert pool._stock == sorted(block.number for block in own)
            assert all(0 < block.left <= block.size - block.cursor for block in blocks)

    def teardown(self) -> None:
        """After everything the ends meet and go on: nothing hangs."""
        if not hasattr(self, "both"):
            return
        if self.both[0].wire is not None and not End.meddled:
            self.feed((0, 1), 4)
            self.run()
            assert all(end.pool.synced for end in self.both), "a meeting within a session hangs"
        self.attach(0, Attachment.CONNECTED)
        self.connect()
        self.attach(1, Attachment.CONNECTED)
        self.feed((0, 1), 12)  # without key for tags they would agree on nothing
        self.run()
        for end, other in (self.both, self.both[::-1]):
            assert end.stream.progress.attachment is other.stream.progress.peer_attachment is Attachment.CONNECTED
        self.wait(20)
        self.run()
        self.feed((0, 1), 12)
        self.run()
        for end in (0, 1):
            for reader in self.both[end].readers or ("",):
                before = len(self.read), self.last.get((end, reader))
                self.get(end, reader, 0)
                self.run()
                after = len(self.read), self.last.get((end, reader))
                assert after[1] is not None and after != before, "no key comes any more"
        self.counters_are_true()
