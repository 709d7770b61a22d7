"""Supervision: a node that is away, comes, goes and comes back."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from inventory_story import Story
from netconf_access import alone
from netconf_front import NODE, Front
from network_facts import link, physical
from strange_servers import PlainNode, tls_server

from qswitch.controller.config import NodeConfig, Timeouts, TlsAccess
from qswitch.controller.errors import NodeUnreachable
from qswitch.controller.model import Endpoint, NodeId
from qswitch.controller.plan import NodeEdit, link_entries
from qswitch.controller.southbound.certificates import fingerprint
from qswitch.controller.southbound.inventory import AGENT_DOWN, Inventory
from qswitch.controller.southbound.nodedata import EXTENSIONS, NODE as NAMESPACE
from qswitch.controller.southbound.notifications import ApplicationNew, Happening

ALARM = (
    f'<alarm xmlns="{NAMESPACE}"><link><qkdl_id>{link(1)}</qkdl_id><message>no light</message>'
    '<severity xmlns:t="urn:etsi:qkd:yang:etsi-qkd-node-types">t:MAJOR</severity></link></alarm>'
)


@pytest.fixture
async def watched(node_config: NodeConfig) -> AsyncIterator[tuple[Inventory, Story]]:
    story = Story()
    inventory = Inventory([node_config], Timeouts(connect=5, rpc=5, poll=0.5), story, {})
    inventory.start()
    yield inventory, story
    await inventory.stop()


async def test_a_node_comes_goes_and_comes_back(front: Front, watched: tuple[Inventory, Story]) -> None:
    inventory, story = watched
    managed = inventory.nodes["Norte"]
    assert await story.next() == "Norte connected"
    assert inventory.by_id(NodeId(NODE)) is managed
    assert managed.record.state is None  # no agent runs in this test
    assert managed.record.problem == AGENT_DOWN
    await asyncio.to_thread(front.side, "notify", ALARM)
    assert await story.next() == "Norte notified"
    assert story.heard == [Happening(True, "no light", "MAJOR", link=link(1))]

    assert front.process
    front.process.kill()
    front.process.wait(10)
    assert (await story.next()).startswith("Norte lost: node Norte is not reachable")
    assert not managed.record.connected
    assert managed.record.running  # what was read stays
    with pytest.raises(NodeUnreachable):
        await managed.edit(NodeEdit(NodeId(NODE), drop_links=(link(1),)))

    await asyncio.to_thread(front.start)
    assert await story.next() == "Norte connected"
    await asyncio.to_thread(front.side, "notify", ALARM)
    assert await story.next() == "Norte notified"  # subscribed again


def registration(name: str, seconds: int) -> str:
    return (
        f'<sdqkdn_application_new xmlns="{NAMESPACE}"><qkd_application><server_app_id>qkd://a/{name}</server_app_id>'
        f"<client_app_id>qkd://b/{name}</client_app_id>"
        f'<open_timeout xmlns="{EXTENSIONS}">{1000 * seconds}</open_timeout></qkd_application></sdqkdn_application_new>'
    )


async def test_a_registration_that_nobody_heard_is_told_once_it_can_be(
    front: Front, watched: tuple[Inventory, Story]
) -> None:
    """The NETCONF server was away when an application opened a stream, and the application still waits."""
    _, story = watched
    assert await story.next() == "Norte connected"
    await asyncio.to_thread(front.side, "notify", registration("before", 60))
    assert await story.next() == "Norte notified"
    for name in ("one", "two"):
        assert front.process
        front.process.kill()
        front.process.wait(10)
        assert (await story.next()).startswith("Norte lost")
        for text in (registration(name, 60), registration("impatient", 0), ALARM):
            await asyncio.to_thread(front.side, "notify", text)
        await asyncio.to_thread(front.start)
        assert {await story.next(), await story.next()} == {"Norte connected", "Norte notified"}
    await asyncio.to_thread(front.side, "notify", registration("after", 60))
    assert await story.next() == "Norte notified"
    heard = [one for one in story.heard if isinstance(one, ApplicationNew)]
    assert [one.server_app_id for one in heard] == [f"qkd://a/{name}" for name in ("before", "one", "two", "after")]
    assert all(0 < (one.open_timeout_ms or 0) < 60_000 for one in heard[1:3])


async def test_an_edit_shows_at_once_and_in_the_next_read(watched: tuple[Inventory, Story]) -> None:
    inventory, story = watched
    await story.next()
    managed, here = inventory.nodes["Norte"], NodeId(NODE)
    intent = physical(1, 10, 2)
    assert intent.source == here
    await managed.edit(NodeEdit(here, put_links=(link_entries(intent, {})[here],)))
    assert managed.record.running
    assert link(1) in managed.record.running.links
    fresh = await managed.refresh()
    assert fresh.running
    assert link(1) in fresh.running.links
    await managed.edit(NodeEdit(here, drop_links=(link(1),)))
    assert link(1) not in managed.record.running.links


async def test_a_node_without_interleave_gets_a_connection_for_notifications(tmp_path: Path) -> None:
    """TLS carries one session, and the one that listens does nothing else."""
    itself, node = alone("node"), PlainNode(NODE)
    own = alone("controller").write(tmp_path / "controller.pem")
    async with tls_server(tmp_path, itself, node=node) as port:
        access = TlsAccess(own, own, fingerprint=fingerprint(itself.certificate))
        config = NodeConfig("Sur", Endpoint("127.0.0.1", port), tls=access)
        story = Story()
        inventory = Inventory([config], Timeouts(connect=5, rpc=5, poll=5), story, {})
        inventory.start()
        try:
            assert await story.next() == "Sur connected"
            node.notify(ALARM)
            assert await story.next() == "Sur notified"
        finally:
            await inventory.stop()
    busy, listening = node.heard
    assert {"get", "get-config"} < set(busy)
    assert listening == ["create-subscription", "close-session"]
    assert inventory.nodes["Sur"].subscribed is False  # any more
