"""Three nodes in a row that serve ETSI 004, in a thread of their own: real key managers, tables and TLS servers.

What has no part in 004 is a few lines here: fibres are fed at once, and a controller answers registrations at once, for each
pair of applications as the test has said.
"""

import asyncio
import threading
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import uvloop
from etsi004_callers import CALLERS, Answer, Caller, Identity, Qos
from key_managers import Net, Node, link_id, node_id

from qswitch.agent.applications import ApplicationTable
from qswitch.agent.config import ServiceConfig, TlsFiles
from qswitch.agent.model import (
    Admission,
    ApplicationConfig,
    ApplicationDisconnected,
    ApplicationNew,
    ApplicationStatus,
    Configuration,
    Endpoint,
    KeyStreamId,
    LinkId,
    NodeId,
    Notification,
)
from qswitch.agent.service.etsi004 import Etsi004Server
from qswitch.agent.stream_rules import Phase
from qswitch.agent.tasks import Tasks
from qswitch.controller.assignment import UNSPECIFIED, counter_proposal
from qswitch.integration.configure import free_ports
from qswitch.integration.identities import Authority

AB, BC, AC = link_id(1), link_id(2), link_id(9)
"""Two fibres, and a virtual link over the node in the middle."""
FREE_BPS = 20_000
"""What the network has for a pair that is refused for want of rate."""
BLOCKS = 200
REFRESH_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Plan:
    """What the controller makes of a pair of applications."""

    nodes: dict[str, NodeId]  # where each lives
    link: LinkId
    admission: Admission = Admission.ADMITTED
    server: str = ""


@dataclass
class Server:
    """A node: what an agent is, but for NETCONF and devices."""

    node: Node
    table: ApplicationTable
    service: Etsi004Server
    entries: dict[KeyStreamId, ApplicationConfig] = field(default_factory=dict)
    said: list[Notification] = field(default_factory=list)

    def apply(self) -> None:
        self.table.apply(Configuration(self.node.id, applications=dict(self.entries)))


