"""The 004 server on real TLS sockets: both encodings, waiting calls, clients that leave, clients that attack."""

import asyncio
import logging
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from qswitch.agent.config import ServiceConfig, TlsFiles
from qswitch.agent.errors import ConfigurationError, KeyStreamInUse, StorageFailed, UnknownKeyStream
from qswitch.agent.lkms.keys import Key
from qswitch.agent.model import Endpoint
from qswitch.agent.service import callers, etsi004
from qswitch.agent.service.etsi004 import Etsi004Server
from qswitch.integration.identities import Authority
from qswitch.protocol.etsi004 import (
    MAX_KEY_CHUNK_SIZE,
    NULL_KSID,
    ClientCodec,
    ClientEvent,
    Close,
    CloseReply,
    Dialect,
    GetKey,
    GetKeyReply,
    OpenConnect,
    OpenConnectReply,
    Qos,
    ReceivedKey,
    Request,
    Status,
)

KSID = "00112233-4455-4677-8899-aabbccddeeff"
SOURCE, DESTINATION = "qkd://a/app", "qkd://b/app"
MATERIAL = bytes(range(100, 132))


class Service:
    """Serves one stream; OPEN_CONNECT of a given KSID waits until `release` is set."""

    def __init__(self) -> None:
        self.callers = set[frozenset[str]]()
        self.waiting, self.release, self.cancelled = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.given: list[Key] = []
        self.chunk = MATERIAL

    async def open_connect(self, caller: frozenset[str], request: OpenConnect) -> OpenConnectReply:
        self.callers.add(caller)
        if request.source == "defect":
            raise RuntimeError("a defect")
        if request.source != SOURCE:
            raise KeyStreamInUse(KSID)
        if request.ksid is None:
            return OpenConnectReply(Status.PEER_ABSENT, request.qos, KSID)
        self.waiting.set()
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return OpenConnectReply(Status.SUCCESS, request.qos, request.ksid)

    async def get_key(self, _caller: frozenset[str], request: GetKey) -> tuple[GetKeyReply, Key | None]:
        if request.ksid != KSID:
            raise UnknownKeyStream(request.ksid)
        metadata = b'{"age": 1, "hops": 0}'
        if 0 < request.metadata_size < len(metadata):
            reply = GetKeyReply(Status.METADATA_TOO_SMALL, 0, needed_metadata_size=len(metadata))
            return reply, None
        key = Key(self.chunk)
        self.given.append(key)
        return GetKeyReply(Status.SUCCESS, request.index or 0, metadata if request.metadata_size else b""), key

    async def close(self, _caller: frozenset[str], _request: Close) -> CloseReply:
        return CloseReply(Status.SUCCESS)


