"""SIGKILL of any process of a node while keys are drawn: everything comes back, no key is used twice, none differs."""

import asyncio
import random
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import pytest
from applications import QOS, Reader, application, client
from leaks import in_logs

from qswitch.agent.lkms.contents import LedgerRow, ledger
from qswitch.integration.emulation import Emulation

SEED = 20261123


async def _crash(network: Emulation, chance: random.Random) -> str:
    """Kills one process of one node of the stream's route at a random moment and starts it again."""
    node, kind = chance.choice(["Alpha", "Gamma", "Delta"]), chance.choice(["agent", "agent", "netconf"])
    await asyncio.sleep(chance.uniform(0, 0.3))
    await network.kill(f"{network.home(node).name}/{kind}")
    await network.start_process(node, kind)
    return f"{node}/{kind}"


@pytest.mark.timeout(3000)
@pytest.mark.parametrize("kills", [20, pytest.param(500, marks=pytest.mark.soak)])
async def test_kills_while_keys_are_drawn(triangle: Emulation, kills: int) -> None:
    """Alpha–Gamma–Delta is one relay away; agents and NETCONF servers of all three are killed in turn."""
    chance = random.Random(SEED)
    uris = application(triangle, "alpha-1")["uri"], application(triangle, "delta-1")["uri"]
    async with client(triangle, "alpha-1") as a, client(triangle, "delta-1") as b:
        ksid = (await a.open_connect(*uris, QOS)).ksid
        assert ksid
        await b.open_connect(*uris, QOS, ksid)
    readers = Reader(triangle, "alpha-1"), Reader(triangle, "delta-1")
    index = 0
    for _ in range(kills):
        crash = asyncio.create_task(_crash(triangle, chance))
        while not crash.done():
            await asyncio.gather(*(one.draw(ksid, index) for one in readers))
            index += 1
        await crash
    for more in range(index, index + 10):
        await asyncio.gather(*(one.draw(ksid, more) for one in readers))
    for one in readers:
        await one.close()
    assert readers[0].keys == readers[1].keys
    assert len(set(readers[0].keys.values())) == index + 10
    await _links_are_back(triangle)
    _audit(triangle)
    logs = [path.read_bytes() for path in triangle.directory.rglob("*.log")]
    assert not in_logs(logs, readers[0].keys.values())


async def test_stored_key_outlives_a_kill(triangle: Emulation) -> None:
    """What nobody has asked for is all there after a crash, at both ends."""
    link = await _idle_link(triangle)
    before = await _usable(triangle, link)
    await triangle.kill("beta/agent")
    await triangle.start_process("Beta", "agent")
    async with asyncio.timeout(60):
        while min((await _usable(triangle, link)).values(), default=0) < 0.99 * min(before.values()):
            await asyncio.sleep(0.2)


async def _idle_link(network: Emulation) -> str:
    """The link Alpha–Beta, once its key store is full: no key that comes later can stand in for what was lost."""
    async with asyncio.timeout(60):
        while True:
            for one in await network.links():
                names = {one["source"]["name"], one["destination"]["name"]}
                if one["type"] == "PHYS" and names == {"Alpha", "Beta"}:
                    levels = await _usable(network, one["link"])
                    await asyncio.sleep(1.5)
                    if levels == await _usable(network, one["link"]) and len(levels) == 2 and all(levels.values()):
                        return str(one["link"])


async def _usable(network: Emulation, link: str) -> dict[str, int]:
    async with network.api() as api:
        ends = (await api.get(f"/v1/links/{link}")).json()["ends"]
    return {one["node"]: one["usable_bits"] for one in ends}


async def _links_are_back(network: Emulation) -> None:
    async with asyncio.timeout(60):
        while not all(one["status"] == "ACTIVE" for one in await network.links() if one["type"] == "PHYS"):
            await asyncio.sleep(0.2)


def _audit(network: Emulation) -> None:
    """No octet of any block has two uses at one end, and what both ends used they used for the same consumer."""
    books: dict[str, dict[str, list[LedgerRow]]] = {}
    for node in network.nodes():
        for row in ledger(Path(network.home(node)) / "keys.sqlite"):
            books.setdefault(row.link, {}).setdefault(node, []).append(row)
    assert books, "no node kept a ledger"
    for link, ends in books.items():
        for node, rows in ends.items():
            twice = [(a, b) for a, b in _overlaps(rows)]
            assert not twice, f"link {link}: {node} used octets twice: {twice[:3]}"
        assert len(ends) <= 2, f"link {link} has uses at {sorted(ends)}: a relay node wrote relayed key down"
        if len(ends) == 2:
            mine, theirs = ends.values()
            shared = [pair for pair in _overlaps(mine, theirs) if "burnt" not in (pair[0].kind, pair[1].kind)]
            differ = [(a, b) for a, b in shared if a.consumer != b.consumer]
            assert not differ, f"link {link}: the ends gave the same octets to different consumers: {differ[:3]}"


def _overlaps(rows: Iterable[LedgerRow], others: Iterable[LedgerRow] | None = None) -> list[tuple[LedgerRow, LedgerRow]]:
    """Pairs of rows that share octets: within `rows`, or between `rows` and `others`."""
    if others is None:
        ordered = sorted(rows, key=lambda row: (row.block, row.offset))
        return [(a, b) for a, b in pairwise(ordered) if a.block == b.block and a.offset + a.length > b.offset]
    by_block: dict[int, list[LedgerRow]] = {}
    for row in others:
        by_block.setdefault(row.block, []).append(row)
    return [
        (a, b)
        for a in rows
        for b in by_block.get(a.block, [])
        if a.offset < b.offset + b.length and b.offset < a.offset + a.length
    ]
