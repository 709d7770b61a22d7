"""The controller's errors, and the one table that says what each looks like at the API.

An error holds data; its text is made from the data. Only edges (northbound, command line) read `EDGES`. Errors of libraries
are mapped where they arise, with their cause chained.
"""

from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any


class ControllerError(Exception):
    """Root of the controller's errors."""

    def details(self) -> dict[str, Any]:
        """The error's data, for programs."""
        return {one.name: getattr(self, one.name) for one in fields(self)} if is_dataclass(self) else {}


@dataclass
class InvalidRequest(ControllerError):
    """A member of a request that breaks a rule: names the member and the rule."""

    field: str
    value: str
    rule: str

    def __str__(self) -> str:
        return f"{self.field}: '{self.value}' is refused: {self.rule}"


@dataclass
class Unauthorised(ControllerError):
    problem: str

    def __str__(self) -> str:
        return self.problem


@dataclass
class Unknown(ControllerError):
    """No such node, link or application."""

    kind: str
    which: str

    def __str__(self) -> str:
        return f"no {self.kind} '{self.which}'"


@dataclass
class Ambiguous(ControllerError):
    """The beginning of an id that more than one thing has."""

    kind: str
    which: str
    candidates: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"'{self.which}' may be any of the {self.kind}s {', '.join(self.candidates)}"


@dataclass
class Conflict(ControllerError):
    """What was asked for contradicts what is there."""

    what: str
    problem: str

    def __str__(self) -> str:
        return f"{self.what}: {self.problem}"


@dataclass
class NoRoute(ControllerError):
    """No way through the network; `reason` says what is in the way."""

    source: str
    destination: str
    reason: str

    def __str__(self) -> str:
        return f"no route from {self.source} to {self.destination}: {self.reason}"


@dataclass
class NodeUnreachable(ControllerError):
    """No session with a node; `advice` says what an operator can do, where that is known."""

    node: str
    problem: str
    advice: str = ""

    def __str__(self) -> str:
        return f"node {self.node} is not reachable: {self.problem}"


@dataclass
class NodeRefused(ControllerError):
    """A node answered with an rpc-error."""

    node: str
    tag: str
    problem: str

    def __str__(self) -> str:
        return f"node {self.node} refused: {self.problem} ({self.tag})"


@dataclass
class NodeTimedOut(ControllerError):
    node: str
    operation: str
    seconds: float

    def __str__(self) -> str:
        return f"node {self.node} did not answer {self.operation} within {self.seconds:g} s"


@dataclass
class BadReply(ControllerError):
    """A node said what it must not."""

    node: str
    problem: str

    def __str__(self) -> str:
        return f"node {self.node}: {self.problem}"


@dataclass
class TransactionFailed(ControllerError):
    """A change to several nodes that was undone, because the nodes in `failed` did not take it."""

    what: str
    failed: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.what} failed and was undone: " + "; ".join(f"{node}: {text}" for node, text in self.failed.items())


@dataclass
class ConfigurationError(ControllerError):
    """The controller's own configuration file is wrong."""

    file: str
    problem: str

    def __str__(self) -> str:
        return f"{self.file}: {self.problem}"


@dataclass
class StoreFailed(ControllerError):
    problem: str

    def __str__(self) -> str:
        return f"store: {self.problem}"


@dataclass(frozen=True, slots=True)
class Edge:
    """How one error class looks outside: HTTP status and the API's error code."""

    http: int
    code: str


EDGES: dict[type[ControllerError], Edge] = {
    ControllerError: Edge(500, "internal-error"),
    InvalidRequest: Edge(400, "invalid-request"),
    Unauthorised: Edge(401, "unauthorised"),
    Unknown: Edge(404, "not-found"),
    Ambiguous: Edge(409, "ambiguous"),
    Conflict: Edge(409, "conflict"),
    NoRoute: Edge(409, "no-route"),
    NodeUnreachable: Edge(503, "node-unreachable"),
    NodeRefused: Edge(502, "node-refused"),
    NodeTimedOut: Edge(504, "node-timed-out"),
    BadReply: Edge(502, "bad-reply"),
    TransactionFailed: Edge(502, "transaction-failed"),
    ConfigurationError: Edge(500, "configuration-error"),
    StoreFailed: Edge(500, "store-failed"),
}


def edge(error: ControllerError) -> Edge:
    """The row of an error's class."""
    return EDGES[type(error)]
