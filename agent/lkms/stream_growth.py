"""How the sequence of a key stream grows: what is wanted of it, and how the two ends take key for that from their links."""

from abc import ABC
from dataclasses import dataclass

from qswitch.protocol.lkms import Alloc, AllocAck, Need

from ..errors import PeerViolation
from ..model import LinkId
from .pool import Refused, Taken
from .promises import Terms
from .stream_end import PREFETCH_CHUNKS, Attachment, StoredChunk, StreamEnd

PREFETCH_OCTETS = 64 * 1024
MAX_CHUNK_SIZE = 64 * 1024
"""Octets. More at once than this would not fit what a virtual link keeps ready."""
MAX_AHEAD = 1024
"""An index further than this beyond the last one read is refused: it would cost all key in between."""
MAX_RUN = 256  # chunks of one allocation
MAX_INDEX = (1 << 32) - 1  # an Index of 004 has 32 bits


@dataclass(slots=True)
class StreamGrowth(StreamEnd, ABC):
    """A leader allocates and tells; a follower asks, claims what it is told of and says what it holds."""

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
