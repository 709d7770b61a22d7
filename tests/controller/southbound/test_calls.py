"""Call Home (RFC 8071) at the controller: nodes that call are recognised and kept, strangers are refused."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import asyncssh
import pytest
import uvloop
from cryptography import x509
from inventory_story import Story
from netconf_access import (
    SERVER,
    Certified,
    authority,
    cert_to_name,
    host_key,
    key_pair,
    remote,
    ssh,
    ssh_user,
    tls,
    trusted,
)
from netconf_front import NODE, Front
from network_facts import link

from qswitch.controller.checks import Level, NodeCheck
from qswitch.controller.config import CallHomeConfig, NodeConfig, Timeouts, TlsAccess
from qswitch.controller.model import Endpoint, NodeId
from qswitch.controller.plan import NodeEdit
from qswitch.controller.southbound import calls
from qswitch.controller.southbound.calls import CallHome
from qswitch.controller.southbound.certificates import fingerprint
from qswitch.controller.southbound.check import Check
from qswitch.controller.southbound.inventory import NOT_CALLED, Inventory
from qswitch.controller.southbound.nodedata import NODE as NAMESPACE

TIMEOUTS = Timeouts(connect=5, rpc=5, poll=0.5)
LOOPBACK = Endpoint("127.0.0.1", 0)
CA = authority("authority")
URN = f"urn:uuid:{NODE}"
ITSELF, CONTROLLER = CA.issue("node", x509.UniformResourceIdentifier(URN)), CA.issue("controller")
ALARM = (
    f'<alarm xmlns="{NAMESPACE}"><link><qkdl_id>{link(1)}</qkdl_id><message>no light</message>'
    '<severity xmlns:t="urn:etsi:qkd:yang:etsi-qkd-node-types">t:MAJOR</severity></link></alarm>'
)


@dataclass
class Home:
    """A controller's side that waits for calls."""

    inventory: Inventory
    answering: CallHome
    story: Story

    def port(self, transport: str) -> int:
        return self.answering.addresses[transport].port

    async def check(self, name: str = "Norte") -> NodeCheck:
        return await Check(self.inventory.nodes[name], TIMEOUTS, asyncio.Lock(), self.answering.refusals).run()

    async def refused(self, count: int = 1) -> calls.Refusal:
        """The latest refusal, once there are so many."""
        async with asyncio.timeout(10):
            while len(self.answering.refusals) < count:
                await asyncio.sleep(0.01)
        return self.answering.refusals[-1]


@contextlib.asynccontextmanager
async def waiting(*nodes: NodeConfig, timeouts: Timeouts = TIMEOUTS) -> AsyncIterator[Home]:
    story = Story()
    inventory = Inventory(nodes, timeouts, story, {})
    answering = CallHome(CallHomeConfig(LOOPBACK, LOOPBACK), inventory.nodes, timeouts)
    answering.start()
    inventory.start()
    try:
        yield Home(inventory, answering, story)
    finally:
        await answering.stop()
        await inventory.stop()


@pytest.fixture
def by_ssh(node_config: NodeConfig) -> NodeConfig:
    return replace(node_config, calls=True)


@pytest.fixture
def by_tls(tmp_path: Path) -> NodeConfig:
    (tmp_path / "ca.pem").write_text(ssl.DER_cert_to_PEM_cert(CA.der))
    own = CONTROLLER.write(tmp_path / "controller.pem")
    return NodeConfig("Norte", Endpoint("", 0), calls=True, tls=TlsAccess(own, own, tmp_path / "ca.pem", URN))


@contextlib.asynccontextmanager
async def calling(front: Front, *endpoints: str) -> AsyncIterator[None]:
    """Has the node call there, and no more afterwards: what is connected stays."""
    entries = "".join(f"<endpoint><name>{number}</name>{one}</endpoint>" for number, one in enumerate(endpoints))
    client = (
        f"<netconf-client><name>controller</name><endpoints>{entries}</endpoints><connection-type><persistent/>"
        "</connection-type></netconf-client>"
    )
    async with front.connect() as operator:
        reply = await operator.edit(f"<netconf-server {SERVER}><call-home>{client}</call-home></netconf-server>")
        assert not reply.errors, reply.errors
    try:
        yield
    finally:
        async with front.connect() as operator:
            await operator.edit(f'<netconf-server {SERVER}><call-home nc:operation="remove"/></netconf-server>')


def over_ssh(front: Front, port: int) -> str:
    return ssh(host_key(front.host_key), ssh_user("controller", front.keys["controller"]), remote(port))


def over_tls(port: int, identity: Certified = ITSELF) -> str:
    own = f"<inline-definition>{key_pair(identity)}</inline-definition>"
    return tls(own, trusted("ca-certs", CA.der), cert_to_name(1, "common-name", CA.fingerprint()), remote(port))


