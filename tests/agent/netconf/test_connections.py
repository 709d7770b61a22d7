"""Connections without a session are bounded in number and in time, and crowd nobody out."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from qswitch.agent.netconf import connections
from qswitch.agent.netconf.config import KeepAlives
from qswitch.agent.netconf.connections import Connection, Connections


class Waits:
    """A transport whose peers say nothing, but for those of one host."""

    def __init__(self, admits: str = "") -> None:
        self._admits = admits

    async def serve(self, connection: Connection) -> None:
        if connection.host == self._admits:
            connection.admit()
        await asyncio.Event().wait()


@pytest.fixture
def peers() -> Iterator["Peers"]:
    with Peers() as peers:
        yield peers


class Peers(ExitStack):
    """Real connections from addresses of this host."""

    def accepted(self, host: str) -> socket.socket:
        listener = self.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.enter_context(socket.create_connection(listener.getsockname(), source_address=(host, 0)))
        connection, _ = listener.accept()
        return self.enter_context(connection)


async def test_the_oldest_of_the_busiest_host_gives_way(peers: Peers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MAX_PENDING", 4)
    made, access = Connections(), Waits(admits="127.0.0.9")
    hosts = ("127.0.0.2", "127.0.0.3", "127.0.0.3", "127.0.0.9", "127.0.0.9", "127.0.0.3")
    tasks = []
    for host in hosts:
        tasks.append(made.serve(access, peers.accepted(host), KeepAlives())[1])
        await asyncio.sleep(0)
    _, newest = made.serve(access, peers.accepted("127.0.0.2"), KeepAlives())
    await asyncio.wait([tasks[1]], timeout=5)
    # Those of 127.0.0.9 have a session and count no longer.
    assert [task.done() for task in tasks] == [False, True, False, False, False, False]
    await made.stop()
    assert [task.done() for task in (*tasks, newest)] == [True, True, True, False, False, True, True]


async def test_time_runs_out_for_those_without_a_session(peers: Peers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "LOGIN_SECONDS", 0.05)
    made = Connections()
    one, slow = made.serve(Waits(), peers.accepted("127.0.0.2"), KeepAlives())
    other, quick = made.serve(Waits(admits="127.0.0.3"), peers.accepted("127.0.0.3"), KeepAlives())
    async with asyncio.timeout(5):
        await slow
    assert not one.admitted and other.admitted and not quick.done()


def test_a_connection_is_probed_and_sends_at_once(peers: Peers) -> None:
    plain = peers.accepted("127.0.0.2")
    connections._tune(plain, KeepAlives(7, 5, 4))
    options = (socket.TCP_NODELAY, socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
    assert [plain.getsockopt(socket.IPPROTO_TCP, one) for one in options] == [1, 7, 5, 4]
    assert plain.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
