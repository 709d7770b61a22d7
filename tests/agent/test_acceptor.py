"""Connections of TLS are taken in, however many strangers there are who say nothing; on both kinds of event loop."""

import asyncio
import resource
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest
import uvloop

from qswitch.agent import acceptor as acceptors
from qswitch.agent.acceptor import Acceptor
from qswitch.agent.config import TlsFiles
from qswitch.agent.model import Endpoint
from qswitch.agent.service.tls import server_context
from qswitch.integration.identities import Authority

HANDSHAKE_SECONDS = 5.0


class Greeting(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).write(b"welcome")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    folder, authority = tmp_path_factory.mktemp("tls"), Authority("test")
    certificate, key = authority.issue(folder, "node", "node", (), local=True)
    authority.write(folder / "ca.pem")
    return TlsFiles(certificate, key, folder / "ca.pem")


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Awaitable[None]], None]:
    """Plain tests, for each loop has to be one of its own."""
    new_loop = uvloop.new_event_loop if request.param == "uvloop" else asyncio.SelectorEventLoop

    def run_in(work: Awaitable[None]) -> None:
        async def limited() -> None:
            async with asyncio.timeout(30):
                await work

        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(limited())

    return run_in


@asynccontextmanager
async def listening(
    files: TlsFiles, factory: Callable[[], asyncio.Protocol] = Greeting, seconds: float = HANDSHAKE_SECONDS
) -> AsyncIterator[Acceptor]:
    one = Acceptor(factory, server_context(files), seconds)
    await one.start(Endpoint("127.0.0.1", 0))
    try:
        yield one
    finally:
        await one.stop()


def client(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(files.ca))
    context.load_cert_chain(files.certificate, files.private_key)
    return context


async def welcomed(context: ssl.SSLContext, where: Endpoint) -> bytes:
    reader, writer = await asyncio.open_connection(where.address, where.port, ssl=context)
    said = await reader.read(100)
    writer.transport.abort()
    return said


async def strangers(where: Endpoint, count: int) -> list[socket.socket]:
    found, loop = list[socket.socket](), asyncio.get_running_loop()
    for _ in range(count):
        one = socket.socket()
        one.setblocking(False)
        await loop.sock_connect(one, (where.address, where.port))
        found.append(one)
    return found


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_strangers_who_say_nothing_are_bounded_and_keep_nobody_out(
    run: Callable[[Awaitable[None]], None], files: TlsFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptors, "STRANGERS", 20)

    async def work() -> None:
        async with listening(files) as one:
            silent = list[socket.socket]()
            for _ in range(5):
                silent += await strangers(one.endpoint, 30)
                assert await welcomed(client(files), one.endpoint) == b"welcome"
            while descriptors() - before - len(silent) > 20 + 10:
                await asyncio.sleep(0.01)
            assert len(one._strangers) <= 20
            assert silent[0].recv(1) == b"", "the oldest goes first"
            with pytest.raises(BlockingIOError):
                silent[-1].recv(1)
            for stranger in silent:
                stranger.close()

    before = descriptors()
    run(work())
    assert descriptors() < before + 10, "uvloop keeps two for itself"


def test_a_stranger_has_so_much_time_and_no_more(run: Callable[[Awaitable[None]], None], files: TlsFiles) -> None:
    async def work() -> None:
        async with listening(files, seconds=0.2) as one:
            reader, writer = await asyncio.open_connection(one.endpoint.address, one.endpoint.port)
            assert await reader.read() == b""
            writer.close()

    run(work())


def test_handshakes_end_when_the_server_stops_and_who_was_let_in_stays(
    run: Callable[[Awaitable[None]], None], files: TlsFiles
) -> None:
    async def work() -> None:
        made = list[Greeting]()

        def make() -> Greeting:
            made.append(Greeting())
            return made[-1]

        async with listening(files, make) as one:
            where = one.endpoint
            reader, writer = await asyncio.open_connection(where.address, where.port, ssl=client(files))
            assert await reader.readexactly(7) == b"welcome"
            silent, silent_writer = await asyncio.open_connection(where.address, where.port)
            while not one._strangers:
                await asyncio.sleep(0)
        assert await silent.read() == b""
        with pytest.raises(OSError):
            await asyncio.open_connection(where.address, where.port)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await reader.read()
        for each in (writer, silent_writer):
            each.transport.abort()

    run(work())


def test_a_protocol_that_cannot_be_made_costs_that_connection_only(
    run: Callable[[Awaitable[None]], None], files: TlsFiles
) -> None:
    """uvloop's own server never accepts again after that."""
    failures = iter([MemoryError("no room")])

    def make() -> Greeting:
        for failure in failures:
            raise failure
        return Greeting()

    async def work() -> None:
        async with listening(files, make) as one:
            reader, writer = await asyncio.open_connection(one.endpoint.address, one.endpoint.port)
            assert await reader.read() == b""
            writer.close()
            assert await welcomed(client(files), one.endpoint) == b"welcome"

    run(work())


def test_who_listens_on_a_port_that_is_taken_is_told_so(run: Callable[[Awaitable[None]], None], files: TlsFiles) -> None:
    async def work() -> None:
        async with listening(files) as one:
            other = Acceptor(Greeting, server_context(files), HANDSHAKE_SECONDS)
            with pytest.raises(OSError, match="in use"):
                await other.start(one.endpoint)
            await other.stop()
            assert await welcomed(client(files), one.endpoint) == b"welcome"

    run(work())


def test_a_process_without_descriptors_lets_strangers_go(run: Callable[[Awaitable[None]], None], files: TlsFiles) -> None:
    """Whoever takes them all: a connection that cannot be taken in costs the stranger who has waited longest."""

    async def work() -> None:
        async with listening(files) as one:
            silent = await strangers(one.endpoint, 10)
            while len(one._strangers) < 10:
                await asyncio.sleep(0)
            taken, context = list[socket.socket](), client(files)
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors() + 50, hard))
            try:
                with pytest.raises(OSError, match="Too many open files"):
                    while True:
                        taken.append(socket.socket())
                taken.pop().close()  # for who comes now
                assert await welcomed(context, one.endpoint) == b"welcome"
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                for each in (*taken, *silent):
                    each.close()

    run(work())
