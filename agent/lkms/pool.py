"""One end's copy of a link's key: which block is held, by whom it may be used, how much of it is used.

No I/O and no clock: time is an argument, what must be written is handed to a `Journal` (blocks.py: blocks and counts), what
must be said to the other end to `send`, which lets a message go once all that was written before it is durable.

- A block is usable when both ends hold it. Its owner takes octets from its front, so that one number, the cursor, says what
  is used; the other end follows when it is told, and whatever it is not told lies between two cursors and is burnt.
- Keys for tags are taken from the back in the same way (tag_keys.py). The last RESERVE octets of what an end owns go to
  nothing else. Blocks may change their owner (owners.py).
- The ends meet at the start of each session: the lower asks with all it holds, the other answers. In between neither takes,
  nor believes, anything; so what is on its way from before cannot be mistaken for what comes after.
"""

from collections.abc import Iterable
from itertools import count, islice

from qswitch.protocol.lkms import MAX_MESSAGE, Have, LinkHello, LinkSync, Lost, Segment

from ..errors import PeerViolation
from .blocks import RESERVE, USUAL_BLOCK, Block, Taken, Totals
from .keys import Key
from .lacks import Lacks
from .ranges import Ranges, pack
from .tag_keys import MAX_LEAP, Refused, TagKeys

__all__ = ["EPOCHS", "RESERVE", "Block", "Pool", "Refused", "Taken", "Totals"]

EPOCHS = count(1)
"""Numbers of meetings. One sequence for the whole process: a pool or stream that is removed and made again must not
take an answer to its predecessor for one to itself."""
LOW_OCTETS = 4 * USUAL_BLOCK
"""An end that has less than this asks the other for some of its blocks."""
LAST_NUMBER = 1 << 62
"""No block has a number above this one: a message, and a row of the store, has room for twice as many."""


