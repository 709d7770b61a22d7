"""Where nodes call the controller (RFC 8071 clause 3.1): it takes TCP connections, and is the client of SSH or TLS on them.

A caller is nobody until its host key or certificate says which node it is. Strangers are refused, and cannot get in the way
of nodes: they have a time limit, their number is bounded, in all and by address, and so are the lines they cause in the log.
"""

import asyncio
import logging
import socket
import time
from collections import Counter, deque
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from ..config import CallHomeConfig, NodeConfig, Timeouts
from ..errors import ControllerError
from ..model import Endpoint
from . import ssh, tls
from .wire import Attempt, Connection, words

log = logging.getLogger(__name__)

MOST_STRANGERS, MOST_OF_ONE_HOST = 256, 16
REMEMBERED = 20  # refusals that a check of a node can tell of
LINES_A_MINUTE = 10
_ACCEPT_AGAIN_SECONDS = 0.5  # after a failure to accept: the machine has no more file descriptors


class Answerer(Protocol):
    """A node that calls, as the inventory has it."""

    config: NodeConfig

    def called(self, connection: Connection) -> None: ...

    def call_failed(self, error: ControllerError) -> None: ...


@dataclass(frozen=True, slots=True)
class Refusal:
    """A caller that was none of the nodes, or a node with which no connection came about."""

    time: datetime
    transport: str
    host: str
    shown: str | None  # fingerprint of its host key or certificate
    problem: str


class CallHome:
    """The listeners, one for each transport that a node calls over."""

    def __init__(self, config: CallHomeConfig, nodes: Mapping[str, Answerer], timeouts: Timeouts) -> None:
        self._config, self._timeouts = config, timeouts
        self._nodes = {name: one for name, one in nodes.items() if one.config.calls}
        self._over_tls = [one.config for one in self._nodes.values() if one.config.tls is not None]
        self._over_ssh = [one.config for one in self._nodes.values() if one.config.tls is None]
        self._host_keys: ssh.HostKeys = {}
        self._strangers: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._lines = _Lines()
        self.addresses: dict[str, Endpoint] = {}  # by transport, as really taken
        self.refusals: deque[Refusal] = deque(maxlen=REMEMBERED)

    def start(self) -> None:
        """Listens. Raises ControllerError when an address cannot be had, or a host key of the configuration is none."""
        self._host_keys = {ssh.host_key(one): one for one in self._over_ssh}
        if self._config.ssh is not None and self._over_ssh:
            self._listen("ssh", self._config.ssh)
        if self._config.tls is not None and self._over_tls:
            self._listen("tls", self._config.tls)

    async def stop(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _listen(self, transport: str, where: Endpoint) -> None:
        family = socket.AF_INET6 if ":" in where.host else socket.AF_INET
        both = where.host == "::" and socket.has_dualstack_ipv6()  # every address of the machine
        try:
            listener = socket.create_server(
                (where.host, where.port), family=family, backlog=MOST_STRANGERS, dualstack_ipv6=both
            )
        except OSError as error:
            problem = f"nodes cannot call on {where.host} port {where.port}: {error.strerror or error}"
            raise ControllerError(problem) from error
        listener.setblocking(False)
        self.addresses[transport] = Endpoint(*listener.getsockname()[:2])
        log.info("nodes may call transport=%s address=%s port=%d", transport, where.host, self.addresses[transport].port)
        self._keep(self._accept(transport, listener), f"calls {transport}")

    def _keep(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, transport: str, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with listener:
            while True:
                try:
                    sock, address = await loop.sock_accept(listener)
                except OSError as error:
                    log.error("no call can be taken transport=%s problem=%s", transport, error)
                    await asyncio.sleep(_ACCEPT_AGAIN_SECONDS)
                    continue
                self._take(transport, sock, Endpoint(*address[:2]))

    def _take(self, transport: str, sock: socket.socket, peer: Endpoint) -> None:
        if self._strangers[peer.host] >= MOST_OF_ONE_HOST or self._strangers.total() >= MOST_STRANGERS:
            sock.close()
            self._refuse(transport, peer, None, "too many callers at once that have not said who they are")
            return
        self._strangers[peer.host] += 1
        self._keep(self._answer(transport, sock, peer), f"call {peer.host}")

    async def _answer(self, transport: str, sock: socket.socket, peer: Endpoint) -> None:
        attempt = Attempt()
        try:
            if transport == "ssh":
                connection: Connection = await ssh.login(sock, self._host_keys, attempt, self._timeouts, peer)
            else:
                connection = await tls.greet(sock, self._over_tls, attempt, self._timeouts, peer)
        except ControllerError as error:
            shown = attempt.ssh.host_key if attempt.ssh else attempt.tls.fingerprint if attempt.tls else None
            self._refuse(transport, peer, shown, words(error))
            node = self._nodes.get(str(error.details().get("node")))
            if node is not None and shown is not None:
                node.call_failed(error)
        except Exception as error:  # whatever it is, a stranger caused it, and must not go unseen
            self._refuse(transport, peer, None, f"{type(error).__name__}: {error}")
        else:
            self._nodes[connection.node].called(connection)
        finally:
            self._strangers[peer.host] -= 1
            self._strangers += Counter()  # forgets hosts without one

    def _refuse(self, transport: str, peer: Endpoint, shown: str | None, problem: str) -> None:
        self.refusals.append(Refusal(datetime.now(UTC), transport, peer.host, shown, problem))
        unsaid = self._lines.take(time.monotonic())
        if unsaid is not None:
            log.warning(
                "call refused transport=%s peer=%s shown=%s problem=%s unsaid=%d",
                transport,
                peer.host,
                shown,
                problem,
                unsaid,
            )


class _Lines:
    """So many lines a minute; each that is let through tells how many were not."""

    def __init__(self) -> None:
        self._said: deque[float] = deque(maxlen=LINES_A_MINUTE)
        self._unsaid = 0

    def take(self, now: float) -> int | None:
        if len(self._said) == LINES_A_MINUTE and now - self._said[0] < 60:
            self._unsaid += 1
            return None
        self._said.append(now)
        unsaid, self._unsaid = self._unsaid, 0
        return unsaid
