"""NETCONF over TLS (RFC 7589): whom a certificate lets in and under which name, seen by a client at the socket."""

import asyncio
import ipaddress
import socket
import ssl
from pathlib import Path

import asyncssh
import ncclient.manager
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from netconf_access import (
    LOCALHOST,
    Certified,
    alone,
    authority,
    bind,
    cert_to_name,
    context,
    host_key,
    key_pair,
    listen,
    reachable,
    ssh,
    ssh_client,
    ssh_user,
    text,
    tls,
    tls_client,
    trusted,
    whoami,
)
from netconf_front import Front, free_port

CA = authority("authority")
NODE = CA.issue("node", LOCALHOST)
PEOPLE = CA.issue(
    "Common Name",
    x509.UniformResourceIdentifier("urn:x"),
    x509.RFC822Name("Foo.Bar@EXAMPLE.com"),
    x509.DNSName("Client.Example"),
    x509.IPAddress(ipaddress.ip_address("2001:DB8::1")),
)
PLAIN = CA.issue("plain")
BY_CA = CA.fingerprint()


pytestmark = pytest.mark.engine("builtin", reason="the module tests transports of qkd-netconf")


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


async def configure(front: Front, inside: str, name: str = "tls") -> None:
    """By NETCONF, as an operator would. It is in effect with the reply, but a new port opens in its own time."""
    async with front.connect() as client:
        reply = await client.edit(listen(name, inside))
        assert not reply.errors, reply.errors
    await reachable(int(inside.partition("<local-port>")[2].partition("<")[0]))


def endpoint(port: int, mappings: str, trust: str = "", identity: str = "") -> str:
    inline = f"<inline-definition>{key_pair(NODE)}</inline-definition>"
    return tls(identity or inline, trust or trusted("ca-certs", CA.der), mappings, bind(port))


async def refused(made: ssl.SSLContext, port: int) -> bool:
    try:
        async with tls_client(made, port):
            return False
    except (EOFError, OSError):
        return True


@pytest.mark.parametrize(
    ("certificate", "mappings", "user"),
    [
        (PEOPLE, cert_to_name(1, "specified", BY_CA, "controller"), "controller"),
        (PEOPLE, cert_to_name(1, "specified", PEOPLE.fingerprint(), "monitor"), "monitor"),
        (PEOPLE, cert_to_name(1, "specified", PEOPLE.fingerprint(2), "monitor"), "monitor"),
        (PEOPLE, cert_to_name(1, "specified", PEOPLE.fingerprint(6).upper(), "monitor"), "monitor"),
        (PEOPLE, cert_to_name(1, "specified", "", "monitor"), "monitor"),
        (PEOPLE, cert_to_name(1, "san-rfc822-name", BY_CA), "Foo.Bar@example.com"),
        (PEOPLE, cert_to_name(1, "san-dns-name", BY_CA), "client.example"),
        (PEOPLE, cert_to_name(1, "san-ip-address", BY_CA), "20010db8000000000000000000000001"),
        (CA.issue("x", LOCALHOST), cert_to_name(1, "san-ip-address", BY_CA), "127.0.0.1"),
        (PEOPLE, cert_to_name(1, "san-any", BY_CA), "Foo.Bar@example.com"),
        (PEOPLE, cert_to_name(1, "common-name", BY_CA), "Common Name"),
        # Entries are tried by id, and the next one where one gives no name.
        (PEOPLE, cert_to_name(20, "common-name") + cert_to_name(3, "san-dns-name"), "client.example"),
        (PLAIN, cert_to_name(20, "common-name") + cert_to_name(3, "san-dns-name"), "plain"),
        (PEOPLE, cert_to_name(1, "san-any", PLAIN.fingerprint()) + cert_to_name(2, "common-name"), "Common Name"),
        (PEOPLE, cert_to_name(1, "san-any", "09:aa") + cert_to_name(2, "common-name"), "Common Name"),
    ],
)
async def test_the_certificate_names_the_user(
    front: Front, port: int, tmp_path: Path, certificate: Certified, mappings: str, user: str
) -> None:
    await configure(front, endpoint(port, mappings))
    async with tls_client(context(tmp_path, certificate, NODE), port) as client:
        assert await whoami(client) == (user, "netconf-tls")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_either_version_serves(front: Front, port: int, tmp_path: Path, version: ssl.TLSVersion) -> None:
    await configure(front, endpoint(port, cert_to_name(1, "specified", BY_CA, "controller")))
    async with tls_client(context(tmp_path, PEOPLE, NODE, version), port) as client:
        await client.ok("<get-config><source><running/></source></get-config>")
        await client.ok("<close-session/>")
        with pytest.raises(EOFError):
            await client.receive()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(
    ("certificate", "mappings"),
    [
        (None, cert_to_name(1, "specified", "", "controller")),
        (authority("stranger").issue("controller"), cert_to_name(1, "specified", "", "controller")),
        (alone("controller"), cert_to_name(1, "specified", "", "controller")),
        (PLAIN, cert_to_name(1, "specified", PEOPLE.fingerprint(), "controller")),
        (PLAIN, cert_to_name(1, "san-any", BY_CA)),
        (CA.issue("root"), cert_to_name(1, "common-name", BY_CA)),
        (CA.issue("controller\x00x"), cert_to_name(1, "common-name", BY_CA)),
    ],
    ids=["none", "untrusted", "self-signed", "other fingerprint", "no name", "recovery user", "NUL"],
)
async def test_others_are_refused(
    front: Front, port: int, tmp_path: Path, certificate: Certified | None, mappings: str, version: ssl.TLSVersion
) -> None:
    await configure(front, endpoint(port, mappings))
    assert await refused(context(tmp_path, certificate, NODE, version), port)


