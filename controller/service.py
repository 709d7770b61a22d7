"""The network as the controller's users see it, and the one worker behind it.

`Network` is the facade that the HTTP API translates. Nodes are named by name, id, or a unique beginning of an id; links and
applications by id or a unique beginning of it. `Service` is the real one: whatever happens, a notification, a lost node, a
tick, wakes its worker, which compares what is wanted with what is; one lock keeps any two changes from planning on the same
view.
"""

import asyncio
import logging
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import Protocol

from .applications import Applications
from .assignment import Registration
from .checks import NodeCheck
from .config import ControllerConfig
from .consumption import Consumption
from .control import Control
from .disjoint import find_routes
from .errors import Ambiguous, ControllerError, InvalidRequest, NoRoute, Unknown
from .events import EventLog
from .intents import Intents, Known
from .links import Links
from .model import (
    MAX_DISJOINT_PATHS,
    AppView,
    Event,
    HealthView,
    KeyStreamId,
    LinkId,
    LinkStatus,
    LinkType,
    LinkView,
    NodeId,
    NodeRecord,
    NodeView,
    PathView,
    TopologyView,
)
from .paths import Blocked
from .reconcile import Reconciler
from .southbound.calls import CallHome
from .southbound.check import Check
from .southbound.inventory import Inventory
from .southbound.notifications import (
    ApplicationDisconnected,
    ApplicationNew,
    ApplicationQosUpdate,
    Happening,
    InterfaceChanged,
    LinkChanged,
    Notification,
)
from .store.base import Store
from .views import Views, node_view, path_view

log = logging.getLogger(__name__)

TICK_SECONDS = 1.0
CHECKS_AT_ONCE = 8
FRESH_SECONDS = 1.0  # what was read this lately is not read again for a question about one thing


class Network(Protocol):
    """Every method may raise Unknown or Ambiguous for what it was asked about (`errors.py`)."""

    async def nodes(self) -> list[NodeView]: ...

    async def node(self, which: str) -> NodeView: ...

    async def check(self, which: str) -> NodeCheck:
        """Looks a node over, by a connection of its own where that can be. What is wrong is in the report, and no error."""
        ...

    async def links(self) -> list[LinkView]: ...

    async def link(self, which: str) -> LinkView: ...

    async def create_link(
        self,
        link_type: LinkType,
        source: str,
        destination: str,
        bandwidth_bps: int | None = None,
        link: str | None = None,
        disjoint_paths: int = 1,
    ) -> LinkView:
        """Makes a link between two nodes, with the id `link` if given, and returns it as the nodes accepted it. A virtual
        one may be relayed over several paths that share no node between the ends.

        Raises InvalidRequest, Conflict (the id is taken, no free pair of interfaces), NoRoute, TransactionFailed,
        NodeUnreachable. Nothing is left behind when it raises.
        """
        ...

    async def delete_link(self, which: str) -> None:
        """Takes a link away at all its nodes; those that cannot be reached now, when they can. Raises Conflict when
        applications use it."""
        ...

    async def apps(self) -> list[AppView]: ...

    async def app(self, which: str) -> AppView: ...

    async def share_app(self, which: str, clients: Sequence[str]) -> AppView:
        """Names the client applications that share a stream's key. Raises InvalidRequest, Conflict, TransactionFailed,
        NodeUnreachable; nothing is changed then."""
        ...

    async def path(self, source: str, destination: str, bandwidth_bps: int = 0, disjoint_paths: int = 1) -> PathView:
        """The route, or the node-disjoint routes, a virtual link would take now. Raises NoRoute with the reason."""
        ...

    async def topology(self) -> TopologyView: ...

    def events(self, follow: bool = False) -> AsyncIterator[Event]:
        """The events still remembered, oldest first; with `follow` also those to come, without an end."""
        ...

    async def health(self) -> HealthView: ...


