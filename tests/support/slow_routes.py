"""All routes of a small network by trying everything, and what they cost."""

from itertools import pairwise

from hypothesis import strategies as st

from qswitch.controller.model import NodeId
from qswitch.controller.paths import cost
from qswitch.controller.topology import Topology, pair

SPANS = st.dictionaries(
    st.tuples(st.integers(1, 6), st.integers(1, 6)).filter(lambda ends: ends[0] < ends[1]),
    st.tuples(st.sampled_from([0, 500, 5_000, 50_000]), st.booleans()),
    max_size=12,
)


def all_routes(topology: Topology, here: NodeId, there: NodeId, rate: int) -> list[tuple[NodeId, ...]]:
    """Every route without a loop, by trying everything."""
    found: list[tuple[NodeId, ...]] = []

    def walk(path: tuple[NodeId, ...]) -> None:
        if path[-1] == there:
            found.append(path)
            return
        for ends, span in topology.spans.items():
            if path[-1] in ends and span.active and span.free_bps >= rate:
                next_ = ends[0] if ends[1] == path[-1] else ends[1]
                if next_ not in path and (next_ == there or topology.sites[next_].manageable):
                    walk((*path, next_))

    walk((here,))
    return found


def price(topology: Topology, route: tuple[NodeId, ...]) -> int:
    return sum(cost(topology.spans[pair(a, b)]) for a, b in pairwise(route))
