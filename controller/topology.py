"""The network as a graph, made from what was read of the nodes and what is reserved by intents. Pure.

Two nodes are joined by one span however many physical links lie on it: virtual links name hops, not links. Reserved on a
span is what the virtual links crossing it and the applications drawing from it directly were promised.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise

from .model import (
    ApplicationIntent,
    LinkData,
    LinkId,
    LinkIntent,
    LinkStatus,
    LinkType,
    NodeId,
    NodeRecord,
    Qos,
)

_WORST_FIRST = (LinkStatus.OFF, LinkStatus.PENDING, LinkStatus.PASSIVE, LinkStatus.ACTIVE)

Pair = tuple[NodeId, NodeId]


def pair(a: NodeId, b: NodeId) -> Pair:
    """The key of a span: both ends, lower id first."""
    return (a, b) if a <= b else (b, a)


@dataclass(frozen=True, slots=True)
class LinkFacts:
    """One link as all nodes that have it say; `entries` by node, intermediate ones included, state where there is one.

    `ends` are its two ends, as far as anybody says, in the order of their ids; `fresh` are the nodes whose entry is of a
    live agent over a live session.
    """

    link: LinkId
    type: LinkType
    entries: Mapping[NodeId, LinkData]
    ends: tuple[NodeId, ...] = ()
    fresh: frozenset[NodeId] = frozenset()

    def said(self) -> list[LinkData]:
        """What the ends say that can be asked."""
        return [self.entries[end] for end in self.ends if end in self.fresh]

    @property
    def status(self) -> LinkStatus:
        """The worse of what the two ends say; an end that cannot be asked has no say, and nobody's word is PENDING."""
        said = [one.status for one in self.said() if one.status]
        return min(said, key=_WORST_FIRST.index) if said else LinkStatus.PENDING

    @property
    def overloaded(self) -> bool:
        """Whether either end says that more key is asked of it than it has."""
        return any(one.overloaded for one in self.said())

    def least(self, member: str) -> int:
        """The smaller of what the two ends say of a rate or an amount."""
        return min((int(getattr(one, member)) for one in self.said()), default=0)


@dataclass(frozen=True, slots=True)
class Site:
    """A node of the graph. Only a manageable one (session up, agent alive) can be given anything to do."""

    node: NodeId
    name: str
    manageable: bool = True
    relay: bool = True


@dataclass(frozen=True, slots=True)
class Span:
    """What joins two nodes. `links` are the physical links of it that are ACTIVE, `others` those that are not."""

    ends: Pair
    links: tuple[LinkId, ...] = ()
    others: tuple[LinkId, ...] = ()
    skr_bps: int = 0
    reserved_bps: int = 0
    usable_bits: int = 0

    @property
    def active(self) -> bool:
        return bool(self.links)

    @property
    def free_bps(self) -> int:
        return max(0, self.skr_bps - self.reserved_bps)


@dataclass(frozen=True, slots=True)
class Topology:
    sites: Mapping[NodeId, Site] = field(default_factory=dict)
    spans: Mapping[Pair, Span] = field(default_factory=dict)
    overloaded: frozenset[LinkId] = frozenset()  # as nodes say
    full: frozenset[LinkId] = frozenset()  # links that nothing more is to be put on

    def sparing(self, link: LinkIntent | None = None) -> "Topology":
        """The same without room on links that are overloaded, nor on this one and all that it crosses."""
        crossed = {pair(a, b) for route in link.routes for a, b in pairwise(route)} if link is not None else set()
        full = self.overloaded | ({link.link} if link is not None else set())
        spans = {
            ends: replace(span, reserved_bps=max(span.reserved_bps, span.skr_bps))
            if ends in crossed or full & set(span.links)
            else span
            for ends, span in self.spans.items()
        }
        return replace(self, spans=spans, full=full)

    def name(self, node: NodeId) -> str:
        return self.sites[node].name if node in self.sites else node

    def span(self, a: NodeId, b: NodeId) -> Span | None:
        return self.spans.get(pair(a, b))

    def carries_all(self, link: LinkIntent) -> bool:
        """Whether every hop of all routes of a link is ACTIVE."""
        return all(map(self.carries, link.routes))

    def carries(self, route: Iterable[NodeId]) -> bool:
        """Whether every hop of a route is ACTIVE."""
        return all((span := self.span(a, b)) is not None and span.active for a, b in pairwise(route))


