"""Disks that fail: nothing is released, nothing is used twice, nothing is lost that was promised, and all recovers."""

import asyncio
import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from bad_disks import PowerCut, SmallDisk, files_no_longer_than, image, put_back, torn_log
from key_managers import Net, Node, audit, link_id, material, until

from qswitch.agent.errors import StorageFailed
from qswitch.agent.lkms import inspection, store
from qswitch.agent.lkms.manager import StreamConfig
from qswitch.agent.model import KeyStreamId

KSID = KeyStreamId("99999999-0000-4000-8000-000000000001")
LINK = link_id(1)
Read = dict[int, bytes]


@pytest.fixture
def disk(net: Net) -> Iterator[Callable[[int], SmallDisk]]:
    """A disk of so many octets for the files of node a."""
    made: list[SmallDisk] = []

    def make(octets: int) -> SmallDisk:
        made.append(SmallDisk(net.folder / "a", octets))
        return made[0]

    yield make
    for one in made:
        one.unmount()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "RETRY_SECONDS", 0.1)


async def begin(net: Net, blocks: int, size: int = 32) -> tuple[Node, Node]:
    a, b = await net.node("a"), await net.node("b")
    await net.feed(await net.fibre(1, "a", "b"), "a", "b", blocks)
    for here, there in ((a, b), (b, a)):
        await here.configure_stream(StreamConfig(KSID, there.id, (LINK,), size))
        await here.keys.attach(KSID)
    return a, b


async def take(node: Node, read: Read, count: int) -> None:
    """The application of a node reads on; that it gets a chunk twice is a failure."""
    for _ in range(count):
        async with asyncio.timeout(10):
            chunk = await node.keys.get_chunk(KSID, None)
        assert chunk.index not in read, "delivered twice"
        read[chunk.index] = bytes(chunk.key.view())


async def fill(node: Node, first: int) -> int:
    """Delivers blocks that only this end gets, until the store fails; the first number that was not delivered."""
    number = first
    while node.keys._store.failing is None:
        await node.keys.deliver(LINK, number, material(LINK, number))
        with suppress(StorageFailed):
            await node.keys._store.commit()
        number += 1
    return number


def settle(net: Net, one: Read, other: Read) -> None:
    """Both applications have the same, no octet went two ways, and the stores are in order."""
    common = one.keys() & other.keys()
    assert len(common) > 20
    assert all(one[index] == other[index] for index in common)
    assert len({*one.values(), *other.values()}) == len(one.keys() | other.keys())
    audit(net, LINK)
    for node in net.nodes.values():
        assert not inspection.verify(node.config, runs=True).problems
        assert not [alarm for alarm in node.seen.alarms if "no key is released" not in alarm]


# Full ------------------------------------------------------------------------------------------------------------------


async def test_a_full_disk_releases_nothing_and_recovers_when_there_is_room(
    net: Net, disk: Callable[[int], SmallDisk]
) -> None:
    small = disk(8_000_000)
    a, b = await begin(net, 8)
    ones, others = Read(), Read()
    await take(a, ones, 20)
    small.fill()
    following = await fill(a, 8)
    assert [alarm for alarm in a.seen.alarms if "full" in alarm] == a.seen.alarms and len(a.seen.alarms) == 1
    for _ in range(3):
        with pytest.raises(StorageFailed):
            await a.keys.get_chunk(KSID, None)
    device = asyncio.create_task(a.keys.deliver(LINK, following, material(LINK, following)))
    await take(b, others, 20)  # what is there already is not held up
    assert not device.done(), "a device waits while the disk is full"
    small.empty()
    async with asyncio.timeout(5):
        await device
    await take(a, ones, 200)
    await take(b, others, 200)
    assert [*ones] == [*range(220)] == [*others], "a chunk was lost, though no process ended"
    settle(net, ones, others)


async def test_a_rotation_that_would_fill_the_disk_is_refused(net: Net, disk: Callable[[int], SmallDisk]) -> None:
    disk(8_000_000)
    a, b = await begin(net, 8)
    assert isinstance(a.config.master_key, Path)
    before = a.config.master_key.read_bytes()
    with pytest.raises(StorageFailed, match="needs 16 MiB of free disk"):
        await a.keys._store.rotate()
    assert a.config.master_key.read_bytes() == before
    ones, others = Read(), Read()
    await take(a, ones, 50)
    await take(b, others, 50)
    settle(net, ones, others)


