"""Connects to a node that waits for the controller: TCP first, then SSH or TLS, so that a failure names its step."""

import asyncio
import socket

from ..config import NodeConfig, Timeouts
from ..errors import NodeTimedOut, NodeUnreachable
from . import ssh, tls
from .wire import Attempt, Connection

TCP = "TCP connection"


async def connect(node: NodeConfig, timeouts: Timeouts, attempt: Attempt | None = None) -> Connection:
    """An authenticated connection. Raises NodeUnreachable or NodeTimedOut; `attempt` then has how far it got."""
    attempt = attempt or Attempt()
    keys = {} if node.tls else {ssh.host_key(node): node}
    attempt.begin(TCP)
    try:
        async with asyncio.timeout(timeouts.connect):
            sock = await _tcp(node)
    except TimeoutError as error:
        raise NodeTimedOut(node.name, TCP, timeouts.connect) from error
    if node.tls is not None:
        return await tls.greet(sock, (node,), attempt, timeouts, node.netconf)
    return await ssh.login(sock, keys, attempt, timeouts, node.netconf)


async def _tcp(node: NodeConfig) -> socket.socket:
    """A connected socket to the first address of the node that answers."""
    loop, (host, port) = asyncio.get_running_loop(), (node.netconf.host, node.netconf.port)
    try:
        addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise NodeUnreachable(node.name, f"no address of host '{host}': {error.strerror}", "see `host`, or DNS") from error
    problem: OSError | None = None
    for family, kind, protocol, _name, address in addresses:
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            await loop.sock_connect(sock, address)
            return sock
        except OSError as error:
            sock.close()
            problem = error
        except BaseException:
            sock.close()
            raise
    if isinstance(problem, ConnectionRefusedError):
        advice = "nothing listens there: see that the node's NETCONF server runs, and on which port"
        raise NodeUnreachable(node.name, f"{host} port {port} refuses the connection", advice) from problem
    words = problem and (problem.strerror or str(problem))
    raise NodeUnreachable(node.name, f"{host} port {port}: {words}", "see the network between here and there") from problem
