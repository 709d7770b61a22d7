"""Servers on loopback that are not what a controller hopes for: real SSH and TLS, and no node behind them."""

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncssh
from netconf_access import Certified

from qswitch.protocol import netconf

type Process = Callable[["asyncssh.SSHServerProcess[bytes]"], Awaitable[None]]


@contextlib.asynccontextmanager
async def ssh_server(
    keys: list[asyncssh.SSHKey], user: asyncssh.SSHKey, process: Process | None = None, **options: Any
) -> AsyncIterator[int]:
    """Its port. It has these host keys, knows the user's key, and has the subsystem where there is a process for it."""
    known = asyncssh.import_authorized_keys(user.export_public_key().decode())
    server = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_host_keys=keys,
        authorized_client_keys=known,
        process_factory=process,
        encoding=None,
        gss_host=None,
        **options,
    )
    try:
        yield server.get_port()
    finally:
        server.close()
        await server.wait_closed()


class NoSubsystem(asyncssh.SSHServer):
    """One for remote login: it opens sessions, and no subsystem in them."""

    def session_requested(self) -> "asyncssh.SSHServerSession[bytes]":
        return asyncssh.SSHServerSession()


class Undecided(asyncssh.SSHServer):
    """Never says whether it lets anybody in."""

    async def begin_auth(self, username: str) -> bool:  # type: ignore[override]
        await asyncio.get_running_loop().create_future()
        return True


def saying(*messages: bytes) -> Process:
    """Says one of these for each message it hears, and then nothing."""

    async def serve(process: "asyncssh.SSHServerProcess[bytes]") -> None:
        for one in messages:
            process.stdout.write(one)
            await process.stdin.readuntil(b"]]>]]>")
        await process.stdin.read()

    return serve


def refusing(words: str) -> Process:
    """Says why on the standard error, and ends the session."""

    async def serve(process: "asyncssh.SSHServerProcess[bytes]") -> None:
        process.stderr.write(words.encode())
        process.exit(1)

    return serve


class PlainNode:
    """A NETCONF server over TLS that has notifications, and no interleave: what listens does nothing else (RFC 5277)."""

    HELLO = netconf.build_hello(netconf.Hello((netconf.BASE_1_0, "urn:ietf:params:netconf:capability:notification:1.0"), 1))

    def __init__(self, node: str) -> None:
        self._node = f'<data><qkd_node xmlns="urn:etsi:qkd:yang:etsi-qkd-node"><qkdn_id>{node}</qkdn_id></qkd_node></data>'
        self.heard: list[list[str]] = []  # operations, by connection
        self._ears: asyncio.StreamWriter | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        operations: list[str] = []
        self.heard.append(operations)
        framing = netconf.Framing()
        writer.write(framing.frame(self.HELLO))
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                framing.receive(data)
                while (message := framing.next_message()) is not None:
                    if b"hello" not in message:
                        writer.write(framing.frame(self._answer(netconf.parse_rpc(message), operations, writer)))
        writer.close()

    def _answer(self, rpc: netconf.Rpc, operations: list[str], writer: asyncio.StreamWriter) -> bytes:
        operations.append(rpc.name[1])
        if rpc.name[1] == "create-subscription":
            self._ears = writer
        return netconf.build_reply(rpc.attributes, self._node.encode() if rpc.name[1].startswith("get") else b"<ok/>")

    def notify(self, event: str) -> None:
        assert self._ears is not None
        message = netconf.build_notification("2026-11-25T00:00:00Z", event.encode())
        self._ears.write(netconf.Framing().frame(message))


@contextlib.asynccontextmanager
async def tls_server(
    folder: Path, identity: Certified, trusted: Certified | None = None, node: PlainNode | None = None
) -> AsyncIterator[int]:
    """Its port. It asks for a certificate below `trusted`, where there is one; without a node it says nothing."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await reader.read()
        writer.close()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.write(folder / "server.pem"))
    if trusted is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=trusted.der)
    server = await asyncio.start_server(node.serve if node else serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@contextlib.contextmanager
def tls_server_that_says_why(folder: Path, identity: Certified, trusted: Certified) -> Iterator[int]:
    """Its port. One that refuses a certificate with an alert, which asyncio leaves out."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.write(folder / "server.pem"))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=trusted.der)

    def serve(listener: socket.socket) -> None:
        sock, _ = listener.accept()
        with sock, contextlib.suppress(OSError):
            context.wrap_socket(sock, server_side=True)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        yield listener.getsockname()[1]
        thread.join(10)


@contextlib.contextmanager
def silent() -> Iterator[int]:
    """The port of one that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@contextlib.contextmanager
def full() -> Iterator[int]:
    """The port of one that takes no more connections, nor refuses them."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        port = listener.getsockname()[1]
        for _ in range(2):  # one in the queue, one before it
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                waiting.connect(("127.0.0.1", port))
        yield port
