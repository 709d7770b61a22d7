"""`node check`: what the report of a real node says, and for each thing that may be wrong, the words and what to do."""

import asyncio
import ssl
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncssh
import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from inventory_story import Story
from netconf_access import (
    LOCALHOST,
    Certified,
    alone,
    authority,
    bind,
    cert_to_name,
    key_pair,
    listen,
    reachable,
    tls,
    trusted,
)
from netconf_front import NODE, Front, free_port
from strange_servers import (
    NoSubsystem,
    Undecided,
    full,
    refusing,
    saying,
    silent,
    ssh_server,
    tls_server,
    tls_server_that_says_why,
)

from qswitch.controller.checks import Finding, Level, NodeCheck
from qswitch.controller.config import NodeConfig, Timeouts, TlsAccess
from qswitch.controller.model import Endpoint
from qswitch.controller.southbound.certificates import fingerprint
from qswitch.controller.southbound.check import Check
from qswitch.controller.southbound.inventory import AGENT_DOWN, ManagedNode

TIMEOUTS = Timeouts(connect=5, rpc=5, poll=5)
SHORT = Timeouts(connect=0.3, rpc=0.3, poll=5)
HELLO = (
    '<hello xmlns="urn:ietf:params:xml:ns:netconf:base:1.0"><capabilities><capability>{}</capability></capabilities>'
    "<session-id>1</session-id></hello>]]>]]>"
)
CA = authority("authority")
CONTROLLER = CA.issue("controller")


async def checked(config: NodeConfig, timeouts: Timeouts = TIMEOUTS) -> NodeCheck:
    return await Check(ManagedNode(config, timeouts, Story(), None), timeouts, asyncio.Lock()).run()


def wrong(report: NodeCheck) -> Finding:
    """The one thing that is wrong."""
    (found,) = [one for one in report.findings if one.level is Level.WRONG]
    assert not report.well
    return found


def at(config: NodeConfig, port: int) -> NodeConfig:
    return replace(config, netconf=Endpoint("127.0.0.1", port))


# A node of ours -------------------------------------------------------------------------------------------------------


async def test_a_node_whose_agent_alone_is_missing(front: Front, node_config: NodeConfig) -> None:
    async with front.connect() as client:
        (before,) = await client.ok("<get-config><source><running/></source></get-config>")
        report = await checked(node_config)
        (after,) = await client.ok("<get-config><source><running/></source></get-config>")
        await client.ok("<lock><target><candidate/></target></lock>")  # nothing was left locked, or changed in it
        await client.ok("<unlock><target><candidate/></target></unlock>")
    assert [one.text for one in before.iter()] == [one.text for one in after.iter()]
    assert wrong(report).text == AGENT_DOWN
    assert "qkd-agent" in wrong(report).advice
    assert (report.node, report.port, report.connect, report.transport) == ("Norte", front.port, "dial", "ssh")
    assert [one.name for one in report.steps] == [
        "TCP connection",
        "SSH key exchange",
        "SSH login",
        "netconf subsystem",
        "NETCONF hello",
    ]
    assert report.netconf == "1.1"
    assert all(one.offered for one in report.capabilities)
    assert [one.revision for one in report.modules] == [one.needed for one in report.modules]
    assert report.round_trip and 0 < report.round_trip.median <= report.round_trip.worst
    assert [(one.name, one.allowed) for one in report.rights] == [
        ("read", True),
        ("edit", True),
        ("lock", True),
        ("subscribe", True),
        ("kill-session", None),
    ]


async def test_what_ssh_agreed_on(front: Front, node_config: NodeConfig) -> None:
    ssh = (await checked(node_config)).ssh
    assert ssh and ssh.offered and ssh.key_exchange and ssh.cipher
    assert ssh.host_key == ssh.configured_host_key == front.host_key.get_fingerprint()
    assert ssh.key_exchange in ssh.offered["key exchange"]
    assert ssh.cipher in ssh.offered["cipher to the node"]
    assert ssh.authentication == f"publickey, ssh-ed25519 {front.keys['controller'].get_fingerprint()}"
    assert ssh.user == "controller"


