"""Rotation, purge, status and verification of stores: what they promise, through kills at every line of the code."""

import asyncio
import json
import os
import random
import shutil
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
from key_managers import Net, Node, audit, link_id, material, node_id, until
from killed_lines import deaths

from qswitch.agent.config import LkmsConfig, TlsFiles
from qswitch.agent.errors import StorageFailed
from qswitch.agent.lkms import control, inspection, maintenance, master_key
from qswitch.agent.lkms.ahead import HASTE
from qswitch.agent.lkms.contents import SEALED, Contents
from qswitch.agent.lkms.delivery_end import StoredKey
from qswitch.agent.lkms.manager import StreamConfig
from qswitch.agent.lkms.pool import Totals
from qswitch.agent.lkms.store import Store
from qswitch.agent.lkms.stream_end import PREFETCH_CHUNKS, Progress, StoredChunk
from qswitch.agent.model import Endpoint, KeyStreamId, LinkId

KSID = KeyStreamId("99999999-0000-4000-8000-000000000001")
LINK, OTHER = link_id(1), link_id(2)


def config(folder: Path) -> LkmsConfig:
    tls = TlsFiles(folder / "none", folder / "none", folder / "none")
    return LkmsConfig(Endpoint("127.0.0.1", 1), tls, folder / "keys.sqlite", folder / "master.key", ledger=True)


def store_of(folder: Path) -> Store:
    return Store(folder / "keys.sqlite", folder / "master.key", True, lambda _problem: None)


def fill(folder: Path, blocks: int = 3) -> None:
    """A store as a key manager leaves it: blocks of two links, a key stream with two chunks."""

    async def write() -> None:
        store = store_of(folder)
        await store.open()
        for link in (LINK, OTHER):
            for number in range(blocks):
                store.block(link, number, 0, 64, number % 2 == 0, 1.0, material(link, number, 64))
            store.totals(link, Totals(highest=blocks + 3, generated=64 * blocks + 100, consumed=90))
        store.stream(Progress(KSID, node_id("b"), 7, 32, next_index=4, confirmed=4))
        for index in (2, 3):
            store.chunk(KSID, 7, index, StoredChunk(material(link_id(3), index, 32), 1.0, 1.0, 0))
        store.key(KSID, "an id", False, StoredKey(material(link_id(4), 1, 32), 1.0, 0, 1.0))
        await store.commit()
        await store.close()

    folder.mkdir(exist_ok=True)
    asyncio.run(write())


def content(folder: Path) -> dict[str, bytes]:
    """All key of a store, opened as an agent opens it."""

    async def read() -> Contents:
        store = store_of(folder)
        try:
            return await store.open()
        finally:
            await store.close()

    held = asyncio.run(read())
    blocks = {f"{link} {one.number}": bytes(one.key.view()) for link, many in held.blocks.items() for one in many}
    chunks = {f"{ksid} {at}": bytes(one.key.view()) for ksid, many in held.chunks.items() for at, one in many.items()}
    keys = {f"{ksid} {key_id}": bytes(one.key.view()) for ksid, many in held.held.items() for key_id, one in many.items()}
    return blocks | chunks | keys


def name(path: Path) -> str:
    return master_key.fingerprint(master_key.read(path))


# Rotation --------------------------------------------------------------------------------------------------------------


def test_every_table_that_holds_sealed_key_is_known(tmp_path: Path) -> None:
    """A new one that is not in SEALED would be lost at the next rotation."""
    fill(tmp_path)
    with closing(sqlite3.connect(tmp_path / "keys.sqlite")) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        columns = {(table, row[1]) for table in tables for row in database.execute(f"PRAGMA table_info({table})")}
    assert {one for one in columns if one[1].startswith("sealed")} == {(one.table, one.column) for one in SEALED}