# Nodes ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["ssh", "tls"])
async def test_a_node_that_calls_is_as_good_as_one_that_is_dialled(
    front: Front, request: pytest.FixtureRequest, transport: str
) -> None:
    async with waiting(request.getfixturevalue(f"by_{transport}")) as home:
        managed = home.inventory.nodes["Norte"]
        assert (managed.record.netconf, managed.record.problem) == (None, NOT_CALLED)
        port = home.port(transport)
        async with calling(front, over_ssh(front, port) if transport == "ssh" else over_tls(port)):
            assert await home.story.next() == "Norte connected"
            assert managed.record.netconf and managed.record.netconf.host == "127.0.0.1"
            await managed.edit(NodeEdit(NodeId(NODE), drop_links=(link(1),)))
            await asyncio.to_thread(front.side, "notify", ALARM)
            assert await home.story.next() == "Norte notified"
            assert front.process
            front.process.kill()
            front.process.wait(10)
            assert (await home.story.next()).startswith("Norte lost")
            await asyncio.to_thread(front.start)
            assert await home.story.next() == "Norte connected"  # it called again by itself


async def test_one_that_calls_again_replaces_its_older_session(front: Front, by_ssh: NodeConfig) -> None:
    async with waiting(by_ssh) as home:
        async with calling(front, over_ssh(front, home.port("ssh"))):
            assert await home.story.next() == "Norte connected"
        async with calling(front, over_ssh(front, home.port("ssh"))):
            assert await home.story.next() == "Norte lost: node Norte is not reachable: it called again"
            assert await home.story.next() == "Norte connected"


async def test_nodes_are_told_apart(front: Front, by_ssh: NodeConfig, by_tls: NodeConfig) -> None:
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    async with waiting(
        replace(by_ssh, name="Sur", host_key=other, username="reader"),
        by_ssh,
        replace(by_tls, name="Este"),
        replace(by_tls, name="Oeste", tls=replace(by_tls.tls, server_name="urn:uuid:other")),  # type: ignore[type-var]
    ) as home:
        async with calling(front, over_ssh(front, home.port("ssh"))):
            assert await home.story.next() == "Norte connected"
        async with calling(front, over_tls(home.port("tls"))):
            assert await home.story.next() == "Este connected"


async def test_a_check_uses_what_a_node_that_calls_has_opened(front: Front, by_ssh: NodeConfig, by_tls: NodeConfig) -> None:
    for config, endpoint in ((by_ssh, "ssh"), (by_tls, "tls")):
        async with waiting(config) as home:
            port = home.port(endpoint)
            async with calling(front, over_ssh(front, port) if endpoint == "ssh" else over_tls(port)):
                assert await home.story.next() == "Norte connected"
                report = await home.check()
                assert [one.about for one in report.findings if one.level is Level.WRONG] == ["agent"]
                assert (report.connect, report.transport, report.host) == ("call-home", endpoint, "127.0.0.1")
                assert report.way.startswith("the connection of the node's last call")
                assert {one.name: one.allowed for one in report.rights} == {
                    "read": True,
                    "edit": True,
                    "lock": True,
                    "subscribe": True,
                    "kill-session": None,
                }
                assert report.clock and report.clock.ahead is not None
                facts = report.ssh and report.ssh.host_key, report.tls and report.tls.names
                assert facts == ((front.host_key.get_fingerprint(), None) if endpoint == "ssh" else (None, (URN,)))
                assert home.inventory.nodes["Norte"].record.connected  # as before


# Strangers --------------------------------------------------------------------------------------------------------------


async def call_by_ssh(port: int, key: asyncssh.SSHKey, user: asyncssh.SSHKey | None = None) -> None:
    """As a node does: it dials, and is the server. Returns when the other side has closed."""
    known = asyncssh.import_authorized_keys((user or key).export_public_key().decode())
    with contextlib.suppress(asyncssh.Error, OSError):
        connection = await asyncssh.connect_reverse(
            "127.0.0.1", port, server_host_keys=[key], authorized_client_keys=known, gss_host=None
        )
        await connection.wait_closed()


async def call_by_tls(port: int, identity: Certified, folder: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.write(folder / "stranger.pem"))
    reader = asyncio.StreamReader()
    with socket.create_connection(("127.0.0.1", port)) as sock, contextlib.suppress(OSError):
        sock.setblocking(False)
        transport, _ = await asyncio.get_running_loop().connect_accepted_socket(
            lambda: asyncio.StreamReaderProtocol(reader), sock, ssl=context
        )
        assert await reader.read() == b""
        transport.close()


