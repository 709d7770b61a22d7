"""How far a node's clock is off, from times that it lets slip: NETCONF has no operation that asks for it. Pure.

A time that the node wrote down at some moment between two of the controller's bounds the difference from both sides; the
narrowest of several bounds is the answer.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from ..checks import ClockCheck, Finding, Level

TOLERABLE_SECONDS = 5.0  # what is beyond it by more than the uncertainty is worth an alarm


@dataclass(frozen=True, slots=True)
class Sighting:
    """A time that the node wrote (RFC 3339) between two moments of the controller's clock (seconds since 1970)."""

    written: str
    earliest: float
    latest: float
    source: str

    def bounds(self) -> tuple[float, float] | None:
        """Least and most that the node's clock is ahead; None when what it wrote is no time."""
        try:
            moment = datetime.fromisoformat(self.written)
        except ValueError:
            return None
        if moment.tzinfo is None:
            return None
        digits = re.search(r"\.(\d+)", self.written)
        resolution = 10.0 ** -len(digits[1]) if digits else 1.0  # what is cut off may be this much
        return moment.timestamp() - self.latest, moment.timestamp() + resolution - self.earliest


def estimate(sightings: Iterable[Sighting]) -> ClockCheck:
    """Out of all sightings; unknown when there is none."""
    found = [(bounds, one) for one in sightings if (bounds := one.bounds()) is not None]
    if not found:
        return ClockCheck(how="unknown: the node gave no time")
    (low, high), best = min(found, key=lambda pair: pair[0][1] - pair[0][0])
    return ClockCheck((low + high) / 2, (high - low) / 2, best.source)


def finding(clock: ClockCheck) -> Finding | None:
    if clock.ahead is None or clock.uncertainty is None or abs(clock.ahead) - clock.uncertainty <= TOLERABLE_SECONDS:
        return None
    side = "ahead of" if clock.ahead > 0 else "behind"
    text = f"the node's clock is {abs(clock.ahead):.1f} s {side} the controller's: times of events mislead"
    return Finding(Level.WRONG, "clock", text, "have node and controller follow the same time servers (NTP)")
