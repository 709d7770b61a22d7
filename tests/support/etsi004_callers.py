"""Callers of ETSI 004 with the habits and the defects of the clients in use; they share no code with the product.

`CallerC` is what the C reference does: a connection for each call, left open; a reply is taken with two reads, one for its
header and one for its payload, so that a payload in two TLS records is lost; every field of every reply is parsed, whatever
its status. `CallerP` is what the QUBIP code does: one connection for all calls, a metadata type of always 256 octets, only
the status of a failure read, no answer after 5 s, and status 1 taken for a failure.
"""

import socket
import ssl
import struct
import uuid
from dataclasses import astuple, dataclass
from pathlib import Path

OPEN_CONNECT, GET_KEY, CLOSE = 2, 4, 8
NEXT = 0xFFFF_FFFF
"""The index that this project takes for "the next one"; 004 has none."""
SECONDS = 20.0


class Garbled(Exception):
    """The client in use would have read garbage, or crashed."""


@dataclass(frozen=True, slots=True)
class Qos:
    """Table 2; all 0 is all unspecified."""

    chunk: int = 32
    max_bps: int = 0
    min_bps: int = 0
    jitter: int = 0
    priority: int = 0
    timeout: int = 10_000
    ttl: int = 0
    mimetype: str = "application/json"

    def octets(self, fixed: bool) -> bytes:
        name = self.mimetype.encode() + b"\0"
        return struct.pack("!7I", *astuple(self)[:7]) + (name.ljust(256, b"\0") if fixed else name)


UNSPECIFIED = Qos(chunk=0, timeout=0)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the client makes of a reply; what it does not read is as here."""

    status: int
    ksid: str | None = None
    qos: Qos | None = None
    index: int = 0
    key: bytes = b""
    metadata: bytes = b""
    needed: int = 0


@dataclass(frozen=True, slots=True)
class Identity:
    """Who calls, and where."""

    uri: str
    certificate: Path
    key: Path
    ca: Path
    port: int

    def connect(self, names_checked: bool) -> ssl.SSLSocket:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = names_checked
        context.load_verify_locations(self.ca)
        context.load_cert_chain(self.certificate, self.key)
        raw = socket.create_connection(("127.0.0.1", self.port), timeout=SECONDS)
        return context.wrap_socket(raw, server_hostname="127.0.0.1" if names_checked else None)


def frame(version: tuple[int, int, int], service: int, payload: bytes) -> bytes:
    return struct.pack("!4BI", *version, service, len(payload)) + payload


def ksid_octets(ksid: str | None) -> bytes:
    return uuid.UUID(ksid).bytes if ksid else bytes(16)


def ksid_text(octets: bytes) -> str | None:
    return str(uuid.UUID(bytes=octets)) if any(octets) else None


class Fields:
    def __init__(self, octets: bytes) -> None:
        self.rest = octets

    def take(self, length: int) -> bytes:
        if length > len(self.rest):
            raise Garbled(f"{len(self.rest)} octets where {length} are read")
        taken, self.rest = self.rest[:length], self.rest[length:]
        return taken

    def u32(self) -> int:
        return int.from_bytes(self.take(4))

    def string(self) -> str:
        return self.take(self.rest.index(0) + 1)[:-1].decode()

    def end(self) -> None:
        if self.rest:
            raise Garbled(f"{len(self.rest)} octets more than there are fields")


class CallerC:
    name, absent = "C", 1
    version = (2, 1, 1)

    def __init__(self, who: Identity) -> None:
        self.who, self._left = who, list[ssl.SSLSocket]()

    def open(self, source: str, destination: str, qos: Qos = UNSPECIFIED, ksid: str | None = None) -> Answer:
        uris = source.encode() + b"\0" + destination.encode() + b"\0"
        reply = self._call(OPEN_CONNECT, uris + qos.octets(False) + ksid_octets(ksid))
        status, numbers = reply.u32(), struct.unpack("!7I", reply.take(28))
        offered = Qos(*numbers, reply.string())
        answer = Answer(status, ksid_text(reply.take(16)), offered)
        reply.end()
        return answer

    def get(self, ksid: str, index: int = NEXT, room: int = 0) -> Answer:
        reply = self._call(GET_KEY, ksid_octets(ksid) + struct.pack("!2I", index, room) + bytes(room))
        status, at, key = reply.u32(), reply.u32(), reply.take(reply.u32())
        metadata = reply.take(reply.u32())
        reply.end()
        return Answer(status, None, None, at, key, metadata, len(metadata) if status == 8 else 0)

    def close(self, ksid: str) -> int:
        reply = self._call(CLOSE, ksid_octets(ksid))
        status = reply.u32()
        reply.end()
        return status

    def _call(self, service: int, payload: bytes) -> Fields:
        connection = self.who.connect(names_checked=False)
        self._left.append(connection)
        connection.sendall(frame(self.version, service, payload))
        header = connection.recv(8)  # one read takes octets of one TLS record only
        if len(header) != 8 or header[3] != service + 1:
            raise Garbled(f"a header of {len(header)} octets")
        length = int.from_bytes(header[4:])
        got = connection.recv(length)
        if len(got) != length:
            raise Garbled(f"a payload of {length} octets of which {len(got)} are in its record")
        return Fields(got)

    def leave(self) -> None:
        """The process ends."""
        while self._left:
            self._left.pop().close()


class CallerP:
    name, absent = "P", 0
    version = (1, 0, 1)

    def __init__(self, who: Identity) -> None:
        self.who, self._connection = who, None

    _connection: ssl.SSLSocket | None

    def open(self, source: str, destination: str, qos: Qos = UNSPECIFIED, ksid: str | None = None) -> Answer:
        uris = source.encode() + b"\0" + destination.encode() + b"\0"
        reply = self._call(OPEN_CONNECT, uris + qos.octets(True) + ksid_octets(ksid))
        status = reply.u32()
        if status == 1:
            raise Garbled("status 1, which this client takes for a failure")
        if status not in (0, 7):
            return Answer(status)
        numbers, name = struct.unpack("!7I", reply.take(28)), reply.take(256)
        answer = Answer(status, ksid_text(reply.take(16)), Qos(*numbers, name.rstrip(b"\0").decode()))
        reply.end()
        return answer

    def get(self, ksid: str, index: int = NEXT, room: int = 0) -> Answer:
        reply = self._call(GET_KEY, ksid_octets(ksid) + struct.pack("!2I", index, room))
        status = reply.u32()
        if status:
            return Answer(status, needed=reply.u32() if status == 8 else 0)
        at, key = reply.u32(), reply.take(reply.u32())
        metadata = reply.take(reply.u32())
        reply.end()
        return Answer(status, None, None, at, key, metadata)

    def close(self, ksid: str) -> int:
        return self._call(CLOSE, ksid_octets(ksid)).u32()

    def _call(self, service: int, payload: bytes) -> Fields:
        if self._connection is None:
            self._connection = self.who.connect(names_checked=True)
        self._connection.sendall(frame(self.version, service, payload))
        header = self._read(8)
        if header[3] != service + 1:
            raise Garbled(f"service {header[3]}")
        return Fields(self._read(int.from_bytes(header[4:])))

    def _read(self, length: int) -> bytes:
        assert self._connection is not None
        got = b""
        while len(got) < length:
            if not (more := self._connection.recv(length - len(got))):
                raise Garbled("the connection ended")
            got += more
        return got

    def leave(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


Caller = CallerC | CallerP
CALLERS: dict[str, type[CallerC] | type[CallerP]] = {"C": CallerC, "P": CallerP}
