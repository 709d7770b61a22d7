"""What one end of a key stream is: its configuration, what outlives the process, the chunks that it holds.

`Progress` and `StoredChunk` are what a journal has of it; streams.py says what it all means.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

from qswitch.protocol.lkms import AnyMessage

from ..model import KeyStreamId, LinkId, NodeId
from .ahead import Ahead
from .keys import Key
from .pool import Pool
from .promises import UNPROMISED, Terms
from .readers import ReaderJournal, Readers

PREFETCH_CHUNKS = 64


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
class StreamEnd(ABC):
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

    @abstractmethod
    def meet(self, links: Iterable[LinkId] = ()) -> None: ...

    @property
    def chunk_size(self) -> int:
        """The size agreed, else the one proposed here, else 0."""
        return self.progress.chunk_size or self.config.chunk_size

    @property
    def _begun(self) -> bool:
        """Whether there is, or was, any chunk of this incarnation, so that their size is settled."""
        return self.progress.next_index > self.first

    def _closed(self) -> bool:
        return self.progress.attachment is self.progress.peer_attachment is Attachment.CLOSED

    def next_unread(self, reader: str = "") -> int:
        """The chunk that an application gets that names none; of clients that share the key, this one."""
        if self.config.readers:
            return self.readers.next_of(reader, self.chunks, self.progress.next_index)
        index = self.progress.highest_read + 1
        while index < self.progress.next_index and index not in self.chunks:  # erased at TTL
            index += 1
        return index

    def wipe(self) -> None:
        """Forgets in memory; the store keeps what there is."""
        for chunk in self.chunks.values():
            chunk.key.wipe()
        self.chunks.clear()
        self.ahead.clear()

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

    def _unread_ahead(self) -> int:
        return len(self.ahead) - (self.progress.released in self.ahead)