async def test_the_clock_of_this_machine_is_its_own(node_config: NodeConfig) -> None:
    clock = (await checked(node_config)).clock
    assert clock and clock.ahead is not None and clock.uncertainty is not None
    assert abs(clock.ahead) <= clock.uncertainty < 1


def user(front: Front, config: NodeConfig, name: str) -> NodeConfig:
    return replace(config, username=name, key=front.key_file(name))


async def test_a_user_who_may_not_edit(front: Front, node_config: NodeConfig) -> None:
    report = await checked(user(front, node_config, "reader"))
    found = [one for one in report.findings if one.about == "rights"]
    assert [("may not edit" in one.text, "denied" in one.text, "ietf-netconf-acm" in one.advice) for one in found] == [
        (True, True, True)
    ]
    assert {one.name: one.allowed for one in report.rights}["edit"] is False


async def test_a_user_who_sees_nothing_and_hears_nothing(front: Front, node_config: NodeConfig) -> None:
    report = await checked(user(front, node_config, "blind"))
    rights = {one.name: one for one in report.rights}
    assert (rights["read"].allowed, rights["edit"].allowed, rights["subscribe"].allowed) == (False, None, False)
    assert "access control hides it" in rights["read"].how
    assert not report.well


async def test_a_lock_of_somebody_else_is_no_lack_of_rights(front: Front, node_config: NodeConfig) -> None:
    async with front.connect() as client:
        await client.ok("<lock><target><candidate/></target></lock>")
        rights = {one.name: one for one in (await checked(node_config)).rights}
    assert rights["lock"].allowed
    assert "another session has it" in rights["lock"].how
    assert "test-only" in rights["edit"].how  # the candidate is somebody else's now


# What may be wrong on the way there --------------------------------------------------------------------------------------


async def test_nobody_listens(node_config: NodeConfig) -> None:
    found = wrong(await checked(at(node_config, free_port())))
    assert (found.about, "refuses the connection" in found.text, "NETCONF server runs" in found.advice) == (
        "TCP connection",
        True,
        True,
    )


async def test_a_host_that_nobody_knows(node_config: NodeConfig) -> None:
    found = wrong(await checked(replace(node_config, netconf=Endpoint("no such host.invalid", 830))))
    assert "no address of host" in found.text


async def test_another_host_key(front: Front, node_config: NodeConfig) -> None:
    other = asyncssh.generate_private_key("ssh-ed25519")
    report = await checked(replace(node_config, host_key=other.export_public_key().decode()))
    found = wrong(report)
    assert found.about == "SSH key exchange"
    assert front.host_key.get_fingerprint() in found.text and other.get_fingerprint() in found.text
    assert "ssh-keygen -lf" in found.advice
    assert report.ssh and (report.ssh.host_key, report.ssh.configured_host_key) == (
        front.host_key.get_fingerprint(),
        other.get_fingerprint(),
    )


async def test_a_host_key_of_another_kind_is_still_shown(front: Front, node_config: NodeConfig) -> None:
    other = asyncssh.generate_private_key("ecdsa-sha2-nistp256")
    found = wrong(await checked(replace(node_config, host_key=other.export_public_key().decode())))
    assert front.host_key.get_fingerprint() in found.text and other.get_fingerprint() in found.text


async def test_of_several_host_keys_the_configured_one_is_asked_for(front: Front, node_config: NodeConfig) -> None:
    keys = [asyncssh.generate_private_key(kind) for kind in ("ssh-ed25519", "ecdsa-sha2-nistp256")]
    for key in keys:
        async with ssh_server(keys, front.keys["controller"]) as port:
            report = await checked(replace(at(node_config, port), host_key=key.export_public_key().decode()))
            assert report.ssh and report.ssh.host_key == key.get_fingerprint()


async def test_a_key_that_is_refused(front: Front, node_config: NodeConfig, tmp_path: Path) -> None:
    other = asyncssh.generate_private_key("ssh-ed25519")
    other.write_private_key(str(tmp_path / "key"))
    found = wrong(await checked(replace(node_config, key=tmp_path / "key")))
    assert found.about == "SSH login"
    assert "refuses the key of user 'controller'" in found.text and other.get_fingerprint() in found.text
    assert "ietf-netconf-server" in found.advice


