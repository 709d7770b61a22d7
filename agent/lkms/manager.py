"""The key manager of a node: wires pools, streams and relays to the store, to the other key managers and to the clock.

What happens is decided in memory by pool.py, streams.py and relay.py; what they note is written by store.py, and what
they send leaves through `_send` once it is on disk, on the session it was meant for and no later one. Everything runs
on the loop; nothing here waits but the calls that say so.
"""

import asyncio
import logging
import os
import random
import uuid
from collections.abc import Collection, Mapping
from contextlib import suppress
from functools import partial
from itertools import batched
from typing import Protocol

from qswitch.protocol.lkms import (
    Alloc,
    AllocAck,
    AnyMessage,
    Attach,
    Give,
    Have,
    KeyAck,
    KeyAlloc,
    KeyDrop,
    KeyHello,
    KeyMeet,
    KeyMet,
    KeySync,
    KeyTaken,
    LinkHello,
    LinkSync,
    Lost,
    Need,
    Relay,
    RelayNack,
    StreamHello,
    StreamState,
    StreamSync,
    Want,
)

from ..config import LkmsConfig
from ..errors import InsufficientKey, InvalidValue, NoConnection, PeerViolation, StorageFailed, UnknownKeyStream
from ..model import Endpoint, KeyLevels, KeyStreamId, LinkConfig, LinkId, LinkType, NodeId, RelayTotals
from .clock import Clock
from .control import Control
from .delivery import Delivery, DeliveryConfig, Order, StoredKey
from .keys import Key
from .peers import Peers, Session
from .pool import Pool, Totals
from .ranges import pack
from .relay import Relays, high_mark
from .store import Contents, Store
from .streams import MAX_CHUNK_SIZE, Attachment, Chunk, Progress, Stream, StreamConfig

__all__ = ["Chunk", "DeliveryConfig", "KeyManager", "Observer", "StreamConfig"]

log = logging.getLogger(__name__)

TICK_SECONDS = 1.0
SHARED_OCTETS = 16 * 1024  # at once, of keys that go to another node too: a pad is taken whole, and links may have little
MAX_HELD = 200_000  # keys for applications to fetch, of all pairs; 500 octets of memory and 160 of disk each
FOLD_TICKS = 10  # the store's log is folded that often while anything is written
MEET_SECONDS = 1.0  # attach waits so long for the ends to agree on the chunk size

LinkMessage = LinkHello | LinkSync | Have | Lost | Want | Give
KeyMessage = KeyHello | KeySync | KeyMeet | KeyMet | KeyAlloc | KeyAck | KeyTaken | KeyDrop
StreamMessage = StreamHello | StreamSync | StreamState | Attach | Need | Alloc | AllocAck


class Observer(Protocol):
    """Hears what happens in the key manager. Called on the loop; must return at once."""

    def link_levels_changed(self, link: LinkId) -> None:
        """Usable key came or ran out, or the store of the link got full or ceased to be."""

    def alarm(self, link: LinkId | None, message: str) -> None: ...


