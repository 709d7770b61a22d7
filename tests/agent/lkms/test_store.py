"""The store alone: what it does when it cannot write, whatever the reason."""

import asyncio
import errno
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from qswitch.agent.errors import StorageFailed
from qswitch.agent.lkms.keys import Key
from qswitch.agent.lkms.pool import Totals
from qswitch.agent.lkms.store import Store
from qswitch.agent.model import LinkId

LINK = LinkId("00000000-0000-4000-8000-000000000001")


@pytest.fixture
async def alarms() -> list[str]:
    return []


@pytest.fixture
async def store(tmp_path: Path, alarms: list[str]) -> AsyncIterator[Store]:
    one = Store(tmp_path / "keys.sqlite", tmp_path / "master.key", True, alarms.append)
    await one.open()
    yield one
    async with asyncio.timeout(10):
        await one.close()


async def test_what_sqlite_cannot_hold_fails_the_store_and_does_not_silence_it(store: Store, alarms: list[str]) -> None:
    """An OverflowError is no sqlite3.Error: the writer must not end of it, with everybody waiting for ever."""
    left: list[str] = []
    store.totals(LINK, Totals(highest=1 << 63))
    store.after(lambda: left.append("said"))
    async with asyncio.timeout(5):
        with pytest.raises(StorageFailed, match="OverflowError"):
            await store.commit()
        with pytest.raises(StorageFailed, match="no key is released"):
            await store.commit()
    assert len(alarms) == 1 and not left


async def test_an_alarm_that_cannot_be_told_does_not_end_the_writer(tmp_path: Path) -> None:
    """Who is told may write to the same disk that is full; when there is room again, the store must go on."""

    def fail(_problem: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    store, left = Store(tmp_path / "keys.sqlite", tmp_path / "master.key", True, fail), list[str]()
    await store.open()
    real = store._execute

    def full(_statements: object) -> None:
        store._execute = real  # type: ignore[method-assign]
        raise sqlite3.OperationalError("database or disk is full")

    store._execute = full  # type: ignore[method-assign]
    store.totals(LINK, Totals(highest=1))
    store.after(lambda: left.append("said"))
    async with asyncio.timeout(10):
        with pytest.raises(StorageFailed, match="disk is full"):
            await store.commit()
        while store.failing is not None:
            await asyncio.sleep(0.01)
        await store.commit()
        assert left == ["said"]
        await store.close()


async def test_nothing_leaves_a_store_that_closes_without_having_written(tmp_path: Path) -> None:
    """Neither what waits for the batch that failed nor what was noted after it."""
    store, left = Store(tmp_path / "keys.sqlite", tmp_path / "master.key", True, lambda _problem: None), list[str]()
    await store.open()
    store.totals(LINK, Totals(highest=1 << 63))
    store.after(lambda: left.append("first"))
    with pytest.raises(StorageFailed):
        await store.commit()
    store.block(LINK, 4, 0, 32, True, 0.0, Key(bytes(32)))
    store.after(lambda: left.append("second"))
    async with asyncio.timeout(10):
        await store.close()
    assert not left
    again = Store(tmp_path / "keys.sqlite", tmp_path / "master.key", True, lambda _problem: None)
    assert not (await again.open()).blocks, "what came after a gap was written"
    await again.close()


async def test_a_writer_that_is_ended_from_outside_fails_the_store_and_leaves_nobody_waiting(tmp_path: Path) -> None:
    """What it had in hand may not be written: nothing later may be either, nor leave, and closing must come to an end."""
    alarms, left = list[str](), list[str]()
    store = Store(tmp_path / "keys.sqlite", tmp_path / "master.key", True, alarms.append)
    await store.open()
    store.totals(LINK, Totals(highest=1))
    store.after(lambda: left.append("said"))
    committing = asyncio.ensure_future(store.commit())
    await asyncio.sleep(0)
    assert store._writer is not None
    store._writer.cancel()
    async with asyncio.timeout(5):
        with pytest.raises(StorageFailed, match="ended"):
            await committing
        store.totals(LINK, Totals(highest=2))
        with pytest.raises(StorageFailed):
            await store.commit()
        await store.close()
    assert len(alarms) == 1 and not left
