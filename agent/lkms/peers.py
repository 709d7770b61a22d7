"""Sessions between key managers: mutual TLS 1.3 over TCP, one for each pair of nodes, whatever the number of links.

The lower node id dials, again and again while a session is wanted; the other listens. A certificate names its node as
`urn:uuid:NODE-ID` among its alternative names; one that is not of the network's authority, or of a node that no link
leads to, is refused. A new session from a peer ends the one before it, of which no message counts any more. A peer
that says nothing for IDLE_SECONDS is taken for gone. OpenSSL negotiates a hybrid post-quantum key exchange by itself
where both ends have one.

TLS protects who talks and about what. Key (Relay) and state messages are protected by the links' own key beneath it, with
one-time pads and tags (relay.py, tags.py): who can speak for both ends, having broken TLS or taken their private keys, can
end and delay sessions and burn key, and change nothing of what the two ends agree on.
"""

import asyncio
import logging
import os
import socket
import ssl
import uuid
from dataclasses import dataclass
from typing import Protocol, cast

from qswitch.protocol.lkms import NONCE_OCTETS, VERSION, Codec, Hello, Ping, ProtocolError, WireMessage, build

from ..acceptor import Acceptor
from ..config import TlsFiles
from ..errors import ConfigurationError
from ..model import Endpoint, NodeId

log = logging.getLogger(__name__)

PING_SECONDS = 1.5
IDLE_SECONDS = 5.0
CONNECT_SECONDS = 5.0
FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 0.2, 5.0
MAX_UNSENT = 8 << 20
"""Octets that may wait for a slow peer; then the session is given up."""


class Events(Protocol):
    """What becomes of sessions; called on the loop, and each returns at once."""

    def session_up(self, peer: NodeId) -> None: ...
    def session_down(self, peer: NodeId) -> None: ...
    def message(self, peer: NodeId, message: WireMessage) -> None: ...


class Session(asyncio.Protocol):
    """One connection. `peer` is known once TLS is up, `ready` once the peer's Hello came. `nonces`: its own, the peer's."""

    def __init__(self, peers: "Peers", expected: NodeId | None) -> None:
        self._peers, self._expected = peers, expected
        self._codec = Codec()
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._heard = self._said = 0.0
        self.peer: NodeId | None = None
        self.ready = False
        self.nonces = (os.urandom(NONCE_OCTETS), b"")
        self.closed = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if (sock := transport.get_extra_info("socket")) is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.peer = _named(transport, self._expected) or None
        if self.peer is None or not self._peers.welcome(self.peer):
            log.warning("key manager refused peer=%s expected=%s", self.peer or "stranger", self._expected)
            self.close()
            return
        if self._expected is None:
            self._peers.arrives(self)
        self._heard = self._loop.time()
        self.send(Hello(VERSION, self.nonces[0]))
        self._tick()

    def data_received(self, data: bytes) -> None:
        if self.closed.done() or self.peer is None:
            return
        self._heard = self._loop.time()
        self._codec.receive(data)
        try:
            while not self.closed.done() and (message := self._codec.next_message()) is not None:
                self._take(message)
        except ProtocolError as error:
            log.error("key manager session broken peer=%s problem=%s", self.peer, error)
            self.close()

    def _take(self, message: WireMessage) -> None:
        assert self.peer is not None
        if self.ready:
            if not isinstance(message, Ping):
                self._peers.events.message(self.peer, message)
        elif isinstance(message, Hello) and message.version == VERSION:
            self.ready, self.nonces = True, (self.nonces[0], message.nonce)
            self._peers.up(self)
        else:
            raise ProtocolError("no hello of this version")

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.close()

    def send(self, message: WireMessage) -> None:
        """Drops the message when the session is over."""
        if self.closed.done() or self._transport is None:
            return
        if self._transport.get_write_buffer_size() > MAX_UNSENT:
            log.error("key manager does not read peer=%s", self.peer)
            self.close()
            return
        self._said = self._loop.time()
        self._transport.write(build(message))

    def _tick(self) -> None:
        now = self._loop.time()
        if now - self._heard > IDLE_SECONDS:
            log.warning("key manager is silent peer=%s", self.peer)
            self.close()
            return
        if now - self._said >= PING_SECONDS * 0.9:
            self.send(Ping())
        self._timer = self._loop.call_later(PING_SECONDS, self._tick)

    def close(self) -> None:
        """Ends the session at once; nothing of it counts from now on."""
        if self.closed.done():
            return
        self.closed.set_result(None)
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()
        self._peers.down(self)


def _named(transport: asyncio.BaseTransport, expected: NodeId | None) -> NodeId | None:
    """The node that the peer's certificate names; None when it names none, or not the expected one."""
    certificate = transport.get_extra_info("peercert") or {}
    for kind, value in certificate.get("subjectAltName", ()):
        if kind == "URI" and value.lower().startswith("urn:uuid:"):
            try:
                node = NodeId(str(uuid.UUID(value[len("urn:uuid:") :])))
            except ValueError:
                continue
            if expected is None or node == expected:
                return node
    return None


@dataclass(slots=True)
class _Wanted:
    endpoint: Endpoint | None
    task: asyncio.Task[None] | None = None
    session: Session | None = None


