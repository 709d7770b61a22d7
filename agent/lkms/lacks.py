"""What the two ends of a link lack, as far as each has told the other: which of them gets blocks when both want key.

No I/O and no clock. An end whose own blocks do not reach says what its consumers were promised and have not had, and how
much the most important of those that wait do wait for. At the other end it then is one more consumer (promises.py), who is
given whole blocks: for what is owed it, ahead of who is less important, and beside who is as important its half.
"""

from dataclasses import dataclass, field

from qswitch.protocol.lkms import MAX_MESSAGE, Lack

from ..model import LinkId
from .blocks import USUAL_BLOCK

REST_SECONDS = 0.25
"""What lacks no more is told only after so long: who reads one chunk after the other waits again at once."""
MOST_AHEAD = 16 * USUAL_BLOCK


def add(lack: Lack, owed: int, waited: int, priority: int) -> Lack:
    """With one more consumer that waits; of what is waited for, that of the most important ones counts."""
    if waited and priority >= lack.priority:
        return Lack(lack.link, lack.owed + owed, waited + (lack.waited if priority == lack.priority else 0), priority)
    return Lack(lack.link, lack.owed + owed, lack.waited, lack.priority)


def less(lack: Lack, octets: int) -> Lack:
    """When so much was given away for it."""
    return Lack(lack.link, max(0, lack.owed - octets), max(0, lack.waited - octets), lack.priority)


@dataclass(slots=True)
class Lacks:
    """In octets. `here`: what lacks at this end, as the other was told; `there`: what lacks at the other."""

    link: LinkId
    here: Lack = field(init=False)
    there: Lack = field(init=False)
    ahead: int = 0  # how much more has come to this end than to the other, as far back as that is worth knowing
    still: float = float("-inf")  # when all that the other end was told was still so

    def __post_init__(self) -> None:
        self.here = self.there = Lack(self.link)

    def news(self, lack: Lack, now: float) -> Lack | None:
        """What to tell of what lacks here now, if anything. In whole blocks: a smaller change is not worth a message."""
        owed, waited = (min(octets, MAX_MESSAGE) for octets in (lack.owed, lack.waited))
        rough = Lack(self.link, owed // USUAL_BLOCK * USUAL_BLOCK, -(-waited // USUAL_BLOCK) * USUAL_BLOCK, lack.priority)
        before = self.here
        more = rough.owed > before.owed or (rough.waited, rough.priority) > (before.waited, before.priority)
        if before.owed > rough.owed or before.waited > rough.waited or before.priority > rough.priority:
            rests = not 0 <= now - self.still < REST_SECONDS
        else:
            rests, self.still = False, now
        if not rests and not more:
            return None
        self.here = rough
        return rough

    def came(self, octets: int) -> None:
        """To this end; below 0, to the other."""
        self.ahead = max(-MOST_AHEAD, min(self.ahead + octets, MOST_AHEAD))

    def before(self, priority: int) -> int:
        """How much goes to the other end before it goes to who is of this importance here."""
        if self.there.priority == priority:
            return min(self.there.waited, max(0, self.ahead // 2))
        return self.there.waited if self.there.priority > priority else 0
