"""Routes through the graph: (topology, request) to a route, or the reason why there is none. Pure.

A hop costs one, plus up to one for having little free rate, plus up to a quarter for having little key in store: of routes
of like length the one with most to spare is taken. Costs are whole numbers and ties go to the route whose ids come first in
order, so the same network gives the same answer every time.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

import networkx as nx

from .model import NodeId
from .topology import Span, Topology

HOP = 1_000_000
RATE_SCALE_BPS = 20_000  # a hop with this free rate pays half of what one with none pays
STOCK_SCALE_BITS = 1_000_000


class Obstacle(StrEnum):
    """What stands in the way of a route, the gravest first."""

    UNKNOWN_NODE = "unknown-node"
    NOT_MANAGED = "not-managed"
    NO_FIBRE = "no-fibre"
    LINKS_DOWN = "links-down"
    NO_RATE = "no-rate"


@dataclass(frozen=True, slots=True)
class Route:
    nodes: tuple[NodeId, ...]
    free_bps: int  # what is free on every hop

    @property
    def intermediates(self) -> tuple[NodeId, ...]:
        return self.nodes[1:-1]


@dataclass(frozen=True, slots=True)
class Blocked:
    obstacle: Obstacle
    reason: str
    best_bps: int = 0  # for want of rate: the most that could be had


def cost(span: Span) -> int:
    """What crossing a span costs."""
    scarce_rate = HOP * RATE_SCALE_BPS // (RATE_SCALE_BPS + span.free_bps)
    scarce_stock = HOP // 4 * STOCK_SCALE_BITS // (STOCK_SCALE_BITS + span.usable_bits)
    return HOP + scarce_rate + scarce_stock


def find_route(
    topology: Topology,
    source: NodeId,
    destination: NodeId,
    bandwidth_bps: int = 0,
    avoid: frozenset[NodeId] = frozenset(),
) -> Route | Blocked:
    """The cheapest route whose every hop is ACTIVE with enough free rate, through nodes that relay and can be managed."""
    for end in (source, destination):
        if end not in topology.sites:
            return Blocked(Obstacle.UNKNOWN_NODE, f"no node {end}")
        if not topology.sites[end].manageable:
            return Blocked(Obstacle.NOT_MANAGED, f"node {topology.name(end)} is not connected")
    if source == destination:
        return Blocked(Obstacle.NO_FIBRE, "both ends are the same node")
    graph = passable_graph(
        topology, {source, destination}, avoid, lambda span: span.active and span.free_bps >= bandwidth_bps
    )
    nodes = _cheapest(graph, source, destination)
    if nodes is None:
        return _why_not(topology, source, destination, bandwidth_bps, avoid)
    return Route(nodes, min(topology.spans[(min(hop), max(hop))].free_bps for hop in pairwise(nodes)))


def find_widest(
    topology: Topology, source: NodeId, destination: NodeId, rates_bps: Iterable[int]
) -> tuple[Route, int] | Blocked:
    """A route for the highest of these rates that there is one for, and that rate; else why there is none for the lowest."""
    blocked = Blocked(Obstacle.NO_RATE, "no rate was asked for")
    for rate in sorted(set(rates_bps), reverse=True):
        found = find_route(topology, source, destination, rate)
        if isinstance(found, Route):
            return found, rate
        blocked = found
    return blocked


def passable_graph(
    topology: Topology, ends: set[NodeId], avoid: frozenset[NodeId], allowed: Callable[[Span], bool]
) -> "nx.Graph[NodeId]":
    """What a route between the ends may use: nodes that relay and can be managed, spans that are allowed."""

    def passable(node: NodeId) -> bool:
        site = topology.sites.get(node)
        return site is not None and (node in ends or (site.relay and site.manageable and node not in avoid))

    graph: nx.Graph[NodeId] = nx.Graph()
    for (a, b), span in topology.spans.items():
        if passable(a) and passable(b) and allowed(span):
            graph.add_edge(a, b, weight=cost(span))
    return graph


def _cheapest(graph: "nx.Graph[NodeId]", source: NodeId, destination: NodeId) -> tuple[NodeId, ...] | None:
    """The cheapest path; of equally cheap ones the first in the order of ids."""
    if source not in graph or destination not in graph:
        return None
    left: dict[NodeId, int] = nx.single_source_dijkstra_path_length(graph, destination, weight="weight")
    if source not in left:
        return None
    path = [source]
    while path[-1] != destination:
        here = path[-1]
        path.append(
            min(next_ for next_, edge in graph[here].items() if next_ in left and left[next_] + edge["weight"] == left[here])
        )
    return tuple(path)


def _why_not(
    topology: Topology, source: NodeId, destination: NodeId, bandwidth_bps: int, avoid: frozenset[NodeId]
) -> Blocked:
    ends = {source, destination}
    names = f"{topology.name(source)} and {topology.name(destination)}"
    if _cheapest(passable_graph(topology, ends, avoid, lambda _: True), source, destination) is None:
        return Blocked(Obstacle.NO_FIBRE, f"nothing joins {names} through nodes that relay and are connected")
    if _cheapest(passable_graph(topology, ends, avoid, lambda span: span.active), source, destination) is None:
        down = sorted(f"{topology.name(a)}-{topology.name(b)}" for (a, b), span in topology.spans.items() if not span.active)
        return Blocked(Obstacle.LINKS_DOWN, f"links that are not ACTIVE part {names}: {', '.join(down)}")
    return Blocked(Obstacle.NO_RATE, f"no route between {names} has {bandwidth_bps} bit/s free")
