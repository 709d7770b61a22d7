"""Two ends that were parted in whatever way agree again: what was in doubt is burnt at both, and nothing else.

Both applications read a key stream, and each is master of keys with ids for the other, while sessions are cut, processes
end, and stores are lost or put back from a copy. Afterwards the ledgers of both ends, also lost ones, are held together
octet by octet.
"""

import asyncio
import random
import shutil
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest
from campaign_audit import Uses, pieces
from key_managers import Net, Node, until

from qswitch.agent.errors import NodeError
from qswitch.agent.lkms.contents import LedgerRow, ledger
from qswitch.agent.lkms.keys import Key
from qswitch.agent.lkms.manager import DeliveryConfig, StreamConfig
from qswitch.agent.model import KeyStreamId, LinkId

KSID = KeyStreamId("99999999-0000-4000-8000-000000000001")
PAIR = KeyStreamId("77777777-0000-4000-8000-000000000001")
BLOCKS = 300


class Parted:
    """Nodes a and b on one link, and what their applications got."""

    def __init__(self, net: Net, link: LinkId) -> None:
        self.net, self.link = net, link
        self.a, self.b = net.nodes["a"], net.nodes["b"]
        self.chunks: dict[str, list[tuple[int, bytes]]] = {"a": [], "b": []}
        self.taken: dict[str, dict[str, bytes]] = {"a": {}, "b": {}}  # by the node of the master
        self.lost: dict[str, list[LedgerRow]] = {"a": [], "b": []}  # of stores that are no more
        self.fetched: dict[str, dict[str, bytes]] = {"a": {}, "b": {}}

    @property
    def both(self) -> tuple[Node, Node]:
        return self.a, self.b

    async def begin(self) -> None:
        await self.net.feed(self.link, "a", "b", BLOCKS)
        for here, there in (self.both, self.both[::-1]):
            await here.configure_stream(StreamConfig(KSID, there.id, (self.link,), 32))
            await here.keys.attach(KSID)
            await here.configure_delivery(DeliveryConfig(PAIR, there.id, (self.link,)))

    @asynccontextmanager
    async def load(self) -> AsyncIterator[None]:
        """Applications at work, who ask again when a call fails."""
        working = [asyncio.create_task(work(node)) for node in self.both for work in (self._read, self._ask, self._fetch)]
        try:
            yield
        finally:
            for one in working:
                one.cancel()
            ended = await asyncio.gather(*working, return_exceptions=True)
        assert all(isinstance(one, asyncio.CancelledError) for one in ended), ended

    async def _read(self, node: Node) -> None:
        while True:
            with suppress(NodeError):
                chunk = await node.keys.get_chunk(KSID, None)
                self.chunks[node.name].append((chunk.index, bytes(chunk.key.view())))
            await asyncio.sleep(0.001)

    async def _ask(self, node: Node) -> None:
        luck = random.Random(node.name)
        while True:
            with suppress(NodeError):
                keys = await node.keys.take_keys(PAIR, luck.choice((1, 1, 3)), luck.choice((32, 32, 24)))
                self.taken[node.name] |= _octets(keys)
            await asyncio.sleep(0.001)

    async def _fetch(self, node: Node) -> None:
        """The other's keys, as soon as it has them."""
        there, here = self.taken["b" if node is self.a else "a"], self.fetched[node.name]
        while True:
            for key_id in [one for one in there if one not in here and node.keys.holds(PAIR, one)]:
                with suppress(NodeError):
                    here |= _octets(await node.keys.release_keys({PAIR: [key_id]}))
            await asyncio.sleep(0.005)

    async def goes_on(self, many: int = 20) -> None:
        """Everybody gets so much more."""
        tables: list[list[tuple[int, bytes]] | dict[str, bytes]] = [*self.chunks.values(), *self.taken.values()]
        goals = [len(table) + many for table in tables]
        await until(lambda: all(len(table) >= goal for table, goal in zip(tables, goals, strict=True)), 20)

    # What came of it -------------------------------------------------------------------------------------------------------

    async def settled(self) -> None:
        """Both ends hold the same, and nothing is on its way."""
        await until(lambda: self._levels(self.a) == self._levels(self.b) and self._levels(self.a)[1] > 0, 20)

    def _levels(self, node: Node) -> tuple[int, int]:
        levels = node.keys.levels(self.link)
        return levels.stored_bits, levels.usable_bits

    def books(self) -> Counter[tuple[str, str]]:
        """Octets by what each end has made of them, "held" or "-" where it has not used them; once, and the same."""
        blocks: dict[int, Uses] = defaultdict(lambda: ([], []))
        for end, node in enumerate(self.both):
            for row in (*self.lost[node.name], *ledger(node.config.store)):
                blocks[row.block][end].append(row)
        found: Counter[tuple[str, str]] = Counter()
        for number, uses in blocks.items():
            for octets, (here, there) in pieces(*uses):
                for rows in (here, there):  # who has forgotten that it was used may burn it, and not use it
                    assert sum(row.kind != "burnt" for row in rows) <= 1, "used twice"
                    assert len(rows) <= 1 or any(row in self.lost[name] for row in rows for name in "ab"), "burnt twice"
                used = {(row.kind, row.consumer) for row in (*here, *there) if row.kind != "burnt"}
                assert len(used) <= 1, "used for different things"
                found[self._use(self.a, number, here), self._use(self.b, number, there)] += octets
        return found

    def _use(self, node: Node, number: int, rows: list[LedgerRow]) -> str:
        if rows:
            return rows[0].kind
        return "held" if number in node.keys._pools[self.link]._blocks else "-"

    def check_same(self) -> None:
        """No key came twice, and what both ends got is the same."""
        ones, others = (dict(self.chunks[name]) for name in "ab")
        common = ones.keys() & others.keys()
        assert len(common) > 30 and all(ones[index] == others[index] for index in common)
        for master, slave in (("a", "b"), ("b", "a")):
            got = self.fetched[slave]
            assert len(got) > 20 and all(self.taken[master][key_id] == key for key_id, key in got.items())
        keys = [key for taken in self.taken.values() for key in taken.values()]
        for name in "ab":
            assert len({*keys, *(key for _, key in self.chunks[name])}) == len(keys) + len(self.chunks[name])


