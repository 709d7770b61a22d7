"""An ETSI 004 client for asyncio: the three calls, with mutual TLS.

    async with Client(host, port, certificate=…, private_key=…, ca=…) as client:
        stream = await client.open_connect("qkd://…/a", "qkd://…/b", Qos(key_chunk_size=32))
        chunk = await client.get_key(stream.ksid)

Calls of one client are made one after the other; use several clients for calls that overlap. Dialect P, the default, keeps
one connection for all calls; dialect C makes one for each.
"""

import asyncio
import json
import socket
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from qswitch.protocol.etsi004 import (
    MAX_METADATA_SIZE,
    ClientCodec,
    ClientEvent,
    Close,
    CloseReply,
    Dialect,
    GetKey,
    OpenConnect,
    OpenConnectReply,
    ProtocolError,
    Qos,
    ReceivedKey,
    Request,
    Status,
)

from .errors import ClientError, ConnectionLost, CredentialsError, StatusError, Unreachable

CONNECT_SECONDS = 10.0
DEFAULT_TIMEOUT_MS = 30_000  # how long to wait for a node when the QoS leaves its Timeout unspecified
GRACE_SECONDS = 5.0  # beyond the 004 Timeout: the node is to answer first


@dataclass(slots=True)
class KeyChunk:
    """One chunk of a key stream. The caller wipes it once used."""

    index: int
    key: bytearray = field(repr=False)
    metadata: dict[str, Any] = field(default_factory=dict)  # table 3 of 004: `age` in ms, `hops`

    def wipe(self) -> None:
        """Overwrites the key; its length stays."""
        self.key[:] = bytes(len(self.key))


class Client:
    """Calls of one application to the node it lives at. All calls raise ClientError."""

    def __init__(
        self, host: str, port: int, *, certificate: Path, private_key: Path, ca: Path, dialect: Dialect = Dialect.P
    ) -> None:
        """Reads the PEM files; raises CredentialsError naming the one that cannot be used."""
        self._host, self._port, self._dialect = host, port, dialect
        self._context = tls_context(certificate, private_key, ca)
        self._lock = asyncio.Lock()
        self._connection: _Connection | None = None
        self._timeouts: dict[str, int] = {}  # ms, of the streams opened here: they hold for GET_KEY too

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.disconnect()

    async def open_connect(self, source: str, destination: str, qos: Qos, ksid: str | None = None) -> OpenConnectReply:
        """Opens a new key stream, or joins the one named. Returns with SUCCESS or PEER_ABSENT: both are a stream.

        The QoS returned is the one that holds. Raises StatusError, with the node's offer when the QoS cannot be met.
        """
        reply = await self._call(OpenConnect(source, destination, qos, ksid, self._dialect), qos.timeout)
        assert isinstance(reply, OpenConnectReply)
        if reply.status not in (Status.SUCCESS, Status.PEER_ABSENT):
            offered = reply.qos if reply.status is Status.QOS_NOT_MET else None
            raise StatusError("OPEN_CONNECT", reply.status, offered)
        if reply.ksid is None:
            raise ConnectionLost("OPEN_CONNECT", "the node answered success without a KSID")
        self._timeouts[reply.ksid] = max(qos.timeout, reply.qos.timeout)
        return reply

    async def get_key(self, ksid: str, index: int | None = None, metadata_size: int = MAX_METADATA_SIZE) -> KeyChunk:
        """The chunk at `index` (the next one when None, which is an extension of our nodes), waiting for it if need be."""
        received = await self._call(GetKey(ksid, index, metadata_size), self._timeouts.get(ksid, 0))
        assert isinstance(received, ReceivedKey)
        reply = received.reply
        if reply.status is not Status.SUCCESS:
            raise StatusError("GET_KEY", reply.status, needed_metadata_size=reply.needed_metadata_size)
        return KeyChunk(reply.index, received.key, _metadata(reply.metadata))

    async def close(self, ksid: str) -> None:
        """Ends this end of the key stream; the peer can still read what was reserved."""
        reply = await self._call(Close(ksid), 0)
        assert isinstance(reply, CloseReply)
        self._timeouts.pop(ksid, None)
        if reply.status is not Status.SUCCESS:
            raise StatusError("CLOSE", reply.status)

    def disconnect(self) -> None:
        """Drops the connection; the next call makes a new one. Key streams are not closed by it."""
        if self._connection is not None:
            self._connection.drop()
            self._connection = None

    async def _call(self, request: Request, timeout_ms: int) -> ClientEvent:
        name = _CALLS[type(request)]
        seconds = (timeout_ms or DEFAULT_TIMEOUT_MS) / 1000 + GRACE_SECONDS
        async with self._lock:
            connection = await self._connected()
            answered = False
            try:
                async with asyncio.timeout(seconds):
                    reply = await connection.exchange(request)
                answered = True
                return reply
            except TimeoutError as error:
                raise ConnectionLost(name, f"the node did not answer within {seconds:g} s") from error
            except (OSError, ProtocolError, asyncio.IncompleteReadError) as error:
                raise self._lost(name, error, connection.fresh) from error
            finally:
                # After a call that was given up, the connection would answer the next one with this one's reply.
                if not answered or self._dialect is Dialect.C:
                    self.disconnect()

    async def _connected(self) -> "_Connection":
        if self._connection is not None and not self._connection.ended:
            return self._connection
        self.disconnect()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                reader, writer = await asyncio.open_connection(
                    self._host, self._port, ssl=self._context, ssl_shutdown_timeout=1.0
                )
        except (OSError, TimeoutError) as error:
            raise self._unreachable(error) from error
        self._connection = _Connection(reader, writer, ClientCodec(self._dialect))
        return self._connection

    def _unreachable(self, error: OSError) -> Unreachable:
        match error:
            case ssl.SSLCertVerificationError():
                problem = f"its certificate is not trusted ({error.verify_message}); check the CA file and the host name"
            case ssl.SSLError():
                problem = f"TLS failed ({error.reason}); is this the node's ETSI 004 port?"
            case ConnectionRefusedError():
                problem = "nothing listens there; start the node, or check host and port"
            case socket.gaierror():
                problem = "the host name is unknown"
            case TimeoutError():
                problem = f"no connection within {CONNECT_SECONDS:g} s; check host, port and firewalls"
            case _:
                problem = error.strerror or str(error)
        return Unreachable(self._host, self._port, problem)

    def _lost(self, call: str, error: Exception, fresh: bool) -> ClientError:
        """In TLS 1.3 a server refuses a client's certificate only after the client's handshake is done."""
        if isinstance(error, ssl.SSLError) and "ALERT" in (error.reason or ""):
            problem = f"refused this application's certificate ({error.reason}); use one issued by the network's authority"
            return Unreachable(self._host, self._port, problem)
        if isinstance(error, ProtocolError):
            return ConnectionLost(call, f"the node's answer cannot be read ({error}); try the other dialect")
        problem = "the node closed the connection without an answer"
        if fresh:  # many servers give no reason when they refuse a certificate
            problem += "; if it does so again, it may not accept this application's certificate: use one of its authority"
        return ConnectionLost(call, problem)


