"""Routes: against a slow, obvious search on small random graphs, and reasons for none."""

from itertools import pairwise

from hypothesis import given, strategies as st
from network_facts import graph, node
from slow_routes import SPANS, all_routes, price

from qswitch.controller.disjoint import widest_bps
from qswitch.controller.paths import Blocked, Obstacle, Route, find_route, find_widest
from qswitch.controller.topology import Topology, pair


@given(SPANS, st.sets(st.integers(2, 5), max_size=2), st.sampled_from([0, 1000, 10_000]))
def test_the_cheapest_route_is_found(spans: dict[tuple[int, int], tuple[int, bool]], away: set[int], rate: int) -> None:
    down = [ends for ends, (_, up) in spans.items() if not up]
    made = graph(*((a, b, free) for (a, b), (free, _) in spans.items()), down=down, away=away)
    topology = Topology({**graph((1, 6, 0)).sites, **made.sites}, made.spans)
    expected = all_routes(topology, node(1), node(6), rate)
    found = find_route(topology, node(1), node(6), rate)
    if not expected:
        assert isinstance(found, Blocked)
        return
    assert isinstance(found, Route)
    assert found.nodes == min(expected, key=lambda one: (price(topology, one), one))
    assert found.free_bps == min(topology.spans[pair(a, b)].free_bps for a, b in pairwise(found.nodes))


@given(SPANS)
def test_the_widest_is_the_most_that_a_route_has(spans: dict[tuple[int, int], tuple[int, bool]]) -> None:
    made = graph(
        *((a, b, free) for (a, b), (free, _) in spans.items()), down=[at for at, (_, up) in spans.items() if not up]
    )
    topology = Topology({**graph((1, 6, 0)).sites, **made.sites}, made.spans)
    routes = all_routes(topology, node(1), node(6), 0)
    widths = [min(topology.spans[pair(a, b)].free_bps for a, b in pairwise(one)) for one in routes]
    assert widest_bps(topology, node(1), node(6)) == max(widths, default=0)


def test_few_hops_before_much_rate_and_much_rate_before_little() -> None:
    square = graph((1, 2, 100_000), (2, 4, 100_000), (1, 3, 2_000), (3, 4, 2_000))
    assert find_route(square, node(1), node(4)) == Route((node(1), node(2), node(4)), 100_000)
    direct = graph((1, 2, 100_000), (2, 4, 100_000), (1, 4, 2_000))
    assert find_route(direct, node(1), node(4)) == Route((node(1), node(4)), 2_000)


def test_equal_routes_go_by_the_order_of_ids() -> None:
    square = graph((1, 3, 1000), (3, 4, 1000), (1, 2, 1000), (2, 4, 1000))
    assert find_route(square, node(1), node(4)) == Route((node(1), node(2), node(4)), 1000)
    assert find_route(square, node(4), node(1)) == Route((node(4), node(2), node(1)), 1000)


def test_a_node_to_avoid_is_avoided() -> None:
    square = graph((1, 3, 1000), (3, 4, 1000), (1, 2, 1000), (2, 4, 1000))
    assert find_route(square, node(1), node(4), avoid=frozenset([node(2)])) == Route((node(1), node(3), node(4)), 1000)


def test_reasons() -> None:
    line = graph((1, 2, 1000), (2, 3, 1000))
    cases = [
        (find_route(line, node(1), node(9)), Obstacle.UNKNOWN_NODE, str(node(9))),
        (find_route(line, node(1), node(1)), Obstacle.NO_FIBRE, "same node"),
        (find_route(line, node(1), node(3), 2000), Obstacle.NO_RATE, "2000 bit/s"),
        (find_route(graph((1, 2, 9), (3, 4, 9)), node(1), node(4)), Obstacle.NO_FIBRE, "N1 and N4"),
        (find_route(graph((1, 2, 9), (2, 3, 9), down=[(2, 3)]), node(1), node(3)), Obstacle.LINKS_DOWN, "N2-N3"),
        (find_route(graph((1, 2, 9), (2, 3, 9), away=[3]), node(1), node(3)), Obstacle.NOT_MANAGED, "N3"),
        (find_route(graph((1, 2, 9), (2, 3, 9), away=[2]), node(1), node(3)), Obstacle.NO_FIBRE, "connected"),
    ]
    for found, obstacle, word in cases:
        assert isinstance(found, Blocked)
        assert found.obstacle is obstacle
        assert word in found.reason


def test_the_widest_rate_that_has_a_route() -> None:
    line = graph((1, 2, 5000), (2, 3, 3000))
    route = Route((node(1), node(2), node(3)), 3000)
    assert find_widest(line, node(1), node(3), (10_000, 3000, 100)) == (route, 3000)
    blocked = find_widest(line, node(1), node(3), (10_000, 4000))
    assert isinstance(blocked, Blocked)
    assert "4000" in blocked.reason
