"""Two key managers as processes, killed at any time: what their applications read stays equal, and no bit is used twice."""

import asyncio
import json
import random
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from key_managers import link_id, node_id

from qswitch.agent.errors import StorageFailed
from qswitch.agent.lkms import control
from qswitch.agent.lkms.store import ledger
from qswitch.integration.identities import Authority

SUPPORT = Path(__file__).parents[2] / "support"


class Process:
    def __init__(self, plan: Path, folder: Path) -> None:
        self.plan, self.folder, self.errors = plan, folder, folder / "errors"
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self.errors.open("ab") as errors:
            program = str(SUPPORT / "key_manager_process.py")
            self.process = await asyncio.create_subprocess_exec(sys.executable, program, str(self.plan), stderr=errors)

    async def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        await self.process.wait()

    def read(self) -> list[tuple[int, str]]:
        """What the application got; a last line may be torn."""
        path = self.folder / "read"
        lines = path.read_text(encoding="ascii").splitlines(keepends=True) if path.exists() else []
        return [(int(line.split()[0]), line.split()[1]) for line in lines if line.endswith("\n")]

    def ids(self) -> dict[str, dict[str, str]]:
        """Digests of keys by their ids: taken as master, fetched as slave."""
        found: dict[str, dict[str, str]] = {"enc": {}, "dec": {}}
        for line in (self.folder / "ids").read_text(encoding="ascii").splitlines(keepends=True):
            if line.endswith("\n") and len(parts := line.split()) == 3:
                assert parts[1] not in found[parts[0]], "a key was delivered twice"
                found[parts[0]][parts[1]] = parts[2]
        return found


def plans(folder: Path, port: Callable[[], int], ids: bool) -> list[Process]:
    authority, ports, found = Authority("kills"), {name: port() for name in "ab"}, []
    for name, peer in ("ab", "ba"):
        own = folder / name
        own.mkdir()
        authority.issue(own, "lkms", name, (f"urn:uuid:{node_id(name)}",), local=False)
        authority.write(own / "ca.pem")
        plan = {"name": name, "peer": peer, "folder": str(own), "link": link_id(1), "ids": ids}
        (own / "plan.json").write_text(json.dumps({**plan, "port": ports[name], "peer_port": ports[peer]}), encoding="utf-8")
        found.append(Process(own / "plan.json", own))
    return found


async def rotate(one: Process, rotated: set[str]) -> None:
    """Asks for another master key; that its process is killed meanwhile, or is not there yet, is no matter."""
    with suppress(ConnectionError, StorageFailed):
        rotated.add(await asyncio.to_thread(control.ask, one.folder / "keys.sqlite", "rotate"))


@pytest.mark.parametrize(
    ("ids", "rotating"),
    [(False, False), (True, False), (True, True)],
    ids=["stream", "stream and keys with ids", "stream, keys with ids and rotations"],
)
@pytest.mark.parametrize("kills", [10, pytest.param(300, marks=pytest.mark.soak)])
@pytest.mark.timeout(1200)
async def test_killed_processes_go_on_with_the_same(
    tmp_path: Path, unused_tcp_port_factory: Callable[[], int], kills: int, ids: bool, rotating: bool
) -> None:
    rotated: set[str] = set()
    both, luck = plans(tmp_path, unused_tcp_port_factory, ids), random.Random(kills)
    try:
        for one in both:
            await one.start()
        await progress(both, 100)
        for _ in range(kills):
            await asyncio.sleep(luck.uniform(0.05, 1.0))
            asking = [asyncio.create_task(rotate(one, rotated)) for one in both if rotating]
            await asyncio.sleep(luck.uniform(0, 0.05) if rotating else 0)
            victims = luck.choice([both[:1], both[1:], both])
            for one in victims:
                await one.kill()
            for one in victims:
                await one.start()
            await asyncio.gather(*asking)
        await progress(both, 100)
    finally:
        for one in both:
            if one.process is not None and one.process.returncode is None:
                await one.kill()
    if ids:
        check_ids(*(one.ids() for one in both), kills)
    check_read(*(one.read() for one in both))
    check_ledgers(*(one.folder / "keys.sqlite" for one in both))
    assert bool(rotated) is rotating
    assert all("alarm" not in one.errors.read_text(encoding="utf-8") for one in both)


async def progress(both: list[Process], chunks: int) -> None:
    """Both ends get so many chunks more."""
    goals = [len(one.read()) + chunks for one in both]
    async with asyncio.timeout(40):
        while any(len(one.read()) < goal for one, goal in zip(both, goals, strict=True)):
            await asyncio.sleep(0.05)


def check_read(one: list[tuple[int, str]], other: list[tuple[int, str]]) -> None:
    for read in (one, other):
        indexes = [index for index, _ in read]
        assert indexes == sorted(set(indexes)), "a chunk was delivered twice"
    there = dict(other)
    common = [(key, there[index]) for index, key in one if index in there]
    assert len(common) > 100
    assert all(here == there for here, there in common)
    keys = {**dict(one), **there}
    assert len(set(keys.values())) == len(keys)


def check_ids(one: dict[str, dict[str, str]], other: dict[str, dict[str, str]], kills: int) -> None:
    """What was fetched is what was taken; nearly all was fetched, but for what was on its way to the file at a kill."""
    for master, slave in ((one["enc"], other["dec"]), (other["enc"], one["dec"])):
        assert len(slave) > 50
        assert all(master[key_id] == digest for key_id, digest in slave.items())
        assert len(master) - len(slave) < 100 + 10 * kills
    digests = [*one["enc"].values(), *other["enc"].values()]
    assert len(set(digests)) == len(digests)


def check_ledgers(*paths: Path) -> None:
    consumers: dict[tuple[int, int], str] = {}
    for path in paths:
        used: set[tuple[int, int]] = set()
        for row in ledger(path):
            octets = {(row.block, octet) for octet in range(row.offset, row.offset + row.length)}
            assert not octets & used, "octets were used twice"
            used |= octets
            if row.kind != "burnt":
                assert all(consumers.setdefault(octet, row.consumer) == row.consumer for octet in octets)
    assert consumers
