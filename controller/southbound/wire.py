"""What carries NETCONF sessions: an authenticated connection to one node, and what was learned while it came about.

Two kinds are there, SSH (`ssh.py`, RFC 6242) and TLS (`tls.py`, RFC 7589). Either side may have opened the TCP connection:
the controller, or the node that called (RFC 8071).
"""

import time
from abc import ABC, abstractmethod
from typing import ClassVar, Protocol, Self

from ..checks import SshFacts, TlsFacts
from ..errors import ControllerError, NodeTimedOut, NodeUnreachable
from ..model import Endpoint


def words(error: ControllerError) -> str:
    """What is wrong, without the name of the node: of a caller there may be none."""
    match error:
        case NodeUnreachable():
            return error.problem
        case NodeTimedOut():
            return f"it did not answer within {error.seconds:g} s: {error.operation}"
        case _:
            return str(error)


def one_line(text: str) -> str:
    """What somebody else said, fit for a log: no line breaks, nothing that steers a terminal, and an end."""
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text[:200])


class Channel(Protocol):
    """The way to the node."""

    def write(self, data: bytes) -> None: ...

    def abort(self) -> None: ...


class Receiver(Protocol):
    """Hears what a channel carries. Called on the loop; never raises."""

    def opened(self, channel: Channel) -> None:
        """Comes before everything else."""

    def received(self, data: bytes) -> None: ...

    def ended(self, problem: str, advice: str = "") -> None:
        """Nothing more will come, for the reason given."""


class Attempt:
    """How far an attempt to connect got: the steps behind it with their seconds, the one under way, the facts so far.

    It `began` and `ended`, as far as it is by now, in seconds since 1970.
    """

    def __init__(self) -> None:
        self.steps: list[tuple[str, float]] = []
        self.step = ""
        self.began = self.ended = time.time()
        self.ssh: SshFacts | None = None
        self.tls: TlsFacts | None = None
        self._since = 0.0

    def begin(self, step: str) -> None:
        self.end()
        self.step, self._since = step, time.monotonic()

    def end(self) -> None:
        """The step under way is done, and no other has begun."""
        if self.step:
            self.steps.append((self.step, time.monotonic() - self._since))
        self.step, self.ended = "", time.time()


class Connection(ABC):
    """A connection whose peer is the node that was meant. Ends with `abort`, or as a context."""

    transport: ClassVar[str]
    shares: ClassVar[bool]  # whether it carries more than one session

    def __init__(self, node: str, peer: Endpoint, attempt: Attempt) -> None:
        self.node, self.peer, self.attempt = node, peer, attempt

    @abstractmethod
    async def carry(self, receiver: Receiver, attempt: Attempt) -> Channel:
        """Starts one NETCONF session. Raises NodeUnreachable when the node has none to offer."""

    @abstractmethod
    def abort(self) -> None:
        """Ends it at once, with all it carries."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_problem: object) -> None:
        self.abort()