async def test_an_end_entity_is_trusted_as_it_stands_and_vouches_for_nobody(front: Front, port: int, tmp_path: Path) -> None:
    single, issuing = alone("controller"), alone("issuer", is_authority=True)
    unknown = authority("unknown").issue("monitor")
    trust = trusted("ee-certs", single.der, issuing.der, unknown.der)
    await configure(front, endpoint(port, cert_to_name(1, "common-name"), trust))
    for one in (single, unknown):
        async with tls_client(context(tmp_path, one, NODE), port) as client:
            assert (await whoami(client))[0] in ("controller", "monitor")
    assert await refused(context(tmp_path, issuing.issue("controller"), NODE), port)
    assert await refused(context(tmp_path, PLAIN, NODE), port)


async def test_an_intermediate_authority_may_stand_between(front: Front, port: int, tmp_path: Path) -> None:
    between = CA.issue("between", authority=True)
    await configure(front, endpoint(port, cert_to_name(1, "common-name", BY_CA)))
    async with tls_client(context(tmp_path, between.issue("controller"), NODE), port) as client:
        assert await whoami(client) == ("controller", "netconf-tls")


async def test_keystore_truststore_and_cms(front: Front, port: int, tmp_path: Path) -> None:
    """By reference, in the format that the models name, with what is not the end entity's certificate first."""
    node = CA.issue("between", authority=True).issue("node", LOCALHOST)
    leafs, _, data = key_pair(node, node.cms).partition("<cert-data>")
    async with front.connect() as client:
        store = (
            '<keystore xmlns="urn:ietf:params:xml:ns:yang:ietf-keystore" '
            'xmlns:ct="urn:ietf:params:xml:ns:yang:ietf-crypto-types"><asymmetric-keys><asymmetric-key>'
            f"<name>tls</name>{leafs}<certificates><certificate><name>one</name><cert-data>{data}</certificate>"
            "</certificates></asymmetric-key></asymmetric-keys></keystore>"
            '<truststore xmlns="urn:ietf:params:xml:ns:yang:ietf-truststore"><certificate-bags><certificate-bag>'
            f"<name>people</name><certificate><name>ca</name><cert-data>{text(CA.cms)}</cert-data></certificate>"
            "</certificate-bag></certificate-bags></truststore>"
        )
        reply = await client.edit(store)
        assert not reply.errors, reply.errors
    identity = (
        "<central-keystore-reference><asymmetric-key>tls</asymmetric-key><certificate>one</certificate>"
        "</central-keystore-reference>"
    )
    trust = "<ca-certs><central-truststore-reference>people</central-truststore-reference></ca-certs>"
    await configure(front, endpoint(port, cert_to_name(1, "specified", BY_CA, "monitor"), trust, identity))
    async with tls_client(context(tmp_path, PEOPLE, node), port) as client:
        assert await whoami(client) == ("monitor", "netconf-tls")


async def test_an_endpoint_knows_only_its_own(front: Front, port: int, tmp_path: Path) -> None:
    other_ca, other = authority("other"), free_port()
    await configure(front, endpoint(port, cert_to_name(1, "common-name")))
    await configure(front, endpoint(other, cert_to_name(1, "common-name"), trusted("ca-certs", other_ca.der)), "other")
    mine, others = context(tmp_path, PLAIN, NODE), context(tmp_path, other_ca.issue("x"), NODE)
    for made, at, elsewhere in ((mine, port, other), (others, other, port)):
        async with tls_client(made, at):
            assert await refused(made, elsewhere)


async def test_a_new_certificate_holds_for_new_connections(front: Front, port: int, tmp_path: Path) -> None:
    renewed = alone("renewed", LOCALHOST)
    await configure(front, endpoint(port, cert_to_name(1, "common-name")))
    async with tls_client(context(tmp_path, PLAIN, NODE), port) as before:
        identity = f"<inline-definition>{key_pair(renewed)}</inline-definition>"
        await configure(front, endpoint(port, cert_to_name(1, "common-name"), identity=identity))
        async with tls_client(context(tmp_path, PLAIN, renewed), port):
            assert await whoami(before) == ("plain", "netconf-tls")


