"""The durable key store: SQLite with write-ahead log, every row that holds key sealed under the node's master key.

`Store` is the journal of pools, streams and relays: their notes (notes.py) are gathered while the loop turns, and written in
one transaction by one thread, which many requests share. `after` runs a callback once everything noted before it is on
disk, in order: nothing leaves the process but by way of it. While the disk fails, nothing is released; the same notes
are tried again, so that memory and disk never disagree about more than what has not left.

Sealing: seal.py, master_key.py; every table that holds key stands in `SEALED` (contents.py), which is all that rotation,
`verify` and `purge` need to know of it. Overwriting: SQLite's secure_delete zeroes deleted content in the database file, the
log is truncated every few seconds and at the end; what a flash medium or a copying file system keeps of old blocks, it keeps
sealed only. A store that is put back from a copy is noticed when the ends meet, as far as the other end knows of uses that
this one has forgotten; of a message that left and was lost, nobody does.
"""

import asyncio
import logging
import os
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from ..config import MasterKeySource
from ..errors import StorageFailed
from .contents import SCHEMA, SEALED, Contents, load
from .database import connect, mark, next_opening, take_lock, unseal
from .keys import Key
from .master_key import find, follow, make, read, successor, there
from .notes import Notes
from .seal import Seal, change_master, opened

log = logging.getLogger(__name__)

LINGER_SECONDS = 0.02
"""Notes that nobody waits for are gathered so long: at many blocks a second, fewer commits."""
RETRY_SECONDS = 1.0
ROOM_OCTETS = 16 << 20
PATIENCE_MS, FOLD_PATIENCE_MS = 5000, 50


def _call(callback: Callable[[], None]) -> None:
    """One that fails must not keep the others from being called."""
    try:
        callback()
    except Exception:
        log.exception("callback failed")


Statement = tuple[str, tuple[Any, ...]] | Callable[[sqlite3.Connection], None]


def _text(statement: Statement) -> str | None:
    """Of one text, which stand one after the other, SQLite is asked at once."""
    return None if callable(statement) else statement[0]


def _problem(error: Exception) -> str:
    if isinstance(error, sqlite3.Error | OSError):
        return str(error)
    log.error("key store cannot write what was noted", exc_info=error)
    return f"{type(error).__name__}: {error}"


@dataclass(slots=True)
class _Batch:
    statements: list[Statement] = field(default_factory=list)
    callbacks: list[Callable[[], None]] = field(default_factory=list)
    waiters: list[asyncio.Future[None]] = field(default_factory=list)


