"""The store in a file."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from qswitch.controller.errors import StoreFailed
from qswitch.controller.store.sqlite import SqliteStore


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(tmp_path / "deep" / "store.sqlite")
    await store.open()
    yield store
    await store.close()


async def test_what_is_written_is_there_after_opening_again(store: SqliteStore, tmp_path: Path) -> None:
    assert await store.write({"link/b": b"2", "link/a": b"1", "app/x": b"3"}) == 1
    assert await store.write({"link/a": None, "link_": b"no link"}) == 2
    again = SqliteStore(tmp_path / "deep" / "store.sqlite")
    await again.open()
    assert await again.read("link/") == {"link/b": b"2"}
    assert list(await again.read("")) == ["app/x", "link/b", "link_"]
    await again.close()


async def test_a_change_is_all_or_nothing(store: SqliteStore) -> None:
    await store.write({"a": b"1"})
    with pytest.raises(StoreFailed):
        await store.write({"a": b"2", "b": "no bytes"} | {"c": object()})  # type: ignore[dict-item]
    assert await store.read("") == {"a": b"1"}
    assert await store.write({"b": b"2"}) == 2


async def test_a_file_that_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"this is no database, and long enough to be seen as none at all" * 20)
    store = SqliteStore(tmp_path / "file")
    with pytest.raises(StoreFailed, match="file"):
        await store.open()
    await store.close()