async def test_a_key_of_the_controller_that_is_none(node_config: NodeConfig, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("nonsense")
    found = wrong(await checked(replace(node_config, key=tmp_path / "key")))
    assert str(tmp_path / "key") in found.text and "controller.toml" in found.advice


@pytest.mark.parametrize(
    ("options", "kind", "offered"),
    [
        ({"encryption_algs": ["aes128-cbc"]}, "cipher to the node", "aes128-cbc"),
        ({"kex_algs": ["diffie-hellman-group1-sha1"]}, "key exchange", "diffie-hellman-group1-sha1"),
        ({"encryption_algs": ["aes128-ctr"], "mac_algs": ["hmac-md5"]}, "MAC to the node", "hmac-md5"),
    ],
)
async def test_no_common_algorithm(
    front: Front, node_config: NodeConfig, options: dict[str, list[str]], kind: str, offered: str
) -> None:
    async with ssh_server([front.host_key], front.keys["controller"], **options) as port:
        report = await checked(at(node_config, port))
    found = wrong(report)
    assert f"no {kind} algorithm in common: it offers {offered}; the controller offers " in found.text
    assert report.ssh and report.ssh.offered and report.ssh.offered[kind] == (offered,)


async def test_an_ssh_server_without_netconf(front: Front, node_config: NodeConfig) -> None:
    async with ssh_server([front.host_key], front.keys["controller"], server_factory=NoSubsystem) as port:
        found = wrong(await checked(at(node_config, port)))
    assert found.about == "netconf subsystem"
    assert "without the netconf subsystem" in found.text and "830" in found.advice


async def test_a_server_that_says_why_it_ends_a_session(front: Front, node_config: NodeConfig) -> None:
    async with ssh_server([front.host_key], front.keys["controller"], refusing("no more\nsessions\n")) as port:
        found = wrong(await checked(at(node_config, port)))
    assert found.about == "NETCONF hello"
    assert found.text.startswith("the node closed ")
    assert found.text.endswith(": no more\N{REPLACEMENT CHARACTER}sessions")


async def test_a_node_that_takes_one_session_only(front: Front, node_config: NodeConfig) -> None:
    space = "urn:quantum-switch:yang:qkd-netconf-server"
    limits = '<netconf-server xmlns="urn:ietf:params:xml:ns:yang:ietf-netconf-server">{}</netconf-server>'
    one = f'<session-limits xmlns="{space}"><sessions-of-user>1</sessions-of-user></session-limits>'
    await asyncio.to_thread(front.side, "apply", limits.format(one))
    try:
        report = await checked(node_config)
    finally:
        await asyncio.to_thread(front.side, "apply", limits.format(one.replace(">1<", ">250<")))
    subscribe = {one.name: one for one in report.rights}["subscribe"]
    assert subscribe.allowed is None
    assert "takes no second session" in subscribe.how


async def test_no_common_version(front: Front, node_config: NodeConfig) -> None:
    hello = HELLO.format("urn:ietf:params:netconf:base:2.0").encode()
    async with ssh_server([front.host_key], front.keys["controller"], saying(hello)) as port:
        found = wrong(await checked(at(node_config, port)))
    assert "no NETCONF version in common: it offers urn:ietf:params:netconf:base:2.0" in found.text


async def test_a_hello_that_is_none(front: Front, node_config: NodeConfig) -> None:
    async with ssh_server([front.host_key], front.keys["controller"], saying(b"welcome ]]>]]>")) as port:
        found = wrong(await checked(at(node_config, port)))
    assert "bad message" in found.text


async def test_no_ssh_server(node_config: NodeConfig, tmp_path: Path) -> None:
    async with tls_server(tmp_path, alone("x")) as port:
        found = wrong(await checked(at(node_config, port), SHORT))
    assert found.about == "SSH key exchange"


# Time-outs say at which step ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("server", "step"), [(full, "TCP connection"), (silent, "SSH key exchange")])
async def test_a_time_out_says_at_which_step(
    node_config: NodeConfig, server: Callable[[], AbstractContextManager[int]], step: str
) -> None:
    with server() as port:
        found = wrong(await checked(at(node_config, port), SHORT))
    assert (found.about, found.text) == (step, f"it did not answer within 0.3 s: {step}")
    assert found.advice


async def test_a_login_that_is_not_answered(front: Front, node_config: NodeConfig) -> None:
    async with ssh_server([front.host_key], front.keys["controller"], server_factory=Undecided) as port:
        found = wrong(await checked(at(node_config, port), SHORT))
    assert (found.about, "0.3 s: SSH login" in found.text) == ("SSH login", True)


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ((), "0.3 s: NETCONF hello"),
        ((HELLO.format("urn:ietf:params:netconf:base:1.0").encode(),), "0.3 s: GetConfig"),
    ],
)
async def test_netconf_that_is_not_answered(
    front: Front, node_config: NodeConfig, messages: tuple[bytes, ...], words: str
) -> None:
    async with ssh_server([front.host_key], front.keys["controller"], saying(*messages)) as port:
        report = await checked(at(node_config, port), SHORT)
    found = [one for one in report.findings if words in one.text]
    assert len(found) == 1
    assert (
        "see its log" in found[0].advice
        or "log of its NETCONF server" in found[0].advice
        or "see the log" in found[0].advice
    )


