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

The class is built up in three steps: stream_end.py what there is, stream_growth.py how it comes to be, stream_reading.py how
it is read; how the ends meet, and who is connected, stands here.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from qswitch.protocol.lkms import Attach, StreamHello, StreamState, StreamSync

from ..errors import PeerViolation
from ..model import LinkId
from .pool import EPOCHS
from .stream_end import Attachment, StreamConfig
from .stream_growth import MAX_CHUNK_SIZE
from .stream_reading import StreamReading


@dataclass(slots=True)
class Stream(StreamReading):
    """One end of a key stream, sans I/O."""

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
