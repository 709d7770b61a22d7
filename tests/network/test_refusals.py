"""Whoever or whatever must not get in is refused with the right error, by daemons that go on as if nothing had been.

Each case is also tested at its own part; here they meet a node of a running network.
"""

import asyncio
import re
import ssl
import struct
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from applications import application, client, pair
from ncclient import manager
from ncclient.operations import RPCError
from ncclient.transport.errors import AuthenticationError

from qswitch.app.errors import ConnectionLost, Unreachable
from qswitch.integration.emulation import Emulation
from qswitch.integration.identities import Authority, write_ssh_key
from qswitch.protocol.netconf import BASE_1_0, BASE_1_1, Framing, Hello, build_hello, parse_reply

QKDN = "urn:etsi:qkd:yang:etsi-qkd-node"
NODE = "Quintin"
LINKS = re.compile("<qkdl_id>(.*?)</qkdl_id>")


@pytest.fixture(autouse=True)
def unharmed(madrid: Emulation) -> Iterator[None]:
    """Every process runs on, and the node still serves applications."""
    before = madrid.running()
    yield
    assert madrid.running() == before

    async def draw() -> None:
        async with pair(madrid, "quintin-1", "quijote-1") as (a, b, ksid):
            assert (await a.get_key(ksid, 0)).key == (await b.get_key(ksid, 0)).key

    asyncio.run(draw())


@contextmanager
def _connect(network: Emulation, user: str = "controller", key: Path | None = None) -> Iterator[Any]:
    netconf = network.node(NODE)["netconf"]
    with manager.connect(
        host=netconf["host"],
        port=netconf["port"],
        username=user,
        key_filename=str(key or network.directory / "users" / user),
        hostkey_b64=netconf["host_key"].split()[1],
        allow_agent=False,
        look_for_keys=False,
        timeout=30,
    ) as session:
        yield session


def _link(link: str, leaves: str = "") -> str:
    return (
        '<config xmlns="urn:ietf:params:xml:ns:netconf:base:1.0">'
        f'<qkd_node xmlns="{QKDN}"><qkd_links><qkd_link><qkdl_id>{link}</qkdl_id>{leaves}</qkd_link></qkd_links></qkd_node>'
        "</config>"
    )


def _refused(network: Emulation, edit: str, user: str = "controller") -> RPCError:
    """The error of an edit, after which the session is still of use and nothing of the edit is in running."""
    with _connect(network, user) as session:
        with pytest.raises(RPCError) as refused:
            session.edit_config(edit, target="running")
        links = LINKS.findall(session.get_config("running").data_xml)
        assert links
        assert not set(links) & set(LINKS.findall(edit)), "a refused edit left something behind"
    return refused.value


def test_wrong_ssh_key(madrid: Emulation, tmp_path: Path) -> None:
    write_ssh_key(tmp_path / "wrong")
    with pytest.raises(AuthenticationError), _connect(madrid, key=tmp_path / "wrong"):
        pass


def test_unknown_user(madrid: Emulation) -> None:
    with pytest.raises(AuthenticationError), _connect(madrid, "nobody", madrid.directory / "users/controller"):
        pass


def test_write_denied_by_nacm(madrid: Emulation) -> None:
    error = _refused(madrid, _link(str(uuid.uuid4())), "operator")
    assert error.tag == "access-denied"


def test_unknown_leaf(madrid: Emulation) -> None:
    error = _refused(madrid, _link(str(uuid.uuid4()), "<no_such_leaf>1</no_such_leaf>"))
    assert error.tag == "unknown-element"
    assert "no_such_leaf" in error.info


def test_qkdl_id_that_is_no_uuid(madrid: Emulation) -> None:
    error = _refused(madrid, _link("not-a-uuid"))
    assert error.tag == "invalid-value"
    assert "not-a-uuid" in error.message


async def test_malformed_xml(madrid: Emulation) -> None:
    netconf = madrid.node(NODE)["netconf"]
    key = madrid.directory / netconf["key"]
    host_key = asyncssh.import_public_key(netconf["host_key"])
    async with asyncssh.connect(
        netconf["host"],
        netconf["port"],
        username=netconf["username"],
        client_keys=[str(key)],
        known_hosts=([host_key], [], []),
        config=None,
    ) as connection:
        writer, reader, _ = await connection.open_session(subsystem="netconf", encoding=None)
        framing = Framing()
        writer.write(framing.frame(build_hello(Hello((BASE_1_0, BASE_1_1)))))
        await _message(reader, framing)
        framing.use_chunks()
        writer.write(framing.frame(b"<rpc message-id='1'><get></rpc>"))
        reply = parse_reply(await _message(reader, framing))
    assert [error.tag for error in reply.errors] == ["malformed-message"]


async def _message(reader: Any, framing: Framing) -> bytes:
    async with asyncio.timeout(10):
        while (message := framing.next_message()) is None:
            data = await reader.read(65536)
            assert data, "the session ended"
            framing.receive(data)
    return message


async def test_004_length_of_4_gib(madrid: Emulation) -> None:
    identity, here = application(madrid, "quintin-1"), madrid.directory
    context = ssl.create_default_context(cafile=str(here / madrid.descriptor["ca"]))
    context.load_cert_chain(here / identity["cert"], here / identity["key"])
    service = madrid.node(NODE)["etsi004"]
    reader, writer = await asyncio.open_connection(service["host"], service["port"], ssl=context)
    writer.write(struct.pack(">BBBBI", 2, 1, 1, 2, 0xFFFFFFFF) + bytes(1024))
    async with asyncio.timeout(5):
        assert await reader.read() == b""
    writer.close()


async def test_client_certificate_of_another_ca(madrid: Emulation, tmp_path: Path) -> None:
    """Same names, another authority: at the application's door and at the key managers'."""
    identity = application(madrid, "quintin-1")
    stranger = Authority("another authority")
    certificate, key = stranger.issue(tmp_path, "app", identity["sae_id"], (identity["uri"],), local=True)
    real = client(madrid, "quintin-1")
    service = madrid.node(NODE)["etsi004"]
    impostor = type(real)(
        service["host"],
        service["port"],
        certificate=certificate,
        private_key=key,
        ca=madrid.directory / madrid.descriptor["ca"],
    )
    async with impostor:
        with pytest.raises((Unreachable, ConnectionLost), match="certificate"):
            await impostor.get_key(str(uuid.uuid4()), 0)
    await _lkms_refuses(madrid, tmp_path, stranger)


async def _lkms_refuses(network: Emulation, folder: Path, stranger: Authority) -> None:
    neighbour = network.node("Quijote")["qkdn_id"]
    certificate, key = stranger.issue(folder, "node", "Quijote", (f"urn:uuid:{neighbour}",), local=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(certificate, key)
    async with network.api() as api:
        endpoint = (await api.get(f"/v1/nodes/{NODE}")).json()["lkms"]
    reader, writer = await asyncio.open_connection(endpoint["address"], endpoint["port"], ssl=context)
    async with asyncio.timeout(10):
        with suppress(ssl.SSLError, ConnectionError):  # an alert, or a connection that is gone: both are a refusal
            assert await reader.read() == b"", "a key manager greeted a stranger"
    writer.close()
