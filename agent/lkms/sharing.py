"""What follows when anything has changed: key goes to who waits for it, and who watches is told."""

from abc import ABC
from collections.abc import Collection

from qswitch.protocol.lkms import Have, Lack

from ..config import LkmsConfig
from ..model import LinkId, NodeId
from .core import Core, Observer
from .delivery import Delivery
from .lacks import add
from .pool import Pool
from .promises import Promises
from .relay import Passage
from .streams import Stream

Consumer = Stream | Delivery | Passage


class Sharing(Core, ABC):
    """Key goes to streams and associations as was promised them, then to pads."""

    def __init__(self, node: NodeId, config: LkmsConfig, observer: Observer) -> None:
        super().__init__(node, config, observer)
        self._promises = Promises()

    def _settle(self) -> None:
        self._settling = False
        if self._store.failing is None:
            self._relays.expire(self._now())
            consumers: list[Consumer] = [*self._streams.values(), *self._deliveries.values(), *self._relays.passages()]
            for pool in self._pools.values():
                pool.kept = 0
            rivals = [pool for pool in self._pools.values() if pool.lacks.there.owed or pool.lacks.there.waited]
            self._promises.serve(consumers, rivals, self._now(), self._allocate, self._keep)
            for pool in self._pools.values():
                if pool.asked:
                    pool.wanted()
            self._tell_lacks(consumers)
        for link, pool in self._pools.items():
            self._show(link, pool)
        if any(channel.blocked for channel in self._channels.values()):  # there may be key to tag with now
            self._store.soon()

    def _allocate(self, one: Consumer, most: int | None, ahead: bool) -> None:
        if isinstance(one, Stream):
            one.refill(most, ahead)
        elif isinstance(one, Passage):
            if ahead:  # what is relayed is put by
                self._relays.reserved = self._reserved() if most is None else {}
                self._relays.fill(one.next_hop, self._now(), most)
        elif one.serve(most, ahead):
            self._wake(one.config.ksid)

    def _keep(self, one: Consumer, octets: int) -> None:
        for pool in self._sources(one):
            pool.kept = max(pool.kept, octets)

    def _sources(self, one: Consumer) -> list[Pool]:
        """Whose key it takes."""
        if isinstance(one, Passage):
            return self._relays.towards(one.next_hop)
        pools = (self._pools.get(link) for link in one.config.links)
        return [pool for pool in pools if pool is not None and pool.remote == one.config.remote]

    def _tell_lacks(self, consumers: Collection[Consumer]) -> None:
        """Has the other ends know what consumers here are short of: they may have what these have not."""
        found: dict[LinkId, Lack] = {}
        for one in consumers:
            if one.short():
                owed, waited, priority = self._promises.credit(one), one.waits(), max(0, one.terms.priority)
                for pool in self._sources(one):
                    found[pool.link] = add(found.get(pool.link, Lack(pool.link)), owed, waited, priority)
        for link, pool in self._pools.items():
            pool.tell(found.get(link) or Lack(link), self._now())

    def _reserved(self) -> dict[LinkId, int]:
        """A pad is small and always fits: without this, chunks of many octets would never come to their key."""
        waiting: list[Stream | Delivery] = [*self._streams.values(), *self._deliveries.values()]
        return {link: size for one in waiting if (size := one.short()) for link in one.config.links}

    def _show(self, link: LinkId, pool: Pool) -> None:
        before, now = self._shown.get(link), (pool.usable > 0, pool.full)
        if not pool.full and self._store.failing is None:
            self._room[link].set()
        if now != before:
            self._shown[link] = now
            if before is not None and before[1] != pool.full:
                self._send(pool.remote, Have(link, (), pool.full, pool.totals.hops))
            self._observer.link_levels_changed(link)
