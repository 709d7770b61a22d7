"""What the parts of the key manager share: its state, its store and sessions, waiting and waking.

Each part (link_calls.py, stream_calls.py, key_ids.py: what the rest of the node asks for; dispatch.py: what other key
managers say; sharing.py: what follows) is a class over this one, and manager.py is all of them together.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from functools import partial
from typing import Protocol

from qswitch.protocol.lkms import AnyMessage, LinkSync, Tagged

from ..config import LkmsConfig
from ..model import Endpoint, KeyStreamId, LinkConfig, LinkId, LinkType, NodeId
from .clock import Clock
from .contents import Contents
from .delivery import Delivery
from .peers import Peers
from .pool import Pool
from .relay import Relays
from .store import Store
from .streams import Stream
from .tags import MAX_WAITING, Channel, Item

log = logging.getLogger(__name__)

MEET_SECONDS = 1.0  # callers wait so long for the ends to agree


class Observer(Protocol):
    """Hears what happens in the key manager. Called on the loop; must return at once."""

    def link_levels_changed(self, link: LinkId) -> None:
        """Usable key came or ran out, or the store of the link got full or ceased to be."""

    def alarm(self, link: LinkId | None, message: str) -> None: ...


class Core(ABC):
    """All state of a key manager that more than one part of it touches."""

    _relays: Relays
    _peers: Peers

    def __init__(self, node: NodeId, config: LkmsConfig, observer: Observer) -> None:
        self._node, self._config, self._observer = node, config, observer
        self._store = Store(config.store, config.master_key, config.ledger, partial(observer.alarm, None))
        self._saved, self._clock = Contents(), Clock()
        self._configs: dict[LinkId, LinkConfig] = {}
        self._pools: dict[LinkId, Pool] = {}
        self._streams: dict[KeyStreamId, Stream] = {}
        self._deliveries: dict[KeyStreamId, Delivery] = {}
        self._room: dict[LinkId, asyncio.Event] = {}
        self._shown: dict[LinkId, tuple[bool, bool]] = {}
        self._channels: dict[NodeId, Channel] = {}
        self._fresh: dict[LinkId, list[int]] = {}  # blocks that the far end is about to be told of
        self._offering: set[LinkId] = set()
        self._waiters: dict[KeyStreamId, set[asyncio.Future[None]]] = {}
        self._settling = False
        self._store.gather = self._post

    @abstractmethod
    def _settle(self) -> None:
        """Does what can be done now."""

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _poke(self) -> None:
        """Something changed: once this turn of the loop is over, do what can be done now."""
        if not self._settling:
            self._settling = True
            asyncio.get_running_loop().call_soon(self._settle)

    def _alarm(self, link: LinkId | None, message: str) -> None:
        log.error("alarm link=%s problem=%s", link, message)
        self._observer.alarm(link, message)

    # Waiting -------------------------------------------------------------------------------------------------------------

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

    def _forget_drawn(self, ksid: KeyStreamId) -> None:
        for pool in self._pools.values():
            pool.drawn.pop(ksid, None)

    # Peers -----------------------------------------------------------------------------------------------------------------

    def _choose_peers(self) -> None:
        """Sessions with all far ends, with the neighbours on routes, and with the peers of streams."""
        endpoints: dict[NodeId, Endpoint | None] = {}
        for config in self._configs.values():
            far = far_end(config)
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

    def _with(self, peer: NodeId) -> list[Pool | Stream | Delivery]:
        pools: list[Pool | Stream | Delivery] = [pool for pool in self._pools.values() if pool.remote == peer]
        others: list[Stream | Delivery] = [*self._streams.values(), *self._deliveries.values()]
        return pools + [one for one in others if one.config.remote == peer]

    def _between(self, peer: NodeId) -> list[Pool]:
        """The pools that tags for a peer are drawn from, physical links' first: a relayed key has cost pads already."""
        pools = [pool for pool in self._pools.values() if pool.remote == peer]
        return sorted(pools, key=lambda pool: (pool.link in self._relays.lines, pool.link))

    def _send(self, peer: NodeId, message: AnyMessage) -> None:
        """Sends once all that was noted before is durable, on the session there is now."""
        if isinstance(message, LinkSync):
            self._fresh.pop(LinkId(message.link), None)  # what comes now must be told after it, not before
        if (channel := self._channels.get(peer)) is not None:
            assert not isinstance(message, Tagged)
            self._put(peer, channel, message)

    def _put(self, peer: NodeId, channel: Channel, item: Item, *, urgent: bool = True) -> None:
        if channel.waiting == MAX_WAITING:
            log.error("no key to tell a key manager anything with peer=%s", peer)
            asyncio.get_running_loop().call_soon(self._hang_up, peer, channel)
        channel.put(item)
        self._store.soon(urgent=urgent)

    def _hang_up(self, peer: NodeId, channel: Channel) -> None:
        """Ends the session of a channel: the next one begins with what is so."""
        if self._channels.get(peer) is channel and (session := self._peers.session(peer)) is not None:
            session.close()

    def _offer(self, pool: Pool) -> None:
        """Soon tells the other end what it may tag with."""
        if pool.remote in self._channels:
            self._offering.add(pool.link)
            self._store.soon(urgent=False)

    def _post(self) -> None:
        """What was decided for other nodes leaves with what is written now."""
        for link in self._offering:
            if (pool := self._pools.get(link)) is not None and (channel := self._channels.get(pool.remote)) is not None:
                channel.put(pool.offer(short=pool.heard and channel.mute))
        self._offering.clear()
        for peer, channel in self._channels.items():
            if channel.waiting and (session := self._peers.session(peer)) is not None:
                try:
                    for message in channel.flush():
                        self._store.after(partial(session.send, message))
                except Exception:
                    log.exception("messages not sent peer=%s", peer)
                    asyncio.get_running_loop().call_soon(self._hang_up, peer, channel)
            for pool in self._between(peer) if channel.blocked else ():
                if pool.heard and not pool.told_short:  # what it offered before may be used up
                    self._offer(pool)


def far_end(link: LinkConfig) -> NodeId | None:
    """The node that has the link's key as well; None on a relay node, and of what only brings shares of another link's."""
    if link.component_of is not None:
        return None
    if link.type is LinkType.VIRTUAL and link.previous_hop is not None and link.next_hop is not None:
        return None
    return link.remote_node