class KeyManager:
    """The interface of the LKMS to the rest of the node. All calls are made on the loop that `start` ran on."""

    def __init__(self, node: NodeId, config: LkmsConfig, observer: Observer) -> None:
        self._node, self._config, self._observer = node, config, observer
        self._store = Store(config.store, config.master_key, config.ledger, partial(observer.alarm, None))
        self._control = Control(config.store, {"links": self._link_stores, "rotate": self._store.rotate})
        self._peers = Peers(node, config.listen, config.tls, self)
        self._saved, self._clock = Contents(), Clock()
        self._configs: dict[LinkId, LinkConfig] = {}
        self._pools: dict[LinkId, Pool] = {}
        self._streams: dict[KeyStreamId, Stream] = {}
        self._deliveries: dict[KeyStreamId, Delivery] = {}
        self._relays = Relays(
            local=node,
            journal=self._store,
            send=self._send,
            pools=self._pools,
            reachable=lambda neighbour: self._peers.session(neighbour) is not None,
            arrived=self._arrived,
            made=self._made,
            random=os.urandom,
            wait_seconds=config.doubt_seconds / 2,
        )
        self._room: dict[LinkId, asyncio.Event] = {}
        self._shown: dict[LinkId, tuple[bool, bool]] = {}
        self._fresh: dict[LinkId, tuple[int, Session, list[int]]] = {}
        self._waiters: dict[KeyStreamId, set[asyncio.Future[None]]] = {}
        self._reading: dict[KeyStreamId, asyncio.Lock] = {}
        self._undelivered: dict[KeyStreamId, int] = {}
        self._first = 0  # of streams and deliveries, when key is shared out next
        self._settling = False
        self._ticker: asyncio.Task[None] | None = None

    # Life ------------------------------------------------------------------------------------------------------------

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
            _wipe(keys)

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
            for chunk in self._saved.chunks.pop(ksid, {}).values():
                chunk.key.wipe()
            self._store.stream_gone(ksid)
        for ksid in [ksid for ksid in {*self._saved.held, *self._saved.stocks} if ksid not in deliveries]:
            self._forget_delivery(ksid)
        await self._store.commit()

    # Links -------------------------------------------------------------------------------------------------------------

    async def configure_link(self, link: LinkConfig) -> None:
        """Also with a changed configuration: other hops of a virtual link hold for key that is made from now on."""
        self._configs[link.link] = link
        remote = _far_end(link)
        pool = self._pools.get(link.link)
        if pool is not None and pool.remote != remote:
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
            pool.meet()
        self._poke()

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
        wiped; the latter is an alarm.
        """
        try:
            while (pool := self._pools.get(link)) is not None and (pool.full or self._store.failing is not None):
                self._room[link].clear()
                await self._room[link].wait()
        except asyncio.CancelledError:
            key.wipe()
            raise
        if pool is None:
            key.wipe()
        elif pool.add(number, key, self._now(), self._clock.now()):
            self._announce(pool, number)
            self._poke()
        else:
            self._alarm(link, f"a device delivered block {number}, which came before or is empty; it was thrown away")

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

    # Key streams ---------------------------------------------------------------------------------------------------------

    async def configure_stream(self, stream: StreamConfig) -> None:
        """Also with a changed configuration; other `links` hold for key that is allocated from now on.

        Raises InvalidValue for a chunk size that is too large, StorageFailed.
        """
        if not 0 <= stream.chunk_size <= MAX_CHUNK_SIZE:
            raise InvalidValue("Key_chunk_size", str(stream.chunk_size), f"at most {MAX_CHUNK_SIZE} octets")
        have = self._streams.get(stream.ksid)
        if have is not None and have.config.remote != stream.remote:
            have.erase()
            have = None
        if have is None:
            have = self._streams[stream.ksid] = self._add_stream(stream)
        have.configure(stream)
        self._choose_peers()
        if not have.synced and self._peers.session(stream.remote) is not None:
            have.meet()
        self._wake(stream.ksid)
        await self._store.commit()

    def _add_stream(self, config: StreamConfig) -> Stream:
        progress, chunks = self._saved.streams.pop(config.ksid, None), self._saved.chunks.pop(config.ksid, {})
        if progress is None or progress.remote != config.remote:
            self._store.stream_gone(config.ksid)
            progress, chunks = Progress(config.ksid, config.remote), {}
        return Stream(
            config=config,
            leads=self._node < config.remote,
            journal=self._store,
            send=partial(self._send, config.remote),
            pools=self._pools,
            incarnate=lambda: random.SystemRandom().randrange(1, 1 << 63),
            clock=self._clock.now,
            progress=progress,
            chunks=chunks,
        )

    async def remove_stream(self, ksid: KeyStreamId) -> None:
        """Erases the stream at this end."""
        have = self._streams.pop(ksid, None)
        if have is not None:
            have.erase()
        else:
            self._saved.streams.pop(ksid, None)
            self._saved.chunks.pop(ksid, None)
            self._store.stream_gone(ksid)
        self._undelivered.pop(ksid, None)
        self._reading.pop(ksid, None)
        self._choose_peers()
        self._wake(ksid)
        await self._store.commit()

    async def attach(self, ksid: KeyStreamId) -> None:
        """The application of this end is connected; the peer is told, now or when it is there.

        While the peer can be reached, waits a moment until the two ends agree about the stream, its chunk size among others.
        Raises UnknownKeyStream, StorageFailed.
        """
        self._stream(ksid).attach(Attachment.CONNECTED)
        self._wake(ksid)
        await self._store.commit()
        try:
            async with asyncio.timeout(MEET_SECONDS):
                while not (have := self._stream(ksid)).agreed and self._peers.session(have.config.remote):
                    await self._changed(ksid)
        except TimeoutError:
            log.info("key stream not known to the peer yet ksid=%s", ksid)

    async def detach(self, ksid: KeyStreamId) -> None:
        """The application of this end has closed: nothing more is allocated, what is there stays readable at the peer.

        Once both have closed, all that was not read is erased (004 clause 6.1).
        """
        self._stream(ksid).attach(Attachment.CLOSED)
        self._wake(ksid)
        await self._store.commit()

    def peer_attached(self, ksid: KeyStreamId) -> bool:
        have = self._streams.get(ksid)
        return have is not None and have.progress.peer_attachment is Attachment.CONNECTED

    async def wait_peer_attached(self, ksid: KeyStreamId) -> None:
        """For as long as the caller waits. Raises UnknownKeyStream."""
        while self._stream(ksid).progress.peer_attachment is not Attachment.CONNECTED:
            await self._changed(ksid)

    async def get_chunk(self, ksid: KeyStreamId, index: int | None) -> Chunk:
        """Chunk `index`, or the next unread one. Waits for key for as long as the caller does; cancelling loses nothing.

        The chunk delivered last can be had again, until the next one is. Raises UnknownKeyStream; InvalidValue for a
        chunk that is gone; InsufficientKey for one too far ahead; PeerNotConnected once the peer has closed;
        StorageFailed.
        """
        async with self._reading.setdefault(ksid, asyncio.Lock()):  # of two calls for the next one, neither may skip it
            while True:
                have = self._stream(ksid)
                if self._store.failing is not None:
                    raise StorageFailed(self._store.failing)
                chunk = have.read(self._next_index(have) if index is None else index, self._clock.now())
                self._poke()
                if chunk is not None:
                    return await self._released(have, chunk, index is None)
                await self._changed(ksid)

    def _next_index(self, have: Stream) -> int:
        lost = self._undelivered.pop(have.config.ksid, None)
        return have.next_unread() if lost is None or lost != have.progress.released else lost

    async def _released(self, have: Stream, chunk: Chunk, was_next: bool) -> Chunk:
        try:
            await self._store.commit()
        except BaseException:
            chunk.key.wipe()
            if was_next:
                self._undelivered[have.config.ksid] = chunk.index
            raise
        return chunk

    def consumed_bits(self, ksid: KeyStreamId) -> int:
        """Delivered at this end since the stream was created."""
        have = self._streams.get(ksid)
        return 8 * have.progress.consumed if have is not None else 0

    def chunk_size(self, ksid: KeyStreamId) -> int:
        """Octets, as the two ends agreed; while they have not, as this end was told; 0 while nobody has named one."""
        have = self._streams.get(ksid)
        return have.chunk_size if have is not None else 0

    def _stream(self, ksid: KeyStreamId) -> Stream:
        have = self._streams.get(ksid)
        if have is None:
            raise UnknownKeyStream(ksid)
        return have

    async def _changed(self, ksid: KeyStreamId) -> None:
        """Returns when anything has happened to a stream."""
        future = asyncio.get_running_loop().create_future()
        waiters = self._waiters.setdefault(ksid, set())
        waiters.add(future)
        try:
            await future
        finally:
            waiters.discard(future)
            if not waiters and self._waiters.get(ksid) is waiters:
                del self._waiters[ksid]

    def _wake(self, ksid: KeyStreamId) -> None:
        for future in self._waiters.get(ksid, ()):
            if not future.done():
                future.set_result(None)
        self._poke()

    # Keys with an id -----------------------------------------------------------------------------------------------------

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
        self._choose_peers()
        self._wake(ksid)
        await self._store.commit()

    def _forget_delivery(self, ksid: KeyStreamId) -> None:
        for keys in (self._saved.held.pop(ksid, {}), self._saved.stocks.pop(ksid, {})):
            _wipe(keys)
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
                have.serve()
                self._poke()
            while not order.done:
                if self._store.failing is not None:
                    raise StorageFailed(self._store.failing)
                await self._changed(ksid)
                if self._deliveries.get(ksid) is not have:
                    raise UnknownKeyStream(ksid)
                if order.cancelled:
                    raise NoConnection("the keys: the other key manager was lost")
            if order.from_stock:
                await self._store.commit()
        except BaseException:
            if self._deliveries.get(ksid) is have:
                have.cancel(order)
            else:  # erased meanwhile: nothing of it comes back
                _wipe(order.keys)
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

    async def release_keys(self, ksid: KeyStreamId, ids: Collection[str]) -> dict[str, Key]:
        """Keys that are all there (`holds`), for the last time. Raises UnknownKeyStream, StorageFailed."""
        have = self._delivery(ksid)
        if self._store.failing is not None:
            raise StorageFailed(self._store.failing)
        released = have.release(ids)
        try:
            await self._store.commit()
        except BaseException:
            if self._deliveries.get(ksid) is have:
                have.give_back(released)
            else:
                _wipe(released)
            raise
        return {key_id: stored.key for key_id, stored in released.items()}

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

    # Peers -----------------------------------------------------------------------------------------------------------------

    def _choose_peers(self) -> None:
        """Sessions with all far ends, with the neighbours on routes, and with the peers of streams."""
        endpoints: dict[NodeId, Endpoint | None] = {}
        for config in self._configs.values():
            far = _far_end(config)
            for node in (config.previous_hop, config.next_hop, far):
                if node is not None and node != self._node:
                    endpoints.setdefault(node, self._config.peers.get(node))
            if far is not None and config.remote_lkms is not None:
                endpoints[far] = config.remote_lkms
        for stream in self._streams.values():
            endpoints.setdefault(stream.config.remote, self._config.peers.get(stream.config.remote))
        for delivery in self._deliveries.values():
            if (remote := delivery.config.remote) != self._node:
                endpoints.setdefault(remote, self._config.peers.get(remote))
        for node in self._peers.wanted() - set(endpoints):
            self._peers.drop(node)
        for node, endpoint in endpoints.items():
            self._peers.want(node, endpoint)

    def session_up(self, peer: NodeId) -> None:
        for meeting in self._with(peer):
            if meeting.leads if isinstance(meeting, Stream) else meeting.asks:
                meeting.meet()

    def session_down(self, peer: NodeId) -> None:
        for meeting in self._with(peer):
            meeting.part()
            if isinstance(meeting, Delivery):
                self._wake(meeting.config.ksid)
        self._poke()

    def _with(self, peer: NodeId) -> list[Pool | Stream | Delivery]:
        pools: list[Pool | Stream | Delivery] = [pool for pool in self._pools.values() if pool.remote == peer]
        others: list[Stream | Delivery] = [*self._streams.values(), *self._deliveries.values()]
        return pools + [one for one in others if one.config.remote == peer]

    def _send(self, peer: NodeId, message: AnyMessage) -> None:
        """Sends once all that was noted before is durable, on the session there is now."""
        if isinstance(message, LinkSync):
            self._fresh.pop(LinkId(message.link), None)  # what comes now must be told after it, not before
        session = self._peers.session(peer)
        if session is not None:
            self._store.after(partial(session.send, message))

    def message(self, peer: NodeId, message: AnyMessage) -> None:
        """Takes a message; what its sender must not say is an alarm."""
        link = LinkId(message.link) if isinstance(message, LinkMessage | Relay | RelayNack) else None
        try:
            self._take(peer, message)
        except PeerViolation as violation:
            self._alarm(link, str(violation))
        except Exception:
            log.exception("message not taken peer=%s type=%s", peer, type(message).__name__)
            if (session := self._peers.session(peer)) is not None:
                session.close()  # the next session begins with what is so
        self._poke()

    def _take(self, peer: NodeId, message: AnyMessage) -> None:
        if isinstance(message, LinkMessage):
            pool = self._pools.get(LinkId(message.link))
            if pool is not None and pool.remote == peer:
                self._take_link(pool, message)
        elif isinstance(message, StreamMessage):
            stream = self._streams.get(KeyStreamId(message.ksid))
            if stream is not None and stream.config.remote == peer:
                try:
                    self._take_stream(stream, message)
                finally:
                    self._wake(stream.config.ksid)
        elif isinstance(message, KeyMessage):
            delivery = self._deliveries.get(KeyStreamId(message.ksid))
            if delivery is not None and delivery.config.remote == peer:
                try:
                    self._take_key(delivery, message)
                finally:
                    self._wake(delivery.config.ksid)
        elif isinstance(message, Relay):
            self._relays.on_relay(peer, message, self._now())
        elif isinstance(message, RelayNack):
            self._relays.on_nack(peer, message, self._now())

    def _take_link(self, pool: Pool, message: LinkMessage) -> None:
        match message:
            case LinkHello():
                pool.hello()
            case LinkSync():
                for violation in pool.sync(message, self._now()):
                    self._alarm(pool.link, violation)
            case Have():
                pool.have(message, self._now())
            case Lost():
                pool.lost(message)
            case Want():
                pool.wanted()
            case Give():
                pool.given(message)

    def _take_stream(self, stream: Stream, message: StreamMessage) -> None:
        match message:
            case StreamHello():
                self._meet_links(stream.config.remote, message.links)
                if stream.leads:
                    stream.meet()
            case StreamSync():
                stream.on_sync(message)
            case StreamState():
                stream.on_state(message)
            case Attach():
                stream.on_attach(message)
            case Need():
                stream.on_need(message)
            case Alloc():
                stream.on_alloc(message)
            case AllocAck():
                stream.on_ack(message)

    def _take_key(self, delivery: Delivery, message: KeyMessage) -> None:
        match message:
            case KeyHello():
                self._meet_links(delivery.config.remote, message.links)
                delivery.on_hello()
            case KeySync():
                delivery.on_sync(message)
            case KeyMeet():
                delivery.on_meet(message)
            case KeyMet():
                delivery.on_met(message)
            case KeyAlloc():
                delivery.on_alloc(message)
            case KeyAck():
                delivery.on_ack(message)
            case KeyTaken():
                delivery.on_taken(message)
            case KeyDrop():
                delivery.on_drop(message)
        if self._store.failing is None:
            delivery.serve()

    def _meet_links(self, peer: NodeId, links: Collection[str]) -> None:
        """The other end could not take an allocation from these links: their ends are out of step."""
        for name in links:
            pool = self._pools.get(LinkId(name))
            if pool is not None and pool.remote == peer and pool.synced:
                pool.meet()

    # Blocks --------------------------------------------------------------------------------------------------------------

    def _made(self, link: LinkId, number: int, key: Key) -> None:
        pool = self._pools[link]
        if pool.add(number, key, self._now(), self._clock.now()):
            self._announce(pool, number)

    def _arrived(self, link: LinkId, number: int, key: Key, hops: int) -> None:
        pool = self._pools.get(link)
        if pool is None:
            key.wipe()
        elif pool.add(number, key, self._now(), self._clock.now(), hops):
            self._announce(pool, number)
        else:  # overtaken on another route
            self._send(pool.remote, Lost(link, [(number, number)]))

    def _announce(self, pool: Pool, number: int) -> None:
        """Tells the far end of a block once it is durable; of many in one message."""
        session = self._peers.session(pool.remote)
        if session is None:
            return
        turn, on, numbers = self._fresh.get(pool.link, (-1, None, []))
        if turn == self._store.turn and on is session:
            numbers.append(number)
            return
        numbers = [number]
        self._fresh[pool.link] = (self._store.turn, session, numbers)

        def announce() -> None:
            session.send(Have(pool.link, pack(numbers), pool.full, pool.totals.hops))

        self._store.after(announce, urgent=False)

    # What follows --------------------------------------------------------------------------------------------------------

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _poke(self) -> None:
        """Something changed: once this turn of the loop is over, do what can be done now."""
        if not self._settling:
            self._settling = True
            asyncio.get_running_loop().call_soon(self._settle)

    def _settle(self) -> None:
        self._settling = False
        if self._store.failing is None:
            waiting: list[Stream | Delivery] = sorted(self._streams.values(), key=lambda one: one.config.ksid)
            waiting += self._deliveries.values()
            self._first = (self._first + 1) % max(1, len(waiting))  # or scarce key would all go to the lowest id
            for one in (*waiting[self._first :], *waiting[: self._first]):
                if isinstance(one, Stream):
                    one.refill()
                elif one.serve():
                    self._wake(one.config.ksid)
            # A pad is small and always fits: without this, chunks of many octets would never come to their key.
            self._relays.reserved = {link: size for one in waiting if (size := one.short()) for link in one.config.links}
            self._relays.fill(self._now())
        for link, pool in self._pools.items():
            self._show(link, pool)

    def _show(self, link: LinkId, pool: Pool) -> None:
        before, now = self._shown.get(link), (pool.usable > 0, pool.full)
        if not pool.full and self._store.failing is None:
            self._room[link].set()
        if now != before:
            self._shown[link] = now
            if before is not None and before[1] != pool.full:
                self._send(pool.remote, Have(link, (), pool.full, pool.totals.hops))
            self._observer.link_levels_changed(link)

    def _alarm(self, link: LinkId | None, message: str) -> None:
        log.error("alarm link=%s problem=%s", link, message)
        self._observer.alarm(link, message)

    async def _tick(self) -> None:
        ticks, turn = 0, 0
        while True:
            await asyncio.sleep(TICK_SECONDS)
            ticks += 1
            self._expire()
            if ticks % FOLD_TICKS == 0 and turn != self._store.turn:
                turn = self._store.turn
                await self._store.fold()

    def _expire(self) -> None:
        for link, pool in self._pools.items():
            if burnt := pool.expire(self._now(), self._config.doubt_seconds):
                log.warning("blocks in doubt burnt link=%s blocks=%d", link, burnt)
        for ksid, stream in self._streams.items():
            if stream.expire(self._clock.now()):
                self._wake(ksid)
        for ksid, delivery in self._deliveries.items():
            if late := delivery.tick(self._clock.now()):
                log.info("keys erased that nobody fetched ksid=%s keys=%d", ksid, late)
        self._poke()


def _wipe(keys: Mapping[str, StoredKey]) -> None:
    for stored in keys.values():
        stored.key.wipe()


def _far_end(link: LinkConfig) -> NodeId | None:
    """The node that has the link's key as well; None on a relay node, which has none."""
    if link.type is LinkType.VIRTUAL and link.previous_hop is not None and link.next_hop is not None:
        return None
    return link.remote_node
