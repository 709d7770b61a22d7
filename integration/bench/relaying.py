"""How fast key is relayed over some hops, beside plain TLS sockets over as many; what that costs in memory and in key.

A chain of key managers (hop.py), each a process with its own store on disk, and a chain of plain TLS forwarders (plain.py).
The chain stands for all numbers of hops; links that are not on the route lie still, their stores full.
"""

import asyncio
import json
import os
import statistics
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..configure import free_ports
from ..identities import Authority
from ..processes import StartFailed
from .figures import Section
from .plain import Source

RELAY, PACED, PLAIN = "relay", "relay, requests at 10 Mb/s", "plain TLS sockets"
PACE_BPS = 10_000_000  # of both applications: the most that a link makes
ONE_PAD = "one pad bit for each bit and hop"  # less is not secure, whatever an attacker computes
STREAMS, CHUNK_OCTETS = 4, 4096
STOCK_BITS = 16_000_000  # of every link on the route, before anything is measured
WARM_UP_SECONDS = 2.0
ANSWER_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Process:
    """One process of a chain: a key manager that takes commands, or a forwarder that takes none."""

    process: asyncio.subprocess.Process

    async def ask(self, do: str, **arguments: Any) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
        return json.loads(await self.line())

    async def line(self) -> bytes:
        """Raises StartFailed when the process has ended, or says nothing."""
        assert self.process.stdout is not None
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                line = await self.process.stdout.readline()
        except TimeoutError as error:
            raise StartFailed("a process of the chain says nothing") from error
        if not line:
            raise StartFailed("a process of the chain has ended; see what it wrote above")
        return line

    @property
    def resident_octets(self) -> int:
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@asynccontextmanager
async def _started(module: str, *arguments: str) -> AsyncIterator[Process]:
    pipe = asyncio.subprocess.PIPE
    command = (sys.executable, "-m", f"qswitch.integration.bench.{module}", *arguments)
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, limit=1 << 26)
    try:
        yield Process(process)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def _node(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012d}"


def _fibre(number: int) -> str:
    """The link between the nodes `number` and `number` + 1."""
    return f"10000000-0000-4000-8000-{number:012d}"


@dataclass(frozen=True, slots=True)
class Chain:
    """Key managers in a row, from number 0 on, and plain forwarders: the last of those is the far end."""

    managers: list[Process]
    plain: list[Process]
    home: Path
    plain_ports: list[int]

    async def route(self, link: str, hops: int) -> None:
        """As a controller does: intermediates, source, destination."""
        for at in (*range(1, hops), 0, hops):
            previous, following = _node(at - 1) if at else None, _node(at + 1) if at < hops else None
            ends = [_node(0), _node(hops)]
            await self.managers[at].ask("route", link=link, ends=ends, previous=previous, following=following)

    async def stocked(self, hops: int) -> None:
        async with asyncio.timeout(60):
            for at in range(hops):
                await self.managers[at].ask("stocked", link=_fibre(at), bits=STOCK_BITS)


@asynccontextmanager
async def _chain(hops: int) -> AsyncIterator[Chain]:
    with tempfile.TemporaryDirectory(prefix="qswitch-bench-") as folder:
        home = Path(folder)
        authority = Authority("bench")
        authority.write(home / "ca.pem")
        authority.issue(home, "plain", "plain", (), local=True)
        async with AsyncExitStack() as stack:
            ports = free_ports(2 * hops + 1)
            managers = [
                await stack.enter_async_context(_manager(home, authority, at, hops, ports[: hops + 1]))
                for at in range(hops + 1)
            ]
            plain_ports = ports[hops + 1 :]
            plain = [
                await stack.enter_async_context(_started("plain", str(home), *map(str, plain_ports[at : at + 2])))
                for at in range(hops)
            ]
            for process in (*managers, *plain):
                await process.line()
            yield Chain(managers, plain, home, plain_ports)


