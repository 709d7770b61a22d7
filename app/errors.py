"""What can go wrong for an application, and what to do about it.

An error holds data; its text is made from it. No error holds key.
"""

from dataclasses import dataclass
from pathlib import Path

from qswitch.protocol.etsi004 import Qos, Status

HINTS = {
    Status.INSUFFICIENT_KEY: "the link makes key more slowly than it is drawn; ask again later or open with a lower rate",
    Status.PEER_NOT_CONNECTED: "the peer has not opened this KSID yet, or it is unknown or closed; check it, open again",
    Status.NO_CONNECTION: "no QKD route joins the two nodes, or this certificate names neither source nor destination",
    Status.KSID_IN_USE: "another application uses this KSID; open without one to get a new one",
    Status.TIMEOUT: "the peer or the key did not come in time; start the peer, or open with a longer timeout",
    Status.QOS_NOT_MET: "the network cannot give this quality of service; open with the one it offered in return",
    Status.METADATA_TOO_SMALL: "offer more room for metadata, or 0 for none",
}


class ClientError(Exception):
    """Root of the errors an application meets."""


@dataclass
class StatusError(ClientError):
    """The node answered a call with a 004 status that is no success."""

    call: str
    status: Status
    offered: Qos | None = None  # with QOS_NOT_MET: the counter-proposal
    needed_metadata_size: int = 0

    def __str__(self) -> str:
        return f"{self.call}: status {self.status.value} {self.status.name}; {HINTS.get(self.status, 'unexpected here')}"


@dataclass
class RestError(ClientError):
    """The node answered a call of 014 with another status than 200; `details` as the node gave them."""

    call: str
    status: int
    message: str
    details: tuple[dict[str, str], ...] = ()

    def __str__(self) -> str:
        return f"{self.call}: HTTP {self.status}: {self.message}"


@dataclass
class CredentialsError(ClientError):
    """A file of the TLS identity cannot be used."""

    file: Path
    problem: str

    def __str__(self) -> str:
        return f"{self.file}: {self.problem}"


@dataclass
class Unreachable(ClientError):
    """No connection to the node could be made."""

    host: str
    port: int
    problem: str

    def __str__(self) -> str:
        return f"node at {self.host} port {self.port}: {self.problem}"


@dataclass
class ConnectionLost(ClientError):
    """The connection ended while a call waited for its reply; a key that was asked for by index can be asked for again."""

    call: str
    problem: str

    def __str__(self) -> str:
        return f"{self.call}: {self.problem}"


@dataclass
class DescriptorError(ClientError):
    """The network descriptor, or what was looked for in it."""

    file: Path
    problem: str

    def __str__(self) -> str:
        return f"{self.file}: {self.problem}"


@dataclass
class TransferFailed(ClientError):
    """A file was not sent or received whole."""

    name: str
    problem: str

    def __str__(self) -> str:
        return f"{self.name}: {self.problem}"
