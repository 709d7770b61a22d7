"""What [netconf] of `agent.toml` says, in the datastore and at the sockets of the server that reads it there."""

import dataclasses
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import asyncssh
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from netconf_access import Home, ssh_client, tls_client, whoami
from netconf_front import free_port

from qswitch.agent import repository
from qswitch.agent.config import AgentConfig, CallHome, load
from qswitch.agent.errors import ConfigurationError, DatastoreFailed
from qswitch.agent.model import Endpoint
from qswitch.integration.identities import Authority

TLS = """
[netconf.tls]
address = "127.0.0.1"
port = {port}
certificate = "node.pem"
private_key = "node.key"
ca = "ca.pem"
"""


def fingerprint(certificate: Path) -> str:
    return x509.load_pem_x509_certificate(certificate.read_bytes()).fingerprint(hashes.SHA256()).hex(":").upper()


def context(folder: Path, name: str) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    made.check_hostname = False
    made.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
    return made


@pytest.fixture
def people(agent_config: AgentConfig) -> Path:
    """The node's folder, with certificates of people and of the node by an authority of their own."""
    folder, authority = agent_config.file.parent, Authority("people")
    authority.write(folder / "ca.pem")
    for name in ("node", "known", "named"):
        authority.issue(folder, name, name, (), local=True)
    return folder


@pytest.fixture
def homes() -> Iterator[tuple[Home, Home]]:
    homes = Home(), Home()
    yield homes
    for home in homes:
        home.close()


def serving(config: AgentConfig) -> subprocess.Popen[bytes]:
    ready = config.file.with_name("ready")
    command = [sys.executable, "-m", "qswitch.agent.netconf.main", "--engine", "builtin", "--config", str(config.file)]
    process = subprocess.Popen([*command, "--ready-file", str(ready)])
    deadline = time.monotonic() + 20
    while not ready.exists():
        assert process.poll() is None and time.monotonic() < deadline, "qkd-netconf does not serve"
        time.sleep(0.01)
    return process


def edited(config: AgentConfig, text: str) -> AgentConfig:
    """The file with more in it, and the user `monitor` known by a certificate only."""
    known = f'fingerprint = "{fingerprint(config.file.with_name("known.pem"))}"\nrole = "monitor"'
    old = config.file.read_text()
    monitor = next(
        line for line in old.splitlines() if line.startswith("public_key") and line in old.partition("monitor")[2]
    )
    config.file.write_text(old.replace(f'{monitor}\nrole = "monitor"', known) + text)
    return load(config.file)


async def test_tls_and_call_home_from_the_first_start(
    agent_config: AgentConfig, people: Path, homes: tuple[Home, Home]
) -> None:
    port = free_port()
    calls = "".join(
        f'[[netconf.call_home]]\nname = "{transport}"\naddress = "127.0.0.1"\nport = {home.port}\n'
        f'transport = "{transport}"\n'
        for home, transport in zip(homes, ("ssh", "tls"), strict=True)
    )
    named = '[[netconf.users]]\nname = "named"\nrole = "operator"\n'
    config = edited(agent_config, TLS.format(port=port) + 'names = "common-name"\n' + calls + named)
    listen = Endpoint("127.0.0.1", free_port())
    repository.prepare(dataclasses.replace(config, netconf=dataclasses.replace(config.netconf, listen=listen)))
    process = serving(config)
    try:
        for name, user in (("known", "monitor"), ("named", "named")):
            async with tls_client(context(people, name), port) as client:
                assert await whoami(client) == (user, "netconf-tls")
        node, key = asyncssh.read_private_key(people / "host_key"), asyncssh.read_private_key(people / "controller")
        async with ssh_client(key, node, sock=await homes[0].call(), user="controller") as client:
            assert await whoami(client) == ("controller", "netconf-ssh")
        async with tls_client(context(people, "known"), sock=await homes[1].call()) as client:
            assert await whoami(client) == ("monitor", "netconf-tls")
        with pytest.raises((asyncssh.PermissionDenied, asyncssh.ConnectionLost)):
            async with ssh_client(key, node, listen.port, user="monitor"):
                pass
    finally:
        process.terminate()
        assert process.wait(15) == 0


def test_a_chain_is_kept_whole(agent_config: AgentConfig, people: Path) -> None:
    with (people / "node.pem").open("ab") as file:
        file.write((people / "ca.pem").read_bytes())
    config = edited(agent_config, TLS.format(port=free_port()))
    repository.prepare(config)
    process = serving(config)
    process.terminate()
    assert process.wait(15) == 0


