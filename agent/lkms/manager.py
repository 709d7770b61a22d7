"""The key manager of a node: wires pools, streams and relays to the store, to the other key managers and to the clock.

What happens is decided in memory by pool.py, streams.py, delivery.py and relay.py; what they note is written by store.py,
and what they send leaves through `_send` once it is on disk, on the session it was meant for and no later one. Everything
runs on the loop; nothing here waits but the calls that say so.
"""

import asyncio
import logging
from collections.abc import Collection

from ..config import LkmsConfig
from ..model import Endpoint, KeyStreamId, LinkId, NodeId
from .control import Control
from .core import Observer
from .delivery_end import DeliveryConfig, wipe
from .dispatch import Dispatch
from .key_ids import KeyIds
from .link_calls import LinkCalls
from .peers import Peers
from .shortage import Shortage
from .stream_calls import StreamCalls
from .stream_end import Chunk, StreamConfig

__all__ = ["Chunk", "DeliveryConfig", "KeyManager", "Observer", "StreamConfig"]

log = logging.getLogger(__name__)

TICK_SECONDS = 1.0
FOLD_TICKS = 10  # the store's log is folded that often while anything is written


class KeyManager(LinkCalls, StreamCalls, KeyIds, Dispatch, Shortage):
    """The interface of the LKMS to the rest of the node. All calls are made on the loop that `start` ran on."""

    def __init__(self, node: NodeId, config: LkmsConfig, observer: Observer) -> None:
        super().__init__(node, config, observer)
        self._control = Control(config.store, {"links": self._link_stores, "rotate": self._store.rotate})
        self._peers = Peers(node, config.listen, config.tls, self)
        self._ticker: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Opens the store, listens and dials. Raises StorageFailed, ConfigurationError.

        What the store holds of links and streams counts again once they are configured.
        """
        self._saved = await self._store.open()
        self._clock.not_before(self._saved.youngest())
        self._relays.totals = self._saved.relays
        await self._control.start()
        await self._peers.start()
        self._ticker = asyncio.create_task(self._tick(), name="key manager")

    async def stop(self) -> None:
        """Ends sessions, writes what is noted, forgets all key in memory."""
        if self._ticker is not None:
            self._ticker.cancel()
            await asyncio.wait([self._ticker])
        await self._peers.stop()
        await self._control.stop()
        for stream in self._streams.values():
            stream.put_back()
        for delivery in self._deliveries.values():
            delivery.put_back()
        await self._store.close()
        for pool in self._pools.values():
            pool.wipe()
        for stream in self._streams.values():
            stream.wipe()
        for delivery in self._deliveries.values():
            delivery.wipe()
        self._relays.wipe()
        for blocks in self._saved.blocks.values():
            for block in blocks:
                block.key.wipe()
        for keys in (*self._saved.held.values(), *self._saved.stocks.values()):
            wipe(keys)

    @property
    def endpoint(self) -> Endpoint:
        """Where other key managers reach this one."""
        return self._peers.endpoint

    async def prune(
        self, links: Collection[LinkId], streams: Collection[KeyStreamId], deliveries: Collection[KeyStreamId] = ()
    ) -> None:
        """Erases what the store holds of others: they were removed while this process did not run."""
        for link in [link for link in self._saved.blocks if link not in links]:
            self._forget_saved(link)
        for ksid in [ksid for ksid in self._saved.streams if ksid not in streams]:
            self._saved.streams.pop(ksid)
            self._saved.readers.pop(ksid, None)
            for chunk in self._saved.chunks.pop(ksid, {}).values():
                chunk.key.wipe()
            self._store.stream_gone(ksid)
        for ksid in [ksid for ksid in self._saved.holders if ksid not in streams]:
            self._saved.holders.pop(ksid)
            self._store.hold(ksid, {})
        for ksid in [ksid for ksid in {*self._saved.held, *self._saved.stocks} if ksid not in deliveries]:
            self._forget_delivery(ksid)
        await self._store.commit()

    async def _tick(self) -> None:
        ticks, turn = 0, 0
        while True:
            await asyncio.sleep(TICK_SECONDS)
            ticks += 1
            try:
                self._expire()
            except Exception:  # too much rests on it, as who waits for a disk: it must not be the last one
                log.exception("tick failed")
                self._poke()
            if ticks % FOLD_TICKS == 0 and turn != self._store.turn:
                turn = self._store.turn
                await self._store.fold()

    def _expire(self) -> None:
        for link, pool in self._pools.items():
            if burnt := pool.expire(self._now(), self._config.doubt_seconds, self._mute(pool)):
                log.warning("blocks in doubt burnt link=%s blocks=%d", link, burnt)
        for ksid, stream in self._streams.items():
            stream.rest(self._clock.now())
            if stream.expire(self._clock.now()):
                self._wake(ksid)
        for ksid, delivery in self._deliveries.items():
            if late := delivery.tick(self._clock.now()):
                log.info("keys erased that nobody fetched ksid=%s keys=%d", ksid, late)
        self._poke()
