"""Links over node-disjoint paths: plans, and stories of whole networks."""

from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import pytest
from memory_network import Story, World
from network_facts import graph, ksid, link, node, physical, record, stream, uri, virtual

from qswitch.controller.assignment import MakeLink, UseLink, choose
from qswitch.controller.errors import Conflict, InvalidRequest, NoRoute, TransactionFailed
from qswitch.controller.intents import Intents
from qswitch.controller.model import (
    Admission,
    LinkIntent,
    LinkStatus,
    LinkType,
    LinkView,
    NodeId,
    Purpose,
    Qos,
    ServiceAddress,
)
from qswitch.controller.paths import Blocked
from qswitch.controller.plan import NodeEdit, Plan, all_entries, change_link, correction, same_link, strangers
from qswitch.controller.southbound.editing import build_config
from qswitch.controller.southbound.nodedata import Reader, _link
from qswitch.controller.store.sqlite import SqliteStore

# Three ways from 1 to 4, and a fourth that is longer:  1-2-4, 1-3-4, 1-5-4, 5-6-4, 1-6
WORLD = ((1, 2), (2, 4), (1, 3), (3, 4), (1, 5), (5, 6), (6, 4), (4, 7))
LKMS = {node(one): ServiceAddress("127.0.0.1", 4000 + one) for one in range(1, 8)}


def double(*routes: tuple[int, ...], number: int = 9) -> LinkIntent:
    first, *others = (tuple(map(node, one)) for one in routes)
    return LinkIntent(link(number), LinkType.VIRTUAL, first, Purpose.OPERATOR, bandwidth_bps=10_000, others=tuple(others))


OVER_2_AND_3 = double((1, 2, 4), (1, 3, 4))
OVER_2_AND_5 = double((1, 2, 4), (1, 5, 6, 4))


# Plans -----------------------------------------------------------------------------------------------------------------


def test_each_relay_has_one_component_and_the_ends_have_all_of_it() -> None:
    entries = all_entries(OVER_2_AND_3, LKMS)
    first, second = (one.link for one in OVER_2_AND_3.components())
    assert {at: set(links) for at, links in entries.items()} == {
        node(1): {link(9), first, second},
        node(2): {first},
        node(3): {second},
        node(4): {link(9), first, second},
    }
    for end, other in ((1, 4), (4, 1)):
        whole = entries[node(end)][link(9)]
        assert set(whole.components) == {first, second}
        assert (whole.previous_hop, whole.next_hops, whole.remote_node) == (None, (), node(other))
        assert whole.remote_lkms == LKMS[node(other)]
    assert {one.component_of for at in entries.values() for name, one in at.items() if name != link(9)} == {link(9)}


def test_another_route_is_another_component() -> None:
    """What is on its way over the old route and what goes over the new one never meet in a node as one link."""
    before, after = OVER_2_AND_3.components(), OVER_2_AND_5.components()
    assert before[0] == after[0]
    assert before[1].link != after[1].link
    assert double((1, 2, 4), (1, 3, 4)).components() == before
    assert {one.link for one in double((1, 2, 4), (1, 3, 4), number=8).components()}.isdisjoint(one.link for one in before)


def numbers(plan: Plan) -> list[list[str]]:
    def short(edit: NodeEdit) -> str:
        return f"{int(edit.node[-2:])}{'+' * len(edit.put_links)}{'-' * len(edit.drop_links)}"

    return [[short(edit) for edit in stage.edits] for stage in plan.stages]


def test_the_order_of_a_plan() -> None:
    assert numbers(change_link(None, OVER_2_AND_3, LKMS)) == [["2+", "3+"], ["1+++"], ["4+++"]]
    # The new relays, then the two ends, each at once; the relay that is left when nobody sends over it any more.
    assert numbers(change_link(OVER_2_AND_3, OVER_2_AND_5, LKMS)) == [["5+", "6+"], ["1++-"], ["4++-"], ["3-"]]
    assert numbers(change_link(OVER_2_AND_3, None, LKMS)) == [["1---"], ["3-", "4---", "2-"]]


def test_what_a_node_should_have_and_what_is_of_strangers() -> None:
    at_relay = correction(node(3), record(3).running, [OVER_2_AND_3], [], LKMS)  # type: ignore[arg-type]
    assert [one.link for one in at_relay.put_links] == [OVER_2_AND_3.components()[1].link]
    has = record(4, all_entries(OVER_2_AND_3, LKMS)[node(4)].values()).running
    assert has
    assert not correction(node(4), has, [OVER_2_AND_3], [], LKMS)
    assert strangers(has, [OVER_2_AND_3]) == []
    assert len(strangers(has, [])) == 3


def test_what_is_sent_is_what_is_read() -> None:
    edit = NodeEdit(node(1), tuple(all_entries(OVER_2_AND_3, LKMS)[node(1)].values()))
    read = [_link(one) for one in Reader(build_config(edit)[0]).all("qkd_links/qkd_link")]
    assert all(same_link(wanted, found) for wanted, found in zip(edit.put_links, read, strict=True))
    assert [len(one.components) for one in read] == [2, 0, 0]


