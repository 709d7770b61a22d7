"""How fast keys with ids are served: ETSI 014 enc_keys, beside the bare uvicorn endpoint."""

import asyncio
import json
import ssl
import time
from dataclasses import asdict

from qswitch.protocol.etsi014 import Method, build_path, parse_container

from .figures import Row, Section, slower
from .pair import MASTER, SLAVE, Bed

BARE, OURS = "bare uvicorn endpoint", "014 enc_keys"
FETCHED_AT_ONCE = 128
STOCK_KEYS = 5_000  # put by the devices before anything is measured


class Caller:
    """One client with one connection that asks again and again for the same thing."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext) -> None:
        self._where, self._context = (host, port), context

    async def open(self) -> "Caller":
        self._reader, self._writer = await asyncio.open_connection(*self._where, ssl=self._context)
        return self

    async def ask(self, request: bytes) -> bytes:
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = head.lower().split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0]
        body = await self._reader.readexactly(int(length))
        if b" 200 " not in head[:16]:
            raise RuntimeError(f"{head!r} {body!r}")
        return body

    def close(self) -> None:
        self._writer.transport.abort()


def _request(verb: str, path: str, body: bytes = b"") -> bytes:
    return f"{verb} {path} HTTP/1.1\r\nHost: node\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


ENC = _request("GET", build_path(SLAVE, Method.ENC_KEYS))


async def _draw(row: Row, callers: list[Caller], calls: int) -> list[bytes]:
    """So many answers, by all callers together; each asks for the next when it has one."""
    answers: list[bytes] = []
    left = calls

    async def one(caller: Caller) -> None:
        nonlocal left
        while left > 0:
            left -= 1
            start = time.perf_counter()
            answers.append(await caller.ask(ENC))
            row.seconds.append(time.perf_counter() - start)

    start = time.perf_counter()
    await asyncio.gather(*map(one, callers))
    row.rates.append(len(answers) / (time.perf_counter() - start))
    return answers


async def _fetch(slave: Caller, answers: list[bytes]) -> None:
    """The slave has its keys: the two ends agree, and what is measured next finds room."""
    keys = {key_id: key for one in answers for key_id, key in parse_container(one).items()}
    ids = list(keys)
    for first in range(0, len(ids), FETCHED_AT_ONCE):
        some = ids[first : first + FETCHED_AT_ONCE]
        body = json.dumps({"key_IDs": [{"key_ID": one} for one in some]}).encode()
        got = parse_container(await slave.ask(_request("POST", build_path(MASTER, Method.DEC_KEYS), body)))
        if got != {one: keys[one] for one in some}:
            raise RuntimeError("the two ends differ")


async def _stocked(master: Caller) -> None:
    """Waits until the devices have made key enough that the disk and the processor are what is measured."""
    async with asyncio.timeout(120):
        while True:
            status = json.loads(await master.ask(_request("GET", build_path(SLAVE, Method.STATUS))))
            if status["stored_key_count"] >= STOCK_KEYS:
                return
            await asyncio.sleep(0.2)


async def etsi014(bed: Bed, clients: tuple[int, ...], rounds: int, calls: int) -> Section:
    """enc_keys of one key of 256 bits, beside the bare endpoint."""
    rows = {(way, number): Row(way, number) for number in clients for way in (BARE, OURS)}
    slave = await Caller(*bed.service(SLAVE), bed.identity(SLAVE)).open()
    ours = [await Caller(*bed.service(MASTER), bed.identity(MASTER)).open() for _ in range(max(clients))]
    bare = [await Caller(*bed.bare["bare"], bed.bare_context).open() for _ in range(max(clients))]
    await _fetch(slave, await _draw(Row(OURS, 1), ours, 4 * max(clients)))
    await _draw(Row(BARE, 1), bare, 4 * max(clients))
    for _ in range(rounds):
        for number in clients:
            await _draw(rows[BARE, number], bare[:number], calls)
            await _stocked(ours[0])
            await _fetch(slave, await _draw(rows[OURS, number], ours[:number], calls))
    for caller in (slave, *ours, *bare):
        caller.close()
    ratios = [asdict(slower(rows[OURS, number], rows[BARE, number])) for number in clients]
    return Section([one.figures() for one in rows.values()], ratios)