class Pool(TagKeys):
    """One end of one link. Every method leaves memory, counters and journal in agreement."""

    peer_full = False
    _epoch = 0

    # What there is -----------------------------------------------------------------------------------------------------

    def next_numbers(self, count: int, both: bool = False) -> list[int]:
        """For who makes the blocks: above all there were. The end that leads streams owns them, but for one, with `both` or
        whenever the other end has little left to tag its messages with. None when no numbers are left."""
        offered = -1 if self.synced or self._offered_high is None else self._offered_high
        number = max(self.totals.highest, self._peer_high, offered) + 1
        numbers = []
        if both or sum(block.left for block in self._blocks.values() if block.ours is not self.asks) < 2 * self._reserve:
            numbers.append(number + 1 - number % 2)
            number = numbers[0] + 1
        number += number % 2
        numbers += [number + 2 * one for one in range(count - len(numbers))]
        return numbers if number + 2 * count <= LAST_NUMBER else []

    # Blocks come -------------------------------------------------------------------------------------------------------

    def add(self, number: int, key: Key, now: float, wall: float, hops: int | None = None) -> bool:
        """Takes a block in; False, and the key wiped, unless its number is above all there ever were, and neither
        that nor the block is larger than what a message can tell of."""
        if not self.totals.highest < number <= LAST_NUMBER or not 0 < len(key) <= MAX_MESSAGE:
            key.wipe()
            return False
        block = Block(number, len(key), 0, self.owned_at_birth(number), wall, key, now)
        self._blocks[number] = block
        self._turn()
        self.stored += block.size
        if number in self._theirs:
            self._come(block)
        self.totals.highest = number
        self.totals.generated += block.size
        if hops is not None:
            self.totals.hops = hops
        self._write(block)
        self._write_totals()
        return True

    def fits(self, number: int) -> bool:
        """Whether a relay may have brought this block: whoever is on the way can give it another number."""
        return number <= self.totals.highest + MAX_LEAP and len(self._blocks) < self._most

    def have(self, message: Have, now: float = 0.0) -> None:
        if self.peer_full and not message.full:
            for waiting in self._blocks.values():  # for room at the other end, which there is only now
                waiting.alone_since = max(waiting.alone_since, now)
        self.peer_full = message.full
        if message.hops:
            self.totals.hops = message.hops
        useless: list[int] = []
        for number in self._numbers(message.blocks):
            if number in self._theirs:
                continue
            block = self._blocks.get(number)
            if block is None and number <= self.totals.highest:
                useless.append(number)
                continue
            if block is None and len(self._theirs) > self._most:
                raise PeerViolation(self.remote, f"link {self.link}: holds more than it can")
            self._theirs.add(number)
            if block:
                self._come(block)
        if useless:
            self._send(Lost(self.link, pack(useless)))
        self._wanted, self._asked = False, float("inf")

    def lost(self, message: Lost) -> None:
        """What the other end burnt is of no use here either."""
        if self.synced:
            for number in self._numbers(message.blocks):
                self._unusable(number)
                if number in self._blocks:
                    self._burn(self._blocks[number])
            self._write_totals()

    # The two ends meet ---------------------------------------------------------------------------------------------------

    def part(self) -> None:
        """The session with the other end is gone: nothing is known of it, nothing may be taken."""
        self._unmeet()
        self._offered = {}
        self._offered_high, self.peer_short, self.told_short, self._told = None, False, False, None

    def _unmeet(self) -> None:
        self.synced = self.peer_full = self._wanted = False
        self._theirs.clear()
        self._stock.clear()
        self._own = self._common = 0
        self.lacks, self.asked = Lacks(self.link), False

    def meet(self) -> None:
        """A session is up, or the ends are out of step: both say what they hold before anything is taken."""
        self._unmeet()
        if self.asks:
            self._epoch = next(EPOCHS)
            self._send(self._snapshot(reply=False))
        else:
            self._send(LinkHello(self.link))

    def hello(self) -> None:
        if self.asks:
            self.meet()

    def sync(self, message: LinkSync, now: float) -> str:
        """Takes the other end's snapshot, answers it where that is due; returns what must not be, in words, or nothing."""
        if message.reply is not self.asks or (message.reply and (message.epoch != self._epoch or self.synced)):
            return ""
        self._unmeet()
        self.synced, self.peer_full, self._peer_high = True, message.full, message.high
        violations = self._compare(message, now)
        self._write_totals()
        if not message.reply:
            self._epoch = message.epoch
            self._send(self._snapshot(reply=True))
        if not violations:
            return ""
        self._send(Lost(self.link, pack(violations)))
        first = f"{len(violations)} blocks of link {self.link}, the first of them {violations[0]},"
        return f"{first} were used there, where they may not be, or this end's store was put back from a copy"

    def _snapshot(self, reply: bool) -> LinkSync:
        blocks = self._blocks.values()
        return LinkSync(
            link=self.link,
            epoch=self._epoch,
            reply=reply,
            high=self.totals.highest,
            held=pack(self._blocks),
            partial=[(block.number, block.cursor, block.end) for block in blocks if block.left < block.size],
            swapped=pack(block.number for block in blocks if block.ours is not self.owned_at_birth(block.number)),
            full=self.full,
        )

    def _compare(self, message: LinkSync, now: float) -> list[int]:
        """Believes what the other end holds; returns own blocks that it has used, which are burnt."""
        held, swapped = Ranges(message.held), Ranges(message.swapped)
        parts = {number: (cursor, end) for number, cursor, end in message.partial}
        violations = []
        for block in list(self._blocks.values()):
            number = block.number
            block.alone_since = now
            if number not in held:
                if number <= message.high:  # no number comes twice: the other end will never have it
                    self._burn(block)
                continue
            theirs = self.owned_at_birth(number) is (number in swapped)
            cursor, end = parts.get(number, (0, block.size))
            if block.ours and (theirs or cursor > block.cursor or end < block.end):
                violations.append(number)
                self._burn(block)
                continue
            if not block.ours and not theirs and self.asks:  # given away, and the message was lost
                block.ours = True
                self._journal.block_owner(self.link, number, True)
            self._trim(block, end)
            self._skip(block, cursor)
            if number in self._blocks:
                self._theirs.add(number)
                self._usable(block)
        self._theirs.update(self._to_come(message.held))
        return violations

    def _to_come(self, held: Iterable[tuple[int, int]]) -> list[int]:
        """What the other end has and this one may still get; what no store could take is left out and burnt there."""
        ranges = [(max(first, self.totals.highest + 1), last) for first, last in held]
        numbers = (number for first, last in ranges for number in range(first, last + 1))
        return list(islice(numbers, self._most))

    def expire(self, now: float, doubt_seconds: float, mute: bool = False) -> int:
        """Burns blocks that only this end has held for so long, and tells the other; how many. `mute`: one of the two has
        no key to tag anything with."""
        self._wanted, self._asked = False, float("inf")
        if not self.synced:
            return self._make_room(now - doubt_seconds) if self.heard and mute else 0
        if self.peer_full:
            return 0
        late = [b for b in self._blocks.values() if b.number not in self._theirs and now - b.alone_since > doubt_seconds]
        self.burn([block.number for block in late])
        return len(late)

    def _make_room(self, before: float) -> int:
        """Full of blocks that the other end never got, this one would take no block in that the two could meet with.

        Goes by what an Offer tells, so no more than there must be room for, and first those of the end that has no key.
        """
        alone = [block for block in self._blocks.values() if block.number not in self._offered]
        late = [block for block in alone if max(block.alone_since, self._heard_since) < before]
        held = len(self._blocks)
        for block in sorted(late, key=lambda one: one.ours is self.peer_short):
            if self.room > 1 and not self.full:
                break
            self._burn(block)
        if held > len(self._blocks):
            self._write_totals()
        return held - len(self._blocks)

    def burn(self, numbers: Iterable[int]) -> None:
        """Throws blocks away, here and at the other end."""
        gone = [number for number in numbers if number in self._blocks]
        for number in gone:
            self._burn(self._blocks[number])
        if gone:
            self._write_totals()
            self._send(Lost(self.link, pack(gone)))

    def erase(self) -> None:
        """The link is removed."""
        self.part()
        for block in self._blocks.values():
            self._journal.block_gone(self.link, block.number)
            block.key.wipe()
        self._blocks.clear()
        self.stored = 0

    def wipe(self) -> None:
        """Forgets in memory; the store keeps what there is."""
        self.part()
        for block in self._blocks.values():
            block.key.wipe()
        self._blocks.clear()

    # Use ---------------------------------------------------------------------------------------------------------------

    def allocate(self, octets: int, kind: str, consumer: str) -> Taken | None:
        """Takes octets from own usable blocks, oldest first, for one consumer. None, and nothing taken, when they lack."""
        if not 0 < octets <= self.available:
            self.want()
            return None
        segments: list[Segment] = []
        for number in self._stock:
            block = self._blocks[number]
            segments.append(Segment(self.link, number, block.cursor, min(octets, block.left)))
            octets -= segments[-1].length
            if not octets:
                break
        taken = self._take(segments, kind, consumer)
        if self.available < min(LOW_OCTETS, self.theirs // 2):
            self.want()
        return taken

    def claim(self, segments: Iterable[Segment], kind: str, consumer: str) -> Taken:
        """Takes what the other end has taken from its blocks, all or nothing.

        Octets it has skipped went into something that was lost on the way; they are burnt. Raises Refused for what is
        not here, PeerViolation for what it must not take.
        """
        segments = list(segments)
        cursors: dict[int, int] = {}
        for _, number, offset, length in segments:
            block = self._blocks.get(number)
            if not self.synced or block is None or number not in self._theirs:
                raise Refused(f"block {number} of link {self.link} is not held by both ends")
            if block.ours:
                raise PeerViolation(self.remote, f"took from block {number} of link {self.link}, which is not its own")
            if not length or offset + length > block.end:
                raise PeerViolation(self.remote, f"took more of block {number} of link {self.link} than there is")
            if offset < cursors.get(number, block.cursor):
                raise PeerViolation(self.remote, f"took octets of block {number} of link {self.link} twice")
            cursors[number] = offset + length
        return self._take(segments, kind, consumer)

    def _take(self, segments: list[Segment], kind: str, consumer: str) -> Taken:
        key, made = Key(bytearray()), float("inf")
        for segment in segments:
            block = self._blocks[segment.block]
            self._skip(block, segment.offset)
            made = min(made, block.made)
            key.append(self._cut(block, segment.length))
            self._journal.used(segment, kind, consumer)
            self._draw(kind if kind == "relay" else consumer.partition("/")[0], segment.length)
        self._write_totals()
        self._asked = float("inf")
        return Taken(tuple(segments), key, made, self.totals.hops)
