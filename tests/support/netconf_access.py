"""Certificates, and the YANG data that name them, for tests of who may come to a NETCONF server, and how."""

import asyncio
import base64
import datetime
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import asyncssh
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat, pkcs7
from cryptography.x509.oid import NameOID
from netconf_front import Client, free_port

from qswitch.protocol import netconf

CT = 'xmlns:ct="urn:ietf:params:xml:ns:yang:ietf-crypto-types"'
SERVER = f'xmlns="urn:ietf:params:xml:ns:yang:ietf-netconf-server" {CT} xmlns:nc="{netconf.BASE}"'
LOCALHOST = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


@dataclass(frozen=True)
class Certified:
    """A private key, its certificate, and those who issued it."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate
    issuers: tuple[x509.Certificate, ...] = ()

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def cms(self) -> bytes:
        return pkcs7.serialize_certificates([*self.issuers, self.certificate], Encoding.DER)

    def fingerprint(self, octet: int = 4) -> str:
        algorithm = {2: hashes.SHA1(), 4: hashes.SHA256(), 6: hashes.SHA512()}[octet]
        return bytes([octet, *self.certificate.fingerprint(algorithm)]).hex(":")

    def issue(self, name: str, *alternatives: x509.GeneralName, authority: bool = False) -> "Certified":
        return _certified(name, alternatives, authority, self)

    def write(self, file: Path) -> Path:
        """Key and certificates in one PEM file."""
        pem = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        certificates = (self.certificate, *self.issuers[:-1])
        file.write_bytes(pem + b"".join(one.public_bytes(Encoding.PEM) for one in certificates))
        return file


def authority(name: str) -> Certified:
    return _certified(name, (), True, None)


def alone(name: str, *alternatives: x509.GeneralName, is_authority: bool = False) -> Certified:
    """A certificate that vouches for itself."""
    return _certified(name, alternatives, is_authority, None)


def _certified(
    name: str, alternatives: Sequence[x509.GeneralName], is_authority: bool, issuer: Certified | None
) -> Certified:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
    )
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    certificate = builder.sign(issuer.key if issuer else key, hashes.SHA256())
    return Certified(key, certificate, (issuer.certificate, *issuer.issuers) if issuer else ())


# YANG data -----------------------------------------------------------------------------------------------------------


def key_pair(one: Certified, certificate: bytes | None = None) -> str:
    """The leafs of an asymmetric key with its certificate, as they stand in an inline-definition."""
    private = one.key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    public = one.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return (
        f"<public-key-format>ct:subject-public-key-info-format</public-key-format><public-key>{text(public)}</public-key>"
        "<private-key-format>ct:ec-private-key-format</private-key-format>"
        f"<cleartext-private-key>{text(private)}</cleartext-private-key>"
        f"<cert-data>{text(certificate or one.der)}</cert-data>"
    )


def trusted(kind: str, *ones: bytes) -> str:
    """`ca-certs` or `ee-certs` in place."""
    entries = "".join(
        f"<certificate><name>{number}</name><cert-data>{text(one)}</cert-data></certificate>"
        for number, one in enumerate(ones)
    )
    return f"<{kind}><inline-definition>{entries}</inline-definition></{kind}>"


def cert_to_name(number: int, map_type: str, fingerprint: str = "", name: str = "") -> str:
    return (
        f"<cert-to-name><id>{number}</id>{f'<fingerprint>{fingerprint}</fingerprint>' if fingerprint else ''}"
        f'<map-type xmlns:x="urn:ietf:params:xml:ns:yang:ietf-x509-cert-to-name">x:{map_type}</map-type>'
        f"{f'<name>{name}</name>' if name else ''}</cert-to-name>"
    )


def tls(identity: str, trust: str, mappings: str, tcp: str) -> str:
    """The container `tls` of an endpoint."""
    return (
        f"<tls>{tcp}<tls-server-parameters><server-identity><certificate>{identity}</certificate></server-identity>"
        f"<client-authentication>{trust}</client-authentication></tls-server-parameters><netconf-server-parameters>"
        f"<client-identity-mappings>{mappings}</client-identity-mappings></netconf-server-parameters></tls>"
    )


def host_key(key: asyncssh.SSHKey, name: str = "key") -> str:
    return (
        f"<host-key><name>{name}</name><public-key><inline-definition>"
        "<public-key-format>ct:ssh-public-key-format</public-key-format>"
        f"<public-key>{text(key.public_data)}</public-key>"
        '<private-key-format xmlns:ln="urn:cesnet:libnetconf2-netconf-server">ln:private-key-info-format'
        "</private-key-format>"
        f"<cleartext-private-key>{text(key.export_private_key('pkcs8-der'))}</cleartext-private-key>"
        "</inline-definition></public-key></host-key>"
    )


def ssh_user(name: str, *keys: asyncssh.SSHKey) -> str:
    entries = "".join(
        f"<public-key><name>{number}</name><public-key-format>ct:ssh-public-key-format</public-key-format>"
        f"<public-key>{text(key.public_data)}</public-key></public-key>"
        for number, key in enumerate(keys)
    )
    return f"<user><name>{name}</name><public-keys><inline-definition>{entries}</inline-definition></public-keys></user>"


def ssh(host_keys: str, users: str, tcp: str) -> str:
    """The container `ssh` of an endpoint."""
    return (
        f"<ssh>{tcp}<ssh-server-parameters><server-identity>{host_keys}</server-identity>"
        f"<client-authentication><users>{users}</users></client-authentication></ssh-server-parameters></ssh>"
    )


def bind(port: int) -> str:
    return (
        "<tcp-server-parameters><local-bind><local-address>127.0.0.1</local-address>"
        f"<local-port>{port}</local-port></local-bind></tcp-server-parameters>"
    )


def remote(port: int) -> str:
    return (
        "<tcp-client-parameters><remote-address>127.0.0.1</remote-address>"
        f"<remote-port>{port}</remote-port></tcp-client-parameters>"
    )


def listen(name: str, inside: str, operation: str = "replace") -> str:
    """An endpoint of `listen`."""
    endpoint = f'<endpoint nc:operation="{operation}"><name>{name}</name>{inside}</endpoint>'
    return f"<netconf-server {SERVER}><listen><endpoints>{endpoint}</endpoints></listen></netconf-server>"


# Clients -------------------------------------------------------------------------------------------------------------


def context(
    folder: Path, identity: Certified | None, server: Certified, greatest: ssl.TLSVersion | None = None
) -> ssl.SSLContext:
    """A TLS client that takes exactly one server for the right one."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    made.load_verify_locations(cadata=server.der)
    if greatest is not None:
        made.maximum_version = greatest
    if identity is not None:
        made.load_cert_chain(identity.write(folder / "client.pem"))
    return made