def test_a_rotation_changes_the_master_key_and_no_other(tmp_path: Path) -> None:
    fill(tmp_path)
    before, old = content(tmp_path), (tmp_path / "master.key").read_bytes()
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy(tmp_path / "master.key", copy)
    done = maintenance.rotate(tmp_path / "keys.sqlite", tmp_path / "master.key")
    assert done == maintenance.Rotated(name(tmp_path / "master.key"), False)
    assert content(tmp_path) == before and len(before) == 9
    assert (tmp_path / "master.key").read_bytes() != old and (tmp_path / "master.key").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "keys.sqlite", "keys.sqlite.lock", "master.key"]
    shutil.copy(tmp_path / "keys.sqlite", copy)
    with pytest.raises(StorageFailed, match="does not open under this master key"):
        content(copy)
    assert not inspection.verify(config(tmp_path), runs=False).problems


def test_nothing_of_the_old_seals_stays_in_the_files(tmp_path: Path) -> None:
    fill(tmp_path, 40)
    with closing(sqlite3.connect(tmp_path / "keys.sqlite")) as database:
        old = [row[0] for one in SEALED for row in database.execute(f"SELECT sealed FROM {one.table}")]
        old += [row[0] for row in database.execute("SELECT salt FROM salts")]
    maintenance.rotate(tmp_path / "keys.sqlite", tmp_path / "master.key")
    octets = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert len(old) == 84 and not [one for one in old if one[16:48] in octets]


@pytest.mark.parametrize("step", [5, pytest.param(1, marks=pytest.mark.soak)])
@pytest.mark.timeout(600)
def test_a_rotation_killed_at_every_line(tmp_path: Path, step: int) -> None:
    pristine, folder = tmp_path / "pristine", tmp_path / "folder"
    fill(pristine, 1)
    before = content(pristine)
    modules = ("lkms/seal.py", "lkms/master_key.py", "lkms/database.py", "lkms/maintenance.py", "lkms/store.py")
    names: set[str] = set()
    lines = 0

    def rotate() -> None:
        maintenance.rotate(folder / "keys.sqlite", folder / "master.key")

    shutil.copytree(pristine, folder)
    for lines in deaths(rotate, modules, step):  # noqa: B007
        check_after_death(folder, before, names)
        shutil.rmtree(folder)
        shutil.copytree(pristine, folder)
    assert content(folder) == before
    assert lines > 100 and len(names) > 3, "killed before the commit and after it"


def check_after_death(folder: Path, before: dict[str, bytes], names: set[str]) -> None:
    """The store is in order, as it was left, as the agent opens it, and after another rotation."""
    assert not inspection.verify(config(folder), runs=False).problems
    names.add(str(inspection.status(config(folder), None)["master_key"]["fingerprint"]))
    if len(names) % 2:  # an agent may come next, or a rotation
        assert content(folder) == before
    maintenance.rotate(folder / "keys.sqlite", folder / "master.key")
    assert content(folder) == before
    assert not (folder / "master.key.next").exists()


@pytest.mark.parametrize("kills", [12, pytest.param(300, marks=pytest.mark.soak)])
@pytest.mark.timeout(600)
def test_a_rotation_killed_at_any_moment(tmp_path: Path, kills: int) -> None:
    """Within SQLite too: many rows, so that most of the time is spent there."""
    pristine, luck = tmp_path / "pristine", random.Random(kills)
    fill(pristine, 400)
    before = content(pristine)
    began = time.monotonic()
    shutil.copytree(pristine, tmp_path / "timed")
    maintenance.rotate(tmp_path / "timed" / "keys.sqlite", tmp_path / "timed" / "master.key")
    whole = time.monotonic() - began
    for count in range(kills):
        folder = tmp_path / str(count)
        shutil.copytree(pristine, folder)
        child = os.fork()
        if not child:
            try:
                maintenance.rotate(folder / "keys.sqlite", folder / "master.key")
            finally:
                os._exit(0)
        time.sleep(luck.uniform(0, 1.1 * whole))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert not inspection.verify(config(folder), runs=False).problems
        assert content(folder) == before
        shutil.rmtree(folder)


def test_a_row_that_does_not_open_stops_a_rotation_before_it_begins(tmp_path: Path) -> None:
    fill(tmp_path)
    with closing(sqlite3.connect(tmp_path / "keys.sqlite")) as database, database:
        database.execute("UPDATE blocks SET sealed = zeroblob(96) WHERE link = ? AND number = 1", (LINK,))
    old = name(tmp_path / "master.key")
    with pytest.raises(StorageFailed, match="does not open; the master key stays as it is"):
        maintenance.rotate(tmp_path / "keys.sqlite", tmp_path / "master.key")
    assert name(tmp_path / "master.key") == old == inspection.status(config(tmp_path), None)["master_key"]["fingerprint"]