async def test_a_stranger_is_refused_and_shown_to_the_operator(
    by_ssh: NodeConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stranger = asyncssh.generate_private_key("ssh-ed25519")
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    async with waiting(by_ssh, replace(by_ssh, name="Sur", host_key=other)) as home:
        await call_by_ssh(home.port("ssh"), stranger)
        refusal = await home.refused()
        assert (refusal.transport, refusal.host, refusal.shown) == ("ssh", "127.0.0.1", stranger.get_fingerprint())
        assert "is that of no node that calls" in refusal.problem
        assert f"peer=127.0.0.1 shown={stranger.get_fingerprint()}" in caplog.text
        report = await home.check()
    (found,) = report.findings
    assert not report.well
    assert (found.about, found.text) == ("session", NOT_CALLED)
    assert "127.0.0.1 called at" in found.advice and stranger.get_fingerprint() in found.advice


async def test_a_stranger_over_tls_is_refused(by_tls: NodeConfig, tmp_path: Path) -> None:
    below = CA.issue("other", x509.UniformResourceIdentifier("urn:uuid:stranger"))
    outside = authority("other").issue("node", x509.UniformResourceIdentifier(URN))
    async with waiting(by_tls) as home:
        await call_by_tls(home.port("tls"), below, tmp_path)
        assert (await home.refused()).shown == fingerprint(below.certificate)
        await call_by_tls(home.port("tls"), outside, tmp_path)
        assert "an authority that the controller does not know" in (await home.refused(2)).problem


async def test_a_node_that_refuses_the_controllers_key(front: Front, by_ssh: NodeConfig) -> None:
    """It is recognised, and the operator is told what its problem is."""
    async with waiting(by_ssh) as home:
        await call_by_ssh(home.port("ssh"), front.host_key)
        assert "refuses the key of user 'controller'" in (await home.refused()).problem
        assert "refuses the key" in (home.inventory.nodes["Norte"].record.problem or "")


async def test_who_says_nothing_is_closed_in_time(by_ssh: NodeConfig, by_tls: NodeConfig) -> None:
    async with waiting(by_ssh, replace(by_tls, name="Sur"), timeouts=replace(TIMEOUTS, connect=0.2)) as home:
        for transport in ("ssh", "tls"):
            reader, writer = await asyncio.open_connection("127.0.0.1", home.port(transport))
            async with asyncio.timeout(10):
                await reader.read()  # what a client says first, and then the end
            writer.close()
        assert "within 0.2 s" in (await home.refused(2)).problem


async def test_strangers_cannot_fill_the_place(
    front: Front, by_ssh: NodeConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(calls, "MOST_OF_ONE_HOST", 3)
    async with waiting(by_ssh, timeouts=replace(TIMEOUTS, connect=2)) as home:
        port = home.port("ssh")
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(30)]
        async with asyncio.timeout(10):
            ends = await asyncio.gather(*(reader.read() for reader, _ in silent))
        assert sum(not one for one in ends) == 27  # closed at once, the others after their time
        assert caplog.text.count("call refused") == calls.LINES_A_MINUTE
        for _, writer in silent:
            writer.close()
        async with calling(front, over_ssh(front, port)):
            assert await home.story.next() == "Norte connected"


def test_lines_that_are_not_written_are_counted() -> None:
    lines = calls._Lines()
    assert [lines.take(0.0) for _ in range(calls.LINES_A_MINUTE + 5)] == [0] * calls.LINES_A_MINUTE + [None] * 5
    assert lines.take(61.0) == 5
    assert lines.take(61.0) == 0


async def test_every_address_is_one_that_nodes_can_call(by_ssh: NodeConfig, front: Front) -> None:
    """IPv4 as well as IPv6, at "::"."""
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    story = Story()
    inventory = Inventory([by_ssh], TIMEOUTS, story, {})
    answering = CallHome(CallHomeConfig(ssh=Endpoint("::", 0)), inventory.nodes, TIMEOUTS)
    answering.start()
    for host in ("127.0.0.1", "::1"):
        _, writer = await asyncio.open_connection(host, answering.addresses["ssh"].port)
        writer.close()
    await answering.stop()


async def test_only_what_somebody_is_expected_on_is_listened_to(by_ssh: NodeConfig) -> None:
    async with waiting(by_ssh) as home:
        assert list(home.answering.addresses) == ["ssh"]


def test_calls_on_the_loop_that_the_controller_runs_on(
    front: Front, by_ssh: NodeConfig, by_tls: NodeConfig, tmp_path: Path
) -> None:
    """The transports of uvloop are not those of asyncio."""
    uvloop.run(test_nodes_are_told_apart(front, by_ssh, by_tls))
    uvloop.run(test_a_stranger_over_tls_is_refused(by_tls, tmp_path))
    uvloop.run(test_who_says_nothing_is_closed_in_time(by_ssh, by_tls))
