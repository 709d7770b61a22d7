"""How much key an application has consumed, by periods (015: app_statistics). No I/O, no clock.

Periods join: each begins where the one before ended, so that their sum is all that was delivered since the first began.
The last few are kept; a controller that reads now and then adds them up as they pass by.
"""

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime

from .model import Consumption

PERIODS = 6  # that are kept
PERIOD_SECONDS = 10


@dataclass(slots=True)
class Periods:
    """Of one application at one node; `start` and `before` are when the running period began, and the total by then."""

    start: datetime
    before: int
    over: deque[Consumption] = field(default_factory=lambda: deque(maxlen=PERIODS))

    def count(self, bits: int, now: datetime, last: bool = False) -> None:
        """`bits` have been delivered in all. `last`: nothing more will come for now, so that what came is told at once."""
        if bits < self.before:
            self.before = 0  # the total started over
        ends = (last and bits > self.before) or (now - self.start).total_seconds() >= PERIOD_SECONDS
        if ends and now > self.start:
            self.over.append(Consumption(self.start, now, bits - self.before))
            self.start, self.before = now, bits
