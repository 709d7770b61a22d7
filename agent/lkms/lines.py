"""What a node remembers of virtual links that it has a part in: routes, windows, key on its way, totals."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..model import LinkConfig, LinkId, LinkStatus, NodeId
from .keys import Key

BLOCK = 4096
BATCH_BLOCKS = 4
WINDOW_BLOCKS = 64
"""Blocks that may be on their way at once, at most. As with TCP, the window doubles with every round that needs it and
arrives soon, and shrinks when one takes long, fails or does not need it: what a hop further on holds up, or loses when it
goes, must not cost more key of those before it than the link needs."""
SOON_SECONDS = 1.0
QUEUE_OCTETS = 1 << 20
"""Key in transit that waits, per next hop; more is refused."""


def high_mark(bandwidth_bps: int | None) -> int:
    """Blocks kept ready on a virtual link: what two seconds at its bandwidth use, within reason."""
    return 64 if not bandwidth_bps else max(16, min(256, 2 * bandwidth_bps // 8 // BLOCK))


@dataclass(slots=True)
class LinkTotals:
    """In octets, since the link was created."""

    relayed: int = 0
    pads: int = 0
    failures: int = 0


Leg = tuple[LinkId, NodeId]
"""What the source sends of a link, and where: (link or component, next hop)."""


@dataclass(slots=True)
class Parcel:
    """Key in transit that waits for the next hop, or for pads to it."""

    link: LinkId
    previous: NodeId
    hops: int
    blocks: tuple[tuple[int, int], ...]
    key: Key
    since: float
    shares: int = 1
    marks: Sequence[bytes] = ()


@dataclass(slots=True)
class Line:
    """What this node does for one virtual link: `route` as configured; `filling` between the low and the high mark.

    `window` is how many blocks go on their way in one round, `round` when the one under way began, `peak` how many of it
    were on their way at once.
    """

    route: LinkConfig
    filling: bool = True
    window: int = 1
    round: float | None = None
    peak: int = 0
    paused_until: float = 0.0  # after a failure, so that a broken route costs little

    @property
    def runs(self) -> bool:
        return self.route.enabled and self.route.status is not LinkStatus.OFF

    @property
    def starts(self) -> bool:
        """Whether this node is the source."""
        return self.runs and self.route.previous_hop is None and self.route.next_hop is not None

    def turn_window(self, on_the_way: int, now: float, slow_seconds: float) -> None:
        """At the end of a round; one that took half of `slow_seconds` was slow."""
        if self.round is None or on_the_way:
            return
        soon = now - self.round < SOON_SECONDS
        if soon and self.peak >= self.window:
            self.window = min(WINDOW_BLOCKS, 2 * self.window)
        elif 2 * self.peak <= self.window or now - self.round > slow_seconds / 2:
            self.window = max(1, self.window // 2)
        self.round, self.peak = None, 0

    def rests(self, until: float) -> None:
        """After a failure."""
        self.paused_until, self.window, self.round, self.peak = until, 1, None, 0

    def sends(self, on_the_way: int, now: float) -> None:
        """So many blocks are on their way now."""
        self.round = now if self.round is None else self.round
        self.peak = max(self.peak, on_the_way)
