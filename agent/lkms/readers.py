"""Several clients at one end of a key stream, to whom the same key is given (015: clients_shared_keys_required).

Each of the clients that are named gets each chunk once, at its own pace, and may read the one it got last again until its
next. A chunk stays until all have had it and gone on, and no longer than TTL, than both ends are open, or, unless it is the
one that a client got last, than the client in front is `LAG` chunks beyond: one that never comes must not keep key for ever.
No I/O; what is noted is durable before a chunk leaves, as everywhere.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from ..model import KeyStreamId

LAG = 1024


class ReaderJournal(Protocol):
    """What must be written down of who has had what."""

    def reading(self, ksid: KeyStreamId, reader: str, released: int, highest_read: int) -> None: ...
    def had(self, ksid: KeyStreamId, index: int, reader: str) -> None: ...
    def had_gone(self, ksid: KeyStreamId, index: int) -> None: ...
    def readers_gone(self, ksid: KeyStreamId) -> None: ...


@dataclass(slots=True)
class Reading:
    """How far one client is: the chunk it got last, and the furthest."""

    released: int = -1
    highest_read: int = -1


@dataclass(slots=True)
class Readers:
    """Of one stream. `had` has the chunks that some have had, and who."""

    readings: dict[str, Reading] = field(default_factory=dict)
    had: dict[int, set[str]] = field(default_factory=dict)

    def may(self, reader: str, index: int) -> bool:
        """Whether a chunk that is there is for this client, still or again."""
        return reader not in self.had.get(index, ()) or self.readings[reader].released == index

    def next_of(self, reader: str, chunks: Iterable[int], end: int) -> int:
        """The first chunk beyond what the client has had; `end` when there is none."""
        last = self.readings.get(reader, Reading()).highest_read
        return min((index for index in chunks if index > last), default=max(end, last + 1))

    def release(self, ksid: KeyStreamId, reader: str, index: int, journal: ReaderJournal) -> bool:
        """Notes that a client has a chunk; whether it is the first to have it."""
        reading = self.readings.setdefault(reader, Reading())
        if reading.released == index:
            return False
        reading.released, reading.highest_read = index, max(reading.highest_read, index)
        first = index not in self.had
        self.had.setdefault(index, set()).add(reader)
        journal.had(ksid, index, reader)
        journal.reading(ksid, reader, reading.released, reading.highest_read)
        return first

    def over(self, names: Collection[str], furthest: int) -> list[int]:
        """Chunks that may go: nobody may read them again, and all have had them or they are too far behind."""
        current = {one.released for reader, one in self.readings.items() if reader in names}
        return [
            index
            for index, had in self.had.items()
            if index not in current and (index < furthest - LAG or had.issuperset(names))
        ]

    def forget(self, index: int, ksid: KeyStreamId, journal: ReaderJournal) -> None:
        """A chunk is gone."""
        if self.had.pop(index, None) is not None:
            journal.had_gone(ksid, index)

    def clear(self, ksid: KeyStreamId, journal: ReaderJournal) -> None:
        if self.readings or self.had:
            self.readings.clear()
            self.had.clear()
            journal.readers_gone(ksid)
