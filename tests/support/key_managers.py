"""Key managers of several nodes in one process, on loopback, with a throw-away authority."""

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from qswitch.agent.config import LkmsConfig, TlsFiles
from qswitch.agent.lkms.contents import ledger
from qswitch.agent.lkms.keys import Key
from qswitch.agent.lkms.manager import DeliveryConfig, KeyManager, StreamConfig
from qswitch.agent.model import Endpoint, KeyStreamId, LinkConfig, LinkId, LinkType, NodeId
from qswitch.integration.identities import Authority


def node_id(name: str) -> NodeId:
    return NodeId(f"{name * 8}-{name * 4}-4{name * 3}-8{name * 3}-{name * 12}")


def link_id(number: int) -> LinkId:
    return LinkId(f"00000000-0000-4000-8000-{number:012d}")


def material(link: LinkId, number: int, size: int = 4096) -> Key:
    """What the devices of a link deliver as a block, the same at both ends."""
    return Key(hashlib.shake_256(f"{link} {number}".encode()).digest(size))


@dataclass
class Watcher:
    alarms: list[str] = field(default_factory=list)
    links: list[LinkId | None] = field(default_factory=list)  # of the alarms
    changes: int = 0

    def link_levels_changed(self, link: LinkId) -> None:
        self.changes += 1

    def alarm(self, link: LinkId | None, message: str) -> None:
        self.alarms.append(message)
        self.links.append(link)


@dataclass
class Node:
    name: str
    config: LkmsConfig
    seen: Watcher = field(default_factory=Watcher)
    keys: KeyManager = field(init=False)
    links: dict[LinkId, LinkConfig] = field(default_factory=dict)
    streams: dict[KeyStreamId, StreamConfig] = field(default_factory=dict)
    deliveries: dict[KeyStreamId, DeliveryConfig] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.id = node_id(self.name)
        self.keys = KeyManager(self.id, self.config, self.seen)

    async def configure_link(self, config: LinkConfig) -> None:
        self.links[config.link] = config
        await self.keys.configure_link(config)

    async def configure_stream(self, config: StreamConfig) -> None:
        self.streams[config.ksid] = config
        await self.keys.configure_stream(config)

    async def configure_delivery(self, config: DeliveryConfig) -> None:
        self.deliveries[config.ksid] = config
        await self.keys.configure_delivery(config)

    async def crash(self) -> None:
        """Ends without a word and without writing anything more, as a process that is killed does."""
        manager, store = self.keys, self.keys._store
        store._batch.statements.clear()
        store._batch.callbacks.clear()
        store._gave_up, store._failed = True, lambda _problem: None  # from here on nothing is written, and nothing leaves
        for one in (*manager._streams.values(), *manager._deliveries.values()):
            one.ahead.clear()
            one.ahead.told = 0  # so that nothing is put back
        await manager.stop()

    async def restart(self) -> None:
        """Comes back as a node does: with its configuration, and with what its store has."""
        self.keys = KeyManager(self.id, self.config, self.seen)
        await self.keys.start()
        for link in self.links.values():
            await self.keys.configure_link(link)
        for stream in self.streams.values():
            await self.keys.configure_stream(stream)
        for delivery in self.deliveries.values():
            await self.keys.configure_delivery(delivery)

    @property
    def endpoint(self) -> Endpoint:
        return self.config.listen


@dataclass
class Net:
    folder: Path
    authority: Authority
    port: Callable[[], int]
    nodes: dict[str, Node] = field(default_factory=dict)
    numbers: dict[LinkId, int] = field(default_factory=dict)

    async def node(self, name: str, **options: object) -> Node:
        one = Node(name, self.config(name, **options))
        self.nodes[name] = one
        await one.keys.start()
        return one

    def config(self, name: str, **options: object) -> LkmsConfig:
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        certificate, key = self.authority.issue(folder, "lkms", name, (f"urn:uuid:{node_id(name)}",), local=False)
        self.authority.write(folder / "ca.pem")
        tls = TlsFiles(certificate, key, folder / "ca.pem")
        listen = Endpoint("127.0.0.1", self.port())
        settings: dict[str, object] = {"doubt_seconds": 3.0, "ledger": True, **options}
        return LkmsConfig(listen, tls, folder / "keys.sqlite", folder / "master.key", **settings)  # type: ignore[arg-type]

    async def fibre(self, number: int, one: str, other: str) -> LinkId:
        """A physical link between two nodes; `feed` is its pair of devices."""
        link = link_id(number)
        for here, there in ((one, other), (other, one)):
            await self.nodes[here].configure_link(self.physical(link, here, there))
        return link

    def physical(self, link: LinkId, here: str, there: str) -> LinkConfig:
        return LinkConfig(
            link,
            LinkType.PHYSICAL,
            local_node=node_id(here),
            remote_node=node_id(there),
            remote_lkms=self.nodes[there].endpoint,
        )

    async def feed(self, link: LinkId, one: str, other: str, count: int) -> None:
        first = self.numbers.get(link, 0)
        self.numbers[link] = first + count
        for number in range(first, first + count):
            for name in (one, other):
                await self.nodes[name].keys.deliver(link, number, material(link, number))

    async def route(
        self, number: int, *names: str, bandwidth_bps: int | None = None, component_of: LinkId | None = None
    ) -> LinkId:
        """A virtual link along nodes, configured as a controller does: intermediates, source, destination."""
        link = link_id(number)
        for at in [*range(1, len(names) - 1), 0, len(names) - 1]:
            here, ends = names[at], at in (0, len(names) - 1)
            far = names[-1] if at == 0 else names[0]
            config = LinkConfig(
                link,
                LinkType.VIRTUAL,
                local_node=node_id(here if ends else names[0]),
                remote_node=node_id(far if ends else names[-1]),
                previous_hop=node_id(names[at - 1]) if at else None,
                next_hops=(node_id(names[at + 1]),) if at < len(names) - 1 else (),
                bandwidth_bps=bandwidth_bps,
                remote_lkms=self.nodes[far].endpoint if ends else None,
                component_of=component_of,
            )
            await self.nodes[here].configure_link(config)
        return link

    async def paths(self, number: int, *routes: str, bandwidth_bps: int | None = None) -> LinkId:
        """A virtual link over several routes, each a string of nodes; its components have the numbers that follow."""
        link, ends = link_id(number), (routes[0][0], routes[0][-1])
        components = tuple(link_id(number + at) for at in range(1, len(routes) + 1))
        for at, route in enumerate(routes, 1):
            await self.route(number + at, *route, bandwidth_bps=bandwidth_bps, component_of=link)
        for here, far in (ends, ends[::-1]):
            config = LinkConfig(
                link,
                LinkType.VIRTUAL,
                local_node=node_id(here),
                remote_node=node_id(far),
                bandwidth_bps=bandwidth_bps,
                remote_lkms=self.nodes[far].endpoint,
                components=components,
            )
            await self.nodes[here].configure_link(config)
        return link


def audit(net: Net, *links: LinkId) -> None:
    """No octet of a link goes to two consumers, at one end or at both."""
    for link in links:
        consumers: dict[tuple[int, int], str] = {}
        for node in net.nodes.values():
            once: set[tuple[int, int]] = set()
            for row in ledger(node.config.store):
                if row.link == link:
                    octets = {(row.block, octet) for octet in range(row.offset, row.offset + row.length)}
                    assert not once & octets
                    once |= octets
                    if row.kind != "burnt":
                        assert all(consumers.setdefault(octet, row.consumer) == row.consumer for octet in octets)


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Waits for what no event tells of; fails when it does not come."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)
