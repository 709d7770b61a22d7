"""NETCONF over SSH (RFC 6242): who may log in, and what the sessions of the server share.

Only the subsystem `netconf` is offered, only public keys open it. The loop carries bytes; whatever touches sysrepo runs
in a pool of threads.
"""

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import asyncssh

from ..config import RECOVERY_USER
from ..errors import ConfigurationError
from . import config
from .datastore import Datastore
from .monitoring import Monitoring
from .session import Session

log = logging.getLogger(__name__)

LOGIN_SECONDS = 30
MAX_SESSIONS = 500
MAX_SESSIONS_OF_USER = 250
_MAX_REQUEST = 8 << 20  # octets; what a session may make the server hold before it has said anything that counts
_THREADS = 32


class Server:
    """All sessions of the process."""

    def __init__(self, datastore: Datastore, max_message: int = _MAX_REQUEST) -> None:
        self.datastore = datastore
        self.max_message = max_message
        self.started = datetime.now(UTC)
        self.sessions: dict[int, Session] = {}
        self.locks = Locks()
        self.in_sessions = 0
        self._pool = ThreadPoolExecutor(_THREADS, "netconf")
        self._listeners: list[asyncssh.SSHAcceptor] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._monitoring: Monitoring | None = None

    async def start(self) -> Sequence[tuple[str, int]]:
        """Listens where the running datastore says; the addresses with the ports really taken. Raises ConfigurationError."""
        self._monitoring = await self.call(Monitoring, self)
        endpoints = await self.call(config.endpoints, self.datastore)
        for endpoint in endpoints:
            keys = [await self.call(config.host_key, self.datastore, name) for name in endpoint.host_keys]
            if not keys:
                raise ConfigurationError("ietf-netconf-server", f"endpoint '{endpoint.name}' has no host key")
            for host, port in endpoint.binds:
                self._listeners.append(await self._listen(host, port, keys))
        if not self._listeners:
            raise ConfigurationError("ietf-netconf-server", "no endpoint with ssh is configured")
        addresses = [(host, one.get_port()) for one, (host, _) in zip(self._listeners, _binds(endpoints), strict=True)]
        log.info("listening addresses=%s", ", ".join(f"{host}:{port}" for host, port in addresses))
        return addresses

    async def stop(self) -> None:
        """Ends all sessions and stops listening."""
        for listener in self._listeners:
            listener.close()
        for session in list(self.sessions.values()):
            session.end()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=10)
        if self._monitoring is not None:
            await self.call(self._monitoring.stop)
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def call[**P, T](self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs a blocking function in a thread."""
        return await self._loop.run_in_executor(self._pool, lambda: function(*args, **kwargs))

    def on_loop(self, function: Callable[..., None], *args: object) -> None:
        """Runs a function on the loop, from any thread; after the end of the loop, nothing."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *args)

    def kill(self, session_id: int, wait: float) -> bool:
        """Ends another session and waits until its locks are free; False when there is none. From a worker thread."""
        session = self.sessions.get(session_id)
        if session is None:
            return False

        async def end() -> None:
            session.end()
            await asyncio.wait_for(session.ended.wait(), wait)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result()
        return True

    def forget(self, session: Session) -> None:
        """A session is over and has released everything."""
        self.locks.release(session.id)
        self.sessions.pop(session.id, None)

    async def _listen(self, host: str, port: int, keys: Sequence[asyncssh.SSHKey]) -> asyncssh.SSHAcceptor:
        try:
            return await asyncssh.listen(
                host,
                port,
                server_factory=lambda: _Login(self),
                server_host_keys=list(keys),
                session_factory=self._session,
                encoding=None,
                line_editor=False,
                allow_pty=False,
                agent_forwarding=False,
                gss_host=None,  # else every connection looks up this host's name
                login_timeout=LOGIN_SECONDS,
                keepalive_interval=60,
                keepalive_count_max=3,
                # XML of this size needs no compression on its way, and its memory is per session.
                compression_algs=None,
            )
        except OSError as error:
            raise ConfigurationError("ietf-netconf-server", f"cannot listen on {host}:{port}: {error.strerror}") from error

    async def _session(
        self, stdin: asyncssh.SSHReader[bytes], stdout: asyncssh.SSHWriter[bytes], stderr: asyncssh.SSHWriter[bytes]
    ) -> None:
        if stdin.channel.get_subsystem() != "netconf":
            stderr.write(b"only the subsystem 'netconf' is offered\n")
            stdout.close()
            return
        user = stdin.get_extra_info("username")
        if len(self.sessions) >= MAX_SESSIONS or self._sessions_of(user) >= MAX_SESSIONS_OF_USER:
            log.warning("session refused user=%r open=%d", user, len(self.sessions))
            stderr.write(b"too many sessions are open\n")
            stdout.close()
            return
        self.in_sessions += 1
        peer = stdin.get_extra_info("peername") or ("",)
        session = Session(self, self.in_sessions, user, peer[0], stdin, stdout)
        self.sessions[session.id] = session
        task = asyncio.create_task(session.run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await asyncio.wait([task])

    def _sessions_of(self, user: str) -> int:
        return sum(session.user == user for session in self.sessions.values())


def _binds(endpoints: Sequence[config.SshEndpoint]) -> list[tuple[str, int]]:
    return [bind for endpoint in endpoints for bind in endpoint.binds]


class Locks:
    """Which session holds which datastore, so that `lock-denied` can name it. For any thread."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[int, datetime]] = {}
        self._mutex = threading.Lock()

    def take(self, datastore: str, session_id: int) -> int | None:
        """Takes a lock; else the id of the session that has it."""
        with self._mutex:
            held = self._held.get(datastore)
            if held is not None:
                return held[0]
            self._held[datastore] = (session_id, datetime.now(UTC))
            return None

    def give(self, datastore: str, session_id: int) -> bool:
        """Gives a lock back; False when the session does not hold it."""
        with self._mutex:
            held = self._held.get(datastore)
            if held is None or held[0] != session_id:
                return False
            del self._held[datastore]
            return True

    def release(self, session_id: int) -> None:
        """Gives back all a session holds."""
        with self._mutex:
            self._held = {name: held for name, held in self._held.items() if held[0] != session_id}

    def held(self) -> dict[str, tuple[int, datetime]]:
        """Datastore -> holder and time."""
        with self._mutex:
            return dict(self._held)


class _Login(asyncssh.SSHServer):
    """Public keys from the datastore open a session, nothing else does."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._keys: frozenset[bytes] = frozenset()
        self._peer = ""

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        connection = conn.get_extra_info("socket")
        if connection is not None and connection.family in (socket.AF_INET, socket.AF_INET6):
            # A reply in two writes would wait for the client's delayed acknowledgement.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._peer = (conn.get_extra_info("peername") or ("",))[0]

    async def begin_auth(self, username: str) -> bool:
        if username == RECOVERY_USER:  # whatever the datastore says: it would be above all access control
            log.warning("user refused user=%r host=%s", username, self._peer)
            return True
        self._keys = await self._server.call(config.user_keys, self._server.datastore, username)
        if not self._keys:
            log.warning("unknown user user=%r host=%s", username, self._peer)
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def password_auth_supported(self) -> bool:
        return False

    def kbdint_auth_supported(self) -> bool:
        return False

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        known = key.public_data in self._keys
        if not known:
            log.warning("key refused user=%r host=%s fingerprint=%s", username, self._peer, key.get_fingerprint())
        return known