@asynccontextmanager
async def tls_client(made: ssl.SSLContext, port: int = 0, sock: Any = None) -> AsyncIterator[Client]:
    """A greeted client, on a port or on a connection that is there. EOFError or OSError: the server refused it."""
    where: dict[str, Any] = {"sock": sock} if sock else {"host": "127.0.0.1", "port": port}
    reader, writer = await asyncio.open_connection(**where, ssl=made, server_hostname="")
    try:
        client = Client(cast(Any, writer), cast(Any, writer), cast(Any, reader))
        await client.greet(netconf.BASE_1_1)
        yield client
    finally:
        writer.transport.abort()


@asynccontextmanager
async def ssh_client(
    key: asyncssh.SSHKey, node: asyncssh.SSHKey | None, port: int = 0, sock: Any = None, user: str = "someone"
) -> AsyncIterator[Client]:
    """The same over SSH, to a server with exactly this host key. None: any."""
    known: Any = None if node is None else ([node.convert_to_public()], [], [])
    options = asyncssh.SSHClientConnectionOptions(
        username=user, client_keys=[key], known_hosts=known, config=None, gss_host=None
    )
    connecting = asyncssh.run_client(sock, options=options) if sock else asyncssh.connect("127.0.0.1", port, options=options)
    async with connecting as connection:
        stdin, stdout, _ = await connection.open_session(subsystem="netconf", encoding=None)
        client = Client(connection, stdin, stdout)
        await client.greet(netconf.BASE_1_1)
        yield client


class Home:
    """A client's port, where nodes call; it may be given up and taken again."""

    def __init__(self) -> None:
        self.port = free_port()
        self._listener: socket.socket | None = None
        self.open()

    def open(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._listener.setblocking(False)

    def close(self) -> None:
        if self._listener is not None:
            self._listener.close()

    async def call(self, seconds: float = 20) -> socket.socket:
        """The next connection. Raises TimeoutError."""
        assert self._listener is not None
        async with asyncio.timeout(seconds):
            connection, _ = await asyncio.get_running_loop().sock_accept(self._listener)
        connection.setblocking(False)
        return connection


async def reachable(port: int) -> None:
    """Returns once something listens there; within some seconds, or TimeoutError."""
    async with asyncio.timeout(10):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.01)
            else:
                writer.transport.abort()
                return


async def ended(client: Client) -> bool:
    """Whether the server ends the session within some seconds, and says nothing before."""
    try:
        async with asyncio.timeout(10):
            await client.receive()
    except (EOFError, OSError, asyncssh.Error):
        return True
    except TimeoutError:
        pass
    return False


async def whoami(client: Client) -> tuple[str, str]:
    """User and transport of a session, as ietf-netconf-monitoring has them."""
    assert client.hello is not None
    space = "urn:ietf:params:xml:ns:yang:ietf-netconf-monitoring"
    (data,) = await client.ok(f'<get><filter><netconf-state xmlns="{space}"><sessions/></netconf-state></filter></get>')
    for session in data.iter(f"{{{space}}}session"):
        if session.findtext(f"{{{space}}}session-id") == str(client.hello.session_id):
            transport = session.findtext(f"{{{space}}}transport") or ""
            return session.findtext(f"{{{space}}}username") or "", transport.rpartition(":")[2]
    raise AssertionError("the session is not listed")
