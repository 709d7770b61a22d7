"""Plans: who is told what in which order, and that inverses bring back what was."""

from dataclasses import replace

from hypothesis import given, strategies as st
from network_facts import ksid, link, node, physical, record, stream, virtual

from qswitch.controller.model import LinkIntent, LinkType, NodeData, NodeId, Role, ServiceAddress
from qswitch.controller.plan import (
    NodeEdit,
    Plan,
    application_entries,
    applied,
    change_application,
    change_link,
    correction,
    inverse,
    link_entries,
    same_application,
    same_link,
    strangers,
)

LKMS = {node(one): ServiceAddress("127.0.0.1", 4000 + one) for one in range(1, 7)}


def told(plan: Plan) -> list[list[str]]:
    """The plan in short: per stage, node and what it puts (+) or drops (-)."""
    numbers = {node(one): one for one in range(1, 10)}

    def short(edit: NodeEdit) -> str:
        puts = len(edit.put_links) + len(edit.put_applications)
        return f"{numbers[edit.node]}{'+' if puts else '-'}"

    return [[short(edit) for edit in stage.edits] for stage in plan.stages]


def running(number: int) -> NodeData:
    data = record(number).running
    assert data
    return data


def test_a_virtual_link_is_made_from_the_middle() -> None:
    plan = change_link(None, virtual(9, 1, 2, 3, 4), LKMS)
    assert told(plan) == [["2+", "3+"], ["1+"], ["4+"]]
    assert all(stage.required for stage in plan.stages)


def test_who_carries_which_leaves_of_a_virtual_link() -> None:
    entries = link_entries(virtual(9, 1, 2, 3), LKMS)
    one, two, three = (entries[node(number)] for number in (1, 2, 3))
    assert (one.previous_hop, one.next_hops) == (None, (node(2),))
    assert (two.previous_hop, two.next_hops) == (node(1), (node(3),))
    assert (three.previous_hop, three.next_hops) == (node(2), ())
    assert [(each.local_node, each.remote_node) for each in (one, two, three)] == [
        (node(1), node(3)),
        (node(1), node(3)),
        (node(3), node(1)),
    ]
    assert [each.remote_lkms for each in (one, two, three)] == [LKMS[node(3)], None, LKMS[node(1)]]
    assert {each.bandwidth_bps for each in (one, two, three)} == {10_000}


def test_who_carries_which_leaves_of_a_physical_link() -> None:
    entries = link_entries(physical(1, 1, 2), LKMS)
    one, two = entries[node(1)], entries[node(2)]
    assert (one.role, two.role) == (Role.TRANSMITTER, Role.RECEIVER)
    assert (one.local_interface, one.remote_interface, two.local_interface) == (1, 2, 2)
    assert (one.remote_lkms, two.remote_lkms) == (LKMS[node(2)], LKMS[node(1)])


def test_a_reroute_tells_only_who_is_concerned() -> None:
    plan = change_link(virtual(9, 1, 2, 3, 4), virtual(9, 1, 2, 5, 4), LKMS)
    assert told(plan) == [["2+", "5+"], ["4+"], ["3-"]]
    assert [stage.required for stage in plan.stages] == [True, True, False]


def test_deleting_stops_the_source_first_and_waits_for_nobody() -> None:
    plan = change_link(virtual(9, 1, 2, 3), None, LKMS)
    assert told(plan) == [["1-"], ["3-", "2-"]]
    assert not any(stage.required for stage in plan.stages)


def test_a_stream_is_told_to_both_ends_at_the_same_time() -> None:
    new = stream(1, 1, 2, 9)
    assert told(change_application(None, new)) == [["1+", "2+"]]
    assert told(change_application(new, replace(new, link=link(8)))) == [["1+", "2+"]]
    assert told(change_application(new, None)) == [["1-", "2-"]]
    assert told(change_application(new, replace(new, disconnected=(node(1),)))) == []
    entries = application_entries(new)
    assert entries[node(1)].backing_links == (link(9),)
    assert [(one.local_node, one.remote_node) for one in entries.values()] == [(node(1), node(2)), (node(2), node(1))]


ROUTES = st.lists(st.integers(2, 5), unique=True, max_size=3).map(lambda middle: (1, *middle, 6))


@given(ROUTES, ROUTES)
def test_inverses_bring_back_what_was(before: tuple[int, ...], after: tuple[int, ...]) -> None:
    old, new = virtual(9, *before), virtual(9, *after)
    network = network_after({node(one): running(one) for one in range(1, 7)}, change_link(None, old, LKMS))
    assert_has(network, old)
    plan = change_link(old, new, LKMS)
    undo = [inverse(edit, network[edit.node]) for stage in plan.stages for edit in stage.edits]
    changed = network_after(network, plan)
    assert_has(changed, new)
    for edit in reversed(undo):
        changed[edit.node] = applied(changed[edit.node], edit)
    assert changed == network


def network_after(network: dict[NodeId, NodeData], plan: Plan) -> dict[NodeId, NodeData]:
    after = dict(network)
    for stage in plan.stages:
        for edit in stage.edits:
            after[edit.node] = applied(after[edit.node], edit)
    return after


def assert_has(network: dict[NodeId, NodeData], intent: LinkIntent) -> None:
    has = {number: data.links[intent.link] for number, data in network.items() if intent.link in data.links}
    assert has == link_entries(intent, LKMS)


def test_a_correction_pushes_what_lacks_drops_debts_and_leaves_strangers() -> None:
    wanted, kept, owed, strange = physical(1, 1, 2), physical(2, 1, 3), physical(3, 1, 4), physical(4, 1, 5)
    have = {one.link: link_entries(one, LKMS)[node(1)] for one in (kept, owed, strange)}
    data = replace(running(1), links=have)
    edit = correction(node(1), data, [wanted, kept], [stream(1, 1, 2, 1)], LKMS, [link(3), link(1), link(77)], [ksid(5)])
    assert [one.link for one in edit.put_links] == [link(1)]
    assert edit.drop_links == (link(3),)
    assert [one.ksid for one in edit.put_applications] == [ksid(1)]
    assert edit.drop_applications == ()
    assert strangers(data, [wanted, kept]) == [link(3), link(4)]
    assert not correction(node(1), applied(data, edit), [wanted, kept], [stream(1, 1, 2, 1)], LKMS)


def test_what_a_node_writes_otherwise_is_no_difference() -> None:
    ours = link_entries(physical(1, 1, 2), LKMS)[node(1)]
    assert same_link(ours, replace(ours, attenuation_db=8.7200001, skr_bps=5, stored_bits=7))
    assert same_link(replace(ours, remote_lkms=None), ours)
    assert not same_link(ours, replace(ours, remote_lkms=None))
    assert not same_link(ours, replace(ours, wavelength="1310"))
    assert not same_link(ours, replace(ours, type=LinkType.VIRTUAL))
    entry = application_entries(stream(1, 1, 2, 1))[node(1)]
    assert same_application(entry, replace(entry, periods=(("2026-11-23T12:00:00Z", 9),)))
    assert not same_application(entry, replace(entry, priority=3))
    assert not same_application(entry, None)
