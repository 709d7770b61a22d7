"""What a key store holds: its tables, which of them hold key, and all rows of them as they are when it is opened."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from ..model import KeyStreamId, LinkId
from .delivery_end import StoredKey
from .lines import LinkTotals
from .pool import Block, Totals
from .readers import Readers, Reading
from .seal import Seal, Sealed
from .stream_end import Attachment, Progress, StoredChunk

SCHEMA = """
CREATE TABLE IF NOT EXISTS salts (id INTEGER PRIMARY KEY AUTOINCREMENT, salt BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS links (
    link TEXT PRIMARY KEY, highest INTEGER, generated INTEGER, consumed INTEGER, burnt INTEGER, hops INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS blocks (
    link TEXT, number INTEGER, cursor INTEGER, size INTEGER, ours INTEGER, made REAL, sealed BLOB,
    PRIMARY KEY (link, number));
CREATE TABLE IF NOT EXISTS streams (
    ksid TEXT PRIMARY KEY, remote TEXT, incarnation INTEGER, chunk_size INTEGER, next_index INTEGER, confirmed INTEGER,
    released INTEGER, highest_read INTEGER, attachment INTEGER, peer_attachment INTEGER, consumed INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS chunks (
    ksid TEXT, incarnation INTEGER, number INTEGER, made REAL, since REAL, hops INTEGER, sealed BLOB,
    PRIMARY KEY (ksid, number));
CREATE TABLE IF NOT EXISTS readings (
    ksid TEXT, reader TEXT, released INTEGER, highest_read INTEGER, PRIMARY KEY (ksid, reader)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS had (ksid TEXT, number INTEGER, reader TEXT, PRIMARY KEY (ksid, number, reader)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS holders (
    ksid TEXT, application TEXT, open INTEGER, PRIMARY KEY (ksid, application)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS keys (
    ksid TEXT, id TEXT, ours INTEGER, made REAL, hops INTEGER, since REAL, sealed BLOB,
    PRIMARY KEY (ksid, id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS ahead (ksid TEXT PRIMARY KEY, octets INTEGER, burnt INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS paths (link TEXT PRIMARY KEY, paths INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS relays (link TEXT PRIMARY KEY, relayed INTEGER, pads INTEGER, failures INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS ledger (
    id INTEGER PRIMARY KEY, link TEXT, block INTEGER, first INTEGER, length INTEGER, kind TEXT, consumer TEXT);
CREATE TABLE IF NOT EXISTS master (id INTEGER PRIMARY KEY CHECK (id = 1), fingerprint TEXT, since REAL);
"""
SEALED = (
    Sealed("blocks", "block", ("link", "number", "cursor", "size")),
    Sealed("chunks", "chunk", ("ksid", "incarnation", "number")),
    Sealed("keys", "key", ("ksid", "id")),
)


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """One use of key at one end: `length` octets of a block from `offset` on; `kind` is stream, 014, relay, tag or burnt."""

    link: str
    block: int
    offset: int
    length: int
    kind: str
    consumer: str


def ledger(path: Path) -> Iterator[LedgerRow]:
    """All uses that a store with a ledger has recorded, oldest first, for audits; it may be open elsewhere."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        for row in database.execute("SELECT link, block, first, length, kind, consumer FROM ledger ORDER BY id"):
            yield LedgerRow(*row)


@dataclass(slots=True)
class Contents:
    """What a store held when it was opened."""

    totals: dict[LinkId, Totals] = field(default_factory=dict)
    blocks: dict[LinkId, list[Block]] = field(default_factory=dict)
    streams: dict[KeyStreamId, Progress] = field(default_factory=dict)
    chunks: dict[KeyStreamId, dict[int, StoredChunk]] = field(default_factory=dict)
    readers: dict[KeyStreamId, Readers] = field(default_factory=dict)
    holders: dict[KeyStreamId, dict[str, bool]] = field(default_factory=dict)
    relays: dict[LinkId, LinkTotals] = field(default_factory=dict)
    paths: dict[LinkId, int] = field(default_factory=dict)  # of links over more than one, over how many their key came
    held: dict[KeyStreamId, dict[str, StoredKey]] = field(default_factory=dict)
    stocks: dict[KeyStreamId, dict[str, StoredKey]] = field(default_factory=dict)

    def youngest(self) -> float:
        """When the youngest key that is held was made or allocated; 0 when there is none."""
        moments = [block.made for blocks in self.blocks.values() for block in blocks]
        moments += [chunk.since for chunks in self.chunks.values() for chunk in chunks.values()]
        keys = [key for many in (*self.held.values(), *self.stocks.values()) for key in many.values()]
        moments += [key.since or key.made for key in keys]
        return max(moments, default=0.0)


def load(database: sqlite3.Connection, seal: Seal) -> Contents:
    """All that there is. Raises StorageFailed for a row that does not open."""
    contents = Contents()
    for link, *numbers in database.execute("SELECT * FROM links"):
        contents.totals[link] = Totals(*numbers)
    for link, number, cursor, size, ours, made, sealed in database.execute("SELECT * FROM blocks ORDER BY link, number"):
        key = seal.open(sealed, "block", link, number, cursor, size)
        contents.blocks.setdefault(link, []).append(Block(number, size, cursor, bool(ours), made, key))
    for *values, attachment, peer, consumed in database.execute("SELECT * FROM streams"):
        values += [Attachment(attachment), Attachment(peer), consumed]
        progress = Progress(*values)
        contents.streams[progress.ksid] = progress
    for ksid, incarnation, number, made, since, hops, sealed in database.execute("SELECT * FROM chunks"):
        key = seal.open(sealed, "chunk", ksid, incarnation, number)
        contents.chunks.setdefault(ksid, {})[number] = StoredChunk(key, made, since, hops)
    for ksid, application, opened_it in database.execute("SELECT * FROM holders ORDER BY ksid, application"):
        contents.holders.setdefault(ksid, {})[application] = bool(opened_it)
    for ksid, reader, *indexes in database.execute("SELECT * FROM readings"):
        contents.readers.setdefault(ksid, Readers()).readings[reader] = Reading(*indexes)
    for ksid, number, reader in database.execute("SELECT * FROM had ORDER BY ksid, number"):
        contents.readers.setdefault(ksid, Readers()).had.setdefault(number, set()).add(reader)
    for ksid, key_id, ours, made, hops, since, sealed in database.execute("SELECT * FROM keys"):
        key = seal.open(sealed, "key", ksid, key_id)
        (contents.stocks if ours else contents.held).setdefault(ksid, {})[key_id] = StoredKey(key, made, hops, since)
    for link, *numbers in database.execute("SELECT * FROM relays"):
        contents.relays[link] = LinkTotals(*numbers)
    contents.paths.update(database.execute("SELECT link, paths FROM paths"))
    return contents
