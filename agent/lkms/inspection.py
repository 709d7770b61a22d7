"""What an operator may see of a key store, beside a key manager that has it open or without one: status, and proof of order.

Reads one snapshot and writes nothing. Shows numbers, sizes and fingerprints, never key.
"""

import hashlib
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..config import LkmsConfig
from ..errors import StorageFailed
from .contents import SEALED
from .database import mark, unseal
from .keys import Key
from .master_key import describe, find, read, successor, there
from .seal import SEAL_OCTETS, opened
from .stream_end import Attachment

TELLING_OCTETS = 16
"""Key that is shorter may be there twice by chance."""


@contextmanager
def reading(store: Path) -> Iterator[sqlite3.Connection]:
    """One snapshot of a store. Raises StorageFailed."""
    if not store.exists():
        raise StorageFailed(f"{store}: there is no key store; the agent makes it at its first start")
    try:
        with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True, isolation_level=None)) as database:
            database.execute("BEGIN")
            yield database
    except (sqlite3.Error, OSError) as error:
        raise StorageFailed(f"{store}: {error}") from error


# Status ---------------------------------------------------------------------------------------------------------------


def status(config: LkmsConfig, running: dict[str, Any] | None) -> dict[str, Any]:
    """Of the store and its master key; `running` is what a key manager says of its links. Raises StorageFailed."""
    with reading(config.store) as database:
        return {
            "store": str(config.store),
            "agent_runs": running is not None,
            "log_octets": _log_octets(config.store),
            "master_key": _master_key(config, database),
            "limits": {
                "capacity_blocks": config.capacity_blocks,
                "refill_percent": config.refill_percent,
            },
            "links": _links(database, running),
            "streams": _streams(database),
            "ahead": _ahead(database),
            "rows": {one.table: _count(database, one.table) for one in SEALED} | {"ledger": _count(database, "ledger")},
        }


def _log_octets(store: Path) -> int:
    log = store.with_name(store.name + "-wal")
    return log.stat().st_size if log.exists() else 0


