"""Keys that have an id (014), as one end of an association of two applications knows them.

No I/O and no clock; like a stream it writes to a journal and speaks through `send`. The end where a key is asked for
allocates it from blocks it owns, writes that down, tells the other end, and delivers the key once the other end is known
to hold it durably; the other end delivers it once to its own application. Both ends are alike: which application asks
where decides who is master of a key.

Keys of the usual size are put by at both ends ahead of demand (the *stock*): allocated, held at both ends, not delivered
yet. To deliver one of them costs one commit and no message, and for who asks quickly no commit of its own (ahead.py).
What is asked for beyond the stock, or in another size, is allocated when it is asked for; the allocation is written down
before anything is said, so that such a key needs no row of its own at this end: when this process ends before the answer,
nobody ever gets it.

When the ends meet, each says what it has put by; what the other does not hold is burnt, what both hold stays deliverable.
What an end holds for its own application and the other has not put by (any more) was delivered there, or is lost: it is
kept for its time to live. An end takes no more keys than it has room for, and says how many that is.

Whether an end is master or slave of a key: delivery_master.py, delivery_slave.py. How the ends meet stands here.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from qswitch.protocol.lkms import KeyHello, KeyMeet, KeyMet, KeySync, KeyTaken

from ..model import LinkId
from .delivery_end import wipe
from .delivery_master import DeliveryMaster
from .pool import EPOCHS

TOLD_AT_ONCE = 10_000


@dataclass(slots=True)
class Delivery(DeliveryMaster):
    """One end of an association, sans I/O."""

    # The two ends meet ---------------------------------------------------------------------------------------------------

    def part(self) -> None:
        """Nothing is known of the other end. What is under way may have arrived, or not."""
        self.synced, self.room = False, 0
        for batch in self.batches.values():
            if batch.order is None:
                self.doubtful |= batch.keys
                continue
            batch.order.under_way -= len(batch.keys)
            wipe(batch.keys)
            if batch.order.wrapped is not None:  # the same keys cannot be sent under another pad
                self.cancel(batch.order)
        self.batches.clear()

    def meet(self, links: Iterable[LinkId] = ()) -> None:
        """A session is up, or the ends are out of step."""
        self.part()
        if not self.asks:
            self.send(KeyHello(self.config.ksid, tuple(links)))
            return
        self.epoch = next(EPOCHS)
        self.send(KeySync(self.config.ksid, self.epoch, self._put_by()))

    def on_hello(self) -> None:
        if self.asks:
            self.meet()

    def on_sync(self, message: KeySync) -> None:
        if self.asks or (self.synced and message.epoch == self.epoch):
            return
        self.part()
        self.epoch = message.epoch
        missing = self._compare(message.stock)
        self.send(KeyMeet(self.config.ksid, message.epoch, self._put_by(), missing, self._tell_room()))

    def on_meet(self, message: KeyMeet) -> None:
        if not self.asks or message.epoch != self.epoch or self.synced:
            return
        self._met(message.missing, message.room)
        missing = self._compare(message.stock)
        self.send(KeyMet(self.config.ksid, message.epoch, missing, self._tell_room()))

    def on_met(self, message: KeyMet) -> None:
        if not self.asks and message.epoch == self.epoch and not self.synced:
            self._met(message.missing, message.room)

    def _put_by(self) -> list[str]:
        """To tell the other end: what is not among it counts as delivered there. What waits for the rest of an order is."""
        self.told += 1
        waiting = [key_id for order in self.orders for key_id in order.keys]
        return [*self.ready, *self.doubtful, *waiting]

    def _compare(self, stock: Sequence[str]) -> list[str]:
        """What of the other's stock is not here; what is here and not in it, the other has delivered, or lost."""
        there, now = set(stock), self.clock()
        for key_id, one in self.held.items():
            if one.since is None and key_id not in there:
                self._begin(key_id, one, now)
        return [key_id for key_id in stock if key_id not in self.held]

    def _met(self, missing: Collection[str], room: int) -> None:
        for key_id in missing:
            lost = self.ready.pop(key_id, None) or self.doubtful.pop(key_id, None)
            if lost is not None:
                lost.key.wipe()
                self.ahead.discard(key_id)
                self.journal.key_gone(self.config.ksid, key_id)
        self._lose(set(missing))
        self.ready |= self.doubtful
        self.doubtful.clear()
        self.told += 1  # what was taken meanwhile was not looked for among what is missing
        self.taken.clear()  # the comparison has told
        self.sent = self.received = 0
        self.synced, self.room = True, room

    def _lose(self, missing: Collection[str]) -> None:
        """Other keys are made for the orders that had these; keys that are given cannot be sent under another pad."""
        for order in list(self.orders):
            lost = {key_id: order.keys.pop(key_id) for key_id in list(order.keys) if key_id in missing}
            wipe(lost)
            if lost and order.wrapped is not None:
                self.cancel(order)

    # Time, and the end -----------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> int:
        """Says what was delivered from the stock, and erases what was not fetched in its time; how many keys."""
        while self.taken and self.synced:
            self.send(KeyTaken(self.config.ksid, self.taken[:TOLD_AT_ONCE]))
            del self.taken[:TOLD_AT_ONCE]
        if self.ahead.rests(now):
            self.put_back()
        ttl = self.config.ttl_seconds
        late = [key_id for key_id, one in self.held.items() if one.since is not None and now - one.since > ttl]
        self._erase(late)
        if self.free() > self.told_room:  # other pairs of this node have made room
            self._say_room()
        return len(late)

    def erase(self) -> None:
        """The association is removed."""
        self.wipe()
        self.journal.keys_gone(self.config.ksid)

    def wipe(self) -> None:
        """Forgets in memory; the store keeps what there is."""
        self.part()
        for keys in (self.held, self.ready, self.doubtful):
            wipe(keys)
            keys.clear()
        self.ahead.clear()
