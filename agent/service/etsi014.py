"""The node's ETSI 014 server: HTTPS with mutual TLS in front of whoever owns the keys.

One object a connection, fed by the event loop: requests of a connection are answered in their order, one at a time; a call
that waits holds up no other connection, and is cancelled when its client is gone. What a client may send is bounded in size
and in time, so that a slow one costs a socket and nothing else. A reply leaves in one write, which is wiped once TLS has
taken it. Who may have what is decided by the `KeyDelivery`, from the names in the caller's certificate.
"""

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Protocol, cast

import httptools

from qswitch.protocol.etsi014 import (
    BadRequest,
    ErrorBody,
    Limits,
    Method,
    Status,
    build,
    build_container,
    check,
    disjoint_paths,
    parse_id_query,
    parse_key_ids,
    parse_key_query,
    parse_key_request,
    parse_path,
)

from ..acceptor import Acceptor
from ..config import Etsi014Config
from ..errors import NodeError, UnknownKeys, edge
from ..lkms.keys import Key
from ..model import Endpoint
from .callers import Callers
from .tls import identities, server_context

log = logging.getLogger(__name__)

HANDSHAKE_SECONDS = 10.0
REQUEST_SECONDS = 10.0  # from its first octet to its last
REPLY_SECONDS = 10.0  # until TLS has taken it
IDLE_SECONDS = 60.0
SWEEP_SECONDS = 0.5
MAX_URL, MAX_HEADERS, MAX_BODY = 4096, 16 * 1024, 128 * 1024
MAX_PIPELINED = 16

Reply = tuple[HTTPStatus, bytes | bytearray]


class KeyDelivery(Protocol):
    """What the server serves.

    `caller` is the set of names in the client's certificate. A NodeError is answered with its row in `errors.EDGES`.
    Keys are handed over, to be wiped by the server; a call that is cancelled must lose none.
    """

    @property
    def limits(self) -> Limits: ...

    async def status(self, caller: frozenset[str], slave_id: str) -> Status: ...

    async def enc_keys(
        self, caller: frozenset[str], slave_ids: Sequence[str], number: int, octets: int, disjoint_paths: int = 1
    ) -> list[tuple[str, Key]]: ...

    async def dec_keys(self, caller: frozenset[str], master_id: str, key_ids: Sequence[str]) -> list[tuple[str, Key]]: ...


