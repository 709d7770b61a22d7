"""Sends and receives files under quantum keys, record by record (`records.py`).

The sender opens a key stream and names it to the receiver over the same TCP connection that then carries the records; the
receiver joins the stream at its own node. Nobody on that connection can learn or change anything of the file: whoever tries
makes the transfer fail. A received file appears under its name only when it is there whole.
"""

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from qswitch.protocol.etsi004 import Qos, Status

from .client import Client, KeyChunk
from .errors import ClientError, ConnectionLost, StatusError, TransferFailed, Unreachable
from .records import (
    KEY_SIZE,
    PREAMBLE_SIZE,
    READY,
    RECORD_HEADER_SIZE,
    RECORD_SIZE,
    TAG_SIZE,
    BadTransfer,
    FileHeader,
    Kind,
    Record,
    build_preamble,
    check_name,
    parse_preamble,
    seal,
    unseal,
)

Progress = Callable[[str, int, int], None]  # file name, octets done, octets in all
NewClient = Callable[[], Client]

PREAMBLE_SECONDS = 10.0
STALL_SECONDS = 60.0  # without a record from the other side, or with it taking none
KEY_SECONDS = 60.0  # how long key may run short or be under way to another route
KEY_RETRY_SECONDS = 0.2
CLOSE_SECONDS = 5.0
MAX_TRANSFERS = 8  # at once, per receiver
_PASSING = (Status.INSUFFICIENT_KEY, Status.PEER_NOT_CONNECTED, Status.TIMEOUT)


@dataclass(frozen=True, slots=True)
class Transfer:
    """What became of a file: `path` is where it lies at this end."""

    path: Path
    size: int
    ksid: str
    keys: int  # chunks used, the receipt's included
    peer: str


