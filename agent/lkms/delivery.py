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
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

from qswitch.protocol.lkms import (
    AnyMessage,
    KeyAck,
    KeyAlloc,
    KeyDrop,
    KeyHello,
    KeyMeet,
    KeyMet,
    KeySync,
    KeyTaken,
    alloc_header,
)

from ..errors import PeerViolation
from ..model import KeyStreamId, LinkId, NodeId
from .ahead import Ahead
from .keys import Key
from .otp import TAG_KEY, BadTag, seal, unseal
from .pool import EPOCHS, Pool, Refused, Taken
from .promises import UNPROMISED, Terms

KIND = "014"
MAX_RUN = 512  # keys of one allocation
MAX_RUN_OCTETS = 256 * 1024
STOCK = (32, 512)
"""Keys put by, at first and at most: doubled whenever the stock ran out."""
TOLD_AT_ONCE = 10_000
REMEMBERED = 1024
"""Ids of fetched keys, so that who asks for one twice is told that it is gone, and not that it is another's."""
SHARE = 4
"""The stock never takes more than this part of the key there is: streams and relays want some, too."""


@dataclass(slots=True)
class StoredKey:
    """`since`: when the time to live began, in seconds of the wall clock; None while the other end has it put by."""

    key: Key
    made: float
    hops: int
    since: float | None = None


@dataclass(frozen=True, slots=True)
class DeliveryConfig:
    """An association as configured; `limit` is how many keys are held at most for the application of this end."""

    ksid: KeyStreamId
    remote: NodeId
    links: tuple[LinkId, ...]
    usual_octets: int = 32
    limit: int = 10_000
    ttl_seconds: float = 3600.0
    terms: Terms = UNPROMISED


class DeliveryJournal(Protocol):
    """What must be written down; `ours`: put by here, for an application of this end to ask for."""

    def key(self, ksid: KeyStreamId, key_id: str, ours: bool, stored: StoredKey) -> None: ...
    def key_since(self, ksid: KeyStreamId, key_id: str, since: float) -> None: ...
    def key_gone(self, ksid: KeyStreamId, key_id: str) -> None: ...
    def keys_gone(self, ksid: KeyStreamId) -> None: ...
    def ahead(self, ksid: KeyStreamId, octets: int) -> None: ...
    def after(self, callback: Callable[[], None]) -> None:
        """Calls back once all that was noted so far is durable."""


@dataclass(slots=True, eq=False)
class Order:
    """So many keys of so many octets, asked for by an application of this end. `keys` may be handed out when `done`."""

    number: int
    octets: int
    keys: dict[str, StoredKey] = field(default_factory=dict)
    from_stock: list[str] = field(default_factory=list)
    under_way: int = 0  # allocated, the other end has not said yet that it has them
    done: bool = False
    sure: bool = True  # when done: needs no commit
    cancelled: bool = False
    wrapped: Mapping[str, Key] | None = None  # keys that are given, to be held by the other end as well
    told: int = 0  # the delivery's `told` when some of the stock was taken

    @property
    def lacking(self) -> int:
        return self.number - len(self.keys)


@dataclass(slots=True)
class _Batch:
    """Keys of one allocation that the other end has not confirmed; without an order they are for the stock."""

    keys: dict[str, StoredKey]
    order: Order | None = None


