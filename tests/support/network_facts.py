"""Small networks as values: what the controller would have read of them."""

import uuid
from collections.abc import Iterable

from qswitch.controller.model import (
    ApplicationIntent,
    Endpoint,
    InterfaceData,
    InterfaceId,
    KeyStreamId,
    LinkData,
    LinkId,
    LinkIntent,
    LinkStatus,
    LinkType,
    NodeData,
    NodeId,
    NodeRecord,
    NodeStatus,
    Purpose,
    Qos,
    ServiceAddress,
)
from qswitch.controller.topology import Pair, Site, Span, Topology, pair


def node(number: int) -> NodeId:
    """Node ids in the order of their numbers."""
    return NodeId(str(uuid.UUID(int=number)))


def link(number: int) -> LinkId:
    return LinkId(str(uuid.UUID(int=0xFFFF_0000 + number)))


def ksid(number: int) -> KeyStreamId:
    return KeyStreamId(str(uuid.UUID(int=0xEEEE_0000 + number)))


def uri(home: int, name: str) -> str:
    return f"qkd://{node(home)}/{name}"


def graph(*spans: tuple[int, int, int], down: Iterable[tuple[int, int]] = (), away: Iterable[int] = ()) -> Topology:
    """A topology of (node, node, free rate); `down` spans are not ACTIVE, `away` nodes cannot be managed."""
    numbers = sorted({one for a, b, _ in spans for one in (a, b)} | set(away))
    sites = {node(one): Site(node(one), f"N{one}", one not in away) for one in numbers}
    dead = {pair(node(a), node(b)) for a, b in down}
    made: dict[Pair, Span] = {}
    for index, (a, b, rate) in enumerate(spans):
        ends = pair(node(a), node(b))
        ids = (link(index),)
        made[ends] = Span(ends, others=ids) if ends in dead else Span(ends, links=ids, skr_bps=rate)
    return Topology(sites, made)


def physical(number: int, a: int, b: int) -> LinkIntent:
    return LinkIntent(
        link=link(number),
        type=LinkType.PHYSICAL,
        route=(node(a), node(b)),
        purpose=Purpose.FIBRE,
        interfaces=(InterfaceId(1), InterfaceId(2)),
        attenuation_db=8.72,
        wavelength="1550",
    )


def virtual(number: int, *route: int, bandwidth: int = 10_000, purpose: Purpose = Purpose.APPLICATIONS) -> LinkIntent:
    return LinkIntent(link(number), LinkType.VIRTUAL, tuple(map(node, route)), purpose, bandwidth_bps=bandwidth)


def stream(number: int, a: int, b: int, over: int | None, qos: Qos | None = None) -> ApplicationIntent:
    names = uri(a, "app"), (uri(b, "app"),)
    return ApplicationIntent(ksid(number), *names, node(a), node(b), None if over is None else link(over), qos or Qos())


def record(number: int, links: Iterable[LinkData] = (), connected: bool = True, alive: bool = True) -> NodeRecord:
    """A node as read, its configuration and its state the same."""
    data = NodeData(
        node=node(number),
        status=NodeStatus.OPERATING,
        lkms=ServiceAddress("127.0.0.1", 4000 + number),
        interfaces={InterfaceId(one): InterfaceData(InterfaceId(one)) for one in (1, 2, 3)},
        links={one.link: one for one in links},
    )
    return NodeRecord(
        f"N{number}", Endpoint("127.0.0.1", 830), node(number), connected, running=data, state=data if alive else None
    )


def end(number: int, here: int, there: int, status: LinkStatus = LinkStatus.ACTIVE, skr: int = 1000) -> LinkData:
    """One end of a physical link."""
    return LinkData(
        link(number), LinkType.PHYSICAL, status=status, local_node=node(here), remote_node=node(there), skr_bps=skr
    )
