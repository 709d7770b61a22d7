"""All nodes or none: what is left behind when a node refuses, vanishes, or the controller dies in between."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from network_facts import ksid, link, node, record, stream, virtual

from qswitch.controller.errors import ControllerError, NodeRefused, NodeUnreachable, TransactionFailed
from qswitch.controller.intents import Change, Debt, Intents
from qswitch.controller.model import LinkId, NodeData, NodeId
from qswitch.controller.plan import NodeEdit, applied, change_application, change_link, correction
from qswitch.controller.store.sqlite import SqliteStore
from qswitch.controller.transaction import Transactions


class Network:
    """Nodes that take edits as a datastore would, unless told to fail; `calls` is who was asked, in order."""

    def __init__(self) -> None:
        self.data: dict[NodeId, NodeData] = {}
        for number in range(1, 7):
            data = record(number).running
            assert data
            self.data[data.node] = data
        self.failing: dict[NodeId, ControllerError] = {}
        self.dies_at: NodeId | None = None
        self.calls: list[NodeId] = []

    def running(self, node: NodeId) -> NodeData | None:
        return self.data[node]

    def name(self, node: NodeId) -> str:
        return node

    async def ship(self, edit: NodeEdit) -> None:
        self.calls.append(edit.node)
        await asyncio.sleep(0)
        if edit.node == self.dies_at:
            raise asyncio.CancelledError
        if edit.node in self.failing:
            raise self.failing[edit.node]
        self.data[edit.node] = applied(self.data[edit.node], edit)

    def having(self, link: LinkId) -> list[NodeId]:
        return [number for number, data in self.data.items() if link in data.links]


@pytest.fixture
async def intents(tmp_path: Path) -> AsyncIterator[Intents]:
    store = SqliteStore(tmp_path / "store.sqlite")
    await store.open()
    yield Intents(store)
    await store.close()


async def reloaded(intents: Intents) -> Intents:
    again = Intents(intents._store)
    await again.load()
    return again


NEW = virtual(9, 1, 2, 3, 4)
CREATE = change_link(None, NEW, {})
CREATED = Change(links={NEW.link: NEW})


async def test_success_is_an_intent_and_leaves_no_journal(intents: Intents) -> None:
    network = Network()
    await Transactions(intents, network).run(CREATE, CREATED)
    assert network.calls == [node(2), node(3), node(1), node(4)]
    assert network.having(link(9)) == [node(1), node(2), node(3), node(4)]
    for one in (intents, await reloaded(intents)):
        assert one.links == {link(9): NEW}
        assert one.debts == {}


@pytest.mark.parametrize("number", [1, 2, 3, 4])
async def test_one_refusal_undoes_everything(intents: Intents, number: int) -> None:
    network = Network()
    network.failing = {node(number): NodeRefused(node(number), "invalid-value", "no such interface")}
    with pytest.raises(TransactionFailed) as failed:
        await Transactions(intents, network).run(CREATE, CREATED)
    assert "no such interface" in failed.value.failed[node(number)]
    assert network.having(link(9)) == []
    again = await reloaded(intents)
    assert again.links == {}
    assert set(again.debts) <= {node(number)}


async def test_who_cannot_be_reached_to_undo_is_in_debt(intents: Intents) -> None:
    network = Network()
    network.failing = {node(4): NodeUnreachable(node(4), "gone")}
    with pytest.raises(TransactionFailed):
        await Transactions(intents, network).run(CREATE, CREATED)
    assert (await reloaded(intents)).debts == {node(4): Debt(links=(link(9),))}
    await intents.paid(node(4))
    assert (await reloaded(intents)).debts == {}


async def test_a_deletion_waits_for_nobody(intents: Intents) -> None:
    network = Network()
    transactions = Transactions(intents, network)
    await transactions.run(CREATE, CREATED)
    network.failing = {node(3): NodeUnreachable(node(3), "gone")}
    await transactions.run(change_link(NEW, None, {}), Change(links={link(9): None}))
    again = await reloaded(intents)
    assert again.links == {}
    assert again.debts == {node(3): Debt(links=(link(9),))}
    assert network.having(link(9)) == [node(3)]


async def test_a_failed_reroute_goes_back_to_the_old_route(intents: Intents) -> None:
    network = Network()
    transactions = Transactions(intents, network)
    await transactions.run(CREATE, CREATED)
    before = dict(network.data)
    new = virtual(9, 1, 5, 4)
    network.failing = {node(4): NodeRefused(node(4), "operation-failed", "no")}
    with pytest.raises(TransactionFailed):
        await transactions.run(change_link(NEW, new, {}), Change(links={link(9): new}))
    assert network.data == before
    assert (await reloaded(intents)).links == {link(9): NEW}


@pytest.mark.parametrize("number", [1, 2, 3, 4])
async def test_a_crash_in_between_leaves_debts_that_set_the_nodes_right(intents: Intents, number: int) -> None:
    network = Network()
    network.dies_at = node(number)
    with pytest.raises(asyncio.CancelledError):
        await Transactions(intents, network).run(CREATE, CREATED)
    again = await reloaded(intents)
    assert again.links == {}
    assert set(again.debts) == {node(one) for one in (1, 2, 3, 4)}
    network.dies_at = None
    for one, debt in again.debts.items():
        data = network.data[one]
        await network.ship(correction(one, data, [], [], {}, debt.links, debt.applications))
    assert network.having(link(9)) == []
    assert (await reloaded(again)).debts == again.debts


async def test_a_stream_and_its_link_are_one_change(intents: Intents) -> None:
    network = Network()
    new = stream(1, 1, 4, 9)
    plan = CREATE.then(change_application(None, new))
    network.failing = {}
    await Transactions(intents, network).run(plan, Change({link(9): NEW}, {ksid(1): new}))
    assert network.calls[-2:] == [node(1), node(4)]
    again = await reloaded(intents)
    assert again.applications == {ksid(1): new}
    assert [ksid(1) in network.data[node(one)].applications for one in (1, 2, 4)] == [True, False, True]