class Etsi014Server:
    """Listens from `start` to `stop`, for callers whose certificate chains to the configured authority."""

    def __init__(self, config: Etsi014Config, service: KeyDelivery) -> None:
        self._config, self.service = config, service
        self._acceptor: Acceptor | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self.callers = Callers[_Connection]()

    @property
    def endpoint(self) -> Endpoint:
        """Where it listens: the configured address, with the port that was chosen when 0 was configured."""
        return self._config.listen if self._acceptor is None else self._acceptor.endpoint

    @property
    def url(self) -> str:
        where = self.endpoint
        return f"https://[{where.address}]:{where.port}" if ":" in where.address else f"https://{where.address}:{where.port}"

    async def start(self) -> None:
        """Raises ConfigurationError for unusable TLS files, OSError when the address is not to be had."""
        acceptor = Acceptor(lambda: _Connection(self), server_context(self._config.tls), HANDSHAKE_SECONDS)
        await acceptor.start(self._config.listen)
        self._acceptor = acceptor
        self._sweeper = asyncio.create_task(self._sweep(), name="014 connections")
        log.info("ETSI 014 served url=%s", self.url)

    async def stop(self) -> None:
        """Cancels the calls under way and ends all connections."""
        if self._acceptor is None:
            return
        acceptor, self._acceptor = self._acceptor, None
        await acceptor.stop()
        if self._sweeper is not None:
            self._sweeper.cancel()
        serving = [one.abort() for one in self.callers]
        await asyncio.gather(*(task for task in serving if task is not None), return_exceptions=True)

    async def _sweep(self) -> None:
        """Ends connections whose time is up."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            now = loop.time()
            for one in [one for one in self.callers if one.deadline < now]:
                log.info("connection ended for being slow or idle caller=%r", sorted(one.caller))
                try:
                    one.abort()
                except Exception:  # the others' time is up as well
                    log.exception("connection not ended caller=%r", sorted(one.caller))


@dataclass(slots=True, eq=False)
class _Request:
    verb: str
    url: bytes
    keep_alive: bool
    body: bytearray = field(default_factory=bytearray)


class _TooLarge(Exception):
    def __init__(self, status: HTTPStatus) -> None:
        self.status = status


class _Connection(asyncio.Protocol):
    """One client. Called by the loop and, while it feeds the parser, by that."""

    def __init__(self, server: Etsi014Server) -> None:
        self._server, self._loop = server, asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._requests: deque[_Request] = deque()
        self._task: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._url, self._headers, self._expects = b"", 0, False
        self._incoming: _Request | None = None
        self.caller: frozenset[str] = frozenset()
        self.deadline = float("inf")

    # The loop ------------------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.caller = identities(transport.get_extra_info("peercert"))
        if not self._server.callers.admit(self):
            self._transport.abort()
            return
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._transport.set_write_buffer_limits(high=1, low=0)  # writable: TLS has taken all
        self.deadline = self._loop.time() + REQUEST_SECONDS

    def connection_lost(self, _error: Exception | None) -> None:
        self._server.callers.forget(self)
        self._writable.set()
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def abort(self) -> asyncio.Task[None] | None:
        """Ends the connection; returns the task that serves it, which is being cancelled."""
        self._transport.abort()
        self._server.callers.forget(self)
        if self._task is not None:
            self._task.cancel()
        return self._task

    def data_received(self, data: bytes) -> None:
        if self._incoming is None and not self._requests and self._task is None:
            self.deadline = self._loop.time() + REQUEST_SECONDS
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(HTTPStatus.BAD_REQUEST, "this server speaks HTTP/1.1 only")
        except httptools.HttpParserError as error:
            cause = error.__context__
            if isinstance(cause, _TooLarge):
                self._refuse(cause.status, f"the request is too large: {cause.status.phrase.lower()}")
            else:
                self._refuse(HTTPStatus.BAD_REQUEST, "the request is no HTTP/1.1")

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        """Of what is no request, or too large a one, nothing more is read."""
        log.warning("connection closed caller=%r reason=%s", sorted(self.caller), message)
        if self._task is None and not self._transport.is_closing():
            self._transport.write(_frame(status, build(ErrorBody(message)), keep_alive=False))
        self._transport.close()

    # The parser ----------------------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._url, self._headers, self._expects = b"", 0, False

    def on_url(self, url: bytes) -> None:
        self._url += url
        if len(self._url) > MAX_URL:
            raise _TooLarge(HTTPStatus.REQUEST_URI_TOO_LONG)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers += len(name) + len(value) + 4
        if self._headers > MAX_HEADERS:
            raise _TooLarge(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        self._expects |= name.lower() == b"expect" and value.lower() == b"100-continue"

    def on_headers_complete(self) -> None:
        verb = self._parser.get_method().decode()
        # A reply to HEAD has no body; ours has, and the connection ends with it.
        self._incoming = _Request(verb, self._url, self._parser.should_keep_alive() and verb != "HEAD")
        if self._expects and self._task is None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        assert self._incoming is not None
        if len(self._incoming.body) + len(body) > MAX_BODY:
            raise _TooLarge(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        self._incoming.body += body

    def on_message_complete(self) -> None:
        assert self._incoming is not None
        if len(self._requests) >= MAX_PIPELINED:
            raise _TooLarge(HTTPStatus.TOO_MANY_REQUESTS)
        self._requests.append(self._incoming)
        self._incoming = None
        if self._task is None:
            self._task = self._loop.create_task(self._serve())

    # Answers -------------------------------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        try:
            while self._requests and not self._transport.is_closing():
                self.deadline = float("inf")
                request = self._requests.popleft()
                status, body = await self._answer(request)
                await self._send(status, body, request.keep_alive)
                if not request.keep_alive:
                    self._transport.close()
        except asyncio.CancelledError:
            pass  # the client is gone, or `stop` was called; nobody awaits the task
        except Exception:
            log.exception("connection failed caller=%r", sorted(self.caller))
            self._transport.abort()
        finally:
            self._task = None
            self.deadline = self._loop.time() + (REQUEST_SECONDS if self._incoming else IDLE_SECONDS)

    async def _send(self, status: HTTPStatus, body: bytes | bytearray, keep_alive: bool) -> None:
        frame = _frame(status, body, keep_alive)
        if isinstance(body, bytearray):
            body[:] = bytes(len(body))
        self.deadline = self._loop.time() + REPLY_SECONDS
        try:
            if not self._transport.is_closing():
                self._transport.write(frame)
                await self._writable.wait()
        except BaseException:
            self._transport.abort()  # first, lest zeros are sent in the place of key
            raise
        finally:
            frame[:] = bytes(len(frame))

    async def _answer(self, request: _Request) -> Reply:
        try:
            return await self._call(request)
        except BadRequest as error:
            return HTTPStatus.BAD_REQUEST, build(ErrorBody(str(error), error.details))
        except NodeError as error:
            log.info("call refused caller=%r reason=%r", sorted(self.caller), str(error))
            unknown = error.key_ids if isinstance(error, UnknownKeys) else ()
            details = tuple({"key_ID": one, "problem": "not found"} for one in unknown)
            return HTTPStatus(edge(error).http), build(ErrorBody(str(error), details))
        except Exception:
            log.exception("call failed caller=%r", sorted(self.caller))
            return HTTPStatus.SERVICE_UNAVAILABLE, build(ErrorBody("the node failed; its log says more"))

    async def _call(self, request: _Request) -> Reply:
        path, _, query = request.url.decode("ascii", "replace").partition("?")
        found = parse_path(path)
        if found is None:
            return HTTPStatus.NOT_FOUND, build(ErrorBody("there are /api/v1/keys/{SAE_ID}/status, enc_keys and dec_keys"))
        sae_id, method = found
        posted = request.verb == "POST"
        if request.verb != "GET" and not (posted and method is not Method.STATUS):
            allowed = "GET" if method is Method.STATUS else "GET and POST"
            return HTTPStatus.METHOD_NOT_ALLOWED, build(ErrorBody(f"{method} is asked for by {allowed}"))
        service = self._server.service
        match method:
            case Method.STATUS:
                return HTTPStatus.OK, build(await service.status(self.caller, sae_id))
            case Method.ENC_KEYS:
                asked = parse_key_request(bytes(request.body)) if posted else parse_key_query(query)
                number, bits = check(asked, service.limits)
                slaves = [sae_id, *(asked.additional_slave_SAE_IDs or ())]
                return _container(await service.enc_keys(self.caller, slaves, number, bits // 8, disjoint_paths(asked)))
            case Method.DEC_KEYS:
                limit = service.limits.number
                ids = parse_key_ids(bytes(request.body), limit) if posted else parse_id_query(query)
                return _container(await service.dec_keys(self.caller, sae_id, ids))


def _container(keys: list[tuple[str, Key]]) -> Reply:
    try:
        return HTTPStatus.OK, build_container((name, key.view()) for name, key in keys)
    finally:
        for _, key in keys:
            key.wipe()


def _frame(status: HTTPStatus, body: bytes | bytearray, keep_alive: bool) -> bytearray:
    """The whole reply, in one piece, so that it leaves in one."""
    allow = b"Allow: GET, POST\r\n" if status is HTTPStatus.METHOD_NOT_ALLOWED else b""
    head = (
        b"HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nCache-Control: no-store\r\nContent-Length: %d\r\n%s%s\r\n"
        % (
            status,
            status.phrase.encode(),
            len(body),
            allow,
            b"" if keep_alive else b"Connection: close\r\n",
        )
    )
    frame = bytearray(head)
    frame += body
    return frame
