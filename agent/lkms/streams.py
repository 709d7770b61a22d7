"""A key stream as one end knows it: which chunks there are, which were read, what is wanted next.

No I/O and no clock; like a pool it writes to a journal and speaks through `send`. Chunk i is octets i·size to
(i+1)·size of a sequence that only the leader (the lower node id) extends, in order. The leader writes an extension
down before it tells the follower and releases a chunk only when the follower is known to hold it; the follower
releases what it holds durably.

Messages of a session arrive in order, so what the follower holds of the sequence is always a beginning of it, and one
number says which. When the ends meet (a new session, or an extension that the follower could not take), the leader
burns what the follower does not know of and goes on from there with other key. An *incarnation* is one life of the
stream at both ends, and nothing of two is ever mixed up. When both applications are gone and one comes back, another begins
with chunk 0; a follower whose application does waits for the leader's word whether that is so. When an end has lost the one
before, its numbers go on: an application that has read a chunk at one end does not find another under its number.

Each end hands out each chunk once; only the chunk released last can be read again (its reply may have been lost), until the
next one is released. Skipped chunks stay readable until TTL or until both applications have closed. Where
the operator wants that, chunks are released ahead of a fast reader (ahead.py); what a crash takes of them cannot be read any
more at this end.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

from qswitch.protocol.lkms import Alloc, AllocAck, AnyMessage, Attach, Need, StreamHello, StreamState, StreamSync

from ..errors import InsufficientKey, InvalidValue, PeerNotConnected, PeerViolation
from ..model import KeyStreamId, LinkId, NodeId
from .ahead import Ahead
from .keys import Key
from .pool import EPOCHS, Pool, Refused, Taken
from .promises import UNPROMISED, Terms
from .readers import ReaderJournal, Readers

PREFETCH_CHUNKS = 64
PREFETCH_OCTETS = 64 * 1024
MAX_CHUNK_SIZE = 64 * 1024
"""Octets. More at once than this would not fit what a virtual link keeps ready."""
MAX_AHEAD = 1024
"""An index further than this beyond the last one read is refused: it would cost all key in between."""
MAX_RUN = 256  # chunks of one allocation
MAX_INDEX = (1 << 32) - 1  # an Index of 004 has 32 bits


@dataclass(frozen=True, slots=True)
class StreamConfig:
    """A key stream as configured; `chunk_size` in octets is 0 while no application of this end has named it.

    `readers` are the clients of this end that share its key; nobody stands there while it has one application only.
    """

    ksid: KeyStreamId
    remote: NodeId
    links: tuple[LinkId, ...]
    chunk_size: int = 0
    ttl_seconds: int | None = None
    readers: tuple[str, ...] = ()
    terms: Terms = UNPROMISED


@dataclass(frozen=True, slots=True)
class Chunk:
    """What GET_KEY delivers; whoever has sent the key wipes it. `hops` is the number of trusted nodes it came through."""

    index: int
    key: Key
    age_ms: int
    hops: int


@dataclass(frozen=True, slots=True)
class StoredChunk:
    """Times in seconds of the wall clock, because they must survive a restart: when the key came, when it was allocated."""

    key: Key
    made: float
    since: float
    hops: int


class Attachment(IntEnum):
    """Of an application to its end."""

    NEVER = 0
    CONNECTED = 1
    CLOSED = 2


@dataclass(slots=True)
class Progress:
    """All of a stream that outlives the process, besides its chunks."""

    ksid: KeyStreamId
    remote: NodeId
    incarnation: int = 0  # 0: none yet
    chunk_size: int = 0
    next_index: int = 0  # chunks below were allocated (leader) or received (follower)
    confirmed: int = 0  # leader: chunks below are known to be held by the follower
    released: int = -1  # the chunk released last at this end
    highest_read: int = -1
    attachment: Attachment = Attachment.NEVER
    peer_attachment: Attachment = Attachment.NEVER
    consumed: int = 0  # octets released at this end


class StreamJournal(ReaderJournal, Protocol):
    """What a stream must have written down."""

    def chunk(self, ksid: KeyStreamId, incarnation: int, index: int, chunk: StoredChunk) -> None: ...
    def chunk_gone(self, ksid: KeyStreamId, index: int) -> None: ...
    def stream(self, progress: Progress) -> None: ...
    def stream_gone(self, ksid: KeyStreamId) -> None: ...
    def ahead(self, ksid: KeyStreamId, octets: int) -> None: ...
    def after(self, callback: Callable[[], None]) -> None:
        """Calls back once all that was noted so far is durable."""


@dataclass(slots=True)
class Stream:
    """Every method leaves memory and journal in agreement."""

    config: StreamConfig
    leads: bool
    journal: StreamJournal
    send: Callable[[AnyMessage], None]
    pools: Mapping[LinkId, Pool]
    incarnate: Callable[[], int]  # a random number above 0 and below 2^63
    clock: Callable[[], float]  # seconds of the wall clock
    progress: Progress
    chunks: dict[int, StoredChunk] = field(default_factory=dict)
    readers: Readers = field(default_factory=Readers)
    synced: bool = False  # the ends have met in this session
    wanted: int = 0  # chunks below are wanted by an application of either end
    asked: int = 0  # chunks below were asked for by the application of this end
    told: int = 0  # follower: what the leader was asked for last
    said: int = 0  # follower: how often the leader was told of the application since they met
    heard: int = 0  # leader: how often that was heard
    first: int = 0  # chunk of this incarnation, as far as this process knows
    unsure: bool = False  # follower: its application is back, and the leader's may have closed meanwhile
    epoch: int = 0
    prefetch: int = PREFETCH_CHUNKS
    allocated: int = 0  # leader: octets, by this process
    most: int = 1  # chunks released at once: more cost less time, and may be lost in a crash (ahead.py)
    ahead: Ahead[int] = field(init=False)

    def __post_init__(self) -> None:
        self.ahead = Ahead(self.journal.after, most=self.most)
        if not self.config.readers:  # what was ahead of the last one read went with the process
            self.progress.highest_read = self.next_unread() - 1

    # Life ----------------------------------------------------------------------------------------------------------------

    def configure(self, config: StreamConfig) -> None:
        """Takes a changed configuration; the first chunk size named holds."""
        self.config = config
        self._share()
        if config.chunk_size and not self.progress.chunk_size:
            if self.leads:
                self.progress.chunk_size = config.chunk_size
            self._tell()
        self._write()

    def _share(self) -> None:
        """Key is shared by clients, or no longer: what one of them may have had is for none of the others then."""
        if self.config.readers:
            self.put_back()
            self._drop([self.progress.released, *self.readers.over(self.config.readers, self.progress.highest_read)])
            self.progress.released = -1
        else:
            self._drop(list(self.readers.had))
            self.readers.clear(self.config.ksid, self.journal)

    @property
    def chunk_size(self) -> int:
        """The size agreed, else the one proposed here, else 0."""
        return self.progress.chunk_size or self.config.chunk_size

    @property
    def agreed(self) -> bool:
        """Whether the ends have met, and the size that was named here is settled."""
        return self.synced and (self.progress.chunk_size > 0 or not self.config.chunk_size)

    def attach(self, attachment: Attachment) -> None:
        """The application of this end has connected, or closed."""
        progress = self.progress
        if attachment is progress.attachment:
            return
        over = self._closed()
        self.unsure |= not self.leads and attachment is Attachment.CONNECTED and progress.attachment is Attachment.CLOSED
        progress.attachment = attachment
        if over and self.leads:
            self._restart()
        self._tell()
        self._settle()

    def on_attach(self, message: Attach) -> None:
        if not self.synced:
            return
        over = self._closed()
        self.heard += 1
        self.unsure &= self.leads or message.heard != self.said
        self._take_attachment(message.attachment, message.chunk_size)
        if over and self.leads and not self._closed():
            self._restart()
        elif self.leads:
            self._tell()  # that this was heard
        self._settle()

    def _take_attachment(self, attachment: int, chunk_size: int) -> None:
        self.progress.peer_attachment = Attachment(attachment)
        if self.leads and not self.progress.chunk_size:
            self.progress.chunk_size = min(chunk_size, MAX_CHUNK_SIZE)
            if self.progress.chunk_size:
                self._tell()
        elif chunk_size and not self.leads and not self._begun:
            self.progress.chunk_size = min(chunk_size, MAX_CHUNK_SIZE)

    @property
    def _begun(self) -> bool:
        """Whether there is, or was, any chunk of this incarnation, so that their size is settled."""
        return self.progress.next_index > self.first

    def _closed(self) -> bool:
        return self.progress.attachment is self.progress.peer_attachment is Attachment.CLOSED

    def _settle(self) -> None:
        if self._closed():
            self._drop(list(self.chunks))
        self._write()

    def _tell(self) -> None:
        if self.synced:
            self.said += 1
            self.send(Attach(self.config.ksid, self.progress.attachment, self.chunk_size, self.heard))

    def erase(self) -> None:
        """The stream is removed."""
        self._drop(list(self.chunks))
        self.readers.clear(self.config.ksid, self.journal)
        self.journal.stream_gone(self.config.ksid)

    def wipe(self) -> None:
        """Forgets in memory; the store keeps what there is."""
        for chunk in self.chunks.values():
            chunk.key.wipe()
        self.chunks.clear()
        self.ahead.clear()

    # The two ends meet ---------------------------------------------------------------------------------------------------

    def part(self) -> None:
        self.synced, self.told = False, 0

    def meet(self, links: Iterable[LinkId] = ()) -> None:
        """A session is up, or the ends are out of step."""
        self.part()
        if not self.leads:
            self.send(StreamHello(self.config.ksid, tuple(links)))
            return
        progress = self.progress
        if not progress.incarnation:
            progress.incarnation = self._another(anew=False)
            self._write()
        self.epoch = next(EPOCHS)
        size, first = self.chunk_size, self.first
        self.send(StreamSync(self.config.ksid, self.epoch, progress.incarnation, size, progress.attachment, first))

    def on_sync(self, message: StreamSync) -> None:
        """Follower."""
        if self.leads:
            return
        progress = self.progress
        if anew := message.incarnation != progress.incarnation:
            begins_at = 0 if message.incarnation % 2 else max(progress.next_index, message.first)
            self._forget(message.incarnation, begins_at)
            self.unsure = False
        progress.peer_attachment = Attachment(message.attachment)
        if message.chunk_size and not self._begun:
            progress.chunk_size = min(message.chunk_size, MAX_CHUNK_SIZE)
        self._settle()
        self.synced, self.said, self.told = True, 0, self._target()
        ksid, size, attachment = self.config.ksid, self.config.chunk_size, progress.attachment
        self.send(StreamState(ksid, message.epoch, size, attachment, progress.next_index, self.told, anew))

    def on_state(self, message: StreamState) -> None:
        """Leader. Raises PeerViolation, and starts anew, when the follower holds what was never allocated."""
        if not self.leads or message.epoch != self.epoch or self.synced:
            return
        progress = self.progress
        if not progress.next_index and progress.incarnation % 2 == 0:  # lost here, if it was ever more
            self._begin_at(message.next_index)
        ahead = message.next_index > progress.next_index
        # What was allocated, the follower had heard of before: it has lost that, and may have delivered some of it.
        lost = message.next_index < progress.confirmed or (message.anew and progress.next_index > self.first)
        if ahead or lost:
            self._restart(max(progress.next_index, message.next_index))
            if ahead:
                raise PeerViolation(self.config.remote, f"holds chunks of {self.config.ksid} that were never allocated")
            return
        self._drop(range(message.next_index, progress.next_index))
        progress.next_index = progress.confirmed = message.next_index
        self.synced, self.heard, over = True, 0, self._closed()
        self._take_attachment(message.attachment, message.chunk_size)
        if over and not self._closed():
            self._restart()
            return
        self.want(message.upto)
        self._tell()
        self._settle()

    def _restart(self, first: int = 0) -> None:
        """Leader: another incarnation, from this chunk on: 0 where both applications begin anew."""
        self._forget(self._another(anew=not first), first)
        self._write()
        self.meet()

    def _another(self, anew: bool) -> int:
        return 2 * (self.incarnate() % ((1 << 62) - 1)) + (1 if anew else 2)

    def _forget(self, incarnation: int, first: int) -> None:
        self._drop(list(self.chunks))
        self.progress.incarnation, self.progress.released = incarnation, -1
        self.readers.clear(self.config.ksid, self.journal)
        self.wanted = self.asked = 0
        self._begin_at(first)

    def _begin_at(self, index: int) -> None:
        progress = self.progress
        progress.next_index = progress.confirmed = self.first = index
        progress.highest_read = index - 1

    # The sequence grows --------------------------------------------------------------------------------------------------

    def want(self, upto: int) -> None:
        """An application of either end wants chunks below `upto`."""
        self.wanted = max(self.wanted, min(upto, self.progress.next_index + MAX_AHEAD + PREFETCH_CHUNKS))

    def on_need(self, message: Need) -> None:
        if self.synced:
            self.want(message.upto)

    def _target(self) -> int:
        size = self.chunk_size
        ahead = max(1, min(self.prefetch * self.ahead.haste, PREFETCH_OCTETS // size)) if size else 0
        return min(max(self.wanted, self.progress.highest_read + 1 + ahead), MAX_INDEX + 1)

    def runs_short(self) -> bool:
        """Whether `refill` may have something to do."""
        target = self._target()
        return self._due(target) if self.leads else self._has_to_ask(target)

    @property
    def name(self) -> str:
        return self.config.ksid

    @property
    def terms(self) -> Terms:
        return self.config.terms

    @property
    def unit(self) -> int:
        return self.progress.chunk_size

    def refill(self, most: int | None = None, ahead: bool = True) -> None:
        """Leader: allocates what is wanted, or without `ahead` only what is waited for, as far as there is key, and no more
        than `most` octets. Follower: asks for it when a quarter is used up."""
        target = self._target()
        if not self.leads:
            if self._has_to_ask(target):
                self.told = target
                self.send(Need(self.config.ksid, target))
            return
        if not self._grows or not self.progress.chunk_size:
            return
        if self._due(target):
            target = target if ahead else min(target, self.wanted)
            if most is not None:
                target = min(target, self.progress.next_index + most // self.progress.chunk_size)
            while self.synced and self.progress.next_index < target and self._extend(target - self.progress.next_index):
                pass

    @property
    def _grows(self) -> bool:
        """Whether there is an application, and none has closed: else nothing is allocated any more, nor kept for it."""
        ends = (self.progress.attachment, self.progress.peer_attachment)
        return Attachment.CONNECTED in ends and Attachment.CLOSED not in ends

    def _has_to_ask(self, target: int) -> bool:
        """Follower: a quarter is used up."""
        return (
            self.synced and self.chunk_size > 0 and target - self.told >= max(1, (target - self.progress.highest_read) // 4)
        )

    def _due(self, target: int) -> bool:
        """Leader: someone waits, or a quarter is used up; an extension for each chunk read would cost as many messages."""
        missing = target - self.progress.next_index
        waits = self.progress.next_index < self.wanted
        return missing > 0 and (waits or missing >= max(1, (target - self.progress.highest_read) // 4))

    def waits(self) -> int:
        """Leader: octets that an application of either end has asked for, and that are not there."""
        return max(0, self.wanted - self.progress.next_index) * self.progress.chunk_size if self.short() else 0

    def short(self) -> int:
        """Leader: the octets of a chunk that is wanted and for which there is no key; 0 while none is."""
        wants = self.leads and self.synced and self._grows and self._due(self._target())
        return self.progress.chunk_size if wants else 0

    def starves(self) -> bool:
        """Whether the application of this end waits for a chunk that the links have no key for, as far as can be seen."""
        size = self.chunk_size
        if not (self.synced and self._grows and size) or self.progress.next_index >= self.asked:
            return False
        pools = [pool for link in self.config.links if (pool := self.pools.get(link)) and pool.remote == self.config.remote]
        return all((pool.available if self.leads else pool.theirs) < size for pool in pools)

    def _extend(self, count: int) -> bool:
        """Allocates up to `count` chunks from the first link that has key for one; the others are asked for theirs."""
        size = self.progress.chunk_size
        for link in self.config.links:
            pool = self.pools.get(link)
            if pool is None or pool.remote != self.config.remote:
                continue
            first, fits = self.progress.next_index, min(count, MAX_RUN, pool.available // size)
            taken = pool.allocate(fits * size, "stream", self._consumer(first)) if fits else None
            if taken is not None:
                self.send(Alloc(self.config.ksid, self.progress.incarnation, size, first, fits, taken.segments))
                self.allocated += fits * size
                self._store(first, taken)
                return True
            pool.want()
        return False

    def _consumer(self, first: int) -> str:
        return f"{self.config.ksid}/{self.progress.incarnation}/{first}"

    def _store(self, first: int, taken: Taken) -> None:
        size, ksid, incarnation = self.progress.chunk_size, self.config.ksid, self.progress.incarnation
        count = len(taken.key) // size
        for index in range(first, first + count):
            chunk = StoredChunk(taken.key.cut(size), taken.made, self.clock(), taken.hops)
            self.chunks[index] = chunk
            self.journal.chunk(ksid, incarnation, index, chunk)
        self.progress.next_index = first + count
        self._write()

    def on_alloc(self, message: Alloc) -> None:
        """Follower. Raises PeerViolation when the leader takes what it must not; in any case the ends meet again."""
        progress = self.progress
        if not self.synced or message.incarnation != progress.incarnation:
            return
        links = {LinkId(segment.link) for segment in message.segments}
        try:
            self._check(message)
            self._claim(message)
        except (Refused, PeerViolation) as error:
            self.meet(links)
            if isinstance(error, PeerViolation):
                raise
            return
        self.told = max(self.told, progress.next_index)  # the leader need not be asked for what it gives by itself
        self.send(AllocAck(self.config.ksid, progress.incarnation, progress.next_index))

    def _check(self, message: Alloc) -> None:
        progress, size = self.progress, message.chunk_size
        if message.first != progress.next_index or not 0 < size <= MAX_CHUNK_SIZE:
            raise Refused("not the next chunks")
        if self._begun and size != progress.chunk_size:
            raise PeerViolation(self.config.remote, f"changes the chunk size of {self.config.ksid}")
        if sum(segment.length for segment in message.segments) != size * message.count:
            raise PeerViolation(self.config.remote, f"allocates other than whole chunks to {self.config.ksid}")

    def _claim(self, message: Alloc) -> None:
        """A run comes from one link; of several links' segments none is taken before all are known to be the leader's."""
        pools = {segment.link: self.pools.get(LinkId(segment.link)) for segment in message.segments}
        (pool,) = pools.values() if len(pools) == 1 else (None,)
        if pool is None or pool.remote != self.config.remote:
            raise Refused("no such link here")
        taken = pool.claim(message.segments, "stream", self._consumer(message.first))
        self.progress.chunk_size = message.chunk_size
        self._store(message.first, taken)

    def on_ack(self, message: AllocAck) -> None:
        progress = self.progress
        if self.leads and self.synced and message.incarnation == progress.incarnation:
            # Written with the next thing that is: after a restart the follower says so again.
            progress.confirmed = max(progress.confirmed, min(message.next_index, progress.next_index))

    # Reading ---------------------------------------------------------------------------------------------------------------

    def next_unread(self, reader: str = "") -> int:
        if self.config.readers:
            return self.readers.next_of(reader, self.chunks, self.progress.next_index)
        index = self.progress.highest_read + 1
        while index < self.progress.next_index and index not in self.chunks:  # erased at TTL
            index += 1
        return index

    def released(self, reader: str = "") -> int:
        """The chunk that was released last, to this client where several share the key; -1 for none."""
        if self.config.readers:
            return self.readers.readings[reader].released if reader in self.readers.readings else -1
        return self.progress.released

    def read(self, index: int, now: float, reader: str = "") -> Chunk | None:
        """Releases a chunk at this end, which ends the one released before; None when it is not ready yet.

        Where clients share the key, to the one that is named.

        To be handed out once all is durable. Raises InvalidValue for a chunk that is gone, InsufficientKey for one too
        far ahead, PeerNotConnected when the stream is over and will not get there; nothing is consumed then.
        """
        given = bool(self.config.readers) and not self.readers.may(reader, index)
        if self._readable(index) and not given:
            self._release(index, reader, now)
            stored = self.chunks[index]
            age = max(0, round(1000 * (now - stored.made)))
            return Chunk(index, stored.key.take(0, len(stored.key)), age, stored.hops)
        progress = self.progress
        if given or (index < progress.next_index and index not in self.chunks):
            raise InvalidValue("index", str(index), "this chunk was delivered or erased; each is delivered once")
        if index > min(progress.highest_read + MAX_AHEAD, MAX_INDEX):
            raise InsufficientKey(f"chunk {index}: at most {MAX_AHEAD} ahead of the last one read")
        if index >= progress.next_index and progress.peer_attachment is Attachment.CLOSED:
            raise PeerNotConnected(self.config.ksid)
        self.asked = max(self.asked, index + 1)
        self.want(index + 1)
        return None

    def _readable(self, index: int) -> bool:
        return index in self.chunks and (index < self.progress.confirmed if self.leads else not self.unsure)

    def _release(self, index: int, reader: str, now: float) -> None:
        progress = self.progress
        if self.config.readers:
            self._release_to(reader, index)
            return
        if progress.released == index:
            return
        if index != self.next_unread():
            self.put_back()
        self._drop([progress.released])
        progress.released = index
        progress.highest_read = max(progress.highest_read, index)
        progress.consumed += progress.chunk_size
        if not self.sure or self._unread_ahead() <= self.ahead.size // 2:
            self._run_ahead(index, now)

    def _run_ahead(self, index: int, now: float) -> None:
        """Of a slow reader, the row of what it reads stays until it reads the next."""
        ahead, known = self.ahead, index in self.ahead
        size = ahead.pace(now, waits=not ahead.free(index))
        window = [one for one in range(index, index + size) if one not in ahead and self._readable(one)]
        if len(window) > (not known):
            for one in window:
                self.journal.chunk_gone(self.config.ksid, one)
            ahead.add(window)
            self._write()
            ahead.follow()
        elif not known:
            self._write()

    def _unread_ahead(self) -> int:
        return len(self.ahead) - (self.progress.released in self.ahead)

    @property
    def sure(self) -> bool:
        """Whether the chunk released last may be handed out without a commit."""
        return self.ahead.free(self.progress.released)

    def put_back(self) -> None:
        """What was released ahead is not, after all; what was released last stays readable, in another process, too."""
        for index in self.ahead:
            self.journal.chunk(self.config.ksid, self.progress.incarnation, index, self.chunks[index])
        self.ahead.clear()
        if self.ahead.told:
            self._write()

    def rest(self, now: float) -> None:
        """Now and then: nothing is ahead of a reader that has stopped."""
        if self.ahead.rests(now):
            self.put_back()

    def _release_to(self, reader: str, index: int) -> None:
        """A chunk counts as consumed when the first client has it."""
        progress = self.progress
        first = self.readers.release(self.config.ksid, reader, index, self.journal)
        progress.highest_read = max(progress.highest_read, index)
        progress.consumed += progress.chunk_size if first else 0
        self._drop(self.readers.over(self.config.readers, progress.highest_read))
        self._write()

    def expire(self, now: float) -> int:
        """Erases chunks that have lain longer than TTL; how many. What is not confirmed yet is left to the next meeting."""
        ttl = self.config.ttl_seconds
        if ttl is None:
            return 0
        late = [index for index, chunk in self.chunks.items() if now - chunk.since > ttl and self._readable(index)]
        self._drop(late)
        if late:
            self._write()
        return len(late)

    def _drop(self, indexes: Iterable[int]) -> None:
        for index in indexes:
            chunk = self.chunks.pop(index, None)
            if chunk is not None:
                chunk.key.wipe()
                if not self.ahead.discard(index):
                    self.journal.chunk_gone(self.config.ksid, index)
                self.readers.forget(index, self.config.ksid, self.journal)

    def _write(self) -> None:
        self.journal.stream(self.progress)
        octets = self._unread_ahead() * self.progress.chunk_size
        if octets != self.ahead.told:
            self.ahead.told = octets
            self.journal.ahead(self.config.ksid, octets)
