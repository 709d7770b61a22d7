"""Keys for tags (tags.py), from the back of the blocks of a link: what each end may tag with, before the two have met, too.

No I/O and no clock. A tag key needs less than other uses do: only that the other end holds the block and does not own it,
which its Offer tells at the start of a session, when nothing else may be taken, nor believed. Taken from the back, it and
what its message is about may come from one block and be taken in any order.
"""

from abc import ABC
from collections.abc import Mapping
from types import MappingProxyType

from qswitch.protocol.lkms import MAX_OFFERED, Offer, Segment

from ..errors import PeerViolation
from .blocks import Block
from .keys import Key
from .otp import TAG_KEY
from .owners import Owners

MAX_LEAP = 1 << 42
"""A number further above ours, in an Offer or of a block that a relay brings, is refused: a few lies would use up all
numbers there are. So far behind no end is that has lost its store, but after years at the highest rates."""


class Refused(Exception):
    """An allocation of the other end cannot be taken, without anyone's fault: the link is not in step."""


class TagKeys(Owners, ABC):
    """Every method leaves memory, counters and journal in agreement."""

    _peer_high = -1  # the highest number of a block at the other end, as it was told when the ends met
    _offered: Mapping[int, tuple[int, int]] = MappingProxyType({})  # what the other end says of own blocks: cursor, end
    _offered_high: int | None = None
    _heard_since = 0.0
    _told: list[tuple[int, int, int]] | None = None  # what the last Offer of this session said
    told_short = False
    peer_short = False  # the other end has nothing to tag with

    def offer(self, short: bool) -> Offer:
        """What the other end may tag with: its blocks that are here. The oldest, which it takes first, and the youngest."""
        self.told_short, self._told = short, self._to_offer()
        return Offer(self.link, self.totals.highest, self._told, self._offered_high is None, short)

    def _to_offer(self) -> list[tuple[int, int, int]]:
        there = [(block.number, block.cursor, block.end) for block in self._blocks.values() if not block.ours]
        return there if len(there) <= MAX_OFFERED else there[: MAX_OFFERED // 2] + there[-MAX_OFFERED // 2 :]

    @property
    def has_news(self) -> bool:
        """Whether an Offer would name other blocks than the last one of this session did."""
        return self._told != self._to_offer()

    def offered(self, message: Offer, now: float) -> None:
        """A hint, believed for no more than the choice of a block to tag with. Raises PeerViolation for an absurd number."""
        if message.high > max(self.totals.highest, self._peer_high) + MAX_LEAP:
            raise PeerViolation(self.remote, f"tells of block {message.high} of link {self.link}, which cannot be")
        self._heard_since = self._heard_since if self.heard else now
        self._offered = {number: (cursor, end) for number, cursor, end in message.blocks}
        self._offered_high, self.peer_short = message.high, message.short

    @property
    def heard(self) -> bool:
        """Whether the other end has sent its Offer in this session."""
        return self._offered_high is not None

    @property
    def peer_low(self) -> bool:
        """Whether the other end may need to know of every block that it can tag with."""
        return not self.synced or self._common - self._own < 2 * self._reserve

    def can_tag(self) -> bool:
        return self._for_tags() is not None

    def _for_tags(self) -> Block | None:
        """The oldest own block for a tag key: confirmed, or offered by an end that knows of no use which is unknown here.

        It would know of one if this end's store had been put back from a copy: octets that were a tag's key already.
        """
        for number in self._stock:
            if self._blocks[number].left >= TAG_KEY:
                return self._blocks[number]
        for number, (cursor, end) in self._offered.items():
            block = self._blocks.get(number)
            if block is not None and block.ours and block.left >= TAG_KEY and cursor <= block.cursor and end >= block.end:
                return block
        return None

    def draw(self, keys: int, consumer: str) -> tuple[Segment, Key] | None:
        """Up to so many tag keys from the back of one block, at most a quarter of it: a session may be short."""
        block = self._for_tags()
        if block is None:
            return None
        octets = TAG_KEY * max(1, min(keys, block.left // (4 * TAG_KEY)))
        segment = Segment(self.link, block.number, block.end - octets, octets)
        key = self._use_back(block, segment, consumer)
        if self._own < self._reserve:
            self.want()
        return segment, key

    def claim_back(self, segment: Segment, consumer: str) -> Key:
        """Takes tag keys that the other end has drawn, whatever comes of the message; what it passed over is burnt.

        Raises Refused for what is not here, PeerViolation for what it must not take.
        """
        _, number, offset, length = segment
        block = self._blocks.get(number)
        if block is None:
            raise Refused(f"block {number} of link {self.link} is not here")
        if block.ours:
            raise PeerViolation(self.remote, f"tags with block {number} of link {self.link}, which is not its own")
        if not length or length % TAG_KEY or offset < block.cursor or offset + length > block.end:
            raise PeerViolation(self.remote, f"tags with octets of block {number} of link {self.link} that are used")
        self._trim(block, offset + length)
        return self._use_back(block, segment, consumer)
