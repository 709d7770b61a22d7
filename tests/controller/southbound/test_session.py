"""NETCONF sessions with a real server: operations, notifications, refusals, and how a session ends."""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import asyncssh
import pytest
from lxml import etree
from netconf_front import NODE, Front
from network_facts import link, node, physical, stream, virtual

from qswitch.controller.config import NodeConfig, Timeouts
from qswitch.controller.errors import BadReply, ControllerError, NodeRefused, NodeTimedOut, NodeUnreachable
from qswitch.controller.model import Admission, Endpoint, LinkData, NodeData, NodeId, Qos, ServiceAddress
from qswitch.controller.plan import (
    NodeEdit,
    application_entries,
    link_entries,
    refusal,
    same_application,
    same_link,
)
from qswitch.controller.southbound.dialing import connect
from qswitch.controller.southbound.editing import build_config
from qswitch.controller.southbound.nodedata import FILTER, NODE as NAMESPACE, parse_node
from qswitch.controller.southbound.notifications import LinkChanged, parse_notification
from qswitch.controller.southbound.session import NetconfSession

TIMEOUTS = Timeouts(connect=5, rpc=5, poll=5)
HERE = NodeId(NODE)
DOWN = (
    f'<sdqkdn_link_down xmlns="{NAMESPACE}"><qkd_link><qkdl_id>{link(1)}</qkdl_id><reason>cut</reason></qkd_link>'
    "</sdqkdn_link_down>"
)


@dataclass
class Heard:
    events: list[etree._Element] = field(default_factory=list)
    lost: list[ControllerError] = field(default_factory=list)
    something: asyncio.Event = field(default_factory=asyncio.Event)

    def event(self, one: etree._Element) -> None:
        """A node also tells of its own sessions (RFC 6470), in its own time."""
        if etree.QName(one).namespace == NAMESPACE:
            self.events.append(one)
            self.something.set()

    def end(self, error: ControllerError) -> None:
        self.lost.append(error)
        self.something.set()

    async def wait(self) -> None:
        async with asyncio.timeout(5):
            await self.something.wait()


@asynccontextmanager
async def opened(
    config: NodeConfig, heard: Heard | None = None, timeouts: Timeouts = TIMEOUTS
) -> AsyncIterator[NetconfSession]:
    heard = heard or Heard()
    connection = await connect(config, timeouts)
    try:
        session = await NetconfSession.open(config.name, connection, timeouts, heard.event, heard.end)
        yield session
        await session.close()
    finally:
        connection.abort()


async def read(session: NetconfSession) -> NodeData:
    data = parse_node(await session.get_config(FILTER))
    assert data
    return data


async def test_what_is_put_is_read_back_and_what_is_dropped_is_gone(node_config: NodeConfig) -> None:
    address = {node(2): ServiceAddress("127.0.0.1", 4002), HERE: ServiceAddress("127.0.0.1", 4001)}
    fibre = link_entries(replace(physical(1, 1, 2), route=(HERE, node(2))), address)[HERE]
    end = link_entries(replace(virtual(2, 1, 2, 3), route=(HERE, node(2), node(3))), address)[HERE]
    middle = link_entries(replace(virtual(3, 1, 2, 3), route=(node(2), HERE, node(3))), address)[HERE]
    qos = Qos(max_bandwidth_bps=9, min_bandwidth_bps=8, jitter_ms=7, ttl_seconds=6, clients_shared_path=True, jitter_bps=5)
    application = application_entries(replace(stream(1, 1, 2, 1, qos), source=HERE, priority=3))[HERE]
    refused = refusal(HERE, stream(2, 1, 2, 1).ksid, "urn:a", ("urn:b",), Admission.NO_CONNECTION, "cut", Qos(timeout_ms=4))
    put = NodeEdit(HERE, put_links=(fibre, end, middle), put_applications=(application, *refused.put_applications))
    async with opened(node_config) as session:
        for _ in range(2):  # sent twice it does no harm
            await session.edit_config(build_config(put))
        data = await read(session)
        assert all(same_link(one, data.links[one.link]) for one in put.put_links)
        assert same_application(application, data.applications[application.ksid])
        found = data.applications[refused.applications[0]]
        assert found.qos == Qos(timeout_ms=4)
        assert (found.admission, found.admission_reason, found.remote_node) == (Admission.NO_CONNECTION, "cut", None)
        drop = NodeEdit(HERE, drop_links=put.links, drop_applications=put.applications)
        for _ in range(2):
            await session.edit_config(build_config(drop))
        data = await read(session)
        assert not data.links
        assert not data.applications


