"""NETCONF Call Home (RFC 8071), the node's side: it dials its clients, and serves the connection as if they had dialed.

One dialer keeps one `netconf-client` of ietf-netconf-server connected: an endpoint `max-attempts` times, then the next. The
pause between attempts grows and is never twice the same, so that a controller that comes back is not met by all nodes at
once.
"""

import asyncio
import itertools
import logging
import random
import socket
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from .config import Client, Endpoint
from .connections import Access, Connection, Connections

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
_SETTLED_SECONDS = 10.0  # a connection that is over sooner counts as an attempt that failed


class Dialer:
    """Keeps one client connected from now on."""

    def __init__(self, client: Client, accesses: Mapping[str, Access], connections: Connections) -> None:
        self._client, self._accesses = client, accesses
        self._connections = connections
        self._connected: Endpoint | None = None
        self._last = ""  # name of the endpoint that was connected last
        self._applied = datetime.now(UTC)
        self._task = asyncio.create_task(self._run())

    def stop(self) -> None:
        """Dials no more; what is connected stays."""
        self._task.cancel()

    def adopt(self, client: Client, accesses: Mapping[str, Access]) -> bool:
        """Takes another plan up from the next connection on; False where it makes the present state of things pointless."""
        if self._client != client and self._connected not in client.endpoints:
            return False
        self._client, self._accesses = client, accesses
        return True

    async def _run(self) -> None:
        failures = 0
        if self._client.period_seconds and self._client.anchor is not None:
            await asyncio.sleep(self._until_due(datetime.now(UTC)))
        while True:
            connection = await self._connection(failures)
            failures = 0 if asyncio.get_running_loop().time() > connection.since + _SETTLED_SECONDS else failures + 1
            if self._client.period_seconds and connection.reason == "closed":
                failures = 0
                await asyncio.sleep(self._until_due(datetime.now(UTC)))

    async def _connection(self, failures: int) -> Connection:
        """Dials until a client has had a session, and returns when that is over."""
        for count, endpoint in enumerate(self._attempts(), failures):
            await asyncio.sleep(pause(count))
            connection = await self._attempt(endpoint)
            if connection is not None and connection.admitted:
                return connection
        raise AssertionError("attempts never end")

    def _attempts(self) -> Iterator[Endpoint]:
        """Endpoints in the order of the reconnect strategy, without end."""
        names = [one.name for one in self._client.endpoints]
        match self._client.start_with:
            case "last-connected" if self._last in names:
                first = names.index(self._last)
            case "random-selection":
                first = random.randrange(len(names))
            case _:
                first = 0
        for number in itertools.count(first):
            for _ in range(self._client.max_attempts):
                yield self._client.endpoints[number % len(self._client.endpoints)]

    async def _attempt(self, endpoint: Endpoint) -> Connection | None:
        """One attempt: the connection it led to, when that is over, or none."""
        access = self._accesses.get(endpoint.name)
        if access is None:
            return None
        try:
            async with asyncio.timeout(self._client.max_wait):
                plain = await _connect(*endpoint.addresses[0])
            idle_seconds = self._client.idle_seconds
            connection, task = self._connections.serve(access, plain, endpoint.keep_alives, idle_seconds)
        except (OSError, TimeoutError) as error:
            log.info("client is not reached client=%s endpoint=%s reason=%r", self._client.name, endpoint.name, error)
            return None
        log.info("client is reached client=%s endpoint=%s", self._client.name, endpoint.name)
        self._connected = endpoint
        await asyncio.wait([task])  # without an end to it when this ends
        self._connected, self._last = None, endpoint.name if connection.admitted else self._last
        log.info("client is gone client=%s endpoint=%s", self._client.name, endpoint.name)
        return connection

    def _until_due(self, now: datetime) -> float:
        """Seconds to the next of the moments that lie whole periods from the anchor."""
        passed = (now - (self._client.anchor or self._applied)).total_seconds()
        return self._client.period_seconds - passed % self._client.period_seconds


def pause(failures: int) -> float:
    """Seconds to wait after so many attempts that failed; none before the first."""
    longest = min(FIRST_PAUSE * 2.0 ** min(failures - 1, 16), LONGEST_PAUSE)
    return random.uniform(longest / 2, longest) if failures else 0.0


async def _connect(host: str, port: int) -> socket.socket:
    """A TCP connection to the first address of a host that takes one. Raises OSError."""
    loop = asyncio.get_running_loop()
    failed: OSError | None = None
    for family, kind, protocol, _, address in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        plain = socket.socket(family, kind, protocol)
        plain.setblocking(False)
        try:
            await loop.sock_connect(plain, address)
            return plain
        except BaseException as error:
            plain.close()
            if not isinstance(error, OSError):
                raise
            failed = error
    raise failed or OSError(f"'{host}' has no address")
