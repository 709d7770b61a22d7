"""What a crash campaign has done to key, found in the ledgers of all nodes and in the octets that applications got.

Of a fibre's blocks the octets are known, so that what came to an application is also held against what the ledgers say it
was made of. A ledger's kinds are open: whatever is not `burnt` went to a consumer, which both ends must name alike.
"""

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from campaign import Campaign
from campaign_node import BLOCK, FIBRES, PAIRS, ROUTES, SHARED, STREAMS, Flow, Plan
from key_managers import link_id, material
from leaks import in_logs

from qswitch.agent.lkms import inspection
from qswitch.agent.lkms.contents import SEALED, LedgerRow, ledger
from qswitch.agent.lkms.database import mark, unseal
from qswitch.agent.lkms.master_key import find
from qswitch.agent.lkms.seal import opened

BURNT, IN_VAIN = "burnt", "relay, of batches lost"
TELLING = 32  # octets of a block that are looked for
Uses = tuple[list[LedgerRow], list[LedgerRow]]
"""Of some octets of a block: by the one end of the link, by the other."""


def pieces(ones: Iterable[LedgerRow], others: Iterable[LedgerRow]) -> Iterator[tuple[int, Uses]]:
    """Cuts a block into runs of octets of which each end has made the same uses: (octets, uses)."""
    events = []
    for end, rows in enumerate((ones, others)):
        for number, row in enumerate(rows):
            events += [(row.offset, 1, end, number, row), (row.offset + row.length, 0, end, number, row)]
    uses: Uses = [], []
    at = 0
    for where, begins, end, _, row in sorted(events, key=lambda one: one[:4]):
        if where > at and any(uses):
            yield where - at, uses
        at = where
        if begins:
            uses[end].append(row)
        else:
            uses[end].remove(row)


@dataclass(slots=True)
class LinkFigures:
    """In octets. `burnt` at either end, by what became of the same octets at the other."""

    generated: int = 0
    used: Counter[str] = field(default_factory=Counter)
    burnt: Counter[str] = field(default_factory=Counter)
    twice: int = 0
    differing: int = 0  # given to one consumer here, to another there


