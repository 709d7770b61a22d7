"""Whose certificate is it: fingerprints and subject alternative names (RFC 7589 clause 6, RFC 6125 clause 6). Pure.

A name is a DNS name, an IP address, or a URI such as `urn:uuid:QKDN_ID`. The common name counts for nothing, and there are
no wildcards: a node is one machine.
"""

import ipaddress
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from ..checks import TlsFacts
from ..config import TlsAccess
from .wire import one_line


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256, lower case hexadecimal."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def names(certificate: x509.Certificate) -> tuple[str, ...]:
    """The subject alternative names of the kinds that a node may be known by, fit to be shown."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return ()
    kinds = (x509.DNSName, x509.UniformResourceIdentifier, x509.IPAddress)
    return tuple(one_line(str(one.value)) for one in found if isinstance(one, kinds))


def is_named(certificate: x509.Certificate, name: str) -> bool:
    """Whether the certificate has this subject alternative name."""
    return _comparable(name) in {_comparable(one) for one in names(certificate)}


def _comparable(name: str) -> str:
    """DNS names are the same in upper and lower case; of URIs nobody knows."""
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name if ":" in name else name.lower().removesuffix(".")


def problem(certificate: x509.Certificate, access: TlsAccess, now: datetime) -> str | None:
    """Why this is not the certificate of the node, None when it is. The chain of authorities is OpenSSL's to check."""
    if access.fingerprint is not None and fingerprint(certificate) != access.fingerprint:
        return f"has the fingerprint {fingerprint(certificate)}, configured is {access.fingerprint}"
    if access.server_name is not None and not is_named(certificate, access.server_name):
        return f"is for {', '.join(names(certificate)) or 'nobody by name'}, expected is {access.server_name}"
    return validity_problem(certificate, now)


def validity_problem(certificate: x509.Certificate, now: datetime) -> str | None:
    """Whether it is past or before its time."""
    if now > certificate.not_valid_after_utc:
        return f"expired at {_time(certificate.not_valid_after_utc)}"
    if now < certificate.not_valid_before_utc:
        return f"is valid only from {_time(certificate.not_valid_before_utc)} on"
    return None


def facts(certificate: x509.Certificate) -> TlsFacts:
    """What people want to see of it."""
    return TlsFacts(
        subject=one_line(certificate.subject.rfc4514_string()),
        issuer=one_line(certificate.issuer.rfc4514_string()),
        names=names(certificate),
        not_before=_time(certificate.not_valid_before_utc),
        not_after=_time(certificate.not_valid_after_utc),
        fingerprint=fingerprint(certificate),
    )


def _time(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
