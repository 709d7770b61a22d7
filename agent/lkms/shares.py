"""Shares of key on their way: what came of the blocks of a link over several paths, until all of a block is there.

No I/O, no clock. A block of such a link is the XOR of as many keys as the link has components, each fresh from the source's
random generator and relayed over a path of its own; who lacks one of them knows nothing of the block. So a share is never a
block, is in memory only, is added to what is there of its block as soon as it comes, and is wiped: what waits here is one
sum for each block. A block of which a share does not come in time, comes twice or with another length, is given up.

With its block each share has TAG_KEY octets that, added up like the block, are the one-time key of a tag of the block; the
tag travels with every share. Who changes a share knows neither that key nor the block, so the change is found out, but for
what otp.py says of a tag, as long as one path is honest: the block is given up. Nobody can tell on which path it was.

Over each path blocks come in the order of their numbers. Once one is whole, those before it that are not have lost a share.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from hmac import compare_digest

from ..model import LinkId
from .keys import Key
from .otp import TAG_KEY, added, mark

LIMIT = 256
"""Blocks that may wait for shares, at most: four times what the source sends without hearing of any."""


def draw(number: int, octets: int, payloads: Sequence[Key], random: Callable[[int], bytes]) -> tuple[Key, bytes]:
    """At the source: a new block and the tag of it. Its shares, one for each payload, are put at the ends of these."""
    whole = Key(bytearray(octets + TAG_KEY))
    for payload in payloads:
        share = Key(random(octets + TAG_KEY))
        more = added(whole, share)
        whole.wipe()
        whole = more
        payload.append(share)
    with whole.cut_back(TAG_KEY) as key:
        return whole, mark(key, number, whole)


@dataclass(slots=True)
class Sum:
    """The XOR of the shares that came `over` these components; `hops` is the longest way that one of them took."""

    key: Key
    mark: bytes
    hops: int
    since: float
    over: set[LinkId] = field(default_factory=set)


class Altered(Exception):
    """The shares add up to something else than their source made."""


@dataclass(slots=True)
class Shares:
    """Of one link, at its destination."""

    components: frozenset[LinkId]
    waiting: dict[int, Sum] = field(default_factory=dict)

    def take(self, component: LinkId, number: int, share: Key, tag: bytes, hops: int, now: float) -> tuple[Key, int] | None:
        """Adds a share and wipes it; once that was the last one the block, which then belongs to the caller, and its hops.

        Raises ValueError for a share that cannot be one, Altered when tags or shares do not fit together; the block is then
        given up.
        """
        have = self.waiting.get(number)
        if have is None:
            if len(self.waiting) >= LIMIT:
                share.wipe()
                raise ValueError(f"{LIMIT} blocks wait for shares")
            have = self.waiting[number] = Sum(Key(bytearray(len(share))), tag, hops, now)
        if component in have.over or len(have.key) != len(share) or len(share) <= TAG_KEY:
            share.wipe()
            self.drop([number])
            raise ValueError(f"block {number}: the share came before, or has a length that it cannot have")
        if tag != have.mark:
            share.wipe()
            self.drop([number])
            raise Altered
        sum_ = added(have.key, share)
        have.key.wipe()
        share.wipe()
        have.key, have.hops = sum_, max(have.hops, hops)
        have.over.add(component)
        return self._whole(number) if have.over == self.components else None

    def _whole(self, number: int) -> tuple[Key, int]:
        whole = self.waiting.pop(number)
        block = whole.key.cut(len(whole.key) - TAG_KEY)
        with whole.key as key:
            if not compare_digest(mark(key, number, block), whole.mark):
                block.wipe()
                raise Altered
        return block, whole.hops

    def overtaken(self, number: int) -> list[int]:
        """Gives up what is before a block that is whole; which blocks."""
        return self.drop([one for one in self.waiting if one < number])

    def late(self, now: float, seconds: float) -> list[int]:
        """Gives up what has waited for so long; which blocks."""
        return self.drop([number for number, one in self.waiting.items() if now - one.since > seconds])

    def drop(self, numbers: Iterable[int]) -> list[int]:
        """Wipes what is there of these blocks; those of which there was anything."""
        gone = [number for number in numbers if number in self.waiting]
        for number in gone:
            self.waiting.pop(number).key.wipe()
        return gone

    def wipe(self) -> Collection[int]:
        return self.drop(list(self.waiting))

    @property
    def held(self) -> int:
        """Octets in memory."""
        return sum(len(one.key) for one in self.waiting.values())