async def test_an_agent_killed_on_a_full_disk_says_so_until_there_is_room(
    net: Net, disk: Callable[[int], SmallDisk]
) -> None:
    small = disk(8_000_000)
    a, b = await begin(net, 8)
    ones, others = Read(), Read()
    await take(a, ones, 30)
    await take(b, others, 20)
    small.fill()
    await fill(a, 8)
    await a.crash()
    with pytest.raises(StorageFailed, match=r"full|No space"):
        await Node("a", a.config).keys.start()
    small.empty()
    await a.restart()
    await take(a, ones, 100)
    await take(b, others, 100)
    settle(net, ones, others)


async def test_files_that_may_not_grow_are_as_a_disk_that_fails(net: Net) -> None:
    """EFBIG, an I/O error to SQLite, at both ends at once."""
    a, b = await begin(net, 8)
    ones, others = Read(), Read()
    await take(a, ones, 20)
    await take(b, others, 20)
    with files_no_longer_than(400_000):
        first = 8
        while not (a.keys._store.failing and b.keys._store.failing):
            first = max([first, *[await fill(node, first) for node in (a, b) if not node.keys._store.failing]])
        for node in (a, b):
            with pytest.raises(StorageFailed):
                await node.keys.get_chunk(KSID, None)
    await until(lambda: not (a.keys._store.failing or b.keys._store.failing))
    await take(a, ones, 200)
    await take(b, others, 200)
    assert [*ones] == [*range(220)] == [*others]
    settle(net, ones, others)


async def test_a_disk_that_is_read_only_is_told_at_the_start(net: Net, disk: Callable[[int], SmallDisk]) -> None:
    small = disk(2_000_000)
    a, _ = await begin(net, 2)
    await a.crash()
    small.protect()
    with pytest.raises(StorageFailed, match=r"keys\.sqlite.*[Rr]ead-only"):
        await Node("a", a.config).keys.start()


# Torn ------------------------------------------------------------------------------------------------------------------


def test_a_torn_log_never_takes_back_what_was_committed_before(tmp_path: Path) -> None:
    """Not of the store: of the disk that the tests below put under it. The log begins anew within the last commit."""
    path, luck, rows = tmp_path / "rows.sqlite", random.Random(1), 0
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        for setting in ("journal_mode = WAL", "synchronous = FULL", "wal_autocheckpoint = 20"):
            database.execute(f"PRAGMA {setting}").fetchall()
        database.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, content BLOB)")
        before = after = image(path)
        while len(after["-wal"]) == 0 or after["-wal"][:32] == before["-wal"][:32] or not rows:
            before, many = after, 40 if len(after["-wal"]) > 20 * 4120 else 1
            database.execute("BEGIN")
            database.executemany("INSERT INTO rows VALUES (NULL, ?)", [(luck.randbytes(300),) for _ in range(many)])
            database.execute("COMMIT")
            rows, after = rows + many, image(path)
    old = rows - many
    for _ in range(300):
        put_back(path, {"": after[""], "-wal": torn_log(before["-wal"], after["-wal"], luck)})
        with closing(sqlite3.connect(path)) as database:
            assert database.execute("SELECT count(*) FROM rows").fetchone()[0] in (old, rows)


@pytest.mark.parametrize("cuts", [12, pytest.param(200, marks=pytest.mark.soak)])
@pytest.mark.timeout(900)
async def test_power_is_cut_within_commits(net: Net, cuts: int) -> None:
    """Of what the last commit wrote, any sectors may be there, any not, any garbage: nobody was told of it."""
    luck, read = random.Random(cuts), {"a": Read(), "b": Read()}
    a, b = await begin(net, min(900, 40 + 8 * cuts), 256)
    for count in range(cuts):
        await asyncio.gather(take(a, read["a"], 20), take(b, read["b"], 20))
        victims = luck.choice([[a], [b], [a, b]])
        power = [PowerCut(node, luck, in_folding=count % 4 == 3) for node in victims]
        readers = [asyncio.create_task(take(node, read[node.name], 1000)) for node in (a, b)]
        if count % 4 == 3:
            await asyncio.gather(*(node.keys._store.fold() for node in victims), return_exceptions=True)
        waiting = [asyncio.create_task(one.done.wait()) for one in power]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED, timeout=10)
        for one in power:
            one.nudge()
        async with asyncio.timeout(10):
            await asyncio.gather(*waiting)
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
        for one in power:
            await one.restart()
    await asyncio.gather(take(a, read["a"], 50), take(b, read["b"], 50))
    settle(net, read["a"], read["b"])
    levels = a.keys.levels(LINK)
    print(f"{cuts} cuts: {levels.burnt_bits / levels.generated_bits:.2%} of the key burnt")
