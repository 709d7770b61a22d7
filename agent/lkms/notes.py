"""What is noted in a key store, as statements: the journal of pools, streams, deliveries, relays, and who holds streams."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from qswitch.protocol.lkms import Segment

from ..model import KeyStreamId, LinkId
from .delivery_end import StoredKey
from .keys import Key
from .lines import LinkTotals
from .pool import Totals
from .seal import Seal
from .stream_end import Progress, StoredChunk


class Notes(ABC):
    """Every row that holds key is sealed; what a table holds says contents.py."""

    _seal: Seal
    _keeps_ledger: bool
    _uses: int

    @abstractmethod
    def _note(self, statement: str, *values: Any) -> None: ...

    def block(self, link: LinkId, number: int, cursor: int, size: int, ours: bool, made: float, key: Key) -> None:
        sealed = self._seal.close(key, "block", link, number, cursor, size)
        self._note(
            "INSERT OR REPLACE INTO blocks VALUES (?, ?, ?, ?, ?, ?, ?)", link, number, cursor, size, ours, made, sealed
        )

    def block_owner(self, link: LinkId, number: int, ours: bool) -> None:
        self._note("UPDATE blocks SET ours = ? WHERE link = ? AND number = ?", ours, link, number)

    def block_gone(self, link: LinkId, number: int) -> None:
        self._note("DELETE FROM blocks WHERE link = ? AND number = ?", link, number)

    def used(self, segment: Segment, kind: str, consumer: str) -> None:
        if self._keeps_ledger:
            self._uses += 1
            self._note("INSERT OR REPLACE INTO ledger VALUES (?, ?, ?, ?, ?, ?, ?)", self._uses, *segment, kind, consumer)

    def totals(self, link: LinkId, totals: Totals) -> None:
        numbers = (totals.highest, totals.generated, totals.consumed, totals.burnt, totals.hops)
        self._note("INSERT OR REPLACE INTO links VALUES (?, ?, ?, ?, ?, ?)", link, *numbers)

    def relay_totals(self, link: LinkId, totals: LinkTotals) -> None:
        numbers = (totals.relayed, totals.pads, totals.failures)
        self._note("INSERT OR REPLACE INTO relays VALUES (?, ?, ?, ?)", link, *numbers)

    def paths(self, link: LinkId, paths: int) -> None:
        """Over so many node-disjoint paths comes, or came, the key of a link."""
        if paths > 1:
            self._note("INSERT OR REPLACE INTO paths VALUES (?, ?)", link, paths)
        else:
            self._note("DELETE FROM paths WHERE link = ?", link)

    def relay_gone(self, link: LinkId) -> None:
        self._note("DELETE FROM relays WHERE link = ?", link)

    def chunk(self, ksid: KeyStreamId, incarnation: int, index: int, chunk: StoredChunk) -> None:
        sealed = self._seal.close(chunk.key, "chunk", ksid, incarnation, index)
        values = (ksid, incarnation, index, chunk.made, chunk.since, chunk.hops, sealed)
        self._note("INSERT OR REPLACE INTO chunks VALUES (?, ?, ?, ?, ?, ?, ?)", *values)

    def chunk_gone(self, ksid: KeyStreamId, index: int) -> None:
        self._note("DELETE FROM chunks WHERE ksid = ? AND number = ?", ksid, index)

    def stream(self, progress: Progress) -> None:
        one = progress
        self._note(
            "INSERT OR REPLACE INTO streams VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            *(one.ksid, one.remote, one.incarnation, one.chunk_size, one.next_index, one.confirmed, one.released),
            *(one.highest_read, one.attachment, one.peer_attachment, one.consumed),
        )

    def stream_gone(self, ksid: KeyStreamId) -> None:
        self._note("DELETE FROM chunks WHERE ksid = ?", ksid)
        self._note("DELETE FROM streams WHERE ksid = ?", ksid)
        self._note("DELETE FROM ahead WHERE ksid = ?", ksid)
        self.readers_gone(ksid)

    def hold(self, ksid: KeyStreamId, holders: Mapping[str, bool]) -> None:
        """The applications that have a stream at this end, and whether each has it open, in place of those before."""
        self._note("DELETE FROM holders WHERE ksid = ?", ksid)
        for application, is_open in holders.items():
            self._note("INSERT INTO holders VALUES (?, ?, ?)", ksid, application, is_open)

    def reading(self, ksid: KeyStreamId, reader: str, released: int, highest_read: int) -> None:
        self._note("INSERT OR REPLACE INTO readings VALUES (?, ?, ?, ?)", ksid, reader, released, highest_read)

    def had(self, ksid: KeyStreamId, index: int, reader: str) -> None:
        self._note("INSERT OR REPLACE INTO had VALUES (?, ?, ?)", ksid, index, reader)

    def had_gone(self, ksid: KeyStreamId, index: int) -> None:
        self._note("DELETE FROM had WHERE ksid = ? AND number = ?", ksid, index)

    def readers_gone(self, ksid: KeyStreamId) -> None:
        self._note("DELETE FROM readings WHERE ksid = ?", ksid)
        self._note("DELETE FROM had WHERE ksid = ?", ksid)

    def ahead(self, ksid: KeyStreamId, octets: int) -> None:
        """So many octets of a stream or association are in memory only, released ahead of who asks for them."""
        insert = "INSERT INTO ahead VALUES (?, ?, 0) ON CONFLICT (ksid) DO UPDATE SET octets = excluded.octets"
        self._note(insert, ksid, octets)

    def key(self, ksid: KeyStreamId, key_id: str, ours: bool, stored: StoredKey) -> None:
        sealed = self._seal.close(stored.key, "key", ksid, key_id)
        values = (ksid, key_id, ours, stored.made, stored.hops, stored.since, sealed)
        self._note("INSERT OR REPLACE INTO keys VALUES (?, ?, ?, ?, ?, ?, ?)", *values)

    def key_since(self, ksid: KeyStreamId, key_id: str, since: float) -> None:
        self._note("UPDATE keys SET since = ? WHERE ksid = ? AND id = ?", since, ksid, key_id)

    def key_gone(self, ksid: KeyStreamId, key_id: str) -> None:
        self._note("DELETE FROM keys WHERE ksid = ? AND id = ?", ksid, key_id)

    def keys_gone(self, ksid: KeyStreamId) -> None:
        self._note("DELETE FROM keys WHERE ksid = ?", ksid)
        self._note("DELETE FROM ahead WHERE ksid = ?", ksid)

    def link_gone(self, link: LinkId) -> None:
        """The blocks of a link that is no more. Its highest number stays: the same link may come back."""
        self._note("DELETE FROM blocks WHERE link = ?", link)
