"""Evaluates what a client may make arbitrarily expensive, outside of this process: nothing in a thread can be stopped.

A few processes, started when first needed, each fork a child per query; limits of CPU time, memory and wall clock end the
child (see selection.py), and the process when even that fails. They get no environment and no descriptor of ours,
and end when this process does.
"""

import json
import socket
import subprocess
import sys
import threading
from pathlib import Path

from qswitch.protocol.netconf import RpcError, RpcFailed

from . import selection

_NOTHING: dict[str, str] = {}
_COMMAND = (sys.executable, "-I", "-B", str(Path(selection.__file__).resolve()))


class _Evaluator:
    """One process that answers queries, one at a time."""

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair()
        self._ours.settimeout(selection.SECONDS + 2)
        self._answers = self._ours.makefile("rb")
        with theirs:
            self._process = subprocess.Popen(
                _COMMAND,
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=subprocess.DEVNULL,
                env=_NOTHING,
                cwd="/",
                start_new_session=True,
            )

    def ask(self, query: bytes) -> object:
        """The answer. Raises OSError or ValueError when there is none."""
        self._ours.sendall(query)
        return json.loads(self._answers.readline())

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._answers.close()
        self._ours.close()


class Evaluators:
    """At most so many processes at once."""

    def __init__(self, most: int = 4) -> None:
        self._slots = threading.BoundedSemaphore(most)
        self._idle: list[_Evaluator] = []

    def select(self, query: selection.Query, data: bytes) -> list[int]:
        """As `selection.select`, within limits. Raises RpcFailed."""
        if not self._slots.acquire(timeout=selection.SECONDS):
            raise _failed(*selection.EXHAUSTED)
        try:
            found = self._ask(json.dumps([*query, data.decode()]).encode() + b"\n")
        finally:
            self._slots.release()
        match found:
            case [str(tag), str(message)]:
                raise _failed(tag, message)
            case list(numbers):
                return numbers
        raise _failed(*selection.EXHAUSTED)

    def _ask(self, query: bytes) -> object:
        try:
            evaluator = self._idle.pop()
        except IndexError:
            evaluator = _Evaluator()
        try:
            answer = evaluator.ask(query)
        except (OSError, ValueError):
            evaluator.kill()
            raise _failed(*selection.EXHAUSTED) from None
        self._idle.append(evaluator)
        return answer


def _failed(tag: str, message: str) -> RpcFailed:
    return RpcFailed(RpcError(tag, message, "protocol"))
