"""RFC 7589: NETCONF over TLS, and the name that a certificate gives its user."""

import asyncio
import contextlib
import ipaddress
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from netconf_access import (
    LOCALHOST,
    Certified,
    alone,
    authority,
    bind,
    cert_to_name,
    context,
    key_pair,
    listen,
    reachable,
    tls,
    tls_client,
    trusted,
    whoami,
)
from netconf_front import Client, Front, free_port
from rfc import case, rfc, untestable

from qswitch.protocol import netconf

CA, STRANGERS = authority("authority"), authority("strangers")
NODE = CA.issue("node", LOCALHOST)
PLAIN = CA.issue("plain")
PERSON = CA.issue(
    "Common Name",
    x509.RFC822Name("Foo.Bar@EXAMPLE.com"),
    x509.DNSName("Client.Example"),
    x509.IPAddress(ipaddress.ip_address("2001:DB8::1")),
)
BY_CA = CA.fingerprint()
ANYONE = cert_to_name(1, "specified", BY_CA, "controller")


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


def endpoint(port: int, mappings: str, trust: str = "") -> str:
    identity = f"<inline-definition>{key_pair(NODE)}</inline-definition>"
    return tls(identity, trust or trusted("ca-certs", CA.der), mappings, bind(port))


async def configure(client: Client, port: int, mappings: str, trust: str = "") -> None:
    reply = await client.edit(listen("conformance-tls", endpoint(port, mappings, trust)))
    assert not reply.errors, reply.errors
    await reachable(port)


@pytest.fixture(scope="module", autouse=True)
def _endpoint_goes(front: Front, port: int) -> Any:
    yield
    front.side("apply", listen("conformance-tls", "", "remove"))


async def refused(made: ssl.SSLContext, port: int) -> bool:
    try:
        async with tls_client(made, port):
            return False
    except (EOFError, OSError):
        return True


# The session ---------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def raw(made: ssl.SSLContext, port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=made, server_hostname="")
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


@rfc("7589", "2", "the server takes connections as a TLS server and serves NETCONF over them")
@rfc("7589", "8", "TLS 1.2 is supported")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_serving(client: Client, port: int, tmp_path: Path, version: ssl.TLSVersion) -> None:
    await configure(client, port, ANYONE)
    async with tls_client(context(tmp_path, PLAIN, NODE, version), port) as session:
        assert await whoami(session) == ("controller", "netconf-tls")


@rfc("7589", "3", "the hello ends with the end-of-message marker")
@rfc("7589", "3", "chunks follow when both list base:1.1, else end-of-message markers")
@pytest.mark.parametrize("chunks", [True, False])
async def test_framing(client: Client, port: int, tmp_path: Path, chunks: bool) -> None:
    await configure(client, port, ANYONE)
    async with raw(context(tmp_path, PLAIN, NODE), port) as (reader, writer):
        hello = await reader.readuntil(b"]]>]]>")
        assert netconf.parse_hello(hello.removesuffix(b"]]>]]>")).session_id
        version = netconf.BASE_1_1 if chunks else netconf.BASE_1_0
        rpc = netconf.build_rpc("1", b"<get><filter/></get>")
        writer.write(netconf.build_hello(netconf.Hello((version,))) + b"]]>]]>")
        writer.write(b"\n#%d\n%b\n##\n" % (len(rpc), rpc) if chunks else rpc + b"]]>]]>")
        reply = await reader.readuntil(b"\n##\n" if chunks else b"]]>]]>")
        assert reply.startswith(b"\n#") is chunks
        assert b'message-id="1"' in reply


