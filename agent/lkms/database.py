"""The database file of a key store: who may write to it, how it is opened, which master key it belongs to."""

import fcntl
import os
import sqlite3
from pathlib import Path

from ..errors import StorageFailed
from .keys import Key
from .seal import Seal


def take_lock(path: Path) -> int:
    """Keeps others from writing to the store for as long as the descriptor is open. Raises StorageFailed.

    Two agents on one store would each use the same key.
    """
    lock = os.open(path.with_name(path.name + ".lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise StorageFailed(f"{path} is in use by another process") from error
    return lock


def connect(path: Path, schema: str) -> sqlite3.Connection:
    """For who holds the lock. Raises OSError, sqlite3.Error."""
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    for name, value in (("journal_mode", "WAL"), ("synchronous", "FULL"), ("secure_delete", "ON")):
        database.execute(f"PRAGMA {name} = {value}").fetchall()
    database.executescript(schema)
    return database


def mark(database: sqlite3.Connection) -> str | None:
    """The fingerprint of the store's master key; None for a store that was never opened, or only before there were marks."""
    if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'master'").fetchone():
        return None
    row = database.execute("SELECT fingerprint FROM master").fetchone()
    return str(row[0]) if row else None


def unseal(database: sqlite3.Connection, master: Key) -> Seal:
    """Opens what was sealed at all openings, and does not seal yet."""
    seal = Seal(master)
    for opening, salt in database.execute("SELECT id, salt FROM salts"):
        seal.add_salt(opening, salt)
    return seal


def next_opening(database: sqlite3.Connection) -> int:
    (last,) = database.execute("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'salts'").fetchone()
    return int(last) + 1
