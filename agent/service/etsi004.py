"""The node's ETSI 004 server: mutual TLS in front of whoever owns the key streams.

Requests of one connection are answered in their order; a call that waits holds up no other connection. A caller who
disconnects cancels the call that waits for it. Who may do what is decided by the `KeyService`, from the names in the
caller's certificate. Key is copied into the reply's frame last and wiped there as soon as TLS has taken it.
"""

import asyncio
import logging
import socket
from collections import Counter
from dataclasses import replace
from typing import Protocol

from qswitch.protocol.etsi004 import (
    MAX_KEY_CHUNK_SIZE,
    Close,
    CloseReply,
    Dialect,
    GetKey,
    GetKeyReply,
    OpenConnect,
    OpenConnectReply,
    ProtocolError,
    Reply,
    Request,
    ServerCodec,
    Status,
)

from ..config import ServiceConfig
from ..errors import NodeError, edge
from ..lkms.keys import Key
from ..model import Endpoint
from .tls import identities, server_context

log = logging.getLogger(__name__)

HANDSHAKE_SECONDS = 10.0
MAX_CONNECTIONS = 4096
MAX_CONNECTIONS_OF_CALLER = 256
MAX_BUFFERED = 128 * 1024  # octets of requests sent ahead of their turn
READ_SIZE = 64 * 1024
# Clients of the C reference leave the connection of each call open until they exit; P clients keep one for all calls.
IDLE_SECONDS = 60.0


class KeyService(Protocol):
    """What the server serves.

    `caller` is the set of names in the client's certificate: its URI alternative names and its common name. A NodeError
    is answered with its row in `errors.EDGES`. Calls take as long as the 004 Timeout allows; one that is cancelled (its
    caller is gone) must lose no key.
    """

    async def open_connect(self, caller: frozenset[str], request: OpenConnect) -> OpenConnectReply: ...

    async def get_key(self, caller: frozenset[str], request: GetKey) -> tuple[GetKeyReply, Key | None]:
        """The key is handed over, and only with Status.SUCCESS."""
        ...

    async def close(self, caller: frozenset[str], request: Close) -> CloseReply: ...


class Etsi004Server:
    """Listens from `start` to `stop`, for callers whose certificate chains to the configured authority."""

    def __init__(self, config: ServiceConfig, service: KeyService) -> None:
        self._config, self._service = config, service
        self._server: asyncio.Server | None = None
        self._connections = set[asyncio.Task[None]]()
        self._callers = Counter[frozenset[str]]()

    @property
    def endpoint(self) -> Endpoint:
        """Where it listens: the configured address, with the port that was chosen when 0 was configured."""
        if self._server is None:
            return self._config.listen
        return Endpoint(self._config.listen.address, self._server.sockets[0].getsockname()[1])

    async def start(self) -> None:
        """Raises ConfigurationError for unusable TLS files, OSError when the address is not to be had."""
        listen = self._config.listen
        self._server = await asyncio.start_server(
            self._connected,
            listen.address,
            listen.port,
            ssl=server_context(self._config.tls),
            ssl_handshake_timeout=HANDSHAKE_SECONDS,
            ssl_shutdown_timeout=1.0,
        )
        log.info("ETSI 004 served address=%s port=%d", self.endpoint.address, self.endpoint.port)

    async def stop(self) -> None:
        """Cancels the calls under way and returns when all connections are closed."""
        if self._server is None:
            return
        self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        caller = identities(writer.get_extra_info("peercert"))
        if len(self._connections) >= MAX_CONNECTIONS or self._callers[caller] >= MAX_CONNECTIONS_OF_CALLER:
            log.warning("connection refused caller=%r open=%d", sorted(caller), self._callers[caller])
            writer.transport.abort()
            return
        self._connections.add(task)
        self._callers[caller] += 1
        try:
            await _Connection(reader, writer, self._service).run()
        except asyncio.CancelledError:
            pass  # by `stop`; the task is the stream's own, and nobody awaits it
        finally:
            self._connections.discard(task)
            self._callers[caller] -= 1
            if not self._callers[caller]:
                del self._callers[caller]