class Audit:
    """All findings of a campaign that is over. `table` shows them; `problems` are what must not be."""

    def __init__(self, campaign: Campaign) -> None:
        self._campaign, self._received = campaign, campaign.received
        self._plans = {name: one.plan for name, one in campaign.nodes.items()}
        self._rows: dict[tuple[str, str], list[LedgerRow]] = defaultdict(list)  # by link and node
        for name, plan in self._plans.items():
            for row in ledger(plan.config.store):
                self._rows[row.link, name].append(row)
        self._arrived = {link_id(number): self._arrivals(number, way) for number, way in ROUTES.items()}
        self.links = {number: self._link(number, ends) for number, ends in {**FIBRES, **ROUTES}.items()}
        self.mismatched, self.strange, self.alarms = self._mismatched(), self._strange(), self._alarms()
        self.unheld = [*self._received.unheld, *self._unknown_to_the_other()]
        self.relayed, self.disclosed = self._relayed()
        self.told = self._told()
        self.unrecorded = sum(self._unrecorded(name) for name in self._plans)
        self.disorder = [line for plan in self._plans.values() for line in inspection.verify(plan.config, False).problems]

    # Ledgers ---------------------------------------------------------------------------------------------------------------

    def _link(self, number: int, way: str) -> LinkFigures:
        link, found = link_id(number), LinkFigures()
        found.generated = max(self._generated(self._plans[end], link) for end in (way[0], way[-1]))
        blocks: dict[int, Uses] = defaultdict(lambda: ([], []))
        for end, name in enumerate((way[0], way[-1])):
            for row in self._rows[link, name]:
                blocks[row.block][end].append(row)
        for uses in blocks.values():
            for octets, (here, there) in pieces(*uses):
                self._count(found, octets, here, there)
        return found

    @staticmethod
    def _generated(plan: Plan, link: str) -> int:
        with closing(sqlite3.connect(f"file:{plan.config.store}?mode=ro", uri=True)) as database:
            return int(database.execute("SELECT generated FROM links WHERE link = ?", (link,)).fetchone()[0])

    def _unrecorded(self, name: str) -> int:
        """Octets that a node has used or burnt by its totals, and not by its ledger, or the other way about."""
        missing = 0
        with closing(sqlite3.connect(f"file:{self._plans[name].config.store}?mode=ro", uri=True)) as database:
            for link, consumed, burnt in database.execute("SELECT link, consumed, burnt FROM links"):
                rows = self._rows[link, name]
                recorded = [sum(row.length for row in rows if (row.kind == BURNT) is lost) for lost in (False, True)]
                missing += abs(consumed - recorded[0]) + abs(burnt - recorded[1])
        return missing

    def _count(self, found: LinkFigures, octets: int, here: list[LedgerRow], there: list[LedgerRow]) -> None:
        used = [row for row in (*here, *there) if row.kind != BURNT]
        found.twice += octets * (len(here) > 1 or len(there) > 1)
        found.differing += octets * (len({(row.kind, row.consumer) for row in used}) > 1)
        if len(used) < len(here) + len(there):
            found.burnt[f"lost on its way to {used[0].kind}" if used else "in a block that is not used"] += octets
        elif used:
            found.used[self._purpose(used[0])] += octets

    def _purpose(self, row: LedgerRow) -> str:
        """Pads are used up by a batch whatever becomes of it."""
        if row.kind != "relay":
            return row.kind
        link, first, _ = row.consumer.split("/")
        return row.kind if int(first) in self._arrived[link] else IN_VAIN

    def _arrivals(self, number: int, way: str) -> set[int]:
        """Blocks that the far end of a virtual link has, or had."""
        link, plan = link_id(number), self._plans[way[-1]]
        return {row.block for row in self._rows[link, way[-1]]} | {int(str(one)) for one in _blocks(plan, link)}

    # Octets ----------------------------------------------------------------------------------------------------------------

    def _mismatched(self) -> int:
        """Keys that differ between ends, and those that came in two places."""
        found, keys = 0, list[bytes]()
        for flow in STREAMS:
            one, other = (self._received.chunks[flow, end] for end in (flow.one, flow.other))
            found += sum(one[index] != other[index] for index in one.keys() & other.keys())
            keys += {**one, **other}.values()
        shared: dict[str, bytes] = {}
        for flow in PAIRS + SHARED:
            master, slave = (self._received.keys[flow, end] for end in (flow.one, flow.other))
            found += sum(master.get(key_id) != key for key_id, key in slave.items())
            (shared if flow in SHARED else {}).update(master)
            keys += () if flow in SHARED else master.values()
        keys += shared.values()
        return found + len(keys) - len(set(keys))

    def _strange(self) -> int:
        """Keys of fibres that are not what the ledgers say: the octets of the blocks, each at its place."""
        return sum(self._strange_chunks(one) for one in STREAMS if one.number in FIBRES) + sum(
            self._strange_keys(one) for one in PAIRS if one.number in FIBRES
        )

    def _consumers(self, flow: Flow, node: str, kind: str) -> dict[str, list[LedgerRow]]:
        """What went to a flow, by the text after its id."""
        found: dict[str, list[LedgerRow]] = defaultdict(list)
        for row in self._rows[flow.link, node]:
            ksid, _, rest = row.consumer.partition("/")
            if row.kind == kind and ksid == flow.ksid:
                found[rest].append(row)
        return found

    def _strange_chunks(self, flow: Flow) -> int:
        made: dict[int, bytes] = {}
        for rest, rows in self._consumers(
            flow, flow.other, "stream"
        ).items():  # of the follower: what it never had is not so
            first, octets = int(rest.partition("/")[2]), b"".join(map(_octets, rows))
            made |= {first + at // flow.size: octets[at : at + flow.size] for at in range(0, len(octets), flow.size)}
        ends = (self._received.chunks[flow, end] for end in (flow.one, flow.other))
        return sum(made.get(index) != key for chunks in ends for index, key in chunks.items())

    def _strange_keys(self, flow: Flow) -> int:
        made = [b"".join(map(_octets, rows)) for rows in self._consumers(flow, flow.other, "014").values()]
        places = {
            octets[at : at + size] for octets in made for size in (32, 64) for at in range(0, len(octets) - size + 1, size)
        }
        return sum(key not in places for end in (flow.one, flow.other) for key in self._received.keys[flow, end].values())

    # What must not have left ----------------------------------------------------------------------------------------------

    def _unknown_to_the_other(self) -> list[str]:
        """Chunks that came at one end, and that the other never had as such."""
        found = []
        for flow in STREAMS:
            for here, there in ((flow.one, flow.other), (flow.other, flow.one)):
                had = set[int]()
                for rest, rows in self._consumers(flow, there, "stream").items():
                    first, count = int(rest.partition("/")[2]), sum(row.length for row in rows) // flow.size
                    had.update(range(first, first + count))
                lacking = self._received.chunks[flow, here].keys() - had
                found += [f"chunk {index} of {flow}" for index in sorted(lacking)]
        return found

    def _relayed(self) -> tuple[int, list[str]]:
        """How many relayed keys were looked for on the disks of the nodes that relayed them, and which were there."""
        looked, found = 0, []
        for number, way in ROUTES.items():
            keys = self._keys_of(number) + self._blocks_of(number, way)
            looked += len(keys)
            for name in way[1:-1]:
                found += _on_disk(self._plans[name], keys, f"link {number} at relay node {name}")
        return looked, found

    def _keys_of(self, number: int) -> list[bytes]:
        """Some that applications got, but for those that the relay node's own applications got as well."""
        chunks = [key for flow in STREAMS if flow.number == number for key in self._received.chunks[flow, flow.one].values()]
        pairs = [key for flow in PAIRS if flow.number == number for key in self._received.keys[flow, flow.one].values()]
        return chunks[-200:] + pairs[-200:]

    def _blocks_of(self, number: int, way: str) -> list[bytes]:
        """Of blocks that both ends have now, and opened: what is looked for would be found."""
        here, there = (_blocks(self._plans[end], link_id(number)) for end in (way[0], way[-1]))
        same = [here[one][-TELLING:] for one in here.keys() & there.keys()]
        assert same == [there[one][-TELLING:] for one in here.keys() & there.keys()]
        return same

    def _told(self) -> list[bytes]:
        """Keys that a node's log has, at debug level, tracebacks of the killed and of the failing among it."""
        tables = [*self._received.chunks.values(), *self._received.keys.values()]
        logs = [one.log.read_bytes() for one in self._plans.values()]
        assert all(b"DEBUG " in log for log in logs)
        return in_logs(logs, {key for table in tables for key in table.values()})

    def _alarms(self) -> list[str]:
        lines = [line for one in self._plans.values() for line in _text(one.log).splitlines()]
        return [one for one in lines if "Traceback" in one or (one.startswith("alarm") and "no key is released" not in one)]

    # Findings --------------------------------------------------------------------------------------------------------------

    @property
    def kills(self) -> int:
        return self._campaign.kills

    @property
    def generated(self) -> int:
        """By devices."""
        return sum(self.links[number].generated for number in FIBRES)

    @property
    def burnt(self) -> int:
        """Of what devices generated."""
        return sum(self.links[number].burnt.total() for number in FIBRES)

    @property
    def in_vain(self) -> int:
        """Pads, which are devices' key."""
        return sum(self.links[number].used[IN_VAIN] for number in FIBRES)

    def problems(self) -> Mapping[str, int]:
        """All must be 0."""
        figures = self.links.values()
        return {
            "key bits used twice": 8 * sum(one.twice + one.differing for one in figures),
            "octets whose use a ledger lacks": self.unrecorded,
            "keys delivered twice": self._received.twice,
            "mismatched keys": self.mismatched + self.strange,
            "unreleased keys leaked": len(self.unheld),
            "relayed keys on disks of relay nodes": len(self.disclosed),
            "keys told by logs": len(self.told),
            "alarms of honest nodes": len(self.alarms),
            "stores out of order": len(self.disorder),
        }

    def table(self) -> str:
        campaign, found = self._campaign, self._received
        ways = {number: f"{number} {'–'.join(way)}" for number, way in {**FIBRES, **ROUTES}.items()}
        lines = [f"campaign of seed {campaign.seed}: {campaign.kills} kills in {campaign.struck.total()} blows"]
        lines += [f"  {count:8} × {kind}" for kind, count in campaign.struck.most_common()]
        lines.append(f"{'octets':34}" + "".join(f"{name:>14}" for name in ways.values()))
        lines += self._row("generated", lambda one: one.generated)
        kinds = sorted({kind for one in self.links.values() for kind in one.used})
        lines += [line for kind in kinds for line in self._row(f"used for {kind}", lambda one, kind=kind: one.used[kind])]
        reasons = sorted({reason for one in self.links.values() for reason in one.burnt})
        for reason in reasons:
            lines += self._row(f"burnt {reason}", lambda one, reason=reason: one.burnt[reason])
        shares = (one.burnt.total() / max(1, one.generated) for one in self.links.values())
        lines.append(f"{'burnt':34}" + "".join(f"{share:14.3%}" for share in shares))
        for what, octets in (("was burnt", self.burnt), ("went into pads of batches that were lost", self.in_vain)):
            share, each = octets / self.generated, octets // max(1, campaign.kills)
            lines.append(f"{share:.3%} of the devices' key {what}, {each} octets per kill")
        lines.append(f"{found.count()} keys came to applications; for {found.looked} the other end's disk was looked at")
        lines.append(f"{self.relayed} relayed keys were looked for on the disks of relay nodes")
        lines.append(f"{found.skipped.total()} chunks were skipped, {found.unfetched.total()} keys lost with a reply")
        lines += [f"{name}: {count}" for name, count in self.problems().items()]
        return "\n".join(lines + self.unheld[:5] + self.disclosed[:5] + self.alarms[:5] + self.disorder[:5])

    def _row(self, name: str, figure: Callable[[LinkFigures], int]) -> list[str]:
        return [f"{name:34}" + "".join(f"{figure(one):14}" for one in self.links.values())]


@cache
def _block(link: str, number: int) -> bytes:
    return bytes(material(link, number, BLOCK).view())  # type: ignore[arg-type]


def _octets(row: LedgerRow) -> bytes:
    return _block(row.link, row.block)[row.offset : row.offset + row.length]


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def _rows(plan: Plan) -> Iterator[tuple[str, tuple[object, ...], bytes]]:
    """All that a store holds, opened with its master key."""
    with inspection.reading(plan.config.store) as database:
        seal = unseal(database, find(plan.config.master_key, mark(database)).key)
        for one, row, key in opened(database, SEALED, seal):
            assert key is not None, f"{row} of {plan.name} does not open"
            yield one.table, row, bytes(key.view())


def _blocks(plan: Plan, link: str) -> dict[object, bytes]:
    return {row[1]: key for table, row, key in _rows(plan) if table == "blocks" and row[0] == link}


def _on_disk(plan: Plan, keys: list[bytes], what: str) -> list[str]:
    """Keys that are in a file of a node as they are, or in a row of its store once it is opened."""
    rows = b"".join(key for _, _, key in _rows(plan))
    files = [path.read_bytes() for path in plan.folder.iterdir() if path.is_file()]
    return [f"{what}: {key.hex()[:8]}…" for key in keys if any(key in octets for octets in (rows, *files))]