async def test_a_replaced_entry_keeps_nothing_of_the_old_one(node_config: NodeConfig) -> None:
    middle = link_entries(replace(virtual(3, 1, 2, 3), route=(node(2), HERE, node(3))), {})[HERE]
    source = link_entries(replace(virtual(3, 1, 2, 3), route=(HERE, node(3))), {})[HERE]
    async with opened(node_config) as session:
        for one in (middle, source):
            await session.edit_config(build_config(NodeEdit(HERE, put_links=(one,))))
        assert same_link(source, (await read(session)).links[source.link])
        await session.edit_config(build_config(NodeEdit(HERE, drop_links=(source.link,))))


async def test_an_rpc_error_is_a_refusal_with_its_tag_and_text(node_config: NodeConfig) -> None:
    async with opened(node_config) as session:
        with pytest.raises(NodeRefused) as refused:
            await session.edit_config(build_config(NodeEdit(HERE, put_links=(LinkData(link=link(1).replace("-", "x")),))))  # type: ignore[arg-type]
        assert refused.value.tag == "invalid-value"
        assert "qkdl_id" in refused.value.problem
        assert (await read(session)).node == HERE


async def test_locks(node_config: NodeConfig) -> None:
    async with opened(node_config) as mine, opened(node_config) as other:
        await mine.lock()
        with pytest.raises(NodeRefused) as refused:
            await other.lock()
        assert refused.value.tag == "lock-denied"
        await mine.unlock()
        await other.lock()


async def test_notifications_arrive_between_operations(front: Front, node_config: NodeConfig) -> None:
    heard = Heard()
    async with opened(node_config, heard) as session:
        await session.create_subscription()
        await asyncio.to_thread(front.side, "notify", DOWN)
        await heard.wait()
        assert parse_notification(heard.events[0]) == LinkChanged(link(1), "down", "cut")
        assert (await read(session)).node == HERE


async def test_many_operations_at_once_get_their_own_answers(node_config: NodeConfig) -> None:
    async with opened(node_config) as session:
        got = await asyncio.gather(*(session.get_config(FILTER) if one % 2 else session.get(FILTER) for one in range(40)))
        assert [parse_node(one) is not None for one in got[1::2]] == [True] * 20


async def test_an_operation_costs_no_polling_tick(node_config: NodeConfig) -> None:
    async with opened(node_config) as session:
        times = []
        for _ in range(20):
            start = time.perf_counter()
            await session.get_config(FILTER)
            times.append(time.perf_counter() - start)
    assert statistics.median(times) < 0.05  # stock ncclient's tick alone is 0.1 s


async def test_a_server_that_dies_fails_all_who_wait(front: Front, node_config: NodeConfig) -> None:
    heard = Heard()
    async with opened(node_config, heard) as session:
        assert front.process
        waiting = [asyncio.create_task(session.get(FILTER)) for _ in range(3)]
        front.process.kill()
        front.process.wait(10)
        results = await asyncio.gather(*waiting, return_exceptions=True)
        await heard.wait()
        assert all(isinstance(one, NodeUnreachable) or etree.iselement(one) for one in results)
        assert isinstance(heard.lost[0], NodeUnreachable)
        with pytest.raises(NodeUnreachable):
            await session.get(FILTER)
    front.start()
    async with opened(node_config) as session:
        assert (await read(session)).node == HERE