def demand(qos: Qos, default_bps: int) -> int:
    """What is reserved for an application: its floor; without one a little, but never more than its ceiling."""
    if qos.min_bandwidth_bps:
        return qos.min_bandwidth_bps
    return min(default_bps, qos.max_bandwidth_bps or default_bps)


def link_facts(records: Iterable[NodeRecord]) -> dict[LinkId, LinkFacts]:
    """All links that any node is configured with, as it says they are."""
    entries: dict[LinkId, dict[NodeId, LinkData]] = {}
    fresh: dict[LinkId, set[NodeId]] = {}
    for record in records:
        if record.qkdn_id is None:
            continue
        state = record.state.links if record.state else {}
        for link, configured in (record.running.links if record.running else state).items():
            entries.setdefault(link, {})[record.qkdn_id] = state.get(link, configured)
            if record.connected and link in state:
                fresh.setdefault(link, set()).add(record.qkdn_id)
    return {
        link: LinkFacts(link, _type(nodes.values()), nodes, _ends(nodes.values()), frozenset(fresh.get(link, ())))
        for link, nodes in sorted(entries.items())
    }


def _ends(entries: Iterable[LinkData]) -> tuple[NodeId, ...]:
    return tuple(sorted({end for one in entries for end in (one.local_node, one.remote_node) if end is not None}))


def _type(entries: Iterable[LinkData]) -> LinkType:
    return next((one.type for one in entries if one.type), LinkType.PHYSICAL)


def build(
    records: Iterable[NodeRecord],
    links: Mapping[LinkId, LinkIntent],
    applications: Iterable[ApplicationIntent],
    application_bps: int,
    without: frozenset[LinkId] = frozenset(),
) -> Topology:
    """The graph of now. `without` are virtual links whose reservation does not count, as when they are to be rerouted."""
    records = list(records)
    facts = link_facts(records)
    reserved = _reserved(links, applications, application_bps, without)
    spans: dict[Pair, list[LinkFacts]] = {}
    for one in facts.values():
        if one.type is LinkType.PHYSICAL and len(one.ends) == 2:
            spans.setdefault(pair(*one.ends), []).append(one)
    return Topology(
        sites={one.qkdn_id: _site(one.qkdn_id, one) for one in records if one.qkdn_id is not None},
        spans={ends: _span(ends, on_it, reserved.get(ends, 0)) for ends, on_it in sorted(spans.items())},
        overloaded=frozenset(one.link for one in facts.values() if one.overloaded),
    )


def _site(node: NodeId, record: NodeRecord) -> Site:
    manageable = record.connected and record.state is not None
    return Site(node, record.name, manageable, record.running is not None and record.running.relay_mode)


def _span(ends: Pair, links: list[LinkFacts], reserved_bps: int) -> Span:
    statuses = {one.link: one.status for one in links}
    active = [one for one in links if statuses[one.link] is LinkStatus.ACTIVE]
    return Span(
        ends=ends,
        links=tuple(one.link for one in active),
        others=tuple(link for link, status in statuses.items() if status is not LinkStatus.ACTIVE),
        skr_bps=sum(one.least("skr_bps") for one in active),
        reserved_bps=reserved_bps,
        usable_bits=sum(one.least("usable_bits") for one in active),
    )


def _reserved(
    links: Mapping[LinkId, LinkIntent],
    applications: Iterable[ApplicationIntent],
    application_bps: int,
    without: frozenset[LinkId],
) -> dict[Pair, int]:
    reserved: dict[Pair, int] = {}
    for link in links.values():
        if link.type is LinkType.VIRTUAL and link.link not in without:
            for a, b in (hop for route in link.routes for hop in pairwise(route)):
                reserved[pair(a, b)] = reserved.get(pair(a, b), 0) + (link.bandwidth_bps or 0)
    for application in applications:
        backing = links.get(application.link) if application.link else None
        if backing is not None and backing.type is LinkType.PHYSICAL:
            ends = pair(application.source, application.destination)
            reserved[ends] = reserved.get(ends, 0) + demand(application.qos, application_bps)
    return reserved


def room(link: LinkIntent, applications: Iterable[ApplicationIntent], application_bps: int) -> int:
    """What a virtual link has left for another application, in bit/s."""
    used = sum(demand(one.qos, application_bps) for one in applications if one.link == link.link)
    return max(0, (link.bandwidth_bps or 0) - used)
