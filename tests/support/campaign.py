"""A crash campaign: four key managers as processes, applications at all of them, and blows that fall by a seeded plan.

    a —1— b —2— c —3— d      fibres;  8: a–c over b, 9: a–d over b and c, virtual links

The applications live here and outlast the nodes: key streams (004) and keys with ids (014), for one slave and for three, on
physical and on virtual links, over the nodes' own servers with mutual TLS. A blow kills some of the nodes, or cuts their
power within a commit, or fills a disk, or kills them while their master key is rotated. The seed decides which, where and
when; what meets it in the processes is their own affair. What came of it is for `campaign_audit` to find.
"""

import asyncio
import json
import os
import random
import signal
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import pytest
from bad_disks import SmallDisk
from campaign_node import BEATS_PER_SECOND, NODES, PAIRS, SHARED, STREAMS, Flow, Plan, uri
from key_managers import node_id

from qswitch.agent.errors import StorageFailed
from qswitch.agent.lkms import control
from qswitch.app.client import Client
from qswitch.app.errors import ClientError, RestError
from qswitch.app.rest import RestClient
from qswitch.integration.configure import free_ports
from qswitch.integration.identities import Authority
from qswitch.protocol.etsi004 import Qos

PAUSE_SECONDS = 2.0  # between two blows, at most
STUCK_SECONDS = 8.0  # a chunk that does not come for so long is given up, and that is counted
ON_DISKS = "bd"  # nodes whose disk can be filled; the others write to a real one
REST_SECONDS = 0.03  # an application leaves the machine to the others: one that is busy is slow to commit
PROBED = 8  # of so many keys that come, it is looked up for one whether the other end has it on its disk


class Kind(StrEnum):
    KILL = "killed"
    POWER = "power cut within a commit"
    FOLDING = "power cut while the log is folded"
    FULL = "killed on a full disk"
    ROTATION = "killed while the master key is rotated"


VICTIMS = (*NODES, "ab", "bc", "cd", "ac", "ad", "bd", "abc", "bcd", "abcd")
"""One end of a link, both, the relay nodes, all: two of four on average."""


@dataclass(frozen=True, slots=True)
class Blow:
    kind: Kind
    victims: str
    pause: float  # seconds since the one before
    delay: float  # within the blow, between its two halves
    seed: int

    @property
    def text(self) -> str:
        return f"after {self.pause:.2f} s: {self.victims} {self.kind}"


