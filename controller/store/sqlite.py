"""The store in one SQLite file: write-ahead log, synchronised at every change, blocking calls in one thread of its own."""

import asyncio
import sqlite3
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..errors import StoreFailed
from .base import Store

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS revision (number INTEGER NOT NULL);
INSERT INTO revision SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM revision);
"""


class SqliteStore(Store):
    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, "store")
        self._database: sqlite3.Connection | None = None

    async def open(self) -> None:
        await self._do(self._open)

    async def close(self) -> None:
        await self._do(self._close)
        self._thread.shutdown()

    async def read(self, prefix: str) -> dict[str, bytes]:
        return await self._do(lambda: self._read(prefix))

    async def write(self, changes: Mapping[str, bytes | None]) -> int:
        return await self._do(lambda: self._write(changes))

    async def _do[T](self, action: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, action)
        except (sqlite3.Error, OSError) as error:
            raise StoreFailed(f"{self._path}: {error}") from error

    def _open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._database = sqlite3.connect(self._path, isolation_level=None)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = FULL")
        self._database.executescript(_SCHEMA)

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def _opened(self) -> sqlite3.Connection:
        if self._database is None:
            raise StoreFailed(f"{self._path} is not open")
        return self._database

    def _read(self, prefix: str) -> dict[str, bytes]:
        # Not LIKE, which knows wildcards: all keys from the prefix up to the first that sorts behind every such key.
        rows = self._opened().execute(
            "SELECT key, value FROM entries WHERE key >= ? AND key < ? ORDER BY key", (prefix, prefix + "\U0010ffff")
        )
        return {str(key): bytes(value) for key, value in rows}

    def _write(self, changes: Mapping[str, bytes | None]) -> int:
        database = self._opened()
        database.execute("BEGIN IMMEDIATE")
        try:
            for key, value in changes.items():
                if value is None:
                    database.execute("DELETE FROM entries WHERE key = ?", (key,))
                else:
                    database.execute("INSERT OR REPLACE INTO entries VALUES (?, ?)", (key, value))
            row = database.execute("UPDATE revision SET number = number + 1 RETURNING number").fetchone()
        except BaseException:
            database.execute("ROLLBACK")
            raise
        database.execute("COMMIT")
        return int(row[0])