async def test_intents_outlast_the_controller(tmp_path: Path) -> None:
    from qswitch.controller.intents import Change

    for _ in range(2):
        store = SqliteStore(tmp_path / "store.sqlite")
        await store.open()
        intents = Intents(store)
        await intents.load()
        known = dict(intents.links)
        await intents.settle("", Change(links={link(9): OVER_2_AND_3}))
        await store.close()
    assert known == {link(9): OVER_2_AND_3}


# Choosing --------------------------------------------------------------------------------------------------------------


def test_who_asks_for_disjoint_paths_gets_nothing_less() -> None:
    triangle = graph((1, 2, 50_000), (2, 3, 50_000), (1, 3, 50_000))
    links = {one.link: one for one in (physical(2, 1, 3), virtual(5, 1, 2, 3))}
    ends = (node(1), node(3))

    def chosen(paths: int, *more: LinkIntent) -> object:
        return choose(triangle, links | {one.link: one for one in more}, [], ends, Qos(), 1000, 10_000, paths)

    assert chosen(1) == UseLink(link(2))
    made = chosen(2)
    assert isinstance(made, MakeLink)
    assert [one.nodes for one in made.routes] == [ends, (node(1), node(2), node(3))]
    assert chosen(2, double((1, 3), (1, 2, 3), number=7)) == UseLink(link(7))
    blocked = chosen(3)
    assert isinstance(blocked, Blocked)
    assert "only 2 node-disjoint" in blocked.reason


# Stories ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def story(tmp_path: Path) -> AsyncIterator[Story]:
    story = Story(World(*WORLD), tmp_path)
    await story.start()
    yield story
    await story.service.stop()


def routes(view: LinkView) -> set[tuple[int, ...]]:
    return {tuple(int(one[-2:]) for one in path.route) for path in view.paths}


def everything(story: Story) -> list[tuple[set[object], set[object]]]:
    return [story.has(number) for number in story.world.numbers]  # type: ignore[misc]


def relays_at_most_one(story: Story, view: LinkView) -> bool:
    """No node but the ends has two components of a link."""
    for number in set(story.world.numbers) - {1, 4}:
        if len({one.link for one in view.paths} & story.has(number)[0]) > 1:
            return False
    return True


async def test_an_operator_makes_sees_and_deletes_a_link_over_two_paths(story: Story) -> None:
    before = everything(story)
    made = await story.service.create_link(LinkType.VIRTUAL, "N1", "N4", 5000, disjoint_paths=2)
    await story.go()
    view = await story.service.link(made.link)
    assert (view.disjoint_paths, view.status, view.problem) == (2, LinkStatus.ACTIVE, None)
    assert routes(view) == {(1, 2, 4), (1, 3, 4)}
    assert {one.status for one in view.paths} == {LinkStatus.ACTIVE}
    assert all([each.node for each in one.relay] == list(one.route) for one in view.paths)
    # Components are paths of their link and no links of their own to people.
    assert len(await story.service.links()) == len(WORLD) + 1
    assert relays_at_most_one(story, view)
    await story.service.delete_link(made.link)
    assert everything(story) == before


async def test_three_paths_and_no_more(story: Story) -> None:
    made = await story.service.create_link(LinkType.VIRTUAL, "N1", "N4", 5000, disjoint_paths=3)
    assert routes(made) == {(1, 2, 4), (1, 3, 4), (1, 5, 6, 4)}
    for source, destination, paths, words in (
        ("N1", "N4", 4, "only 3 node-disjoint routes join N1 and N4"),
        ("N1", "N7", 2, "only 1 node-disjoint route joins N1 and N7 .*: all pass through N4"),
    ):
        with pytest.raises(NoRoute, match=words):
            await story.service.create_link(LinkType.VIRTUAL, source, destination, 5000, disjoint_paths=paths)
        with pytest.raises(NoRoute, match=words):
            await story.service.path(source, destination, 5000, paths)
    assert [len(one.links) for one in await paths_of(story, 3)] == [2, 2, 3]
    with pytest.raises(InvalidRequest, match="from 1 to 8"):
        await story.service.create_link(LinkType.VIRTUAL, "N1", "N4", disjoint_paths=9)
    with pytest.raises(InvalidRequest, match="physical"):
        await story.service.create_link(LinkType.PHYSICAL, "N1", "N2", disjoint_paths=2)


async def paths_of(story: Story, count: int) -> list[object]:
    first = await story.service.path("N1", "N4", 0, count)
    return [first, *first.others]


async def test_every_route_reserves_the_rate(story: Story) -> None:
    await story.service.create_link(LinkType.VIRTUAL, "N1", "N4", 60_000, disjoint_paths=3)
    with pytest.raises(NoRoute, match="60000 bit/s"):
        await story.service.create_link(LinkType.VIRTUAL, "N1", "N4", 60_000)


