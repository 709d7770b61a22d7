"""NETCONF over SSH (RFC 6242): only the subsystem `netconf` is offered, only public keys open it."""

import logging
import socket
from collections.abc import Sequence

import asyncssh

from ..config import RECOVERY_USER
from ..errors import ConfigurationError
from . import config
from .server import Server

log = logging.getLogger(__name__)

LOGIN_SECONDS = 30
_READ = 65536


class SshStream:
    """The channel of a subsystem as a session's stream."""

    transport = "netconf-ssh"

    def __init__(self, stdin: asyncssh.SSHReader[bytes], stdout: asyncssh.SSHWriter[bytes]) -> None:
        self.user: str = stdin.get_extra_info("username")
        self.host: str = (stdin.get_extra_info("peername") or ("",))[0]
        self._stdin, self._stdout = stdin, stdout

    async def read(self) -> bytes:
        try:
            return await self._stdin.read(_READ)
        except asyncssh.Error as error:
            raise ConnectionError(str(error)) from error

    def write(self, data: bytes) -> None:
        self._stdout.write(data)

    async def drain(self) -> None:
        try:
            await self._stdout.drain()
        except asyncssh.Error as error:
            raise ConnectionError(str(error)) from error

    async def close(self) -> None:
        self._stdout.channel.close()

    def abort(self) -> None:
        self._stdout.channel.abort()


async def listen(server: Server, host: str, port: int, keys: Sequence[asyncssh.SSHKey]) -> asyncssh.SSHAcceptor:
    """Serves at one address. Raises ConfigurationError when it cannot be had."""
    try:
        return await asyncssh.listen(
            host,
            port,
            server_factory=lambda: _Login(server),
            server_host_keys=list(keys),
            session_factory=lambda stdin, stdout, stderr: _session(server, stdin, stdout, stderr),
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
    server: Server,
    stdin: asyncssh.SSHReader[bytes],
    stdout: asyncssh.SSHWriter[bytes],
    stderr: asyncssh.SSHWriter[bytes],
) -> None:
    if stdin.channel.get_subsystem() != "netconf":
        stderr.write(b"only the subsystem 'netconf' is offered\n")
        stdout.close()
        return
    stream = SshStream(stdin, stdout)
    if (refusal := server.refusal(stream.user)) is not None:
        log.warning("session refused user=%r host=%s problem=%s", stream.user, stream.host, refusal)
        stderr.write(f"{refusal}\n".encode())
        stdout.close()
        return
    await server.serve(stream)


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