def _octets(keys: dict[str, Key]) -> dict[str, bytes]:
    return {key_id: bytes(key.view()) for key_id, key in keys.items()}


@pytest.fixture
async def parted(net: Net) -> Parted:
    await net.node("a", doubt_seconds=2.0)
    await net.node("b", doubt_seconds=2.0)
    found = Parted(net, await net.fibre(1, "a", "b"))
    await found.begin()
    return found


KINDS = ("stream", "014", "tag")
IN_DOUBT = {(kind, "burnt") for kind in KINDS} | {("burnt", kind) for kind in KINDS}
"""Allocated by the owner, not known to the other end."""
AGREED = {(kind, kind) for kind in KINDS} | {("tag", "held"), ("held", "tag")}
"""Tag keys that were drawn and not needed are passed over when the block is used next."""


async def cut(parted: Parted, luck: random.Random) -> None:
    """The connection is gone, with what was on its way in either direction."""
    one, other = luck.choice((parted.both, parted.both[::-1]))
    if (session := one.keys._peers.session(other.id)) is not None:
        session.close()


async def end_one(parted: Parted, luck: random.Random) -> None:
    one = luck.choice(parted.both)
    await one.crash()
    await one.restart()


async def end_both(parted: Parted, _luck: random.Random) -> None:
    for one in parted.both:
        await one.crash()
    for one in parted.both:
        await one.restart()