class Peer:
    """A client at the level of octets."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, dialect: Dialect) -> None:
        self.reader, self.writer, self.codec = reader, writer, ClientCodec(dialect)

    def write(self, octets: bytes) -> None:
        self.writer.write(octets)

    async def call(self, request: Request) -> ClientEvent:
        self.write(self.codec.send(request))
        return await self.reply()

    async def reply(self) -> ClientEvent:
        async with asyncio.timeout(5):
            while (event := self.codec.next_event()) is None:
                data = await self.reader.read(65536)
                assert data, "closed"
                self.codec.receive(data)
        return event

    async def closed(self) -> bool:
        """Whether the server ends the connection, without a word."""
        try:
            async with asyncio.timeout(5):
                return not await self.reader.read(1)
        except (ConnectionError, ssl.SSLError):
            return True


Connect = Callable[..., asyncio.Future[Peer]]


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Authority]:
    directory, authority = tmp_path_factory.mktemp("ca"), Authority("test network")
    authority.write(directory / "ca.pem")
    authority.issue(directory, "node", "node", ("urn:uuid:" + KSID,), local=True)
    authority.issue(directory, "app", "app-1", (SOURCE, "qkd://a/other"), local=False)
    return directory, authority


@pytest.fixture
def directory(authority: tuple[Path, Authority]) -> Path:
    return authority[0]


@pytest.fixture
async def service() -> Service:
    return Service()


@pytest.fixture
async def server(directory: Path, service: Service) -> AsyncIterator[Etsi004Server]:
    tls = TlsFiles(directory / "node.pem", directory / "node.key", directory / "ca.pem")
    server = Etsi004Server(ServiceConfig(Endpoint("127.0.0.1", 0), tls), service)
    await server.start()
    yield server
    async with asyncio.timeout(5):
        await server.stop()


def client_context(directory: Path, certificate: str | None = "app") -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=directory / "ca.pem")
    if certificate:
        context.load_cert_chain(directory / f"{certificate}.pem", directory / f"{certificate}.key")
    return context


@pytest.fixture
async def connect(server: Etsi004Server, directory: Path) -> AsyncIterator[Connect]:
    opened: list[Peer] = []

    async def connect(dialect: Dialect = Dialect.P, context: ssl.SSLContext | None = None) -> Peer:
        context = context or client_context(directory)
        where = server.endpoint
        reader, writer = await asyncio.open_connection(where.address, where.port, ssl=context, ssl_shutdown_timeout=1)
        opened.append(Peer(reader, writer, dialect))
        return opened[-1]

    yield connect  # type: ignore[misc]
    for peer in opened:
        peer.writer.transport.abort()


def opening(ksid: str | None = None, dialect: Dialect = Dialect.P, **qos: int) -> OpenConnect:
    return OpenConnect(SOURCE, DESTINATION, Qos(32, **qos), ksid, dialect)


@pytest.mark.parametrize("dialect", Dialect)
async def test_a_whole_session_on_one_connection(connect: Connect, service: Service, dialect: Dialect) -> None:
    peer = await connect(dialect)
    reply = await peer.call(opening(dialect=dialect))
    # P clients take status 1 for a failure.
    expected = Status.SUCCESS if dialect is Dialect.P else Status.PEER_ABSENT
    assert reply == OpenConnectReply(expected, Qos(32), KSID)
    got = await peer.call(GetKey(KSID, 3, 64))
    assert got == ReceivedKey(GetKeyReply(Status.SUCCESS, 3, b'{"age": 1, "hops": 0}'), bytearray(MATERIAL))
    small = await peer.call(GetKey(KSID, 3, 4))
    assert isinstance(small, ReceivedKey) and small.reply.needed_metadata_size == 21
    assert await peer.call(Close(KSID)) == CloseReply(Status.SUCCESS)
    assert service.callers == {frozenset({SOURCE, "qkd://a/other"})}


async def test_a_connection_per_call(connect: Connect) -> None:
    requests = (opening(dialect=Dialect.C), GetKey(KSID, 0), Close(KSID))
    replies = [await (await connect(Dialect.C)).call(request) for request in requests]
    assert [type(reply) for reply in replies] == [OpenConnectReply, ReceivedKey, CloseReply]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_tls_1_2_is_served_and_1_1_is_not(connect: Connect, directory: Path) -> None:
    context = client_context(directory)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert isinstance(await (await connect(context=context)).call(GetKey(KSID, 0)), ReceivedKey)
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await connect(context=context)


@pytest.mark.parametrize("dialect", Dialect)
async def test_the_largest_key_comes_in_one_record(connect: Connect, service: Service, dialect: Dialect) -> None:
    """Clients of the C reference lose octets when a reply takes two records: one read is one record."""
    service.chunk = bytes(MAX_KEY_CHUNK_SIZE)
    peer = await connect(dialect)
    peer.write(peer.codec.send(GetKey(KSID, 0, 64)))
    peer.codec.receive(await peer.reader.read(65536))
    event = peer.codec.next_event()
    assert isinstance(event, ReceivedKey) and len(event.key) == MAX_KEY_CHUNK_SIZE


async def test_keys_are_wiped_once_sent(connect: Connect, service: Service, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    peer = await connect()
    for index in range(3):
        got = await peer.call(GetKey(KSID, index))
        assert isinstance(got, ReceivedKey) and got.key == MATERIAL
    assert [bytes(key.view()) for key in service.given] == [bytes(32)] * 3
    assert MATERIAL.hex() not in caplog.text and repr(MATERIAL) not in caplog.text


async def test_errors_become_statuses(connect: Connect) -> None:
    peer = await connect()
    refused = await peer.call(OpenConnect("qkd://else/app", DESTINATION, Qos(32)))
    assert isinstance(refused, OpenConnectReply) and refused.status is Status.KSID_IN_USE
    unknown = await peer.call(GetKey(NULL_KSID, 0))
    assert isinstance(unknown, ReceivedKey) and unknown.reply.status is Status.PEER_NOT_CONNECTED
    defect = await peer.call(OpenConnect("defect", DESTINATION, Qos(32)))
    assert isinstance(defect, OpenConnectReply) and defect.status is Status.NO_CONNECTION


async def test_status_2_is_of_get_key_alone(connect: Connect, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """004 table 2 has it of no other call, which then says 4, as of any."""

    async def fails(_caller: frozenset[str], _request: object) -> None:
        raise StorageFailed("disk is full")

    for name in ("open_connect", "get_key", "close"):
        monkeypatch.setattr(service, name, fails)
    peer = await connect()
    opened, key, closed = [await peer.call(one) for one in (opening(), GetKey(KSID, 0), Close(KSID))]
    assert isinstance(opened, OpenConnectReply) and isinstance(key, ReceivedKey) and isinstance(closed, CloseReply)
    assert (opened.status, key.reply.status, closed.status) == (4, 2, 4)


async def test_a_chunk_that_fits_no_reply_gets_a_counter_proposal(connect: Connect) -> None:
    request = OpenConnect(SOURCE, DESTINATION, Qos(MAX_KEY_CHUNK_SIZE + 1, ttl=9))
    reply = await (await connect()).call(request)
    assert reply == OpenConnectReply(Status.QOS_NOT_MET, Qos(MAX_KEY_CHUNK_SIZE, ttl=9), None)


async def test_pipelined_requests_are_answered_in_order(connect: Connect) -> None:
    peer = await connect()
    peer.write(b"".join(peer.codec.send(GetKey(KSID, index)) for index in range(50)))
    for index in range(50):
        reply = await peer.reply()
        assert isinstance(reply, ReceivedKey) and reply.reply.index == index


async def test_a_waiting_call_holds_up_no_other_connection(connect: Connect, service: Service) -> None:
    waiting, idle, other = await asyncio.gather(connect(), connect(), connect(Dialect.C))
    waiting.write(waiting.codec.send(opening(KSID)))
    waiting.write(waiting.codec.send(GetKey(KSID, 1)))
    await service.waiting.wait()
    assert isinstance(await other.call(GetKey(KSID, 0)), ReceivedKey)
    service.release.set()
    reply = await waiting.reply()
    assert isinstance(reply, OpenConnectReply) and reply.status is Status.SUCCESS
    assert isinstance(await waiting.reply(), ReceivedKey)
    assert isinstance(await idle.call(Close(KSID)), CloseReply)


@pytest.mark.parametrize("abruptly", [False, True])
async def test_a_client_that_leaves_cancels_its_call(connect: Connect, service: Service, abruptly: bool) -> None:
    peer = await connect()
    peer.write(peer.codec.send(opening(KSID)))
    await service.waiting.wait()
    if abruptly:
        peer.writer.transport.abort()
    else:
        peer.writer.close()
    async with asyncio.timeout(5):
        await service.cancelled.wait()


async def test_many_connections_at_once(connect: Connect) -> None:
    async def session() -> None:
        peer = await connect()
        for index in range(10):
            reply = await peer.call(GetKey(KSID, index))
            assert isinstance(reply, ReceivedKey) and reply.key == MATERIAL

    await asyncio.gather(*(session() for _ in range(40)))


GIB4 = bytes((2, 1, 1, 2)) + struct.pack("!I", 0xFFFF_FFFF)


@pytest.mark.parametrize("octets", [GIB4, bytes(8), bytes((2, 1, 1, 0xFF, 0, 0, 0, 0)), b"GET / HTTP/1.1\r\n\r\n"])
async def test_what_is_not_004_ends_its_connection_only(connect: Connect, octets: bytes) -> None:
    good, bad = await connect(), await connect()
    bad.write(octets)
    assert await bad.closed()
    assert isinstance(await good.call(GetKey(KSID, 0)), ReceivedKey)


async def test_a_flood_of_requests_is_cut_off(connect: Connect, service: Service) -> None:
    peer = await connect()
    peer.write(peer.codec.send(opening(KSID)))
    await service.waiting.wait()
    peer.write(peer.codec.send(GetKey(KSID, 0)) * (2 * etsi004.MAX_BUFFERED // 32))
    assert await peer.closed()
    async with asyncio.timeout(5):
        await service.cancelled.wait()


async def test_clients_that_say_little_are_survived(connect: Connect) -> None:
    for octets in (b"", b"\2", GIB4[:7], opening_frame()[:40]):
        peer = await connect()
        peer.write(octets)
        peer.writer.close()
    assert isinstance(await (await connect()).call(GetKey(KSID, 0)), ReceivedKey)


def opening_frame() -> bytes:
    return ClientCodec(Dialect.C).send(opening(dialect=Dialect.C))


async def test_idle_clients_that_make_a_connection_per_call_are_let_go(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    persistent = await connect(Dialect.P)
    await persistent.call(GetKey(KSID, 0, 64))
    monkeypatch.setattr(etsi004, "IDLE_SECONDS", 0.05)
    single, silent = await connect(Dialect.C), await connect(Dialect.C)
    await single.call(GetKey(KSID, 0, 64))
    assert await single.closed() and await silent.closed()
    assert isinstance(await persistent.call(Close(KSID)), CloseReply)


async def test_a_certificate_of_another_authority_is_refused(
    connect: Connect, directory: Path, tmp_path: Path, service: Service
) -> None:
    Authority("another").issue(tmp_path, "app", "app-1", (SOURCE,), local=False)
    foreign = client_context(directory, None)
    foreign.load_cert_chain(tmp_path / "app.pem", tmp_path / "app.key")
    for context in (foreign, client_context(directory, None)):
        # TLS 1.3: the client's handshake is done before the server has looked at the certificate.
        with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)):
            await (await connect(context=context)).call(opening())
    assert not service.callers


async def test_plain_tcp_and_full_house_are_refused(
    server: Etsi004Server, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, writer = await asyncio.open_connection(server.endpoint.address, server.endpoint.port)
    writer.write(opening_frame())
    first = await connect()
    await first.call(GetKey(KSID, 0))
    monkeypatch.setattr(callers, "MAX_CONNECTIONS", 1)
    assert await (await connect()).closed()
    writer.close()


async def test_stop_ends_waiting_calls(server: Etsi004Server, connect: Connect, service: Service) -> None:
    peer = await connect()
    peer.write(peer.codec.send(opening(KSID)))
    await service.waiting.wait()
    async with asyncio.timeout(5):
        await server.stop()
    assert service.cancelled.is_set() and await peer.closed()


async def test_unusable_files_are_named(directory: Path, service: Service) -> None:
    good = TlsFiles(directory / "node.pem", directory / "node.key", directory / "ca.pem")
    for tls, name in (
        (TlsFiles(directory / "none.pem", good.private_key, good.ca), "none.pem"),
        (TlsFiles(good.certificate, directory / "app.key", good.ca), "node.pem"),
        (TlsFiles(good.certificate, good.private_key, good.private_key), "node.key"),
    ):
        with pytest.raises(ConfigurationError, match=name):
            await Etsi004Server(ServiceConfig(Endpoint("127.0.0.1", 0), tls), service).start()