def test_a_store_from_before_there_were_fingerprints(tmp_path: Path) -> None:
    fill(tmp_path)
    before, right = content(tmp_path), (tmp_path / "master.key").read_bytes()
    with closing(sqlite3.connect(tmp_path / "keys.sqlite")) as database, database:
        database.execute("DROP TABLE master")
    assert inspection.status(config(tmp_path), None)["master_key"]["fingerprint"] is None
    assert not inspection.verify(config(tmp_path), runs=False).problems
    (tmp_path / "master.key").write_bytes(bytes(32))
    with pytest.raises(StorageFailed, match="does not open under this master key"):
        content(tmp_path)
    (tmp_path / "master.key").write_bytes(right)
    assert content(tmp_path) == before
    assert inspection.status(config(tmp_path), None)["master_key"]["fingerprint"] == name(tmp_path / "master.key")


# While a key manager runs ----------------------------------------------------------------------------------------------


async def streaming(net: Net, blocks: int = 100) -> tuple[Node, Node]:
    a, b = await net.node("a"), await net.node("b")
    await net.feed(await net.fibre(1, "a", "b"), "a", "b", blocks)
    for here, there in ((a, b), (b, a)):
        await here.configure_stream(StreamConfig(KSID, there.id, (LINK,), 32))
        await here.keys.attach(KSID)
    return a, b


async def take(node: Node, count: int, read: dict[int, bytes]) -> None:
    for _ in range(count):
        async with asyncio.timeout(10):
            chunk = await node.keys.get_chunk(KSID, None)
        assert chunk.index not in read
        read[chunk.index] = bytes(chunk.key.view())


async def ask(node: Node, word: str) -> object:
    return await asyncio.to_thread(control.ask, node.config.store, word)


async def test_rotations_while_keys_are_drawn_and_a_crash_after_each(net: Net) -> None:
    a, b = await streaming(net)
    ones: dict[int, bytes] = {}
    others: dict[int, bytes] = {}
    names = set()
    for _ in range(4):
        reading = asyncio.gather(take(a, 60, ones), take(b, 60, others))
        for node in (a, b):
            done = await ask(node, "rotate")
            assert isinstance(node.config.master_key, Path) and done == name(node.config.master_key)
            names.add(done)
        await reading
        assert not inspection.verify(a.config, runs=True).problems
        await a.crash()
        await a.restart()
    assert ones == others and len(ones) == 240 and len(names) == 8
    audit(net, LINK)
    assert not a.seen.alarms and not b.seen.alarms


