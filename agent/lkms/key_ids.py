"""Keys with an id (014), as the rest of the node uses them: taken here, held and released there."""

import asyncio
import os
import uuid
from abc import ABC
from collections.abc import Collection, Mapping
from contextlib import suppress
from functools import partial
from itertools import batched

from ..errors import InsufficientKey, NoConnection, StorageFailed, UnknownKeyStream
from ..model import KeyStreamId
from .core import MEET_SECONDS, Core
from .delivery import Delivery
from .delivery_end import DeliveryConfig, Order, StoredKey, wipe
from .keys import Key

SHARED_OCTETS = 16 * 1024  # at once, of keys that go to another node too: a pad is taken whole, and links may have little
MAX_HELD = 200_000  # keys for applications to fetch, of all pairs; 500 octets of memory and 160 of disk each


class KeyIds(Core, ABC):
    """All calls are made on the loop, and nothing here waits but the calls that say so."""

    async def configure_delivery(self, config: DeliveryConfig) -> None:
        """Also with a changed configuration. With this node itself as the far end, keys are of the node's own making.

        Raises StorageFailed.
        """
        have = self._deliveries.get(config.ksid)
        if have is not None and have.config.remote != config.remote:
            have.erase()
            have = None
        if have is None:
            have = self._deliveries[config.ksid] = self._add_delivery(config)
        have.config = config
        self._choose_peers()
        if not have.synced and self._peers.session(config.remote) is not None:
            have.meet()
        self._wake(config.ksid)
        await self._store.commit()

    def _add_delivery(self, config: DeliveryConfig) -> Delivery:
        return Delivery(
            config=config,
            asks=self._node < config.remote,
            journal=self._store,
            send=partial(self._send, config.remote),
            pools=self._pools,
            new_id=lambda: str(uuid.uuid4()),
            clock=self._clock.now,
            spare=lambda: MAX_HELD - sum(len(one.held) for one in self._deliveries.values()),
            held=self._saved.held.pop(config.ksid, {}),
            doubtful=self._saved.stocks.pop(config.ksid, {}),
        )

    async def remove_delivery(self, ksid: KeyStreamId) -> None:
        """Erases what of the association's keys is at this end."""
        have = self._deliveries.pop(ksid, None)
        if have is not None:
            have.erase()
        else:
            self._forget_delivery(ksid)
        self._forget_drawn(ksid)
        self._choose_peers()
        self._wake(ksid)
        await self._store.commit()

    def _forget_delivery(self, ksid: KeyStreamId) -> None:
        for keys in (self._saved.held.pop(ksid, {}), self._saved.stocks.pop(ksid, {})):
            wipe(keys)
        self._store.keys_gone(ksid)

    def saved_deliveries(self) -> frozenset[KeyStreamId]:
        """Associations that the store has keys of, and that are not configured (yet)."""
        return frozenset((*self._saved.held, *self._saved.stocks))

    async def take_keys(self, ksid: KeyStreamId, number: int, octets: int) -> dict[str, Key]:
        """So many new keys, by their ids, all of which the other end holds durably. They are delivered once.

        Waits for key, and for the other end, for as long as the caller does; cancelling loses no key of the usual size.
        Raises UnknownKeyStream, StorageFailed.
        """
        have = self._delivery(ksid)
        if have.config.remote == self._node:
            return await self._make_keys(have, number, octets)
        return await self._ordered(have, have.order(number, octets))

    async def share_keys(self, ksid: KeyStreamId, keys: Mapping[str, Key]) -> None:
        """Has another node hold keys that are made or allocated already, sent there under a one-time pad of its link.

        Like `take_keys`. Raises NoConnection too, when it cannot be known whether they arrived.
        """
        have = self._delivery(ksid)
        octets = max(len(key) for key in keys.values())
        if have.config.remote == self._node:
            now = self._clock.now()
            self._hold(have, {key_id: StoredKey(key.take(0, octets), now, 0, now) for key_id, key in keys.items()})
            await self._store.commit()
            return
        for some in batched(keys.items(), max(1, SHARED_OCTETS // octets), strict=False):
            for key in (await self._ordered(have, have.order(len(some), octets, dict(some)))).values():
                key.wipe()

    async def _make_keys(self, have: Delivery, number: int, octets: int) -> dict[str, Key]:
        """Both applications are at this node: no link is between them, and none of a link's key is used."""
        now = self._clock.now()
        made = {have.new_id(): Key(bytearray(os.urandom(octets))) for _ in range(number)}
        self._hold(have, {key_id: StoredKey(key.take(0, octets), now, 0, now) for key_id, key in made.items()})
        try:
            await self._store.commit()
        except BaseException:
            self._unhold(have, made)
            raise
        return made

    def _hold(self, have: Delivery, keys: Mapping[str, StoredKey]) -> None:
        if len(keys) > have.free():
            raise InsufficientKey(f"more keys: {len(have.held)} were not fetched yet")
        for key_id, stored in keys.items():
            have.held[key_id] = stored
            self._store.key(have.config.ksid, key_id, False, stored)

    def _unhold(self, have: Delivery, keys: Mapping[str, Key]) -> None:
        for key_id, key in keys.items():
            key.wipe()
            if (stored := have.held.pop(key_id, None)) is not None:
                stored.key.wipe()
                self._store.key_gone(have.config.ksid, key_id)

    async def _ordered(self, have: Delivery, order: Order) -> dict[str, Key]:
        ksid = have.config.ksid
        try:
            if self._store.failing is None:
                have.serve(0)  # from the stock; other key is shared out among all that want some
                if not order.done:
                    self._poke()
            while not order.done:
                if self._store.failing is not None:
                    raise StorageFailed(self._store.failing)
                await self._changed(ksid)
                if self._deliveries.get(ksid) is not have:
                    raise UnknownKeyStream(ksid)
                if order.cancelled:
                    raise NoConnection("the keys: the other key manager was lost")
            if not order.sure:
                await self._store.commit()
        except BaseException:
            if self._deliveries.get(ksid) is have:
                have.cancel(order)
            else:  # erased meanwhile: nothing of it comes back
                wipe(order.keys)
            raise
        have.delivered(order)
        return {key_id: stored.key for key_id, stored in order.keys.items()}

    async def withdraw_keys(self, ksid: KeyStreamId, key_ids: Collection[str]) -> None:
        """Keys that were taken, or shared, and will not be delivered after all are erased at the other end."""
        have = self._deliveries.get(ksid)
        if have is not None:
            have.withdraw(key_ids)
        await self._store.commit()

    async def meet_keys(self, ksid: KeyStreamId) -> bool:
        """Waits a moment until the two ends of an association have met; whether they have. Raises UnknownKeyStream."""
        with suppress(TimeoutError):
            async with asyncio.timeout(MEET_SECONDS):
                while not self.agreed(ksid):
                    self._delivery(ksid)
                    await self._changed(ksid)
        return self.agreed(ksid)

    def holds(self, ksid: KeyStreamId, key_id: str) -> bool:
        have = self._deliveries.get(ksid)
        return have is not None and key_id in have.held

    def had(self, ksid: KeyStreamId, key_id: str) -> bool:
        """Whether it was fetched here lately."""
        have = self._deliveries.get(ksid)
        return have is not None and key_id in have.gone

    def held_anywhere(self, key_id: str) -> bool:
        """Whether a key of this id waits for any application of this node."""
        return sum(key_id in have.held for have in self._deliveries.values()) > 0  # as long for one as for another

    async def release_keys(self, wanted: Mapping[KeyStreamId, Collection[str]]) -> dict[str, Key]:
        """Keys of one association or more that are all there (`holds`), for the last time: all of them, or none.

        Raises UnknownKeyStream, StorageFailed.
        """
        found = [(self._delivery(ksid), ids) for ksid, ids in wanted.items()]
        if self._store.failing is not None:
            raise StorageFailed(self._store.failing)
        released = [(have, have.release(ids)) for have, ids in found]
        try:
            await self._store.commit()
        except BaseException:
            for have, keys in released:
                if self._deliveries.get(have.config.ksid) is have:
                    have.give_back(keys)
                else:
                    wipe(keys)
            raise
        return {key_id: stored.key for _, keys in released for key_id, stored in keys.items()}

    def ready_keys(self, ksid: KeyStreamId, octets: int) -> int:
        """How many keys of this size could be had now: those put by, and what the links have; no more than are taken."""
        have = self._deliveries.get(ksid)
        if have is None:
            return 0
        if have.config.remote == self._node:
            return have.free()
        pools = [pool for link in have.config.links if (pool := self._pools.get(link)) is not None]
        ready = len(have.ready) if octets == have.config.usual_octets else 0
        return ready + min(have.room, sum(pool.usable // octets for pool in pools if pool.remote == have.config.remote))

    def held_keys(self, ksid: KeyStreamId) -> int:
        """Keys that the other end has delivered, and that were not fetched here yet."""
        have = self._deliveries.get(ksid)
        return sum(one.since is not None for one in have.held.values()) if have is not None else 0

    def agreed(self, ksid: KeyStreamId) -> bool:
        """Whether the two ends of an association have met."""
        have = self._deliveries.get(ksid)
        return have is not None and (have.synced or have.config.remote == self._node)

    def delivered_bits(self, ksid: KeyStreamId) -> int:
        """Delivered at this end, by this process."""
        have = self._deliveries.get(ksid)
        return 8 * have.consumed if have is not None else 0

    def _delivery(self, ksid: KeyStreamId) -> Delivery:
        have = self._deliveries.get(ksid)
        if have is None:
            raise UnknownKeyStream(ksid)
        return have
