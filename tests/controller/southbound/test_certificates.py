"""Whose certificate it is: names of every kind, fingerprints, and dates (RFC 7589 clause 6, RFC 6125)."""

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from netconf_access import alone, authority

from qswitch.controller.config import TlsAccess
from qswitch.controller.southbound import certificates

URN = "urn:uuid:6d5f0000-0000-4000-8000-000000000001"
NODE = (
    authority("a")
    .issue(
        "node.example",
        x509.DNSName("Node.Example"),
        x509.DNSName("*.wild.example"),
        x509.IPAddress(ipaddress.ip_address("2001:db8::1")),
        x509.UniformResourceIdentifier(URN),
        x509.RFC822Name("node@mail.example"),
    )
    .certificate
)
NOW = datetime.now(UTC)


@pytest.mark.parametrize(
    ("name", "its"),
    [
        ("node.example", True),
        ("NODE.example.", True),
        (URN, True),
        (URN.upper(), False),
        ("2001:0db8:0:0::1", True),
        ("127.0.0.1", False),
        ("a.wild.example", False),  # no wildcards
        ("mail.example", False),
        ("node@mail.example", False),
        ("example", False),
    ],
)
def test_names(name: str, its: bool) -> None:
    assert certificates.is_named(NODE, name) is its


def test_names_of_strangers_are_fit_to_be_shown() -> None:
    shown = certificates.names(alone("x", x509.UniformResourceIdentifier("urn:a\nERROR all is lost\x1b[2J")).certificate)
    assert shown == ("urn:a\N{REPLACEMENT CHARACTER}ERROR all is lost\N{REPLACEMENT CHARACTER}[2J",)


def test_the_common_name_counts_for_nothing() -> None:
    assert not certificates.is_named(alone("node.example").certificate, "node.example")
    assert certificates.names(alone("node.example").certificate) == ()


@pytest.mark.parametrize(
    ("access", "now", "words"),
    [
        ({"server_name": URN}, NOW, None),
        ({"fingerprint": certificates.fingerprint(NODE)}, NOW, None),
        ({"fingerprint": certificates.fingerprint(NODE), "server_name": "other"}, NOW, "expected is other"),
        ({"fingerprint": "00" * 32, "server_name": URN}, NOW, f"configured is {'00' * 32}"),
        ({"server_name": URN}, NOW + timedelta(days=1), "expired at"),
        ({"fingerprint": certificates.fingerprint(NODE)}, NOW - timedelta(days=1), "valid only from"),
    ],
)
def test_everything_that_is_configured_must_hold(access: dict[str, str], now: datetime, words: str | None) -> None:
    found = certificates.problem(NODE, TlsAccess(Path(), Path(), **access), now)  # type: ignore[arg-type]
    assert found is None if words is None else words in (found or "")
