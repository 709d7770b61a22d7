"""One-time tags on all that moves state between two key managers: envelopes out and in, in one session.

No I/O and no clock. State messages wait in a queue; what leaves together goes into one envelope, with a Wegman–Carter tag
(otp.py) under 32 octets of key that both ends hold. Such keys are drawn several at once, a *book*, from the back of a block
that the sender owns of any pool between the two nodes. The sender writes a book down as used before anything tagged with it
leaves; the receiver takes all of it at its first use, before it verifies, and keeps the rest in memory for the envelopes
that follow. So a tag key serves one envelope at the sender, ever, and is worth one try to a forger. What is left of a book
ends with the session; books grow from one key, so that short sessions cost little.

The tag covers the nonces that both ends drew for this session and the number of the envelope in it: none counts in another
session, twice, or in another place. Whatever is wrong ends the session; the next one begins with what is so.

Order is kept: Relay and hints leave where they were put, between envelopes. Only while no tag key is to be had do hints go
ahead: they are what gets one.
"""

from collections import deque
from collections.abc import Callable, Iterable
from typing import cast, get_args

from qswitch.protocol.lkms import (
    MAX_ENVELOPE,
    Hint,
    Message,
    ProtocolError,
    Relay,
    Segment,
    StateMessage,
    Tagged,
    WireMessage,
    build_body,
    build_state,
    parse_body,
    tagged_header,
)

from ..model import LinkId
from .keys import Key
from .otp import TAG_KEY, check, sign
from .pool import Pool, Refused

MAX_BOOK = 32
"""Tag keys drawn at once, at most: 1 KiB."""
MAX_WAITING = 10_000
"""Messages that wait for key to tag them with; then the session is given up, and the next one begins with what is so."""

Item = Hint | Relay | StateMessage | Callable[[], StateMessage] | bytes
"""What is called is made when it leaves; octets are a state message that was made."""

_HINTS = get_args(Hint)
_UNTAGGED = (*_HINTS, Relay)


class Channel:
    """One end of one session. `pools` gives those between the two nodes, the ones to draw from first at the front."""

    def __init__(self, names: tuple[str, str], nonces: tuple[bytes, bytes], pools: Callable[[], Iterable[Pool]]) -> None:
        """Of both, this end's comes first."""
        (self._local, self._remote), (self._nonce, self._their_nonce), self._pools = names, nonces, pools
        self._items: deque[Item] = deque()
        self._sent = self._received = 0
        self._size = 1  # tag keys in the next book
        self.blocked = False  # messages wait for key to tag them with
        self.violations = 0  # things that the other end said and must not have
        self._book = self._their_book = Key(bytearray())
        self._segment: Segment | None = None
        self._their_segment: Segment | None = None

    # Out -----------------------------------------------------------------------------------------------------------------

    def put(self, item: Item) -> None:
        """To leave in turn, with the next `flush`."""
        self._items.append(item)

    @property
    def waiting(self) -> int:
        return len(self._items)

    def waits(self, kind: type[Message], name: str) -> bool:
        """Whether a message of this kind about a link or stream has not left yet."""
        return any(
            isinstance(one, kind) and name in (getattr(one, "link", ""), getattr(one, "ksid", "")) for one in self._items
        )

    @property
    def mute(self) -> bool:
        """Whether there is no key to tag with."""
        return not len(self._book) and not any(pool.can_tag() for pool in self._pools())

    def flush(self) -> list[WireMessage]:
        """What is to leave once all that is noted up to now is durable. Raises ProtocolError for a message too long."""
        leaving: list[WireMessage] = []
        self.blocked = False
        while self._items:
            if isinstance(first := self._items[0], _UNTAGGED):
                leaving.append(first)
                self._items.popleft()
            elif self._may_tag():
                leaving.append(self._envelope())
            else:
                self.blocked = True
                leaving += [one for one in self._items if isinstance(one, _HINTS)]
                self._items = deque(one for one in self._items if not isinstance(one, _HINTS))
                break
        return leaving

    def _may_tag(self) -> bool:
        """Draws a book when there is none, from the first pool that has key for it."""
        if not len(self._book):
            drawn = (pool.draw(self._size, f"{self._local}>{self._remote}") for pool in self._pools())
            if (book := next((one for one in drawn if one is not None), None)) is not None:
                self._segment, self._book = book
                self._size = min(MAX_BOOK, 2 * self._size)
        return len(self._book) > 0

    def _envelope(self) -> Tagged:
        """Of all that stands at the front and is to be tagged, as far as it fits."""
        assert self._segment is not None
        bodies = [self._built()]
        octets = len(bodies[0])
        while self._items and not isinstance(self._items[0], _UNTAGGED):
            one = self._built()
            octets += len(one)
            if octets > MAX_ENVELOPE:
                self._items.appendleft(one)
                break
            bodies.append(one)
        body, number = build_body(bodies), self._sent
        self._sent += 1
        with self._book.cut(TAG_KEY) as key:
            tag = sign(key, tagged_header(self._their_nonce, self._nonce, number, self._segment), body)
        return Tagged(number, self._segment, body, tag)

    def _built(self) -> bytes:
        item = self._items.popleft()
        if isinstance(item, bytes):
            return item
        return build_state(cast(StateMessage, item() if callable(item) else item))

    # In ------------------------------------------------------------------------------------------------------------------

    def open(self, message: Tagged) -> list[StateMessage]:
        """What the other end has said. Whatever is raised, the session is to end.

        Raises ProtocolError for an envelope out of place, Refused for a key that is not here, PeerViolation for one that
        the other end must not use, BadTag.
        """
        if message.number != self._received:
            raise ProtocolError(f"envelope {message.number} in the place of {self._received}")
        self._received += 1
        if message.key != self._their_segment or not len(self._their_book):
            self._claim(message.key)
        with self._their_book.cut(TAG_KEY) as key:
            check(key, tagged_header(self._nonce, self._their_nonce, message.number, message.key), message.body, message.tag)
        return parse_body(message.body)

    def _claim(self, segment: Segment) -> None:
        pool = next((pool for pool in self._pools() if pool.link == LinkId(segment.link)), None)
        if pool is None:
            raise Refused(f"no link {segment.link} between the two nodes")
        self._their_book.wipe()
        self._their_segment, self._their_book = segment, pool.claim_back(segment, f"{self._remote}>{self._local}")

    def close(self) -> None:
        """Nothing more leaves or counts."""
        self._items.clear()
        self._book.wipe()
        self._their_book.wipe()
        self._book = self._their_book = Key(bytearray())