async def test_a_broken_path_is_replaced_by_a_disjoint_one(story: Story) -> None:
    made = await story.service.create_link(LinkType.VIRTUAL, "N1", "N4", 5000, disjoint_paths=2)
    edits = len(story.world.edits)
    story.cut(2, 4)
    await story.go()
    view = await story.service.link(made.link)
    assert routes(view) == {(1, 3, 4), (1, 5, 6, 4)}
    assert (view.status, view.problem) == (LinkStatus.ACTIVE, None)
    assert relays_at_most_one(story, view)
    assert all(len(edit.put_links) < 3 for _, edit in story.world.edits[edits:])  # the path that works is left alone
    assert not story.has(2)[0] & {one.link for one in made.paths}


async def test_without_another_path_it_waits_and_never_has_fewer(story: Story) -> None:
    made = await story.service.create_link(LinkType.VIRTUAL, "N1", "N4", 5000, disjoint_paths=3)
    before = everything(story)
    story.cut(3, 4)
    await story.go(6)
    view = await story.service.link(made.link)
    assert everything(story) == before
    assert view.status is not LinkStatus.ACTIVE
    assert {int(one.route[1][-2:]): one.status for one in view.paths} == {
        2: LinkStatus.ACTIVE,
        3: LinkStatus.OFF,
        5: LinkStatus.ACTIVE,
    }
    assert view.problem is not None
    assert "only 2 node-disjoint" in view.problem
    assert [one.type for one in await story.events()].count("no_route") == 1
    story.cut(3, 4, False)
    await story.go()
    view = await story.service.link(made.link)
    assert (view.status, view.problem) == (LinkStatus.ACTIVE, None)


async def test_a_fibre_that_a_path_crosses_is_not_taken_away(story: Story) -> None:
    made = await story.service.create_link(LinkType.VIRTUAL, "N1", "N4", 5000, disjoint_paths=2)
    over = {frozenset(hop) for one in made.paths for hop in pairwise(one.route)}
    links = await story.service.links()
    for one in (one for one in links if one.type is LinkType.PHYSICAL and frozenset(one.route) in over):
        with pytest.raises(Conflict, match=made.link):
            await story.service.delete_link(one.link)


async def test_a_refusal_by_one_relay_leaves_nothing_behind(story: Story) -> None:
    before = everything(story)
    story.world.refusing.add(node(3))
    with pytest.raises(TransactionFailed, match="N3"):
        await story.service.create_link(LinkType.VIRTUAL, "N1", "N4", 5000, disjoint_paths=2)
    assert everything(story) == before


async def test_a_relay_that_lost_its_configuration_gets_its_component_again(story: Story) -> None:
    await story.service.create_link(LinkType.VIRTUAL, "N1", "N4", 5000, disjoint_paths=2)
    had = story.has(3)
    story.world.away.add(node(3))
    await story.go(1)
    story.world.running[node(3)] = story.world._blank(3)
    story.world.away.clear()
    await story.go()
    view = (await story.service.links())[-1]
    assert had[0] <= story.has(3)[0] or not any(node(3) in one.route for one in view.paths)
    edits = len(story.world.edits)
    await story.restart()
    assert len(story.world.edits) == edits


async def test_an_application_that_asks_gets_its_own_link_and_the_reason_where_there_is_none(story: Story) -> None:
    story.register(1, 4, disjoint_paths=3)
    story.register(1, 7, name="alone", disjoint_paths=2)
    await story.go(6)
    (app,) = await story.service.apps()
    assert app.disjoint_paths == 3
    view = await story.service.link(app.links[0])
    assert (view.disjoint_paths, view.purpose) == (3, Purpose.APPLICATIONS)
    for number in (1, 4):
        assert story.world.running[node(number)].applications[app.ksid].disjoint_paths == 3
    refused = {one.client_app_ids: one for one in story.world.running[node(1)].applications.values() if one.admission_reason}
    entry = refused[(uri(7, "alone"),)]
    assert (entry.admission, entry.remote_node) == (Admission.NO_CONNECTION, None)
    assert "all pass through N4" in (entry.admission_reason or "")
    story.opened(app.ksid, 1, 4)
    await story.go()
    assert (await story.service.app(app.ksid)).links == app.links  # and it is not moved to a shorter one


async def test_neighbours_that_ask_do_not_get_the_direct_link_alone(story: Story) -> None:
    story.register(1, 2, ksid(1), disjoint_paths=2)
    await story.go()
    (app,) = await story.service.apps()
    assert routes(await story.service.link(app.links[0])) == {(1, 2), (1, 3, 4, 2)}
    story.opened(app.ksid, 1, 2)
    await story.go(6)
    assert (await story.service.app(app.ksid)).links == app.links
    story.close(1, app.ksid)
    story.close(2, app.ksid)
    await story.go()
    assert len(await story.service.links()) == len(WORLD)


async def test_both_ends_ask_for_what_either_asks(story: Story) -> None:
    story.register(1, 4, ksid(2))
    story.register(4, 1, ksid(2), disjoint_paths=2)
    await story.go()
    (app,) = await story.service.apps()
    assert app.disjoint_paths == 2


def test_ids_are_of_nodes() -> None:
    assert isinstance(node(1), str)
    assert NodeId(node(1)) == OVER_2_AND_3.source
    assert OVER_2_AND_3.nodes == (node(1), node(2), node(4), node(3))
    assert stream(1, 1, 4, 9).disjoint_paths == 1
