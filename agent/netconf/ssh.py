"""NETCONF over SSH (RFC 6242): only the subsystem `netconf` is offered, only public keys open it."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, cast

import asyncssh

from ..errors import ConfigurationError
from .config import Ssh
from .connections import Connection
from .server import Server

log = logging.getLogger(__name__)

_READ = 16384
_CLOSE_SECONDS = 5.0
# Lists of ietf-ssh-common -> what asyncssh calls them. Left to itself, it would also take what SHA-1 signs.
_ALGORITHMS = {"key-exchange": "kex_algs", "encryption": "encryption_algs", "mac": "mac_algs"}
_DEFAULTS = {"kex_algs": "-*sha1", "mac_algs": "-*sha1*", "signature_algs": "-ssh-rsa,ssh-dss"}
_MAX_REFUSED = 20  # user names and keys; agents hold several keys
_MAX_CHANNELS = 32  # that nobody has asked a session on
_WINDOW = 1 << 18  # octets that each channel may make us hold
_NO_DATA = (asyncssh.BreakReceived, asyncssh.SignalReceived, asyncssh.TerminalSizeChanged)


class SshAccess:
    """What one endpoint offers over SSH, and to whom."""

    def __init__(self, server: Server, endpoint: str) -> None:
        self.server = server
        self.endpoint = endpoint
        self.logins: set[Login] = set()
        self._keys: tuple[asyncssh.SSHKey, ...] = ()

    def update(self, parameters: Ssh) -> None:
        """Serves new connections by these parameters, and ends those of users and keys that they do not admit.

        Where no host key is usable, those before stay in place. Raises ConfigurationError when there are none; who may
        come holds all the same.
        """
        self._users = parameters.users
        for login in list(self.logins):
            login.check()
        keys = parameters.host_keys or self._keys
        if not keys:
            raise ConfigurationError(f"endpoint '{self.endpoint}'", "; ".join(parameters.problems) or "has no host key")
        names = parameters.algorithms.get("host-key", ())
        try:
            self._options = _options(parameters.algorithms, _pairs(keys, names))
        except ValueError as error:
            raise ConfigurationError(f"endpoint '{self.endpoint}'", str(error)) from error
        self._keys, self._names = keys, names

    def knows(self, user: str) -> bool:
        """Whether a user is one of this endpoint."""
        return bool(self._users.get(user))

    def admits(self, user: str, key: bytes) -> bool:
        """Whether a public key (SSH wire form) is one of a user of this endpoint."""
        return key in self._users.get(user, ())

    async def serve(self, connection: Connection) -> None:
        """Runs the sessions of one connection to their end. Raises OSError or asyncssh.Error when nobody logs in."""
        login = Login(self, connection)
        # Pairs of its own: one that is shared signs for all in the way that the last client has asked for.
        pairs = _pairs(self._keys, self._names)
        ssh = await asyncssh.run_server(
            connection.socket, options=self._options, server_factory=lambda: login, server_host_keys=pairs
        )
        try:
            await ssh.wait_closed()
        finally:
            ssh.abort()


def _pairs(keys: Sequence[asyncssh.SSHKey], names: Sequence[str]) -> list[asyncssh.SSHKeyPair]:
    """The host keys, for the algorithms of these names; for all but SHA-1's when there are none."""
    pairs = asyncssh.load_keypairs(list(keys))
    for pair in pairs:
        known = (one for one in pair.host_key_algorithms if (one.decode() in names if names else one != b"ssh-rsa"))
        pair.host_key_algorithms = tuple(known)
    return [pair for pair in pairs if pair.host_key_algorithms]


def _options(
    algorithms: Mapping[str, Sequence[str]], pairs: Sequence[asyncssh.SSHKeyPair]
) -> asyncssh.SSHServerConnectionOptions:
    """Raises ValueError for an algorithm that there is not, and when no host key fits."""
    chosen = {_ALGORITHMS[name]: names for name, names in algorithms.items() if name in _ALGORITHMS and names}
    return asyncssh.SSHServerConnectionOptions(
        **{**_DEFAULTS, **chosen},
        server_host_keys=list(pairs),
        send_server_host_keys=True,  # a client learns of all keys before one goes
        encoding=None,
        line_editor=False,
        allow_pty=False,
        agent_forwarding=False,
        gss_host=None,  # else every connection looks up this host's name
        login_timeout=0,  # what bounds the time to log in bounds that to a session, too
        keepalive_interval=60,
        keepalive_count_max=3,
        # XML of this size needs no compression on its way, and its memory is per session.
        compression_algs=None,
    )


