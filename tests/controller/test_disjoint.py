"""Node-disjoint routes: against trying every set of routes on small random graphs, and reasons for too few."""

from itertools import combinations, pairwise

from hypothesis import given, settings, strategies as st
from network_facts import graph, node
from slow_routes import SPANS, all_routes, price

from qswitch.controller.disjoint import find_routes, find_widest_routes
from qswitch.controller.model import NodeId
from qswitch.controller.paths import Blocked, Obstacle
from qswitch.controller.topology import Topology, pair

# The cheapest route 1-2-3-4 takes a node of both others: who takes it first finds no second one.
TRAP = ((1, 2, 50_000), (2, 3, 50_000), (3, 4, 50_000), (1, 5, 400), (5, 3, 400), (2, 6, 400), (6, 4, 400))


def disjoint(routes: tuple[tuple[NodeId, ...], ...]) -> bool:
    inner = [one for route in routes for one in route[1:-1]]
    return len(inner) == len(set(inner))


def widened(spans: dict[tuple[int, int], tuple[int, bool]], away: set[int]) -> Topology:
    down = [ends for ends, (_, up) in spans.items() if not up]
    made = graph(*((a, b, free) for (a, b), (free, _) in spans.items()), down=down, away=away)
    return Topology({**graph((1, 6, 0)).sites, **made.sites}, made.spans)


@settings(max_examples=200)
@given(SPANS, st.sets(st.integers(2, 5), max_size=1), st.sampled_from([0, 1000]), st.integers(1, 3))
def test_the_cheapest_set_is_found_or_there_is_none(
    spans: dict[tuple[int, int], tuple[int, bool]], away: set[int], rate: int, count: int
) -> None:
    topology = widened(spans, away)
    every = all_routes(topology, node(1), node(6), rate)
    sets = [chosen for chosen in combinations(every, count) if disjoint(chosen)]
    found = find_routes(topology, node(1), node(6), rate, count)
    if not sets:
        assert isinstance(found, Blocked)
        return
    assert not isinstance(found, Blocked)
    routes = tuple(one.nodes for one in found)
    assert len(set(routes)) == count
    assert disjoint(routes)
    assert sum(price(topology, one) for one in routes) == min(sum(price(topology, one) for one in each) for each in sets)
    for one in found:
        assert one.nodes in every
        assert one.free_bps == min(topology.spans[pair(a, b)].free_bps for a, b in pairwise(one.nodes))


@settings(max_examples=200)
@given(SPANS, st.integers(2, 3))
def test_the_nodes_named_part_the_ends_and_are_as_few_as_the_routes(
    spans: dict[tuple[int, int], tuple[int, bool]], count: int
) -> None:
    topology = widened(dict.fromkeys(spans, (50000, True)), set())
    every = all_routes(topology, node(1), node(6), 0)
    most = max((n for n in (1, 2) if any(map(disjoint, combinations(every, n)))), default=0)
    found = find_routes(topology, node(1), node(6), 0, count)
    if not isinstance(found, Blocked) or not most:
        return
    assert f"only {most} node-disjoint" in found.reason
    named = {one for one in topology.sites if topology.name(one) in found.reason.partition("pass through ")[2].split(", ")}
    direct = pair(node(1), node(6)) in topology.spans
    assert len(named) + direct == most
    assert all(named & set(route) or len(route) == 2 for route in every)


def test_the_cheapest_route_is_given_up_where_it_is_in_the_way() -> None:
    assert [one.nodes for one in find_routes(graph(*TRAP), node(1), node(4))] == [tuple(map(node, (1, 2, 3, 4)))]  # type: ignore[union-attr]
    found = find_routes(graph(*TRAP), node(1), node(4), 0, 2)
    assert not isinstance(found, Blocked)
    assert {one.nodes for one in found} == {tuple(map(node, (1, 2, 6, 4))), tuple(map(node, (1, 5, 3, 4)))}


def test_the_direct_link_is_a_route_of_its_own() -> None:
    triangle = graph((1, 2, 5000), (2, 3, 5000), (1, 3, 5000))
    found = find_routes(triangle, node(1), node(3), 0, 2)
    assert not isinstance(found, Blocked)
    assert [one.nodes for one in found] == [(node(1), node(3)), (node(1), node(2), node(3))]


def test_reasons_say_how_many_there_are_and_where_they_meet() -> None:
    ring = ((1, 2, 5000), (2, 3, 5000), (3, 4, 5000), (1, 4, 5000), (3, 5, 5000))
    cases = [
        (find_routes(graph(*ring), node(1), node(5), 0, 2), Obstacle.NO_FIBRE, "only 1 node-disjoint route joins N1 and N5"),
        (find_routes(graph(*ring), node(1), node(5), 0, 2), Obstacle.NO_FIBRE, "2 were asked for: all pass through N3"),
        (find_routes(graph(*ring), node(1), node(3), 0, 3), Obstacle.NO_FIBRE, "only 2 node-disjoint routes join"),
        (find_routes(graph(*ring), node(1), node(3), 0, 3), Obstacle.NO_FIBRE, "all pass through N2, N4"),
        (find_routes(graph(*ring), node(3), node(5), 0, 2), Obstacle.NO_FIBRE, "it is the direct one"),
        (find_routes(graph(*ring), node(1), node(2), 0, 3), Obstacle.NO_FIBRE, "all but the direct one pass through N4"),
        (find_routes(graph(*ring, down=[(3, 4)]), node(1), node(3), 0, 2), Obstacle.LINKS_DOWN, "all pass through N2"),
        (find_routes(graph(*ring[:-2], (1, 4, 9)), node(1), node(3), 100, 2), Obstacle.NO_RATE, "with 100 bit/s free"),
        (find_routes(graph(*ring, away=[4]), node(1), node(3), 0, 2), Obstacle.NO_FIBRE, "connected"),
        (find_routes(graph(*ring), node(1), node(9), 0, 2), Obstacle.UNKNOWN_NODE, str(node(9))),
    ]
    for found, obstacle, words in cases:
        assert isinstance(found, Blocked)
        assert found.obstacle is obstacle
        assert words in found.reason


def test_all_routes_of_a_set_have_the_widest_rate() -> None:
    ring = graph((1, 2, 9000), (2, 3, 9000), (3, 4, 3000), (1, 4, 3000))
    found = find_widest_routes(ring, node(1), node(3), (9000, 3000, 100), 2)
    assert not isinstance(found, Blocked)
    assert (len(found[0]), found[1]) == (2, 3000)
    assert isinstance(find_widest_routes(ring, node(1), node(3), (9000,), 2), Blocked)
