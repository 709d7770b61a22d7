"""Key released ahead of who asks for it, so that a fast reader waits for no commit of its own.

One commit takes the rows of several keys off the disk that are about to be asked for, in the order in which they will
be; they stay in memory, and each leaves without a commit once that one is durable. What is not asked for is put back,
row by row, when the reader rests, jumps, or the process ends in order. A crash burns what was released ahead and had
not left: at most `MOST` keys, and no more than a reader takes in about `QUICK_SECONDS`. The other end is not concerned.
Of keys with an id (014) nobody has seen those; of a key stream (004) they are chunks that this end cannot deliver any more,
so that it is for the operator to choose the speed, and `most` is 1, without it, by default.

No I/O and no clock. A reader begins with none ahead; each time it has to wait for a commit soon after the one before,
the number doubles; it halves when a window lasts longer.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field

MOST = 32
"""Keys of one window. A window has to last as long as a commit takes; beyond that, a larger one gains nothing."""
HASTE = 4
QUICK_SECONDS = 0.05
REST_SECONDS = 1.0


@dataclass(slots=True)
class Ahead[T]:
    """Names of keys that are in memory and have no row any more. `after` calls back once all noted so far is durable."""

    after: Callable[[Callable[[], None]], None]
    size: int = 1  # of a window, what is asked for included
    most: int = MOST
    haste: int = 1  # how many times as much as usual who asks is worth preparing for
    told: int = 0  # octets that were last noted to be ahead
    _gone: dict[T, int] = field(default_factory=dict)  # with the number of the window that its row went with
    _windows: int = 0
    _durable: int = 0
    _since: float = float("-inf")

    def __contains__(self, name: T) -> bool:
        return name in self._gone

    def __len__(self) -> int:
        return len(self._gone)

    def __iter__(self) -> Iterator[T]:
        return iter(self._gone)

    def free(self, name: T) -> bool:
        """Whether a key may leave without a commit."""
        window = self._gone.get(name)
        return window is not None and window <= self._durable

    def pace(self, now: float, waits: bool) -> int:
        """How many keys the next window is to have; `waits`: who asks has to wait for its commit."""
        quick, self._since = 0 <= now - self._since < QUICK_SECONDS, now
        if not quick:
            self.size, self.haste = max(1, self.size // 2), max(1, self.haste // 2)
        elif waits:
            self.size, self.haste = min(2 * self.size, self.most), min(2 * self.haste, HASTE)
        return self.size

    def add(self, names: Collection[T]) -> None:
        """A window, whose rows are noted to go; `follow` is due when all is noted that goes with it."""
        self._windows += 1
        self._gone |= dict.fromkeys(names, self._windows)

    def follow(self) -> None:
        window = self._windows
        self.after(lambda: self._is_durable(window))

    def _is_durable(self, window: int) -> None:
        self._durable = max(self._durable, window)

    def discard(self, name: T) -> bool:
        """The key has left, or is erased, or gets a row again; whether it had none."""
        return self._gone.pop(name, None) is not None

    def clear(self) -> None:
        """All were put back: the reader begins anew."""
        self._gone.clear()
        self.size, self.haste, self._since = 1, 1, float("-inf")

    def rests(self, now: float) -> bool:
        """Whether there is something to put back, because nobody has asked for a while."""
        return bool(self._gone or self.told) and not 0 <= now - self._since < REST_SECONDS