def _manager(home: Path, authority: Authority, at: int, hops: int, ports: list[int]) -> Any:
    folder = home / str(at)
    folder.mkdir()
    authority.write(folder / "ca.pem")
    authority.issue(folder, "lkms", str(at), (f"urn:uuid:{_node(at)}",), local=False)
    fibres = {_fibre(min(at, other)): _node(other) for other in (at - 1, at + 1) if 0 <= other <= hops}
    plan = {
        "folder": str(folder),
        "node": _node(at),
        "ports": {_node(number): port for number, port in enumerate(ports)},
        "fibres": fibres,
    }
    (folder / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    return _started("hop", str(folder / "plan.json"))


# Measuring -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Measured:
    """`spent` is key bits of all links for one key bit that arrived; `processor` is seconds of all processes a second."""

    bits_per_second: float
    latencies: list[float]
    spent: float
    processor: float

    def row(self, hops: int, way: str = RELAY) -> dict[str, Any]:
        percentiles = statistics.quantiles(self.latencies, n=100)
        return {
            "way": way,
            "hops": hops,
            "mbit_per_second": self.bits_per_second / 1e6,
            "p50_ms": 1000 * percentiles[49],
            "p99_ms": 1000 * percentiles[98],
            "spent_bits": self.spent,
            "cores": self.processor,
        }


async def _relayed(chain: Chain, hops: int, seconds: float, pace_bps: int = 0) -> Measured:
    """Applications read at both ends as fast as key comes; what the far end has got counts.

    With a pace, they read that fast, and what is timed is how long the far end's wait for a chunk, which is in stock.
    """
    every = STREAMS * 8 * CHUNK_OCTETS / pace_bps if pace_bps else 0.0
    link = str(uuid.uuid4())
    await chain.stocked(hops)
    await chain.route(link, hops)
    ksids = [str(uuid.uuid4()) for _ in range(STREAMS)]
    near, far = chain.managers[0], chain.managers[hops]
    await asyncio.gather(
        *(
            one.ask("read", link=link, remote=other, ksids=ksids, octets=CHUNK_OCTETS, seconds=every)
            for one, other in ((far, _node(0)), (near, _node(hops)))
        )
    )
    await asyncio.sleep(WARM_UP_SECONDS)
    for one in (near, far):
        await one.ask("moments")
    await far.ask("waited")
    before = [await one.ask("figures", link=link) for one in chain.managers[: hops + 1]]
    await asyncio.sleep(seconds)
    after = [await one.ask("figures", link=link) for one in chain.managers[: hops + 1]]
    made, came = await near.ask("moments"), await far.ask("moments")
    waited = await far.ask("waited")
    await _compare(near, far)
    for one in chain.managers[: hops + 1]:
        await one.ask("unroute", link=link)
    latencies = waited if pace_bps else [came[number] - made[number] for number in came if number in made]
    return _measured(before, after, latencies)


async def _compare(near: Process, far: Process) -> None:
    here, there = await near.ask("stop"), await far.ask("stop")
    for ksid, digests in here.items():
        both = min(len(digests), len(there[ksid]))
        if digests[:both] != there[ksid][:both]:
            raise RuntimeError("the two ends differ")


def _measured(before: list[dict[str, Any]], after: list[dict[str, Any]], latencies: list[float]) -> Measured:
    """`before` and `after` are the figures of all nodes on the route; failures make it raise RuntimeError."""
    if any(one["failures"] for one in after):
        raise RuntimeError("a relay message has failed")
    span = after[-1]["moment"] - before[-1]["moment"]
    pads = sum(
        now["pad_bits"][_fibre(at)] - then["pad_bits"][_fibre(at)]
        for at, (then, now) in enumerate(zip(before[:-1], after[:-1], strict=True))
    )
    processor = sum(now["processor_seconds"] - then["processor_seconds"] for then, now in zip(before, after, strict=True))
    return Measured(
        8 * CHUNK_OCTETS * (after[-1]["chunks"] - before[-1]["chunks"]) / span,
        latencies,
        pads / max(1, after[-1]["relayed_bits"] - before[-1]["relayed_bits"]),
        processor / span,
    )


async def _plain(chain: Chain, hops: int, seconds: float) -> dict[str, Any]:
    source = Source(chain.home, chain.plain_ports[len(chain.plain) - hops])
    bits_per_second = await source.run(seconds)
    percentiles = statistics.quantiles(source.seconds, n=100)
    return {
        "way": PLAIN,
        "hops": hops,
        "mbit_per_second": bits_per_second / 1e6,
        "p50_ms": 1000 * percentiles[49],
        "p99_ms": 1000 * percentiles[98],
        "spent_bits": None,
        "cores": None,
    }


async def relay(hops: tuple[int, ...], seconds: float) -> Section:
    """Key bits a second at the far end, time of a block from its making to being durable there, memory, key spent."""
    rows: list[dict[str, Any]] = []
    ratios: list[dict[str, Any]] = []
    async with _chain(max(hops)) as chain:
        for number in hops:
            base = await _plain(chain, number, seconds / 4)
            ours = (await _relayed(chain, number, seconds)).row(number)
            paced = (await _relayed(chain, number, seconds / 2, PACE_BPS)).row(number, PACED)
            rows += [base, ours, paced]
            for what in ("mbit_per_second", "p50_ms"):
                ratios.append(_ratio(RELAY, PLAIN, ours[what] / base[what], hops=number, figure=what))
            ratios.append(_ratio(RELAY, ONE_PAD, ours["spent_bits"] / number, hops=number, figure="spent_bits"))
        manager, forwarder = chain.managers[1].resident_octets, chain.plain[0].resident_octets
    memory = {"subject": f"key manager, {manager >> 20} MiB", "baseline": f"plain forwarder, {forwarder >> 20} MiB"}
    ratios.append({**memory, "ratio": manager / forwarder, "figure": "resident memory"})
    return Section(rows, ratios)


def _ratio(subject: str, baseline: str, ratio: float, **where: Any) -> dict[str, Any]:
    return {"subject": subject, "baseline": baseline, **where, "ratio": ratio}
