"""Routes that share no node but their ends, so that no single node between sees more than one of them. Pure.

Of all sets of so many routes the one that costs least together is taken. It need not contain the cheapest single route:
to take that one first and look for others in what is left fails in networks that have an answer. So routes are found one
after the other in the residual graph (Suurballe), where a later one may take back a stretch of an earlier one; every node
is split into an arrival and a departure that one route may pass.

Where there are too few, the residual graph also says why: the nodes that one can arrive at and not leave again part the two
ends, and there are as many of them as there are routes (Menger), not counting a link that joins the ends directly.
"""

from collections.abc import Callable, Iterable
from itertools import pairwise

import networkx as nx

from .model import NodeId
from .paths import Blocked, Obstacle, Route, find_route, find_widest, passable_graph
from .topology import Span, Topology, pair

Routes = tuple[Route, ...]
_Vertex = tuple[NodeId, bool]  # False: arrival at the node, True: departure
_Arc = tuple[_Vertex, _Vertex]


def find_routes(
    topology: Topology, source: NodeId, destination: NodeId, bandwidth_bps: int = 0, count: int = 1
) -> Routes | Blocked:
    """So many node-disjoint routes, the cheapest first, every hop ACTIVE with enough free rate; else the reason, which says
    how many there are and which nodes part the ends."""
    single = find_route(topology, source, destination, bandwidth_bps)
    if isinstance(single, Blocked):
        return single
    if count == 1:
        return (single,)
    found = _Search(topology, source, destination, _wide_enough(bandwidth_bps)).run(count)
    if len(found.routes) == count:
        return tuple(Route(nodes, _free(topology, nodes)) for nodes in found.routes)
    return _why_not(topology, source, destination, bandwidth_bps, count)


def find_widest_routes(
    topology: Topology, source: NodeId, destination: NodeId, rates_bps: Iterable[int], count: int = 1
) -> tuple[Routes, int] | Blocked:
    """Routes for the highest of these rates that there are enough for, and the rate; else why not for the lowest."""
    if count == 1:
        one = find_widest(topology, source, destination, rates_bps)
        return one if isinstance(one, Blocked) else ((one[0],), one[1])
    blocked = Blocked(Obstacle.NO_RATE, "no rate was asked for")
    for rate in sorted(set(rates_bps), reverse=True):
        found = find_routes(topology, source, destination, rate, count)
        if not isinstance(found, Blocked):
            return found, rate
        blocked = found
    return blocked


def widest_bps(topology: Topology, source: NodeId, destination: NodeId, count: int = 1) -> int:
    """The highest rate that there are so many node-disjoint routes for; 0 when there are not."""
    best, rates = 0, sorted({span.free_bps for span in topology.spans.values() if span.active and span.free_bps})
    while rates:
        middle = len(rates) // 2
        if not isinstance(find_routes(topology, source, destination, rates[middle], count), Blocked):
            best, rates = rates[middle], rates[middle + 1 :]
        else:
            rates = rates[:middle]
    return best


def _wide_enough(bandwidth_bps: int) -> Callable[[Span], bool]:
    return lambda span: span.active and span.free_bps >= bandwidth_bps


def _free(topology: Topology, nodes: tuple[NodeId, ...]) -> int:
    return min(topology.spans[pair(a, b)].free_bps for a, b in pairwise(nodes))