async def test_a_rotation_while_the_disk_fails_is_done_when_it_recovers(net: Net) -> None:
    a, b = await streaming(net)
    assert isinstance(a.config.master_key, Path)
    old = name(a.config.master_key)
    await a.keys._store._run(lambda: a.keys._store._database.execute("PRAGMA busy_timeout = 10"))  # type: ignore[union-attr]
    with closing(sqlite3.connect(a.config.store, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageFailed, match="locked"):
            await ask(a, "rotate")
        assert name(a.config.master_key) == old
        with pytest.raises(StorageFailed, match="is being rotated"):
            await ask(a, "rotate")
        other.execute("ROLLBACK")
    await until(lambda: isinstance(a.config.master_key, Path) and name(a.config.master_key) != old)
    read: dict[str, dict[int, bytes]] = {"a": {}, "b": {}}
    await a.crash()
    await a.restart()
    await asyncio.gather(take(a, 50, read["a"]), take(b, 50, read["b"]))
    assert read["a"] == read["b"]


async def test_a_master_key_that_is_not_in_its_place_is_not_replaced(net: Net) -> None:
    """The store has it from the commit on, and its file is the successor's until it is renamed: it is the only copy."""
    a, _ = await streaming(net)
    source = a.config.master_key
    assert isinstance(source, Path)
    kept = source.rename(source.with_name("kept"))
    source.mkdir()  # so that nothing can take its place
    first = await ask(a, "rotate")
    assert name(source.with_name("master.key.next")) == first
    with pytest.raises(StorageFailed, match=r"master\.key"):
        await ask(a, "rotate")
    assert name(source.with_name("master.key.next")) == first
    source.rmdir()
    kept.rename(source)
    await a.keys._store._run(lambda: a.keys._store._database.execute("PRAGMA busy_timeout = 10"))  # type: ignore[union-attr]
    with closing(sqlite3.connect(a.config.store, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageFailed, match="locked"):
            await ask(a, "rotate")
        assert name(source) == first and name(source.with_name("master.key.next")) != first
        await a.crash()
        other.execute("ROLLBACK")
    await a.restart()
    assert await ask(a, "rotate") == name(source) != first


async def test_a_rotation_ends_though_the_log_cannot_be_folded(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    a, _ = await streaming(net)
    assert isinstance(a.config.master_key, Path)

    def fold(_store: Store) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patched:
        patched.setattr(Store, "_fold", fold)
        assert await ask(a, "rotate") == name(a.config.master_key)
    assert await ask(a, "rotate") == name(a.config.master_key)


@pytest.mark.parametrize("error", [OSError(24, "Too many open files"), sqlite3.OperationalError("disk I/O error")], ids=str)
async def test_who_asks_for_a_rotation_is_told_why_there_is_none(
    net: Net, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Instead of a connection that is closed, as if the agent had ended; and the next one is none the worse for it."""
    a, _ = await streaming(net)

    def fail(_store: Store) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(Store, "_demand_room", fail)
        with pytest.raises(StorageFailed, match=str(error.args[-1])):
            await ask(a, "rotate")
    assert isinstance(a.config.master_key, Path)
    assert await ask(a, "rotate") == name(a.config.master_key)


async def test_the_control_socket_is_for_its_owner_and_takes_what_it_knows(net: Net) -> None:
    a, _ = await streaming(net)
    path = control.path_of(a.config.store)
    assert path.stat().st_mode & 0o777 == 0o600
    await until(lambda: a.keys.levels(LINK).usable_bits > 0)
    assert (await ask(a, "links"))[LINK]["usable_octets"] > 0  # type: ignore[index]
    with pytest.raises(StorageFailed, match="unknown"):
        await ask(a, "x" * 50)
    with pytest.raises(ConnectionError):
        await ask(a, "x" * 100_000)
    await a.keys.stop()
    assert not path.exists()
    with pytest.raises(ConnectionError):
        await ask(a, "links")


async def test_purge_and_rotation_by_another_process_are_refused(net: Net) -> None:
    a, _ = await streaming(net)
    with pytest.raises(StorageFailed, match="in use by another process"):
        maintenance.purge(a.config.store, None, True)
    with pytest.raises(StorageFailed, match="in use by another process"):
        maintenance.rotate(a.config.store, a.config.master_key)


# Purge -----------------------------------------------------------------------------------------------------------------


async def purged(node: Node, links: list[LinkId] | None) -> maintenance.Purged:
    await node.keys.stop()
    done = maintenance.purge(node.config.store, links, True)
    await node.restart()
    return done


async def test_the_far_end_burns_what_was_purged_and_both_go_on(net: Net) -> None:
    a, b = await streaming(net, 40)
    other = await net.fibre(2, "a", "b")
    await net.feed(other, "a", "b", 10)
    ones: dict[int, bytes] = {}
    others: dict[int, bytes] = {}
    await asyncio.gather(take(a, 20, ones), take(b, 20, others))
    done = await purged(a, [LINK])
    put_by = HASTE * PREFETCH_CHUNKS * 32  # octets at most, besides what was read
    assert done.blocks >= 38 and done.octets > 39 * 4096 - put_by and done.other_rows == 0
    await until(lambda: b.keys.levels(LINK).stored_bits == 0)
    assert a.keys.levels(LINK).burnt_bits == 8 * done.octets
    # What was allocated here and not yet known there when the manager stopped is burnt there, too.
    assert 0 <= b.keys.levels(LINK).burnt_bits - 8 * done.octets <= 8 * put_by
    left = a.keys.levels(other)
    assert left.burnt_bits == 0 and left.stored_bits == left.generated_bits - left.consumed_bits > 8 * 4096 * 9
    assert a.keys.first_block(LINK) == 40, "numbers never come twice"
    await net.feed(LINK, "a", "b", 10)
    await asyncio.gather(take(a, 200, ones), take(b, 200, others))
    assert ones == others
    audit(net, LINK)
    assert not inspection.verify(a.config, runs=True).problems and not a.seen.alarms and not b.seen.alarms


@pytest.mark.parametrize("who", ["a", "b"])
async def test_all_key_is_purged_and_streams_begin_anew(net: Net, who: str) -> None:
    a, b = await streaming(net, 40)
    ones: dict[int, bytes] = {}
    others: dict[int, bytes] = {}
    await asyncio.gather(take(a, 20, ones), take(b, 20, others))
    done = await purged(net.nodes[who], None)
    assert done.blocks >= 38 and done.other_rows > 1
    await net.feed(LINK, "a", "b", 10)  # without any key in common the ends could not even meet
    await until(lambda: 0 < a.keys.levels(LINK).stored_bits == b.keys.levels(LINK).stored_bits <= 8 * 4096 * 10)
    await net.nodes[who].keys.attach(KSID)
    again: dict[int, bytes] = {}
    await until(lambda: a.keys._streams[KSID].progress.incarnation == b.keys._streams[KSID].progress.incarnation)
    others = {}
    await asyncio.gather(take(a, 50, again), take(b, 50, others))
    assert again == others and not set(again.values()) & set(ones.values())
    audit(net, LINK)
    for node in (a, b):
        assert not inspection.verify(node.config, runs=True).problems and not node.seen.alarms


def test_a_link_that_is_not_there_is_not_purged(tmp_path: Path) -> None:
    fill(tmp_path)
    with pytest.raises(StorageFailed, match="no link nowhere"):
        maintenance.purge(tmp_path / "keys.sqlite", [LINK, LinkId("nowhere")], True)
    with pytest.raises(StorageFailed, match="there is no key store"):
        maintenance.purge(tmp_path / "other.sqlite", None, True)
    assert len(content(tmp_path)) == 9


def test_purged_rows_are_not_in_the_files(tmp_path: Path) -> None:
    """Nor needs a purge the master key."""
    fill(tmp_path, 40)
    with closing(sqlite3.connect(tmp_path / "keys.sqlite")) as database:
        old = [row[0] for one in SEALED for row in database.execute(f"SELECT sealed FROM {one.table}")]
    (tmp_path / "master.key").unlink()
    assert maintenance.purge(tmp_path / "keys.sqlite", None, True).blocks == 80
    octets = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert len(old) == 83 and not [one for one in old if one[16:48] in octets]


# Verification ----------------------------------------------------------------------------------------------------------

DAMAGES = {
    "does not open": "UPDATE blocks SET sealed = zeroblob(96) WHERE link = '{link}' AND number = 0",
    "cannot be used up": "UPDATE blocks SET cursor = 64 WHERE number = 0",
    "at most 54 can be left": "UPDATE blocks SET cursor = 10 WHERE number = 0",
    "its owner is 7": "UPDATE blocks SET ours = 7 WHERE number = 1",
    "the highest there ever was": "UPDATE links SET highest = 1",
    "were generated": "UPDATE links SET consumed = 100000",
    "belongs to no key stream": "DELETE FROM streams",
    "another life": "UPDATE streams SET incarnation = 8",
    "never allocated": "UPDATE streams SET next_index = 3, confirmed = 3",
    "and 16 were agreed": "UPDATE streams SET chunk_size = 16",
    "are confirmed of": "UPDATE streams SET confirmed = 5",
    "used twice": "INSERT INTO ledger VALUES (1, '{link}', 9, 0, 10, 'stream', 'x'), (2, '{link}', 9, 9, 4, 'relay', 'y')",
    "octets from 0 on": "INSERT INTO ledger VALUES (1, '{link}', 0, 0, 12, 'stream', 'x')",
    "octets from 60 on": "INSERT INTO ledger VALUES (1, '{link}', 0, 60, 4, 'tag', 'x')",
    "does not open under this master key": "UPDATE master SET fingerprint = 'aa'",
}


@pytest.mark.parametrize("told", DAMAGES)
def test_verification_tells_what_is_wrong(tmp_path: Path, told: str) -> None:
    fill(tmp_path)
    found = inspection.verify(config(tmp_path), runs=False)
    assert (found.problems, found.notes, found.opened) == ([], [], 9)
    with closing(sqlite3.connect(tmp_path / "keys.sqlite")) as database, database:
        assert database.execute(DAMAGES[told].format(link=LINK)).rowcount > 0
    assert any(told in problem for problem in inspection.verify(config(tmp_path), runs=False).problems)


def test_verification_tells_of_the_same_key_in_two_rows_and_of_open_files(tmp_path: Path) -> None:
    fill(tmp_path)

    async def again() -> None:
        store = store_of(tmp_path)
        await store.open()
        store.block(LINK, 2, 0, 64, True, 1.0, material(OTHER, 0, 64))
        await store.close()

    asyncio.run(again())
    (tmp_path / "keys.sqlite").chmod(0o644)
    problems = " / ".join(inspection.verify(config(tmp_path), runs=False).problems)
    assert "holds the same key as" in problems and "can be read by others" in problems


def test_a_damaged_page_is_found(tmp_path: Path) -> None:
    fill(tmp_path, 100)
    octets = bytearray((tmp_path / "keys.sqlite").read_bytes())
    middle = len(octets) // 8192 * 4096
    octets[middle : middle + 4096] = os.urandom(4096)
    (tmp_path / "keys.sqlite").write_bytes(octets)
    try:
        assert inspection.verify(config(tmp_path), runs=False).problems
    except StorageFailed as error:
        assert "malformed" in str(error)


async def test_a_log_left_by_a_crash_is_noted(net: Net, tmp_path: Path) -> None:
    a, _ = await streaming(net)
    copy = tmp_path / "copy"
    copy.mkdir()
    for end in ("", "-wal"):
        shutil.copy2(a.config.store.with_name(f"keys.sqlite{end}"), copy)
    assert isinstance(a.config.master_key, Path)
    shutil.copy(a.config.master_key, copy)
    found = inspection.verify(config(copy), runs=False)
    assert not found.problems and "was left by a crash" in found.notes[0] and found.opened > 90


# Status ----------------------------------------------------------------------------------------------------------------


async def test_status_shows_numbers_and_no_key(net: Net) -> None:
    a, _ = await streaming(net)
    await take(a, 1, {})
    links = await ask(a, "links")
    assert isinstance(links, dict)
    shown = inspection.status(a.config, links)
    assert isinstance(a.config.master_key, Path)
    levels, link = a.keys.levels(LINK), shown["links"][LINK]
    assert link["octets"] == levels.stored_bits // 8 and link["usable_octets"] == levels.usable_bits // 8
    assert link["blocks"] == link["owned_here"] + link["owned_there"] and link["capacity_blocks"] == 1000
    assert shown["streams"][KSID]["chunks"] == shown["rows"]["chunks"] > 0
    assert shown["master_key"]["fingerprint"] == name(a.config.master_key) and shown["master_key"]["opens"]
    text, master = json.dumps(shown), a.config.master_key.read_bytes()
    assert master.hex() not in text and material(LINK, 1).view()[:8].hex() not in text


def test_status_of_a_store_whose_master_key_is_gone(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "master.key").unlink()
    shown = inspection.status(config(tmp_path), None)
    assert not shown["master_key"]["opens"] and "No such file" in shown["master_key"]["note"]
    assert not (tmp_path / "master.key").exists(), "looking makes no key"


def test_status_of_a_store_whose_master_key_is_damaged(tmp_path: Path) -> None:
    """Its problem says how much the file holds, and is none of a rotation's."""
    fill(tmp_path)
    (tmp_path / "master.key").write_bytes(bytes(5))
    shown = inspection.status(config(tmp_path), None)["master_key"]
    assert not shown["opens"] and "holds 5 octets" in shown["note"]