class Service:
    """A `Network` of real nodes. Is also the inventory's listener."""

    def __init__(self, config: ControllerConfig, store: Store, inventory: type[Inventory] = Inventory) -> None:
        self._config, self._store, self._inventory_type = config, store, inventory
        self._intents = Intents(store)
        self._log = EventLog()
        self._consumption = Consumption()
        self._inbox: deque[tuple[str, Notification]] = deque()
        self._learned: set[str] = set()
        self._wake = asyncio.Event()
        self._lock = asyncio.Lock()
        self._started = time.monotonic()
        self._read_at: dict[str, float] = {}
        self._worker: asyncio.Task[None] | None = None
        self._calls: CallHome | None = None
        self._checks = asyncio.Semaphore(CHECKS_AT_ONCE)

    async def start(self, work: bool = True) -> None:
        """Reads the store, begins to connect and to be called, returns at once. Without `work` only `evaluate` acts.

        Raises StoreFailed, and ControllerError when nodes cannot call where they should.
        """
        await self._store.open()
        await self._intents.load()
        known = {name: one.qkdn_id for name, one in self._intents.known.items()}
        self._inventory = self._inventory_type(self._config.nodes, self._config.timeouts, self, known)
        self._control = Control(self._config, self._intents, self._inventory, self._log)
        self._links = Links(self._control)
        self._applications = Applications(self._control, self._links)
        self._reconciler = Reconciler(self._control)
        if self._config.call_home is not None:
            self._calls = CallHome(self._config.call_home, self._inventory.nodes, self._config.timeouts)
            self._calls.start()
        self._inventory.start()
        if work:
            self._worker = asyncio.create_task(self._work(), name="workflows")

    async def stop(self) -> None:
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
        if self._calls is not None:
            await self._calls.stop()
        await self._inventory.stop()
        await self._store.close()

    # What nodes say --------------------------------------------------------------------------------------------------

    def node_connected(self, name: str) -> None:
        self._log.add("node_connected", "", node=name)
        self._reconciler.mark(name)
        self._control.retries.clear()
        self._wake.set()

    def node_lost(self, name: str, problem: str) -> None:
        self._log.add("node_disconnected", problem, node=name)
        self._wake.set()

    def node_read(self, name: str, before: NodeRecord, after: NodeRecord) -> None:
        self._read_at[name] = time.monotonic()
        self._learned.add(name)
        self._consumption.read(after)
        if before.connected and (before.state is None) != (after.state is None):
            self._log.add("agent_down" if after.state is None else "agent_up", after.problem or "", node=name)
            self._reconciler.mark(name)
        if _gist(before) != _gist(after):
            self._wake.set()

    def notified(self, name: str, notification: Notification) -> None:
        self._inbox.append((name, notification))
        self._wake.set()

    # The worker ------------------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        while True:
            try:
                async with asyncio.timeout(TICK_SECONDS):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            began = time.monotonic()
            await self.evaluate()
            # In a big network an evaluation takes its time: half of it is left for everything else.
            await asyncio.sleep(min(time.monotonic() - began, TICK_SECONDS))

    async def evaluate(self) -> None:
        """Looks at everything once, and does what is to be done."""
        async with self._lock:
            await self._steps()

    async def _steps(self) -> None:
        """What fails in one step does not hold up the others."""
        await self._step(self._learn)
        await self._step(self._hear)
        await self._step(self._reconciler.run)
        if self._settled():
            await self._step(self._links.light_fibres)
            await self._step(self._look)
            await self._step(self._links.reroute_broken)
            await self._step(self._applications.move)
        await self._step(self._applications.admit)
        await self._step(self._applications.release)
        await self._step(self._applications.forget_refused)
        await self._step(self._links.drop_idle)

    async def _step(self, step: Callable[[], Awaitable[None]]) -> None:
        try:
            await step()
        except ControllerError as error:
            log.warning("step failed step=%s problem=%s", getattr(step, "__name__", step), error)
            self._log.add("controller_failed", str(error))
        except Exception:  # a defect in one workflow must not end the others; it shows in the log and the events
            log.exception("defect in step=%s", getattr(step, "__name__", step))

    def _settled(self) -> bool:
        """Whether the picture is whole: all nodes are there, or have had the time to come after a start."""
        everybody = all(one.connected for one in self._inventory.records)
        return everybody or time.monotonic() - self._started > self._config.timeouts.connect + TICK_SECONDS

    async def _look(self) -> None:
        self._links.watch()

    async def _learn(self) -> None:
        """Remembers ids and key managers' addresses of nodes, for when they cannot be asked."""
        while self._learned:
            name = self._learned.pop()
            record = self._inventory.nodes[name].record
            if record.qkdn_id is None:
                continue
            before = self._intents.known.get(name)
            address = (record.state.lkms if record.state else None) or (before.lkms if before else None)
            now = Known(record.qkdn_id, address)
            if before != now:
                await self._intents.remember(name, now)
                # Neighbours and far ends hold this address in their links.
                for one in self._inventory.nodes:
                    self._reconciler.mark(one)

    async def _hear(self) -> None:
        while self._inbox:
            name, notification = self._inbox.popleft()
            node = self._inventory.nodes[name].record.qkdn_id
            if node is not None:
                await self._heard(name, node, notification)

    async def _heard(self, name: str, node: NodeId, notification: Notification) -> None:
        match notification:
            case ApplicationNew():
                new = Registration(
                    node,
                    notification.server_app_id,
                    notification.client_app_ids,
                    notification.qos,
                    notification.ksid,
                    notification.priority,
                    notification.disjoint_paths,
                )
                self._applications.registered(new, notification.open_timeout_ms)
            case ApplicationDisconnected(ksid):
                await self._applications.disconnected(node, ksid)
            case ApplicationQosUpdate(ksid, qos, unmet_min_bps=int(promised)):
                await self._applications.qos_unmet(ksid, qos.min_bandwidth_bps or 0, promised)
            case ApplicationQosUpdate(ksid, qos, priority):
                await self._applications.qos_changed(ksid, qos, priority)
            case LinkChanged(link, "down", reason):
                self._links.reasons[link] = f"{name}: {reason}" if reason else name
            case LinkChanged(link, "overloaded", reason):
                self._log.add("link_overloaded", reason, node=name, link=link)
            case InterfaceChanged(interface, change, reason):
                self._log.add(f"interface_{change}", f"interface {interface} {reason}".strip(), node=name)
            case Happening(is_alarm=True):
                text = f"{notification.severity} {notification.message}".strip()
                self._log.add("alarm", text, node=name, link=notification.link, ksid=notification.ksid)

    # The facade ------------------------------------------------------------------------------------------------------

    def _views(self) -> Views:
        return Views(
            self._inventory.records,
            self._intents.links,
            self._intents.applications,
            self._control.topology(),
            self._consumption.totals(),
            self._links.problems,
        )

    async def nodes(self) -> list[NodeView]:
        return [node_view(one) for one in self._inventory.records]

    async def node(self, which: str) -> NodeView:
        record = self._record(which)
        await self._freshen([record.name])
        return node_view(self._inventory.nodes[record.name].record)

    async def check(self, which: str) -> NodeCheck:
        node = self._inventory.nodes[self._record(which).name]
        refusals = self._calls.refusals if self._calls else ()
        async with self._checks:
            return await Check(node, self._config.timeouts, self._lock, refusals).run()

    async def links(self) -> list[LinkView]:
        return self._views().links()

    async def link(self, which: str) -> LinkView:
        link = LinkId(_one("link", which, self._views().link_ids()))
        view = self._views().link(link)
        await self._freshen_nodes(dict.fromkeys((*view.route, *(node for one in view.paths for node in one.route))))
        return self._views().link(link)

    async def create_link(
        self,
        link_type: LinkType,
        source: str,
        destination: str,
        bandwidth_bps: int | None = None,
        link: str | None = None,
        disjoint_paths: int = 1,
    ) -> LinkView:
        ends = self._node_id(source), self._node_id(destination)
        wanted = _uuid("link", link) if link else None
        if bandwidth_bps is not None and not 0 <= bandwidth_bps < 2**32:
            raise InvalidRequest("bandwidth_bps", str(bandwidth_bps), "must be from 0 to 4294967295 bit/s")
        if not 1 <= disjoint_paths <= MAX_DISJOINT_PATHS:
            raise InvalidRequest("disjoint_paths", str(disjoint_paths), f"must be from 1 to {MAX_DISJOINT_PATHS}")
        async with self._lock:
            intent = await self._links.create(link_type, *ends, bandwidth_bps, wanted, disjoint_paths)
        return self._views().link(intent.link)

    async def delete_link(self, which: str) -> None:
        async with self._lock:
            await self._links.delete(LinkId(_one("link", which, self._views().link_ids())))
        self._wake.set()

    async def apps(self) -> list[AppView]:
        return self._views().apps()

    async def app(self, which: str) -> AppView:
        ksid = KeyStreamId(_one("application", which, self._views().app_ids()))
        view = self._views().app(ksid)
        await self._freshen_nodes([one.node for one in (view.source, view.destination) if one])
        return self._views().app(ksid)

    async def share_app(self, which: str, clients: Sequence[str]) -> AppView:
        ksid = KeyStreamId(_one("application", which, self._views().app_ids()))
        async with self._lock:
            await self._applications.share(ksid, clients)
        return self._views().app(ksid)

    async def path(self, source: str, destination: str, bandwidth_bps: int = 0, disjoint_paths: int = 1) -> PathView:
        ends = self._node_id(source), self._node_id(destination)
        topology = self._control.topology()
        routes = find_routes(topology, *ends, bandwidth_bps, disjoint_paths)
        if isinstance(routes, Blocked):
            raise NoRoute(topology.name(ends[0]), topology.name(ends[1]), routes.reason)
        first, *others = (path_view(topology, one) for one in routes)
        return replace(first, others=tuple(others))

    async def topology(self) -> TopologyView:
        views = self._views()
        return TopologyView(tuple(await self.nodes()), tuple(views.links()), tuple(views.apps()))

    def events(self, follow: bool = False) -> AsyncIterator[Event]:
        return self._log.read(follow)

    async def health(self) -> HealthView:
        records, links = self._inventory.records, self._views().links()
        connected = sum(one.connected for one in records)
        return HealthView(
            status="ok" if connected == len(records) else "degraded",
            version=_version(),
            nodes=len(records),
            connected=connected,
            links=len(links),
            active_links=sum(one.status is LinkStatus.ACTIVE for one in links),
            apps=len(self._intents.applications),
        )

    # Names -----------------------------------------------------------------------------------------------------------

    def _record(self, which: str) -> NodeRecord:
        records = {one.name: one for one in self._inventory.records}
        for name, record in records.items():
            if which == name or which.lower() == name.lower():
                return record
        ids = {one.qkdn_id: one for one in records.values() if one.qkdn_id}
        return ids[NodeId(_one("node", which, ids))]

    def _node_id(self, which: str) -> NodeId:
        record = self._record(which)
        if record.qkdn_id is None:
            raise NoRoute(record.name, record.name, "the node was never reached, its id is unknown")
        return record.qkdn_id

    async def _freshen_nodes(self, nodes: Iterable[NodeId]) -> None:
        await self._freshen([one.config.name for node in nodes if (one := self._inventory.by_id(node))])

    async def _freshen(self, names: Iterable[str]) -> None:
        """Reads nodes again whose last read is not of just now. One that cannot be read is shown as last read."""
        now = time.monotonic()
        old = [self._inventory.nodes[one] for one in names if now - self._read_at.get(one, 0) > FRESH_SECONDS]
        await asyncio.gather(*(one.refresh() for one in old if one.record.connected), return_exceptions=True)


def _gist(record: NodeRecord) -> object:
    """What of a node decides anything at once; levels and rates can wait for the next tick."""
    state = record.state
    links = {one.link: one.status for one in state.links.values()} if state else None
    applications = {one.ksid: one.status for one in state.applications.values()} if state else None
    return record.connected, links, applications, state and state.lkms, record.running


def _one(kind: str, which: str, ids: Iterable[str]) -> str:
    """The id that is meant by a whole id or the unique beginning of one."""
    wanted = which.lower()
    candidates = [one for one in ids if one.startswith(wanted)] if wanted else []
    if wanted in candidates:
        return wanted
    if not candidates:
        raise Unknown(kind, which)
    if len(candidates) > 1:
        raise Ambiguous(kind, which, sorted(candidates))
    return candidates[0]


def _uuid(field: str, text: str) -> LinkId:
    try:
        return LinkId(str(uuid.UUID(text)))
    except ValueError as error:
        raise InvalidRequest(field, text, "must be a UUID") from error


def _version() -> str:
    try:
        return version("quantum-switch")
    except PackageNotFoundError:
        return "unknown"
