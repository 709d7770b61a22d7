"""The figures of a link, measured: what it makes, what is drawn from it, and whether that is too much. No I/O, no clock.

A link is sampled about once a second. What it makes cannot be measured while a full store holds it up: then what its device
says of itself stands (`skr` of 015), and else what came. What was drawn is known by consumer and to the bit, alike at both
ends of the link.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

PERIOD_SECONDS = 10.0
MEMORY_SECONDS = 60.0
ARRIVALS = 10
"""On a slow link a block comes rarely: the period is as long as so many take, within what is remembered."""
TAGS, PADS = "tag", "relay"
"""Names of what the network itself consumes."""
SCARCE_BITS = 2 * 8 * 4096
"""Two blocks: each end keeps its last one, to tag its messages with."""
ENOUGH_BITS = 4 * SCARCE_BITS
SAMPLES, BAD_SAMPLES = 10, 5
TOLD_AGAIN_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Sample:
    """Bits since some beginning; `drawn_bits` by consumer: an application's id, TAGS, PADS."""

    at: float
    generated_bits: int
    drawn_bits: Mapping[str, int]


@dataclass(slots=True)
class Figures:
    """The samples of the last minute. What the link makes is measured from `since` on, when it was held up last."""

    samples: deque[Sample] = field(default_factory=deque)
    since: float = float("-inf")

    def sample(self, one: Sample, held_up: bool = False) -> None:
        """`held_up`: it did not make, just now or at any time since the sample before, what it could."""
        if self.samples and one.generated_bits < self.samples[-1].generated_bits:
            self.samples.clear()  # the link was made anew
        if self.samples and one.at <= self.samples[-1].at:
            self.samples.pop()
        self.samples.append(one)
        while len(self.samples) > 2 and self.samples[1].at <= one.at - MEMORY_SECONDS:
            self.samples.popleft()
        if held_up:
            self.since = one.at

    def made_bps(self) -> float | None:
        """Bits per second that came in the last period, from one arrival to another; None while that cannot be told."""
        seen = [one for one in self.samples if one.at >= self.since]
        if not seen or (watched := seen[-1].at - seen[0].at) < PERIOD_SECONDS:
            return None
        came = [new for old, new in pairwise(seen) if new.generated_bits > old.generated_bits]
        if len(came) < 2:
            return _rate(seen[0], seen[-1]) if watched >= MEMORY_SECONDS else None
        last = came[-1] if seen[-1].at - came[-1].at < PERIOD_SECONDS else seen[-1]
        enough = [one for one in came[:-ARRIVALS] if one.at <= last.at - PERIOD_SECONDS]
        return _rate(enough[-1] if enough else came[0], last)

    def drawn_bps(self) -> Mapping[str, float]:
        """Bits per second that each consumer drew in the last period."""
        if len(self.samples) < 2:
            return {}
        newest, oldest = self.samples[-1], self.samples[0]
        for one in self.samples:
            if one.at <= newest.at - PERIOD_SECONDS:
                oldest = one
        passed = newest.at - oldest.at
        return {name: max(0, bits - oldest.drawn_bits.get(name, 0)) / passed for name, bits in newest.drawn_bits.items()}

    def internal_bps(self) -> float:
        """Of what was drawn, what the network consumed: the difference of skr and eskr."""
        drawn = self.drawn_bps()
        return drawn.get(TAGS, 0.0) + drawn.get(PADS, 0.0)


def _rate(old: Sample, new: Sample) -> float:
    return (new.generated_bits - old.generated_bits) / (new.at - old.at)


# Overload ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Load:
    """A link now: whether anybody waits for key that it does not have, what is in store, what it makes and should give."""

    waits: bool
    usable_bits: int
    capacity_bits: int
    skr_bps: float
    expected_bps: float

    @property
    def bad(self) -> bool:
        drained = self.usable_bits < SCARCE_BITS and self.expected_bps > 0.95 * self.skr_bps
        return self.waits or drained

    @property
    def well(self) -> bool:
        stocked = self.usable_bits >= min(ENOUGH_BITS, self.capacity_bits // 2)
        return not self.waits and (stocked or self.expected_bps <= 0.9 * self.skr_bps)


@dataclass(slots=True)
class Overload:
    """Begins when half of the last samples were bad, ends when as many in a row as are remembered were well.

    Told once, and not before TOLD_AGAIN_SECONDS have passed since the time before.
    """

    on: bool = False
    recent: deque[bool] = field(default_factory=lambda: deque(maxlen=SAMPLES))
    calm: int = 0
    told: bool = False
    told_at: float = float("-inf")

    def sample(self, load: Load, now: float) -> bool:
        """Whether it is to be told now that the link is overloaded."""
        self.recent.append(load.bad)
        self.calm = self.calm + 1 if load.well else 0
        if not self.on:
            self.on, self.told = sum(self.recent) >= BAD_SAMPLES, False
        elif self.calm >= SAMPLES:
            self.reset()
        if not self.on or self.told or now - self.told_at < TOLD_AGAIN_SECONDS:
            return False
        self.told, self.told_at = True, now
        return True

    def reset(self) -> None:
        """It is none any more, or the link does not run."""
        self.on, self.calm = False, 0
        self.recent.clear()
