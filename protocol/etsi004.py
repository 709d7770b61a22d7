"""ETSI GS QKD 004 v2.1.1: the values of its three calls, and codecs without I/O for the two encodings in use.

The standard fixes no encoding. Dialect C is that of the ETSI C reference, dialect P that of the QUBIP Python code: the same
header and service numbers, but other lengths for the metadata type, the metadata offered and error replies. `ServerCodec`
tells them apart per request and answers alike, on one port.

Every reply carries its whole layout, errors too, and fits one TLS record: C clients parse all fields of any reply, and lose
bytes when a reply is split over records. P clients read no further than the status of an error.

All integers are unsigned, 32 bits, big-endian. A KSID is the 16 octets of a UUID in RFC 4122 order; null is 16 zeros.
"""

import struct
import uuid
from collections.abc import Callable
from dataclasses import astuple, dataclass, field
from enum import Enum, IntEnum
from functools import lru_cache
from typing import Any

MAX_REQUEST_PAYLOAD = 16_384  # octets; two URIs and less than 400 octets of fields
MAX_REPLY_PAYLOAD = 1 << 20  # octets a client takes; what a server of ours sends is below MAX_REPLY_FRAME
MAX_REPLY_FRAME = 16_384  # octets, header included: one TLS record
MAX_KEY_CHUNK_SIZE = 16_000  # octets; leaves room in MAX_REPLY_FRAME for the fields and MAX_METADATA_SIZE
MAX_METADATA_SIZE = 256  # octets of metadata that go with a key

U32_MAX = 0xFFFF_FFFF
NEXT_INDEX = U32_MAX  # 004 reserves no index for "the next one"; this one, which no stream reaches, is taken for it

NULL_KSID = str(uuid.UUID(int=0))  # only where a key stream must be named; elsewhere null is None

_MIMETYPE_FIELD = 256  # octets, the terminating NUL included (004 table 2: char[256])
_QOS_INTEGERS = 7
_KEY_TYPE_AND_ROLE = 2  # octets that clients of the C reference put where metadata is offered


class ProtocolError(Exception):
    """What was received is not 004; nothing more can be read from this connection. The text holds none of the input."""


class Status(IntEnum):
    """Table 2 of clause 6.1. 1 is a success of OPEN_CONNECT."""

    SUCCESS = 0
    PEER_ABSENT = 1
    INSUFFICIENT_KEY = 2
    PEER_NOT_CONNECTED = 3
    NO_CONNECTION = 4
    KSID_IN_USE = 5
    TIMEOUT = 6
    QOS_NOT_MET = 7
    METADATA_TOO_SMALL = 8


class Dialect(Enum):
    """An encoding; the value is the version in its header, which no implementation relies on."""

    C = (2, 1, 1)
    P = (1, 0, 1)


@dataclass(frozen=True, slots=True)
class Qos:
    """QoS of table 2. 0 is "unspecified"; an empty mimetype is "no metadata". ValueError when a value does not fit."""

    key_chunk_size: int = 0  # octets
    max_bps: int = 0
    min_bps: int = 0
    jitter: int = 0  # bit/s
    priority: int = 0
    timeout: int = 0  # ms; of every call on the key stream
    ttl: int = 0  # s
    metadata_mimetype: str = "application/json"

    def __post_init__(self) -> None:
        for number in astuple(self)[:_QOS_INTEGERS]:
            if not 0 <= number <= U32_MAX:
                raise ValueError(f"{number} in a QoS is not within 0..{U32_MAX}")
        if len(self.metadata_mimetype.encode()) >= _MIMETYPE_FIELD or "\0" in self.metadata_mimetype:
            raise ValueError(f"a metadata type is at most {_MIMETYPE_FIELD - 1} octets without NUL")


NO_QOS = Qos(metadata_mimetype="")


@dataclass(frozen=True, slots=True)
class OpenConnect:
    source: str
    destination: str
    qos: Qos
    ksid: str | None = None  # canonical UUID text
    dialect: Dialect = Dialect.P


@dataclass(frozen=True, slots=True)
class OpenConnectReply:
    status: Status
    qos: Qos
    ksid: str | None


@dataclass(frozen=True, slots=True)
class GetKey:
    ksid: str
    index: int | None  # None: the next one (NEXT_INDEX on the wire)
    metadata_size: int = 0  # octets the caller has room for; 0: wants none


@dataclass(frozen=True, slots=True)
class GetKeyReply:
    """The key itself travels beside this value, so that it can be wiped."""

    status: Status
    index: int
    metadata: bytes = b""
    needed_metadata_size: int = 0  # only with METADATA_TOO_SMALL