class Login(asyncssh.SSHServer):
    """One SSH connection: public keys of the endpoint's users open it, nothing else does; it ends with its last session."""

    def __init__(self, access: SshAccess, connection: Connection) -> None:
        self._access = access
        self._connection = connection
        self._ssh: asyncssh.SSHServerConnection | None = None
        self._user, self._key = "", b""
        self._sessions = self._channels = self._refused = 0

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._ssh = conn

    def connection_lost(self, _exc: Exception | None) -> None:
        self._access.logins.discard(self)

    def begin_auth(self, username: str) -> bool:
        if not self._access.knows(username):
            self._refuse("unknown user", username, "")
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def password_auth_supported(self) -> bool:
        return False

    def kbdint_auth_supported(self) -> bool:
        return False

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        self._user, self._key = username, key.public_data
        if self._access.admits(username, self._key):
            return True
        self._refuse("key refused", username, key.get_fingerprint())
        return False

    def _refuse(self, what: str, user: str, key: str) -> None:
        log.warning("%s endpoint=%s user=%r host=%s key=%s", what, self._access.endpoint, user, self._connection.host, key)
        self._refused += 1
        if self._refused >= _MAX_REFUSED and self._ssh is not None:
            self._ssh.disconnect(asyncssh.DISC_NO_MORE_AUTH_METHODS_AVAILABLE, "too many attempts")

    def auth_completed(self) -> None:
        self._access.logins.add(self)
        self.check()  # who may come may have changed since the key was looked at

    def check(self) -> None:
        """Ends the connection when its user may be here no longer."""
        if self._ssh is not None and not self._access.admits(self._user, self._key):
            host = self._connection.host
            log.warning("user is no longer admitted endpoint=%s user=%r host=%s", self._access.endpoint, self._user, host)
            self._ssh.disconnect(asyncssh.DISC_BY_APPLICATION, "the user is no longer admitted")

    def session_requested(self) -> Any:
        self._channels += 1
        refusal = "too many channels" if self._channels > _MAX_CHANNELS else self._refusal()
        if refusal is not None or self._ssh is None:
            self._channels -= 1
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_RESOURCE_SHORTAGE, refusal or "too late")
        channel = self._ssh.create_server_channel(None, "strict", _WINDOW)
        channel._env = _NoEnvironment()
        return channel, self._serve

    def _refusal(self) -> str | None:
        refusal = self._access.server.refusal(self._user)
        if refusal is not None:
            log.warning("session refused user=%r host=%s problem=%s", self._user, self._connection.host, refusal)
        return refusal

    async def _serve(
        self, stdin: asyncssh.SSHReader[bytes], stdout: asyncssh.SSHWriter[bytes], stderr: asyncssh.SSHWriter[bytes]
    ) -> None:
        self._channels -= 1
        stream = SshStream(stdin, stdout, self._user, self._connection)
        # Asked again: many channels may have been opened since, and none of them counted yet.
        refusal = (
            self._refusal() if stdin.channel.get_subsystem() == "netconf" else "only the subsystem 'netconf' is offered"
        )
        if refusal is not None:
            stderr.write(f"{refusal}\n".encode())
            await stream.close(1)
            return
        self._sessions += 1
        self._connection.admit()
        try:
            self._connection.over(await self._access.server.serve(stream))
        finally:
            self._sessions -= 1
            if not self._sessions and self._ssh is not None:
                self._ssh.close()


class _NoEnvironment(dict[bytes, bytes]):
    """What a client would set is of no use here, and would be kept without limit."""

    def __setitem__(self, _name: bytes, _value: bytes) -> None: ...


class SshStream:
    """The channel of a subsystem as a session's stream."""

    transport = "netconf-ssh"

    def __init__(
        self, stdin: asyncssh.SSHReader[bytes], stdout: asyncssh.SSHWriter[bytes], user: str, connection: Connection
    ) -> None:
        self.user, self.host, self.idle_seconds = user, connection.host, connection.idle_seconds
        self._stdin, self._stdout = stdin, stdout

    async def read(self) -> bytes:
        while True:
            try:
                return await self._stdin.read(_READ)
            except _NO_DATA:
                continue
            except asyncssh.Error as error:
                raise ConnectionError(str(error)) from error

    def write(self, data: bytes) -> None:
        self._stdout.write(data)

    async def drain(self) -> None:
        try:
            await self._stdout.drain()
        except asyncssh.Error as error:
            raise ConnectionError(str(error)) from error

    async def close(self, status: int = 0) -> None:
        channel = cast("asyncssh.SSHServerChannel[bytes]", self._stdout.channel)
        channel.exit(status)
        with suppress(TimeoutError):
            await asyncio.wait_for(channel.wait_closed(), _CLOSE_SECONDS)

    def abort(self) -> None:
        self._stdout.channel.abort()