class _Search:
    """`routes` found so far, cheapest first; `separators` part the ends once no more are found."""

    def __init__(self, topology: Topology, source: NodeId, destination: NodeId, allowed: Callable[[Span], bool]) -> None:
        self._graph = passable_graph(topology, {source, destination}, frozenset(), allowed)
        self._ends = source, destination
        self._start, self._goal = (source, True), (destination, False)
        self._taken: set[_Arc] = set()
        self._residual = self._split()
        self.routes: list[tuple[NodeId, ...]] = []

    def _split(self) -> "nx.DiGraph[_Vertex]":
        residual: nx.DiGraph[_Vertex] = nx.DiGraph()
        residual.add_nodes_from((self._start, self._goal))
        for node in sorted(self._graph):
            if node not in self._ends:
                residual.add_edge((node, False), (node, True), weight=0)
            for next_ in sorted(self._graph[node]):
                if node != self._ends[1] and next_ != self._ends[0]:
                    residual.add_edge((node, True), (next_, False), weight=self._graph[node][next_]["weight"])
        return residual

    def run(self, count: int) -> "_Search":
        while len(self.routes) < count and self._augment():
            self.routes = sorted(self._walk(), key=lambda nodes: (self._price(nodes), nodes))
        return self

    def _augment(self) -> bool:
        """One more route, which may take back stretches of those there are."""
        try:
            path: list[_Vertex] = nx.bellman_ford_path(self._residual, self._start, self._goal)
        except nx.NetworkXNoPath:
            return False
        for here, there in pairwise(path):
            weight = self._residual[here][there]["weight"]
            self._residual.remove_edge(here, there)
            self._residual.add_edge(there, here, weight=-weight)
            if (there, here) in self._taken:
                self._taken.remove((there, here))
            else:
                self._taken.add((here, there))
        return True

    def _walk(self) -> list[tuple[NodeId, ...]]:
        following: dict[_Vertex, list[_Vertex]] = {}
        for here, there in sorted(self._taken):
            following.setdefault(here, []).append(there)
        routes = []
        for first in following[self._start]:
            nodes, here = [self._ends[0], first[0]], first
            while here != self._goal:
                (here,) = following[here]
                if not here[1]:
                    nodes.append(here[0])
            routes.append(tuple(nodes))
        return routes

    def _price(self, nodes: tuple[NodeId, ...]) -> int:
        return sum(self._graph[a][b]["weight"] for a, b in pairwise(nodes))

    @property
    def joined(self) -> bool:
        """Whether a span joins the ends directly."""
        source, destination = self._ends
        return bool(self._graph.has_edge(source, destination))

    def separators(self) -> list[NodeId]:
        """The nodes nearest to the source that every route but a direct one passes."""
        residual = self._residual.copy()
        for here, there in self._taken:  # any number of routes may use a span: it is nodes that are wanted, not spans
            if here[0] != there[0] and (here, there) != (self._start, self._goal):
                residual.add_edge(here, there, weight=0)
        reached = {self._start, *nx.descendants(residual, self._start)}
        return sorted(node for node, departure in reached if not departure and (node, True) not in reached)


def _why_not(topology: Topology, source: NodeId, destination: NodeId, bandwidth_bps: int, count: int) -> Blocked:
    """What stands in the way, the gravest first: the graph as it is, links that are down, links that are full."""
    cases: tuple[tuple[Obstacle, str, Callable[[Span], bool]], ...] = (
        (Obstacle.NO_FIBRE, "through nodes that relay and are connected", lambda _: True),
        (Obstacle.LINKS_DOWN, "over links that are ACTIVE", lambda span: span.active),
        (Obstacle.NO_RATE, f"with {bandwidth_bps} bit/s free", _wide_enough(bandwidth_bps)),
    )
    for obstacle, words, allowed in cases:
        found = _Search(topology, source, destination, allowed).run(count)
        if len(found.routes) < count:
            return Blocked(obstacle, _reason(topology, source, destination, found, count, words))
    raise AssertionError("there are routes enough")


def _reason(topology: Topology, source: NodeId, destination: NodeId, found: _Search, count: int, words: str) -> str:
    there = len(found.routes)
    names = ", ".join(topology.name(one) for one in found.separators())
    cut = f"all{' but the direct one' if found.joined else ''} pass through {names}" if names else "it is the direct one"
    some = f"{there} node-disjoint route{'s' * (there != 1)} join{'s' * (there == 1)}" if there else "no route joins"
    ends = f"{topology.name(source)} and {topology.name(destination)}"
    return f"only {some} {ends} {words}, {count} were asked for" + (f": {cut}" if there else "")