_CALLS: dict[type[Request], str] = {OpenConnect: "OPEN_CONNECT", GetKey: "GET_KEY", Close: "CLOSE"}
_REPLIES: dict[type[Request], type[ClientEvent]] = {OpenConnect: OpenConnectReply, GetKey: ReceivedKey, Close: CloseReply}


class _Connection:
    """One TLS connection: a request out, its reply in."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, codec: ClientCodec) -> None:
        self._reader, self._writer, self._codec = reader, writer, codec
        self.fresh = True  # nothing was answered on it yet

    @property
    def ended(self) -> bool:
        return self._reader.at_eof() or self._reader.exception() is not None or self._writer.is_closing()

    async def exchange(self, request: Request) -> ClientEvent:
        if self._writer.is_closing():
            raise ConnectionResetError
        self._writer.write(self._codec.send(request))
        await self._writer.drain()
        while (event := self._codec.next_event()) is None:
            data = await self._reader.read(64 * 1024)
            if not data:
                raise ConnectionResetError
            self._codec.receive(data)
        if not isinstance(event, _REPLIES[type(request)]):
            raise ProtocolError("the reply to another call")
        self.fresh = False
        return event

    def drop(self) -> None:
        self._writer.close()


def _metadata(octets: bytes) -> dict[str, Any]:
    """What a node says of a chunk; nothing when it says it in another way than 004's JSON object."""
    try:
        value = json.loads(octets.rstrip(b"\0")) if octets else {}
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def tls_context(certificate: Path, private_key: Path, ca: Path) -> ssl.SSLContext:
    """For calls to a node. Raises CredentialsError naming the file that cannot be used."""
    for path in (certificate, private_key, ca):
        if not path.is_file():
            raise CredentialsError(path, "the file is not there")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(ca)
    except (ssl.SSLError, OSError) as error:
        raise CredentialsError(ca, f"is no PEM certificate of an authority that can be read ({error})") from error
    try:
        context.load_cert_chain(certificate, private_key)
    except (ssl.SSLError, OSError) as error:
        raise CredentialsError(certificate, f"does not make an identity with {private_key} ({error})") from error
    return context
