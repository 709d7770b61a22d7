"""NETCONF over TLS (RFC 7589), the client's side of it, on a TCP connection that either side opened.

The node's certificate is checked before a byte of NETCONF passes: its chain, where an authority is configured, by OpenSSL in
the handshake; whose it is, right after (`certificates.py`). One connection carries one session.
"""

import asyncio
import socket
import ssl
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import cast

from cryptography import x509

from ..checks import TlsFacts
from ..config import NodeConfig, Timeouts, TlsAccess
from ..errors import NodeTimedOut, NodeUnreachable
from ..model import Endpoint
from . import certificates
from .wire import Attempt, Channel, Connection, Receiver

HANDSHAKE = "TLS handshake"

# By OpenSSL's X509_V_ERR_ code: what is wrong with the node's certificate, and what to do.
_OTHER_AUTHORITY = (
    "comes from an authority that the controller does not know",
    "put the authority that issued the node's certificate into the file of `ca`",
)
_UNTRUSTED = {
    **dict.fromkeys((2, 18, 19, 20, 21), _OTHER_AUTHORITY),
    9: ("is not valid yet", "set the clocks of node and controller right"),
    10: ("has expired", "give the node a new certificate, or set the clocks right"),
}
_OTHER_NODE = "compare with the certificate at the node; then correct fingerprint or server_name, or the address"
_REFUSED = "the node must trust the authority of the controller's certificate, and have a cert-to-name entry for it"


async def greet(
    sock: socket.socket, nodes: Sequence[NodeConfig], attempt: Attempt, timeouts: Timeouts, peer: Endpoint
) -> "TlsConnection":
    """Shakes hands with the TLS server on a connected socket and finds out which of the nodes it is.

    All of `nodes` are shown the same certificate. Raises NodeUnreachable or NodeTimedOut, and the socket is closed then;
    `attempt.tls` has the node's certificate when there was one to be seen.
    """
    name, host = (nodes[0].name, nodes[0].netconf.host) if len(nodes) == 1 else ("?", "")
    connection = TlsConnection("", peer, attempt)
    attempt.begin(HANDSHAKE)
    try:
        context = _context(nodes[0])
        async with asyncio.timeout(timeouts.connect):
            loop = asyncio.get_running_loop()
            await loop.create_connection(lambda: connection, sock=sock, ssl=context, server_hostname=host)
        connection.node = _recognised(connection.facts(), connection.certificate(), nodes, attempt)
    except TimeoutError as error:
        raise NodeTimedOut(name, HANDSHAKE, timeouts.connect) from error
    except OSError as error:
        raise NodeUnreachable(name, *_words(error)) from error
    except ValueError as error:
        raise NodeUnreachable(name, f"its certificate cannot be read: {error}", _OTHER_NODE) from error
    finally:
        if not connection.node:
            connection.abort()
            sock.close()
    attempt.end()
    return connection


async def look(where: Endpoint, timeouts: Timeouts) -> TlsFacts | None:
    """The certificate that is shown at an address, whoever's it is: to be shown to people, and for nothing else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = TlsConnection("", where, Attempt())
    try:
        async with asyncio.timeout(timeouts.connect):
            loop = asyncio.get_running_loop()
            await loop.create_connection(lambda: connection, where.host, where.port, ssl=context, server_hostname=where.host)
        return connection.facts()
    except (OSError, TimeoutError, ValueError):
        return None
    finally:
        connection.abort()


def _context(node: NodeConfig) -> ssl.SSLContext:
    """TLS 1.2 or later, with the controller's certificate. Raises NodeUnreachable when its files are no good."""
    access = node.tls
    assert access is not None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # OpenSSL knows no URIs: `certificates.py` tells whose it is
    context.verify_mode = ssl.CERT_REQUIRED if access.ca else ssl.CERT_NONE
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # what stands in `ca` is trusted as it stands
    try:
        context.load_cert_chain(access.certificate, access.private_key)
        if access.ca is not None:
            context.load_verify_locations(access.ca)
    except OSError as error:  # ssl.SSLError is one
        files = ", ".join(str(one) for one in (access.certificate, access.private_key, access.ca) if one)
        problem = f"the controller's own TLS files cannot be used ({files}): {error}"
        raise NodeUnreachable(node.name, problem, "see certificate, private_key and ca in controller.toml") from error
    return context


