"""The graph from what nodes say: which links carry, and what is left of their rate."""

import pytest
from network_facts import end, link, node, physical, record, stream, virtual

from qswitch.controller.model import LinkStatus, NodeRecord, Qos
from qswitch.controller.topology import build, demand, link_facts, room

ACTIVE, PASSIVE, PENDING, OFF = LinkStatus.ACTIVE, LinkStatus.PASSIVE, LinkStatus.PENDING, LinkStatus.OFF


def line(*statuses: tuple[LinkStatus, LinkStatus]) -> list[NodeRecord]:
    """Nodes in a row, joined by links with these statuses at their two ends."""
    ends: dict[int, list[object]] = {one: [] for one in range(1, len(statuses) + 2)}
    for index, (left, right) in enumerate(statuses, 1):
        ends[index].append(end(index, index, index + 1, left))
        ends[index + 1].append(end(index, index + 1, index, right))
    return [record(number, links) for number, links in ends.items()]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        (ACTIVE, ACTIVE, ACTIVE),
        (ACTIVE, PASSIVE, PASSIVE),
        (PENDING, ACTIVE, PENDING),
        (PASSIVE, OFF, OFF),
    ],
)
def test_a_link_is_as_well_as_its_worse_end(left: LinkStatus, right: LinkStatus, expected: LinkStatus) -> None:
    facts = link_facts(line((left, right)))
    assert facts[link(1)].status is expected
    assert facts[link(1)].ends == (node(1), node(2))


@pytest.mark.parametrize("gone", [{"connected": False}, {"alive": False}])
def test_an_end_that_cannot_be_asked_has_no_say(gone: dict[str, bool]) -> None:
    there = record(1, [end(1, 1, 2, ACTIVE)])
    facts = link_facts([there, record(2, [end(1, 2, 1, PASSIVE)], **gone)])
    assert facts[link(1)].status is ACTIVE
    assert link_facts([record(2, [end(1, 2, 1, ACTIVE)], **gone)])[link(1)].status is PENDING


def test_reserved_is_what_crosses_and_what_is_drawn_directly() -> None:
    links = {one.link: one for one in (physical(1, 1, 2), physical(2, 2, 3), virtual(9, 1, 2, 3, bandwidth=300))}
    streams = [stream(1, 1, 2, 1, Qos(min_bandwidth_bps=200)), stream(2, 1, 3, 9, Qos(min_bandwidth_bps=50))]
    records = line((ACTIVE, ACTIVE), (ACTIVE, ACTIVE))
    topology = build(records, links, streams, 10)
    first, second = topology.span(node(1), node(2)), topology.span(node(3), node(2))
    assert first
    assert second
    assert (first.skr_bps, first.reserved_bps, first.free_bps) == (1000, 500, 500)
    assert second.free_bps == 700
    without = build(records, links, streams, 10, frozenset([link(9)])).span(node(1), node(2))
    assert without
    assert without.free_bps == 800
    assert room(links[link(9)], streams, 10) == 250


def test_a_route_carries_when_every_hop_is_active() -> None:
    topology = build(line((ACTIVE, ACTIVE), (ACTIVE, PASSIVE)), {}, [], 10)
    assert topology.carries((node(1), node(2)))
    assert not topology.carries((node(1), node(2), node(3)))
    assert not topology.carries((node(1), node(3)))


@pytest.mark.parametrize(
    ("qos", "expected"),
    [
        (Qos(), 1000),
        (Qos(max_bandwidth_bps=100), 100),
        (Qos(max_bandwidth_bps=10**6), 1000),
        (Qos(min_bandwidth_bps=5000, max_bandwidth_bps=10**6), 5000),
    ],
)
def test_demand(qos: Qos, expected: int) -> None:
    assert demand(qos, 1000) == expected
