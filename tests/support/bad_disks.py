"""Disks that fail on command: too small, read-only, limited in the size of a file, and cut from power within a commit."""

import asyncio
import ctypes
import os
import random
import resource
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from key_managers import Node

from qswitch.agent.lkms.store import Store

MS_RDONLY, MS_REMOUNT, MNT_DETACH = 1, 32, 2
SECTOR = 512
LOG_HEADER = 32
Image = dict[str, bytes]
"""Contents of a store's files by the end of their names."""


class SmallDisk:
    """A memory file system, which can be filled to the brim."""

    def __init__(self, folder: Path, octets: int) -> None:
        """Skips the test, with the reason, where none can be mounted."""
        self.folder, self._library = folder, ctypes.CDLL(None, use_errno=True)
        folder.mkdir(exist_ok=True)
        if problem := self._mount(0, f"size={octets}"):
            pytest.skip(f"no file system can be mounted here: {problem}")

    def fill(self) -> None:
        """Takes all room there is, down to the last octet."""
        with suppress(OSError), (self.folder / "ballast").open("ab", buffering=0) as ballast:
            for size in (1 << 20, 4096, 1):
                with suppress(OSError):
                    while ballast.write(bytes(size)):
                        pass

    def empty(self) -> None:
        (self.folder / "ballast").unlink()

    def protect(self) -> None:
        assert not self._mount(MS_REMOUNT | MS_RDONLY, "")

    def _mount(self, flags: int, options: str) -> str:
        failed = self._library.mount(b"tmpfs", str(self.folder).encode(), b"tmpfs", flags, options.encode())
        return os.strerror(ctypes.get_errno()) if failed else ""

    def unmount(self) -> None:
        self._library.umount2(str(self.folder).encode(), MNT_DETACH)


@contextmanager
def files_no_longer_than(octets: int) -> Iterator[None]:
    """What is written beyond is EFBIG: not "disk full" to SQLite, but an I/O error like any other."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (octets, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class PowerLost(sqlite3.OperationalError):
    """Raised in place of the end of a commit, and of all that come after."""


def image(store: Path) -> Image:
    return {end: path.read_bytes() if (path := _file(store, end)).exists() else b"" for end in ("", "-wal")}


def _file(store: Path, end: str) -> Path:
    return store.with_name(store.name + end)


def torn(before: bytes, after: bytes, luck: random.Random) -> bytes:
    """What a disk may hold of a change it had not promised to hold: of each sector the old, the new, or garbage."""
    kind = luck.randrange(4)
    if kind == 0:
        return before
    if kind == 1:
        return after  # all of it came through, though nobody was told
    sectors = []
    for at in range(0, max(len(before), len(after)), SECTOR):
        old, new = before[at : at + SECTOR], after[at : at + SECTOR]
        sectors.append(old if old == new else luck.choice([old.ljust(len(new), b"\0"), new, _garbage(old, new, luck)]))
    whole = b"".join(sectors)
    if len(after) > len(before) and kind == 2:
        return whole[: luck.randint(len(before), len(after))]
    return whole


def _garbage(old: bytes, new: bytes, luck: random.Random) -> bytes:
    """SQLite trusts that a torn write leaves the octets before it as they were ("powersafe overwrite")."""
    same = next((at for at, pair in enumerate(zip(old, new, strict=False)) if pair[0] != pair[1]), min(len(old), len(new)))
    return old[:same] + luck.randbytes(max(len(old), len(new)) - same)


def lose_power(store: Store, path: Path, luck: random.Random, in_folding: bool, gone: Callable[[Image], None]) -> None:
    """Cuts the power within the next commit of a store, or the next folding of its log; `gone` gets what the disk holds.

    It is called once, in the store's thread; the commit, and all that come after, fail.
    """
    name, over = "_fold" if in_folding else "_execute", False
    real: Callable[..., None] = getattr(store, name)

    def cut(*arguments: object) -> None:
        nonlocal over
        if not over:
            over, before = True, image(path)
            real(*arguments)
            gone(_left(before, image(path), luck))
        raise PowerLost("power is lost")

    setattr(store, name, cut)
    if in_folding:
        store._execute = _until(lambda: over, store._execute)  # type: ignore[method-assign]


def _until(over: Callable[[], bool], real: Callable[..., None]) -> Callable[..., None]:
    def execute(*arguments: object) -> None:
        if over():
            raise PowerLost("power is lost")
        real(*arguments)

    return execute


def _left(before: Image, after: Image, luck: random.Random) -> Image:
    """SQLite writes to the database only what is durable in the log, and cuts the log off only then, in one go."""
    shorter = len(after["-wal"]) < len(before["-wal"])
    if after[""] != before[""]:
        return {"": torn(before[""], after[""], luck), "-wal": (before if shorter else after)["-wal"]}
    log = luck.choice([before, after])["-wal"] if shorter else torn_log(before["-wal"], after["-wal"], luck)
    return {"": after[""], "-wal": log}


def torn_log(before: bytes, after: bytes, luck: random.Random) -> bytes:
    """Where the log begins anew over one that was folded, SQLite has its header durable before it writes what follows: new
    frames behind an old header would bring back what was there long ago."""
    if len(before) < LOG_HEADER or before[:LOG_HEADER] == after[:LOG_HEADER]:
        return torn(before, after, luck)
    return luck.choice([before, torn(after[:LOG_HEADER] + before[LOG_HEADER:], after, luck)])


def put_back(path: Path, found: Image) -> None:
    """Makes a store's files what a disk holds; its shared memory is gone with the power."""
    for end, octets in found.items():
        _file(path, end).write_bytes(octets)
        _file(path, end).chmod(0o600)
    _file(path, "-shm").unlink(missing_ok=True)


class PowerCut:
    """Cuts a node's power within the next commit of its store, or the next folding of its log."""

    def __init__(self, node: Node, luck: random.Random, in_folding: bool = False) -> None:
        self._node, self.done = node, asyncio.Event()
        self._image: Image = {}
        loop = asyncio.get_running_loop()

        def gone(found: Image) -> None:
            self._image = found
            loop.call_soon_threadsafe(self.done.set)

        lose_power(node.keys._store, node.config.store, luck, in_folding, gone)

    def nudge(self) -> None:
        """Makes sure that there is something to commit: without the other end, an idle one may have nothing."""
        store = self._node.keys._store
        for link, pool in self._node.keys._pools.items():
            store.totals(link, pool.totals)

    async def restart(self) -> None:
        """The process is gone, the disk holds what it holds; the node comes back."""
        await self._node.crash()
        put_back(self._node.config.store, self._image)
        await self._node.restart()