def _recognised(facts: TlsFacts, certificate: x509.Certificate, nodes: Sequence[NodeConfig], attempt: Attempt) -> str:
    """The name of the one node whose certificate this is (RFC 7589 clause 6)."""
    now = datetime.now(UTC)
    problems = {one.name: certificates.problem(certificate, one.tls, now) for one in nodes if one.tls}
    found = [name for name, problem in problems.items() if problem is None]
    shown = found or [one.name for one in nodes]
    attempt.tls = replace(facts, configured=_expected([one.tls for one in nodes if one.tls and [one.name] == shown]))
    if len(found) == 1:
        return found[0]
    if len(nodes) == 1:
        raise NodeUnreachable(nodes[0].name, f"its certificate {problems[nodes[0].name]}", _OTHER_NODE)
    whose = f"that of several nodes: {', '.join(found)}" if found else "that of no node"
    raise NodeUnreachable("?", f"its certificate is {whose}", _OTHER_NODE)


def _expected(accesses: list[TlsAccess]) -> str | None:
    return " and ".join(text for one in accesses for text in (one.fingerprint, one.server_name) if text) or None


def _words(error: OSError) -> tuple[str, str]:
    """What a failed handshake, or a connection that broke, means; and what to do."""
    if isinstance(error, ssl.SSLCertVerificationError):
        problem, advice = _UNTRUSTED.get(error.verify_code, (f"is not trusted: {error.verify_message}", ""))
        return f"its certificate {problem}", advice
    reason = (error.reason or "") if isinstance(error, ssl.SSLError) else ""
    if "ALERT" in reason and ("CERTIFICATE" in reason or "UNKNOWN_CA" in reason or "ACCESS_DENIED" in reason):
        return f"it refuses the controller's certificate: {reason.replace('_', ' ').lower()}", _REFUSED
    if reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"):
        return "no TLS server answers there", "check that the port is that of NETCONF over TLS: 6513 unless configured"
    if reason:
        words = reason.replace("_", " ").lower()
        return f"no TLS in common: {words}", "have the node offer TLS 1.2 or 1.3 with a cipher suite of today"
    return f"the connection broke: {error.strerror or error or type(error).__name__}", ""


class TlsConnection(Connection, asyncio.Protocol):
    """One TLS connection. Nothing is read before a session is carried, so nothing is lost."""

    transport, shares = "tls", False

    def __init__(self, node: str, peer: Endpoint, attempt: Attempt) -> None:
        super().__init__(node, peer, attempt)
        self._wire: asyncio.Transport | None = None
        self._receiver: Receiver | None = None
        self._ended: tuple[str, str] | None = None
        self._heard = False

    async def carry(self, receiver: Receiver, attempt: Attempt) -> Channel:  # noqa: ARG002
        if self._wire is None or self._ended is not None or self._receiver is not None:
            raise NodeUnreachable(self.node, *(self._ended or ("TLS carries one session, which is there already", "")))
        self._receiver = receiver
        receiver.opened(self._wire)
        self._wire.resume_reading()
        return self._wire

    def abort(self) -> None:
        if self._wire is not None:
            self._wire.abort()

    def certificate(self) -> x509.Certificate:
        assert self._wire is not None
        return x509.load_der_x509_certificate(self._wire.get_extra_info("ssl_object").getpeercert(binary_form=True))

    def facts(self) -> TlsFacts:
        assert self._wire is not None
        cipher_suite, version, _bits = self._wire.get_extra_info("cipher")
        return replace(certificates.facts(self.certificate()), version=version, cipher_suite=cipher_suite)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._wire = cast(asyncio.Transport, transport)  # uvloop's is one in all but its class
        self._wire.pause_reading()

    def data_received(self, data: bytes) -> None:
        self._heard = True
        if self._receiver is not None:
            self._receiver.received(data)

    def eof_received(self) -> None:
        self._end(*self._closed())

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(*(_words(exc) if isinstance(exc, OSError) else self._closed()))

    def _closed(self) -> tuple[str, str]:
        """Many servers say no more than this to a client whose certificate they do not like."""
        if self._heard:
            return "the node closed the session", ""
        return "it closed the connection after the handshake, without a word of NETCONF", f"most likely, {_REFUSED}"

    def _end(self, problem: str, advice: str) -> None:
        if self._ended is None:
            self._ended = problem, advice
            if self._receiver is not None:
                self._receiver.ended(problem, advice)