class Peers:
    """All sessions of a node."""

    def __init__(self, node: NodeId, listen: Endpoint, tls: TlsFiles, events: Events) -> None:
        self._node, self._listen, self._tls, self.events = node, listen, tls, events
        self._wanted: dict[NodeId, _Wanted] = {}
        self._arriving: set[Session] = set()
        self._acceptor: Acceptor | None = None
        self._context: ssl.SSLContext | None = None

    async def start(self) -> None:
        """Raises ConfigurationError for certificates or an address that cannot be used."""
        try:
            self._context = self._make_context(ssl.PROTOCOL_TLS_CLIENT)
            context = self._make_context(ssl.PROTOCOL_TLS_SERVER)
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(str(self._tls.certificate), f"cannot be used for TLS: {error}") from error
        where = f"{self._listen.address}:{self._listen.port}"
        try:
            acceptor = Acceptor(lambda: Session(self, None), context, CONNECT_SECONDS)
            await acceptor.start(self._listen)
            self._acceptor = acceptor
        except OSError as error:
            raise ConfigurationError("[lkms]", f"cannot listen on {where}: {os.strerror(error.errno or 0)}") from error
        log.info("key manager listens endpoint=%s", where)

    def _make_context(self, protocol: int) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False  # certificates name nodes, not hosts; `_named` checks that
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(self._tls.certificate, self._tls.private_key)
        context.load_verify_locations(self._tls.ca)
        return context

    async def stop(self) -> None:
        tasks = [one.task for one in self._wanted.values() if one.task is not None]
        for node in list(self._wanted):
            self.drop(node)
        for session in list(self._arriving):
            session.close()
        if tasks:
            await asyncio.wait(tasks)
        if self._acceptor is not None:
            await self._acceptor.stop()
            self._acceptor = None

    @property
    def endpoint(self) -> Endpoint:
        """Where it listens (port 0 in the configuration means any)."""
        assert self._acceptor is not None
        return self._acceptor.endpoint

    # Who is wanted -------------------------------------------------------------------------------------------------------

    def want(self, node: NodeId, endpoint: Endpoint | None) -> None:
        """Keeps a session with a node from now on; the endpoint matters to the end that dials."""
        wanted = self._wanted.setdefault(node, _Wanted(endpoint))
        moved, wanted.endpoint = wanted.endpoint != endpoint, endpoint
        if self._node < node and endpoint is not None and (wanted.task is None or (moved and wanted.session is None)):
            if wanted.task is not None:
                wanted.task.cancel()
            wanted.task = asyncio.get_running_loop().create_task(self._dial(node, wanted), name=f"dial {node}")

    def drop(self, node: NodeId) -> None:
        wanted = self._wanted.pop(node, None)
        if wanted is None:
            return
        if wanted.task is not None:
            wanted.task.cancel()
        if wanted.session is not None:
            wanted.session.close()
            self.events.session_down(node)

    def wanted(self) -> set[NodeId]:
        return set(self._wanted)

    def session(self, node: NodeId) -> Session | None:
        """The session with a node, if there is one now."""
        wanted = self._wanted.get(node)
        return wanted.session if wanted else None

    def welcome(self, node: NodeId) -> bool:
        """Whether a session with this node is wanted."""
        return node in self._wanted

    # Sessions come and go --------------------------------------------------------------------------------------------------

    async def _dial(self, node: NodeId, wanted: _Wanted) -> None:
        pause, loop = FIRST_RETRY_SECONDS, asyncio.get_running_loop()
        while True:
            endpoint = wanted.endpoint
            session: Session | None = None
            try:
                if endpoint is None:  # no longer known, since it was wanted
                    raise ConnectionError("where it listens is not known")
                async with asyncio.timeout(CONNECT_SECONDS):
                    _, session = await loop.create_connection(
                        lambda: Session(self, node), endpoint.address, endpoint.port, ssl=self._context
                    )
                await asyncio.shield(session.closed)  # or `drop`, which cancels, would take it for closed and leave it open
            except (OSError, TimeoutError, ValueError) as error:  # ssl.SSLError is an OSError; no host name is a ValueError
                log.debug("key manager not reached peer=%s problem=%s", node, error)
            except Exception:  # whatever it is, the peer is wanted still
                log.exception("key manager not reached peer=%s", node)
            finally:
                if session is not None:
                    session.close()
            pause = FIRST_RETRY_SECONDS if session is not None and session.ready else min(2 * pause, LAST_RETRY_SECONDS)
            await asyncio.sleep(pause)

    def arrives(self, session: Session) -> None:
        """Of those of one node that have not said hello, only the last is kept."""
        for other in [one for one in self._arriving if one.peer == session.peer]:
            other.close()
        self._arriving.add(session)

    def up(self, session: Session) -> None:
        assert session.peer is not None
        wanted = self._wanted.get(session.peer)
        if wanted is None:  # no longer, since it was welcome
            session.close()
            return
        self._arriving.discard(session)
        if wanted.session is not None:
            old, wanted.session = wanted.session, None
            old.close()
            self.events.session_down(session.peer)
        wanted.session = session
        log.info("key manager session up peer=%s", session.peer)
        self.events.session_up(session.peer)

    def down(self, session: Session) -> None:
        self._arriving.discard(session)
        wanted = self._wanted.get(session.peer) if session.peer else None
        if wanted is not None and wanted.session is session:
            wanted.session = None
            log.warning("key manager session down peer=%s", session.peer)
            self.events.session_down(cast(NodeId, session.peer))