async def send_file(
    client: Client, path: Path, source: str, destination: str, to: tuple[str, int], qos: Qos, progress: Progress
) -> Transfer:
    """Opens a key stream, sends the file, waits for the receipt, closes the stream, whatever happens in between.

    Raises ClientError: the file did not arrive whole, or it is not known that it did.
    """
    with _failures(path.name):
        check_name(path.name)
        with await asyncio.to_thread(path.open, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            opened = await client.open_connect(source, destination, qos)
            assert opened.ksid is not None
            header = FileHeader(opened.ksid, source, destination, path.name, size, qos.timeout)
            async with _closing(client, opened.ksid):
                keys = await _Sending(client, file, header, progress).run(to)
    return Transfer(path, size, opened.ksid, keys, destination)


class _Sending:
    def __init__(self, client: Client, file: IO[bytes], header: FileHeader, progress: Progress) -> None:
        self._client, self._file, self._header, self._progress = client, file, header, progress
        self._octets = header.build()  # as they travel: records vouch for these octets

    async def run(self, to: tuple[str, int]) -> int:
        try:
            async with asyncio.timeout(PREAMBLE_SECONDS):
                reader, writer = await asyncio.open_connection(*to)
        except OSError as error:
            problem = f"no receiver at {to[0]} port {to[1]} ({error.strerror or 'no answer'}); start `qkd-app receive` there"
            raise TransferFailed(self._header.name, problem) from error
        try:
            await _write(writer, build_preamble(self._octets))
            # The receiver opens the key stream now, for as long as the 004 Timeout lets it.
            async with asyncio.timeout(STALL_SECONDS + self._header.timeout_ms / 1000):
                await reader.readexactly(len(READY))
            for number in range(self._header.records):
                await self._send_record(writer, number)
            return await self._take_receipt(reader)
        finally:
            writer.close()

    async def _send_record(self, writer: asyncio.StreamWriter, number: int) -> None:
        last = number == self._header.records - 1
        expected = self._header.size - number * RECORD_SIZE if last else RECORD_SIZE
        content = await asyncio.to_thread(self._file.read, expected)
        tail = await asyncio.to_thread(self._file.read, 1) if last else b""
        if len(content) != expected or tail:
            raise TransferFailed(self._header.name, "the file changed while it was sent")
        chunk = await _key(self._client, self._header.ksid, number)
        with _wiping(chunk):
            kind = Kind.LAST if last else Kind.MORE
            octets = seal(chunk.key, self._octets, number, chunk.index, kind, content)
        await _write(writer, octets)
        self._progress(self._header.name, number * RECORD_SIZE + len(content), self._header.size)

    async def _take_receipt(self, reader: asyncio.StreamReader) -> int:
        async with asyncio.timeout(STALL_SECONDS + self._header.timeout_ms / 1000):
            record = Record.parse(await reader.readexactly(RECORD_HEADER_SIZE))
            if (record.kind, record.number, record.length) != (Kind.RECEIPT, self._header.records, TAG_SIZE):
                raise BadTransfer("what came in the place of a receipt is none")
            ciphertext = await reader.readexactly(record.length)
        if record.index < record.number:
            raise BadTransfer("the receipt names a key that was used before")
        chunk = await _key(self._client, self._header.ksid, record.index)
        with _wiping(chunk):
            unseal(chunk.key, self._octets, record, ciphertext)
        return record.number + 1


class Receiver:
    """Takes files into a directory, from `start` to `stop`; `finished` and `failed` hear what became of each.

    A failed transfer leaves nothing behind and does not end the receiver: anyone can connect to it.
    """

    def __init__(
        self,
        new_client: NewClient,
        uri: str,
        directory: Path,
        *,
        finished: Callable[[Transfer], None],
        failed: Callable[[ClientError], None],
        progress: Progress,
        overwrite: bool = False,
        only_from: str | None = None,
    ) -> None:
        self._new_client, self._uri, self._directory = new_client, uri, directory
        self._finished, self._failed, self._progress = finished, failed, progress
        self._overwrite, self._only_from = overwrite, only_from
        self._running = set[asyncio.Task[None]]()
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Listens; returns where. Raises OSError when the address is not to be had."""
        self._server = await asyncio.start_server(self._connected, host, port)
        address = self._server.sockets[0].getsockname()
        return str(address[0]), int(address[1])

    async def stop(self) -> None:
        """Gives up what is under way, removes what is unfinished, closes its key streams."""
        if self._server is None:
            return
        self._server.close()
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._running) >= MAX_TRANSFERS:
            writer.transport.abort()
            return
        self._running.add(task)
        try:
            self._finished(await self._receive(reader, writer))
        except ClientError as error:
            self._failed(error)
        except asyncio.CancelledError:
            pass  # by `stop`; the task is the stream's own, and nobody awaits it
        finally:
            self._running.discard(task)
            writer.close()

    async def _receive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Transfer:
        with _failures(_name(writer)):
            octets = await _read_header(reader)
            header = FileHeader.parse(octets)
            target = self._target(header)
            async with self._new_client() as client:
                qos = Qos(key_chunk_size=KEY_SIZE, timeout=header.timeout_ms)
                await client.open_connect(header.source, header.destination, qos, header.ksid)
                async with _closing(client, header.ksid):
                    receiving = _Receiving(client, reader, octets, header, self._progress)
                    with _failures(header.name):
                        await self._store(receiving, writer, target)
        return Transfer(target, header.size, header.ksid, header.records + 1, header.source)

    async def _store(self, receiving: "_Receiving", writer: asyncio.StreamWriter, target: Path) -> None:
        await _write(writer, READY)
        with tempfile.NamedTemporaryFile(dir=self._directory, prefix=".qkd-app-", suffix=".part") as file:
            await receiving.run(file)
            await asyncio.to_thread(_keep, file, target, self._overwrite)
        try:
            await _write(writer, await receiving.receipt())
            # The sender reads the receipt's key before this end closes the stream.
            async with asyncio.timeout(CLOSE_SECONDS):
                await receiving.end()
        except (ClientError, OSError) as error:
            problem = f"is there whole, but the sender could not be told ({error or 'it did not answer'})"
            raise TransferFailed(target.name, problem) from error

    def _target(self, header: FileHeader) -> Path:
        if header.destination != self._uri:
            raise BadTransfer(f"it is for {header.destination!r}, not for this application")
        if self._only_from is not None and header.source != self._only_from:
            raise BadTransfer(f"it is from {header.source!r}, and only {self._only_from!r} may send")
        target = self._directory / header.name
        if target.exists() and not self._overwrite:
            raise TransferFailed(header.name, "is there already; use --overwrite to replace it")
        return target


class _Receiving:
    def __init__(
        self, client: Client, reader: asyncio.StreamReader, octets: bytes, header: FileHeader, progress: Progress
    ) -> None:
        self._client, self._reader, self._octets = client, reader, octets
        self._header, self._progress = header, progress
        self._index = -1  # of the last key used

    async def run(self, file: IO[bytes]) -> None:
        """Writes all records' content; returns only when the last one was opened and the size is as told."""
        done = 0
        for number in range(self._header.records):
            content = await self._record(number)
            await asyncio.to_thread(file.write, content)
            done += len(content)
            self._progress(self._header.name, done, self._header.size)
        if done != self._header.size:
            raise BadTransfer(f"{done} octets came of {self._header.size}")

    async def _record(self, number: int) -> bytes:
        async with asyncio.timeout(STALL_SECONDS):
            record = Record.parse(await self._reader.readexactly(RECORD_HEADER_SIZE))
            ciphertext = await self._reader.readexactly(record.length)
        kind = Kind.LAST if number == self._header.records - 1 else Kind.MORE
        if (record.number, record.kind) != (number, kind) or record.index <= self._index:
            raise BadTransfer(f"another record in the place of record {number}")
        self._index = record.index
        chunk = await _key(self._client, self._header.ksid, record.index)
        with _wiping(chunk):
            return unseal(chunk.key, self._octets, record, ciphertext)

    async def receipt(self) -> bytes:
        chunk = await _key(self._client, self._header.ksid, self._index + 1)
        with _wiping(chunk):
            return seal(chunk.key, self._octets, self._header.records, chunk.index, Kind.RECEIPT, b"")

    async def end(self) -> None:
        """Waits until the sender ends the connection."""
        while await self._reader.read(4096):
            pass


async def _write(writer: asyncio.StreamWriter, octets: bytes) -> None:
    """Returns once most of it is on its way. Raises OSError when the other side is gone or takes nothing."""
    if writer.is_closing():
        raise ConnectionResetError("the other side is gone")
    writer.write(octets)
    async with asyncio.timeout(STALL_SECONDS):
        await writer.drain()


async def _read_header(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(PREAMBLE_SECONDS):
        return await reader.readexactly(parse_preamble(await reader.readexactly(PREAMBLE_SIZE)))


def _keep(file: IO[bytes], target: Path, overwrite: bool) -> None:
    """Gives the finished file its name, under which there is never a part of it; replaces no other file unasked."""
    file.flush()
    os.fsync(file.fileno())
    if overwrite:
        second = Path(file.name + "-whole")
        second.hardlink_to(file.name)
        second.replace(target)
    else:
        try:
            target.hardlink_to(file.name)
        except FileExistsError:
            raise TransferFailed(target.name, "came into being meanwhile; use --overwrite to replace it") from None


async def _key(client: Client, ksid: str, index: int) -> KeyChunk:
    """The chunk at `index`; waits while key runs short, a route is being replaced, the node restarts."""
    deadline = asyncio.get_running_loop().time() + KEY_SECONDS
    while True:
        try:
            return await client.get_key(ksid, index, metadata_size=0)
        except (StatusError, ConnectionLost, Unreachable) as error:
            passing = not isinstance(error, StatusError) or error.status in _PASSING
            if not passing or asyncio.get_running_loop().time() > deadline:
                raise
        await asyncio.sleep(KEY_RETRY_SECONDS)


@contextlib.contextmanager
def _wiping(chunk: KeyChunk) -> Iterator[None]:
    try:
        yield
    finally:
        chunk.wipe()


@contextlib.asynccontextmanager
async def _closing(client: Client, ksid: str) -> AsyncIterator[None]:
    """Closes the key stream in the end, on Ctrl-C too; a node that cannot be told forgets it by its TTL."""
    try:
        yield
    finally:
        with contextlib.suppress(ClientError, TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await client.close(ksid)


@contextlib.contextmanager
def _failures(name: str) -> Iterator[None]:
    """Turns what a connection, a file or the other side may do into a TransferFailed that says so."""
    try:
        yield
    except BadTransfer as error:
        raise TransferFailed(name, str(error)) from error
    except asyncio.IncompleteReadError as error:
        raise TransferFailed(name, "the other side ended the transfer before it was complete; see its output") from error
    except TimeoutError as error:
        raise TransferFailed(name, "the other side said nothing for too long") from error
    except OSError as error:
        raise TransferFailed(name, error.strerror or str(error)) from error


def _name(writer: asyncio.StreamWriter) -> str:
    host, port = (writer.get_extra_info("peername") or ("?", 0))[:2]
    return f"transfer from {host} port {port}"
