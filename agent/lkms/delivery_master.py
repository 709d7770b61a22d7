"""Keys with ids (014) at the end of the master: allocated and told of, put by or for who waits, delivered once both ends
hold them."""

from abc import ABC
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import islice

from qswitch.protocol.lkms import KeyAck, KeyAlloc, KeyDrop, alloc_header

from .delivery_end import KIND, Batch, Order, StoredKey, consumer, wipe
from .delivery_slave import DeliverySlave
from .keys import Key
from .otp import TAG_KEY, seal
from .pool import Pool, Taken
from .promises import Terms

MAX_RUN = 512  # keys of one allocation
MAX_RUN_OCTETS = 256 * 1024
STOCK = (32, 512)
"""Keys put by, at first and at most: doubled whenever the stock ran out."""
SHARE = 4
"""The stock never takes more than this part of the key there is: streams and relays want some, too."""


@dataclass(slots=True)
class DeliveryMaster(DeliverySlave, ABC):
    """Orders are served in the order they came."""

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
                taken = pool.allocate(extra + fits * octets, KIND, consumer(self.config.ksid, ids))
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
        self.batches[self.sent] = Batch(keys, order)

    def on_ack(self, message: KeyAck) -> None:
        if not self.synced:
            return
        for number in [one for one in self.batches if one <= message.number]:
            self._confirmed(self.batches.pop(number))
        self.room = message.room - sum(len(one.keys) for one in self.batches.values())

    def _confirmed(self, batch: Batch) -> None:
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
        wipe(keys)
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


def _sealed(bare: KeyAlloc, pad: Key, wrapped: Mapping[str, Key]) -> KeyAlloc:
    payload = Key(bytearray())
    for key in wrapped.values():
        payload.append(key.take(0, len(key)))
    with pad, payload:
        sealed, tag = seal(pad, alloc_header(bare), payload)
    return KeyAlloc(bare.ksid, bare.number, bare.size, bare.ids, bare.segments, bare.stock, sealed, tag)
