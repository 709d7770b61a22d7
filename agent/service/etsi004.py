"""The node's ETSI 004 server: mutual TLS in front of whoever owns the key streams.

Requests of one connection are answered in their order; a call that waits holds up no other connection. A caller who
disconnects cancels the call that waits for it. Who may do what is decided by the `KeyService`, from the names in the
caller's certificate. Key is copied into the reply's frame last and wiped there as soon as TLS has taken it.
"""

import asyncio
import logging
import socket
from dataclasses import replace
from typing import Protocol, cast

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

from ..acceptor import Acceptor
from ..config import ServiceConfig
from ..errors import NodeError, edge
from ..lkms.keys import Key
from ..model import Endpoint
from .callers import Callers
from .tls import identities, server_context

log = logging.getLogger(__name__)

HANDSHAKE_SECONDS = 10.0
MAX_BUFFERED = 128 * 1024  # octets of requests sent ahead of their turn
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
        self._config, self.service = config, service
        self._acceptor: Acceptor | None = None
        self.callers = Callers[_Connection]()

    @property
    def endpoint(self) -> Endpoint:
        """Where it listens: the configured address, with the port that was chosen when 0 was configured."""
        return self._config.listen if self._acceptor is None else self._acceptor.endpoint

    async def start(self) -> None:
        """Raises ConfigurationError for unusable TLS files, OSError when the address is not to be had."""
        acceptor = Acceptor(lambda: _Connection(self), server_context(self._config.tls), HANDSHAKE_SECONDS)
        await acceptor.start(self._config.listen)
        self._acceptor = acceptor
        log.info("ETSI 004 served address=%s port=%d", self.endpoint.address, self.endpoint.port)

    async def stop(self) -> None:
        """Cancels the calls under way and ends all connections."""
        if self._acceptor is None:
            return
        acceptor, self._acceptor = self._acceptor, None
        await acceptor.stop()
        calls = [one.end() for one in self.callers]
        await asyncio.gather(*(call for call in calls if call is not None), return_exceptions=True)


class _Connection(asyncio.Protocol):
    """One client: reads ahead, so that its end is noticed while a call waits, and answers one request at a time.

    A call runs at once, where its request is read, and becomes a task of the loop only when it has to wait.
    """

    def __init__(self, server: Etsi004Server) -> None:
        self._server, self._loop = server, asyncio.get_running_loop()
        self._codec = ServerCodec()
        self._call: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._idle: asyncio.TimerHandle | None = None
        self.caller: frozenset[str] = frozenset()

    # The loop ------------------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.caller = identities(transport.get_extra_info("peercert"))
        if not self._server.callers.admit(self):
            self._transport.abort()
            return
        _tune(self._transport)
        self._idle = self._loop.call_later(IDLE_SECONDS, self.end)

    def connection_lost(self, _error: Exception | None) -> None:
        self.end()

    def eof_received(self) -> None:
        try:
            self._codec.receive_end()
        except ProtocolError as error:
            self._broken(error)
        else:
            self.end()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        self._codec.receive(data)
        if self._codec.buffered > MAX_BUFFERED:
            self._broken(ProtocolError(f"more than {MAX_BUFFERED} octets of requests before their turn"))
        elif self._call is None and not self._transport.is_closing():
            call = asyncio.Task(self._serve(), loop=self._loop, eager_start=True)
            self._call = None if call.done() else call

    def end(self) -> asyncio.Task[None] | None:
        """Closes the connection; returns the call under way, which is being cancelled."""
        self._transport.abort()
        self._server.callers.forget(self)
        self._writable.set()
        if self._idle is not None:
            self._idle.cancel()
        if self._call is not None:
            self._call.cancel()
        return self._call

    def _broken(self, error: ProtocolError) -> None:
        log.warning("connection closed caller=%r reason=%s", sorted(self.caller), error)
        self.end()

    # Calls ---------------------------------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        """Answers all requests that are there."""
        try:
            while (request := self._codec.next_event()) is not None:
                await self._answer(request)
                self._rest()
                if self._codec.buffered:  # of one who sends ahead, others are not kept waiting
                    await asyncio.sleep(0)
        except ProtocolError as error:
            self._broken(error)
        except (asyncio.CancelledError, OSError):  # gone, told to stop, or broken on the way
            log.debug("connection ended caller=%r", sorted(self.caller))
            self._transport.abort()
        except Exception:
            log.exception("connection failed caller=%r", sorted(self.caller))
            self._transport.abort()
        finally:
            self._call = None

    def _rest(self) -> None:
        """A client is let go that sends no whole request for too long, unless it is one to keep its connection."""
        if self._idle is not None:
            self._idle.cancel()
        keeps = self._codec.dialect is Dialect.P
        self._idle = None if keeps else self._loop.call_later(IDLE_SECONDS, self.end)

    async def _answer(self, request: Request) -> None:
        if self._idle is not None:
            self._idle.cancel()
        reply, key = await self._ask(request)
        if key is None:
            frame = self._codec.send(reply)
        else:
            with key, key.view() as material:
                frame = self._codec.send(reply, material)
        await self._send(frame)

    async def _ask(self, request: Request) -> tuple[Reply, Key | None]:
        try:
            match request:
                case OpenConnect():
                    return await self._open_connect(request), None
                case GetKey():
                    return await self._server.service.get_key(self.caller, request)
                case Close():
                    return await self._server.service.close(self.caller, request), None
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
        reply = await self._server.service.open_connect(self.caller, request)
        if reply.status is Status.PEER_ABSENT and request.dialect is Dialect.P:
            # P clients take this success for a failure and forget the KSID.
            return OpenConnectReply(Status.SUCCESS, reply.qos, reply.ksid)
        return reply

    async def _send(self, frame: bytearray) -> None:
        """Returns once TLS has taken the frame (no write buffer, see `_tune`), which is then wiped."""
        try:
            if self._transport.is_closing():
                raise ConnectionResetError
            self._transport.write(frame)
            if not self._writable.is_set():
                await self._writable.wait()
        except BaseException:
            self._transport.abort()  # first, lest zeros are sent in the place of key
            raise
        finally:
            frame[:] = bytes(len(frame))


def _refusal(request: Request, status: Status) -> Reply:
    if status is Status.INSUFFICIENT_KEY and not isinstance(request, GetKey):
        status = Status.NO_CONNECTION  # table 2 has 2 of GET_KEY alone
    match request:
        case OpenConnect():
            return OpenConnectReply(status, request.qos, request.ksid)
        case GetKey():
            return GetKeyReply(status, request.index or 0)
        case Close():
            return CloseReply(status)


def _tune(transport: asyncio.Transport) -> None:
    """Replies leave at once, dead peers are noticed, and writing pauses while anything of ours is left in a buffer."""
    connection = transport.get_extra_info("socket")
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # Clients of the C reference leave Nagle on: their request would wait 40 ms for the handshake's end to be acknowledged.
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
    transport.set_write_buffer_limits(high=1, low=0)  # with high=0 asyncio's TLS would pause for ever
