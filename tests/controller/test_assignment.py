"""Who talks to whom, over which link."""

from dataclasses import replace

from network_facts import graph, ksid, link, node, physical, stream, uri, virtual

from qswitch.controller.assignment import (
    Join,
    MakeLink,
    Refuse,
    Registration,
    Rejoin,
    UseLink,
    Wait,
    admission_of,
    authority,
    choose,
    counter_proposal,
    match,
)
from qswitch.controller.model import Admission, ApplicationIntent, LinkIntent, Purpose, Qos
from qswitch.controller.paths import Blocked, Route
from qswitch.controller.topology import Topology

NODES = {node(one) for one in range(1, 5)}
FROM_1 = Registration(node(1), uri(1, "app"), (uri(2, "app"),))


def test_the_authority_of_a_uri_is_a_node() -> None:
    assert authority(uri(1, "app")) == node(1)
    assert authority(f"QKD://{node(10).upper()}/x") == node(10)
    assert authority("urn:app:1") is None
    assert authority("http://[broken") is None


def test_the_peer_is_where_its_uri_says() -> None:
    assert match(FROM_1, [FROM_1], {}, NODES) == Join(node(1), node(2))
    swapped = Registration(node(1), uri(2, "app"), (uri(1, "app"),))
    assert match(swapped, [], {}, NODES) == Join(node(2), node(1))


def test_a_peer_that_no_uri_places_is_where_it_registers() -> None:
    mine = Registration(node(1), "urn:a", ("urn:b",))
    other = Registration(node(3), "urn:b", ("urn:a",))
    assert match(mine, [mine], {}, NODES) is Wait.FOR_PEER
    assert match(mine, [mine, replace(mine, node=node(2), ksid=ksid(1))], {}, NODES) is Wait.FOR_PEER
    assert match(mine, [mine, other], {}, NODES) == Join(node(1), node(3))


def test_two_applications_of_one_node_need_no_network() -> None:
    answer = match(Registration(node(1), uri(1, "a"), (uri(1, "b"),)), [], {}, NODES)
    assert isinstance(answer, Refuse)
    assert answer.admission is Admission.NO_CONNECTION


def test_the_clients_of_a_stream_live_at_one_node() -> None:
    shared = Qos(clients_shared_keys=True)
    clients = (uri(2, "app"), uri(2, "other"))
    assert match(replace(FROM_1, clients=clients, qos=shared), [], {}, NODES) == Join(node(1), node(2))
    apart = match(replace(FROM_1, clients=(uri(2, "app"), uri(3, "app")), qos=shared), [], {}, NODES)
    assert isinstance(apart, Refuse) and apart.admission is Admission.NO_CONNECTION
    known = {ksid(1): replace(stream(1, 1, 2, 9, shared), client_app_ids=clients)}
    mine = Registration(node(2), clients[1], (uri(1, "app"),), ksid=ksid(1))
    assert match(mine, [], known, NODES) == Rejoin(ksid(1))
    assert isinstance(match(replace(mine, server=uri(2, "eve")), [], known, NODES), Refuse)


def test_a_known_stream_is_for_its_own_two() -> None:
    known = {ksid(1): stream(1, 1, 2, 9)}
    named = replace(FROM_1, ksid=ksid(1))
    assert match(named, [], known, NODES) == Rejoin(ksid(1))
    assert match(Registration(node(2), uri(2, "app"), (uri(1, "app"),), ksid=ksid(1)), [], known, NODES) == Rejoin(ksid(1))
    for stranger in (
        replace(named, node=node(3)),
        Registration(node(1), uri(1, "other"), (uri(2, "app"),), ksid=ksid(1)),
        Registration(node(3), uri(3, "other"), (uri(2, "app"),), ksid=ksid(1)),
    ):
        answer = match(stranger, [], known, NODES)
        assert isinstance(answer, Refuse)
        assert answer.admission is Admission.KSID_IN_USE


