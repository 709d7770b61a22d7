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

Pads and messages stand in relay_pads.py, what a source does in relay_source.py; routes, and what becomes of what arrives,
stand here.
"""

from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from qswitch.protocol.lkms import Lost, Relay, RelayNack, relay_header

from ..errors import PeerViolation
from ..model import LinkConfig, LinkId, NodeId
from .keys import Key
from .lines import BATCH_BLOCKS, BLOCK, QUEUE_OCTETS, Line, Parcel
from .otp import TAG_KEY, BadTag, unseal
from .pool import Refused
from .promises import Terms
from .ranges import Ranges, pack
from .relay_source import RelaySource
from .shares import Altered, Shares


@dataclass(slots=True)
class Relays(RelaySource):
    """A node's part in all virtual links, sans I/O."""

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

    # Filling -------------------------------------------------------------------------------------------------------------

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

    # Every hop -----------------------------------------------------------------------------------------------------------

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
            whole.rests(now + self.pause_seconds)
            pool.burn([number for number in message.blocks if not pool.confirmed(number)])


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