class _Connection:
    """One client: reads ahead, so that its end is noticed while a call waits, and answers one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, service: KeyService) -> None:
        self._reader, self._writer, self._service = reader, writer, service
        self._codec = ServerCodec()
        self._arrived = asyncio.Event()
        self._caller = identities(writer.get_extra_info("peercert"))
        self._idle_seconds: float | None = IDLE_SECONDS
        _tune(writer)

    async def run(self) -> None:
        """Returns, with the connection closed, when the client is gone or has broken the protocol."""
        tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._serve())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                self._note(result)
            self._writer.transport.abort()

    def _note(self, result: BaseException | None) -> None:
        match result:
            case ProtocolError():
                log.warning("connection closed caller=%r reason=%s", sorted(self._caller), result)
            case None | asyncio.CancelledError() | OSError():  # gone, told to stop, or broken on the way
                log.debug("connection ended caller=%r", sorted(self._caller))
            case _:
                log.error("connection failed caller=%r", sorted(self._caller), exc_info=result)

    async def _read(self) -> None:
        while data := await self._reader.read(READ_SIZE):
            self._codec.receive(data)
            if self._codec.buffered > MAX_BUFFERED:
                raise ProtocolError(f"more than {MAX_BUFFERED} octets of requests before their turn")
            self._arrived.set()
        self._codec.receive_end()

    async def _serve(self) -> None:
        while (request := await self._next_request()) is not None:
            await self._answer(request)
            self._idle_seconds = None if self._codec.dialect is Dialect.P else IDLE_SECONDS

    async def _next_request(self) -> Request | None:
        """None when no whole request came for too long."""
        try:
            async with asyncio.timeout(self._idle_seconds):
                while (request := self._codec.next_event()) is None:
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            return None
        return request

    async def _answer(self, request: Request) -> None:
        reply, key = await self._call(request)
        if key is None:
            frame = self._codec.send(reply)
        else:
            with key, key.view() as material:
                frame = self._codec.send(reply, material)
        await self._send(frame)

    async def _call(self, request: Request) -> tuple[Reply, Key | None]:
        try:
            match request:
                case OpenConnect():
                    return await self._open_connect(request), None
                case GetKey():
                    return await self._service.get_key(self._caller, request)
                case Close():
                    return await self._service.close(self._caller, request), None
        except NodeError as error:
            log.info("call refused call=%s reason=%r", type(request).__name__, str(error))
            return _refusal(request, Status(edge(error).etsi004)), None
        except Exception:
            log.exception("call failed call=%s", type(request).__name__)
            return _refusal(request, Status.NO_CONNECTION), None

    async def _open_connect(self, request: OpenConnect) -> OpenConnectReply:
        if request.qos.key_chunk_size > MAX_KEY_CHUNK_SIZE:
            return OpenConnectReply(
                Status.QOS_NOT_MET, replace(request.qos, key_chunk_size=MAX_KEY_CHUNK_SIZE), request.ksid
            )
        reply = await self._service.open_connect(self._caller, request)
        if reply.status is Status.PEER_ABSENT and request.dialect is Dialect.P:
            # P clients take this success for a failure and forget the KSID.
            return OpenConnectReply(Status.SUCCESS, reply.qos, reply.ksid)
        return reply

    async def _send(self, frame: bytearray) -> None:
        """Returns once TLS has taken the frame (no write buffer, see `_tune`), which is then wiped."""
        try:
            if self._writer.is_closing():
                raise ConnectionResetError
            self._writer.write(frame)
            await self._writer.drain()
        except BaseException:
            self._writer.transport.abort()  # first, lest zeros are sent in the place of key
            raise
        finally:
            frame[:] = bytes(len(frame))


def _refusal(request: Request, status: Status) -> Reply:
    match request:
        case OpenConnect():
            return OpenConnectReply(status, request.qos, request.ksid)
        case GetKey():
            return GetKeyReply(status, request.index or 0)
        case Close():
            return CloseReply(status)


def _tune(writer: asyncio.StreamWriter) -> None:
    """Replies leave at once, dead peers are noticed, and `drain` waits until nothing of ours is left in a buffer."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # Clients of the C reference leave Nagle on: their request would wait 40 ms for the handshake's end to be acknowledged.
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
    writer.transport.set_write_buffer_limits(high=1, low=0)  # with high=0 asyncio's TLS would pause for ever