def test_without_a_ksid_a_second_stream_begins() -> None:
    assert match(FROM_1, [], {ksid(1): stream(1, 1, 2, 9)}, NODES) == Join(node(1), node(2))


def chosen(
    topology: Topology, links: list[LinkIntent], streams: list[ApplicationIntent], qos: Qos | None = None, to: int = 3
) -> UseLink | MakeLink | Blocked:
    by_id = {one.link: one for one in links}
    return choose(topology, by_id, streams, (node(1), node(to)), qos or Qos(), 1000, 10_000)


LINE = graph((1, 2, 50_000), (2, 3, 5_000))


def test_the_direct_link_is_taken_when_it_has_room() -> None:
    assert chosen(LINE, [physical(0, 1, 2)], [], to=2) == UseLink(link(0))


def test_a_virtual_link_with_room_is_shared() -> None:
    shared = virtual(9, 3, 2, 1, bandwidth=2000)
    assert chosen(LINE, [shared], [stream(1, 1, 3, 9)]) == UseLink(link(9))
    full = chosen(LINE, [shared], [stream(1, 1, 3, 9), stream(2, 1, 3, 9)])
    assert isinstance(full, MakeLink)


def test_a_new_virtual_link_is_as_wide_as_can_be_had() -> None:
    route = (node(1), node(2), node(3))
    assert chosen(LINE, [], []) == MakeLink((Route(route, 5_000),), 1000)
    wide = graph((1, 2, 50_000), (2, 3, 50_000))
    assert chosen(wide, [], []) == MakeLink((Route(route, 50_000),), 10_000)
    assert chosen(wide, [], [], Qos(min_bandwidth_bps=20_000)) == MakeLink((Route(route, 50_000),), 20_000)


def test_a_broken_virtual_link_takes_nobody() -> None:
    broken = graph((1, 2, 9000), (2, 3, 9000), (1, 4, 9000), (3, 4, 9000), down=[(2, 3)])
    answer = chosen(broken, [virtual(9, 1, 2, 3, purpose=Purpose.OPERATOR)], [])
    assert isinstance(answer, MakeLink)
    assert answer.routes[0].nodes == (node(1), node(4), node(3))


def test_what_an_application_is_told() -> None:
    too_much = chosen(LINE, [], [], Qos(min_bandwidth_bps=6_000))
    assert isinstance(too_much, Blocked)
    assert (admission_of(too_much), too_much.best_bps) == (Admission.QOS_NOT_MET, 5_000)
    cut = chosen(graph((1, 2, 9), (2, 3, 9), down=[(1, 2)]), [], [])
    assert isinstance(cut, Blocked)
    assert admission_of(cut) is Admission.NO_CONNECTION
    nothing = chosen(graph((1, 2, 0), (2, 3, 9)), [], [])
    assert isinstance(nothing, Blocked)
    assert admission_of(nothing) is Admission.NO_CONNECTION


def test_what_is_offered_is_taken() -> None:
    room_of_a_link = chosen(LINE, [virtual(9, 1, 2, 3, bandwidth=8_000)], [], Qos(min_bandwidth_bps=9_000))
    assert isinstance(room_of_a_link, Blocked)
    assert room_of_a_link.best_bps == 8_000
    for asked in (Qos(min_bandwidth_bps=9_000, ttl_seconds=3), Qos(70_000, 9_000)):
        offered = counter_proposal(asked, 5_000)
        assert offered == replace(asked, min_bandwidth_bps=4_750)
        assert isinstance(chosen(LINE, [], [], offered), MakeLink)
    narrow = graph((1, 2, 500), (2, 3, 900))
    refused = chosen(narrow, [], [])
    assert isinstance(refused, Blocked)
    offered = counter_proposal(Qos(), refused.best_bps)
    assert offered == Qos(max_bandwidth_bps=475)
    assert isinstance(chosen(narrow, [], [], offered), MakeLink)