class Network:
    """`a` – `b` – `c`. Calls from the test's thread; `wait` runs something where the nodes run."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._authority = folder, Authority("tests")
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="nodes")
        self.pool = ThreadPoolExecutor(16)
        self.servers: dict[str, Server] = {}
        self.plans: dict[frozenset[str], Plan] = {}
        self.failures: list[BaseException] = []
        self._refreshed = "abc"
        self._tasks = Tasks(self.failures.append)
        self._numbers, self._links = count(1), count(100)
        ports = iter(free_ports(8))
        self.net = Net(folder, self._authority, lambda: next(ports))

    def start(self) -> None:
        self._authority.write(self._folder / "ca.pem")
        self._authority.issue(self._folder, "node", "node", (), local=True)
        self._thread.start()
        self.wait(self._start())

    def stop(self) -> None:
        self.wait(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
        self.pool.shutdown()

    def wait[T](self, work: Coroutine[Any, Any, T], seconds: float = 20) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(seconds)

    async def _start(self) -> None:
        for name in "abc":
            await self._serve(name, await self.net.node(name))
        for number, (one, other) in enumerate(("ab", "bc"), 1):
            await self.net.feed(await self.net.fibre(number, one, other), one, other, BLOCKS)
            self._tasks.spawn(self._feed(link_id(number), one, other), "fibre")
        await self.net.route(9, "a", "b", "c")
        self._tasks.spawn(self._refresh(), "refresh")

    async def _serve(self, name: str, node: Node) -> None:
        tls = TlsFiles(self._folder / "node.pem", self._folder / "node.key", self._folder / "ca.pem")
        table = ApplicationTable(node.keys, self._tasks, partial(self._told, name), lambda: None)
        server = self.servers[name] = Server(node, table, Etsi004Server(ServiceConfig(Endpoint("127.0.0.1", 0), tls), table))
        server.apply()
        await server.service.start()

    async def _feed(self, link: LinkId, one: str, other: str) -> None:
        while True:
            if self.net.nodes[one].keys.levels(link).usable_bits < 8 * 4096 * BLOCKS // 2:
                await self.net.feed(link, one, other, 20)
            await asyncio.sleep(0.1)

    async def _refresh(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            for name in self._refreshed:
                self.servers[name].table.refresh()

    async def _stop(self) -> None:
        for server in self.servers.values():
            await server.service.stop()
        await self._tasks.cancel()
        for server in self.servers.values():
            await server.node.keys.stop()

    # The controller ------------------------------------------------------------------------------------------------------

    def _told(self, name: str, notification: Notification) -> None:
        self.servers[name].said.append(notification)
        if isinstance(notification, ApplicationNew):
            self._loop.call_soon(self._admit, name, notification)

    def _admit(self, name: str, new: ApplicationNew) -> None:
        uris = frozenset((new.server_app_id, *new.client_app_ids))
        plan, ksid = self.plans.get(uris), new.ksid or KeyStreamId(str(uuid.uuid4()))
        known = next((one.entries[ksid] for one in self.servers.values() if ksid in one.entries), None)
        admission = plan.admission if plan else Admission.NO_CONNECTION
        if known is not None and frozenset((known.server_app_id, *known.client_app_ids)) != uris:
            admission = Admission.KSID_IN_USE
        if admission is not Admission.ADMITTED or plan is None:
            told = counter_proposal(new.qos, FREE_BPS) if admission is Admission.QOS_NOT_MET else UNSPECIFIED
            self._enter(name, ApplicationConfig(ksid, server_app_id=new.server_app_id, client_app_ids=new.client_app_ids,
                                                qos=told, admission=admission))  # fmt: skip
            return
        if known is not None and ksid in self.servers[name].entries:  # it is over there: it begins anew, as ours has it
            for server in self.servers.values():
                server.entries.pop(ksid, None)
                server.apply()
        for here, server in self.servers.items():
            if server.node.id in plan.nodes.values():
                self._enter(here, self._entry(server, ksid, new, plan))

    @staticmethod
    def _entry(server: Server, ksid: KeyStreamId, new: ApplicationNew, plan: Plan) -> ApplicationConfig:
        return ApplicationConfig(
            ksid,
            server_app_id=new.server_app_id,
            client_app_ids=new.client_app_ids,
            priority=new.priority,
            qos=new.qos,
            backing_links=(plan.link,),
            local_node=server.node.id,
            remote_node=next(one for one in plan.nodes.values() if one != server.node.id),
        )

    def _enter(self, name: str, entry: ApplicationConfig) -> None:
        self.servers[name].entries[entry.ksid] = entry
        self.servers[name].apply()

    def change(self, ksid: str, **values: Any) -> None:
        """The controller changes the entry of a stream at all its nodes."""
        self._loop.call_soon_threadsafe(self._change, KeyStreamId(ksid), values)

    def _change(self, ksid: KeyStreamId, values: dict[str, Any]) -> None:
        for name, server in self.servers.items():
            if ksid in server.entries:
                self._enter(name, replace(server.entries[ksid], **values))

    # Applications --------------------------------------------------------------------------------------------------------

    def identity(self, node: str, name: str) -> Identity:
        """A new application at a node."""
        uri = f"qkd://{node_id(node)}/{name}-{next(self._numbers)}"
        certificate, key = self._authority.issue(self._folder, uri.rsplit("/", 1)[1], name, (uri,), local=False)
        return Identity(uri, certificate, key, self._folder / "ca.pem", self.servers[node].service.endpoint.port)

    def dry_link(self) -> LinkId:
        """Another fibre from `a` to `b`, without key."""
        return self.wait(self.net.fibre(next(self._links), "a", "b"))

    def feed(self, link: LinkId, count: int = 4) -> None:
        self.wait(self.net.feed(link, "a", "b", count))

    def later(self, call: Callable[..., Answer], *arguments: Any) -> "Future[Answer]":
        """A call that may wait."""
        return self.pool.submit(call, *arguments)

    def on(self, node: str, ksid: str) -> bool:
        """Whether an application is connected to this stream there."""
        state = self.servers[node].table.states().get(KeyStreamId(ksid))
        return state is not None and state.status is ApplicationStatus.ON

    @contextmanager
    def only_refreshing(self, nodes: str) -> Iterator[None]:
        """The other nodes do not see that something is over."""
        self._refreshed = nodes
        try:
            yield
        finally:
            self._refreshed = "abc"

    def peer_seen(self, node: str, ksid: str) -> bool:
        """Whether a node has seen both applications."""
        return self.servers[node].table._streams[KeyStreamId(ksid)].peer_seen

    def over(self, node: str, ksid: str) -> bool:
        """Whether a node knows that both applications have closed."""
        return self.servers[node].table._streams[KeyStreamId(ksid)].phase is Phase.FINISHED

    def consumed(self, node: str, ksid: str) -> int:
        return self.servers[node].node.keys.consumed_bits(KeyStreamId(ksid))

    def stored(self, node: str, ksid: str) -> int:
        """Chunks that the node has of a stream."""
        stream = self.servers[node].node.keys._streams.get(KeyStreamId(ksid))
        return len(stream.chunks) if stream is not None else 0

    def peer_attached(self, node: str, ksid: str) -> bool:
        return self.servers[node].node.keys.peer_attached(KeyStreamId(ksid))

    def waits(self, node: str, ksid: str) -> bool:
        """Whether a call waits for key, or for the peer."""
        return KeyStreamId(ksid) in self.servers[node].node.keys._waiters

    def registrations(self, node: str, uri: str) -> int:
        said = self.servers[node].said
        return sum(isinstance(one, ApplicationNew) and one.server_app_id == uri for one in said)

    def departures(self, node: str, ksid: str) -> int:
        return sum(one == ApplicationDisconnected(KeyStreamId(ksid)) for one in self.servers[node].said)


class Pair:
    """Two applications that the controller joins: the first at `a`, the second at the far node."""

    def __init__(self, network: Network, kinds: str, far: str, link: LinkId, admission: Admission) -> None:
        self.network, self.far = network, far
        one, other = network.identity("a", "alice"), network.identity(far, "bob")
        self.uris = one.uri, other.uri
        nodes = {one.uri: node_id("a"), other.uri: node_id(far)}
        network.plans[frozenset(self.uris)] = Plan(nodes, link, admission)
        self.a: Caller = CALLERS[kinds[0]](one)
        self.b: Caller = CALLERS[kinds[-1]](other)

    def opened(self, qos: Qos | None = None) -> str:
        """Both are connected (clause 6.2.2, case 1); the KSID."""
        first = self.a.open(*self.uris, qos or Qos())
        assert first.status == self.a.absent and first.ksid
        assert self.b.open(*self.uris, ksid=first.ksid).status == 0
        return first.ksid

    def leave(self) -> None:
        self.a.leave()
        self.b.leave()


Pairs = Callable[..., Pair]
"""Of the fixture `pairs`."""


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """For what no event tells of."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        with suppress(TimeoutError):
            threading.Event().wait(0.01)
