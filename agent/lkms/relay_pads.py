"""What relaying takes at every hop: pads of physical links, each used once, and the message that they hide and prove."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from qswitch.protocol.lkms import AnyMessage, Relay, Segment, relay_header

from ..model import LinkId, NodeId
from .keys import Key
from .lines import Line, LinkTotals, Parcel
from .otp import TAG_KEY, seal
from .pool import Pool, Refused
from .shares import Shares


class RelayJournal(Protocol):
    def relay_totals(self, link: LinkId, totals: LinkTotals) -> None: ...


@dataclass(slots=True)
class RelayPads:
    """All virtual links of a node. `random` makes key; `reachable` says whether there is a session with a neighbour."""

    local: NodeId
    journal: RelayJournal
    send: Callable[[NodeId, AnyMessage], None]
    pools: Mapping[LinkId, Pool]
    reachable: Callable[[NodeId], bool]
    arrived: Callable[[LinkId, int, Key, int], None]  # destination: takes a block in (link, number, key, hops)
    made: Callable[[LinkId, int, Key], None]  # source: the same for what it has made
    random: Callable[[int], bytes]
    mute: Callable[[Pool], bool]  # whether an end has no key to tag what it has to tell the other of a pool
    wait_seconds: float
    totals: dict[LinkId, LinkTotals] = field(default_factory=dict)
    lines: dict[LinkId, Line] = field(default_factory=dict)
    queues: dict[NodeId, deque[Parcel]] = field(default_factory=dict)
    shares: dict[LinkId, Shares] = field(default_factory=dict)
    reserved: Mapping[LinkId, int] = field(default_factory=dict)  # octets of a link that pads must leave to its streams
    pause_seconds: float = 1.0
    spent: dict[NodeId, int] = field(default_factory=dict)  # octets of pads, by next hop, in this process
    lacking: dict[NodeId, int] = field(default_factory=dict)  # octets for the next message, when there are not so many
    _until: int | None = None

    def total(self, link: LinkId) -> LinkTotals:
        return self.totals.setdefault(link, LinkTotals())

    def _count(self, link: LinkId, relayed: int, pads: int) -> None:
        total = self.total(link)
        total.relayed += relayed
        total.pads += pads
        self.journal.relay_totals(link, total)

    def _count_failure(self, link: LinkId) -> None:
        total = self.total(link)
        total.failures += 1
        self.journal.relay_totals(link, total)

    def towards(self, neighbour: NodeId) -> list[Pool]:
        """Physical links to a neighbour: those that nothing is relayed on."""
        return [pool for link, pool in self.pools.items() if pool.remote == neighbour and link not in self.lines]

    def _pads_short(self, neighbour: NodeId, octets: int, ask: bool = True) -> bool:
        pools = self.towards(neighbour)
        short = sum(max(0, pool.available - self.reserved.get(pool.link, 0)) for pool in pools) < octets
        if short:
            self.lacking[neighbour] = octets
        if short and ask:
            for pool in pools:
                pool.want()
        return short

    def _exceeds(self, next_hop: NodeId, octets: int) -> bool:
        return self._until is not None and self.spent.get(next_hop, 0) + octets > self._until

    def _pass_on(self, parcel: Parcel, next_hop: NodeId) -> int:
        """Pads, sends and wipes; the octets of pad it cost. To be called when there are pads enough."""
        link, key = parcel.link, parcel.key
        pad, segments = self._take_pads(link, next_hop, TAG_KEY + len(key), parcel.blocks)
        bare = Relay(link, parcel.hops, parcel.blocks, segments, b"", b"", parcel.shares, parcel.marks)
        ciphertext, tag = seal(pad, relay_header(bare), key)
        self.send(next_hop, msgspec.structs.replace(bare, ciphertext=ciphertext, tag=tag))
        self._count(link, len(key), len(pad))
        pad.wipe()
        key.wipe()
        return len(pad)

    def _take_pads(
        self, link: LinkId, next_hop: NodeId, octets: int, blocks: tuple[tuple[int, int], ...]
    ) -> tuple[Key, tuple[Segment, ...]]:
        pad, segments = Key(bytearray()), list[Segment]()
        for pool in self.towards(next_hop):
            share = min(octets - len(pad), pool.available)
            if share and (taken := pool.allocate(share, "relay", _consumer(link, self.local, next_hop, blocks))):
                pad.append(taken.key)
                segments += taken.segments
                self._count(pool.link, 0, share)
        if len(pad) != octets:
            raise AssertionError("pads were counted wrongly")
        self.spent[next_hop] = self.spent.get(next_hop, 0) + octets
        return pad, tuple(segments)

    def _claim_pads(self, sender: NodeId, message: Relay) -> Key:
        """Whatever becomes of the message, its pads are used up."""
        by_link: dict[LinkId, list[Segment]] = {}
        for segment in message.pad:
            by_link.setdefault(LinkId(segment.link), []).append(segment)
        pools = {link: self.pools.get(link) for link in by_link}
        pad = Key(bytearray())
        consumer = _consumer(LinkId(message.link), sender, self.local, message.blocks)
        for link, segments in by_link.items():
            pool = pools[link]
            if pool is None or pool.remote != sender or link in self.lines:
                raise Refused(f"no link {link} between the two nodes")
            taken = pool.claim(segments, "relay", consumer)
            pad.append(taken.key)
            self._count(link, 0, sum(segment.length for segment in segments))
        return pad


def _consumer(link: LinkId, sender: NodeId, receiver: NodeId, blocks: Iterable[tuple[int, int]]) -> str:
    first = next((number for number, _ in blocks), 0)
    return f"{link}/{first}/{sender}>{receiver}"
