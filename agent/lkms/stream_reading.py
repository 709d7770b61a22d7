"""How the applications of one end read a key stream: each chunk once, and the last one again."""

from abc import ABC
from dataclasses import dataclass

from ..errors import InsufficientKey, InvalidValue, PeerNotConnected
from .stream_end import Attachment, Chunk
from .stream_growth import MAX_AHEAD, MAX_INDEX, StreamGrowth


@dataclass(slots=True)
class StreamReading(StreamGrowth, ABC):
    """Where clients share the key, each of them is a `reader`, and has every chunk once."""

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
