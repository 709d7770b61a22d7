"""Files sent between two applications at two nodes, over a network that may change, cut or make up what passes."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from qswitch.app.errors import ClientError, TransferFailed
from qswitch.app.records import PREAMBLE_SIZE, READY, RECORD_HEADER_SIZE, RECORD_SIZE, TAG_SIZE, FileHeader, build_preamble
from qswitch.app.transfer import Receiver, Transfer, send_file
from qswitch.protocol.etsi004 import Qos

QOS = Qos(key_chunk_size=32, timeout=2000)


class Inbox:
    """A receiver with what it said."""

    def __init__(self, network: Any, directory: Path, **options: Any) -> None:
        self.done: asyncio.Queue[Transfer | ClientError] = asyncio.Queue()
        self.directory = directory
        self.receiver = Receiver(
            lambda: network.client("bob"),
            network.uri("bob"),
            directory,
            finished=self.done.put_nowait,
            failed=self.done.put_nowait,
            progress=lambda *_: None,
            **options,
        )

    async def outcome(self) -> Transfer | ClientError:
        async with asyncio.timeout(10):
            return await self.done.get()

    def files(self) -> list[str]:
        return sorted(one.name for one in self.directory.iterdir())


@contextlib.asynccontextmanager
async def receiving(network: Any, directory: Path, **options: Any) -> AsyncIterator[tuple[Inbox, tuple[str, int]]]:
    directory.mkdir(exist_ok=True)
    inbox = Inbox(network, directory, **options)
    where = await inbox.receiver.start("127.0.0.1", 0)
    try:
        yield inbox, where
    finally:
        async with asyncio.timeout(10):
            await inbox.receiver.stop()


async def send(network: Any, path: Path, to: tuple[str, int], **options: Any) -> Transfer:
    async with network.client("alice") as client, asyncio.timeout(15):
        progress = options.get("progress", lambda *_: None)
        return await send_file(client, path, network.uri("alice"), network.uri("bob"), to, QOS, progress)


@contextlib.asynccontextmanager
async def relay(to: tuple[str, int], change: Callable[[bytearray], bytes | None]) -> AsyncIterator[tuple[str, int]]:
    """A hop on the way to the receiver: passes on what `change` makes of all that came so far; None cuts the connection."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(*to)
        back = asyncio.create_task(pump(far_reader, writer))
        seen, passed = bytearray(), 0
        while data := await reader.read(1 << 16):
            seen += data
            changed = change(seen)
            if changed is None:
                break
            far_writer.write(changed[passed:])
            passed = len(changed)
            await far_writer.drain()
        far_writer.close()
        await back

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[:2]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "plan ü.bin"
    path.write_bytes(os.urandom(3 * RECORD_SIZE + 5))
    return path


async def test_a_file_arrives_whole(network: Any, file: Path, tmp_path: Path) -> None:
    seen: list[int] = []
    async with receiving(network, tmp_path / "in") as (inbox, where):
        sent = await send(network, file, where, progress=lambda _name, done, _total: seen.append(done))
        got = await inbox.outcome()
    assert isinstance(got, Transfer)
    assert (tmp_path / "in" / file.name).read_bytes() == file.read_bytes()
    assert inbox.files() == [file.name]
    assert sent.ksid == got.ksid and (sent.keys, got.keys, got.peer) == (5, 5, network.uri("alice"))
    assert seen == [RECORD_SIZE, 2 * RECORD_SIZE, 3 * RECORD_SIZE, file.stat().st_size]
    assert network.nodes["alice"].closed == network.nodes["bob"].closed == [sent.ksid]
    assert (tmp_path / "in" / file.name).stat().st_mode & 0o077 == 0


