"""NETCONF over SSH (RFC 6242), the client's side of it, on a TCP connection that either side opened.

The node is known by its host key and by nothing else: one of the configured keys, or no connection. The user and the
user's key are those of the node that the host key belongs to, so that a node that calls (RFC 8071) need not be known before.
"""

import asyncio
import base64
import hashlib
import socket
from collections.abc import Mapping
from typing import Any

import asyncssh

from ..checks import SshFacts
from ..config import NodeConfig, Timeouts
from ..errors import ControllerError, NodeTimedOut, NodeUnreachable
from ..model import Endpoint
from . import algorithms
from .wire import Attempt, Channel, Connection, Receiver, one_line

type HostKeys = Mapping[asyncssh.SSHKey, NodeConfig]

# What an attempt goes through; the last two are the session's.
HANDSHAKE, LOGIN, SUBSYSTEM = "SSH key exchange", "SSH login", "netconf subsystem"
_LONGEST_ASIDE = 200
_NO_SUBSYSTEM = "it is an SSH server without the netconf subsystem"


def host_key(node: NodeConfig) -> asyncssh.SSHKey:
    """The configured one. Raises NodeUnreachable when it is none."""
    try:
        return asyncssh.import_public_key(node.host_key)
    except asyncssh.KeyImportError as error:
        problem = f"its host_key in the configuration is no public key: {error}"
        raise NodeUnreachable(node.name, problem, "take it from the node's host key file NAME.pub, one line") from error


def _fingerprint(public_key: bytes) -> str:
    return "SHA256:" + base64.b64encode(hashlib.sha256(public_key).digest()).decode().rstrip("=")


async def login(
    sock: socket.socket, keys: HostKeys, attempt: Attempt, timeouts: Timeouts, peer: Endpoint
) -> "SshConnection":
    """Logs in at the SSH server on a connected socket, which is closed when that fails.

    Raises NodeUnreachable or NodeTimedOut; where the host key is none of `keys`, `attempt.ssh` has its fingerprint.
    """
    client = _Client(keys, attempt)
    try:
        async with asyncio.timeout(timeouts.connect):
            connection = await _connect(sock, client, timeouts)
    except TimeoutError as error:
        raise NodeTimedOut(client.name, attempt.step, timeouts.connect) from error
    except (asyncssh.Error, asyncssh.KeyImportError, OSError) as error:
        raise client.explained(error) from error
    finally:
        attempt.ssh = client.facts()
    assert client.node is not None
    attempt.end()
    return SshConnection(client.node.name, peer, attempt, connection)


async def _connect(sock: socket.socket, client: "_Client", timeouts: Timeouts) -> asyncssh.SSHClientConnection:
    try:
        return await asyncssh.connect(
            sock=sock,
            client_factory=lambda: client,
            username=client.node.username if client.node else "",
            client_keys=None,
            known_hosts=([], [], []),  # the client below decides
            # Of several host keys of a node, the one of a kind that is configured here.
            server_host_key_algs=client.preferred(),
            config=None,  # nothing of the user's own ssh configuration or agent
            agent_path=None,
            gss_host=None,
            preferred_auth="publickey",
            keepalive_interval=timeouts.poll,
            keepalive_count_max=3,
        )
    except BaseException:
        sock.close()
        raise


