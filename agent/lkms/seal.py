"""Seals of rows that hold key.

A seal is AES-256-GCM under a key derived (HKDF) from the master key and a salt of each opening of the store, so that a
counter is a nonce that never repeats; the additional data says which row it is.
"""

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ..errors import StorageFailed
from .keys import Key
from .master_key import derive, fingerprint

SALT_OCTETS = 32
SEAL_OCTETS = 4 + 12 + 16
"""A sealed row is so much longer than its key: number of the opening, nonce, tag."""
Row = tuple[Any, ...]
"""The values of the columns that say which row of a table it is."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """A table that holds key in `column`, sealed for `kind` and the columns that say which row it is, in this order."""

    table: str
    kind: str
    row: tuple[str, ...]
    column: str = "sealed"

    @property
    def where(self) -> str:
        return " AND ".join(f"{name} IS ?" for name in self.row)


class Seal:
    """Seals rows under the key of one opening, opens those of all."""

    def __init__(self, master: Key) -> None:
        """Takes the master key over; to be forgotten once all salts are known."""
        self._master, self.fingerprint = master, fingerprint(master)
        self._ciphers: dict[int, AESGCM] = {}
        self.opening, self.salt, self._count = 0, b"", 0

    def add_salt(self, opening: int, salt: bytes) -> None:
        self._ciphers[opening] = AESGCM(derive(self._master, 32, salt, b"quantum-switch key store"))

    def begin(self, opening: int) -> None:
        """Seals from now on under a salt of its own, which must be noted before, or with, what is sealed."""
        self.opening, self.salt, self._count = opening, os.urandom(SALT_OCTETS), 0
        self.add_salt(opening, self.salt)

    def forget(self) -> None:
        self._master.wipe()

    def close(self, key: Key, *row: object) -> bytes:
        self._count += 1
        nonce = self._count.to_bytes(12)
        return self.opening.to_bytes(4) + nonce + self._ciphers[self.opening].encrypt(nonce, key.view(), _row(row))

    def open(self, sealed: bytes, *row: object) -> Key:
        """Raises StorageFailed for what was not sealed for this row under this master key."""
        try:
            cipher = self._ciphers[int.from_bytes(sealed[:4])]
            return Key(bytearray(cipher.decrypt(sealed[4:16], sealed[16:], _row(row))))
        except (InvalidTag, KeyError, TypeError, ValueError) as error:
            raise StorageFailed(f"row {row} does not open under this master key") from error


def _row(row: tuple[object, ...]) -> bytes:
    return "\0".join(map(str, row)).encode()


def opened(database: sqlite3.Connection, tables: Iterable[Sealed], seal: Seal) -> Iterator[tuple[Sealed, Row, Key | None]]:
    """All rows that hold key, one after the other; None for one that does not open. Each key is wiped after its turn."""
    for one in tables:
        for row in database.execute(f"SELECT {', '.join(one.row)} FROM {one.table}").fetchall():
            (sealed,) = database.execute(f"SELECT {one.column} FROM {one.table} WHERE {one.where}", row).fetchone()
            try:
                key = seal.open(sealed, one.kind, *row)
            except StorageFailed:
                yield one, row, None
                continue
            with key:
                yield one, row, key


def change_master(database: sqlite3.Connection, tables: Iterable[Sealed], old: Seal, new: Seal, *later: Seal) -> None:
    """Within the caller's transaction: seals all rows anew, by `new`. From its commit on, the store has another master key.

    `later` are seals under the same one that others will use. Raises StorageFailed for a row that does not open.
    """
    for one, row, key in opened(database, tables, old):
        if key is None:
            raise StorageFailed(f"row {row} of {one.table} does not open; the master key stays as it is")
        sealed = new.close(key, one.kind, *row)
        database.execute(f"UPDATE {one.table} SET {one.column} = ? WHERE {one.where}", (sealed, *row))
    database.execute("DELETE FROM salts")
    database.executemany("INSERT INTO salts VALUES (?, ?)", [(seal.opening, seal.salt) for seal in (new, *later)])
    database.execute("INSERT OR REPLACE INTO master VALUES (1, ?, ?)", (new.fingerprint, time.time()))
