"""Keeps listeners and call-home dialers what the running datastore says, from one change to the next without a restart.

A change holds for connections made after it. Sessions that are open stay, except those of a user whom their endpoint no
longer admits. What cannot be used is said in the log and leaves the rest as it is: no edit ends the server.
"""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from sysrepo.session import SysrepoSession

from ..errors import ConfigurationError
from . import config
from .callhome import Dialer
from .connections import Access, Connections
from .server import Server
from .ssh import SshAccess
from .tls import TlsAccess

log = logging.getLogger(__name__)

_BACKLOG = 512
_SHORTEST_WAIT, _LONGEST_WAIT = 0.125, 60.0

Key = tuple[str, str, str]  # client of call-home or "", endpoint, transport


class Listening:
    """The listeners and dialers of a server."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._connections = Connections()
        self._accesses: dict[Key, Access] = {}
        self._ports: dict[tuple[str, int], _Port] = {}
        self._dialers: dict[str, Dialer] = {}
        self._changed = asyncio.Event()
        self._settled = asyncio.Event()  # no change that is known is still to be taken up
        self._session: SysrepoSession | None = None
        self._following: asyncio.Task[None] | None = None

    async def start(self) -> Sequence[tuple[str, int]]:
        """Listens and dials as the running datastore says; the addresses with the ports really taken.

        Raises ConfigurationError when an endpoint cannot serve, or there is none.
        """
        session = self._session = await self._server.call(self._server.datastore.start_session)
        await self._server.call(self._subscribe, session)
        if problems := self._apply(await self._server.call(config.read, session)):
            raise problems[0]
        if not self._ports and not self._dialers:
            raise ConfigurationError("ietf-netconf-server", "no endpoint with ssh or tls is configured")
        for port in self._ports.values():
            port.open_first()
        self._settled.set()
        self._following = asyncio.create_task(self._follow(session))
        return [port.taken for port in self._ports.values()]

    async def stop(self) -> None:
        """Takes no further connection; those with a session are the server's to end."""
        if self._following is not None:
            self._following.cancel()
        for port in self._ports.values():
            port.stop()
        for dialer in self._dialers.values():
            dialer.stop()
        await self._connections.stop()
        if self._session is not None:
            await self._server.call(self._session.stop)

    def _subscribe(self, session: SysrepoSession) -> None:
        """Also puts the configuration into the operational datastore, where only what someone follows is in effect."""
        for module in filter(self._server.datastore.schema.namespace_of, config.MODULES):
            session.subscribe_module_change(module, None, self._note, done_only=True)

    def _note(self, _event: str, _id: int, _changes: Any, _private: Any) -> None:
        """On a thread of sysrepo, before whoever changed something is told that it is done."""
        self._server.on_loop(self._settled.clear)
        self._server.on_loop(self._changed.set)

    async def _follow(self, session: SysrepoSession) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                for problem in self._apply(await self._server.call(config.read, session)):
                    log.error("configuration is not usable problem=%s", problem)
            except Exception:  # the server goes on with what it had
                log.exception("configuration is not taken up")
            if not self._changed.is_set():
                self._settled.set()

    def _apply(self, configuration: config.Configuration) -> list[ConfigurationError]:
        """Brings everything to a configuration; what of it cannot be used."""
        self._server.limits = configuration.limits
        problems, accesses = list[ConfigurationError](), dict[Key, Access]()
        for client, endpoints in (
            ("", configuration.endpoints),
            *((one.name, one.endpoints) for one in configuration.clients),
        ):
            for endpoint in endpoints:
                key = client, endpoint.name, endpoint.transport
                if (access := self._access(key, endpoint, problems)) is not None:
                    accesses[key] = access
        self._accesses = accesses
        self._listen(configuration.endpoints)
        self._dial(configuration.clients)
        return problems

    def _access(self, key: Key, endpoint: config.Endpoint, problems: list[ConfigurationError]) -> Access | None:
        """The access of an endpoint, brought to its parameters; none where there was none and cannot be one."""
        for problem in endpoint.access.problems:
            log.error("part of an endpoint is not usable endpoint=%s problem=%s", endpoint.name, problem)
        kind = SshAccess if endpoint.transport == "ssh" else TlsAccess
        access: Access = self._accesses.get(key) or kind(self._server, endpoint.name)
        try:
            access.update(endpoint.access)
        except ConfigurationError as error:
            problems.append(error)
            return self._accesses.get(key)
        return access

    def _listen(self, endpoints: Sequence[config.Endpoint]) -> None:
        wanted = dict[tuple[str, int], tuple[Access, config.KeepAlives]]()
        for endpoint in endpoints:
            if (access := self._accesses.get(("", endpoint.name, endpoint.transport))) is not None:
                wanted |= dict.fromkeys(endpoint.addresses, (access, endpoint.keep_alives))
        for address in self._ports.keys() - wanted.keys():
            log.info("no longer listening address=%s:%d", *address)
            self._ports.pop(address).stop()
        for address, serves in wanted.items():
            if address not in self._ports:
                self._ports[address] = _Port(address, self._take)
            self._ports[address].serves = serves

    async def _take(self, connection: socket.socket, port: "_Port") -> None:
        """A change that was made before the client came holds for it."""
        await self._settled.wait()
        access, keep_alives = port.serves
        self._connections.serve(access, connection, keep_alives)

    def _dial(self, clients: Sequence[config.Client]) -> None:
        for name in self._dialers.keys() - {client.name for client in clients}:
            self._dialers.pop(name).stop()
        for client in clients:
            accesses = {
                endpoint.name: access
                for endpoint in client.endpoints
                if (access := self._accesses.get((client.name, endpoint.name, endpoint.transport))) is not None
            }
            dialer = self._dialers.get(client.name)
            if dialer is None or not dialer.adopt(client, accesses):
                if dialer is not None:
                    dialer.stop()
                self._dialers[client.name] = Dialer(client, accesses, self._connections)


