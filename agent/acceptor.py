"""Where a server takes connections of TLS in: who has not shown yet who it is, is bounded in time and in number.

A stranger needs no certificate to open a connection and to say nothing. When there are too many of them, the one that has
waited longest goes first: a handshake that is meant takes milliseconds.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable

from .model import Endpoint

log = logging.getLogger(__name__)

STRANGERS = 256
BACKLOG = 512  # connections that the system keeps until they are taken in
REST_SECONDS = 0.1  # after a connection could not be taken in: descriptors are short


class Acceptor:
    """Listens from `start` to `stop`. `factory` makes the protocol of each connection, which hears of it once its other end
    has a certificate that the context takes for good."""

    def __init__(self, factory: Callable[[], asyncio.Protocol], context: ssl.SSLContext, handshake_seconds: float) -> None:
        self._factory, self._context, self._handshake_seconds = factory, context, handshake_seconds
        self._listeners: list[socket.socket] = []
        self._accepting: list[asyncio.Task[None]] = []
        self._strangers: dict[asyncio.Task[None], None] = {}  # oldest first

    async def start(self, where: Endpoint) -> None:
        """Raises OSError when an address is not to be had."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(where.address, where.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        try:
            for family, _, _, _, address in dict.fromkeys(found):
                listener = socket.create_server(address, family=family, backlog=BACKLOG)
                listener.setblocking(False)
                self._listeners.append(listener)
        except OSError:
            self._close_listeners()
            raise
        self._accepting = [loop.create_task(self._accept(one), name="acceptor") for one in self._listeners]

    @property
    def endpoint(self) -> Endpoint:
        """Where it listens: port 0 means any."""
        address, port = self._listeners[0].getsockname()[:2]
        return Endpoint(address, port)

    async def stop(self) -> None:
        """Takes nobody in any more, and ends all handshakes. Who was let in is left alone."""
        for task in self._accepting:
            task.cancel()
        if self._accepting:
            await asyncio.wait(self._accepting)
        self._close_listeners()
        for stranger in self._strangers:
            stranger.cancel()
        if self._strangers:
            await asyncio.wait(list(self._strangers))

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listener)
            except OSError as error:
                log.warning("connection not taken in problem=%s strangers=%d", error, len(self._strangers))
                self._let_go()
                await asyncio.sleep(REST_SECONDS)
                continue
            if len(self._strangers) >= STRANGERS:
                self._let_go()
            # Begins at once: one that is cancelled before it has begun would never close its connection.
            task = asyncio.Task(self._greet(connection), loop=loop, eager_start=True)
            if not task.done():
                self._strangers[task] = None
                task.add_done_callback(self._strangers.pop)

    def _let_go(self) -> None:
        """The oldest stranger that is not being let go already."""
        oldest = next((one for one in self._strangers if not one.cancelling()), None)
        if oldest is not None:
            oldest.cancel()

    async def _greet(self, connection: socket.socket) -> None:
        try:
            protocol = self._factory()
        except Exception:
            log.exception("connection not taken in")
            connection.close()
            return
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: protocol,
                connection,
                ssl=self._context,
                ssl_handshake_timeout=self._handshake_seconds,
                ssl_shutdown_timeout=1.0,
            )
        except OSError as error:  # of TLS, too, and of time
            log.debug("stranger let go problem=%s", error)
        except Exception:
            log.exception("connection not taken in")
