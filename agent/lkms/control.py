"""The key manager's control socket: what the operator's commands ask of a key manager that runs.

A UNIX-domain socket beside the store, for its owner only (mode 0600): who may use it is who may read the store. One line
asks, one line of JSON answers: `{"done": …}` or `{"problem": TEXT}`. No key passes.
"""

import asyncio
import json
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from ..errors import NodeError, StorageFailed

log = logging.getLogger(__name__)

MAX_LINE = 64
READ_SECONDS = 5.0
ANSWER_SECONDS = 120.0
"""A rotation seals all rows anew; on a slow disk with many links that takes a while."""


def path_of(store: Path) -> Path:
    return store.with_name(store.name + ".control")


class Control:
    """`answers` says what each word does; what it returns is the answer."""

    def __init__(self, store: Path, answers: Mapping[str, Callable[[], Awaitable[Any]]]) -> None:
        self._path, self._answers = path_of(store), answers
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """For who holds the lock of the store. Without the socket the node runs as well: that is logged only."""
        try:
            self._server = await asyncio.start_unix_server(self._serve, sock=self._bind(), limit=MAX_LINE)
        except OSError as error:
            log.warning("no control socket path=%s problem=%s", self._path, error)

    def _bind(self) -> socket.socket:
        self._path.unlink(missing_ok=True)  # of a process that was killed
        one = socket.socket(socket.AF_UNIX)
        os.fchmod(one.fileno(), 0o600)  # before it has a name
        with _short(self._path) as name:
            one.bind(name)
        return one

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, TimeoutError, ValueError), closing(writer):
            async with asyncio.timeout(READ_SECONDS):
                word = (await reader.readline()).decode("ascii", "replace").strip()
            writer.write(json.dumps(await self._answer(word)).encode() + b"\n")
            await writer.drain()

    async def _answer(self, word: str) -> dict[str, Any]:
        answer = self._answers.get(word)
        if answer is None:
            return {"problem": f"unknown: {word}"}
        try:
            return {"done": await answer()}
        except NodeError as error:
            return {"problem": error.problem if isinstance(error, StorageFailed) else str(error)}
        except Exception as error:
            log.exception("not done word=%s", word)
            return {"problem": f"{error}; the agent's log says more"}


def ask(store: Path, word: str) -> Any:
    """Asks the key manager of a store. Raises ConnectionError when none runs there, StorageFailed when it refuses."""
    with socket.socket(socket.AF_UNIX) as one:
        one.settimeout(ANSWER_SECONDS)
        try:
            with _short(path_of(store)) as name:
                one.connect(name)
            one.sendall(f"{word}\n".encode())
            with one.makefile("rb") as file:
                answer = json.loads(file.readline() or b"{}")
        except (OSError, ValueError) as error:
            raise ConnectionError(f"no answer from the agent: {error}") from error
    if not answer:
        raise ConnectionError("the agent ended, or hung up, before it answered")
    if "done" not in answer:
        raise StorageFailed(answer.get("problem", "?"))
    return answer["done"]


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """A name of the path that fits a socket's address (107 octets), however deep the path is."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