REST = """
[etsi014]
address = "127.0.0.1"
port = 1
certificate = "node.pem"
private_key = "node.key"
ca = "ca.pem"
"""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (REST + "key_size = 100", r"\[etsi014\] key_size: 100 must be a multiple of 8"),
        (REST + "key_size = 16384", r"\[etsi014\] key_size: 16384 must be within min_key_size and max_key_size"),
        (REST + "max_key_per_request = 2000", r"\[etsi014\] max_key_per_request: 2000 must be within"),
        (REST + "max_key_per_request = 1000", r"max_key_per_request: 1000 keys of max_key_size are more than"),
        (REST + "max_key_count = 5", r"\[etsi014\] max_key_count: must be max_key_per_request at the least"),
        (REST + "max_SAE_ID_count = -1", r"\[etsi014\] max_SAE_ID_count: must be 0 or above"),
        (REST + "ttl_seconds = 0", r"\[etsi014\] ttl_seconds: must be above 0"),
        (REST + 'saes = { a = "b" }', r"\[etsi014\] saes: 'b' must be a URI"),
        (REST + "colour = 1", r"\[etsi014\] has unknown members: colour"),
        (TLS.format(port=0), r"\[netconf.tls\] port: 0 must be within"),
        (TLS.format(port=1), r"\[netconf.tls\] names: must be there, or a user with a fingerprint"),
        (TLS.format(port=1) + 'names = "anything"', r"\[netconf.tls\] names: 'anything' must be one of san-any"),
        (TLS.format(port=1).replace("ca = ", "xa = "), r"\[netconf.tls\] lacks 'ca'"),
        (TLS.format(port=1) + 'names = "san-any"\ncolour = 1', r"\[netconf.tls\] has unknown members: colour"),
        ('[[netconf.users]]\nname = "x"\nrole = "monitor"', r"\[netconf\] users: 'x' must have a public_key, or"),
        (
            f'[[netconf.users]]\nname = "x"\nrole = "monitor"\nfingerprint = "{"aa" * 32}"',
            r"\[netconf\] users: 'x' must have a public_key, or",
        ),
        (
            '[[netconf.users]]\nname = "x"\nrole = "monitor"\nfingerprint = "aa"',
            r"\[netconf.users\] fingerprint: 'aa' must be a SHA-256",
        ),
        (
            '[[netconf.call_home]]\nname = "x"\naddress = "::1"\nport = 1\ntransport = "quic"',
            r"\[netconf.call_home\] transport: 'quic' must be one of ssh, tls",
        ),
        (
            '[[netconf.call_home]]\nname = "x"\naddress = "::1"\nport = 1\ntransport = "tls"',
            r"\[netconf.call_home\] transport: 'tls' needs the certificate",
        ),
        (
            2 * '[[netconf.call_home]]\nname = "x"\naddress = "::1"\nport = 1\n',
            r"\[netconf\] call_home: name used twice: \['x'\]",
        ),
    ],
)
def test_errors_name_table_member_and_rule(agent_config: AgentConfig, text: str, words: str) -> None:
    agent_config.file.write_text(f"{agent_config.file.read_text()}\n{text}\n")
    with pytest.raises(ConfigurationError, match=words):
        load(agent_config.file)


@pytest.mark.parametrize("name", ["node.pem", "node.key", "ca.pem"])
def test_files_that_are_no_good_are_named(agent_config: AgentConfig, people: Path, name: str) -> None:
    config = edited(agent_config, TLS.format(port=1))
    (people / name).write_text("nonsense")
    with pytest.raises(ConfigurationError, match=name):
        repository.prepare(config)


def test_a_key_of_another_certificate_is_named(agent_config: AgentConfig, people: Path) -> None:
    config = edited(agent_config, TLS.format(port=1))
    shutil.copy(people / "known.key", people / "node.key")
    with pytest.raises(ConfigurationError, match=r"node\.pem: does not begin with the certificate of node\.key"):
        repository.prepare(config)


def test_an_address_that_is_none_is_named(agent_config: AgentConfig) -> None:
    client = CallHome("x", Endpoint("no address", 1), "ssh")
    netconf = dataclasses.replace(agent_config.netconf, call_home=(client,))
    with pytest.raises(DatastoreFailed, match="no address"):
        repository.prepare(dataclasses.replace(agent_config, netconf=netconf))
