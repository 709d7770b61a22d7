"""To which end the blocks of a link belong, and how they change hands.

No I/O and no clock. Owner is, to begin with, the end with the lower node id for even numbers, the other for odd ones. An
owner may give a block away: it writes that down before it says so and never takes from the block again, so that a lost
message leaves a block that belongs to nobody, never to both. Without that, half of the key would be of no use to a one-sided
demand. An end that runs short asks for blocks that lie idle at the other; what is not idle there goes by what each end lacks
(lacks.py, promises.py).
"""

from abc import ABC
from collections.abc import Callable, Iterable

from qswitch.protocol.lkms import AnyMessage, Give, Lack, Want

from ..errors import PeerViolation
from ..model import LinkId, NodeId
from .blocks import REFILL_PERCENT, RESERVE, USUAL_BLOCK, Block, Blocks, Journal, Totals
from .lacks import Lacks, less
from .ranges import TooMany, pack, unpack


class Owners(Blocks, ABC):
    """Every method leaves memory, counters and journal in agreement."""

    def __init__(
        self,
        link: LinkId,
        local: NodeId,
        remote: NodeId,
        capacity: int,
        journal: Journal,
        send: Callable[[AnyMessage], None],
        totals: Totals,
        blocks: Iterable[Block] = (),
        refill_percent: int = REFILL_PERCENT,
        reserve: int = RESERVE,
    ) -> None:
        super().__init__(link, local < remote, capacity, journal, totals, blocks, refill_percent, reserve)
        self.local, self.remote, self._send = local, remote, send
        self.synced = False  # the ends have met in this session
        self._wanted, self._asked = False, float("inf")
        self.lacks, self.asked = Lacks(link), False  # asked: for blocks that lie idle here

    @property
    def _most(self) -> int:
        """Blocks that an honest end may hold, or name at once, at most: more than any does."""
        return 16 * self.capacity + 1000

    def _numbers(self, ranges: Iterable[tuple[int, int]]) -> list[int]:
        try:
            return unpack(list(ranges), self._most) if self.synced else []
        except TooMany as error:
            raise PeerViolation(self.remote, f"link {self.link}: {error}") from error

    def _come(self, block: Block) -> None:
        self._usable(block)
        self.lacks.came(block.left if block.ours else -block.left)

    def want(self) -> None:
        """Asks for some of the other end's blocks, if it has any; once, until something changes."""
        theirs = self.theirs
        if self.synced and not self._wanted and 0 < theirs < self._asked:
            self._wanted, self._asked = True, theirs
            self._send(Want(self.link))

    def wanted(self) -> None:
        """The other end runs short: gives away half of the own blocks, the youngest, and none of the reserve. To say that
        there is nothing to give would cost a tag key of the last that there are, each time that it asks."""
        self.asked = False
        if not self.synced:
            return
        whole = sum(not self._blocks[number].cursor for number in self._stock)
        if numbers := self._youngest(max(1, whole // 2)):
            self._give(numbers)

    def _youngest(self, most: int, octets: float = float("inf"), over: bool = True) -> list[int]:
        """Own blocks that may be given away: of which nothing is used, and without which the reserve and what is kept are
        there still. Up to so many, and so many octets, with one that goes beyond them if `over`."""
        given, total = list[int](), 0
        for block in (self._blocks[number] for number in reversed(self._stock)):
            if len(given) == most or total >= octets or (total + block.left > octets and not over):
                break
            if not block.cursor and total + block.left <= self.available:
                given.append(block.number)
                total += block.left
        return given

    def _give(self, numbers: list[int]) -> None:
        octets = sum(self._blocks[number].left for number in numbers)
        for number in numbers:
            self._theirs_again(self._blocks[number], ours=False)
        self.lacks.there = less(self.lacks.there, octets)
        self._send(Give(self.link, pack(sorted(numbers))))

    def given(self, message: Give) -> None:
        numbers = [n for n in self._numbers(message.blocks) if n in self._blocks and not self._blocks[n].ours]
        self._wanted = not numbers  # who has nothing to give says nothing, and is not asked again at once
        for number in numbers:
            self._theirs_again(self._blocks[number], ours=True)
        self.lacks.here = less(self.lacks.here, sum(self._blocks[number].left for number in numbers))

    def _theirs_again(self, block: Block, ours: bool) -> None:
        known = block.number in self._theirs
        self._unusable(block.number)
        block.ours = ours
        self._journal.block_owner(self.link, block.number, ours)
        if known:
            self._theirs.add(block.number)
            self._usable(block)
            self.lacks.came(2 * block.left if ours else -2 * block.left)

    def tell(self, lack: Lack, now: float) -> None:
        """What lacks here, of which the other end is told where that is news. Blocks that lie idle there are asked for with
        `want`."""
        idle = self.theirs >= USUAL_BLOCK
        if self.synced and (news := self.lacks.news(Lack(self.link) if idle else lack, now)) is not None:
            self._send(news)

    def lacking(self, message: Lack) -> None:
        if self.synced:
            self.lacks.there = message

    def give_owed(self) -> None:
        """To the other end, for what consumers there were promised."""
        if self._give_up_to(self.lacks.there.owed, over=False) >= self.block_octets:
            self._keep_all()

    def give_before(self, priority: int) -> None:
        """To the other end, before consumers of this importance have theirs; to its equals half of what comes."""
        more = self.lacks.there.priority > priority
        if self._give_up_to(self.lacks.before(priority), over=more) > 0 and more:
            self._keep_all()

    def _give_up_to(self, octets: int, over: bool) -> int:
        """How much of it could not be given."""
        if octets and (numbers := self._youngest(len(self._stock), octets, over)):
            octets -= sum(self._blocks[number].left for number in numbers)
            self._give(numbers)
        return octets

    def _keep_all(self) -> None:
        """What cannot be given, being less than a block beside the reserve, is kept until it can be: or whoever is less
        important would have that of each block. Nothing is kept from equals: both ends would wait for each other."""
        self.kept = max(self.kept, self._own)
