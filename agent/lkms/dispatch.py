"""What other key managers say, handed to the pool, stream, association or relay that it is for."""

import logging
from abc import ABC
from collections.abc import Collection

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

from ..errors import PeerViolation
from ..model import KeyStreamId, LinkId, NodeId
from .core import Core
from .delivery import Delivery
from .pool import Pool
from .streams import Stream

log = logging.getLogger(__name__)

LinkMessage = LinkHello | LinkSync | Have | Lost | Want | Give
KeyMessage = KeyHello | KeySync | KeyMeet | KeyMet | KeyAlloc | KeyAck | KeyTaken | KeyDrop
StreamMessage = StreamHello | StreamSync | StreamState | Attach | Need | Alloc | AllocAck


class Dispatch(Core, ABC):
    """`peers.Events`."""

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
