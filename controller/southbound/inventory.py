"""Keeps a session with every node of the configuration, and what was last read of it.

One task a node: connect (with jittered back-off), or wait for its call; subscribe, read everything, then read again at every
poll, whenever woken, and after every edit. A read is also the keep-alive. Who wants to know what happens gives a `Listener`.
"""

import asyncio
import logging
import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Protocol

from lxml import etree

from ..config import NodeConfig, Timeouts
from ..errors import BadReply, ControllerError, NodeRefused, NodeUnreachable
from ..model import NodeId, NodeRecord
from ..plan import NodeEdit, applied
from .dialing import connect
from .editing import build_config
from .missed import Heard
from .nodedata import FILTER, NODE, parse_node
from .notifications import Notification
from .session import NetconfSession
from .wire import Connection

log = logging.getLogger(__name__)

FIRST_DELAY, LONGEST_DELAY = 0.2, 10.0
SETTLE_SECONDS = 0.05  # one read answers all the notifications that come this close to each other
# After a notification the node is read again this much later each time: an agent notifies before its new state is in.
SECOND_LOOKS = (0.3, 1.0)
REPLAY_SECONDS = 5.0  # a node that takes longer to say what was missed has no more
NOT_CALLED = "it has not called yet"
AGENT_DOWN = "its agent does not run: there is no operational state"


class Listener(Protocol):
    """Called on the loop; must return at once."""

    def node_connected(self, name: str) -> None: ...

    def node_lost(self, name: str, problem: str) -> None: ...

    def node_read(self, name: str, before: NodeRecord, after: NodeRecord) -> None: ...

    def notified(self, name: str, notification: Notification) -> None: ...


