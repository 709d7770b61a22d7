"""The key streams of a key manager (004), as the rest of the node uses them."""

import asyncio
import logging
import random
from abc import ABC
from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial

from ..config import LkmsConfig
from ..errors import InvalidValue, StorageFailed, UnknownKeyStream
from ..model import KeyStreamId, NodeId
from .core import MEET_SECONDS, Core, Observer
from .readers import Readers
from .stream_end import Attachment, Chunk, Progress, StreamConfig
from .stream_growth import MAX_CHUNK_SIZE
from .streams import Stream

log = logging.getLogger(__name__)


class StreamCalls(Core, ABC):
    """All calls are made on the loop, and nothing here waits but the calls that say so."""

    def __init__(self, node: NodeId, config: LkmsConfig, observer: Observer) -> None:
        super().__init__(node, config, observer)
        self._reading: dict[KeyStreamId, dict[str, asyncio.Lock]] = {}
        self._undelivered: dict[KeyStreamId, dict[str, int]] = {}

    async def configure_stream(self, stream: StreamConfig) -> None:
        """Also with a changed configuration; other `links` hold for key that is allocated from now on.

        Raises InvalidValue for a chunk size that is too large, StorageFailed.
        """
        if not 0 <= stream.chunk_size <= MAX_CHUNK_SIZE:
            raise InvalidValue("Key_chunk_size", str(stream.chunk_size), f"at most {MAX_CHUNK_SIZE} octets")
        have = self._streams.get(stream.ksid)
        if have is not None and have.config.remote != stream.remote:
            have.erase()
            have = None
        if have is None:
            have = self._streams[stream.ksid] = self._add_stream(stream)
        have.configure(stream)
        self._choose_peers()
        if not have.synced and self._peers.session(stream.remote) is not None:
            have.meet()
        self._wake(stream.ksid)
        await self._store.commit()

    def _add_stream(self, config: StreamConfig) -> Stream:
        progress, chunks = self._saved.streams.pop(config.ksid, None), self._saved.chunks.pop(config.ksid, {})
        if progress is None or progress.remote != config.remote:
            self._store.stream_gone(config.ksid)
            progress, chunks = Progress(config.ksid, config.remote), {}
            self._saved.readers.pop(config.ksid, None)
        return Stream(
            config=config,
            leads=self._node < config.remote,
            journal=self._store,
            send=partial(self._send, config.remote),
            pools=self._pools,
            incarnate=lambda: random.SystemRandom().randrange(1, 1 << 63),
            clock=self._clock.now,
            progress=progress,
            chunks=chunks,
            most=1 + self._config.release_ahead,
            readers=self._saved.readers.pop(config.ksid, Readers()),
        )

    async def remove_stream(self, ksid: KeyStreamId) -> None:
        """Erases the stream at this end."""
        have = self._streams.pop(ksid, None)
        if have is not None:
            have.erase()
        else:
            self._saved.streams.pop(ksid, None)
            self._saved.chunks.pop(ksid, None)
            self._saved.readers.pop(ksid, None)
            self._store.stream_gone(ksid)
        self._saved.holders.pop(ksid, None)
        self._store.hold(ksid, {})
        self._undelivered.pop(ksid, None)
        self._reading.pop(ksid, None)
        self._forget_drawn(ksid)
        self._choose_peers()
        self._wake(ksid)
        await self._store.commit()

    def holders(self, ksid: KeyStreamId) -> Mapping[str, bool]:
        """The applications that have the stream at this end, and whether each has it open, as `hold` was told last."""
        return self._saved.holders.get(ksid, {})

    async def hold(self, ksid: KeyStreamId, holders: Mapping[str, bool]) -> None:
        """Notes who has the stream at this end, for after a restart. Raises StorageFailed."""
        self._saved.holders[ksid] = dict(holders)
        self._store.hold(ksid, holders)
        await self._store.commit()

    async def attach(self, ksid: KeyStreamId) -> None:
        """The application of this end is connected; the peer is told, now or when it is there.

        While the peer can be reached, waits a moment until the two ends agree about the stream, its chunk size among others.
        Raises UnknownKeyStream, StorageFailed.
        """
        self._stream(ksid).attach(Attachment.CONNECTED)
        self._wake(ksid)
        await self._store.commit()
        try:
            async with asyncio.timeout(MEET_SECONDS):
                while not (have := self._stream(ksid)).agreed and self._peers.session(have.config.remote):
                    await self._changed(ksid)
        except TimeoutError:
            log.info("key stream not known to the peer yet ksid=%s", ksid)

    async def detach(self, ksid: KeyStreamId) -> None:
        """The application of this end has closed: nothing more is allocated, what is there stays readable at the peer.

        Once both have closed, all that was not read is erased (004 clause 6.1).
        """
        self._stream(ksid).attach(Attachment.CLOSED)
        self._wake(ksid)
        await self._store.commit()

    def peer_attached(self, ksid: KeyStreamId) -> bool:
        have = self._streams.get(ksid)
        return have is not None and have.progress.peer_attachment is Attachment.CONNECTED

    async def wait_peer_attached(self, ksid: KeyStreamId) -> None:
        """For as long as the caller waits. Raises UnknownKeyStream."""
        while self._stream(ksid).progress.peer_attachment is not Attachment.CONNECTED:
            await self._changed(ksid)

    def chunk_at_once(self, ksid: KeyStreamId, index: int | None, reader: str = "") -> Chunk | None:
        """What `get_chunk` would deliver, if it need not wait for anything; None, and nothing done, where it may have to."""
        have, reading = self._streams.get(ksid), self._reading.get(ksid, {}).get(reader)
        if have is None or have.config.readers or reading is None or reading.locked():
            return None
        if self._undelivered.get(ksid) or self._store.failing is not None:
            return None
        following = have.next_unread()
        if index not in (None, following) or not have.ahead.free(following):
            return None
        chunk = have.read(following, self._clock.now())
        if have.runs_short():
            self._poke()
        return chunk

    async def get_chunk(self, ksid: KeyStreamId, index: int | None, reader: str = "") -> Chunk:
        """Chunk `index`, or the next unread one. Waits for key for as long as the caller does; cancelling loses nothing.

        The chunk delivered last can be had again, until the next one is. Where clients share the key, `reader` is the one
        to have it, and all this is said of that one. Raises UnknownKeyStream; InvalidValue for a chunk that is gone;
        InsufficientKey for one too far ahead; PeerNotConnected once the peer has closed; StorageFailed.
        """
        lock = self._reading.setdefault(ksid, {}).setdefault(reader, asyncio.Lock())
        async with lock if index is None else nullcontext():  # of two calls for the next one, neither may skip it
            while True:
                have = self._stream(ksid)
                if self._store.failing is not None:
                    raise StorageFailed(self._store.failing)
                if have.config.readers and reader not in have.config.readers:
                    raise UnknownKeyStream(ksid)
                at = self._next_index(have, reader) if index is None else index
                chunk = have.read(at, self._clock.now(), reader)
                if chunk is None or have.runs_short():
                    self._poke()
                if chunk is not None:
                    return chunk if have.sure else await self._released(have, chunk, reader if index is None else None)
                await self._changed(ksid)

    def _next_index(self, have: Stream, reader: str) -> int:
        lost = self._undelivered.get(have.config.ksid, {}).pop(reader, None)
        return have.next_unread(reader) if lost is None or lost != have.released(reader) else lost

    async def _released(self, have: Stream, chunk: Chunk, next_for: str | None) -> Chunk:
        try:
            await self._store.commit()
        except BaseException:
            chunk.key.wipe()
            if next_for is not None:
                self._undelivered.setdefault(have.config.ksid, {})[next_for] = chunk.index
            raise
        return chunk

    def consumed_bits(self, ksid: KeyStreamId) -> int:
        """Delivered at this end since the stream was created."""
        have = self._streams.get(ksid)
        return 8 * have.progress.consumed if have is not None else 0

    def chunk_size(self, ksid: KeyStreamId) -> int:
        """Octets, as the two ends agreed; while they have not, as this end was told; 0 while nobody has named one."""
        have = self._streams.get(ksid)
        return have.chunk_size if have is not None else 0

    def _stream(self, ksid: KeyStreamId) -> Stream:
        have = self._streams.get(ksid)
        if have is None:
            raise UnknownKeyStream(ksid)
        return have
