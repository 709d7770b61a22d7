"""TCP connections on their way to a session: how many may be there that have not logged in, and for how long."""

import asyncio
import logging
import socket
from collections import Counter
from typing import Any, Protocol

import asyncssh

from .config import KeepAlives

log = logging.getLogger(__name__)

LOGIN_SECONDS = 30.0
_LONGEST_PROBE = 32767  # seconds; the model allows twice as many, Linux does not
MAX_PENDING = 512  # who logs in takes some milliseconds: only a flood gets there


class Connection:
    """One connection, whoever has opened it; `idle_seconds`, if any, bounds the silence of its sessions."""

    def __init__(self, connection: socket.socket, idle_seconds: float | None) -> None:
        self.socket = connection
        self.host = str(connection.getpeername()[0])
        self.idle_seconds = idle_seconds
        self.admitted = False
        self.since = 0.0  # then, by the loop's clock
        self.reason = ""  # why its last session has ended (termination-reason of RFC 6470)
        self.timer = asyncio.timeout(LOGIN_SECONDS)

    def admit(self) -> None:
        """The peer is who it says and has a session."""
        if not self.admitted:
            self.admitted, self.since = True, asyncio.get_running_loop().time()
        self.timer.reschedule(None)

    def over(self, reason: str) -> None:
        """A session of it has ended."""
        self.reason = reason


class Access(Protocol):
    """What a transport does with the connections of one endpoint."""

    def update(self, parameters: Any) -> None:
        """Serves by these from now on; comes before all else. Raises ConfigurationError when nobody can be served."""

    async def serve(self, connection: Connection) -> None:
        """Returns when the connection is over. Raises OSError or asyncssh.Error."""


class Connections:
    """All connections of the process."""

    def __init__(self) -> None:
        self._all: dict[asyncio.Task[None], Connection] = {}  # oldest first
        self._crowded = False

    def serve(
        self, access: Access, plain: socket.socket, keep_alives: KeepAlives, idle_seconds: float | None = None
    ) -> tuple[Connection, asyncio.Task[None]]:
        """Serves one more; the task ends with it. Raises OSError when the peer is gone already."""
        _tune(plain, keep_alives)
        connection = Connection(plain, idle_seconds)
        self._make_room()
        task = asyncio.create_task(self._serve(access, connection))
        self._all[task] = connection
        task.add_done_callback(self._all.pop)
        return connection, task

    async def stop(self) -> None:
        """Ends those without a session; the others end with theirs."""
        pending = [task for task, one in self._all.items() if not one.admitted]
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)

    def _make_room(self) -> None:
        """Where too many wait, the oldest of the host that has most of them gives way: others are not crowded out."""
        pending = {task: one.host for task, one in self._all.items() if not one.admitted and not task.cancelling()}
        if len(pending) < MAX_PENDING // 2:
            self._crowded = False
        elif len(pending) >= MAX_PENDING:
            host, count = Counter(pending.values()).most_common(1)[0]
            if not self._crowded:  # once for each flood
                log.warning("too many connections without a session host=%s count=%d", host, count)
            self._crowded = True
            next(task for task, one in pending.items() if one == host).cancel()

    @staticmethod
    async def _serve(access: Access, connection: Connection) -> None:
        try:
            async with connection.timer:
                await access.serve(connection)
        except TimeoutError:
            log.warning("no session in time host=%s", connection.host)
        except (OSError, asyncssh.Error) as error:
            log.info("connection failed host=%s reason=%s", connection.host, error)


def _tune(connection: socket.socket, keep_alives: KeepAlives) -> None:
    connection.setblocking(False)
    # A reply in two writes would wait for the client's delayed acknowledgement.
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, min(keep_alives.idle_seconds, _LONGEST_PROBE))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, min(keep_alives.interval_seconds, _LONGEST_PROBE))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, min(keep_alives.probes, 127))