@dataclass(frozen=True, slots=True)
class Close:
    ksid: str


@dataclass(frozen=True, slots=True)
class CloseReply:
    status: Status


@dataclass(frozen=True, slots=True)
class ReceivedKey:
    """A GET_KEY reply as a client gets it. `key` is empty unless the status is SUCCESS; its owner wipes it."""

    reply: GetKeyReply
    key: bytearray = field(repr=False)


Request = OpenConnect | GetKey | Close
Reply = OpenConnectReply | GetKeyReply | CloseReply
ClientEvent = OpenConnectReply | ReceivedKey | CloseReply

_HEADER = struct.Struct("!3BBI")
_U32 = struct.Struct("!I")
_QOS = struct.Struct(f"!{_QOS_INTEGERS}I")
_OPEN_CONNECT, _GET_KEY, _CLOSE = 0x02, 0x04, 0x08
_REPLY = 1  # a reply's service number is its request's plus this


# Fields --------------------------------------------------------------------------------------------------------------


class _Fields:
    """Reads one payload from its start; ProtocolError when a field is not all there."""

    def __init__(self, payload: memoryview) -> None:
        self._rest = payload

    @property
    def left(self) -> int:
        return len(self._rest)

    def take(self, length: int) -> memoryview:
        if length > len(self._rest):
            raise ProtocolError(f"a field of {length} octets where {len(self._rest)} are left")
        taken, self._rest = self._rest[:length], self._rest[length:]
        return taken

    def u32(self) -> int:
        return int(_U32.unpack(self.take(_U32.size))[0])

    def buffer(self) -> memoryview:
        return self.take(self.u32())

    def string(self) -> str:
        """Up to and without the NUL that must end it."""
        end = bytes(self._rest).find(0)
        if end < 0:
            raise ProtocolError("a string without its terminating NUL")
        text = _text(self.take(end))
        self.take(1)
        return text

    def ksid(self) -> str | None:
        octets = bytes(self.take(16))
        return _name(octets) if any(octets) else None

    def stream(self) -> str:
        """A KSID of GET_KEY or CLOSE: null, from a client that missed its OPEN_CONNECT's failure, is an unknown stream."""
        return self.ksid() or NULL_KSID

    def qos(self, dialect: Dialect) -> Qos:
        numbers = _QOS.unpack(self.take(_QOS.size))
        mimetype = _Fields(self.take(_MIMETYPE_FIELD)).string() if dialect is Dialect.P else self.string()
        if len(mimetype.encode()) >= _MIMETYPE_FIELD:
            raise ProtocolError("a metadata type longer than its 255 octets")
        fields: tuple[Any, ...] = (*numbers, mimetype)
        return Qos(*fields)

    def end(self) -> None:
        if self._rest:
            raise ProtocolError(f"{len(self._rest)} octets after the last field")


@lru_cache(1024)
def _name(octets: bytes) -> str:
    return str(uuid.UUID(bytes=octets))


def _text(octets: memoryview) -> str:
    try:
        return str(octets, "utf-8")
    except UnicodeDecodeError:
        raise ProtocolError("a string that is not UTF-8") from None


def _ksid(ksid: str | None) -> bytes:
    return uuid.UUID(ksid).bytes if ksid else bytes(16)


def _qos(qos: Qos, dialect: Dialect) -> bytes:
    name = qos.metadata_mimetype.encode()
    numbers = astuple(qos)[:_QOS_INTEGERS]
    return _QOS.pack(*numbers) + (name.ljust(_MIMETYPE_FIELD, b"\0") if dialect is Dialect.P else name + b"\0")


def _string(text: str) -> bytes:
    if "\0" in text:
        raise ValueError("a URI cannot contain NUL")
    return text.encode() + b"\0"


def _u32(*numbers: int) -> bytes:
    return b"".join(_U32.pack(number) for number in numbers)


def _status(number: int) -> Status:
    try:
        return Status(number)
    except ValueError:
        raise ProtocolError(f"status {number}, which 004 does not define") from None


# Frames --------------------------------------------------------------------------------------------------------------


