"""How fast keys are served: `python -m qswitch.integration.bench.keys`.

Two nodes joined by one short fibre and their controller, every daemon the real one; clients in this process, over mutual TLS
with kept connections. Each figure stands beside a baseline that was measured in the same run, in turns with it.
"""

import asyncio
import json
import os
import platform
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import uvloop

from qswitch.protocol.etsi014 import Method, build_path, parse_container

from .. import layout
from ..configure import free_ports
from ..emulation import Emulation
from ..identities import Authority
from ..processes import StartFailed

PAIR = """
name = "bench"
title = "Two nodes side by side"
nodes = ["One", "Two"]
[[spans]]
ends = ["One", "Two"]
length_km = 1.0
loss_db = 0.2
"""
MASTER, SLAVE = "one-1", "two-1"
BARE, OURS = "bare uvicorn endpoint", "014 enc_keys"
FETCHED_AT_ONCE = 128
STOCK_KEYS = 5_000  # put by the devices before anything is measured


@dataclass(slots=True)
class Row:
    """One way of asking for keys, with so many clients at once, over all rounds."""

    way: str
    clients: int
    rates: list[float] = field(default_factory=list)  # answers a second, one a round
    seconds: list[float] = field(default_factory=list)  # one an answer

    def figures(self) -> dict[str, Any]:
        percentiles = statistics.quantiles(self.seconds, n=100)
        return {
            "way": self.way,
            "clients": self.clients,
            "calls": len(self.seconds),
            "per_second": statistics.median(self.rates),
            "p50_ms": 1000 * percentiles[49],
            "p99_ms": 1000 * percentiles[98],
        }


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times longer `subject` takes than `baseline`, by answers a second."""

    subject: str
    baseline: str
    clients: int
    ratio: float


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


@dataclass(frozen=True, slots=True)
class Bed:
    """What is measured: a network, and the bare endpoint beside it on the same disk."""

    network: Emulation
    bare: tuple[str, int]
    bare_context: ssl.SSLContext

    def service(self, application: str) -> tuple[str, int]:
        url = urlsplit(self.network.node(self._application(application)["node"])["etsi014"]["url"])
        return url.hostname or "", url.port or 443

    def identity(self, application: str) -> ssl.SSLContext:
        one, here = self._application(application), self.network.directory
        return _context(here / self.network.descriptor["ca"], here / one["cert"], here / one["key"])

    def _application(self, name: str) -> dict[str, Any]:
        return next(one for one in self.network.descriptor["apps"] if one["name"] == name)


def _context(ca: Path, certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca)
    context.load_cert_chain(certificate, key)
    return context


@asynccontextmanager
async def prepared() -> AsyncIterator[Bed]:
    """Raises StartFailed when something does not start."""
    with tempfile.TemporaryDirectory(prefix="qswitch-bench-") as folder:
        home = Path(folder)
        (home / "bench.toml").write_text(PAIR, encoding="utf-8")
        network = Emulation.create(layout.load(str(home / "bench.toml")), home / "bench")
        try:
            await network.start(lambda _text: None)
            async with _bare(home) as (address, context):
                yield Bed(network, address, context)
        finally:
            await network.down()


@asynccontextmanager
async def _bare(home: Path) -> AsyncIterator[tuple[tuple[str, int], ssl.SSLContext]]:
    authority = Authority("bench")
    authority.write(home / "ca.pem")
    authority.issue(home, "bare", "bare", (), local=True)
    authority.issue(home, "client", "client", (), local=False)
    context = _context(home / "ca.pem", home / "client.pem", home / "client.key")
    where = "127.0.0.1", free_ports(1)[0]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "qswitch.integration.bench.bare", str(home), str(where[1])
    )
    try:
        await _listening(where, context)
        yield where, context
    finally:
        process.terminate()
        await process.wait()


async def _listening(where: tuple[str, int], context: ssl.SSLContext) -> None:
    try:
        async with asyncio.timeout(20):
            while True:
                try:
                    (await Caller(*where, context).open()).close()
                    return
                except OSError:
                    await asyncio.sleep(0.05)
    except TimeoutError as error:
        raise StartFailed("the bare endpoint does not listen") from error


# ETSI 014 ------------------------------------------------------------------------------------------------------------


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


async def etsi014(bed: Bed, clients: tuple[int, ...], rounds: int, calls: int) -> tuple[list[Row], list[Ratio]]:
    """enc_keys of one key of 256 bits, beside the bare endpoint."""
    rows = {(way, number): Row(way, number) for number in clients for way in (BARE, OURS)}
    slave = await Caller(*bed.service(SLAVE), bed.identity(SLAVE)).open()
    ours = [await Caller(*bed.service(MASTER), bed.identity(MASTER)).open() for _ in range(max(clients))]
    bare = [await Caller(*bed.bare, bed.bare_context).open() for _ in range(max(clients))]
    await _fetch(slave, await _draw(Row(OURS, 1), ours, 4 * max(clients)))
    await _draw(Row(BARE, 1), bare, 4 * max(clients))
    for _ in range(rounds):
        for number in clients:
            await _draw(rows[BARE, number], bare[:number], calls)
            await _stocked(ours[0])
            await _fetch(slave, await _draw(rows[OURS, number], ours[:number], calls))
    for caller in (slave, *ours, *bare):
        caller.close()
    ratios = [Ratio(OURS, BARE, number, _rate(rows[BARE, number]) / _rate(rows[OURS, number])) for number in clients]
    return list(rows.values()), ratios


def _rate(row: Row) -> float:
    return statistics.median(row.rates)


# Reports -------------------------------------------------------------------------------------------------------------

Section = Callable[[Bed, tuple[int, ...], int, int], Awaitable[tuple[list[Row], list[Ratio]]]]
SECTIONS: dict[str, Section] = {"etsi014": etsi014}


async def measure(clients: tuple[int, ...], rounds: int, calls: int) -> dict[str, Any]:
    """All sections as JSON values. Raises StartFailed."""
    found: dict[str, Any] = {}
    async with prepared() as bed:
        for name, section in SECTIONS.items():
            rows, ratios = await section(bed, clients, rounds, calls)
            found[name] = {"rows": [one.figures() for one in rows], "ratios": [asdict(one) for one in ratios]}
    return {
        "bench": "keys",
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "sections": found,
    }


def table(data: dict[str, Any]) -> str:
    lines = [f"{data['cores']} cores."]
    for name, section in data["sections"].items():
        lines += ["", f"{name:32}{'clients':>8}{'per s':>10}{'p50 ms':>10}{'p99 ms':>10}"]
        lines += [
            f"{one['way']:32}{one['clients']:8}{one['per_second']:10.0f}{one['p50_ms']:10.2f}{one['p99_ms']:10.2f}"
            for one in section["rows"]
        ]
        lines += [
            f"{one['subject']} : {one['baseline']}, {one['clients']} clients: {one['ratio']:.2f} times as long"
            for one in section["ratios"]
        ]
    return "\n".join(lines)


@click.command()
@click.option("--clients", default=(1, 16), show_default=True, multiple=True, type=click.IntRange(1, 200))
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1), help="How often all ways take turns.")
@click.option("--calls", default=1000, show_default=True, type=click.IntRange(100, 5000), help="Calls of a round.")
@click.option("--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
def main(clients: tuple[int, ...], rounds: int, calls: int, output: str) -> None:
    """Measure how fast two nodes serve keys, in about a minute."""
    try:
        data = uvloop.run(measure(clients, rounds, calls))
    except StartFailed as error:
        raise click.ClickException(str(error)) from error
    click.echo(json.dumps(data, indent=2) if output == "json" else table(data))


if __name__ == "__main__":
    main()
