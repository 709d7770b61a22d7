"""The master key of a node's key store: where it is, which of two a store belongs to, how one follows another.

A store has the fingerprint of its master key, so that of two keys, before and after a rotation, the right one is found
without trying rows. A master key has a successor only while it is being rotated: FILE.next beside FILE, the credential
NAME.next beside NAME, the variable NAME_NEXT beside NAME. The commit that seals all rows anew decides which one holds.
"""

import binascii
import ctypes
import os
import re
from base64 import b64decode
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ..config import Credential, Held, MasterKeySource, Variable
from ..errors import StorageFailed
from .keys import Key

MASTER_KEY_OCTETS = 32
FINGERPRINT_OCTETS = 16


def derive(master: Key, octets: int, salt: bytes | None, purpose: bytes) -> bytes:
    return HKDF(SHA256(), octets, salt, purpose).derive(master.view())


def fingerprint(master: Key) -> str:
    """Names a master key without telling anything of it."""
    return derive(master, FINGERPRINT_OCTETS, None, b"quantum-switch master key fingerprint").hex()


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
