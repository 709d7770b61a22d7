"""What follows when anything has changed: key goes to who waits for it, and who watches is told."""

from abc import ABC

from qswitch.protocol.lkms import Have

from ..config import LkmsConfig
from ..model import LinkId, NodeId
from .core import Core, Observer
from .delivery import Delivery
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
            self._promises.serve(consumers, self._now(), self._allocate, self._keep)
        for link, pool in self._pools.items():
            self._show(link, pool)
        if any(channel.blocked for channel in self._channels.values()):  # there may be key to tag with now
            self._store.soon()

    def _allocate(self, one: Consumer, most: int | None) -> None:
        if isinstance(one, Stream):
            one.refill(most)
        elif isinstance(one, Passage):
            self._relays.reserved = self._reserved() if most is None else {}
            self._relays.fill(one.next_hop, self._now(), most)
        elif one.serve(most):
            self._wake(one.config.ksid)

    def _keep(self, one: Consumer, octets: int) -> None:
        remote = one.next_hop if isinstance(one, Passage) else one.config.remote
        links = self._pools if isinstance(one, Passage) else one.config.links
        for link in links:
            if (pool := self._pools.get(link)) is not None and pool.remote == remote:
                pool.kept = max(pool.kept, octets)

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
