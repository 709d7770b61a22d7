"""What the servers for applications have in common: mutual TLS, and who a caller is by its certificate."""

import ssl
from collections.abc import Mapping
from typing import Any

from ..config import TlsFiles
from ..errors import ConfigurationError


def identities(certificate: Mapping[str, Any] | None) -> frozenset[str]:
    """Who a client's certificate, which TLS has verified, says it is: its URI alternative names, else its common name.

    `certificate` is what `SSLObject.getpeercert` gives. An authority that vouches for alternative names need not have
    looked at a common name beside them.
    """
    certificate = certificate or {}
    uris = {value for kind, value in certificate.get("subjectAltName", ()) if kind == "URI"}
    names = {value for part in certificate.get("subject", ()) for kind, value in part if kind == "commonName"}
    return frozenset(uris or names)


def server_context(tls: TlsFiles) -> ssl.SSLContext:
    """For clients whose certificate chains to the authority. Raises ConfigurationError naming the file of no use."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    context.num_tickets = 0  # every connection shows its certificate
    for path in (tls.certificate, tls.private_key, tls.ca):
        if not path.is_file():
            raise ConfigurationError(str(path), "the file is not there")
    try:
        context.load_cert_chain(tls.certificate, tls.private_key)
    except (ssl.SSLError, OSError) as error:
        raise ConfigurationError(str(tls.certificate), f"certificate and private key cannot be used: {error}") from error
    try:
        context.load_verify_locations(tls.ca)
    except (ssl.SSLError, OSError) as error:
        raise ConfigurationError(str(tls.ca), f"the authority cannot be used: {error}") from error
    return context