async def test_an_empty_file_and_two_at_once(network: Any, file: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    async with receiving(network, tmp_path / "in") as (inbox, where):
        await asyncio.gather(send(network, empty, where), send(network, file, where))
        await inbox.outcome()
        await inbox.outcome()
    assert inbox.files() == ["empty", file.name]


async def test_key_that_runs_short_is_waited_for(network: Any, file: Path, tmp_path: Path) -> None:
    network.table.shortages = {1: 2, 2: 1}
    async with receiving(network, tmp_path / "in") as (inbox, where):
        await send(network, file, where)
        assert isinstance(await inbox.outcome(), Transfer)


FIRST_RECORD = 4096  # an octet within the first record, past all headers


def flip(seen: bytearray) -> bytes:
    changed = bytearray(seen)
    if len(changed) > FIRST_RECORD:
        changed[FIRST_RECORD] ^= 1
    return bytes(changed)


def rename(seen: bytearray) -> bytes:
    return bytes(seen.replace(b"plan", b"evil"))


def swap(seen: bytearray) -> bytes:
    """Exchanges the first two records, once both are there."""
    start = PREAMBLE_SIZE + int.from_bytes(seen[PREAMBLE_SIZE - 4 : PREAMBLE_SIZE])
    record = RECORD_HEADER_SIZE + RECORD_SIZE + TAG_SIZE
    first, second, rest = start + record, start + 2 * record, seen[start + 2 * record :]
    if len(seen) < second:
        return bytes(seen[:start])
    return bytes(seen[:start] + seen[first:second] + seen[start:first] + rest)


def cut(seen: bytearray) -> bytes | None:
    return bytes(seen) if len(seen) < 2 * RECORD_SIZE else None


@pytest.mark.parametrize("change", [flip, rename, swap, cut])
async def test_whoever_meddles_makes_it_fail(
    network: Any, file: Path, tmp_path: Path, change: Callable[[bytearray], bytes | None]
) -> None:
    async with receiving(network, tmp_path / "in") as (inbox, where), relay(where, change) as hop:
        with pytest.raises(TransferFailed):
            await send(network, file, hop)
        assert isinstance(await inbox.outcome(), TransferFailed)
    assert inbox.files() == []
    ksid = next(iter(network.table.streams))
    assert network.nodes["alice"].closed == network.nodes["bob"].closed == [ksid]


async def test_a_receipt_that_is_made_up_is_none(network: Any, tmp_path: Path) -> None:
    """Someone who ends a transfer early cannot tell the sender that it went well."""
    file = tmp_path / "file"
    file.write_bytes(b"x")

    async def pretend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = int.from_bytes((await reader.readexactly(PREAMBLE_SIZE))[-4:])
        header = FileHeader.parse(await reader.readexactly(length))
        async with network.client("bob") as bob:
            await bob.open_connect(header.source, header.destination, QOS, header.ksid)
        receipt = bytes((0, 0, 0, 1, 0, 0, 0, 1, 2, 0, 0, 0, TAG_SIZE)) + bytes(TAG_SIZE)
        writer.write(READY + receipt)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(pretend, "127.0.0.1", 0)
    async with server:
        with pytest.raises(TransferFailed, match="changed on its way"):
            await send(network, file, server.sockets[0].getsockname()[:2])


async def test_strangers_do_not_disturb_the_receiver(network: Any, file: Path, tmp_path: Path) -> None:
    header = FileHeader("00112233-4455-4677-8899-aabbccddeeff", "qkd://eve/app", "qkd://bob/app", "evil", 1)
    elsewhere = FileHeader(header.ksid, header.source, "qkd://eve/app", "evil", 1)
    async with receiving(network, tmp_path / "in", only_from=network.uri("alice")) as (inbox, where):
        for octets in (b"GET / HTTP/1.1\r\n\r\n", b"", build_preamble(header.build()), build_preamble(elsewhere.build())):
            _, writer = await asyncio.open_connection(*where)
            writer.write(octets)
            writer.close()
            assert isinstance(await inbox.outcome(), TransferFailed)
        await send(network, file, where)
        assert isinstance(await inbox.outcome(), Transfer)
    assert inbox.files() == [file.name]


async def test_files_are_replaced_only_when_asked(network: Any, file: Path, tmp_path: Path) -> None:
    target = tmp_path / "in" / file.name
    target.parent.mkdir()
    target.write_text("mine")
    async with receiving(network, tmp_path / "in") as (inbox, where):
        with pytest.raises(TransferFailed):
            await send(network, file, where)
        assert "--overwrite" in str(await inbox.outcome())
    assert target.read_text() == "mine"
    async with receiving(network, tmp_path / "in", overwrite=True) as (inbox, where):
        await send(network, file, where)
        assert isinstance(await inbox.outcome(), Transfer)
    assert target.read_bytes() == file.read_bytes()
    assert inbox.files() == [file.name]


async def test_no_receiver_is_told_and_the_stream_closed(network: Any, file: Path) -> None:
    with pytest.raises(TransferFailed, match="start `qkd-app receive`"):
        await send(network, file, ("127.0.0.1", 1))
    assert len(network.nodes["alice"].closed) == 1


async def test_stopping_in_the_middle_leaves_nothing(network: Any, file: Path, tmp_path: Path) -> None:
    network.table.shortages = {2: 1000}
    begun = asyncio.Event()
    async with receiving(network, tmp_path / "in") as (inbox, where):
        sending = asyncio.create_task(send(network, file, where, progress=lambda *_: begun.set()))
        await begun.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert isinstance(await inbox.outcome(), TransferFailed)
    assert inbox.files() == []
    assert len(network.nodes["alice"].closed) == len(network.nodes["bob"].closed) == 1
