"""NETCONF over TLS (RFC 7589): a client's certificate opens a session, and says whose it is; without one there is none."""

import asyncio
import hashlib
import ipaddress
import logging
import os
import ssl
from collections.abc import Sequence
from contextlib import suppress

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ..errors import ConfigurationError
from .config import Identity, Tls
from .connections import Connection
from .server import Server

log = logging.getLogger(__name__)

_READ = 16384
_CLOSE_SECONDS = 5.0
# What each write makes a record of. A client that waits at the socket, as ncclient does, must not have the rest of a record
# inside its TLS library by then: no record is longer than what it reads at once.
_RECORD = 4096
_VERSIONS = {"tls12": ssl.TLSVersion.TLSv1_2, "tls13": ssl.TLSVersion.TLSv1_3}
# The octet before a fingerprint (RFC 7407, by RFC 5246 clause 7.4.1.4.1). MD5 names nobody here: it has collisions.
_DIGESTS = {2: "sha1", 3: "sha224", 4: "sha256", 5: "sha384", 6: "sha512"}


class TlsAccess:
    """What one endpoint offers over TLS, and to whom."""

    def __init__(self, server: Server, endpoint: str) -> None:
        self._server = server
        self._endpoint = endpoint
        self._open: dict[TlsStream, tuple[bytes, ...]] = {}  # with the chain that let it in
        self._serves: tuple[Tls, Identity] | None = None

    def update(self, parameters: Tls) -> None:
        """Serves new connections by these parameters, and ends the sessions of those whom they do not admit.

        An identity that is unusable leaves the one before in place. Raises ConfigurationError when there is none; whom
        to trust holds all the same.
        """
        self._parameters = parameters
        for stream, chain in list(self._open.items()):
            if user_of(chain, parameters) != stream.user:
                log.warning(
                    "user is no longer admitted endpoint=%s user=%r host=%s", self._endpoint, stream.user, stream.host
                )
                stream.abort()
        identity = parameters.identity or (self._serves[1] if self._serves else None)
        if identity is None:
            raise ConfigurationError(f"endpoint '{self._endpoint}'", "; ".join(parameters.problems))
        try:
            _context(parameters, identity)
        except (ssl.SSLError, ValueError) as error:
            raise ConfigurationError(f"endpoint '{self._endpoint}'", str(error)) from error
        self._serves = parameters, identity

    async def serve(self, connection: Connection) -> None:
        """Runs the session of one connection to its end. Raises OSError when the handshake fails."""
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        loop = asyncio.get_running_loop()
        assert self._serves is not None
        context = _context(*self._serves)
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, connection.socket, ssl=context)
        try:
            chain = tuple(transport.get_extra_info("ssl_object").get_verified_chain() or ())
            user = user_of(chain, self._parameters)
            if user is None:
                log.warning("certificate names no user endpoint=%s host=%s", self._endpoint, connection.host)
            elif (refusal := self._server.refusal(user)) is not None:
                log.warning("session refused user=%r host=%s problem=%s", user, connection.host, refusal)
            else:
                connection.admit()
                writer = asyncio.StreamWriter(transport, protocol, reader, loop)
                stream = TlsStream(reader, writer, user, connection)
                self._open[stream] = chain
                try:
                    connection.over(await self._server.serve(stream))
                finally:
                    del self._open[stream]
        finally:
            transport.close()


class TlsStream:
    """A TLS connection as a session's stream."""

    transport = "netconf-tls"

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, user: str, connection: Connection
    ) -> None:
        self.user, self.host, self.idle_seconds = user, connection.host, connection.idle_seconds
        self._reader, self._writer = reader, writer

    async def read(self) -> bytes:
        return await self._reader.read(_READ)

    def write(self, data: bytes) -> None:
        for start in range(0, len(data), _RECORD):
            self._writer.write(data[start : start + _RECORD])

    async def drain(self) -> None:
        await self._writer.drain()

    async def close(self) -> None:
        self._writer.close()
        with suppress(OSError, TimeoutError):
            await asyncio.wait_for(self._writer.wait_closed(), _CLOSE_SECONDS)

    def abort(self) -> None:
        self._writer.transport.abort()