class Store(Notes):
    """Notes and `after` are called on the loop and return at once. `failing` while the disk does not take what was noted."""

    def __init__(self, path: Path, master_key: MasterKeySource, keeps_ledger: bool, failed: Callable[[str], None]) -> None:
        self._path, self._master_key = path, master_key
        self._keeps_ledger, self._failed = keeps_ledger, failed
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="key-store")
        self._lock: int | None = None
        self._database: sqlite3.Connection | None = None
        self._seal = Seal(Key(bytearray()))
        self._batch, self.turn = _Batch(), 0
        self._writer: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()
        self._uses = 0
        self.failing: str | None = None
        self.gather: Callable[[], None] = lambda: None
        self._gathers = False
        self._closing = self._gave_up = self._rotating = False

    # Life ------------------------------------------------------------------------------------------------------------

    async def open(self) -> Contents:
        """Raises StorageFailed when the files cannot be used or do not open under the master key."""
        try:
            return await self._run(self._open)
        except StorageFailed:
            self._release_lock()
            raise
        except (sqlite3.Error, OSError) as error:
            self._release_lock()
            raise StorageFailed(f"{self._path}: {error}") from error

    async def close(self) -> None:
        """Writes what is noted, then closes; the log is folded into the file."""
        self._closing = True
        self._hurry.set()
        while self._writer is not None and not self._writer.done():
            await asyncio.wait([self._writer])
        if self._database is not None:
            with suppress(sqlite3.Error):
                await self._run(self._fold)
            await self._run(self._database.close)
            self._database = None
        self._release_lock()
        self._thread.shutdown()

    async def _run[T](self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _open(self) -> Contents:
        self._lock = take_lock(self._path)
        database = connect(self._path, SCHEMA)
        try:
            contents = self._open_rows(database)
        except BaseException:
            database.close()
            raise
        (self._uses,) = database.execute("SELECT coalesce(max(id), 0) FROM ledger").fetchone()
        self._database = database
        return contents

    def _open_rows(self, database: sqlite3.Connection) -> Contents:
        found = find(self._master_key, mark(database))
        self._seal = unseal(database, found.key)
        contents = load(database, self._seal)
        self._seal.begin(next_opening(database))
        self._seal.forget()
        with database:  # opens no transaction by itself
            database.execute("BEGIN IMMEDIATE")
            database.execute("INSERT INTO salts VALUES (?, ?)", (self._seal.opening, self._seal.salt))
            database.execute("UPDATE ahead SET burnt = burnt + octets, octets = 0 WHERE octets > 0")  # by a crash
            database.execute("INSERT OR IGNORE INTO master VALUES (1, ?, ?)", (self._seal.fingerprint, time.time()))
        if found.following and isinstance(self._master_key, Path):
            log.warning("rotation of the master key finished, which was interrupted path=%s", self._master_key)
            follow(self._master_key)
        return contents

    def _release_lock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _note(self, statement: str, *values: Any) -> None:
        self._note_work((statement, values))

    def _note_work(self, statement: Statement) -> None:
        self._batch.statements.append(statement)
        self._start()

    def _start(self) -> None:
        if self._writer is None and not self._closing:
            self._writer = asyncio.get_running_loop().create_task(self._write(), name="key store")

    # Commits -------------------------------------------------------------------------------------------------------------

    def soon(self, *, urgent: bool = True) -> None:
        """Has `gather` called just before what is noted is written next, so that it may note more, and say what follows."""
        self._gathers = True
        self._start()
        if urgent:
            self._hurry.set()

    def after(self, callback: Callable[[], None], *, urgent: bool = True) -> None:
        """Runs the callback, in order, once everything noted so far is durable. Not urgent: a moment later is well, too."""
        if self._gave_up and self._writer is None:  # it never will be
            return
        if self._writer is None and not self._batch.statements:
            callback()
            return
        self._batch.callbacks.append(callback)
        if urgent:
            self._hurry.set()

    async def commit(self) -> None:
        """Returns once everything noted so far is durable. Raises StorageFailed when the disk does not take it."""
        if self.failing is not None:
            raise StorageFailed(self.failing)
        if self._writer is None and self._batch.statements:
            raise StorageFailed(f"{self._path} is closed")
        if self._writer is not None:
            future = asyncio.get_running_loop().create_future()
            self._batch.waiters.append(future)
            self._hurry.set()
            await future

    async def _write(self) -> None:
        """One batch after the other; what one turn of the loop notes is one batch."""
        batch = self._batch
        try:
            while await self._something():
                if self._gathers:
                    self._gathers = False
                    _call(self.gather)
                batch, self._batch, self.turn = self._batch, _Batch(), self.turn + 1
                self._hurry.clear()
                await self._persist(batch)
                for callback in batch.callbacks:
                    _call(callback)
                for waiter in batch.waiters:
                    if not waiter.done():
                        waiter.set_result(None)
        except BaseException as error:  # what it had in hand may not be on disk: nothing later may be, or leave
            self._gave_up = self._closing = True
            self._fail(f"the writer has ended: {error!r}", batch)
            raise
        finally:
            self._writer = None

    async def _something(self) -> bool:
        """Gathers notes for a moment. False when there are none and the writer may end."""
        if self._gathers or self._batch.statements or self._batch.callbacks or self._batch.waiters:
            if not (self._batch.waiters or self._closing):
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._hurry.wait(), LINGER_SECONDS)
            return True
        return False

    async def _persist(self, batch: _Batch) -> None:
        """Tries until the disk takes it; who waits meanwhile is told so, and nothing leaves."""
        folded = False
        while batch.statements and not self._gave_up:
            try:
                await self._run(lambda: self._execute(batch.statements))
            except Exception as error:  # whatever it is: a writer that ended would leave everybody waiting for ever
                if not folded and getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
                    folded = True
                    await self.fold()  # the log itself may be what fills the disk
                    continue
                self._fail(_problem(error), batch)
                self._gave_up = self._closing
                if not self._gave_up:
                    await asyncio.sleep(RETRY_SECONDS)
            else:
                if self.failing is not None:
                    log.warning("key store writes again path=%s", self._path)
                self.failing = None
                return
        if self._gave_up:  # what was noted before is not on disk: nothing later may be, or leave
            self._fail("closed while it could not be written", batch)
            batch.callbacks.clear()

    def _fail(self, problem: str, batch: _Batch) -> None:
        first, told = self.failing is None, f"{problem}; no key is released until it can be written"
        self.failing = told
        for waiter in (*batch.waiters, *self._batch.waiters):
            if not waiter.done():
                waiter.set_exception(StorageFailed(told))
        batch.waiters.clear()
        self._batch.waiters.clear()
        if first:
            log.critical("key store failed path=%s problem=%s", self._path, problem)
            _call(lambda: self._failed(told))

    def _execute(self, statements: list[Statement]) -> None:
        assert self._database is not None
        self._database.execute("BEGIN IMMEDIATE")
        try:
            for text, alike in groupby(statements, _text):
                if text is not None:
                    self._database.executemany(text, [one[1] for one in alike if not callable(one)])
                    continue
                for work in filter(callable, alike):
                    work(self._database)
            self._database.execute("COMMIT")
        except BaseException:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise

    # The master key ------------------------------------------------------------------------------------------------------

    async def rotate(self) -> str:
        """Seals all rows under a new master key, in one commit like any other; its fingerprint.

        What was noted before is sealed by the old one and written before, what is noted from here on by the new one and
        written after. Raises StorageFailed; what the disk does not take now is rotated when it does.
        """
        source = self._master_key
        if not isinstance(source, Path):
            raise StorageFailed("only a master key in a file is rotated while the agent runs; stop the agent")
        if self._rotating:
            raise StorageFailed("the master key is being rotated")
        self._rotating = True
        try:
            new, now = await self._run(lambda: self._seals_to_come(source))
        except BaseException:
            self._rotating = False
            raise
        old, self._seal = self._seal, now
        self._note_work(lambda database: change_master(database, SEALED, old, new, now))
        self.after(lambda: self._then_follow(source))
        await self.commit()
        await self._run(lambda: None)  # after the old master key is gone
        return now.fingerprint

    def _seals_to_come(self, source: Path) -> tuple[Seal, Seal]:
        """One to seal all rows anew with, one for what is noted from now on. Raises StorageFailed, nothing done."""
        path = successor(source)
        assert self._database is not None and isinstance(path, Path)
        self._demand_room()
        if wrong := [row for _, row, key in opened(self._database, SEALED, self._seal) if key is None]:
            raise StorageFailed(f"row {wrong[0]} does not open; the master key stays as it is")
        if there(path):
            with (found := find(source, self._seal.fingerprint)).key:
                if found.following:  # it could not take its place: there is no other copy of the master key
                    follow(source)
        make(path)
        anew, now = Seal(read(path)), Seal(read(path))
        for opening, seal in enumerate((anew, now), next_opening(self._database)):
            seal.begin(opening)
        now.add_salt(anew.opening, anew.salt)  # the next rotation opens what this one sealed
        for seal in (anew, now):
            seal.forget()
        return anew, now

    def _demand_room(self) -> None:
        """A rotation that filled the disk would hold up all that is noted after it."""
        disk, octets = os.statvfs(self._path), ROOM_OCTETS + self._path.stat().st_size
        if disk.f_bavail * disk.f_frsize < octets:
            raise StorageFailed(f"a rotation while the agent runs needs {octets >> 20} MiB of free disk")

    def _then_follow(self, path: Path) -> None:
        self._thread.submit(self._follow, path)

    def _follow(self, path: Path) -> None:
        try:
            with suppress(sqlite3.Error):
                self._fold()
            follow(path)
        except Exception:
            log.exception("master key rotated, and its file not yet in its place; the next start mends that")
        finally:
            self._rotating = False

    # The log ---------------------------------------------------------------------------------------------------------------

    async def fold(self) -> None:
        """Folds the write-ahead log into the file and truncates it, so that no old row stays in it."""
        with suppress(Exception):  # the disk's; another time, then
            await self._run(self._fold)

    def _fold(self) -> None:
        if self._database is not None:
            # Whoever reads the ledger just now holds the log: it is folded another time, and no commit waits for that.
            self._database.execute(f"PRAGMA busy_timeout = {FOLD_PATIENCE_MS}").fetchall()
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            self._database.execute(f"PRAGMA busy_timeout = {PATIENCE_MS}").fetchall()
