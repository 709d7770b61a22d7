"""The time that key is dated with: seconds since 1970, as the wall clock said when the process began, and steady since then.

TTL and age rest on it. A wall clock that is set while the process runs changes nothing: key that must live is not
erased, key that must go does not live longer. A new process begins with the wall clock, since nothing else says how
long the node was down; but never before the youngest key in its store, so that a clock that was set back, by however
much, makes no key younger and none last longer than TTL from there. A clock that was set ahead while the node was down
cannot be told from a long rest: what would be beyond TTL is erased. Erased rows are gone; no clock brings them back.
"""

import time
from datetime import UTC, datetime


def _ticks() -> float:
    """Goes on while the machine sleeps, and is never set."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Clock:
    def __init__(self) -> None:
        self._offset = time.time() - _ticks()

    def now(self) -> float:
        return self._offset + _ticks()

    def moment(self) -> datetime:
        return datetime.fromtimestamp(self.now(), UTC)

    def not_before(self, moment: float) -> None:
        self._offset = max(self._offset, moment - _ticks())