class _Port:
    """One address to listen on; where it cannot be had, it is tried again."""

    serves: tuple[Access, config.KeepAlives]  # what connections find here from now on

    def __init__(self, address: tuple[str, int], take: Callable[..., Awaitable[None]]) -> None:
        self.taken = address
        self._address, self._take = address, take
        self._socket: socket.socket | None = None
        self._task = asyncio.create_task(self._run())

    def open_first(self) -> None:
        """At the server's start. Raises ConfigurationError."""
        try:
            self._open()
        except OSError as error:
            text = f"cannot listen on {self._address[0]}:{self._address[1]}: {error.strerror or error}"
            raise ConfigurationError("ietf-netconf-server", text) from error

    def stop(self) -> None:
        self._task.cancel()

    def _open(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET
        self._socket = socket.create_server(self._address, family=family, backlog=_BACKLOG)
        self._socket.setblocking(False)
        self.taken = self._socket.getsockname()[:2]
        return self._socket

    async def _run(self) -> None:
        loop, wait, begun = asyncio.get_running_loop(), 0.0, 0.0
        try:
            while True:
                try:
                    begun = loop.time()
                    await self._accept(self._socket or self._open())
                except OSError as error:
                    lasted = loop.time() - begun > _LONGEST_WAIT
                    wait = _SHORTEST_WAIT if lasted else min(2 * wait or _SHORTEST_WAIT, _LONGEST_WAIT)
                    log.error("cannot listen address=%s:%d reason=%s next_seconds=%g", *self._address, error, wait)
                    await asyncio.sleep(wait)
        finally:
            if self._socket is not None:
                self._socket.close()

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        log.info("listening address=%s:%d", *self.taken)
        while True:
            connection, _ = await loop.sock_accept(listener)
            try:
                await self._take(connection, self)
            except OSError:  # it is gone already
                connection.close()
