"""The node's errors, and the one table that says what each looks like at an edge.

An error holds data; its text is made from the data. Only edges (datastore, NETCONF, 004, 014) read `EDGES`. Errors of
libraries are mapped where they arise, with their cause chained.
"""

from dataclasses import dataclass

from qswitch.protocol.etsi015 import UNSPECIFIED, Qos


class NodeError(Exception):
    """Root of the node's errors."""


@dataclass
class InvalidValue(NodeError):
    """A value that breaks a rule: names the value and the rule."""

    path: str
    value: str
    rule: str

    def __str__(self) -> str:
        return f"{self.path}: '{self.value}' is refused: {self.rule}"


@dataclass
class ConfigurationError(NodeError):
    """The agent's own configuration file is wrong."""

    file: str
    problem: str

    def __str__(self) -> str:
        return f"{self.file}: {self.problem}"


@dataclass
class NotSupported(NodeError):
    what: str

    def __str__(self) -> str:
        return f"{self.what} is not supported"


@dataclass
class Unauthorised(NodeError):
    who: str
    what: str

    def __str__(self) -> str:
        return f"'{self.who}' may not {self.what}"


@dataclass
class UnknownKeyStream(NodeError):
    ksid: str

    def __str__(self) -> str:
        return f"no key stream {self.ksid} for this application"


@dataclass
class UnknownKeys(NodeError):
    """Keys that were asked for by their ids, and are not here for the pair named: nothing was released."""

    key_ids: tuple[str, ...]

    def __str__(self) -> str:
        return "one or more keys specified are not found on KME"


@dataclass
class KeyStreamInUse(NodeError):
    ksid: str

    def __str__(self) -> str:
        return f"key stream {self.ksid} is in use by another application"


@dataclass
class PeerNotConnected(NodeError):
    ksid: str

    def __str__(self) -> str:
        return f"the peer application of key stream {self.ksid} is not connected"


@dataclass
class InsufficientKey(NodeError):
    """Not enough key for what was asked: nothing was consumed."""

    what: str

    def __str__(self) -> str:
        return f"not enough key for {self.what}"


@dataclass
class NoConnection(NodeError):
    """No QKD connection joins the two ends."""

    what: str

    def __str__(self) -> str:
        return f"no QKD connection for {self.what}"


@dataclass
class TimedOut(NodeError):
    what: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.what} was not done within {self.seconds:g} s"


@dataclass
class QosNotMet(NodeError):
    """`offered` is what the controller could give instead."""

    what: str
    offered: Qos = UNSPECIFIED

    def __str__(self) -> str:
        return f"quality of service cannot be met: {self.what}"


@dataclass
class StorageFailed(NodeError):
    """The key store cannot be read or written: nothing is served until it can."""

    problem: str

    def __str__(self) -> str:
        return f"key store: {self.problem}"


@dataclass
class DatastoreFailed(NodeError):
    """Sysrepo cannot be read or written, or refuses what the node itself writes."""

    problem: str

    def __str__(self) -> str:
        return f"datastore: {self.problem}"


@dataclass
class PeerViolation(NodeError):
    """Another key manager said what it must not: an attack or a defect; raised as an alarm."""

    peer: str
    what: str

    def __str__(self) -> str:
        return f"key manager {self.peer}: {self.what}"


@dataclass
class DeviceFailed(NodeError):
    interface: int
    problem: str

    def __str__(self) -> str:
        return f"QKD device of interface {self.interface}: {self.problem}"


@dataclass(frozen=True, slots=True)
class Edge:
    """How one error class looks outside: sysrepo code, NETCONF error-tag, HTTP status, ETSI 004 status."""

    sysrepo: str
    netconf: str
    http: int
    etsi004: int


# 004 names no status for some of these; the nearest one that clients of both dialects survive stands here.
EDGES: dict[type[NodeError], Edge] = {
    NodeError: Edge("SR_ERR_INTERNAL", "operation-failed", 503, 4),
    InvalidValue: Edge("SR_ERR_VALIDATION_FAILED", "invalid-value", 400, 4),
    ConfigurationError: Edge("SR_ERR_INVAL_ARG", "operation-failed", 503, 4),
    NotSupported: Edge("SR_ERR_UNSUPPORTED", "operation-not-supported", 400, 4),
    Unauthorised: Edge("SR_ERR_UNAUTHORIZED", "access-denied", 401, 4),
    UnknownKeyStream: Edge("SR_ERR_NOT_FOUND", "data-missing", 400, 3),
    UnknownKeys: Edge("SR_ERR_NOT_FOUND", "data-missing", 400, 3),
    KeyStreamInUse: Edge("SR_ERR_EXISTS", "in-use", 400, 5),
    PeerNotConnected: Edge("SR_ERR_OPERATION_FAILED", "resource-denied", 503, 3),
    InsufficientKey: Edge("SR_ERR_OPERATION_FAILED", "resource-denied", 503, 2),
    NoConnection: Edge("SR_ERR_OPERATION_FAILED", "resource-denied", 503, 4),
    TimedOut: Edge("SR_ERR_TIME_OUT", "operation-failed", 503, 6),
    QosNotMet: Edge("SR_ERR_OPERATION_FAILED", "resource-denied", 400, 7),
    StorageFailed: Edge("SR_ERR_SYS", "operation-failed", 503, 2),
    DatastoreFailed: Edge("SR_ERR_SYS", "operation-failed", 503, 4),
    PeerViolation: Edge("SR_ERR_OPERATION_FAILED", "operation-failed", 503, 4),
    DeviceFailed: Edge("SR_ERR_OPERATION_FAILED", "operation-failed", 503, 4),
}


def edge(error: NodeError) -> Edge:
    """The row of an error's class."""
    return EDGES[type(error)]
