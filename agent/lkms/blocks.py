"""The blocks of one end of a link: how much of each is left, and of all together, in memory and in the journal.

Nothing is decided here: pool.py says which octets go where. Every method leaves blocks, counts and journal in agreement.
"""

from bisect import insort
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from qswitch.protocol.lkms import Segment

from ..model import KeyLevels, LinkId
from .keys import Key
from .otp import TAG_KEY

USUAL_BLOCK = 4096
REFILL_PERCENT = 80
RESERVE = 16 * TAG_KEY
"""Octets of its own that an end keeps for tags: with none left it could not even tell the other end of new blocks."""


class Journal(Protocol):
    """What a pool must have written down; all of one turn becomes durable together."""

    def block(self, link: LinkId, number: int, cursor: int, size: int, ours: bool, made: float, key: Key) -> None: ...
    def block_owner(self, link: LinkId, number: int, ours: bool) -> None: ...
    def block_gone(self, link: LinkId, number: int) -> None: ...
    def used(self, segment: Segment, kind: str, consumer: str) -> None: ...
    def totals(self, link: LinkId, totals: "Totals") -> None: ...


@dataclass(slots=True)
class Block:
    """`key` is what is left after the first `cursor` of `size` octets, and of its end."""

    number: int
    size: int
    cursor: int
    ours: bool
    made: float  # seconds of the wall clock
    key: Key
    alone_since: float = 0.0

    @property
    def left(self) -> int:
        return len(self.key)

    @property
    def end(self) -> int:
        return self.cursor + len(self.key)


@dataclass(slots=True)
class Totals:
    """Octets since the link was created, the highest block number there ever was (-1: none), trusted nodes on the way."""

    highest: int = -1
    generated: int = 0
    consumed: int = 0
    burnt: int = 0
    hops: int = 0


@dataclass(frozen=True, slots=True)
class Taken:
    """Octets that now belong to one consumer; `made` is when the oldest of them was, in seconds of the wall clock."""

    segments: tuple[Segment, ...]
    key: Key
    made: float
    hops: int