@dataclass(slots=True)
class Delivery:
    """One end of an association. Every method leaves memory and journal in agreement."""

    config: DeliveryConfig
    asks: bool  # the lower end, which opens a meeting
    journal: DeliveryJournal
    send: Callable[[AnyMessage], None]
    pools: Mapping[LinkId, Pool]
    new_id: Callable[[], str]
    clock: Callable[[], float]  # seconds of the wall clock
    spare: Callable[[], int]  # how many more keys the whole node holds
    held: dict[str, StoredKey] = field(default_factory=dict)  # for the application of this end to fetch
    doubtful: dict[str, StoredKey] = field(default_factory=dict)  # put by, the other end may not have them
    ready: dict[str, StoredKey] = field(default_factory=dict)  # put by, the other end has them
    orders: list[Order] = field(default_factory=list)
    consumed: int = 0  # octets delivered at this end
    allocated: int = 0  # octets, by this process
    synced: bool = False
    room: int = 0  # keys that the other end takes
    told_room: int = 0
    epoch: int = 0
    told: int = 0  # rises when the other end is told all that is put by, and when it has answered
    sent: int = 0
    received: int = 0
    target: int = 0
    batches: dict[int, _Batch] = field(default_factory=dict)
    gone: dict[str, None] = field(default_factory=dict)  # fetched here lately
    taken: list[str] = field(default_factory=list)  # delivered from the stock, the other end has not been told
    ahead: Ahead[str] = field(init=False)  # of those that are `ready`

    def __post_init__(self) -> None:
        self.ahead = Ahead(self.journal.after)

    # The two ends meet ---------------------------------------------------------------------------------------------------

    def part(self) -> None:
        """Nothing is known of the other end. What is under way may have arrived, or not."""
        self.synced, self.room = False, 0
        for batch in self.batches.values():
            if batch.order is None:
                self.doubtful |= batch.keys
                continue
            batch.order.under_way -= len(batch.keys)
            _wipe(batch.keys)
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
        """To tell the other end: what is not among it counts as delivered there."""
        self.told += 1
        return [*self.ready, *self.doubtful]

    def _compare(self, stock: Sequence[str]) -> list[str]:
        """What of the other's stock is not here; what is here and not in it, the other has delivered, or lost."""
        there, now = set(stock), self.clock()
        for key_id, one in self.held.items():
            if one.since is None and key_id not in there:
                self._begin(key_id, one, now)
        return [key_id for key_id in stock if key_id not in self.held]

    def _met(self, missing: Iterable[str], room: int) -> None:
        for key_id in missing:
            lost = self.ready.pop(key_id, None) or self.doubtful.pop(key_id, None)
            if lost is not None:
                lost.key.wipe()
                self.ahead.discard(key_id)
                self.journal.key_gone(self.config.ksid, key_id)
        self.ready |= self.doubtful
        self.doubtful.clear()
        self.told += 1  # what was taken meanwhile was not looked for among what is missing
        self.taken.clear()  # the comparison has told
        self.sent = self.received = 0
        self.synced, self.room = True, room

    # Delivery at this end, as master ---------------------------------------------------------------------------------------

    def order(self, number: int, octets: int, wrapped: Mapping[str, Key] | None = None) -> Order:
        """Asks for keys; to be served in turn. With `wrapped` it is these that the other end is to hold as well."""
        order = Order(number, octets, wrapped=wrapped)
        self.orders.append(order)
        return order

    @property
    def name(self) -> str:
        return self.config.ksid

    @property
    def terms(self) -> Terms:
        return self.config.terms

    @property
    def unit(self) -> int:
        return self.config.usual_octets

    def serve(self, most: int | None = None, ahead: bool = True) -> bool:
        """Does for all orders, in the order they came, what can be done now, then, with `ahead`, fills the stock up. Is any
        done?

        No more than `most` octets are allocated for it.
        """
        until = None if most is None else self.allocated + most
        free, short, waiting = len(self.ready), False, len(self.orders)
        for order in list(self.orders):
            usual = order.octets == self.config.usual_octets and order.wrapped is None
            from_stock = min(free, order.lacking - order.under_way) if usual else 0
            free -= from_stock
            needed = order.lacking - order.under_way - from_stock
            if not needed and not order.under_way:
                self._complete(order, from_stock)
            while needed and (count := self._allocate(needed, order.octets, order, until)):
                needed -= count
                if usual:
                    self.target = max(STOCK[0], min(2 * self.target, STOCK[1]))
            short |= needed > 0
        if ahead and not short:
            self._fill(until)
        return len(self.orders) < waiting

    def _complete(self, order: Order, from_stock: int) -> None:
        order.from_stock, order.told = list(islice(self.ready, from_stock)), self.told
        order.sure = all(map(self.ahead.free, order.from_stock))
        for key_id in order.from_stock:
            order.keys[key_id] = self.ready.pop(key_id)
            if not self.ahead.discard(key_id):
                self.journal.key_gone(self.config.ksid, key_id)
        if from_stock and (not order.sure or len(self.ahead) <= self.ahead.size // 2):
            self._run_ahead(order.sure)
        self.orders.remove(order)
        self.consumed += len(order.keys) * order.octets
        order.done = True

    def _run_ahead(self, sure: bool) -> None:
        """Releases the next keys of the stock together with what was just taken from it, when they are asked for quickly."""
        size = self.ahead.pace(self.clock(), waits=not sure)
        window = [key_id for key_id in islice(self.ready, size - 1) if key_id not in self.ahead]
        if window:
            for key_id in window:
                self.journal.key_gone(self.config.ksid, key_id)
            self.ahead.add(window)
            self._count_ahead()
            self.ahead.follow()

    def put_back(self) -> None:
        """What was released ahead is not released after all."""
        for key_id in self.ahead:
            self.journal.key(self.config.ksid, key_id, True, self.ready[key_id])
        self.ahead.clear()
        self._count_ahead()

    def _count_ahead(self) -> None:
        octets = len(self.ahead) * self.config.usual_octets
        if octets != self.ahead.told:
            self.ahead.told = octets
            self.journal.ahead(self.config.ksid, octets)

    def _fill(self, until: int | None) -> None:
        """Keeps the stock between half its size and all of it, once anything was asked for."""
        have = len(self.ready) + sum(len(one.keys) for one in self.batches.values() if one.order is None)
        if not self.synced or have > self.target // 2 or not self.target:
            return
        octets = self.config.usual_octets
        spare = sum(pool.usable for pool in self._open_pools()) // (SHARE * octets)
        if (count := min(self.target - have, spare, (self.room - have) // 2)) > 0:  # leaving room for other sizes
            self._allocate(count, octets, None, until)

    def _open_pools(self) -> list[Pool]:
        pools = (self.pools.get(link) for link in self.config.links)
        return [pool for pool in pools if pool is not None and pool.remote == self.config.remote]

    def _allocate(self, count: int, octets: int, order: Order | None, until: int | None) -> int:
        """Allocates up to `count` keys from the first link that has key for one; how many it were."""
        count = min(count, MAX_RUN, max(1, MAX_RUN_OCTETS // octets), self.room)
        if until is not None:
            count = min(count, (until - self.allocated) // octets)
        if not self.synced or count <= 0:
            return 0
        extra, wrapped = 0, order.wrapped if order else None
        if wrapped is not None:  # all of them, or none
            count, extra = len(wrapped), TAG_KEY
            if count > self.room or (until is not None and self.allocated + extra + count * octets > until):
                return 0
        for pool in self._open_pools():
            fits = min(count, max(0, pool.available - extra) // octets)
            if fits and (wrapped is None or fits == count):
                ids = list(wrapped) if wrapped is not None else [self.new_id() for _ in range(fits)]
                taken = pool.allocate(extra + fits * octets, KIND, _consumer(self.config.ksid, ids))
                if taken is not None:
                    self.allocated += extra + fits * octets
                    self._tell(ids, octets, taken, order)
                    return fits
            pool.want()
        return 0

    def _tell(self, ids: list[str], octets: int, taken: Taken, order: Order | None) -> None:
        ksid = self.config.ksid
        self.sent += 1
        self.room -= len(ids)
        bare = KeyAlloc(ksid, self.sent, octets, ids, taken.segments, order is None)
        if order is not None and order.wrapped is not None:
            self.send(_sealed(bare, taken.key, order.wrapped))
            keys = {key_id: StoredKey(key.take(0, octets), taken.made, taken.hops) for key_id, key in order.wrapped.items()}
        else:
            self.send(bare)
            keys = {key_id: StoredKey(taken.key.cut(octets), taken.made, taken.hops) for key_id in ids}
        if order is None:
            for key_id, stored in keys.items():
                self.journal.key(ksid, key_id, True, stored)
        else:
            order.under_way += len(ids)
        self.batches[self.sent] = _Batch(keys, order)

    def on_ack(self, message: KeyAck) -> None:
        if not self.synced:
            return
        for number in [one for one in self.batches if one <= message.number]:
            self._confirmed(self.batches.pop(number))
        self.room = message.room - sum(len(one.keys) for one in self.batches.values())

    def _confirmed(self, batch: _Batch) -> None:
        order = batch.order
        if order is None:
            self.ready |= batch.keys
        elif order.cancelled:
            self._drop(batch.keys)
        else:
            order.under_way -= len(batch.keys)
            order.keys |= batch.keys

    def cancel(self, order: Order) -> None:
        """Nobody waits for it any more and none of its keys has left: what was put by is put back, the rest is burnt.

        So is what was put by when the ends have met meanwhile: the other end erases it in its time.
        """
        order.cancelled = True
        if order in self.orders:
            self.orders.remove(order)
        if order.done:
            self.consumed -= len(order.keys) * order.octets
        for key_id in order.from_stock if order.told == self.told else ():
            self.doubtful[key_id] = stored = order.keys.pop(key_id)
            self.journal.key(self.config.ksid, key_id, True, stored)
        if self.synced:
            self.ready |= self.doubtful
            self.doubtful.clear()
        self._drop(order.keys)
        order.keys.clear()

    def delivered(self, order: Order) -> None:
        """Its keys are being handed out: the other end is told at the next occasion."""
        self.taken += order.from_stock

    def withdraw(self, key_ids: Collection[str]) -> None:
        """Keys that the other end holds, and that will not be delivered here; of one node's own, that end is this one."""
        self._erase([key_id for key_id in key_ids if key_id in self.held])
        if self.synced:
            self.send(KeyDrop(self.config.ksid, list(key_ids)))

    def _drop(self, keys: dict[str, StoredKey]) -> None:
        _wipe(keys)
        if keys and self.synced:
            self.send(KeyDrop(self.config.ksid, list(keys)))

    def short(self) -> int:
        """Octets that an order waits for; relays are to leave them to it."""
        waiting = [one for one in self.orders if one.lacking > one.under_way] if self.synced else []
        return max((one.octets + (TAG_KEY if one.wrapped else 0) for one in waiting), default=0)

    def waits(self) -> int:
        return sum((one.lacking - one.under_way) * one.octets for one in self.orders) if self.synced else 0

    def starves(self) -> bool:
        """Whether an order waits for key that the links do not have."""
        short = self.short()
        return short > 0 and self.room > 0 and all(pool.available < short for pool in self._open_pools())

    # Delivery at this end, as slave ----------------------------------------------------------------------------------------

    def on_alloc(self, message: KeyAlloc) -> None:
        """Raises PeerViolation when the other end takes what it must not; in any case the ends meet again then."""
        if not self.synced:
            return
        try:
            keys = self._claim(message)
        except (Refused, PeerViolation) as error:
            self.meet({LinkId(segment.link) for segment in message.segments})
            if isinstance(error, PeerViolation):
                raise
            return
        for key_id, stored in keys.items():
            self.held[key_id] = stored
            self.journal.key(self.config.ksid, key_id, False, stored)
        self.received = message.number
        self.send(KeyAck(self.config.ksid, self.received, self._tell_room()))

    def _claim(self, message: KeyAlloc) -> dict[str, StoredKey]:
        remote, ids, octets = self.config.remote, list(message.ids), message.size * len(message.ids)
        if len(set(ids)) < len(ids) or any(
            key_id in self.held or key_id in self.ready or key_id in self.doubtful for key_id in ids
        ):
            raise PeerViolation(remote, f"allocates a key of {self.config.ksid} twice")
        if len(ids) > self.free():
            raise Refused("no room")
        if sum(segment.length for segment in message.segments) != octets + (TAG_KEY if message.tag else 0):
            raise PeerViolation(remote, f"allocates other than whole keys to {self.config.ksid}")
        links = {segment.link for segment in message.segments}
        pool = self.pools.get(LinkId(next(iter(links)))) if len(links) == 1 else None
        if pool is None or pool.remote != remote:
            raise Refused("no such link here")
        taken = pool.claim(message.segments, KIND, _consumer(self.config.ksid, ids))
        material = self._open(message, taken) if message.tag else taken.key
        since = None if message.stock else self.clock()
        return {key_id: StoredKey(material.cut(message.size), taken.made, taken.hops, since) for key_id in ids}

    def _open(self, message: KeyAlloc, taken: Taken) -> Key:
        with taken.key as pad:
            try:
                return unseal(pad, alloc_header(message), message.sealed, message.tag)
            except BadTag as error:
                raise PeerViolation(self.config.remote, f"sent a key of {self.config.ksid} that is not authentic") from error

    def _tell_room(self) -> int:
        self.told_room = self.free()
        return self.told_room

    def free(self) -> int:
        """How many more keys are taken for the application of this end."""
        return max(0, min(self.config.limit - len(self.held), self.spare()))

    def on_taken(self, message: KeyTaken) -> None:
        now = self.clock()
        for key_id in message.ids if self.synced else ():
            if (stored := self.held.get(key_id)) is not None and stored.since is None:
                self._begin(key_id, stored, now)

    def _begin(self, key_id: str, stored: StoredKey, now: float) -> None:
        stored.since = now
        self.journal.key_since(self.config.ksid, key_id, now)

    def on_drop(self, message: KeyDrop) -> None:
        if self.synced:
            self._erase([key_id for key_id in message.ids if key_id in self.held])

    def release(self, ids: Iterable[str]) -> dict[str, StoredKey]:
        """Takes keys that are all `held`; to be handed out once that is durable."""
        released = {key_id: self.held.pop(key_id) for key_id in ids}
        for key_id, stored in released.items():
            self.journal.key_gone(self.config.ksid, key_id)
            self.consumed += len(stored.key)
            self.gone[key_id] = None
        for key_id in list(self.gone)[: max(0, len(self.gone) - REMEMBERED)]:
            del self.gone[key_id]
        self._say_room()
        return released

    def give_back(self, released: Mapping[str, StoredKey]) -> None:
        """None of them has left. Who asks for a key knows its id: its time runs, if its master has not said so yet."""
        now = self.clock()
        for key_id, stored in released.items():
            stored.since = now if stored.since is None else stored.since
            self.held[key_id] = stored
            self.journal.key(self.config.ksid, key_id, False, stored)
            self.consumed -= len(stored.key)
            self.gone.pop(key_id, None)

    def _say_room(self) -> None:
        """While the other end may be short of room, every key that goes is told; else nothing need be."""
        if self.synced and self.told_room < self.config.limit // 2:
            self.send(KeyAck(self.config.ksid, self.received, self._tell_room()))

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

    def _erase(self, ids: list[str]) -> None:
        for key_id in ids:
            self.held.pop(key_id).key.wipe()
            self.journal.key_gone(self.config.ksid, key_id)
        if ids:
            self._say_room()

    def erase(self) -> None:
        """The association is removed."""
        self.wipe()
        self.journal.keys_gone(self.config.ksid)

    def wipe(self) -> None:
        """Forgets in memory; the store keeps what there is."""
        self.part()
        for keys in (self.held, self.ready, self.doubtful):
            _wipe(keys)
            keys.clear()
        self.ahead.clear()


def _sealed(bare: KeyAlloc, pad: Key, wrapped: Mapping[str, Key]) -> KeyAlloc:
    payload = Key(bytearray())
    for key in wrapped.values():
        payload.append(key.take(0, len(key)))
    with pad, payload:
        sealed, tag = seal(pad, alloc_header(bare), payload)
    return KeyAlloc(bare.ksid, bare.number, bare.size, bare.ids, bare.segments, bare.stock, sealed, tag)


def _wipe(keys: Mapping[str, StoredKey]) -> None:
    for stored in keys.values():
        stored.key.wipe()


def _consumer(ksid: KeyStreamId, ids: Sequence[str]) -> str:
    return f"{ksid}/{ids[0]}"