async def test_a_certificate_that_is_no_good_leaves_the_one_before(front: Front, port: int, tmp_path: Path) -> None:
    await configure(front, endpoint(port, cert_to_name(1, "common-name")))
    for broken in (key_pair(NODE, PLAIN.der), key_pair(NODE, b"nonsense")):
        identity = f"<inline-definition>{broken}</inline-definition>"
        await configure(front, endpoint(port, cert_to_name(1, "common-name"), identity=identity))
        async with tls_client(context(tmp_path, PLAIN, NODE), port) as client:
            assert (await whoami(client))[0] == "plain"


@pytest.mark.parametrize(
    ("mappings", "trust"),
    [
        (cert_to_name(1, "specified", "", "someone"), ""),
        (cert_to_name(1, "common-name"), trusted("ca-certs", authority("new").der)),
    ],
    ids=["name", "authority"],
)
async def test_who_is_no_longer_admitted_loses_the_session(
    front: Front, port: int, tmp_path: Path, mappings: str, trust: str
) -> None:
    trust_both = trusted("ca-certs", CA.der)
    await configure(front, endpoint(port, cert_to_name(1, "common-name"), trust_both))
    made = context(tmp_path, PLAIN, NODE)
    async with tls_client(made, port) as client:
        await configure(front, endpoint(port, mappings, trust or trust_both))
        with pytest.raises((EOFError, OSError)):
            await client.receive()


async def test_versions_and_suites_are_as_configured(front: Front, port: int, tmp_path: Path) -> None:
    hello = (
        '<hello-params xmlns:t="urn:ietf:params:xml:ns:yang:ietf-tls-common"><tls-versions><max>t:tls12</max></tls-versions>'
        "<cipher-suites><cipher-suite>TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256</cipher-suite></cipher-suites></hello-params>"
    )
    inside = endpoint(port, cert_to_name(1, "common-name"))
    await configure(front, inside.replace("</tls-server-parameters>", f"{hello}</tls-server-parameters>"))
    made = context(tmp_path, PLAIN, NODE)
    async with tls_client(made, port) as client:
        wire: asyncio.StreamWriter = client.connection  # type: ignore[assignment]
        assert wire.get_extra_info("cipher")[:2] == ("ECDHE-ECDSA-AES128-GCM-SHA256", "TLSv1.2")
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    assert await refused(made, port)


async def test_no_session_is_resumed(front: Front, port: int, tmp_path: Path) -> None:
    """Whom to trust is asked anew each time, and the client, which may have hoped for less, is served."""
    await configure(front, endpoint(port, cert_to_name(1, "common-name")))
    made = context(tmp_path, PLAIN, NODE, ssl.TLSVersion.TLSv1_2)

    def connect(session: ssl.SSLSession | None) -> tuple[ssl.SSLSession | None, bool | None, bytes]:
        with made.wrap_socket(socket.create_connection(("127.0.0.1", port)), session=session) as wire:
            return wire.session, wire.session_reused, wire.recv(4096)

    session, _, _ = await asyncio.to_thread(connect, None)
    _, reused, greeting = await asyncio.to_thread(connect, session)
    assert not reused and b"<hello" in greeting


async def test_a_public_client_is_served(front: Front, port: int, tmp_path: Path) -> None:
    await configure(front, endpoint(port, cert_to_name(1, "specified", BY_CA, "controller")))
    own, authorities = PLAIN.write(tmp_path / "own.pem"), tmp_path / "ca.pem"
    authorities.write_bytes(CA.certificate.public_bytes(Encoding.PEM))

    def tour() -> str:
        files = {
            "certfile": str(own),
            "keyfile": str(own),
            "ca_certs": str(authorities),
            "protocol": ssl.PROTOCOL_TLS_CLIENT,
        }
        with ncclient.manager.connect_tls(host="127.0.0.1", port=port, check_hostname=False, **files) as manager:
            return str(manager.get_config("running").data_xml)

    assert "<qkdn_id>" in await asyncio.to_thread(tour)


async def test_an_endpoint_changes_its_transport(front: Front, port: int, tmp_path: Path) -> None:
    await configure(front, endpoint(port, cert_to_name(1, "common-name")))
    key = asyncssh.generate_private_key("ssh-ed25519")
    await configure(front, ssh(host_key(key), ssh_user("someone", key), bind(port)))
    assert await refused(context(tmp_path, PLAIN, NODE), port)
    async with ssh_client(key, key, port) as client:
        assert await whoami(client) == ("someone", "netconf-ssh")
    await configure(front, endpoint(port, cert_to_name(1, "common-name")))
    async with tls_client(context(tmp_path, PLAIN, NODE), port) as client:
        assert await whoami(client) == ("plain", "netconf-tls")
