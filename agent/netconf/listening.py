"""Where the server listens: what ietf-netconf-server says."""

import logging
from collections.abc import Sequence

import asyncssh

from ..errors import ConfigurationError
from . import config, ssh
from .server import Server

log = logging.getLogger(__name__)


class Listening:
    """The listeners of a server."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._listeners: list[asyncssh.SSHAcceptor] = []

    async def start(self) -> Sequence[tuple[str, int]]:
        """Listens where the running datastore says; the addresses with the ports really taken. Raises ConfigurationError."""
        server, addresses = self._server, []
        for endpoint in await server.call(config.endpoints, server.datastore):
            keys = [await server.call(config.host_key, server.datastore, name) for name in endpoint.host_keys]
            if not keys:
                raise ConfigurationError("ietf-netconf-server", f"endpoint '{endpoint.name}' has no host key")
            for host, port in endpoint.binds:
                listener = await ssh.listen(server, host, port, keys)
                self._listeners.append(listener)
                addresses.append((host, listener.get_port()))
        if not self._listeners:
            raise ConfigurationError("ietf-netconf-server", "no endpoint with ssh is configured")
        log.info("listening addresses=%s", ", ".join(f"{host}:{port}" for host, port in addresses))
        return addresses

    async def stop(self) -> None:
        for listener in self._listeners:
            listener.close()
