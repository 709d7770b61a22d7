"""How fast key streams are served: ETSI 004 GET_KEY with the client library, beside two bare servers of frames."""

import asyncio
import time
import uuid
from dataclasses import asdict, dataclass

from qswitch.app.client import Client
from qswitch.protocol.etsi004 import MAX_METADATA_SIZE, Qos

from .bare_streams import KEY_OCTETS
from .figures import Row, Section, slower
from .pair import MASTER, SLAVE, Bed

OURS, RECORDING, TLS = "004 GET_KEY", "bare server that records", "bare server that does not"
QOS = Qos(key_chunk_size=KEY_OCTETS, timeout=30_000)


@dataclass(slots=True)
class Caller:
    """One client with one connection, for one key stream."""

    client: Client
    ksid: str
    room: int = MAX_METADATA_SIZE

    async def ask(self, index: int | None = None) -> tuple[int, bytes]:
        chunk = await self.client.get_key(self.ksid, index, self.room)
        return chunk.index, bytes(chunk.key)


@dataclass(slots=True)
class Stream:
    """A key stream with both its ends."""

    source: Caller
    destination: Caller

    async def compare(self, chunks: list[tuple[int, bytes]]) -> None:
        """The far end has the same key at the same place, and reads it too."""
        for index, key in chunks:
            if await self.destination.ask(index) != (index, key):
                raise RuntimeError("the two ends differ")

    async def close(self) -> None:
        for caller in (self.source, self.destination):
            await caller.client.close(caller.ksid)
            caller.client.disconnect()


async def _open(bed: Bed) -> Stream:
    near, far = bed.client(MASTER), bed.client(SLAVE)
    ksid = (await near.open_connect(bed.uri(MASTER), bed.uri(SLAVE), QOS)).ksid
    assert ksid is not None
    await far.open_connect(bed.uri(MASTER), bed.uri(SLAVE), QOS, ksid)
    return Stream(Caller(near, ksid), Caller(far, ksid))


async def _draw(row: Row, callers: list[Caller], calls: int) -> list[list[tuple[int, bytes]]]:
    """So many chunks, by all callers together; each asks for the next when it has one. What each has got."""
    left = calls

    async def one(caller: Caller) -> list[tuple[int, bytes]]:
        nonlocal left
        chunks = []
        while left > 0:
            left -= 1
            start = time.perf_counter()
            chunks.append(await caller.ask())
            row.seconds.append(time.perf_counter() - start)
        return chunks

    start = time.perf_counter()
    chunks = await asyncio.gather(*map(one, callers))
    row.rates.append(sum(map(len, chunks)) / (time.perf_counter() - start))
    return chunks


async def _take(row: Row, streams: list[Stream], calls: int) -> None:
    chunks = await _draw(row, [one.source for one in streams], calls)
    await asyncio.gather(*(stream.compare(some) for stream, some in zip(streams, chunks, strict=True)))


async def etsi004(bed: Bed, clients: tuple[int, ...], rounds: int, calls: int) -> Section:
    """GET_KEY of the next chunk of 256 bits with its metadata; each client has a stream of its own."""
    rows = {(way, number): Row(way, number) for number in clients for way in (RECORDING, TLS, OURS)}
    streams = [await _open(bed) for _ in range(max(clients))]
    bare = {
        way: [Caller(bed.bare_client("bare_streams"), str(uuid.uuid4()), room) for _ in streams]
        for way, room in ((RECORDING, MAX_METADATA_SIZE), (TLS, 0))
    }
    await _take(Row(OURS, 1), streams, 16 * len(streams))
    for way, callers in bare.items():
        await _draw(Row(way, 1), callers, 16 * len(callers))
    for _ in range(rounds):
        for number in clients:
            for way, callers in bare.items():
                await _draw(rows[way, number], callers[:number], calls)
            await _take(rows[OURS, number], streams[:number], calls)
    for stream in streams:
        await stream.close()
    for caller in (*bare[RECORDING], *bare[TLS]):
        caller.client.disconnect()
    ratios = [asdict(slower(rows[OURS, number], rows[way, number])) for number in clients for way in bare]
    return Section([one.figures() for one in rows.values()], ratios)
