"""Who talks to whom, and over which link: the decisions about key streams. Pure.

A registration is one application's OPEN_CONNECT, told by its node. Two ends are found from the authorities of the URIs
(`qkd://NODE/name`), else from the other end's own registration.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from urllib.parse import urlsplit

from .disjoint import Routes, find_widest_routes, widest_bps
from .model import (
    Admission,
    ApplicationIntent,
    KeyStreamId,
    LinkId,
    LinkIntent,
    LinkType,
    NodeId,
    Qos,
)
from .paths import Blocked, Obstacle
from .topology import Topology, demand, room

UNSPECIFIED = Qos()
OFFERED_PERCENT = 95  # of what is free


@dataclass(frozen=True, slots=True)
class Registration:
    node: NodeId
    server: str
    clients: tuple[str, ...]
    qos: Qos = UNSPECIFIED
    ksid: KeyStreamId | None = None
    priority: int = 0
    disjoint_paths: int = 1

    @property
    def uris(self) -> frozenset[str]:
        return frozenset((self.server, *self.clients))


# Matching ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rejoin:
    """The stream exists and this application belongs to it."""

    ksid: KeyStreamId


@dataclass(frozen=True, slots=True)
class Join:
    """A new stream between two nodes; `source` is where the server application lives."""

    source: NodeId
    destination: NodeId


@dataclass(frozen=True, slots=True)
class Refuse:
    admission: Admission
    reason: str


class Wait(StrEnum):
    """The other application is still to be heard of."""

    FOR_PEER = "for-peer"


def authority(uri: str) -> NodeId | None:
    """The node that a URI names, as in `qkd://NODE/name`; whether there is such a node is another matter."""
    try:
        return NodeId(urlsplit(uri).netloc.lower()) or None
    except ValueError:
        return None


def match(
    new: Registration,
    waiting: Iterable[Registration],
    applications: Mapping[KeyStreamId, ApplicationIntent],
    nodes: Collection[NodeId],
) -> Rejoin | Join | Refuse | Wait:
    """What a registration is: the end of a known stream, the start of a new one, a third party, or one half of a pair.

    Without a KSID it is never a known stream: its node looks for the peer's before it registers.
    """
    known = applications.get(new.ksid) if new.ksid else None
    if known is not None:
        belongs = new.node in (known.source, known.destination) and _is_of(new, known)
        if belongs:
            return Rejoin(known.ksid)
        return Refuse(Admission.KSID_IN_USE, f"key stream {known.ksid} belongs to other applications")
    if len({authority(one) for one in new.clients} & set(nodes)) > 1:
        return Refuse(Admission.NO_CONNECTION, "its clients are at several nodes, and a key stream joins two")
    peer = _peer(new, waiting, nodes)
    if peer is None:
        return Wait.FOR_PEER
    if peer == new.node:
        return Refuse(Admission.NO_CONNECTION, "both applications are at the same node")
    return Join(peer, new.node) if authority(new.server) == peer else Join(new.node, peer)


def _is_of(new: Registration, known: ApplicationIntent) -> bool:
    """Whether these are the applications of a stream. Of clients that share its key each registers for itself."""
    return new.uris <= _uris(known) if known.qos.clients_shared_keys else new.uris == _uris(known)


def _uris(application: ApplicationIntent) -> frozenset[str]:
    return frozenset((application.server_app_id, *application.client_app_ids))


def _peer(new: Registration, waiting: Iterable[Registration], nodes: Collection[NodeId]) -> NodeId | None:
    homes = {home for uri in new.uris if (home := authority(uri)) in nodes and home is not None}
    if others := sorted(homes - {new.node}):
        return others[0]
    if len(homes) == 1 and all(authority(uri) == new.node for uri in new.uris):
        return new.node
    for other in waiting:
        if other.node != new.node and other.ksid == new.ksid and other.uris == new.uris:
            return other.node
    return None


# Links for streams ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class UseLink:
    link: LinkId


@dataclass(frozen=True, slots=True)
class MakeLink:
    routes: Routes
    bandwidth_bps: int


def choose(
    topology: Topology,
    links: Mapping[LinkId, LinkIntent],
    applications: Collection[ApplicationIntent],
    ends: tuple[NodeId, NodeId],
    qos: Qos,
    application_bps: int,
    virtual_link_bps: int,
    disjoint_paths: int = 1,
) -> UseLink | MakeLink | Blocked:
    """The link for a stream between two nodes: the direct one, else a virtual one with room, else a new virtual one.

    A new virtual link is made as wide as `virtual_link_bps` where the network has that to spare, for others to share it.
    Who asks for node-disjoint paths gets a virtual link over as many or more, and nothing else. Links that are overloaded
    count as full while there is another way. Where there is none, what they promised decides: nodes hold the minima, and one
    greedy application must not shut all others out.
    """
    needed = demand(qos, application_bps)
    wanted = (max(needed, virtual_link_bps), needed)
    spared = _choose(topology.sparing(), links, applications, ends, wanted, application_bps, disjoint_paths)
    if not isinstance(spared, Blocked) or not topology.overloaded:
        return spared
    return _choose(topology, links, applications, ends, wanted, application_bps, disjoint_paths)


def choose_another(
    topology: Topology,
    link: LinkIntent,
    links: Mapping[LinkId, LinkIntent],
    applications: Collection[ApplicationIntent],
    ends: tuple[NodeId, NodeId],
    qos: Qos,
    application_bps: int,
    disjoint_paths: int = 1,
) -> UseLink | MakeLink | Blocked:
    """A link for a stream that does not get what it was promised over this one: with nothing in common but the ends."""
    needed = demand(qos, application_bps)
    spared = topology.sparing(link)
    return _choose(spared, links, applications, ends, (needed, needed), application_bps, disjoint_paths)


def _choose(
    topology: Topology,
    links: Mapping[LinkId, LinkIntent],
    applications: Collection[ApplicationIntent],
    ends: tuple[NodeId, NodeId],
    rates_bps: tuple[int, int],
    application_bps: int,
    disjoint_paths: int,
) -> UseLink | MakeLink | Blocked:
    """`rates_bps`: what a new virtual link is to have, and what it must have."""
    needed = rates_bps[1]
    span = topology.span(*ends)
    direct = [one for one in span.links if one in links] if span and disjoint_paths == 1 else []
    if span and direct and span.free_bps >= needed:
        return UseLink(min(direct))
    rooms = {
        link.link: room(link, applications, application_bps)
        for link in sorted(links.values(), key=lambda one: (len(one.routes), one.link))
        if _joins(link, ends, disjoint_paths) and topology.carries_all(link) and link.link not in topology.full
    }
    for each, free_bps in rooms.items():
        if free_bps >= needed:
            return UseLink(each)
    found = find_widest_routes(topology, *ends, rates_bps, disjoint_paths)
    if isinstance(found, Blocked):
        return replace(found, best_bps=max(widest_bps(topology, *ends, disjoint_paths), *rooms.values(), 0))
    return MakeLink(*found)


def _joins(link: LinkIntent, ends: tuple[NodeId, NodeId], disjoint_paths: int) -> bool:
    virtual = link.type is LinkType.VIRTUAL and len(link.routes) >= disjoint_paths
    return virtual and {link.source, link.destination} == set(ends)


def admission_of(blocked: Blocked) -> Admission:
    """What an application is told when there is no route for it: to ask for less, where there is less to be had."""
    return Admission.QOS_NOT_MET if blocked.obstacle is Obstacle.NO_RATE and blocked.best_bps else Admission.NO_CONNECTION


def counter_proposal(qos: Qos, best_bps: int) -> Qos:
    """The nearest quality of service that could be had. A little less than is free: measured rates waver."""
    rate = max(1, best_bps * OFFERED_PERCENT // 100)
    if qos.min_bandwidth_bps:
        return replace(qos, min_bandwidth_bps=rate)
    return replace(qos, max_bandwidth_bps=rate)
