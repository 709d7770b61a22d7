"""One key manager of a chain as a process of its own, and the devices of its links: `python -m …bench.hop PLAN.json`.

Devices stand in for hardware that is never the bottleneck: both ends deliver the same blocks under the same numbers, many
times faster than key is used, until the store is full. Commands come as lines of JSON on standard input, each is answered
by one. Applications read at both ends of a virtual link, through key streams with large chunks.
"""

import asyncio
import contextlib
import hashlib
import itertools
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import uvloop

from qswitch.agent.config import LkmsConfig, TlsFiles
from qswitch.agent.lkms.keys import Key
from qswitch.agent.lkms.manager import KeyManager, StreamConfig
from qswitch.agent.model import Endpoint, KeyStreamId, LinkConfig, LinkId, LinkType, NodeId

BLOCK = 4096
DEVICE_SECONDS = 0.0001
"""Between two blocks: up to some 200 Mb/s, where a real link has at most 10."""
BANDWIDTH_BPS = 10_000_000


class Observer:
    def link_levels_changed(self, link: LinkId) -> None: ...

    def alarm(self, link: LinkId | None, message: str) -> None:
        print(f"alarm link={link} {message}", file=sys.stderr, flush=True)


class Timed(KeyManager):
    """Notes when a block of a virtual link was made at its source, and when it was durable at its far end.

    By the machine's monotonic clock, which all processes share.
    """

    moments: dict[int, float]

    def _made(self, link: LinkId, number: int, key: Key) -> None:
        self.moments[number] = time.monotonic()
        super()._made(link, number, key)

    def _arrived(self, link: LinkId, number: int, key: Key, hops: int) -> None:
        super()._arrived(link, number, key, hops)
        self._store.after(lambda: self._note_arrival(number))

    def _note_arrival(self, number: int) -> None:
        self.moments[number] = time.monotonic()


class Hop:
    def __init__(self, plan: dict[str, Any]) -> None:
        folder = Path(plan["folder"])
        self._peers = {NodeId(one): Endpoint("127.0.0.1", port) for one, port in plan["ports"].items()}
        self._node, self._fibres = NodeId(plan["node"]), plan["fibres"]
        tls = TlsFiles(folder / "lkms.pem", folder / "lkms.key", folder / "ca.pem")
        listen = self._peers[self._node]
        config = LkmsConfig(listen, tls, folder / "keys.sqlite", folder / "master.key", peers=self._peers)
        self._keys = Timed(self._node, config, Observer())
        self._keys.moments = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._reading: list[asyncio.Task[None]] = []
        self._read: dict[KeyStreamId, list[str]] = {}
        self._waited: list[float] = []  # for each chunk, seconds

    async def run(self) -> None:
        await self._keys.start()
        for link, remote in self._fibres.items():
            await self._keys.configure_link(LinkConfig(LinkId(link), LinkType.PHYSICAL, remote_node=NodeId(remote)))
            self._tasks.append(asyncio.create_task(self._deliver(LinkId(link))))
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        print("{}", flush=True)
        while line := await reader.readline():
            command = json.loads(line)
            answer = await getattr(self, f"do_{command.pop('do')}")(**command)
            print(json.dumps(answer), flush=True)
        for task in (*self._tasks, *self._reading):
            task.cancel()
        await self._keys.stop()

    async def _deliver(self, link: LinkId) -> None:
        for number in itertools.count():
            await self._keys.deliver(link, number, Key(hashlib.shake_128(f"{link} {number}".encode()).digest(BLOCK)))
            await asyncio.sleep(DEVICE_SECONDS)

    # Commands ------------------------------------------------------------------------------------------------------------

    async def do_route(self, link: str, ends: list[str], previous: str | None, following: str | None) -> None:
        """This node's part of a virtual link."""
        first, last = map(NodeId, ends)
        here = first if previous is None else last
        inner = previous is not None and following is not None
        far = last if previous is None else first
        config = LinkConfig(
            LinkId(link),
            LinkType.VIRTUAL,
            local_node=first if inner else here,
            remote_node=last if inner else far,
            previous_hop=NodeId(previous) if previous else None,
            next_hops=(NodeId(following),) if following else (),
            bandwidth_bps=BANDWIDTH_BPS,
            remote_lkms=None if inner else self._peers[far],
        )
        await self._keys.configure_link(config)

    async def do_unroute(self, link: str) -> None:
        await self._keys.remove_link(LinkId(link))

    async def do_stocked(self, link: str, bits: int) -> None:
        """Answered once both ends of a link hold so much."""
        while True:
            if self._keys.levels(LinkId(link)).usable_bits >= bits:
                return
            await asyncio.sleep(0.05)

    async def do_read(self, link: str, remote: str, ksids: list[str], octets: int, seconds: float = 0.0) -> None:
        """Applications of this end open key streams over a link and read: a chunk in so many seconds, or without a pause."""
        self._read = {KeyStreamId(one): [] for one in ksids}
        for ksid in self._read:
            await self._keys.configure_stream(StreamConfig(ksid, NodeId(remote), (LinkId(link),), octets))
            await self._keys.attach(ksid)
        self._reading = [asyncio.create_task(self._read_one(ksid, seconds)) for ksid in self._read]
        self._waited.clear()

    async def _read_one(self, ksid: KeyStreamId, seconds: float) -> None:
        due = time.monotonic()
        while True:
            if seconds:
                due += seconds
                await asyncio.sleep(due - time.monotonic())
            asked = time.monotonic()
            chunk = await self._keys.get_chunk(ksid, None)
            self._waited.append(time.monotonic() - asked)
            with chunk.key, chunk.key.view() as octets:
                self._read[ksid].append(hashlib.sha256(octets).hexdigest()[:16])

    async def do_stop(self) -> dict[str, list[str]]:
        """Applications stop; digests of what they have read."""
        for task in self._reading:
            task.cancel()
        await asyncio.wait(self._reading)
        for task in self._reading:
            with contextlib.suppress(asyncio.CancelledError):
                task.result()
        for ksid in self._read:
            await self._keys.remove_stream(ksid)
        return {str(ksid): digests for ksid, digests in self._read.items()}

    async def do_figures(self, link: str) -> dict[str, Any]:
        pads = {one: self._keys.relay_totals(LinkId(one)).pad_bits for one in self._fibres}
        total = self._keys.relay_totals(LinkId(link))
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "moment": time.monotonic(),
            "chunks": sum(map(len, self._read.values())),
            "pad_bits": pads,
            "relayed_bits": total.relayed_bits,
            "failures": total.failures,
            "processor_seconds": usage.ru_utime + usage.ru_stime,
            "resident_octets": resident_octets(),
        }

    async def do_waited(self) -> list[float]:
        """For how long each chunk was waited for since this was asked last."""
        waited, self._waited = self._waited, []
        return waited

    async def do_moments(self) -> dict[int, float]:
        moments, self._keys.moments = self._keys.moments, {}
        return moments


def resident_octets() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    uvloop.run(Hop(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))).run())