def _context(parameters: Tls, identity: Identity) -> ssl.SSLContext:
    """For one connection: no later one can resume its TLS session, which would bring no chain and outlive a loss of trust.

    Raises ssl.SSLError or ValueError for parameters that are no good.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    least, greatest = parameters.versions
    # Suites are OpenSSL's choice: the one that RFC 5246 clause 9 demands has no forward secrecy, which RFC 9325 does.
    context.minimum_version = _VERSIONS.get(least, ssl.TLSVersion.TLSv1_2)
    context.maximum_version = _VERSIONS.get(greatest, ssl.TLSVersion.MAXIMUM_SUPPORTED)
    if parameters.cipher_suites:
        context.set_ciphers(":".join(parameters.cipher_suites))
    context.verify_mode = ssl.CERT_REQUIRED
    # A certificate of `ee-certs` is trusted as it stands, whoever has issued it.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 0
    if trusted := parameters.ca_certs | parameters.ee_certs:
        context.load_verify_locations(cadata=b"".join(trusted))
    _load(context, identity)
    return context


def _load(context: ssl.SSLContext, identity: Identity) -> None:
    """Gives the context its certificates and private key, which it takes from a file only.

    A memfd is one that has no name in any file system and is on no disk; it is gone when it is closed.
    """
    pem = [identity.private_key.export_private_key("pkcs8-pem")]
    pem += [x509.load_der_x509_certificate(one).public_bytes(Encoding.PEM) for one in identity.certificates]
    with os.fdopen(os.memfd_create("identity"), "wb") as file:
        file.write(b"".join(pem))
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{file.fileno()}")


# Who it is -----------------------------------------------------------------------------------------------------------


def user_of(chain: Sequence[bytes], parameters: Tls) -> str | None:
    """The NETCONF user of a verified chain (RFC 7589 clause 7): what the first entry gives that matches and gives a name."""
    if not chain or not _trusted(chain, parameters):
        return None
    certificate = x509.load_der_x509_certificate(chain[0])
    known = (chain[0], *(one for one in chain[1:] if one in parameters.ca_certs))
    for entry in parameters.mappings:
        if not entry.fingerprint or any(_is(entry.fingerprint, one) for one in known):
            name = entry.name if entry.map_type == "specified" else _NAMES[entry.map_type](certificate)
            if name and name.isprintable():  # sysrepo would stop reading at the first NUL
                return name
    return None


def _trusted(chain: Sequence[bytes], parameters: Tls) -> bool:
    """What an authority of ours has issued, or we hold ourselves: a certificate of `ee-certs` vouches for no other."""
    return chain[0] in parameters.ee_certs or any(one in parameters.ca_certs for one in chain)


def _is(fingerprint: bytes, der: bytes) -> bool:
    digest = _DIGESTS.get(fingerprint[0])
    return digest is not None and hashlib.new(digest, der, usedforsecurity=False).digest() == fingerprint[1:]


def _alternatives(certificate: x509.Certificate, *kinds: type[x509.GeneralName]) -> str | None:
    """The first subjectAltName of these kinds, as RFC 7407 writes it."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, ValueError):
        return None
    return next((_text(one) for one in names if isinstance(one, kinds)), None)


def _text(name: x509.GeneralName) -> str:
    if isinstance(name, x509.RFC822Name):
        local, _, host = name.value.rpartition("@")
        return f"{local}@{host.lower()}"
    if isinstance(name, x509.DNSName):
        return name.value.lower()
    address = name.value
    return str(address) if isinstance(address, ipaddress.IPv4Address) else address.packed.hex()


def _common_name(certificate: x509.Certificate) -> str | None:
    names = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(names[0].value) if len(names) == 1 else None


_NAMES = {
    "san-rfc822-name": lambda one: _alternatives(one, x509.RFC822Name),
    "san-dns-name": lambda one: _alternatives(one, x509.DNSName),
    "san-ip-address": lambda one: _alternatives(one, x509.IPAddress),
    "san-any": lambda one: _alternatives(one, x509.RFC822Name, x509.DNSName, x509.IPAddress),
    "common-name": _common_name,
}