class ManagedNode:
    """One node: its session and its record."""

    def __init__(self, config: NodeConfig, timeouts: Timeouts, listener: Listener, qkdn_id: NodeId | None) -> None:
        self.config, self._timeouts, self._listener = config, timeouts, listener
        where, problem = (None, NOT_CALLED) if config.calls else (config.netconf, "not yet connected")
        self.record = NodeRecord(config.name, where, qkdn_id, problem=problem)
        self.connection: Connection | None = None
        self._extra: Connection | None = None  # for the second session, where a connection carries only one
        self._calls: asyncio.Queue[Connection] = asyncio.Queue(1)
        self._session: NetconfSession | None = None
        self._ears: NetconfSession | None = None  # a second session where notifications cannot share one
        self._heard, self._replay = Heard(), None
        self._wake = asyncio.Event()
        self._soon: list[float] = []
        self._lost: ControllerError | None = None
        self._reading = asyncio.Lock()

    _replay: asyncio.TimerHandle | None

    async def run(self) -> None:
        """Keeps the node connected until cancelled."""
        delay = FIRST_DELAY
        try:
            while True:
                try:
                    await self._connect()
                    delay = FIRST_DELAY
                    await self._supervise()
                except ControllerError as error:
                    self._disconnected(str(error))
                await self._disconnect()
                if not self.config.calls:
                    await asyncio.sleep(delay * random.uniform(0.5, 1.0))
                    delay = min(delay * 2, LONGEST_DELAY)
        finally:
            await self._disconnect()

    def called(self, connection: Connection) -> None:
        """The node called, and was recognised. A session that is there is most likely dead: it gives way to the new one."""
        if not self._calls.empty():
            self._calls.get_nowait().abort()
        self._calls.put_nowait(connection)
        if self.connection is not None:
            log.info("node called again node=%s peer=%s", self.config.name, connection.peer.host)
            self._on_lost(NodeUnreachable(self.config.name, "it called again"))
            self.connection.abort()

    def call_failed(self, error: ControllerError) -> None:
        """The node called, was recognised, and no session came of it."""
        if self.connection is None:
            self._disconnected(str(error))

    async def _connect(self) -> None:
        self._lost = None
        self.connection = await (self._calls.get() if self.config.calls else connect(self.config, self._timeouts))
        self.record = replace(self.record, netconf=self.connection.peer)
        self._session = await self._open(self.connection)
        if ":notification" in self._session.capabilities:
            if ":interleave" not in self._session.capabilities:
                self._ears = await self._second()
            # First subscribe, then read: what happens in between is heard and read, rather than neither.
            if self._ears is not None or ":interleave" in self._session.capabilities:
                await self._subscribe(self._ears or self._session)
        await self.refresh()
        self.record = replace(self.record, connected=True)
        log.info("node connected node=%s qkdn_id=%s", self.config.name, self.record.qkdn_id)
        self._listener.node_connected(self.config.name)

    async def _subscribe(self, session: NetconfSession) -> None:
        """Also to what was said since this node was heard last, where it can replay."""
        since = self._heard.begin()
        try:
            await session.create_subscription(since, NODE)
        except NodeRefused:
            if since is None:
                raise
            self._heard.end()
            await session.create_subscription(namespace=NODE)
        if self._heard.replaying:
            self._replay = asyncio.get_running_loop().call_later(REPLAY_SECONDS, self._replayed)

    def _replayed(self) -> None:
        """By now at the latest."""
        if self._heard.replaying:
            self._tell(self._heard.end())

    async def _open(self, connection: Connection) -> NetconfSession:
        return await NetconfSession.open(
            self.config.name, connection, self._timeouts, self._on_notification, self._on_lost, connection.attempt
        )

    async def _second(self) -> NetconfSession | None:
        """Another session for notifications. None where the node must have called for it: then polls must do."""
        assert self.connection is not None
        if self.connection.shares:
            return await self._open(self.connection)
        if self.config.calls:
            log.warning("node without notifications node=%s: it has no interleave, and called over TLS", self.config.name)
            return None
        self._extra = await connect(self.config, self._timeouts)
        return await self._open(self._extra)

    async def _supervise(self) -> None:
        while True:
            delay = self._soon.pop(0) if self._soon else self._timeouts.poll * random.uniform(0.8, 1.0)
            with suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._wake.wait()
                    await asyncio.sleep(SETTLE_SECONDS)
            self._wake.clear()
            if self._lost is not None:
                raise self._lost
            await self.refresh()

    @property
    def subscribed(self) -> bool:
        """Whether notifications come."""
        session = self._session
        return session is not None and (self._ears is not None or ":interleave" in session.capabilities)

    def wake(self) -> None:
        """Have the node read soon."""
        self._wake.set()

    async def refresh(self) -> NodeRecord:
        """Reads configuration and state now. Raises when the node cannot be read; what was read before stays."""
        async with self._reading:
            session = self.ready_session()
            running, state = await asyncio.gather(session.get_config(FILTER), session.get(FILTER))
            configured, operational = parse_node(running), parse_node(state)
            if configured is None:
                raise BadReply(self.config.name, "it has no qkd_node configured")
            if self.record.qkdn_id not in (None, configured.node):
                log.warning(
                    "node changed its id node=%s from=%s to=%s", self.config.name, self.record.qkdn_id, configured.node
                )
            alive = operational is not None and operational.status is not None
            before = self.record
            self.record = replace(
                before,
                qkdn_id=configured.node,
                running=configured,
                state=operational if alive else None,
                problem=None if alive else AGENT_DOWN,
            )
        self._listener.node_read(self.config.name, before, self.record)
        return self.record

    async def edit(self, edit: NodeEdit) -> None:
        """Sends one edit to running. Raises NodeUnreachable, NodeTimedOut, NodeRefused, BadReply."""
        await self.ready_session().edit_config(build_config(edit))
        if self.record.running is not None:
            self.record = replace(self.record, running=applied(self.record.running, edit))
        self.wake()

    def ready_session(self) -> NetconfSession:
        """The session that is there. Raises why there is none."""
        if self._session is None or self._lost is not None:
            raise self._lost or NodeUnreachable(self.config.name, self.record.problem or "not connected")
        return self._session

    def _on_notification(self, event: etree._Element) -> None:
        log.debug("notification heard node=%s name=%s", self.config.name, event.tag)
        self._tell(self._heard.event(event))

    def _tell(self, notifications: Sequence[Notification]) -> None:
        for notification in notifications:
            self._listener.notified(self.config.name, notification)
            self._soon = list(SECOND_LOOKS)
            self.wake()

    def _on_lost(self, error: ControllerError) -> None:
        self._lost = self._lost or error
        self.wake()

    def _disconnected(self, problem: str) -> None:
        was, self.record = self.record.connected, replace(self.record, connected=False, problem=problem)
        if was:
            log.warning("node lost node=%s problem=%s", self.config.name, problem)
            self._listener.node_lost(self.config.name, problem)
        else:
            log.debug("node not reached node=%s problem=%s", self.config.name, problem)

    async def _disconnect(self) -> None:
        if self._replay is not None:
            self._replay.cancel()
        sessions, self._session, self._ears = [self._ears, self._session], None, None
        connections, self.connection, self._extra = [self._extra, self.connection], None, None
        for session in sessions:
            if session is not None:
                await session.close()
        for connection in connections:
            if connection is not None:
                connection.abort()


class Inventory:
    """All nodes, by the names of the configuration."""

    def __init__(
        self, nodes: Sequence[NodeConfig], timeouts: Timeouts, listener: Listener, known: dict[str, NodeId]
    ) -> None:
        self.nodes = {one.name: ManagedNode(one, timeouts, listener, known.get(one.name)) for one in nodes}
        self._tasks: list[asyncio.Task[None]] = []
        self._index: dict[NodeId | None, ManagedNode] = {}

    def start(self) -> None:
        self._tasks = [asyncio.create_task(one.run(), name=f"node {name}") for name, one in self.nodes.items()]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def records(self) -> list[NodeRecord]:
        return [one.record for one in self.nodes.values()]

    def by_id(self, node: NodeId) -> ManagedNode | None:
        """The node that said, now or when it was last reached, that this is its id."""
        found = self._index.get(node)
        if found is None or found.record.qkdn_id != node:
            self._index = {one.record.qkdn_id: one for one in self.nodes.values()}
            found = self._index.get(node)
        return found