class _Frames[Event]:
    """Cuts what is received into frames; what it gave out of its buffer is overwritten there."""

    def __init__(self, limit: int, services: dict[int, Callable[[_Fields, Dialect], Event]]) -> None:
        self._limit, self._services, self._buffer = limit, services, bytearray()

    @property
    def buffered(self) -> int:
        """Octets received and not yet given out."""
        return len(self._buffer)

    def receive(self, data: bytes | bytearray | memoryview) -> None:
        self._buffer += data

    def receive_end(self) -> None:
        """The connection ended. Raises ProtocolError when it did so inside a frame."""
        if self._buffer:
            raise ProtocolError(f"the connection ended inside a frame, after {len(self._buffer)} octets of it")

    def _next(self) -> Event | None:
        """The next frame's value; None when more octets are needed. Refuses a frame by its header alone."""
        if len(self._buffer) < _HEADER.size:
            return None
        *version, service, length = _HEADER.unpack_from(self._buffer)
        if service not in self._services:
            raise ProtocolError(f"service 0x{service:02x} is none that is served here")
        if length > self._limit:
            raise ProtocolError(f"a payload of {length} octets, more than {self._limit}")
        end = _HEADER.size + length
        if len(self._buffer) < end:
            return None
        dialect = Dialect.C if tuple(version) == Dialect.C.value else Dialect.P
        payload = self._buffer[_HEADER.size : end]
        self._buffer[:end] = bytes(end)
        del self._buffer[:end]
        try:
            return self._services[service](_Fields(memoryview(payload)), dialect)
        finally:
            payload[:] = bytes(length)


def _frame(dialect: Dialect, service: int, *fields: bytes | bytearray | memoryview) -> bytearray:
    """One whole frame, in memory that its sender can wipe."""
    length = sum(len(one) for one in fields)
    frame = bytearray(_HEADER.size + length)  # of its final size at once: growing would leave copies behind
    _HEADER.pack_into(frame, 0, *dialect.value, service, length)
    position = _HEADER.size
    for one in fields:
        frame[position : position + len(one)] = one
        position += len(one)
    return frame


# Server --------------------------------------------------------------------------------------------------------------


class ServerCodec(_Frames[tuple[Request, Dialect]]):
    """One connection as its server sees it: `receive` octets, `next_event` until None, answer each event with `send`."""

    def __init__(self) -> None:
        super().__init__(
            MAX_REQUEST_PAYLOAD, {_OPEN_CONNECT: _parse_open_connect, _GET_KEY: _parse_get_key, _CLOSE: _parse_close}
        )
        self._pending: tuple[Request, Dialect] | None = None
        self.dialect = Dialect.P  # of the request given out last

    def next_event(self) -> Request | None:
        """The next request, or None when more octets are needed. Raises ProtocolError: close the connection."""
        if self._pending is not None:
            raise RuntimeError("the request before is not answered yet")
        self._pending = self._next()
        if self._pending is None:
            return None
        request, self.dialect = self._pending
        return request

    def send(self, reply: Reply, key: bytes | bytearray | memoryview = b"") -> bytearray:
        """The frame that answers the last event; send it in one write, then wipe it. `key` goes with a GetKeyReply.

        Raises ValueError when it does not fit a frame or the metadata that was offered room for; the request is then
        still to be answered.
        """
        if self._pending is None:
            raise RuntimeError("no request to answer")
        frame = _build_reply(*self._pending, reply, key)
        if len(frame) > MAX_REPLY_FRAME:
            raise ValueError(f"a reply of {len(frame)} octets, more than {MAX_REPLY_FRAME}")
        self._pending = None
        return frame


def _parse_open_connect(fields: _Fields, version: Dialect) -> tuple[Request, Dialect]:
    source, destination = fields.string(), fields.string()
    # Only P's field is always this long; a C type of 255 octets encodes alike, and the header's version decides.
    fixed = fields.left == _QOS.size + _MIMETYPE_FIELD + 16
    qos = fields.qos(Dialect.P if fixed else Dialect.C)
    full = len(qos.metadata_mimetype.encode()) == _MIMETYPE_FIELD - 1
    dialect = Dialect.P if fixed and not (full and version is Dialect.C) else Dialect.C
    ksid = fields.ksid()
    fields.end()
    return OpenConnect(source, destination, qos, ksid, dialect), dialect


def _parse_get_key(fields: _Fields, version: Dialect) -> tuple[Request, Dialect]:
    ksid, index, size = fields.stream(), fields.u32(), fields.u32()
    dialect = Dialect.C if fields.left or (size == 0 and version is Dialect.C) else Dialect.P
    if fields.left:
        fields.take(size)
        fields.end()
        # Clients of the C reference offer room for two octets only to say a key type and role, and take any metadata.
        # By 004's rule they would get no key at all: they are served as callers who want none.
        size = 0 if size == _KEY_TYPE_AND_ROLE else size
    return GetKey(ksid, None if index == NEXT_INDEX else index, size), dialect


def _parse_close(fields: _Fields, version: Dialect) -> tuple[Request, Dialect]:
    ksid = fields.stream()
    fields.end()
    return Close(ksid), version