@rfc("7589", "3", "a message may take many TLS records, and a record hold many messages")
async def test_records(client: Client, port: int, tmp_path: Path) -> None:
    await configure(client, port, ANYONE)
    async with raw(context(tmp_path, PLAIN, NODE), port) as (reader, writer):
        await reader.readuntil(b"]]>]]>")
        hello = netconf.build_hello(netconf.Hello((netconf.BASE_1_0,))) + b"]]>]]>"
        rpcs = [netconf.build_rpc(str(number), b"<get><filter/></get>") + b"]]>]]>" for number in range(3)]
        for octet in hello + rpcs[0]:
            writer.write(bytes([octet]))
            await writer.drain()
        writer.write(rpcs[1] + rpcs[2])
        for number in range(3):
            assert b'message-id="%d"' % number in await reader.readuntil(b"]]>]]>")


@rfc("7589", "4", "after close-session the server closes TLS in good order")
async def test_closing(client: Client, port: int, tmp_path: Path) -> None:
    """The end of the stream without a close_notify would be an SSLError."""
    await configure(client, port, ANYONE)
    async with tls_client(context(tmp_path, PLAIN, NODE), port) as session:
        await session.ok("<close-session/>")
        with pytest.raises(EOFError):
            await session.receive()


@rfc("7589", "4", "a client may close TLS, and the session is over")
async def test_closing_by_the_client(client: Client, port: int, tmp_path: Path) -> None:
    await configure(client, port, ANYONE)
    async with tls_client(context(tmp_path, PLAIN, NODE), port) as session:
        await session.ok("<lock><target><running/></target></lock>")
        wire: Any = session.connection
        wire.close()
        async with asyncio.timeout(10):
            while (await client.rpc("<lock><target><running/></target></lock>")).errors:
                pass
    await client.ok("<unlock><target><running/></target></unlock>")


# Certificates --------------------------------------------------------------------------------------------------------

_REFUSED = [
    case(
        "7589", "7", "without a certificate of the client there is no session", None,
        cert_to_name(1, "specified", "", "x"),
    ),
    case(
        "7589", "5", "a certificate without a path to a trusted authority is refused", STRANGERS.issue("controller"),
        cert_to_name(1, "specified", "", "controller"),
    ),
    case(
        "7589", "5", "a certificate that only vouches for itself is refused", alone("controller"),
        cert_to_name(1, "specified", "", "controller"),
    ),
    case(
        "7589", "7", "when no entry matches the session is terminated", PLAIN,
        cert_to_name(1, "specified", PERSON.fingerprint(), "controller"),
    ),
    case("7589", "7", "when no entry gives a name the session is terminated", PLAIN, cert_to_name(1, "san-any", BY_CA)),
]  # fmt: skip


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(("certificate", "mappings"), _REFUSED)
async def test_refused(
    client: Client, port: int, tmp_path: Path, certificate: Certified | None, mappings: str, version: ssl.TLSVersion
) -> None:
    await configure(client, port, mappings)
    assert await refused(context(tmp_path, certificate, NODE, version), port)


@rfc("7589", "5", "a certificate with a path over an intermediate authority is taken")
async def test_an_intermediate_authority(client: Client, port: int, tmp_path: Path) -> None:
    between = CA.issue("between", authority=True)
    await configure(client, port, cert_to_name(1, "common-name", BY_CA))
    async with tls_client(context(tmp_path, between.issue("someone"), NODE), port) as session:
        assert (await whoami(session))[0] == "someone"


@rfc("7589", "5", "a certificate that is configured as it stands is taken")
async def test_an_end_entity_certificate(client: Client, port: int, tmp_path: Path) -> None:
    single = alone("someone")
    await configure(client, port, cert_to_name(1, "common-name", single.fingerprint()), trusted("ee-certs", single.der))
    async with tls_client(context(tmp_path, single, NODE), port) as session:
        assert (await whoami(session))[0] == "someone"
    assert await refused(context(tmp_path, PLAIN, NODE), port)


