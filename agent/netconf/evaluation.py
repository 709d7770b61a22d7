"""Evaluates what a client may make arbitrarily expensive, outside of this process: nothing in a thread can be stopped.

A few processes, started when first needed, each fork a child per query; limits of CPU time, memory and wall clock end the
child (see selection.py), and the process when even that fails. They get no environment and no descriptor of ours, and end
when this process does.
"""

import json
import socket
import subprocess
import sys
from pathlib import Path
from queue import Empty, LifoQueue
from threading import BoundedSemaphore
from typing import cast

from . import selection
from .errors import refused

_MOST = 4
_MOST_ASKING = 8  # with those that wait; who waits holds a thread of the server
_WAIT_SECONDS = 2
_COMMAND = (sys.executable, "-I", "-B", str(Path(selection.__file__).resolve()))
_NOTHING: dict[str, str] = {}


class _Evaluator:
    """One process that answers queries, one at a time."""

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair()
        self._ours.settimeout(selection.SECONDS + 2)
        self._answers = self._ours.makefile("rb")
        with theirs:
            pipe, nowhere = theirs.fileno(), subprocess.DEVNULL
            self._process = subprocess.Popen(
                _COMMAND, stdin=pipe, stdout=pipe, stderr=nowhere, env=_NOTHING, cwd="/", start_new_session=True
            )

    def serves(self) -> bool:
        return self._process.poll() is None

    def ask(self, query: bytes) -> selection.Answer:
        """Raises OSError or ValueError when there is no answer."""
        self._ours.sendall(query)
        return cast(selection.Answer, json.loads(self._answers.readline()))

    def end(self) -> None:
        """From any thread: who waits for its answer gets none."""
        self._process.kill()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._answers.close()
        self._ours.close()


class Evaluators:
    """So many processes at once, and no more."""

    def __init__(self) -> None:
        self._free: LifoQueue[_Evaluator | None] = LifoQueue()
        self._places = BoundedSemaphore(_MOST_ASKING)
        self._started: set[_Evaluator] = set()
        self._stopped = False
        for _ in range(_MOST):
            self._free.put(None)

    def select(self, query: selection.Query, data: bytes) -> list[int]:
        """As `selection.select`, within limits. Raises RpcFailed."""
        numbers, tag, message = self._ask(json.dumps([*query, data.decode()]).encode() + b"\n")
        if tag:
            raise refused(tag, message)
        return numbers

    def stop(self) -> None:
        """Whoever waits for an answer, or asks from now on, gets none."""
        self._stopped = True
        for one in tuple(self._started):
            one.end()

    def _ask(self, query: bytes) -> selection.Answer:
        if not self._places.acquire(blocking=False):
            return selection.EXHAUSTED
        try:
            return self._ask_one(query, self._free.get(timeout=_WAIT_SECONDS))
        except Empty:
            return selection.EXHAUSTED
        finally:
            self._places.release()

    def _ask_one(self, query: bytes, evaluator: _Evaluator | None) -> selection.Answer:
        try:
            if self._stopped:
                return selection.EXHAUSTED
            if evaluator is None or not evaluator.serves():
                evaluator = _Evaluator()
                self._started.add(evaluator)
            return evaluator.ask(query)
        except (OSError, ValueError):
            if evaluator is not None:
                evaluator.kill()
                self._started.discard(evaluator)
            evaluator = None
            return selection.EXHAUSTED
        finally:
            self._free.put(evaluator)