# Over TLS -------------------------------------------------------------------------------------------------------------


def over_tls(config: NodeConfig, port: int, folder: Path, **access: object) -> NodeConfig:
    own = CONTROLLER.write(folder / "controller.pem")
    return replace(at(config, port), tls=TlsAccess(own, own, **access))  # type: ignore[arg-type]


def pem(file: Path, *ones: Certified) -> Path:
    file.write_text("".join(ssl.DER_cert_to_PEM_cert(one.der) for one in ones))
    return file


def expired(issuer: Certified) -> Certified:
    """As issued, a year too late."""
    one = issuer.issue("late", LOCALHOST)
    then = datetime.now(UTC) - timedelta(days=365)
    builder = (
        x509.CertificateBuilder(issuer.certificate.subject, one.certificate.subject, one.key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(then - timedelta(days=1))
        .not_valid_after(then)
        .add_extension(x509.SubjectAlternativeName([LOCALHOST]), critical=False)
    )
    return replace(one, certificate=builder.sign(issuer.key, hashes.SHA256()))


NODE_ITSELF = CA.issue("node", LOCALHOST, x509.UniformResourceIdentifier(f"urn:uuid:{NODE}"))


async def test_a_node_over_tls(front: Front, node_config: NodeConfig, tmp_path: Path) -> None:
    port = free_port()
    identity = f"<inline-definition>{key_pair(NODE_ITSELF)}</inline-definition>"
    endpoint = tls(identity, trusted("ca-certs", CA.der), cert_to_name(1, "common-name", CA.fingerprint()), bind(port))
    async with front.connect() as client:
        reply = await client.edit(listen("tls", endpoint))
        assert not reply.errors, reply.errors
    await reachable(port)
    ca = pem(tmp_path / "ca.pem", CA)
    for access in (
        {"ca": ca, "server_name": f"urn:uuid:{NODE}"},
        {"ca": ca, "server_name": "127.0.0.1"},
        {"fingerprint": fingerprint(NODE_ITSELF.certificate)},
    ):
        report = await checked(over_tls(node_config, port, tmp_path, **access))
        assert wrong(report).text == AGENT_DOWN
    assert [one.name for one in report.steps] == ["TCP connection", "TLS handshake", "NETCONF hello"]
    assert {one.name: one.allowed for one in report.rights} == {
        "read": True,
        "edit": True,
        "lock": True,
        "subscribe": True,  # on a connection of its own
        "kill-session": None,
    }
    assert report.tls and report.tls.version == "TLSv1.3" and report.tls.cipher_suite
    assert report.tls.names == ("127.0.0.1", f"urn:uuid:{NODE}")
    assert report.tls.fingerprint == report.tls.configured == fingerprint(NODE_ITSELF.certificate)
    assert [one.about for one in report.findings if one.level is Level.NOTE] == ["certificate"]  # it lasts an hour


OTHER = authority("other")


@pytest.mark.parametrize(
    ("identity", "access", "words", "advice"),
    [
        (NODE_ITSELF, {"server_name": "urn:uuid:x"}, "expected is urn:uuid:x", "compare"),
        (NODE_ITSELF, {"fingerprint": "ab" * 32}, f"configured is {'ab' * 32}", "compare"),
        (
            OTHER.issue("node", LOCALHOST),
            {"server_name": "127.0.0.1"},
            "from an authority that the controller does not",
            "ca",
        ),
        (alone("node", LOCALHOST), {"server_name": "127.0.0.1"}, "from an authority that the controller does not", "ca"),
        (expired(CA), {"server_name": "127.0.0.1"}, "its certificate has expired", "new certificate"),
    ],
)
async def test_a_certificate_that_is_not_the_nodes(
    node_config: NodeConfig, tmp_path: Path, identity: Certified, access: dict[str, str], words: str, advice: str
) -> None:
    ca = pem(tmp_path / "ca.pem", CA)
    async with tls_server(tmp_path, identity) as port:
        report = await checked(over_tls(node_config, port, tmp_path, ca=ca, **access))
    found = wrong(report)
    assert found.about == "TLS handshake"
    assert words in found.text and advice in found.advice
    assert report.tls and report.tls.fingerprint == fingerprint(identity.certificate)  # shown whatever is wrong with it


async def test_a_pinned_certificate_that_has_expired(node_config: NodeConfig, tmp_path: Path) -> None:
    late = expired(CA)
    async with tls_server(tmp_path, late) as port:
        report = await checked(over_tls(node_config, port, tmp_path, fingerprint=fingerprint(late.certificate)))
    assert "expired at" in wrong(report).text


async def test_a_node_that_refuses_the_controller(node_config: NodeConfig, tmp_path: Path) -> None:
    pin = fingerprint(NODE_ITSELF.certificate)
    async with tls_server(tmp_path, NODE_ITSELF, trusted=OTHER) as port:
        found = wrong(await checked(over_tls(node_config, port, tmp_path, fingerprint=pin)))
    assert "without a word of NETCONF" in found.text and "cert-to-name" in found.advice
    with tls_server_that_says_why(tmp_path, NODE_ITSELF, OTHER) as port:
        found = wrong(await checked(over_tls(node_config, port, tmp_path, fingerprint=pin)))
    assert "refuses the controller's certificate" in found.text and "cert-to-name" in found.advice


async def test_no_tls_server(front: Front, node_config: NodeConfig, tmp_path: Path) -> None:
    found = wrong(await checked(over_tls(node_config, front.port, tmp_path, fingerprint="00" * 32)))
    assert "no TLS server answers there" in found.text and "6513" in found.advice
    with silent() as port:
        found = wrong(await checked(over_tls(node_config, port, tmp_path, fingerprint="00" * 32), SHORT))
    assert found.text == "it did not answer within 0.3 s: TLS handshake"


async def test_files_of_the_controller_that_are_none(node_config: NodeConfig, tmp_path: Path) -> None:
    config = over_tls(node_config, 0, tmp_path, fingerprint="00" * 32)
    assert config.tls
    broken = replace(config, tls=replace(config.tls, certificate=tmp_path / "none.pem"))
    with silent() as port:
        found = wrong(await checked(at(broken, port)))
    assert "none.pem" in found.text and "controller.toml" in found.advice


def test_tls_on_the_loop_that_the_controller_runs_on(front: Front, node_config: NodeConfig, tmp_path: Path) -> None:
    """The transports of uvloop are not those of asyncio."""
    uvloop.run(test_a_node_over_tls(front, node_config, tmp_path))
    uvloop.run(test_a_node_that_refuses_the_controller(node_config, tmp_path))
    uvloop.run(test_no_tls_server(front, node_config, tmp_path))