_NAMES = [
    case(
        "7589", "7", "an entry matches by the fingerprint of the certificate", PERSON,
        cert_to_name(1, "specified", PERSON.fingerprint(), "me"), "me",
    ),
    case(
        "7589", "7", "an entry matches by the fingerprint of an authority in the chain", PERSON,
        cert_to_name(1, "specified", BY_CA, "me"), "me",
    ),
    case(
        "7589", "7", "the algorithm of a fingerprint is told by its first octet", PERSON,
        cert_to_name(1, "specified", PERSON.fingerprint(6), "me"), "me",
    ),
    case(
        "7589", "7", "specified gives the name of the entry", PERSON, cert_to_name(1, "specified", BY_CA, "Some One"),
        "Some One",
    ),
    case(
        "7589", "7", "san-rfc822-name gives the address, its host in small letters", PERSON,
        cert_to_name(1, "san-rfc822-name", BY_CA), "Foo.Bar@example.com",
    ),
    case(
        "7589", "7", "san-dns-name gives the name in small letters", PERSON, cert_to_name(1, "san-dns-name", BY_CA),
        "client.example",
    ),
    case(
        "7589", "7", "san-ip-address gives 32 hexadecimal digits for IPv6", PERSON, cert_to_name(1, "san-ip-address", BY_CA),
        "20010db8000000000000000000000001",
    ),
    case(
        "7589", "7", "san-ip-address gives dotted decimal for IPv4", CA.issue("x", LOCALHOST),
        cert_to_name(1, "san-ip-address", BY_CA), "127.0.0.1",
    ),
    case(
        "7589", "7", "san-any gives the first name of any of these", PERSON, cert_to_name(1, "san-any", BY_CA),
        "Foo.Bar@example.com",
    ),
    case("7589", "7", "common-name gives the common name", PERSON, cert_to_name(1, "common-name", BY_CA), "Common Name"),
    case(
        "7589", "7", "entries are considered in order", PERSON,
        cert_to_name(9, "common-name", BY_CA) + cert_to_name(3, "specified", BY_CA, "third"), "third",
    ),
    case(
        "7589", "7", "after an entry that does not match the next is considered", PERSON,
        cert_to_name(1, "specified", PLAIN.fingerprint(), "no") + cert_to_name(2, "common-name", BY_CA), "Common Name",
    ),
    case(
        "7589", "7", "after an entry that gives no name the next is considered", PLAIN,
        cert_to_name(1, "san-any", BY_CA) + cert_to_name(2, "common-name", BY_CA), "plain",
    ),
]  # fmt: skip


@rfc("7589", "7", "the name is the user of the session, as it stands")
@pytest.mark.parametrize(("certificate", "mappings", "user"), _NAMES)
async def test_names(client: Client, port: int, tmp_path: Path, certificate: Certified, mappings: str, user: str) -> None:
    await configure(client, port, mappings)
    async with tls_client(context(tmp_path, certificate, NODE), port) as session:
        assert (await whoami(session))[0] == user


@rfc("7589", "7", "an authority in the chain matches when the server holds it as trusted, and only then")
async def test_the_fingerprint_of_an_intermediate_authority(client: Client, port: int, tmp_path: Path) -> None:
    between = CA.issue("between", authority=True)
    made = context(tmp_path, between.issue("x"), NODE)
    mapping = cert_to_name(1, "specified", between.fingerprint(), "me")
    await configure(client, port, mapping, trusted("ca-certs", CA.der, between.der))
    async with tls_client(made, port) as session:
        assert (await whoami(session))[0] == "me"
    await configure(client, port, mapping)
    assert await refused(made, port)


@rfc("7589", "5", "the server presents its certificate")
async def test_the_identity_of_the_server(client: Client, port: int, tmp_path: Path) -> None:
    await configure(client, port, ANYONE)
    async with raw(context(tmp_path, PLAIN, NODE), port) as (_, writer):
        assert writer.get_extra_info("ssl_object").getpeercert(True) == NODE.der


untestable("7589", "2", "the port is 6513 unless another is configured", "the suite takes no well-known port")
untestable("7589", "6", "a client checks the identity of the server", "binds clients")
