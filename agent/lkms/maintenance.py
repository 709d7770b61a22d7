"""What an operator may do to a key store that no key manager has open: rotate its master key, purge it.

Each is one SQLite transaction, so that a crash at any moment leaves the store as it was or as it is to be. A rotation
first makes the successor of the master key durable, and destroys the old one only when no row needs it and the log
is folded; `master_key.find` takes whichever of the two the store belongs to.
"""

import os
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ..config import MasterKeySource
from ..errors import StorageFailed
from ..model import LinkId
from .contents import SCHEMA, SEALED
from .database import connect, mark, next_opening, take_lock, unseal
from .master_key import describe, find, follow, make, read, successor, there
from .seal import SEAL_OCTETS, Seal, change_master


@dataclass(frozen=True, slots=True)
class Rotated:
    """`fingerprint` is the new master key's. `finished`: an earlier rotation had been interrupted after its commit."""

    fingerprint: str
    finished: bool


@dataclass(frozen=True, slots=True)
class Purged:
    blocks: int
    octets: int
    other_rows: int


def rotate(store: Path, source: MasterKeySource) -> Rotated:
    """Seals all rows under the successor of the master key; a successor in a file is made.

    Where the key is a file, the successor takes its place and the old one is overwritten; elsewhere its keeper does that.
    Raises StorageFailed, nothing changed.
    """
    with _owned(store) as database:
        found = find(source, mark(database))
        finished = found.following
        if not finished:
            _seal_under(database, unseal(database, found.key), _successor(source))
            _fold(database)
        if isinstance(source, Path):
            follow(source)
        return Rotated(mark(database) or "", finished)


def _successor(source: MasterKeySource) -> Seal:
    following = successor(source)
    if isinstance(following, Path):
        make(following)
    elif not there(following):
        raise StorageFailed(f"{describe(source)} has no successor: provide the new master key as {describe(following)}")
    return Seal(read(following))


def _seal_under(database: sqlite3.Connection, old: Seal, new: Seal) -> None:
    if new.fingerprint == old.fingerprint:
        raise StorageFailed("the successor of the master key is the master key itself")
    new.begin(next_opening(database))
    with _transaction(database):
        change_master(database, SEALED, old, new)
    new.forget()
    old.forget()


def purge(store: Path, links: Collection[LinkId] | None, keeps_ledger: bool) -> Purged:
    """Erases the key of links, or with None all key there is, that of streams and applications included.

    The highest block numbers stay, so that the far ends find out and burn theirs when the ends meet. Needs no master key.
    Raises StorageFailed, nothing erased, for a link that the store does not know.
    """
    with _owned(store) as database, _transaction(database):
        known = {LinkId(link) for (link,) in database.execute("SELECT link FROM links UNION SELECT link FROM blocks")}
        if unknown := sorted(set(links or ()) - known):
            raise StorageFailed(f"no link {', '.join(unknown)} in this store")
        blocks = octets = other = 0
        for link in known if links is None else set(links):
            count, left = _purge_link(database, link, keeps_ledger)
            blocks, octets = blocks + count, octets + left
        if links is None:
            for table in (*(one.table for one in SEALED), "streams", "readings", "had", "holders"):
                other += database.execute(f"DELETE FROM {table}").rowcount
        return Purged(blocks, octets, other)


def _purge_link(database: sqlite3.Connection, link: LinkId, keeps_ledger: bool) -> tuple[int, int]:
    select = f"SELECT count(*), coalesce(sum(length(sealed) - {SEAL_OCTETS}), 0), max(number) FROM blocks WHERE link = ?"
    count, octets, highest = database.execute(select, (link,)).fetchone()
    if keeps_ledger:
        columns = f"link, number, cursor, length(sealed) - {SEAL_OCTETS}, 'burnt', ''"
        database.execute(
            "INSERT INTO ledger (link, block, first, length, kind, consumer) "
            f"SELECT {columns} FROM blocks WHERE link = ? ORDER BY number",
            (link,),
        )
    database.execute("INSERT OR IGNORE INTO links VALUES (?, ?, ?, 0, 0, 0)", (link, highest, octets))
    database.execute("UPDATE links SET burnt = burnt + ? WHERE link = ?", (octets, link))
    database.execute("DELETE FROM blocks WHERE link = ?", (link,))
    return count, octets


@contextmanager
def _owned(store: Path) -> Iterator[sqlite3.Connection]:
    """The database, for this process alone; its log is folded at the end. Raises StorageFailed for whatever goes wrong."""
    if not store.exists():
        raise StorageFailed(f"{store}: there is no key store; the agent makes it at its first start")
    lock = take_lock(store)
    try:
        database = connect(store, SCHEMA)
        try:
            yield database
        finally:
            with suppress(sqlite3.Error):
                _fold(database)
            database.close()
    except (sqlite3.Error, OSError) as error:
        raise StorageFailed(f"{store}: {error}") from error
    finally:
        os.close(lock)


@contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[None]:
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise


def _fold(database: sqlite3.Connection) -> None:
    """Of who reads the store just now, the log is not taken away: then it goes at the agent's next folding."""
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
