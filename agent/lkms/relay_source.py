"""What the source of a virtual link does: it keeps the pool filled with fresh key, and sends that on its way."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from ..model import LinkId, NodeId
from .keys import Key
from .lines import BATCH_BLOCKS, BLOCK, Leg, Line, Parcel
from .otp import TAG_KEY
from .pool import Pool
from .relay_pads import RelayPads
from .shares import draw


@dataclass(slots=True)
class RelaySource(RelayPads):
    """A line is filled batch by batch, as far as there are pads."""

    def _first_hop(self, line: Line) -> NodeId | None:
        legs = self._legs(line)
        return legs[0][1] if legs else None

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
        line.sends(on_the_way + count, now)
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
