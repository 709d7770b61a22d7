"""How a file travels between two applications: one header, then records that each have a quantum key of their own.

    magic · header length (4) · header (JSON) · record … record          sender to receiver
    ready (1 octet) · … · receipt (a record without content)             receiver to sender

A record is `number (4) · key index (4) · kind (1) · length (4) · ciphertext and tag`, AES-256-GCM under the chunk of the key
stream at that index. No key seals twice, so the nonce is constant. Associated data are the whole header (key stream, file
name, size) and the record's own header: a record that is changed, moved, repeated or of another file does not open. The last
record says so of itself, so a file cut short is never taken for whole. The receipt tells the sender that it arrived.
"""

import json
import re
import struct
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MAGIC = b"QKDFILE1"
READY = b"\x01"
RECORD_SIZE = 1 << 20  # octets of the file in a record; the last one may have fewer
KEY_SIZE = 32
TAG_SIZE = 16
MAX_HEADER = 8192
MAX_SIZE = RECORD_SIZE << 31
MAX_TIMEOUT_MS = 600_000
MAX_NAME = 255  # octets, as file systems have it

_LENGTH = struct.Struct("!I")
_RECORD = struct.Struct("!IIBI")
RECORD_HEADER_SIZE = _RECORD.size
_NONCE = bytes(12)
_UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class BadTransfer(Exception):
    """What was received is no transfer, or was changed on its way."""


class Kind(IntEnum):
    MORE = 0
    LAST = 1
    RECEIPT = 2


@dataclass(frozen=True, slots=True)
class FileHeader:
    """What is told in the clear before the records; they vouch for it."""

    ksid: str
    source: str  # URI of the sending application
    destination: str
    name: str
    size: int  # octets
    timeout_ms: int = 0  # 004 Timeout the sender opened with

    def build(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def parse(cls, octets: bytes) -> Self:
        """Checks types, bounds and that the name is a plain file name."""
        try:
            header = cls(**json.loads(octets))
        except (ValueError, TypeError, RecursionError):
            raise BadTransfer("the header cannot be read") from None
        texts = (header.ksid, header.source, header.destination, header.name)
        if not all(type(one) is str and one.isprintable() for one in texts) or not _UUID.fullmatch(header.ksid):
            raise BadTransfer("the header holds values that are no text, or no KSID")
        for number, limit in ((header.size, MAX_SIZE), (header.timeout_ms, MAX_TIMEOUT_MS)):
            if type(number) is not int or not 0 <= number <= limit:
                raise BadTransfer(f"the header holds a number that is not within 0..{limit}")
        check_name(header.name)
        return header

    @property
    def records(self) -> int:
        """How many records the file takes; an empty file takes one."""
        return max(1, -(-self.size // RECORD_SIZE))


def check_name(name: str) -> None:
    """Refuses what could lead out of the receiver's directory, hide a file, or confuse a terminal."""
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        raise BadTransfer("the file name is no text") from None
    if not name or name.startswith(".") or length > MAX_NAME or any(one in "/\\" or not one.isprintable() for one in name):
        raise BadTransfer(f"the file name {name[:80]!r} is refused: only plain, visible names without a path are taken")


def build_preamble(header: bytes) -> bytes:
    return MAGIC + _LENGTH.pack(len(header)) + header


PREAMBLE_SIZE = len(MAGIC) + _LENGTH.size


def parse_preamble(octets: bytes) -> int:
    """The length of the header that follows."""
    if not octets.startswith(MAGIC):
        raise BadTransfer("this is no file transfer of qkd-app")
    length = int(_LENGTH.unpack_from(octets, len(MAGIC))[0])
    if length > MAX_HEADER:
        raise BadTransfer(f"a header of {length} octets, more than {MAX_HEADER}")
    return length


@dataclass(frozen=True, slots=True)
class Record:
    """A record's header: `length` counts the ciphertext with its tag."""

    number: int
    index: int
    kind: Kind
    length: int

    def build(self) -> bytes:
        return _RECORD.pack(self.number, self.index, self.kind, self.length)

    @classmethod
    def parse(cls, octets: bytes) -> Self:
        number, index, kind, length = _RECORD.unpack(octets)
        if kind not in tuple(Kind) or not TAG_SIZE <= length <= RECORD_SIZE + TAG_SIZE:
            raise BadTransfer("a record's header cannot be read")
        return cls(number, index, Kind(kind), length)


def seal(key: bytearray, header: bytes, number: int, index: int, kind: Kind, content: bytes) -> bytes:
    """One whole record. The key seals this one only; the caller wipes it."""
    record = Record(number, index, kind, len(content) + TAG_SIZE).build()
    return record + _cipher(key).encrypt(_NONCE, content, header + record)


def unseal(key: bytearray, header: bytes, record: Record, ciphertext: bytes) -> bytes:
    """The content. Raises BadTransfer when anything of it, or of the headers, is not as it was sealed."""
    try:
        return _cipher(key).decrypt(_NONCE, ciphertext, header + record.build())
    except InvalidTag:
        raise BadTransfer(f"record {record.number} was changed on its way, or sealed under another key") from None


def _cipher(key: bytearray) -> AESGCM:
    if len(key) != KEY_SIZE:
        raise BadTransfer(f"the key stream has chunks of {len(key)} octets; {KEY_SIZE} are needed")
    return AESGCM(key)
