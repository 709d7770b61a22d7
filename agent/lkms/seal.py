"""Seals of rows that hold key, and the master key they are made with: where it is, which one a store belongs to.

A seal is AES-256-GCM under a key derived (HKDF) from the master key and a salt of each opening of the store, so that a
counter is a nonce that never repeats; the additional data says which row it is. The store keeps a fingerprint of its master
key, so that of two keys, before and after a rotation, the right one is found without trying rows.

A master key has a successor only while it is being rotated: FILE.next beside FILE, the credential NAME.next beside NAME, the
variable NAME_NEXT beside NAME. The commit that seals all rows anew decides which of the two holds.
"""

import binascii
import ctypes
import os
import re
import sqlite3
import time
from base64 import b64decode
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ..config import Credential, Held, MasterKeySource, Variable
from ..errors import StorageFailed
from .keys import Key

MASTER_KEY_OCTETS = 32
SALT_OCTETS = 32
SEAL_OCTETS = 4 + 12 + 16
"""A sealed row is so much longer than its key: number of the opening, nonce, tag."""
FINGERPRINT_OCTETS = 16
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
        self._ciphers[opening] = AESGCM(_derive(self._master, 32, salt, b"quantum-switch key store"))

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


def _derive(master: Key, octets: int, salt: bytes | None, purpose: bytes) -> bytes:
    return HKDF(SHA256(), octets, salt, purpose).derive(master.view())


def fingerprint(master: Key) -> str:
    """Names a master key without telling anything of it."""
    return _derive(master, FINGERPRINT_OCTETS, None, b"quantum-switch master key fingerprint").hex()


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


# Where the master key is ---------------------------------------------------------------------------------------------


def describe(source: MasterKeySource) -> str:
    """As it stands in a configuration file."""
    match source:
        case Credential(name):
            return f"credential:{name}"
        case Variable(name) | Held(name):
            return f"env:{name}"
        case _:
            return str(source)


def successor(source: MasterKeySource) -> MasterKeySource:
    match source:
        case Credential(name):
            return Credential(f"{name}.next")
        case Variable(name):
            return Variable(f"{name}_NEXT")
        case Held(name, _, following):
            return Held(f"{name}_NEXT", following, b"")
        case _:
            return source.with_name(source.name + ".next")


def held(source: MasterKeySource) -> MasterKeySource:
    """Takes a key out of the environment, where child processes and whoever may read it would find it."""
    if not isinstance(source, Variable):
        return source
    return Held(source.name, _take(source.name), _take(f"{source.name}_NEXT"))


def _take(name: str) -> bytes:
    """Removes a variable; its text, in the memory that /proc/PID/environ shows, is overwritten."""
    value = os.environb.get(name.encode(), b"")
    getenv = ctypes.CDLL(None).getenv
    getenv.restype = ctypes.c_void_p
    if place := getenv(name.encode()):
        ctypes.memset(place, 0, len(value))
    os.environb.pop(name.encode(), None)
    return value


def there(source: MasterKeySource) -> bool:
    match source:
        case Credential():
            return _credential(source).exists()
        case Variable(name):
            return name in os.environ
        case Held(_, value):
            return bool(value)
        case _:
            return source.exists()


def read(source: MasterKeySource) -> Key:
    """Reads a master key. Raises StorageFailed, in words that hold nothing of it."""
    match source:
        case Credential():
            return _decode(_read_file(_credential(source), private=False), describe(source))
        case Variable(name):
            if name not in os.environ:
                raise StorageFailed(f"env:{name}: the environment variable {name} is not set")
            return _decode(os.environb[name.encode()], describe(source))
        case Held(name, value):
            if not value:
                raise StorageFailed(f"env:{name}: the environment variable {name} is not set")
            return _decode(value, describe(source))
        case _:
            material = _read_file(source, private=True)
            if len(material) != MASTER_KEY_OCTETS:
                raise StorageFailed(f"{source} holds {len(material)} octets; a master key has {MASTER_KEY_OCTETS}")
            return Key(material)


def _credential(source: Credential) -> Path:
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        problem = "CREDENTIALS_DIRECTORY is not set; systemd sets it for a service with LoadCredential(Encrypted)="
        raise StorageFailed(f"credential:{source.name}: {problem}")
    return Path(folder) / source.name


def _read_file(path: Path, private: bool) -> bytes:
    try:
        if private and path.stat().st_mode & 0o077:
            raise StorageFailed(f"{path} can be read by others than its owner; chmod 600 it")
        return path.read_bytes()
    except OSError as error:
        raise StorageFailed(f"{path}: {error.strerror}") from error


def _decode(text: bytes, where: str) -> Key:
    """32 octets as they are, or written in hexadecimal or base64."""
    if len(text) == MASTER_KEY_OCTETS:
        return Key(text)
    bare = text.strip()
    with suppress(binascii.Error, ValueError):
        octets = bytes.fromhex(bare.decode()) if re.fullmatch(b"[0-9a-fA-F]{64}", bare) else b64decode(bare, validate=True)
        if len(octets) == MASTER_KEY_OCTETS:
            return Key(octets)
    problem = f"must be {MASTER_KEY_OCTETS} octets in hexadecimal (64 digits) or base64 (44 characters)"
    raise StorageFailed(f"{where} {problem}, and is {len(bare)} characters that are not")


@dataclass(frozen=True, slots=True)
class Found:
    """The master key of a store; `following` when it is the successor, whose turn has come."""

    key: Key
    following: bool


def find(source: MasterKeySource, mark: str | None) -> Found:
    """The master key whose fingerprint is `mark`: the configured one or its successor.

    Without a mark the store is new, or older than marks: then it is the configured one, made where that is a file that
    is not there. Raises StorageFailed.
    """
    if mark is None:
        if isinstance(source, Path) and not source.exists():
            make(source)
        return Found(read(source), False)
    seen = []
    for following, one in ((False, source), (True, successor(source))):
        if not following or there(one):
            try:
                key = read(one)
            except StorageFailed as error:
                seen.append(error.problem)
                continue
            if fingerprint(key) == mark:
                return Found(key, following)
            seen.append(f"{describe(one)} has {fingerprint(key)}")
            key.wipe()
    raise StorageFailed(f"the store does not open under this master key: its own has fingerprint {mark}; {'; '.join(seen)}")


def make(path: Path) -> None:
    """Makes a master key, for its owner's eyes only. Raises StorageFailed.

    Written aside and renamed: a crash in between must not leave half a key.
    """
    new = path.with_name(path.name + ".new")
    try:
        new.unlink(missing_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(os.urandom(MASTER_KEY_OCTETS))
            file.flush()
            os.fsync(file.fileno())
        new.rename(path)
        _sync_folder(path)
    except OSError as error:
        raise StorageFailed(f"{path}: {error.strerror}") from error


def follow(path: Path) -> None:
    """The successor takes the place of a master key in a file; the old one is overwritten first. Raises StorageFailed.

    In between, the old file holds no key and the successor is found in its place.
    """
    try:
        with suppress(FileNotFoundError):
            erase(path)
        path.with_name(path.name + ".next").rename(path)
        _sync_folder(path)
    except OSError as error:
        raise StorageFailed(f"{path}: {error.strerror}") from error


def erase(path: Path) -> None:
    """Overwrites a key in its place, as far as the medium does that. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, bytes(MASTER_KEY_OCTETS))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