def blows(count: int, seed: int, pause: float = PAUSE_SECONDS) -> list[Blow]:
    luck = random.Random(seed)
    kinds = [*[Kind.POWER] * max(1, count // 12), *[Kind.FOLDING] * max(1, count // 50)]
    kinds += [*[Kind.FULL] * max(1, count // 25), *[Kind.ROTATION] * max(1, count // 25)]
    kinds += [Kind.KILL] * (count - len(kinds))
    luck.shuffle(kinds)
    rounds, rest = divmod(count, len(VICTIMS))
    victims = [*VICTIMS * rounds, *luck.sample(VICTIMS, rest)]
    luck.shuffle(victims)
    return [
        Blow(kind, who, luck.uniform(0, pause), luck.uniform(0, 0.4), luck.getrandbits(32))
        for kind, who in zip(kinds, victims, strict=True)
    ]


@dataclass(slots=True)
class Victim:
    """A node's process. `away` while nobody may look at its files."""

    plan: Plan
    disk: SmallDisk | None
    process: int | None = None
    away: bool = False

    def kill(self) -> None:
        assert self.process is not None
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.process, signal.SIGKILL)

    def cut_power(self, seed: int, in_folding: bool) -> None:
        assert self.process is not None
        cut = json.dumps({"seed": seed, "in_folding": in_folding})
        (self.plan.folder / "cut").write_text(cut, encoding="utf-8")
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.process, signal.SIGUSR1)

    async def dead(self, seconds: float) -> bool:
        """Whether the process ends in time."""
        assert self.process is not None
        ended, loop = asyncio.Event(), asyncio.get_running_loop()
        loop.add_reader(self.process, ended.set)
        try:
            async with asyncio.timeout(seconds):
                await ended.wait()
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(self.process)
        os.close(self.process)
        self.process = None
        return True


@dataclass(slots=True)
class Received:
    """What applications got: chunks by flow, end and index; keys by flow, id and end."""

    chunks: dict[tuple[Flow, str], dict[int, bytes]] = field(default_factory=dict)
    keys: dict[tuple[Flow, str], dict[str, bytes]] = field(default_factory=dict)
    skipped: Counter[Flow] = field(default_factory=Counter)  # chunks that did not come, though waited for
    unfetched: Counter[Flow] = field(default_factory=Counter)  # keys that were gone when they were fetched
    refusals: Counter[str] = field(default_factory=Counter)
    twice: int = 0
    looked: int = 0  # so often was the other end's disk looked at
    unheld: list[str] = field(default_factory=list)

    def count(self) -> int:
        return sum(map(len, [*self.chunks.values(), *self.keys.values()]))


class Campaign:
    """`nodes`, `received` and `struck` are what an audit looks at, once `run` has returned and all nodes are dead."""

    def __init__(self, folder: Path, seed: int, say: Callable[[str], None] = print) -> None:
        self.seed, self.say, self.received = seed, say, Received()
        self.struck: Counter[Kind] = Counter()
        self.kills = 0
        self.nodes: dict[str, Victim] = {}
        self.began = time.monotonic()
        self._folder, self._authority = folder, Authority("campaign")
        self._zygote: asyncio.subprocess.Process | None = None
        self._ending = False

    async def run(self, count: int, pause: float = PAUSE_SECONDS) -> None:
        """Raises TimeoutError when what comes to applications does not go on after the blows."""
        async with self._network(round(count * pause / PAUSE_SECONDS)), asyncio.TaskGroup() as group:
            working = [group.create_task(work) for work in self._applications()]
            await self._progress(20)
            for number, blow in enumerate(blows(count, self.seed, pause), 1):
                await self._strike(blow)
                if not number % 25:
                    self.say(f"{self._state(number, count)}")
                    await self._progress(1)
            await self._progress(20)
            self._ending = True
            self.say(self._state(count, count))
            _, late = await asyncio.wait(working, timeout=10)
            for one in late:
                one.cancel()

    def _state(self, number: int, count: int) -> str:
        seconds, found = time.monotonic() - self.began, self.received
        bad = found.twice + len(found.unheld)
        return (
            f"seed {self.seed}: {number}/{count} blows, {self.kills} kills, {found.count()} keys, {bad} bad, {seconds:.0f} s"
        )

    # Nodes -----------------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _network(self, count: int) -> AsyncIterator[None]:
        """All nodes; afterwards none runs, and their files are still there until the test's folder goes."""
        program = str(Path(__file__).with_name("campaign_node.py"))
        pipe = asyncio.subprocess.PIPE
        self._zygote = await asyncio.create_subprocess_exec(sys.executable, program, stdin=pipe, stdout=pipe)
        try:
            self._plan(64_000_000 + 700_000 * count)
            for one in self.nodes.values():
                await self._start(one)
            yield
        finally:
            for one in self.nodes.values():
                if one.process is not None:
                    one.kill()
                    assert await one.dead(10)
            assert self._zygote.stdin is not None
            self._zygote.stdin.close()
            await self._zygote.wait()

    def unmount(self) -> None:
        for one in self.nodes.values():
            if one.disk is not None:
                one.disk.unmount()

    def _plan(self, disk_octets: int) -> None:
        ports = iter(free_ports(3 * len(NODES)))
        numbers = {name: (next(ports), next(ports), next(ports)) for name in NODES}
        began = int(time.time() * BEATS_PER_SECOND) - 40 * BEATS_PER_SECOND // 10
        for name in NODES:
            folder = self._folder / name
            disk = self._disk(folder, disk_octets) if name in ON_DISKS else None
            folder.mkdir(exist_ok=True)
            plan = Plan(name, folder, numbers, began)
            self._authority.issue(folder, "lkms", name, (f"urn:uuid:{node_id(name)}",), local=False)
            self._authority.issue(folder, "node", name, (f"urn:uuid:{node_id(name)}",), local=True)
            self._authority.write(folder / "ca.pem")
            plan.write()
            self.nodes[name] = Victim(plan, disk)
        for name in NODES:
            for kind in ("004", "014"):
                self._authority.issue(self._folder, f"{name}-{kind}", name, (uri(name, kind),), local=False)

    @staticmethod
    def _disk(folder: Path, octets: int) -> SmallDisk | None:
        """Where none can be mounted, there are no full disks."""
        try:
            return SmallDisk(folder, octets)
        except pytest.skip.Exception:
            return None

    async def _start(self, one: Victim) -> None:
        assert self._zygote is not None and self._zygote.stdin is not None and self._zygote.stdout is not None
        self._zygote.stdin.write(f"{one.plan.folder / 'plan.json'}\n".encode())
        one.process = os.pidfd_open(int(await self._zygote.stdout.readline()))
        one.away = False

    # Blows -----------------------------------------------------------------------------------------------------------------

    async def _strike(self, blow: Blow) -> None:
        await asyncio.sleep(blow.pause)
        victims = [self.nodes[name] for name in blow.victims]
        disks = [one.disk for one in self.nodes.values() if one.disk is not None]
        kind = Kind.KILL if blow.kind is Kind.FULL and not disks else blow.kind
        self.struck[kind] += 1
        match kind:
            case Kind.POWER | Kind.FOLDING:
                await self._cut(victims, blow)
            case Kind.FULL:
                await self._fill(disks, victims, blow)
            case Kind.ROTATION:
                await self._rotate(victims, blow)
            case _:
                await self._kill(victims)
        for one in victims:
            if one.process is None:
                await self._start(one)
        self.kills += len(victims)

    @staticmethod
    async def _kill(victims: list[Victim]) -> None:
        for one in victims:
            one.away = True
            one.kill()
        for one in victims:
            assert await one.dead(10)
            one.away = False

    async def _cut(self, victims: list[Victim], blow: Blow) -> None:
        for number, one in enumerate(victims):
            one.away = True
            one.cut_power(blow.seed + number, blow.kind is Kind.FOLDING)
        for one in victims:
            if not await one.dead(5):  # nothing was written any more
                one.kill()
                assert await one.dead(10)

    async def _fill(self, disks: list[SmallDisk], victims: list[Victim], blow: Blow) -> None:
        """Kills while the disks are full, and starts the nodes before there is room again."""
        for disk in disks:
            disk.fill()
        try:
            await asyncio.sleep(blow.delay)
            await self._kill(victims)
            for one in victims:
                await self._start(one)
            await asyncio.sleep(blow.delay)
        finally:
            for disk in disks:
                disk.empty()

    async def _rotate(self, victims: list[Victim], blow: Blow) -> None:
        async def ask(one: Victim) -> None:
            with suppress(ConnectionError, StorageFailed):
                await asyncio.to_thread(control.ask, one.plan.config.store, "rotate")

        asking = [asyncio.create_task(ask(one)) for one in victims]
        await asyncio.sleep(blow.delay / 8)
        await self._kill(victims)
        for one in victims:
            await self._start(one)
        await asyncio.gather(*asking)

    async def _progress(self, many: int) -> None:
        """Every application gets so many keys more."""
        found = self.received
        tables: dict[object, dict[int, bytes] | dict[str, bytes]] = {**found.chunks, **found.keys}
        goals = {one: len(table) + many for one, table in tables.items()}
        try:
            async with asyncio.timeout(45):
                while behind := [one for one, goal in goals.items() if len(tables[one]) < goal]:
                    await asyncio.sleep(0.02)
        except TimeoutError:
            what = f"nothing comes any more to {behind}; {self.received.refusals}\n{self._last_words()}"
            raise TimeoutError(what) from None

    def _last_words(self) -> str:
        """Of every node."""
        logs = {name: one.plan.log.read_text(errors="replace").splitlines() for name, one in self.nodes.items()}
        told = {name: [line for line in log if not line.startswith("DEBUG")][-12:] for name, log in logs.items()}
        return "\n".join(f"{name}: {line}" for name, lines in told.items() for line in lines)

    # Applications ----------------------------------------------------------------------------------------------------------

    def _applications(self) -> list[Awaitable[None]]:
        found: list[Awaitable[None]] = []
        for flow in STREAMS:
            for here, there in ((flow.one, flow.other), (flow.other, flow.one)):
                self.received.chunks[flow, here] = {}
                found.append(self._read(flow, here, there))
        for flows in (*((one,) for one in PAIRS), SHARED):
            told = [asyncio.Queue[list[str]]() for _ in flows]
            for flow in flows:
                self.received.keys[flow, flow.one], self.received.keys[flow, flow.other] = {}, {}
            found.append(self._ask(flows, told))
            found += [self._fetch(flow, queue) for flow, queue in zip(flows, told, strict=True)]
        return found

    def _files(self, node: str, kind: str) -> dict[str, Path]:
        folder = self._folder
        certificate, key = folder / f"{node}-{kind}.pem", folder / f"{node}-{kind}.key"
        return {"certificate": certificate, "private_key": key, "ca": folder / node / "ca.pem"}

    async def _read(self, flow: Flow, here: str, there: str) -> None:
        """An application of 004: one index after the other, again when the reply was lost."""
        got, where = self.received.chunks[flow, here], self.nodes[here].plan.endpoint(here, 1)
        index, since = 0, time.monotonic()
        async with Client(where.address, where.port, **self._files(here, "004")) as client:
            qos = Qos(key_chunk_size=flow.size, timeout=3000)
            await self._until(lambda: client.open_connect(uri(here, "004"), uri(there, "004"), qos, flow.ksid))
            while not self._ending:
                stuck = time.monotonic() - since > STUCK_SECONDS
                try:
                    chunk = await client.get_key(flow.ksid, None if stuck else index)
                except ClientError as error:
                    self.received.refusals[f"{flow.kind} {type(error).__name__} {getattr(error, 'status', '')}"] += 1
                    await asyncio.sleep(0.02)
                    continue
                self.received.skipped[flow] += abs(chunk.index - index)
                self.received.twice += chunk.index in got
                got[chunk.index] = bytes(chunk.key)
                self._look_at(there, flow, chunk.index)
                index, since = chunk.index + 1, time.monotonic()
                await asyncio.sleep(REST_SECONDS)

    async def _until[T](self, call: Callable[[], Awaitable[T]]) -> T | None:
        while not self._ending:
            try:
                return await call()
            except ClientError as error:
                self.received.refusals[f"{type(error).__name__} {getattr(error, 'status', '')}"] += 1
                await asyncio.sleep(0.02)
        return None

    async def _ask(self, flows: tuple[Flow, ...], told: list[asyncio.Queue[list[str]]]) -> None:
        """A master of 014: mostly one key of the usual size."""
        first, *more = [uri(flow.other, "014") for flow in flows]
        master, sizes = flows[0].one, random.Random(self.seed)
        url = f"https://127.0.0.1:{self.nodes[master].plan.ports[master][2]}"
        async with RestClient(url, **self._files(master, "014")) as client:
            while not self._ending:
                number, bits = sizes.choice(((1, 256), (1, 256), (3, 256), (1, 512)))
                keys = await self._until(lambda: client.enc_keys(first, number, bits, more))  # noqa: B023
                for flow, queue in zip(flows, told, strict=True) if keys else ():
                    assert keys is not None
                    for key_id, key in keys.items():
                        self._keep(flow, flow.one, key_id, bytes(key))
                        self._look_for(flow, key_id)
                    queue.put_nowait(list(keys))
                await asyncio.sleep(2 * REST_SECONDS)
        for queue in told:
            queue.put_nowait([])

    async def _fetch(self, flow: Flow, told: asyncio.Queue[list[str]]) -> None:
        """A slave: what is gone went with a reply that was lost."""
        url = f"https://127.0.0.1:{self.nodes[flow.other].plan.ports[flow.other][2]}"
        async with RestClient(url, **self._files(flow.other, "014")) as client:
            while key_ids := await told.get():
                lost = False
                while True:
                    try:
                        for key_id, key in (await client.dec_keys(uri(flow.one, "014"), key_ids)).items():
                            self._keep(flow, flow.other, key_id, bytes(key))
                        break
                    except RestError as error:
                        self.received.refusals[f"014 {error.status}"] += 1
                        if error.status == 400:
                            assert lost, f"{flow}: a key that was delivered is not there: {error}"
                            self.received.unfetched[flow] += len(key_ids)
                            break
                    except ClientError as error:
                        self.received.refusals[f"014 {type(error).__name__}"] += 1
                        lost = True
                    await asyncio.sleep(0.02)

    def _keep(self, flow: Flow, end: str, key_id: str, key: bytes) -> None:
        self.received.twice += key_id in self.received.keys[flow, end]
        self.received.keys[flow, end][key_id] = key

    # What is on the other end's disk when a key comes --------------------------------------------------------------------

    def _look_at(self, node: str, flow: Flow, index: int) -> None:
        self._look(node, f"chunk {index} of {flow}", "SELECT next_index > ? FROM streams WHERE ksid = ?", index, flow.ksid)

    def _look_for(self, flow: Flow, key_id: str) -> None:
        """Before its slave is told of it: nobody can have fetched it."""
        select = "SELECT count(*) FROM keys WHERE ksid = ? AND id = ? AND ours = 0"
        self._look(flow.other, f"key {key_id} of {flow}", select, flow.ksid, key_id)

    def _look(self, node: str, what: str, select: str, *values: object) -> None:
        one, store = self.nodes[node], self.nodes[node].plan.config.store
        if one.away or random.randrange(PROBED):
            return
        with suppress(sqlite3.Error), closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True, timeout=1)) as database:
            found = database.execute(select, values).fetchone()
            self.received.looked += 1
            if not found or not found[0]:
                self.received.unheld.append(what)
