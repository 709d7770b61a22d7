"""Several clients of one end who share a stream's key: each gets each chunk once, through crashes and changes."""

import asyncio
from dataclasses import replace

import pytest
from key_managers import Net, Node, audit, link_id, until

from qswitch.agent.errors import InvalidValue, UnknownKeyStream
from qswitch.agent.lkms import readers
from qswitch.agent.lkms.manager import StreamConfig
from qswitch.agent.model import KeyStreamId

KSID = KeyStreamId("99999999-0000-4000-8000-000000000001")
AB = link_id(1)


@pytest.fixture
async def nodes(net: Net) -> tuple[Node, Node]:
    """One application at `a`, Bob and Carol at `b`."""
    a, b = await net.node("a"), await net.node("b")
    await net.feed(await net.fibre(1, "a", "b"), "a", "b", 4)
    await a.configure_stream(StreamConfig(KSID, b.id, (AB,), 32))
    await b.configure_stream(StreamConfig(KSID, a.id, (AB,), 32, readers=("bob", "carol")))
    for node in (a, b):
        await node.keys.attach(KSID)
    return a, b


async def read(node: Node, index: int | None, reader: str = "") -> tuple[int, bytes]:
    async with asyncio.timeout(10):
        chunk = await node.keys.get_chunk(KSID, index, reader)
    return chunk.index, bytes(chunk.key.view())


def stored(node: Node) -> set[int]:
    return set(node.keys._streams[KSID].chunks)


async def test_each_client_gets_every_chunk_once(nodes: tuple[Node, Node], net: Net) -> None:
    a, b = nodes
    at_a = [await read(a, index) for index in range(6)]
    assert [await read(b, index, "bob") for index in range(6)] == at_a
    assert (await read(b, 5, "bob")) == at_a[5], "a lost reply is given again"
    for index in range(5):
        with pytest.raises(InvalidValue):
            await b.keys.get_chunk(KSID, index, "bob")
    assert {*range(6)} <= stored(b)
    assert [await read(b, None, "carol") for _ in range(6)] == at_a, "at her own pace"
    assert not {*range(5)} & stored(b), "all have had them"
    assert await read(b, None, "bob") == await read(b, 6, "carol") == await read(a, 6)
    assert b.keys.consumed_bits(KSID) == 7 * 256, "key that is shared is consumed once"
    audit(net, AB)


async def test_nobody_else_gets_any(nodes: tuple[Node, Node]) -> None:
    _, b = nodes
    for stranger in ("", "dave"):
        with pytest.raises(UnknownKeyStream):
            await b.keys.get_chunk(KSID, 0, stranger)


async def test_a_client_that_waits_holds_up_no_other(nodes: tuple[Node, Node]) -> None:
    _, b = nodes
    waits = asyncio.create_task(b.keys.get_chunk(KSID, 700, "bob"))
    await until(lambda: KSID in b.keys._waiters)
    assert (await read(b, 0, "carol"))[0] == 0
    waits.cancel()


async def test_a_crash_gives_nothing_twice(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    at_a = [await read(a, index) for index in range(8)]
    assert [await read(b, index, "bob") for index in range(5)] == at_a[:5]
    assert await read(b, 1, "carol") == at_a[1]
    for _ in range(2):
        await b.crash()
        await b.restart()
        assert await read(b, 4, "bob") == at_a[4]
        for index, reader in ((0, "bob"), (3, "bob")):
            with pytest.raises(InvalidValue):
                await b.keys.get_chunk(KSID, index, reader)
    assert [await read(b, index, "carol") for index in (0, 2, 3, 4)] == [at_a[index] for index in (0, 2, 3, 4)]
    assert await read(b, None, "bob") == at_a[5]
    assert not {*range(4)} & stored(b)


async def test_a_call_that_is_given_up_loses_no_chunk(nodes: tuple[Node, Node]) -> None:
    _, b = nodes
    assert (await read(b, None, "bob"))[0] == 0
    given_up = asyncio.create_task(b.keys.get_chunk(KSID, None, "bob"))
    await asyncio.sleep(0)
    given_up.cancel()
    await asyncio.wait([given_up])
    assert [(await read(b, None, "bob"))[0], (await read(b, None, "carol"))[0]] == [1, 0]


async def test_what_one_may_have_had_is_for_no_other(nodes: tuple[Node, Node]) -> None:
    """Clients come to share a stream that one has read from, and cease to."""
    a, b = nodes
    alone = replace(b.streams[KSID], readers=())
    await b.configure_stream(alone)
    at_a = [await read(a, index) for index in range(8)]
    assert [await read(b, index) for index in range(3)] == at_a[:3]
    await b.configure_stream(replace(alone, readers=("bob", "carol")))
    for reader in ("bob", "carol"):
        with pytest.raises(InvalidValue):
            await b.keys.get_chunk(KSID, 2, reader)
    assert [await read(b, index, "bob") for index in (3, 4)] == at_a[3:5]
    await b.configure_stream(replace(alone, readers=("carol", "dave")))
    assert [await read(b, index, "dave") for index in (3, 4)] == at_a[3:5], "who comes later gets what is there"
    await b.configure_stream(alone)
    assert not {3, 4} & stored(b)
    assert await read(b, None) == at_a[5]
    await b.crash()
    await b.restart()
    assert await read(b, 5) == at_a[5] and await read(b, None) == at_a[6]


async def test_one_that_never_comes_keeps_no_key_for_ever(nodes: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "LAG", 10)
    a, b = nodes
    for index in range(30):
        assert await read(b, index, "bob") == await read(a, index)
    assert min(stored(b)) == 19
    assert (await read(b, None, "carol"))[0] == 19


async def test_one_far_behind_gets_what_nobody_has_had_and_may_ask_again(
    nodes: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "LAG", 10)
    a, b = nodes
    at_a = [await read(a, index) for index in range(6)]
    for index in (0, 30):
        await read(b, index, "bob")
    for _ in range(2):
        assert await read(b, 3, "carol") == at_a[3]
    assert await read(b, 5, "carol") == at_a[5]
    assert 3 not in stored(b), "she has gone on"
    assert await read(b, 2, "bob") == at_a[2], "who went ahead may go back to what was skipped"


async def test_ttl_and_the_end_of_the_stream_erase(nodes: tuple[Node, Node]) -> None:
    _, b = nodes
    await read(b, 3, "bob")
    await b.configure_stream(replace(b.streams[KSID], ttl_seconds=0))
    await until(lambda: not stored(b) & {*range(4)}, 5)
    assert not b.keys._streams[KSID].readers.had
    await b.keys.remove_stream(KSID)
    await b.crash()
    await b.restart()
    assert not b.keys._streams[KSID].readers.readings
