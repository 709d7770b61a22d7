"""Who draws how much of a link's key, and who waits for key that is not there, as the rest of the node is told."""

from abc import ABC
from collections.abc import Mapping

from ..model import KeyStreamId, LinkId
from .delivery import Delivery
from .sharing import Sharing
from .streams import Stream


class Shortage(Sharing, ABC):
    """All calls are made on the loop; nothing changes by them."""

    def drawn(self, link: LinkId) -> Mapping[str, int]:
        """Bits, in this process and alike at both ends, by consumer: a key stream, an association, "relay", "tag"."""
        pool = self._pools.get(link)
        return {name: 8 * octets for name, octets in pool.drawn.items()} if pool is not None else {}

    def waiting(self) -> frozenset[LinkId]:
        """The links whose key somebody waits for in vain: an application, or a virtual link for what it was promised."""
        found: set[LinkId] = set()
        consumers: list[Stream | Delivery] = [*self._streams.values(), *self._deliveries.values()]
        for one in consumers:
            if one.starves():
                found |= {pool.link for pool in self._sources(one)}
        for passage in self._relays.passages():
            if 0 < passage.short() <= self._promises.credit(passage):
                found |= {pool.link for pool in self._sources(passage)}
        return frozenset(found)

    def waits(self, ksid: KeyStreamId) -> bool:
        """Whether the application of this end of a key stream or an association waits for key that its links do not have."""
        one = self._streams.get(ksid) or self._deliveries.get(ksid)
        return one is not None and one.starves()

    def allocated_bits(self, ksid: KeyStreamId) -> int:
        """What a key stream or an association has got of all links together, in this process and alike at both ends."""
        return 8 * sum(pool.drawn.get(ksid, 0) for pool in self._pools.values())
