"""A man in the middle of two key managers: on the wire, or within TLS by the certificates that he has."""

import asyncio
import ssl
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from qswitch.agent.model import Endpoint
from qswitch.protocol.lkms import Codec, WireMessage, build

Meddle = Callable[[bool, WireMessage], Iterable[WireMessage]]
"""(whether it comes from the end that dialed, a message) -> what goes on in its place."""
Touch = Callable[[bool, bytes], Iterable[bytes]]
"""The same for what a socket gave at once."""


def pass_on[T](_dialer: bool, one: T) -> Iterable[T]:
    return (one,)


def context_of(folder: Path, protocol: int) -> ssl.SSLContext:
    """TLS as the node whose files these are."""
    context = ssl.SSLContext(protocol)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(folder / "lkms.pem", folder / "lkms.key")
    context.load_verify_locations(folder / "ca.pem")
    return context


class Wire:
    """Stands where the listener's address is thought to be, outside of TLS. `heard` is every piece, of both directions."""

    def __init__(self, listener: Endpoint, touch: Touch = pass_on) -> None:
        self.listener, self.touch = listener, touch
        self.heard: list[tuple[bool, bytes]] = []
        self.callers = 0
        self.writers: dict[bool, asyncio.StreamWriter] = {}
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def faces(self) -> tuple[ssl.SSLContext | None, ssl.SSLContext | None]:
        """Towards who dials, and towards who listens."""
        return None, None

    async def start(self) -> Endpoint:
        self._server = await asyncio.start_server(self._called, "127.0.0.1", 0, ssl=self.faces()[0])
        return Endpoint("127.0.0.1", self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _called(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.callers += 1
        back: asyncio.StreamWriter | None = None
        try:
            with suppress(OSError, asyncio.CancelledError):
                where = self.listener
                there, back = await asyncio.open_connection(where.address, where.port, ssl=self.faces()[1])
                self.writers = {True: back, False: writer}
                await asyncio.gather(self._carry(True, reader, back), self._carry(False, there, writer))
        finally:
            for one in (writer, back):
                if one is not None:
                    one.transport.abort()

    async def _carry(self, dialer: bool, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Ends when either side does."""
        with suppress(OSError):
            take = self.taker(dialer)
            while data := await reader.read(65536):
                self.heard.append((dialer, data))
                for piece in take(data):
                    writer.write(piece)
        writer.transport.abort()

    def taker(self, dialer: bool) -> Callable[[bytes], Iterable[bytes]]:
        return lambda data: self.touch(dialer, data)

    @property
    def octets(self) -> bytes:
        return b"".join(data for _, data in self.heard)


class Middle(Wire):
    """TLS ends here, once for each side: `folders` has the certificates of who he is to the dialer, and to the listener."""

    def __init__(self, listener: Endpoint, folders: tuple[Path, Path], meddle: Meddle = pass_on) -> None:
        super().__init__(listener)
        self._folders, self.meddle = folders, meddle
        self.seen: list[tuple[bool, WireMessage]] = []

    def faces(self) -> tuple[ssl.SSLContext, ssl.SSLContext]:
        server, client = self._folders
        return context_of(server, ssl.PROTOCOL_TLS_SERVER), context_of(client, ssl.PROTOCOL_TLS_CLIENT)

    def taker(self, dialer: bool) -> Callable[[bytes], Iterable[bytes]]:
        codec = Codec()

        def take(data: bytes) -> Iterable[bytes]:
            codec.receive(data)
            while (message := codec.next_message()) is not None:
                self.seen.append((dialer, message))
                yield from map(build, self.meddle(dialer, message))

        return take

    def say(self, to_listener: bool, *messages: WireMessage) -> None:
        """Something of his own, in the name of the other end."""
        for one in messages:
            self.writers[to_listener].write(build(one))