class Blocks:
    """All that an end holds of a link. `asks`: it is the lower end, to which the even numbers belong at birth."""

    def __init__(
        self,
        link: LinkId,
        asks: bool,
        capacity: int,
        journal: Journal,
        totals: Totals,
        blocks: Iterable[Block],
        refill_percent: int,
        reserve: int,
    ) -> None:
        self.link, self.asks, self.capacity, self.totals = link, asks, capacity, totals
        self._journal, self._reserve = journal, reserve
        self._refill_percent, self._filled = refill_percent, False
        self.drawn: dict[str, int] = {}  # octets by consumer, at both ends alike, in this process
        self.kept = 0  # octets for a consumer who was promised them and for whom they do not reach yet
        self._blocks = {block.number: block for block in sorted(blocks, key=lambda one: one.number)}
        self._theirs: set[int] = set()  # what the other end holds as well, as far as it is known
        self._stock: list[int] = []  # own usable blocks, oldest first
        self._own = 0  # octets in them
        self.stored = sum(block.left for block in self._blocks.values())
        self._common = 0  # octets held by both ends, whoever owns them

    # What there is -----------------------------------------------------------------------------------------------------

    @property
    def available(self) -> int:
        """Octets of own usable blocks that may be allocated, by others than those for whom some is `kept`."""
        return max(0, self._own - self._reserve - self.kept)

    @property
    def theirs(self) -> int:
        """Octets that the other end may allocate."""
        return max(0, self._common - self._own - self._reserve)

    @property
    def usable(self) -> int:
        """Octets held by both ends that either may allocate."""
        return max(0, self._own - self._reserve) + self.theirs

    @property
    def low_mark(self) -> int:
        """Blocks. A pool that was full takes more once it has fewer."""
        return max(1, self.capacity * self._refill_percent // 100)

    @property
    def full(self) -> bool:
        """From the high mark, the capacity, down to the low mark: else a device would start and stop at every block."""
        held = len(self._blocks)
        return held >= self.capacity or (self._filled and held >= self.low_mark)

    @property
    def room(self) -> int:
        """How many blocks more there may be."""
        return self.capacity - len(self._blocks)

    def _turn(self) -> None:
        """After a block has come or gone."""
        self._filled = self.full

    def owned_at_birth(self, number: int) -> bool:
        return (number % 2 == 0) is self.asks

    @property
    def block_octets(self) -> int:
        """Of a block of this link, as far as can be seen."""
        first = next(iter(self._blocks.values()), None)
        return first.size if first else USUAL_BLOCK

    def counts(self) -> tuple[int, int]:
        """How many blocks are held, and how many of them not yet by the other end."""
        return len(self._blocks), sum(number not in self._theirs for number in self._blocks)

    def levels(self) -> KeyLevels:
        """In bits. Capacity counts blocks of the size there is, 4 KiB while there is none."""
        return KeyLevels(
            capacity_bits=8 * self.capacity * self.block_octets,
            stored_bits=8 * self.stored,
            usable_bits=8 * self.usable,
            generated_bits=8 * self.totals.generated,
            consumed_bits=8 * self.totals.consumed,
            burnt_bits=8 * self.totals.burnt,
            full=self.full,
        )

    def confirmed(self, number: int) -> bool:
        """Whether the other end holds the block."""
        return number in self._theirs

    # What becomes of it ------------------------------------------------------------------------------------------------

    def _usable(self, block: Block) -> None:
        self._common += block.left
        if block.ours:
            insort(self._stock, block.number)
            self._own += block.left

    def _unusable(self, number: int) -> None:
        block = self._blocks.get(number)
        if block is not None and number in self._theirs:
            self._common -= block.left
            if block.ours:
                self._stock.remove(number)
                self._own -= block.left
        self._theirs.discard(number)

    def _use_back(self, block: Block, segment: Segment, consumer: str) -> Key:
        self._count(block, segment.length)
        key = block.key.cut_back(segment.length)
        self._written(block)
        self._journal.used(segment, "tag", consumer)
        self._draw("tag", segment.length)
        self._write_totals()
        return key

    def _draw(self, consumer: str, octets: int) -> None:
        self.totals.consumed += octets
        self.drawn[consumer] = self.drawn.get(consumer, 0) + octets

    def _trim(self, block: Block, end: int) -> None:
        """Burns what lies behind `end`, or behind the cursor."""
        passed = block.end - max(end, block.cursor)
        if passed > 0:
            self._note_burnt(block, block.end - passed, passed)
            self._count(block, passed)
            block.key.cut_back(passed).wipe()
            self._written(block)

    def _skip(self, block: Block, cursor: int) -> None:
        skipped = min(cursor, block.end) - block.cursor
        if skipped > 0:
            self._note_burnt(block, block.cursor, skipped)
            self._cut(block, skipped).wipe()

    def _cut(self, block: Block, octets: int) -> Key:
        self._count(block, octets)
        front = block.key.cut(octets)
        block.cursor += octets
        self._written(block)
        return front

    def _count(self, block: Block, octets: int) -> None:
        """So many octets are about to be taken from a block."""
        if block.number in self._theirs:
            self._common -= octets
            if block.ours:
                self._own -= octets
        self.stored -= octets

    def _written(self, block: Block) -> None:
        if block.left:
            self._write(block)
        else:
            self._drop(block)

    def _burn(self, block: Block) -> None:
        self._note_burnt(block, block.cursor, block.left)
        self._unusable(block.number)
        self.stored -= block.left
        block.key.wipe()
        self._drop(block)

    def _drop(self, block: Block) -> None:
        if block.ours and block.number in self._theirs:
            self._stock.remove(block.number)
        self._theirs.discard(block.number)
        del self._blocks[block.number]
        self._turn()
        self._journal.block_gone(self.link, block.number)

    def _note_burnt(self, block: Block, offset: int, octets: int) -> None:
        self.totals.burnt += octets
        self._journal.used(Segment(self.link, block.number, offset, octets), "burnt", "")

    def _write(self, block: Block) -> None:
        self._journal.block(self.link, block.number, block.cursor, block.size, block.ours, block.made, block.key)

    def _write_totals(self) -> None:
        self._journal.totals(self.link, self.totals)