@pytest.mark.parametrize("how", [cut, end_one, end_both])
async def test_parted_at_random_they_burn_what_was_in_doubt_and_nothing_else(
    parted: Parted, seed: int, how: Callable[[Parted, random.Random], Awaitable[None]]
) -> None:
    luck = random.Random(seed)
    for _ in range(12):
        async with parted.load():  # a process that ends takes its callers with it
            await parted.goes_on(luck.randint(5, 30))
            if how is cut:
                await cut(parted, luck)
                await parted.goes_on(5)
        await how(parted, luck)
    async with parted.load():
        await parted.goes_on(60)
    await parted.settled()
    await until(lambda: set(parted.books()) <= IN_DOUBT | AGREED, 15)  # the stock of keys is filled meanwhile
    books = parted.books()
    burnt = sum(octets for uses, octets in books.items() if uses in IN_DOUBT)
    print(f"burnt in doubt: {burnt} octets of {books.total()}")
    assert burnt == sum(node.keys.levels(parted.link).burnt_bits for node in parted.both) // 8
    parted.check_same()
    assert not any(node.seen.alarms for node in parted.both)


@pytest.mark.parametrize("name", "ab")
async def test_a_lost_store_costs_what_was_in_it(parted: Parted, name: str) -> None:
    """Of what both had, nothing is usable any more: the other end burns its copy, and keys of both are new ones."""
    async with parted.load():
        await parted.goes_on(60)
    one, other = (parted.a, parted.b) if name == "a" else (parted.b, parted.a)
    await one.crash()
    parted.lost[name] = list(ledger(one.config.store))
    for file in one.config.store.parent.glob("keys.sqlite*"):
        file.unlink()
    left, before = other.keys.levels(parted.link).stored_bits, other.keys.levels(parted.link).burnt_bits
    await one.restart()
    await parted.net.feed(parted.link, "a", "b", 100)  # without new key they have none to talk under
    for node in parted.both:
        await node.keys.attach(KSID)
    await until(lambda: min(other.keys._pools[parted.link]._blocks) >= BLOCKS, 15)
    assert other.keys.levels(parted.link).burnt_bits - before == left
    parted.chunks[name], had = [], parted.chunks[name]
    parted.chunks[other.name], had_there = [], parted.chunks[other.name]
    async with parted.load():
        await parted.goes_on(60)
    await parted.settled()
    books = parted.books()
    on_its_way = {uses: octets for uses, octets in books.items() if set(uses) & {"held", "-"} and set(uses) & set(KINDS)}
    assert set(books) - set(on_its_way) <= IN_DOUBT | AGREED | {("-", "burnt"), ("burnt", "-")}, books
    assert sum(on_its_way.values()) < 2 * 4096, (
        "more than what the one had not written down, and what the other has just told"
    )
    parted.check_same()
    new = {key for chunks in parted.chunks.values() for _, key in chunks}
    assert not new & {key for _, key in had + had_there}, "key of before came again"


@pytest.mark.xfail(
    strict=False, reason="chunks that lie ready are read before the ends meet, so those of the copy come again"
)
@pytest.mark.parametrize("name", "ab")
async def test_a_store_put_back_from_a_copy_gives_out_nothing_again(parted: Parted, name: str) -> None:
    """What it holds and the other end knows to be used is burnt; that this has happened is an alarm."""
    async with parted.load():
        await parted.goes_on(40)
    one, other = (parted.a, parted.b) if name == "a" else (parted.b, parted.a)
    await one.crash()
    folder, copy = one.config.store.parent, one.config.store.parent.with_name("copy")
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("*.control"))
    known = len(list(ledger(one.config.store)))
    await one.restart()
    async with parted.load():
        await parted.goes_on(80)
    await one.crash()
    parted.lost[name] = list(ledger(one.config.store))[known:]
    for file in folder.glob("keys.sqlite*"):
        file.unlink()
    for file in copy.glob("keys.sqlite*"):
        shutil.copy2(file, folder)
    await one.restart()
    await parted.net.feed(parted.link, "a", "b", 100)
    had = {key for _, key in parted.chunks[name]}
    parted.chunks = {"a": [], "b": []}
    async with parted.load():
        await parted.goes_on(60)
    await parted.settled()
    parted.books()
    assert one.seen.alarms or other.seen.alarms
    assert not had & {key for _, key in parted.chunks[name]}, "delivered again"
