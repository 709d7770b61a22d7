"""A network of nodes in memory, for stories about the controller's workflows: fibres are cut, nodes vanish, streams open.

Only the southbound is replaced: below `edit` and `refresh`, a node does at once what its agent would do in a while.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from network_facts import node, uri

from qswitch.controller.assignment import Registration
from qswitch.controller.config import ControllerConfig, FibreConfig, NodeConfig, Port, Timeouts
from qswitch.controller.errors import NodeRefused, NodeUnreachable
from qswitch.controller.model import (
    ApplicationStatus,
    Endpoint,
    Event,
    InterfaceData,
    InterfaceId,
    KeyStreamId,
    LinkData,
    LinkId,
    LinkStatus,
    LinkType,
    NodeData,
    NodeId,
    NodeRecord,
    NodeStatus,
    Qos,
    ServiceAddress,
)
from qswitch.controller.plan import NodeEdit, applied
from qswitch.controller.service import Service
from qswitch.controller.southbound.inventory import Inventory, Listener, ManagedNode
from qswitch.controller.southbound.notifications import ApplicationDisconnected, ApplicationNew
from qswitch.controller.store.sqlite import SqliteStore

RATE = 100_000


class World:
    """What is so, whatever the controller thinks: configurations outlive it."""

    def __init__(self, *spans: tuple[int, int]) -> None:
        self.spans = spans
        self.numbers = sorted({one for span in spans for one in span})
        self.running = {node(one): self._blank(one) for one in self.numbers}
        self.cut: set[frozenset[NodeId]] = set()
        self.overloaded: set[LinkId] = set()
        self.away: set[NodeId] = set()
        self.refusing: set[NodeId] = set()
        self.open: dict[tuple[NodeId, KeyStreamId], bool] = {}
        self.edits: list[tuple[NodeId, NodeEdit]] = []

    def _blank(self, number: int) -> NodeData:
        ids = [InterfaceId(one) for one in range(1, 1 + sum(number in span for span in self.spans))]
        return NodeData(
            node(number),
            NodeStatus.OPERATING,
            lkms=ServiceAddress("127.0.0.1", 4000 + number),
            interfaces={one: InterfaceData(one) for one in ids},
        )

    def state(self, here: NodeId) -> NodeData:
        data = self.running[here]
        links = {one.link: self._link(here, one) for one in data.links.values()}
        apps = {one.ksid: replace(one, status=self._status(here, one.ksid)) for one in data.applications.values()}
        return replace(data, links=links, applications=apps)

    def _status(self, here: NodeId, ksid: KeyStreamId) -> ApplicationStatus:
        return ApplicationStatus.ON if self.open.get((here, ksid)) else ApplicationStatus.DISCONNECTED

    def _link(self, here: NodeId, one: LinkData) -> LinkData:
        if one.type is LinkType.VIRTUAL:
            return replace(one, status=LinkStatus.ACTIVE, overloaded=one.link in self.overloaded)
        there = one.remote_node
        both = there is not None and one.link in self.running[there].links
        light = both and frozenset((here, there)) not in self.cut
        status = LinkStatus.ACTIVE if light else LinkStatus.PASSIVE if both else LinkStatus.PENDING
        skr, overloaded = RATE if light else 0, one.link in self.overloaded
        return replace(one, status=status, skr_bps=skr, overloaded=overloaded)

    def config(self, folder: Path) -> ControllerConfig:
        used = dict.fromkeys(self.numbers, 0)
        fibres = []
        for a, b in self.spans:
            used[a] += 1
            used[b] += 1
            ends = Port(f"N{a}", InterfaceId(used[a])), Port(f"N{b}", InterfaceId(used[b]))
            fibres.append(FibreConfig(f"{a}-{b}", *ends, 3.0, "1550"))
        nowhere = Path("/nowhere")
        nodes = tuple(NodeConfig(f"N{one}", Endpoint("", 0), "", nowhere, "") for one in self.numbers)
        timeouts = Timeouts(idle_link=0.0)
        here = Endpoint("", 0)
        return ControllerConfig(folder, folder, here, nowhere, nowhere, nowhere, nodes, tuple(fibres), timeouts=timeouts)


class MemoryNode(ManagedNode):
    world: World

    async def run(self) -> None:
        """Nothing to keep up."""

    @property
    def id(self) -> NodeId:
        return node(int(self.config.name.removeprefix("N")))

    def look(self) -> None:
        """What a read would find now, told as the inventory tells it."""
        before, gone = self.record, self.id in self.world.away
        if gone:
            self.record = replace(before, connected=False, problem="away")
        else:
            data = self.world.running[self.id]
            self.record = replace(
                before, qkdn_id=self.id, connected=True, problem=None, running=data, state=self.world.state(self.id)
            )
        if before.connected != self.record.connected:
            if gone:
                self._listener.node_lost(self.config.name, "away")
            else:
                self._listener.node_connected(self.config.name)
        self._listener.node_read(self.config.name, before, self.record)

    async def refresh(self) -> NodeRecord:
        self._reachable()
        self.look()
        return self.record

    async def edit(self, edit: NodeEdit) -> None:
        self._reachable()
        if self.id in self.world.refusing:
            raise NodeRefused(self.config.name, "operation-failed", "this node refuses everything")
        self.world.edits.append((self.id, edit))
        self.world.running[self.id] = applied(self.world.running[self.id], edit)
        self.record = replace(self.record, running=self.world.running[self.id])

    def _reachable(self) -> None:
        if self.id in self.world.away:
            raise NodeUnreachable(self.config.name, "away")


def inventory_of(world: World) -> type[Inventory]:
    class MemoryInventory(Inventory):
        def __init__(
            self, nodes: Sequence[NodeConfig], timeouts: Timeouts, listener: Listener, known: dict[str, NodeId]
        ) -> None:
            super().__init__([], timeouts, listener, known)
            for one in nodes:
                made = MemoryNode(one, timeouts, listener, known.get(one.name))
                made.world = world
                self.nodes[one.name] = made

        def look(self) -> None:
            for one in self.nodes.values():
                assert isinstance(one, MemoryNode)
                one.look()

        def start(self) -> None:
            pass

    return MemoryInventory


class Story:
    """A controller in this world; `seen` are the types of its events since last asked."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world, self.folder = world, folder
        self.service = self._controller()
        self._seen = 0

    def _controller(self) -> Service:
        store = SqliteStore(self.folder / "store.sqlite")
        return Service(self.world.config(self.folder), store, inventory_of(self.world))

    async def start(self) -> None:
        await self.service.start(work=False)
        await self.go()

    async def restart(self) -> None:
        await self.service.stop()
        self.service, self._seen = self._controller(), 0
        await self.start()

    async def go(self, times: int = 4) -> None:
        """Lets the controller read and act until nothing more comes of it."""
        for _ in range(times):
            self.service._inventory.look()  # type: ignore[attr-defined]
            await self.service.evaluate()

    async def events(self) -> list[Event]:
        found = [one async for one in self.service.events() if one.seq > self._seen]
        self._seen = max((one.seq for one in found), default=self._seen)
        return found

    async def seen(self) -> set[str]:
        return {one.type for one in await self.events()}

    def register(
        self,
        here: int,
        there: int,
        ksid: KeyStreamId | None = None,
        name: str = "app",
        qos: Qos | None = None,
        disjoint_paths: int = 1,
    ) -> Registration:
        """OPEN_CONNECT at a node, as its agent tells it."""
        mine, other = uri(here, name), uri(there, name)
        self.service.notified(f"N{here}", ApplicationNew(mine, (other,), qos or Qos(), ksid, disjoint_paths=disjoint_paths))
        return Registration(node(here), mine, (other,))

    def close(self, here: int, ksid: KeyStreamId) -> None:
        self.world.open[(node(here), ksid)] = False
        self.service.notified(f"N{here}", ApplicationDisconnected(ksid))

    def opened(self, ksid: KeyStreamId, *numbers: int) -> None:
        for one in numbers:
            self.world.open[(node(one), ksid)] = True

    async def route(self, ksid: KeyStreamId) -> list[int]:
        """The nodes a stream's key passes now."""
        numbers = {node(one): one for one in self.world.numbers}
        return [numbers[one] for one in (await self.service.app(ksid)).route]

    def has(self, number: int) -> tuple[set[LinkId], set[KeyStreamId]]:
        data = self.world.running[node(number)]
        return set(data.links), set(data.applications)

    def cut(self, a: int, b: int, cut: bool = True) -> None:
        ends = frozenset((node(a), node(b)))
        (self.world.cut.add if cut else self.world.cut.discard)(ends)