async def test_another_host_key_is_refused(node_config: NodeConfig) -> None:
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    with pytest.raises(NodeUnreachable, match="host key"):
        await connect(replace(node_config, host_key=other), TIMEOUTS)
    with pytest.raises(NodeUnreachable, match="host_key"):
        await connect(replace(node_config, host_key="ssh-ed25519 nonsense"), TIMEOUTS)


async def test_a_user_that_the_node_does_not_know_is_refused(node_config: NodeConfig) -> None:
    with pytest.raises(NodeUnreachable, match="'stranger'"):
        await connect(replace(node_config, username="stranger"), TIMEOUTS)


async def test_nobody_listens(node_config: NodeConfig) -> None:
    with pytest.raises(NodeUnreachable):
        await connect(replace(node_config, netconf=Endpoint("127.0.0.1", 1)), TIMEOUTS)


@asynccontextmanager
async def misbehaving(config: NodeConfig, *messages: bytes) -> AsyncIterator[NodeConfig]:
    """An SSH server that says one of these for every message it hears, and then nothing."""
    key = asyncssh.generate_private_key("ssh-ed25519")

    async def serve(process: "asyncssh.SSHServerProcess[bytes]") -> None:
        for one in messages:
            process.stdout.write(one)
            await process.stdin.readuntil(b"]]>]]>")
        await process.stdin.read()

    server = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_host_keys=[key],
        authorized_client_keys=asyncssh.import_authorized_keys(
            asyncssh.read_private_key(str(config.key)).export_public_key().decode()
        ),
        process_factory=serve,
        encoding=None,
        gss_host=None,
    )
    try:
        yield replace(
            config,
            netconf=Endpoint("127.0.0.1", server.get_port()),
            host_key=key.export_public_key().decode(),
        )
    finally:
        server.close()
        await server.wait_closed()


HELLO = (
    b'<hello xmlns="urn:ietf:params:xml:ns:netconf:base:1.0"><capabilities>'
    b"<capability>urn:ietf:params:netconf:base:1.0</capability></capabilities><session-id>1</session-id></hello>]]>]]>"
)


async def test_a_server_that_never_answers_is_timed_out_and_left(node_config: NodeConfig) -> None:
    short, heard = Timeouts(connect=5, rpc=0.2, poll=5), Heard()
    async with misbehaving(node_config, HELLO) as config, opened(config, heard, short) as session:
        with pytest.raises(NodeTimedOut) as late:
            await session.get(FILTER)
        assert late.value.operation == "Get"
        assert isinstance(heard.lost[0], NodeTimedOut)
        with pytest.raises(NodeTimedOut):
            await session.get(FILTER)


async def test_a_server_that_never_greets_is_timed_out(node_config: NodeConfig) -> None:
    async with misbehaving(node_config) as config:
        with pytest.raises(NodeTimedOut, match="hello"):
            async with opened(config, timeouts=Timeouts(connect=0.5, rpc=5, poll=5)):
                pass


@pytest.mark.parametrize(
    "bad",
    [
        b"<broken]]>]]>",
        b'<rpc-reply xmlns="urn:ietf:params:xml:ns:netconf:base:1.0" message-id="none"/>]]>]]>',
        b'<!DOCTYPE x [<!ENTITY e "e">]><notification>&e;</notification>]]>]]>',
        b'<notification xmlns="urn:ietf:params:xml:ns:netconf:notification:1.0"/>]]>]]>',
        b"\xff\xfe]]>]]>",
    ],
)
async def test_a_server_that_talks_nonsense_ends_only_its_own_session(node_config: NodeConfig, bad: bytes) -> None:
    heard = Heard()
    async with misbehaving(node_config, HELLO, b"", bad) as config, opened(config, heard) as session:
        with pytest.raises(ControllerError):
            await session.get(FILTER)
        assert isinstance(heard.lost[0], BadReply)