def _build_reply(request: Request, dialect: Dialect, reply: Reply, key: bytes | bytearray | memoryview) -> bytearray:
    match request, reply:
        case OpenConnect(), OpenConnectReply(status, qos, ksid):
            return _frame(dialect, _OPEN_CONNECT + _REPLY, _u32(status), _qos(qos, dialect), _ksid(ksid))
        case GetKey(), GetKeyReply(status=Status.METADATA_TOO_SMALL):
            return _build_metadata_too_small(dialect, reply)
        case GetKey(_, _, size), GetKeyReply(status, index, metadata):
            if len(metadata) > size:
                raise ValueError(f"metadata of {len(metadata)} octets for a caller with room for {size}")
            before, after = _u32(status, index, len(key)), _u32(len(metadata)) + metadata
            return _frame(dialect, _GET_KEY + _REPLY, before, key, after)
        case Close(), CloseReply(status):
            return _frame(dialect, _CLOSE + _REPLY, _u32(status))
    raise TypeError(f"a {type(reply).__name__} does not answer a {type(request).__name__}")


def _build_metadata_too_small(dialect: Dialect, reply: GetKeyReply) -> bytearray:
    """P names the size where others have the index; C has no field for it but the length of the metadata itself."""
    needed = reply.needed_metadata_size
    if dialect is Dialect.P:
        return _frame(dialect, _GET_KEY + _REPLY, _u32(reply.status, needed, 0, 0))
    return _frame(dialect, _GET_KEY + _REPLY, _u32(reply.status, reply.index, 0, needed), bytes(needed))


# Client --------------------------------------------------------------------------------------------------------------


class ClientCodec(_Frames[ClientEvent]):
    """One connection as its client sees it, in one dialect. Takes short error replies as well as whole ones."""

    def __init__(self, dialect: Dialect) -> None:
        super().__init__(
            MAX_REPLY_PAYLOAD,
            {
                _OPEN_CONNECT + _REPLY: self._parse_open_connect,
                _GET_KEY + _REPLY: self._parse_get_key,
                _CLOSE + _REPLY: self._parse_close,
            },
        )
        self._dialect = dialect

    def next_event(self) -> ClientEvent | None:
        """The next reply, or None when more octets are needed. Raises ProtocolError: close the connection."""
        return self._next()

    def send(self, request: Request) -> bytes:
        """The frame of a request, in this codec's dialect. Raises ValueError when it is longer than servers take."""
        frame = self._build(request)
        if len(frame) > _HEADER.size + MAX_REQUEST_PAYLOAD:
            raise ValueError(f"a request of {len(frame)} octets, more than a server takes")
        return bytes(frame)

    def _build(self, request: Request) -> bytearray:
        match request:
            case OpenConnect(source, destination, qos, ksid):
                fields = _string(source) + _string(destination) + _qos(qos, self._dialect) + _ksid(ksid)
                return _frame(self._dialect, _OPEN_CONNECT, fields)
            case GetKey(ksid, index, size):
                fields = _ksid(ksid) + _u32(NEXT_INDEX if index is None else index, size)
                return _frame(self._dialect, _GET_KEY, fields, bytes(size) if self._dialect is Dialect.C else b"")
            case Close(ksid):
                return _frame(self._dialect, _CLOSE, _ksid(ksid))

    def _parse_open_connect(self, fields: _Fields, _version: Dialect) -> OpenConnectReply:
        status = _status(fields.u32())
        if not fields.left and status not in (Status.SUCCESS, Status.PEER_ABSENT, Status.QOS_NOT_MET):
            return OpenConnectReply(status, NO_QOS, None)
        return OpenConnectReply(status, fields.qos(self._dialect), fields.ksid())

    def _parse_get_key(self, fields: _Fields, _version: Dialect) -> ReceivedKey:
        status = _status(fields.u32())
        if status is Status.SUCCESS:
            index, key = fields.u32(), bytearray(fields.buffer())
            return ReceivedKey(GetKeyReply(status, index, bytes(fields.buffer())), key)
        needed = self._needed_metadata_size(fields) if status is Status.METADATA_TOO_SMALL else 0
        return ReceivedKey(GetKeyReply(status, 0, needed_metadata_size=needed), bytearray())

    def _needed_metadata_size(self, fields: _Fields) -> int:
        if self._dialect is Dialect.P:
            return fields.u32()
        fields.u32()
        fields.buffer()
        return len(fields.buffer())

    def _parse_close(self, fields: _Fields, _version: Dialect) -> CloseReply:
        return CloseReply(_status(fields.u32()))
