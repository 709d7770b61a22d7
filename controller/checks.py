"""What a check of one node found: values, as the API says them. Programs decide by `well` and by the levels of findings.

Times are in seconds. What could not be found out is null, and a finding or a `how` beside it says why.
"""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """`wrong` keeps the controller from doing its work; a `note` is worth knowing and has a consequence."""

    WRONG = "wrong"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing in words: what is so, and what to do about it ("" when there is nothing to do)."""

    level: Level
    about: str
    text: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    name: str
    seconds: float


@dataclass(frozen=True, slots=True)
class SshFacts:
    """One SSH connection. `offered` has the algorithms of the node by kind; what was agreed is null until it was."""

    software: str | None = None
    host_key_type: str | None = None
    host_key: str | None = None  # fingerprints, SHA256:…
    configured_host_key: str | None = None
    key_exchange: str | None = None
    cipher: str | None = None
    mac: str | None = None
    compression: str | None = None
    user: str | None = None
    authentication: str | None = None
    offered: dict[str, tuple[str, ...]] | None = None


@dataclass(frozen=True, slots=True)
class TlsFacts:
    """One TLS connection, and the certificate that the node showed (times RFC 3339, fingerprint SHA-256 in hexadecimal)."""

    version: str | None = None
    cipher_suite: str | None = None
    subject: str | None = None
    issuer: str | None = None
    names: tuple[str, ...] = ()
    not_before: str | None = None
    not_after: str | None = None
    fingerprint: str | None = None
    configured: str | None = None


@dataclass(frozen=True, slots=True)
class CapabilityCheck:
    """A capability that the controller knows: what it is good for, or what follows from its lack."""

    name: str
    offered: bool
    words: str


@dataclass(frozen=True, slots=True)
class ModuleCheck:
    """A YANG module that the controller needs, and the revision that the node has of it."""

    name: str
    needed: str
    revision: str | None
    words: str


@dataclass(frozen=True, slots=True)
class RightCheck:
    """What this user may do; `how` says how that was found out, or why it was not."""

    name: str
    allowed: bool | None
    how: str


@dataclass(frozen=True, slots=True)
class ClockCheck:
    """How far the node's clock is ahead of the controller's, give or take `uncertainty`."""

    ahead: float | None = None
    uncertainty: float | None = None
    how: str = ""


@dataclass(frozen=True, slots=True)
class RoundTrip:
    median: float
    worst: float
    count: int


@dataclass(frozen=True, slots=True)
class NodeCheck:
    """All of it. A check that failed on the way has what was learned until then, and a finding that says what failed."""

    node: str
    well: bool
    host: str
    port: int
    connect: str  # "dial" or "call-home"
    transport: str  # "ssh" or "tls"
    way: str  # in words: which connection and session were used
    steps: tuple[Step, ...] = ()
    ssh: SshFacts | None = None
    tls: TlsFacts | None = None
    netconf: str | None = None  # the version agreed
    session_id: str | None = None
    capabilities: tuple[CapabilityCheck, ...] = ()
    other_capabilities: tuple[str, ...] = ()
    modules: tuple[ModuleCheck, ...] = ()
    other_modules: int | None = None
    clock: ClockCheck | None = None
    round_trip: RoundTrip | None = None
    rights: tuple[RightCheck, ...] = ()
    findings: tuple[Finding, ...] = ()
