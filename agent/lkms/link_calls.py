"""The links of a key manager: their pools, the blocks that devices and relays bring, and what is told of them."""

import asyncio
import operator
import os
from abc import ABC
from functools import partial

from qswitch.protocol.lkms import Have, Lost

from ..config import LkmsConfig
from ..model import KeyLevels, LinkConfig, LinkId, LinkType, NodeId, RelayTotals
from .core import Core, Observer, far_end
from .keys import Key
from .lines import high_mark
from .pool import Pool, Totals
from .ranges import pack
from .relay import Relays


class LinkCalls(Core, ABC):
    """All calls are made on the loop."""

    def __init__(self, node: NodeId, config: LkmsConfig, observer: Observer) -> None:
        super().__init__(node, config, observer)
        self._relays = Relays(
            local=node,
            journal=self._store,
            send=self._send,
            pools=self._pools,
            reachable=lambda neighbour: self._peers.session(neighbour) is not None,
            arrived=self._arrived,
            made=self._made,
            random=os.urandom,
            mute=self._mute,
            wait_seconds=config.doubt_seconds / 2,
        )

    async def configure_link(self, link: LinkConfig) -> None:
        """Also with a changed configuration: other hops of a virtual link hold for key that is made from now on.

        When its key is to come over more paths, that which came over fewer is erased: a node between knows it.
        """
        self._configs[link.link], remote = link, far_end(link)
        pool = self._pools.get(link.link)
        if self._widened(link) or (pool is not None and pool.remote != remote):
            self._remove_pool(link.link)
            pool = None
        if link.type is LinkType.VIRTUAL:
            self._relays.configure(link)
        if remote is not None:
            pool = pool or self._add_pool(link.link, remote)
            if link.type is LinkType.VIRTUAL:
                pool.capacity = min(self._config.capacity_blocks, high_mark(link.bandwidth_bps))
        self._choose_peers()
        if pool is not None and not pool.synced and self._peers.session(pool.remote) is not None:
            self._offer(pool)
            pool.meet()
        self._poke()

    def _widened(self, link: LinkConfig) -> bool:
        """Whether the key there is, or that is stored since a time before this process, came over fewer paths."""
        paths = max(1, len(link.components))
        had = self._saved.paths.get(link.link, 1)
        if paths != had:
            self._saved.paths[link.link] = paths
            self._store.paths(link.link, paths)
        return had < paths

    def _add_pool(self, link: LinkId, remote: NodeId) -> Pool:
        totals = self._saved.totals.pop(link, None) or Totals()
        blocks = self._saved.blocks.pop(link, [])
        send = partial(self._send, remote)
        config = self._config
        pool = Pool(
            link, self._node, remote, config.capacity_blocks, self._store, send, totals, blocks, config.refill_percent
        )
        self._pools[link] = pool
        self._room[link] = asyncio.Event()
        return pool

    async def remove_link(self, link: LinkId) -> None:
        """Erases what is left of its key. Its highest block number is kept: numbers never come twice."""
        self._configs.pop(link, None)
        self._relays.remove(link)
        self._store.relay_gone(link)
        self._saved.paths.pop(link, None)
        self._store.paths(link, 1)
        self._remove_pool(link)
        self._choose_peers()
        self._poke()
        await self._store.commit()

    def _remove_pool(self, link: LinkId) -> None:
        pool = self._pools.pop(link, None)
        if pool is None:
            self._forget_saved(link)
            return
        pool.erase()
        self._saved.totals[link] = Totals(highest=pool.totals.highest)
        self._store.totals(link, self._saved.totals[link])
        self._room.pop(link).set()
        self._shown.pop(link, None)
        self._fresh.pop(link, None)

    def _forget_saved(self, link: LinkId) -> None:
        for block in self._saved.blocks.pop(link, []):
            block.key.wipe()
        self._store.link_gone(link)

    def first_block(self, link: LinkId) -> int:
        """A device may number its blocks from here on: above every number that was ever stored."""
        pool = self._pools.get(link)
        totals = pool.totals if pool is not None else self._saved.totals.get(link)
        return totals.highest + 1 if totals is not None else 0

    async def deliver(self, link: LinkId, number: int, key: Key) -> None:
        """Takes a block from a device; waits while the link's store is full, or the disk fails.

        The block is used only once it is durable at both ends. One of a link that is gone, or whose number came before, is
        wiped; the latter is an alarm. Raises TypeError for a number that is no whole one.
        """
        try:
            number = operator.index(number)  # SQLite takes no numpy.int64, and what it does not take fails the whole store
            while (pool := self._pools.get(link)) is not None and (pool.full or self._store.failing is not None):
                self._room[link].clear()
                await self._room[link].wait()
        except (asyncio.CancelledError, TypeError):
            key.wipe()
            raise
        if pool is None:
            key.wipe()
        elif pool.add(number, key, self._now(), self._clock.now()):
            self._announce(pool, number)
            self._poke()
        else:
            what = "came before, is empty or longer than 1 MiB, or has a number too large"
            self._alarm(link, f"a device delivered block {number}, which {what}")

    def levels(self, link: LinkId) -> KeyLevels:
        """Nothing, for a link of which this node is no end."""
        pool = self._pools.get(link)
        return pool.levels() if pool is not None else KeyLevels()

    async def _link_stores(self) -> dict[LinkId, dict[str, int | bool]]:
        """What only a running key manager knows of its links, for `qkd-agent keys status`."""
        return {
            link: {"usable_octets": pool.usable, "full": pool.full, "capacity_blocks": pool.capacity}
            for link, pool in self._pools.items()
        }

    def relay_totals(self, link: LinkId) -> RelayTotals:
        """On a virtual link what passed through this node; on a physical one the pads taken from it."""
        total = self._relays.total(link)
        held = 8 * self._relays.held(link)
        return RelayTotals(8 * total.relayed, 8 * total.pads, total.failures, held)

    # Blocks --------------------------------------------------------------------------------------------------------------

    def _made(self, link: LinkId, number: int, key: Key) -> None:
        pool = self._pools[link]
        if pool.add(number, key, self._now(), self._clock.now()):
            self._announce(pool, number)

    def _arrived(self, link: LinkId, number: int, key: Key, hops: int) -> None:
        pool = self._pools.get(link)
        if pool is None:
            key.wipe()
            return
        if not pool.fits(number):
            key.wipe()
            self._alarm(link, f"block {number} has a number that it cannot have, or is one too many; it was thrown away")
        elif pool.add(number, key, self._now(), self._clock.now(), hops):
            self._announce(pool, number)
            return
        self._send(pool.remote, Lost(link, [(number, number)]))  # or it was overtaken on another route

    def _mute(self, pool: Pool) -> bool:
        """Whether this end or the far end of a link has no key to tag its messages to the other with."""
        return pool.peer_short or ((channel := self._channels.get(pool.remote)) is not None and channel.mute)

    def _announce(self, pool: Pool, number: int) -> None:
        """Tells the far end of a block once it is durable; of many in one message."""
        channel = self._channels.get(pool.remote)
        if channel is None:
            return
        if pool.peer_low:
            self._offer(pool)
        if (numbers := self._fresh.get(pool.link)) is not None:
            numbers.append(number)
            return
        self._fresh[pool.link] = numbers = [number]

        def announce() -> Have:
            if self._fresh.get(pool.link) is numbers:
                del self._fresh[pool.link]
            return Have(pool.link, pack(numbers), pool.full, pool.totals.hops)

        self._put(pool.remote, channel, announce, urgent=False)