class _Client(asyncssh.SSHClient):
    """Follows a connection as it comes about: knows the node by its host key, and logs in as that node's user."""

    def __init__(self, keys: HostKeys, attempt: Attempt) -> None:
        self._keys, self._attempt = keys, attempt
        # Where only one node can be meant, errors are about it from the start.
        self.node = next(iter(keys.values())) if len(keys) == 1 else None
        self._connection: asyncssh.SSHClientConnection | None = None
        self._shown: asyncssh.SSHKey | None = None
        self._own: list[asyncssh.SSHKeyPair] = []
        self._authentication: str | None = None
        self._problem: ControllerError | None = None

    @property
    def name(self) -> str:
        return self.node.name if self.node else "?"

    def preferred(self) -> str:
        """Host key algorithms: first those of the configured keys."""
        names = dict.fromkeys(one.decode() for key in self._keys for one in key.sig_algorithms)
        return f"^{','.join(names)}" if names else "default"

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        self._connection = conn
        self._attempt.begin(HANDSHAKE)

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:  # noqa: ARG002
        self._shown, self.node = key, self._keys.get(key, self.node)
        if key not in self._keys or self.node is None or self._connection is None:
            return False
        try:
            self._own = list(asyncssh.load_keypairs([str(self.node.key)]))
        except (asyncssh.KeyImportError, OSError) as error:
            problem = f"the controller's own key {self.node.key} cannot be used: {error}"
            self._problem = NodeUnreachable(self.name, problem, "see `key` in controller.toml")
            return False
        # asyncssh wants the name before it connects, and sends it only after this: of who calls it is not known sooner.
        self._connection._username = self.node.username
        self._attempt.begin(LOGIN)
        return True

    def public_key_auth_requested(self) -> Any:
        """Asked until there is no more to try."""
        own, self._own = self._own, []
        if own:
            self._authentication = f"publickey, {own[0].get_algorithm()} {_fingerprint(own[0].public_data)}"
        return own or None

    def _offers(self) -> tuple[algorithms.Offer, algorithms.Offer]:
        """Of the controller and of the node; asyncssh keeps both messages, though it has no name for them."""
        messages = (getattr(self._connection, name, b"") for name in ("_client_kexinit", "_server_kexinit"))
        client, server = map(algorithms.parse_kexinit, messages)
        return client, server

    def facts(self) -> SshFacts:
        """What is known by now."""
        connection, shown = self._connection, self._shown
        client, server = self._offers()
        chosen = algorithms.agreed(client, server)
        cipher = chosen["cipher to the node"]
        return SshFacts(
            software=connection.get_extra_info("server_version") if connection else None,
            host_key_type=shown.get_algorithm() if shown else None,
            host_key=shown.get_fingerprint() if shown else None,
            configured_host_key=next((one.get_fingerprint() for one, node in self._keys.items() if node is self.node), None),
            key_exchange=chosen["key exchange"],
            cipher=cipher,
            mac="the cipher's own" if algorithms.without_mac(cipher) else chosen["MAC to the node"],
            compression=chosen["compression to the node"],
            user=self.node.username if self.node else None,
            authentication=self._authentication,
            offered=dict(server) or None,
        )

    def explained(self, error: Exception) -> ControllerError:
        """Why there is no connection, in words."""
        if self._problem is not None:
            return self._problem
        if isinstance(error, asyncssh.HostKeyNotVerifiable):
            return self._other_host_key()
        if isinstance(error, asyncssh.PermissionDenied):
            user = self.node.username if self.node else "?"
            return NodeUnreachable(
                self.name,
                f"it refuses the key of user '{user}'" + (f": {self._authentication}" if self._authentication else ""),
                f"have this public key in the node's ietf-netconf-server configuration under the user '{user}'",
            )
        return self._no_common_algorithm() or self._ended(error)

    def _other_host_key(self) -> ControllerError:
        facts = self.facts()
        if facts.host_key is None:
            return NodeUnreachable(self.name, "its host key is a certificate, or of a kind that the controller cannot read")
        if self.node is None:
            return NodeUnreachable("?", f"its host key {facts.host_key_type} {facts.host_key} is that of no node that calls")
        return NodeUnreachable(
            self.name,
            "its host key is not the configured one: "
            f"it shows {facts.host_key_type} {facts.host_key}, configured is {facts.configured_host_key}",
            "another machine answers, or the node was set up anew: compare with `ssh-keygen -lf` at the node's own console, "
            "and only when that is the key it shows, put it into host_key",
        )

    def _no_common_algorithm(self) -> ControllerError | None:
        client, server = self._offers()
        kind = algorithms.missing(client, server)
        if kind is None:
            return None
        theirs, ours = ", ".join(server[kind]), ", ".join(client[kind])
        return NodeUnreachable(
            self.name,
            f"no {kind} algorithm in common: it offers {theirs}; the controller offers {ours}",
            "have the node's SSH server offer one of the controller's (transport-params of ietf-netconf-server)",
        )

    def _ended(self, error: Exception) -> ControllerError:
        words = one_line(str(error)) or type(error).__name__
        if self._connection is None or self._connection.get_extra_info("server_version") is None:
            advice = "check that the port is that of NETCONF over SSH: 830 unless configured"
            return NodeUnreachable(self.name, f"no SSH server answers there: {words}", advice)
        problem = f"it ended the connection during {self._attempt.step}: {words}"
        return NodeUnreachable(self.name, problem, "the log of the node's NETCONF server says more")


class SshConnection(Connection):
    """One SSH connection; every session is a channel of it."""

    transport, shares = "ssh", True

    def __init__(self, node: str, peer: Endpoint, attempt: Attempt, connection: asyncssh.SSHClientConnection) -> None:
        super().__init__(node, peer, attempt)
        self._connection = connection

    async def carry(self, receiver: Receiver, attempt: Attempt) -> Channel:
        attempt.begin(SUBSYSTEM)
        try:
            channel, _session = await self._connection.create_session(
                lambda: _Session(receiver), subsystem="netconf", encoding=None
            )
        except asyncssh.ChannelOpenError as error:
            refused = error.code == asyncssh.OPEN_REQUEST_SESSION_FAILED
            raise NodeUnreachable(
                self.node,
                _NO_SUBSYSTEM if refused else f"it opens no session: {one_line(str(error))}",
                "the port is likely that of remote login: NETCONF has 830" if refused else "",
            ) from error
        except (asyncssh.Error, OSError) as error:
            problem = f"it ended the connection during {SUBSYSTEM}: {one_line(str(error))}"
            raise NodeUnreachable(self.node, problem) from error
        return channel

    def abort(self) -> None:
        self._connection.abort()


class _Session(asyncssh.SSHClientSession[bytes]):
    """One channel."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._aside = b""

    def connection_made(self, chan: "asyncssh.SSHClientChannel[bytes]") -> None:
        self._receiver.opened(chan)

    def data_received(self, data: bytes, datatype: Any) -> None:
        """What a node writes to its standard error is none of NETCONF, but may say why it ends."""
        if datatype is None:
            self._receiver.received(data)
        else:
            self._aside = (self._aside + data)[:_LONGEST_ASIDE]

    def eof_received(self) -> bool:
        self._end("the node closed the session")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(f"connection lost: {one_line(str(exc))}" if exc else "the node closed the connection")

    def _end(self, problem: str) -> None:
        words = one_line(self._aside.decode("utf-8", "replace").strip())
        self._receiver.ended(f"{problem}: {words}" if words else problem)
