"""Key of virtual links on its way: made at the source, one-time padded hop by hop, kept at the destination.

No I/O and no clock, like pools and streams. The source is the end without a previous hop. It keeps the pool between a
low and a high mark with fresh random key, as long as the two ends are in step and the next hop has pads; the pool at
the source holds each batch from the beginning, unusable until the destination says that it has it.

Pads come from blocks that the sending node owns of any physical link to the next hop, so the message names them and
nothing is negotiated. They are written down as used before the message leaves, at the receiver before anything comes
of it, and stay used when the message fails. A node in between holds the key in memory only, from one message to the
next, longer only while it waits for the next hop to come back or for pads; then it refuses the batch, and the nodes
before it pass that on to the source, which burns it.

A link with components has no route of its own. Its source makes one fresh share of every block for each component and
sends them at the same time, pads for all of them or for none; its key is their XOR. A component relays shares under the
numbers of that link's blocks and has no pool; the destination adds the shares up (shares.py), and from then on all is as
with one route.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from qswitch.protocol.lkms import AnyMessage, Lost, Relay, RelayNack, Segment, relay_header

from ..errors import PeerViolation
from ..model import LinkConfig, LinkId, NodeId
from .keys import Key
from .lines import BATCH_BLOCKS, BLOCK, QUEUE_OCTETS, Leg, Line, LinkTotals, Parcel
from .otp import TAG_KEY, BadTag, seal, unseal
from .pool import Pool, Refused
from .promises import Terms
from .ranges import Ranges, pack
from .shares import Altered, Shares, draw


class RelayJournal(Protocol):
    def relay_totals(self, link: LinkId, totals: LinkTotals) -> None: ...


@dataclass(slots=True)
class Relays:
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

    # Configuration -------------------------------------------------------------------------------------------------------

    def configure(self, route: LinkConfig) -> None:
        """New hops hold from the next batch on."""
        if (line := self.lines.get(route.link)) is None or line.route != route:
            self.lines[route.link] = Line(route)
        components = frozenset(route.components)
        if (shares := self.shares.get(route.link)) is not None and shares.components != components:
            self._forget_shares(route.link)
        if components:
            self.shares.setdefault(route.link, Shares(components))

    def _forget_shares(self, link: LinkId) -> None:
        if (shares := self.shares.pop(link, None)) is not None:
            self._give_up(link, shares.wipe())

    def remove(self, link: LinkId) -> None:
        self._forget_shares(link)
        self.lines.pop(link, None)
        self.totals.pop(link, None)
        for queue in self.queues.values():
            for parcel in [one for one in queue if one.link == link]:
                queue.remove(parcel)
                parcel.key.wipe()

    def wipe(self) -> None:
        for queue in self.queues.values():
            for parcel in queue:
                parcel.key.wipe()
        self.queues.clear()
        for shares in self.shares.values():
            shares.wipe()

    def held(self, link: LinkId) -> int:
        """Octets of a link's key that are in this node's memory on their way."""
        shares = self.shares.get(link)
        waiting = sum(len(one.key) for queue in self.queues.values() for one in queue if one.link == link)
        return waiting + (shares.held if shares is not None else 0)

    def total(self, link: LinkId) -> LinkTotals:
        return self.totals.setdefault(link, LinkTotals())

    # Source --------------------------------------------------------------------------------------------------------------

    def fill(self, next_hop: NodeId, now: float, most: int | None = None) -> None:
        """Towards a neighbour, key in transit first, then what this node is the source of: one batch per link in turn. With
        `most`, no more octets of pads."""
        self.lacking.pop(next_hop, None)
        self._until = None if most is None else self.spent.get(next_hop, 0) + most
        if next_hop in self.queues:
            self._pump(next_hop, now)
        busy = [
            line for line in self.lines.values() if line.route.component_of is None and self._first_hop(line) == next_hop
        ]
        while busy:
            busy = [line for line in busy if self._fill_one(line, now)]
        self._until = None

    def expire(self, now: float) -> None:
        """Gives up shares that wait too long for others."""
        for link, shares in self.shares.items():
            self._give_up(link, shares.late(now, self.wait_seconds))

    def passages(self) -> list["Passage"]:
        """The neighbours that key is relayed to from here, as consumers of pads."""
        lines = [line.route for line in self.lines.values()]
        hops = dict.fromkeys([*self.queues, *(route.next_hop for route in lines if route.next_hop is not None)])
        return [
            Passage(self, hop, sum(route.bandwidth_bps or 0 for route in lines if route.enabled and route.next_hop == hop))
            for hop in hops
        ]

    def _first_hop(self, line: Line) -> NodeId | None:
        legs = self._legs(line)
        return legs[0][1] if legs else None

    def _exceeds(self, next_hop: NodeId, octets: int) -> bool:
        return self._until is not None and self.spent.get(next_hop, 0) + octets > self._until

    def _legs(self, line: Line) -> list[Leg]:
        """Where the source sends what it makes for a link: over its route, or over all its components. Nowhere, at other
        nodes, or while one of them is missing or switched off."""
        parts = line.route.components or (line.route.link,)
        found = [part for one in parts if (part := self.lines.get(one)) is not None]
        legs = [(one.route.link, hop) for one in found if one.starts and (hop := one.route.next_hop) is not None]
        return legs if len(legs) == len(parts) and line.runs else []

    def _fill_one(self, line: Line, now: float) -> bool:
        """Sends one batch; False when there is nothing to do now, or nothing to do it with."""
        pool, legs = self.pools.get(line.route.link), self._legs(line)
        if pool is None or now < line.paused_until or not all(self.reachable(hop) for _, hop in legs):
            return False
        if not pool.synced:
            self._begin(line, pool, legs, now)
            return False
        held, on_the_way = pool.counts()
        line.turn_window(on_the_way, now, self.wait_seconds)
        if held >= pool.capacity:
            line.filling = False
        elif held < pool.low_mark:
            line.filling = True
        count = min(BATCH_BLOCKS, pool.capacity - held, line.window - on_the_way)
        if not line.filling or count <= 0:
            return False
        while count and (self._exceeds(legs[0][1], TAG_KEY + count * BLOCK) or self._any_short(legs, count, ask=count == 1)):
            count -= 1
        if not count:
            return False
        line.round = now if line.round is None else line.round
        return self._make(line.route.link, legs, pool.next_numbers(count))

    def _begin(self, line: Line, pool: Pool, legs: list[Leg], now: float) -> None:
        """Two blocks ahead of all agreement, one for each end, where an end has no key to tag its messages with.

        A relay message is authentic by itself. The session with the far end is up: its Offer came.
        """
        if pool.heard and pool.room > 1 and self.mute(pool) and not self._any_short(legs, 2, ask=True):
            line.paused_until = now + self.pause_seconds
            self._make(line.route.link, legs, pool.next_numbers(2, both=True))

    def _any_short(self, legs: list[Leg], blocks: int, ask: bool) -> bool:
        """Whether any leg lacks pads for so many blocks; all that do are asked for."""
        octets = TAG_KEY + blocks * (BLOCK if len(legs) == 1 else BLOCK + TAG_KEY)
        return True in [self._pads_short(hop, octets, ask) for _, hop in legs]

    def _make(self, link: LinkId, legs: list[Leg], numbers: Collection[int]) -> bool:
        """Makes these blocks and sends them; False when there are none."""
        if len(legs) > 1 and numbers:
            self._make_shares(link, legs, numbers)
        elif numbers:
            self._make_batch(link, legs[0][1], numbers)
        return len(numbers) > 0

    def _make_batch(self, link: LinkId, next_hop: NodeId, numbers: Collection[int]) -> None:
        payload, blocks = Key(bytearray()), []
        for number in numbers:
            key = Key(self.random(BLOCK))
            payload.append(key.take(0, BLOCK))
            blocks.append((number, BLOCK))
            self.made(link, number, key)
        self._pass_on(Parcel(link, self.local, 0, tuple(blocks), payload, 0.0), next_hop)

    def _make_shares(self, link: LinkId, legs: list[Leg], numbers: Iterable[int]) -> None:
        """One share of each block over each leg."""
        payloads, blocks, marks, pads = [Key(bytearray()) for _ in legs], list[tuple[int, int]](), list[bytes](), 0
        for number in numbers:
            block, tag = draw(number, BLOCK, payloads, self.random)
            self.made(link, number, block)
            blocks.append((number, BLOCK + TAG_KEY))
            marks.append(tag)
        for (part, hop), payload in zip(legs, payloads, strict=True):
            pads += self._pass_on(Parcel(part, self.local, 0, tuple(blocks), payload, 0.0, len(legs), marks), hop)
        self._count(link, len(blocks) * BLOCK, pads)

    # Every hop -----------------------------------------------------------------------------------------------------------

    def _pads_short(self, neighbour: NodeId, octets: int, ask: bool = True) -> bool:
        pools = self.towards(neighbour)
        short = sum(max(0, pool.available - self.reserved.get(pool.link, 0)) for pool in pools) < octets
        if short:
            self.lacking[neighbour] = octets
        if short and ask:
            for pool in pools:
                pool.want()
        return short

    def towards(self, neighbour: NodeId) -> list[Pool]:
        """Physical links to a neighbour: those that nothing is relayed on."""
        return [pool for link, pool in self.pools.items() if pool.remote == neighbour and link not in self.lines]

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

    def _count(self, link: LinkId, relayed: int, pads: int) -> None:
        total = self.total(link)
        total.relayed += relayed
        total.pads += pads
        self.journal.relay_totals(link, total)

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

    def on_relay(self, sender: NodeId, message: Relay, now: float) -> None:
        """Takes a batch one hop further, or in. Raises PeerViolation for one that its sender cannot have meant."""
        try:
            pad = self._claim_pads(sender, message)
        except Refused as error:
            links = tuple({segment.link for segment in message.pad})
            self._refuse(sender, message.link, message.blocks, str(error), links)
            return
        except PeerViolation as error:
            self._refuse(sender, message.link, message.blocks, str(error))
            raise
        try:
            key = self._open(sender, message, pad)
        except Refused as error:
            self._refuse(sender, message.link, message.blocks, str(error))
            return
        except BadTag as error:
            self._refuse(sender, message.link, message.blocks, str(error))
            raise PeerViolation(sender, f"sent a batch of link {message.link} that is not authentic: {error}") from error
        finally:
            pad.wipe()
        self._forward(sender, message, key, now)

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

    def _open(self, sender: NodeId, message: Relay, pad: Key) -> Key:
        line = self.lines.get(LinkId(message.link))
        if line is None or line.route.previous_hop != sender:
            raise Refused("the route does not come this way")
        if sum(size for _, size in message.blocks) != len(message.ciphertext):
            raise BadTag("blocks and ciphertext differ in length")
        key = unseal(pad, relay_header(message), message.ciphertext, message.tag)
        marked = len(message.marks) == (len(message.blocks) if message.shares > 1 else 0)
        if not marked or (line.route.next_hop is None and message.shares != self._expected(line)):
            key.wipe()
            raise Refused("the two ends do not agree on how many shares make the key")
        return key

    def _expected(self, line: Line) -> int:
        """How many shares make the key that this line brings to its destination; 0 where nobody knows."""
        owner, link = line.route.component_of, line.route.link
        if owner is None:
            return 1
        shares = self.shares.get(owner)
        return len(shares.components) if shares is not None and link in shares.components else 0

    def _forward(self, sender: NodeId, message: Relay, key: Key, now: float) -> None:
        link = LinkId(message.link)
        next_hop = self.lines[link].route.next_hop
        blocks = tuple((number, size) for number, size in message.blocks)
        if next_hop is None:
            self._count(link, len(message.ciphertext), 0)
            if message.shares > 1:
                self._take_shares(sender, message, key, now)
                return
            for number, size in blocks:
                self.arrived(link, number, key.cut(size), message.hops)
            return
        queue = self.queues.setdefault(next_hop, deque())
        if sum(len(one.key) for one in queue) > QUEUE_OCTETS or message.hops >= 255:
            key.wipe()
            self._refuse(sender, link, blocks, "too much waits for the next hop")
            return
        queue.append(Parcel(link, sender, message.hops + 1, blocks, key, now, message.shares, message.marks))
        self._pump(next_hop, now)

    def _take_shares(self, sender: NodeId, message: Relay, key: Key, now: float) -> None:
        """At the destination. Raises PeerViolation when what is whole now is not what its source made."""
        component = LinkId(message.link)
        link = self.lines[component].route.component_of
        pool, altered = (self.pools.get(link) if link is not None else None), list[int]()
        for (number, size), tag in zip(message.blocks, message.marks, strict=True):
            share = key.cut(size)
            if link is None or pool is None or number <= pool.totals.highest:
                share.wipe()
                continue
            try:
                self._take_share(link, number, self.shares[link].take(component, number, share, tag, message.hops, now))
            except (ValueError, Altered) as error:
                altered += [number] if isinstance(error, Altered) else []
                self._count_failure(link)
                self._give_up(link, [number])
        if altered:
            what = f"shares of link {link} that are not what their source made: a node on one of the paths has changed them"
            raise PeerViolation(sender, f"completes {what}")

    def _take_share(self, link: LinkId, number: int, whole: tuple[Key, int] | None) -> None:
        """With its last share a block is taken in, and what that shows to be lost is given up."""
        if whole is not None:
            self._count(link, len(whole[0]), 0)
            self._give_up(link, self.shares[link].overtaken(number))
            self.arrived(link, number, *whole)

    def _give_up(self, link: LinkId, numbers: Collection[int]) -> None:
        """Tells the source of blocks that never will be whole, for it to burn them."""
        if numbers and (pool := self.pools.get(link)) is not None:
            self.send(pool.remote, Lost(link, pack(numbers)))

    def on_lost(self, message: Lost) -> None:
        """What the other end burnt needs no more shares."""
        if (shares := self.shares.get(LinkId(message.link))) is not None:
            burnt = Ranges(message.blocks)
            shares.drop([number for number in shares.waiting if number in burnt])

    def _pump(self, next_hop: NodeId, now: float) -> None:
        queue = self.queues[next_hop]
        while queue:
            parcel, octets = queue[0], TAG_KEY + len(queue[0].key)
            if now - parcel.since > self.wait_seconds:
                queue.popleft()
                parcel.key.wipe()
                self._refuse(parcel.previous, parcel.link, parcel.blocks, "no next hop, or no key towards it")
            elif not self.reachable(next_hop) or self._exceeds(next_hop, octets) or self._pads_short(next_hop, octets):
                return
            else:
                queue.popleft()
                self._pass_on(parcel, next_hop)
        del self.queues[next_hop]

    # Failures ------------------------------------------------------------------------------------------------------------

    def _refuse(
        self, sender: NodeId, link: str, blocks: Iterable[tuple[int, int]], reason: str, links: tuple[str, ...] = ()
    ) -> None:
        if LinkId(link) in self.lines:
            self._count_failure(LinkId(link))
        self.send(sender, RelayNack(link, [number for number, _ in blocks], reason[:200], links))

    def on_nack(self, sender: NodeId, message: RelayNack, now: float) -> None:
        """Passes a refusal back; the source burns the batch and rests for a moment."""
        for name in message.links:
            pool = self.pools.get(LinkId(name))
            if pool is not None and pool.remote == sender and pool.synced:
                pool.meet()
        link = LinkId(message.link)
        line = self.lines.get(link)
        if line is None or line.route.next_hop != sender:
            return
        self._count_failure(link)
        if line.route.previous_hop is not None:
            self.send(line.route.previous_hop, RelayNack(message.link, message.blocks, message.reason))
        elif (whole := self.lines.get(line.route.component_of or link)) and (pool := self.pools.get(whole.route.link)):
            whole.paused_until, whole.window, whole.round = now + self.pause_seconds, 1, None
            pool.burn([number for number in message.blocks if not pool.confirmed(number)])

    def _count_failure(self, link: LinkId) -> None:
        total = self.total(link)
        total.failures += 1
        self.journal.relay_totals(link, total)


@dataclass(frozen=True, slots=True)
class Passage:
    """A neighbour that key is relayed to, as a consumer: its virtual links' bandwidth is promised it; more comes last."""

    relays: Relays
    next_hop: NodeId
    bandwidth_bps: int

    @property
    def name(self) -> str:
        return self.next_hop

    @property
    def terms(self) -> Terms:
        return Terms(self.bandwidth_bps * (BLOCK + TAG_KEY) // BLOCK, -1)

    @property
    def unit(self) -> int:
        return TAG_KEY + BATCH_BLOCKS * BLOCK

    @property
    def allocated(self) -> int:
        return self.relays.spent.get(self.next_hop, 0)

    def short(self) -> int:
        return self.relays.lacking.get(self.next_hop, 0)

    def waits(self) -> int:
        return 0


def _consumer(link: LinkId, sender: NodeId, receiver: NodeId, blocks: Iterable[tuple[int, int]]) -> str:
    first = next((number for number, _ in blocks), 0)
    return f"{link}/{first}/{sender}>{receiver}"