def _count(database: sqlite3.Connection, table: str) -> int:
    return int(database.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def _master_key(config: LkmsConfig, database: sqlite3.Connection) -> dict[str, Any]:
    name = mark(database)
    since = database.execute("SELECT since FROM master").fetchone()[0] if name else None
    try:
        key, following = _find(config, name)
        key.wipe()
        opens, note = True, "the successor holds: a rotation is to be finished" if following else ""
    except StorageFailed as error:
        opens, note = False, error.problem
    source = describe(config.master_key)
    return {
        "source": source,
        "fingerprint": name,
        "since": since,
        "opens": opens,
        "note": note,
    }


def _find(config: LkmsConfig, name: str | None) -> tuple[Key, bool]:
    """The store's master key, and whether it is the successor; makes none."""
    if name is None:
        return read(config.master_key), False
    found = find(config.master_key, name)
    return found.key, found.following


def _links(database: sqlite3.Connection, running: dict[str, Any] | None) -> dict[str, Any]:
    links = {}
    select = (
        "SELECT link, highest, generated, consumed, burnt, hops, count(number), "
        f"coalesce(sum(length(sealed) - {SEAL_OCTETS}), 0), coalesce(sum(ours), 0), coalesce(sum(cursor > 0), 0), min(made) "
        "FROM (SELECT link FROM links UNION SELECT link FROM blocks) LEFT JOIN links USING (link) "
        "LEFT JOIN blocks USING (link) GROUP BY link ORDER BY link"
    )
    for link, highest, generated, consumed, burnt, hops, blocks, octets, ours, begun, made in database.execute(select):
        links[link] = {
            "blocks": blocks,
            "octets": octets,
            "owned_here": ours,
            "owned_there": blocks - ours,
            "begun": begun,
            "highest_number": highest,
            "oldest_seconds": None if made is None else max(0, round(time.time() - made)),
            "generated_octets": generated,
            "consumed_octets": consumed,
            "burnt_octets": burnt,
            "hops": hops,
            "usable_octets": None,
            "full": None,
            "capacity_blocks": None,
        } | (running or {}).get(link, {})
    return links


def _streams(database: sqlite3.Connection) -> dict[str, Any]:
    select = (
        "SELECT ksid, remote, chunk_size, next_index, released, attachment, peer_attachment, consumed, count(number) "
        "FROM streams LEFT JOIN chunks USING (ksid) GROUP BY ksid ORDER BY ksid"
    )
    return {
        ksid: {
            "remote": remote,
            "chunks": chunks,
            "octets": chunks * size,
            "chunk_octets": size,
            "next_index": following,
            "released": released,
            "application": Attachment(here).name.lower(),
            "peer_application": Attachment(there_).name.lower(),
            "consumed_octets": consumed,
        }
        for ksid, remote, size, following, released, here, there_, consumed, chunks in database.execute(select)
    }


def _ahead(database: sqlite3.Connection) -> dict[str, int]:
    """Octets that are in the agent's memory only, released ahead of who asks for them, and what crashes have burnt of such.

    An upper bound: what has left since it was noted is not told apart.
    """
    octets, burnt = database.execute("SELECT coalesce(sum(octets), 0), coalesce(sum(burnt), 0) FROM ahead").fetchone()
    return {"octets": octets, "burnt_octets": burnt}


# Verification ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Findings:
    """What must not be, and what an operator should know; how many rows of key were opened."""

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    opened: int = 0


CHECKS = (
    (
        "block {1} of link {0}: {2} of {3} octets cannot be used up",
        "SELECT link, number, cursor, size FROM blocks WHERE (0 <= cursor AND cursor < size) IS NOT TRUE",
    ),
    (
        "block {1} of link {0}: the key is {2} octets long, and at most {3} can be left",
        f"SELECT link, number, length(sealed) - {SEAL_OCTETS}, size - cursor FROM blocks "
        f"WHERE (length(sealed) - {SEAL_OCTETS} BETWEEN 1 AND size - cursor) IS NOT TRUE",
    ),
    (
        "block {1} of link {0}: its owner is {2}, neither this end nor the other",
        "SELECT link, number, ours FROM blocks WHERE ours IS NULL OR ours NOT IN (0, 1)",
    ),
    (
        "block {1} of link {0} is above {2}, the highest there ever was",
        "SELECT link, number, highest FROM blocks LEFT JOIN links USING (link) WHERE (number <= highest) IS NOT TRUE",
    ),
    (
        "link {0}: {1} octets are stored or accounted for, and {2} were generated",
        f"SELECT * FROM (SELECT link, consumed + burnt + coalesce((SELECT sum(length(sealed) - {SEAL_OCTETS}) "
        "FROM blocks AS b WHERE b.link = l.link), 0) AS accounted, generated FROM links AS l) WHERE accounted > generated",
    ),
    (
        "chunk {1} belongs to no key stream: {0}",
        "SELECT ksid, number FROM chunks WHERE ksid NOT IN (SELECT ksid FROM streams)",
    ),
    (
        "chunk {1} of key stream {0} is of another life of it",
        "SELECT ksid, number FROM chunks AS c JOIN streams AS s USING (ksid) WHERE c.incarnation IS NOT s.incarnation",
    ),
    (
        "chunk {1} of key stream {0} was never allocated: the next one is {2}",
        "SELECT ksid, number, next_index FROM chunks JOIN streams USING (ksid) WHERE (number < next_index) IS NOT TRUE",
    ),
    (
        "chunk {1} of key stream {0}: {2} octets, and {3} were agreed",
        f"SELECT ksid, number, length(sealed) - {SEAL_OCTETS}, chunk_size FROM chunks JOIN streams USING (ksid) "
        f"WHERE (length(sealed) - {SEAL_OCTETS} = chunk_size) IS NOT TRUE",
    ),
    (
        "key stream {0}: {1} chunks are confirmed of {2}",
        "SELECT ksid, confirmed, next_index FROM streams WHERE confirmed > next_index",
    ),
    (
        "ledger: octets from {2} on of block {1} of link {0} were used, and the store holds it from {3} on",
        "SELECT link, number, min(first), cursor FROM ledger JOIN blocks USING (link) WHERE block = number "
        f"AND first + ledger.length > cursor AND first < cursor + length(sealed) - {SEAL_OCTETS} GROUP BY link, number",
    ),
)


def verify(config: LkmsConfig, runs: bool) -> Findings:
    """Opens every row and holds all of them together. Raises StorageFailed where there is nothing to verify."""
    findings = Findings()
    _verify_files(config, runs, findings)
    with reading(config.store) as database:
        lines = [str(line) for (line,) in database.execute("PRAGMA integrity_check")]
        findings.problems += [f"SQLite: {line}" for line in lines if line != "ok"]
        for text, select in CHECKS:
            findings.problems += [text.format(*row) for row in database.execute(select)]
        findings.problems += _used_twice(database)
        _verify_rows(config, database, findings)
    return findings


def _used_twice(database: sqlite3.Connection) -> list[str]:
    problems, at, end = [], (None, None), 0
    for link, block, first, length in database.execute("SELECT link, block, first, length FROM ledger ORDER BY 1, 2, 3"):
        end = end if at == (link, block) else 0
        if first < end or length <= 0:
            problems.append(f"ledger: octets {first}..{first + length - 1} of block {block} of link {link} were used twice")
        at, end = (link, block), max(end, first + length)
    return problems


def _verify_rows(config: LkmsConfig, database: sqlite3.Connection, findings: Findings) -> None:
    try:
        key, following = _find(config, mark(database))
    except StorageFailed as error:
        findings.problems.append(error.problem)
        return
    if following:
        findings.notes.append(
            "the successor of the master key holds; the agent's next start, or rotate, finishes the rotation"
        )
    seal = unseal(database, key)
    seal.forget()
    seen: dict[bytes, str] = {}
    for one, row, content in opened(database, SEALED, seal):
        where = f"{one.kind} {'/'.join(map(str, row))}"
        if content is None:
            findings.problems.append(f"{where} does not open")
            continue
        findings.opened += 1
        if len(content) >= TELLING_OCTETS:
            name = f"key {row[-1]}" if one.kind == "key" else where  # one id, for several applications, is one key
            first = seen.setdefault(hashlib.sha256(content.view()).digest(), name)
            if first != name:
                findings.problems.append(f"{where} holds the same key as {first}")


def _verify_files(config: LkmsConfig, runs: bool, findings: Findings) -> None:
    for end in ("", "-wal", "-shm", ".lock"):
        path = config.store.with_name(config.store.name + end)
        if path.exists() and path.stat().st_mode & 0o077:
            findings.problems.append(f"{path} can be read by others than its owner; chmod 600 it")
    if not runs and (octets := _log_octets(config.store)):
        findings.notes.append(f"a log of {octets} octets was left by a crash; the agent's next start folds it")
    following = successor(config.master_key)
    if isinstance(following, Path) and there(following):
        findings.notes.append(f"{following} was left by a rotation that did not end; the next rotation replaces it")
