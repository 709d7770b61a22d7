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
    Lack,
    LinkHello,
    LinkSync,
    Lost,
    Message,
    Need,
    Offer,
    ProtocolError,
    Relay,
    RelayNack,
    StateMessage,
    StreamHello,
    StreamState,
    StreamSync,
    Tagged,
    Want,
    WireMessage,
)

from ..errors import PeerViolation
from ..model import KeyStreamId, LinkId, NodeId
from .core import Core
from .delivery import Delivery
from .otp import BadTag
from .pool import Pool, Refused
from .streams import Stream
from .tags import Channel

log = logging.getLogger(__name__)

LinkMessage = LinkHello | LinkSync | Offer | Have | Lost | Want | Lack | Give
KeyMessage = KeyHello | KeySync | KeyMeet | KeyMet | KeyAlloc | KeyAck | KeyTaken | KeyDrop
StreamMessage = StreamHello | StreamSync | StreamState | Attach | Need | Alloc | AllocAck

MAX_VIOLATIONS = 10
"""Each is an alarm. At so many of them the session is ended, and the ends meet anew: they may only be out of step."""


class Dispatch(Core, ABC):
    """`peers.Events`."""

    def session_up(self, peer: NodeId) -> None:
        session = self._peers.session(peer)
        assert session is not None
        self._channels[peer] = Channel((self._node, peer), session.nonces, lambda: self._between(peer))
        for pool in self._between(peer):
            self._offer(pool)
        for meeting in self._with(peer):
            if meeting.leads if isinstance(meeting, Stream) else meeting.asks:
                meeting.meet()

    def session_down(self, peer: NodeId) -> None:
        if (channel := self._channels.pop(peer, None)) is not None:
            channel.close()
        for pool in self._between(peer):
            self._fresh.pop(pool.link, None)
        for meeting in self._with(peer):
            meeting.part()
            if isinstance(meeting, Delivery):
                self._wake(meeting.config.ksid)
        self._poke()

    def message(self, peer: NodeId, message: WireMessage) -> None:
        """Takes a message; what its sender must not say is an alarm."""
        channel = self._channels[peer]
        for one in self._opened(peer, channel, message) if isinstance(message, Tagged) else (message,):
            if self._channels.get(peer) is not channel:  # the session has ended over the one before
                break
            self._take_one(peer, channel, one)
        self._poke()

    def _opened(self, peer: NodeId, channel: Channel, message: Tagged) -> list[StateMessage]:
        """What an envelope holds; nothing, and the session is over, when it is not what the peer wrote here and now."""
        try:
            return channel.open(message)
        except PeerViolation as violation:
            self._alarm(LinkId(message.key.link), str(violation))
        except BadTag:
            self._alarm(LinkId(message.key.link), f"key manager {peer}: sent what is not authentic")
        except (ProtocolError, Refused) as error:
            log.error("key manager session broken peer=%s problem=%s", peer, error)
        self._hang_up(peer, channel)
        return []

    def _take_one(self, peer: NodeId, channel: Channel, message: AnyMessage) -> None:
        try:
            self._take(peer, message)
        except PeerViolation as violation:
            self._alarm(self._link_of(peer, message), str(violation))
            channel.violations += 1
            if channel.violations == MAX_VIOLATIONS:
                self._hang_up(peer, channel)
        except Exception:
            log.exception("message not taken peer=%s type=%s", peer, type(message).__name__)
            self._hang_up(peer, channel)

    def _link_of(self, peer: NodeId, message: AnyMessage) -> LinkId | None:
        """What a message is about, when it is a link of this node; else one that the two nodes share, if any."""
        link = LinkId(getattr(message, "link", ""))
        return link if link in self._configs else next((pool.link for pool in self._between(peer)), None)

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
            self._store.soon()  # until that is written, a crash here burns the pads
        elif isinstance(message, RelayNack):
            self._relays.on_nack(peer, message, self._now())

    def _take_link(self, pool: Pool, message: LinkMessage) -> None:
        match message:
            case LinkHello():
                if not self._asked(pool.remote, LinkSync, pool.link):
                    pool.hello()
            case Offer():
                self._take_offer(pool, message)
            case LinkSync():
                if problem := pool.sync(message, self._now()):
                    self._alarm(pool.link, problem)
            case Have():
                pool.have(message, self._now())
            case Lost():
                pool.lost(message)
                self._relays.on_lost(message)
            case Want():
                pool.asked = True  # answered when who waits here has had his
            case Lack():
                pool.lacking(message)
            case Give():
                pool.given(message)

    def _take_offer(self, pool: Pool, message: Offer) -> None:
        """A hint. Answered when the other end needs ours, or was told that we can tag, or cannot, and now is not so. Two
        that both need key, and have nothing new to tell, wait."""
        pool.offered(message, self._now())
        needed = message.asks or (message.short and pool.has_news)
        if needed or pool.told_short is not self._channels[pool.remote].mute:
            self._offer(pool)

    def _asked(self, peer: NodeId, kind: type[Message], name: str) -> bool:
        """Whether what a hint asks for waits to be sent. Doing it again and again would fill the queue."""
        return (channel := self._channels.get(peer)) is not None and channel.waits(kind, name)

    def _take_stream(self, stream: Stream, message: StreamMessage) -> None:
        match message:
            case StreamHello():
                self._meet_links(stream.config.remote, message.links)
                if stream.leads and not self._asked(stream.config.remote, StreamSync, message.ksid):
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
                if not self._asked(delivery.config.remote, KeySync, message.ksid):
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
            delivery.serve(0)

    def _meet_links(self, peer: NodeId, links: Collection[str]) -> None:
        """The other end could not take an allocation from these links: their ends are out of step."""
        for name in links:
            pool = self._pools.get(LinkId(name))
            if pool is not None and pool.remote == peer and pool.synced:
                pool.meet()
