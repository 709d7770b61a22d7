"""Whether an application gets the min_bandwidth that it was promised, while it asks for key. No I/O, no clock.

Key comes in blocks: what an application gets is measured over so long that a block more or less is of no account, and ten
seconds at least. A floor is not held when that is less than it by a tenth while the application waits again and again for
key that is not there; it is held again when it gets what it was promised, or asks for no more than it gets.
"""

from collections import deque
from dataclasses import dataclass, field, replace

from .model import ApplicationConfig, ApplicationQosUpdate

LEAST_SECONDS, MOST_SECONDS = 10.0, 600.0
BLOCKS = 16 * 8 * 4096
"""Bits: of so many a block is little."""
RECENT, WAITING = 10, 3
"""Samples: it asks for more than it gets when it waited in so many of so many."""
NOT_HELD, HELD = 0.9, 0.97


@dataclass(slots=True)
class Floor:
    """Sampled about once a second; of an application whose minimum changes another one is made."""

    min_bps: int
    unmet: bool = False
    got: deque[tuple[float, int]] = field(default_factory=deque)
    waited: deque[bool] = field(default_factory=lambda: deque(maxlen=RECENT))

    @property
    def seconds(self) -> float:
        """How long what it gets is measured."""
        return min(max(LEAST_SECONDS, BLOCKS / self.min_bps), MOST_SECONDS)

    def sample(self, bits: int, waits: bool, now: float) -> int | None:
        """`bits` it has got in all. What it gets, in bit/s, when it is to be told that this is `unmet`, or is no more."""
        if self.got and bits < self.got[-1][1]:
            self.got.clear()  # the stream was made anew
        self.got.append((now, bits))
        self.waited.append(waits)
        while len(self.got) > 2 and self.got[1][0] <= now - self.seconds:
            self.got.popleft()
        if (bps := self._bps()) is None:
            return None
        if not self.unmet and bps < NOT_HELD * self.min_bps and sum(self.waited) >= WAITING:
            return self._turn(True, bps)
        if self.unmet and (bps >= HELD * self.min_bps or not any(self.waited)):
            return self._turn(False, bps)
        return None

    def _bps(self) -> float | None:
        (start, first), (end, last) = self.got[0], self.got[-1]
        return (last - first) / (end - start) if end - start >= self.seconds else None

    def _turn(self, unmet: bool, bps: float) -> int:
        """Whatever follows is measured anew, so that nothing is told again before as long."""
        self.unmet = unmet
        newest = self.got[-1]
        self.got.clear()
        self.got.append(newest)
        return int(bps)


def watch(
    floor: Floor | None, entry: ApplicationConfig, bits: int, waits: bool, now: float
) -> tuple[Floor | None, ApplicationQosUpdate | None]:
    """The floor of an application from now on, and what is to be told of it."""
    promised = entry.qos.min_bandwidth_bps
    if not promised:
        return None, None
    if floor is None or floor.min_bps != promised:
        floor = Floor(promised)
    bps = floor.sample(bits, waits, now)
    if bps is None:
        return floor, None
    if not floor.unmet:
        return floor, ApplicationQosUpdate(entry.ksid, entry.qos, entry.priority)
    qos = replace(entry.qos, min_bandwidth_bps=bps)
    return floor, ApplicationQosUpdate(entry.ksid, qos, entry.priority, unmet_min_bps=promised)
