"""Stories of whole networks: links on fibres, streams over links, failures, and controllers that come back."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from memory_network import Story, World
from network_facts import ksid, node, uri

from qswitch.controller.errors import Ambiguous, Conflict, InvalidRequest, NoRoute, TransactionFailed, Unknown
from qswitch.controller.model import Admission, KeyStreamId, LinkStatus, LinkType, Purpose, Qos
from qswitch.controller.southbound.notifications import ApplicationQosUpdate, LinkChanged

# A ring of four with a spur:  1-2, 2-3, 3-4, 4-1, 3-5
RING = ((1, 2), (2, 3), (3, 4), (1, 4), (3, 5))


@pytest.fixture
async def story(tmp_path: Path) -> AsyncIterator[Story]:
    story = Story(World(*RING), tmp_path)
    await story.start()
    yield story
    await story.service.stop()


async def only_stream(story: Story) -> KeyStreamId:
    (app,) = await story.service.apps()
    return app.ksid


async def joined(story: Story, a: int = 1, b: int = 3) -> KeyStreamId:
    """A stream whose two applications are there."""
    story.register(a, b)
    await story.go()
    stream = await only_stream(story)
    story.opened(stream, a, b)
    await story.go()
    await story.events()
    return stream


async def test_every_fibre_gets_a_link(story: Story) -> None:
    links = await story.service.links()
    assert len(links) == len(RING)
    assert {one.status for one in links} == {LinkStatus.ACTIVE}
    assert {one.purpose for one in links} == {Purpose.FIBRE}
    assert all(one.source.node < one.destination.node for one in links)  # the lower id transmits
    health = await story.service.health()
    assert (health.status, health.connected, health.active_links) == ("ok", 5, 5)
    assert {"node_connected", "link_created", "link_up"} <= await story.seen()


async def test_a_network_at_rest_is_left_alone(story: Story) -> None:
    edits = len(story.world.edits)
    await story.go()
    assert len(story.world.edits) == edits


async def test_a_stream_of_neighbours_uses_their_link(story: Story) -> None:
    stream = await joined(story, 1, 2)
    assert await story.route(stream) == [1, 2]
    assert len(await story.service.links()) == len(RING)


async def test_a_stream_over_hops_gets_a_virtual_link(story: Story) -> None:
    stream = await joined(story, 1, 5)
    assert await story.route(stream) in ([1, 2, 3, 5], [1, 4, 3, 5])
    app = await story.service.app(stream)
    link = await story.service.link(app.links[0])
    assert link.type is LinkType.VIRTUAL
    assert link.route == app.route
    assert link.apps == (stream,)
    assert [story.has(number)[1] for number in (1, 3, 5)] == [{stream}, set(), {stream}]
    story.register(1, 5, name="second")
    await story.go()
    assert {one.links for one in await story.service.apps()} == {app.links}  # shared


async def test_both_ends_at_the_same_time_get_one_stream_and_the_next_a_second(story: Story) -> None:
    story.register(1, 3)
    story.register(3, 1)
    await story.go()
    first = await only_stream(story)
    story.opened(first, 1, 3)
    story.register(1, 3)
    await story.go()
    assert len(await story.service.apps()) == 2


async def test_a_stream_brought_by_both_ends(story: Story) -> None:
    story.register(1, 3, ksid(1))
    story.register(3, 1, ksid(1))
    await story.go()
    assert await only_stream(story) == ksid(1)
    assert sum(ksid(1) in edit.applications for _, edit in story.world.edits) == 2


async def test_a_third_party_is_told_so(story: Story) -> None:
    stream = await joined(story, 1, 3)
    story.register(2, 3, stream, name="stranger")
    await story.go()
    entry = story.world.running[node(2)].applications[stream]
    assert (entry.admission, entry.remote_node) == (Admission.KSID_IN_USE, None)
    assert (await story.service.app(stream)).source.node == node(1)
    edits = len(story.world.edits)
    story.register(1, 3, stream, name="stranger")  # at an end, which has the entry of the rightful owners
    await story.go()
    assert len(story.world.edits) == edits
    assert "application_refused" in await story.seen()


async def test_no_route_and_no_rate_are_told_apart(story: Story) -> None:
    story.cut(3, 5)
    await story.go()
    story.register(1, 5)
    story.register(1, 3, name="greedy", qos=Qos(min_bandwidth_bps=10**9))
    await story.go()
    refused = {one.client_app_ids: one for one in story.world.running[node(1)].applications.values()}
    assert refused[(uri(5, "app"),)].admission is Admission.NO_CONNECTION
    assert "N3-N5" in (refused[(uri(5, "app"),)].admission_reason or "")
    greedy = refused[(uri(3, "greedy"),)]
    assert greedy.admission is Admission.QOS_NOT_MET
    story.register(1, 3, name="modest", qos=greedy.qos)  # what was offered instead can be had
    await story.go()
    assert [one.client_app_ids for one in await story.service.apps()] == [(uri(3, "modest"),)]


async def test_a_cut_moves_the_route_and_keeps_the_stream(story: Story) -> None:
    stream = await joined(story, 1, 3)
    (link,) = (await story.service.app(stream)).links
    before = await story.route(stream)
    middle = before[1]
    story.cut(1, middle)
    await story.go()
    assert await story.route(stream) == [1, 6 - middle, 3]
    assert (await story.service.app(stream)).links == (link,)
    assert link not in story.has(middle)[0]
    assert {"link_down", "route_changed"} <= await story.seen()


async def test_a_cut_direct_link_is_left_for_a_detour_and_come_back_to(story: Story) -> None:
    stream = await joined(story, 1, 2)
    direct = (await story.service.app(stream)).links
    story.cut(1, 2)
    await story.go()
    assert await story.route(stream) == [1, 4, 3, 2]
    detour = (await story.service.app(stream)).links
    assert detour != direct
    assert "route_changed" in await story.seen()
    story.cut(1, 2, False)
    await story.go()
    assert (await story.service.app(stream)).links == direct
    assert all(detour[0] not in story.has(number)[0] for number in (1, 2, 3, 4))  # and the detour is gone


async def test_without_another_route_the_stream_waits_and_is_told_once(story: Story) -> None:
    stream = await joined(story, 1, 5)
    before = await story.route(stream)
    story.cut(3, 5)
    await story.go(8)
    assert [one.type for one in await story.events()].count("no_route") == 1
    story.cut(3, 5, False)
    await story.go()
    assert await story.route(stream) == before


async def test_streams_end_when_both_have_left_and_their_link_goes(story: Story) -> None:
    stream = await joined(story, 1, 3)
    (link,) = (await story.service.app(stream)).links
    story.close(1, stream)
    await story.go()
    assert await only_stream(story) == stream  # the other may still read
    story.close(3, stream)
    await story.go()
    assert await story.service.apps() == []
    assert all(stream not in story.has(one)[1] and link not in story.has(one)[0] for one in story.world.numbers)
    assert {"application_disconnected", "application_released", "link_deleted"} <= await story.seen()


async def test_who_left_and_came_back_has_not_left(story: Story) -> None:
    stream = await joined(story, 1, 3)
    story.close(1, stream)
    await story.go()
    story.opened(stream, 1)
    story.close(3, stream)
    await story.go()
    assert await only_stream(story) == stream


async def test_a_stream_that_is_over_begins_anew(story: Story) -> None:
    story.register(1, 3, ksid(1))
    await story.go()
    story.service._applications._crossing.clear()  # long ago
    before = len(story.world.edits)
    story.register(3, 1, ksid(1))  # its node has an entry, and asks all the same: it cannot open that one
    await story.go()
    puts = [bool(edit.put_applications) for _, edit in story.world.edits[before:] if edit.applications]
    assert puts == [False, False, True, True]


async def test_a_node_that_was_away_is_brought_up_to_date(story: Story) -> None:
    stream = await joined(story, 1, 3)
    (link,) = (await story.service.app(stream)).links
    middle = (await story.route(stream))[1]
    story.world.away.add(node(middle))
    await story.go()
    story.close(1, stream)
    story.close(3, stream)
    await story.go()
    assert link in story.has(middle)[0]
    story.world.away.clear()
    await story.go()
    assert link not in story.has(middle)[0]
    assert {"node_disconnected", "node_corrected"} <= await story.seen()


async def test_a_node_that_lost_its_configuration_gets_it_again(story: Story) -> None:
    stream = await joined(story, 1, 3)
    had = story.has(1)
    story.world.away.add(node(1))
    await story.go()
    story.world.running[node(1)] = story.world._blank(1)
    story.world.away.clear()
    await story.go()
    assert story.has(1) == had
    assert stream in had[1]


async def test_a_controller_that_comes_back_finds_everything_and_changes_nothing(story: Story) -> None:
    stream = await joined(story, 1, 5)
    view, edits = await story.service.topology(), len(story.world.edits)
    await story.restart()
    assert await story.service.topology() == view
    assert len(story.world.edits) == edits
    assert await story.route(stream)


async def test_a_controller_without_memory_finds_its_links_again(story: Story, tmp_path: Path) -> None:
    before, edits = [one.link for one in await story.service.links()], len(story.world.edits)
    (tmp_path / "elsewhere").mkdir()
    other = Story(story.world, tmp_path / "elsewhere")
    await other.start()
    assert [one.link for one in await other.service.links()] == before
    assert {one.purpose for one in await other.service.links()} == {Purpose.FIBRE}
    assert all(not edit.drop_links for _, edit in story.world.edits[edits:])
    await other.service.stop()


async def test_another_quality_of_service_over_the_same_link_or_a_wider_one(story: Story) -> None:
    stream = await joined(story, 1, 3)
    before = (await story.service.app(stream)).links
    for rate, same in ((9_000, True), (50_000, False)):
        story.service.notified("N1", ApplicationQosUpdate(stream, Qos(min_bandwidth_bps=rate)))
        await story.go()
        app = await story.service.app(stream)
        assert app.qos.min_bandwidth_bps == rate
        assert (app.links == before) is same
        assert story.world.running[node(3)].applications[stream].qos == app.qos
    story.service.notified("N1", ApplicationQosUpdate(stream, Qos(min_bandwidth_bps=10**9)))
    await story.go()
    assert (await story.service.app(stream)).qos.min_bandwidth_bps == 50_000
    assert "qos_not_met" in await story.seen()


async def test_an_overloaded_link_takes_nobody_who_has_another_way_until_it_is_relieved(story: Story) -> None:
    (direct,) = (await story.service.app(await joined(story, 1, 2))).links
    story.world.overloaded.add(direct)
    story.service.notified("N1", LinkChanged(direct, "overloaded"))
    await story.go()
    assert "link_overloaded" in await story.seen() and (await story.service.link(direct)).overloaded
    story.register(1, 2, ksid(1), name="second")
    await story.go()
    assert await story.route(ksid(1)) == [1, 4, 3, 2]
    assert await story.route((await story.service.link(direct)).apps[0]) == [1, 2]  # who is there stays
    story.register(1, 3, ksid(2), name="third")
    await story.go()
    assert await story.route(ksid(2)) == [1, 4, 3]
    story.world.overloaded.clear()
    await story.go()
    assert "link_relieved" in await story.seen()
    story.register(1, 2, ksid(3), name="fourth")
    await story.go()
    assert await story.route(ksid(3)) == [1, 2]


async def test_where_there_is_no_other_way_what_was_promised_decides(story: Story) -> None:
    (spur,) = (await story.service.app(await joined(story, 3, 5))).links
    story.world.overloaded.add(spur)
    await story.go()
    story.register(3, 5, ksid(1), name="second", qos=Qos(min_bandwidth_bps=50_000))
    story.register(3, 5, ksid(2), name="third", qos=Qos(min_bandwidth_bps=60_000))
    await story.go()
    assert await story.route(ksid(1)) == [3, 5]
    assert story.world.running[node(3)].applications[ksid(2)].admission is Admission.QOS_NOT_MET


async def test_a_stream_that_does_not_get_what_it_was_promised_moves_where_there_is_room(story: Story) -> None:
    promised = Qos(min_bandwidth_bps=40_000)
    story.register(1, 2, ksid(1), qos=promised)
    await story.go()
    story.opened(ksid(1), 1, 2)
    await story.go()
    gets = ApplicationQosUpdate(ksid(1), Qos(min_bandwidth_bps=900), unmet_min_bps=40_000)
    story.service.notified("N1", gets)
    await story.service.evaluate()
    assert await story.route(ksid(1)) == [1, 4, 3, 2]
    assert {"qos_unmet", "route_changed"} <= await story.seen()
    for number in (1, 2):  # it is promised as much as before
        assert story.world.running[node(number)].applications[ksid(1)].qos == promised
    story.service.notified("N1", ApplicationQosUpdate(ksid(1), promised))
    await story.service.evaluate()
    assert "qos_met" in await story.seen()


async def test_a_stream_that_has_no_other_way_stays(story: Story) -> None:
    stream = await joined(story, 3, 5)
    edits = len(story.world.edits)
    story.service.notified("N3", ApplicationQosUpdate(stream, Qos(min_bandwidth_bps=900), unmet_min_bps=40_000))
    story.service.notified("N3", ApplicationQosUpdate(ksid(9), Qos(min_bandwidth_bps=900), unmet_min_bps=40_000))
    await story.go()
    assert {"qos_unmet", "no_route"} <= await story.seen()
    assert len(story.world.edits) == edits


async def test_clients_of_one_node_share_a_stream(story: Story) -> None:
    stream = await joined(story, 1, 3)
    clients = (uri(3, "app"), uri(3, "other"))
    shown = await story.service.share_app(stream, clients)
    assert (shown.client_app_ids, shown.qos.clients_shared_keys) == (clients, True)
    for number in (1, 3):
        entry = story.world.running[node(number)].applications[stream]
        assert (entry.client_app_ids, entry.qos.clients_shared_keys) == (clients, True)
    for wrong in (uri(5, "far"), "urn:nowhere"):
        with pytest.raises(InvalidRequest, match="N3"):
            await story.service.share_app(stream, (uri(3, "app"), wrong))
    alone = await story.service.share_app(stream, clients[:1])
    assert (alone.client_app_ids, alone.qos.clients_shared_keys) == (clients[:1], False)
    with pytest.raises(Unknown):
        await story.service.share_app("ffff", clients)


# What operators ask ----------------------------------------------------------------------------------------------------


async def test_an_operator_makes_and_deletes_a_virtual_link(story: Story) -> None:
    made = await story.service.create_link(LinkType.VIRTUAL, "N1", str(node(5)), 5000)
    assert (made.bandwidth_bps, made.purpose, len(made.route)) == (5000, Purpose.OPERATOR, 4)
    await story.go()
    assert (await story.service.link(made.link[:13])).status is LinkStatus.ACTIVE
    await story.service.delete_link(made.link)
    assert all(made.link not in story.has(number)[0] for number in story.world.numbers)
    with pytest.raises(Unknown):
        await story.service.link(made.link)


async def test_a_deleted_fibre_link_stays_deleted_until_it_is_made_again(story: Story) -> None:
    link = next(one for one in await story.service.links() if {one.source.name, one.destination.name} == {"N1", "N2"})
    await story.service.delete_link(link.link)
    await story.go()
    await story.restart()
    assert link.link not in {one.link for one in await story.service.links()}
    again = await story.service.create_link(LinkType.PHYSICAL, "N2", "N1")
    assert again.link == link.link


async def test_what_an_operator_may_not(story: Story) -> None:
    service, stream = story.service, await joined(story, 1, 3)
    (used,) = (await service.app(stream)).links
    with pytest.raises(Conflict, match=stream):
        await service.delete_link(used)
    with pytest.raises(Conflict, match="no fibre"):
        await service.create_link(LinkType.PHYSICAL, "N1", "N2")
    with pytest.raises(Conflict, match="with this id"):
        await service.create_link(LinkType.VIRTUAL, "N1", "N3", link=used)
    with pytest.raises(NoRoute, match="bit/s"):
        await service.create_link(LinkType.VIRTUAL, "N1", "N3", 4_000_000_000)
    for wrong in ({"bandwidth_bps": -1}, {"link": "x"}, {"destination": "N1"}):
        with pytest.raises(InvalidRequest):
            await service.create_link(**{"link_type": LinkType.VIRTUAL, "source": "N1", "destination": "N3"} | wrong)  # type: ignore[arg-type]
    with pytest.raises(Unknown):
        await service.node("N9")
    with pytest.raises(Ambiguous):
        await service.node("0000")


async def test_a_refusal_by_one_node_leaves_nothing_behind(story: Story) -> None:
    before = [story.has(number) for number in story.world.numbers]
    story.world.refusing.add(node(5))
    with pytest.raises(TransactionFailed, match="N5"):
        await story.service.create_link(LinkType.VIRTUAL, "N1", "N5")
    assert [story.has(number) for number in story.world.numbers] == before


async def test_a_path_is_shown_as_it_would_be_taken(story: Story) -> None:
    path = await story.service.path("n1", "N5")
    assert path.names[0] == "N1"
    assert path.names[2:] == ("N3", "N5")
    assert len(path.links) == 3
    story.cut(3, 5)
    await story.go()
    with pytest.raises(NoRoute, match="N3-N5"):
        await story.service.path("N1", "N5")
