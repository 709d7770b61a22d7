"""Two nodes' 004 servers that hand out the same keys, and an application identity at each."""

import asyncio
import json
import os
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvloop

from qswitch.agent.config import ServiceConfig, TlsFiles
from qswitch.agent.errors import PeerNotConnected, Unauthorised, UnknownKeyStream
from qswitch.agent.lkms.keys import Key
from qswitch.agent.model import Endpoint
from qswitch.agent.service.etsi004 import Etsi004Server
from qswitch.app.client import Client
from qswitch.integration.identities import Authority
from qswitch.protocol.etsi004 import (
    Close,
    CloseReply,
    Dialect,
    GetKey,
    GetKeyReply,
    OpenConnect,
    OpenConnectReply,
    Qos,
    Status,
)


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Callable[..., Any]]:
    """Nodes run on uvloop, applications on whatever they choose; the two differ where connections end."""
    factories = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop} if item.path.name == "test_main.py" else factories


METADATA = b'{"age": 12, "hops": 2}'


@dataclass
class Stream:
    qos: Qos
    ends: set[str] = field(default_factory=set)
    keys: dict[int, bytes] = field(default_factory=lambda: defaultdict(lambda: b""))


@dataclass
class Table:
    """What the two nodes share: streams and their keys."""

    streams: dict[str, Stream] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    shortages: dict[int, int] = field(default_factory=dict)  # index: how often it is not there yet

    def chunk(self, ksid: str, index: int) -> bytes:
        stream = self.streams[ksid]
        return stream.keys.setdefault(index, os.urandom(stream.qos.key_chunk_size))


@dataclass
class Node:
    """The KeyService of one node."""

    name: str
    table: Table
    next: dict[str, int] = field(default_factory=dict)
    opened: int = 0
    closed: list[str] = field(default_factory=list)

    async def open_connect(self, caller: frozenset[str], request: OpenConnect) -> OpenConnectReply:
        if not caller & {request.source, request.destination}:
            raise Unauthorised(str(sorted(caller)), "open this")
        if request.qos.max_bps > 1_000_000:
            return OpenConnectReply(Status.QOS_NOT_MET, Qos(32, 1_000_000), request.ksid)
        ksid = request.ksid or str(uuid.uuid4())
        stream = self.table.streams.setdefault(ksid, Stream(request.qos))
        stream.ends.add(self.name)
        self.opened += 1
        status = Status.SUCCESS if len(stream.ends) == 2 else Status.PEER_ABSENT
        return OpenConnectReply(status, stream.qos, ksid)

    async def get_key(self, _caller: frozenset[str], request: GetKey) -> tuple[GetKeyReply, Key | None]:
        stream = self.table.streams.get(request.ksid)
        if stream is None or self.name not in stream.ends:
            raise UnknownKeyStream(request.ksid)
        if len(stream.ends) < 2:
            raise PeerNotConnected(request.ksid)
        index = self.next.get(request.ksid, 0) if request.index is None else request.index
        if self.table.shortages.get(index, 0) > 0:
            self.table.shortages[index] -= 1
            return GetKeyReply(Status.INSUFFICIENT_KEY, index), None
        self.next[request.ksid] = index + 1
        metadata = METADATA if request.metadata_size else b""
        return GetKeyReply(Status.SUCCESS, index, metadata), Key(self.table.chunk(request.ksid, index))

    async def close(self, _caller: frozenset[str], request: Close) -> CloseReply:
        if request.ksid not in self.table.streams:
            raise UnknownKeyStream(request.ksid)
        self.closed.append(request.ksid)
        return CloseReply(Status.SUCCESS)


@dataclass
class Network:
    directory: Path
    table: Table
    nodes: dict[str, Node]
    servers: dict[str, Etsi004Server]

    @property
    def descriptor(self) -> Path:
        return self.directory / "network.json"

    def uri(self, name: str) -> str:
        return f"qkd://{name}/app"

    def client(self, name: str, dialect: Dialect = Dialect.P) -> Client:
        directory, port = self.directory, self.servers[name].endpoint.port
        certificate, key = directory / f"app-{name}.pem", directory / f"app-{name}.key"
        return Client("127.0.0.1", port, certificate=certificate, private_key=key, ca=directory / "ca.pem", dialect=dialect)

    def write_descriptor(self) -> None:
        nodes = [
            {"name": name, "qkdn_id": name, "etsi004": {"host": "127.0.0.1", "port": server.endpoint.port}}
            for name, server in self.servers.items()
        ]
        apps = [
            {
                "name": f"{name}-1",
                "sae_id": f"{name}-app1",
                "uri": self.uri(name),
                "node": name,
                "cert": f"app-{name}.pem",
                "key": f"app-{name}.key",
            }
            for name in self.servers
        ]
        content = {"name": "test", "ca": "ca.pem", "nodes": nodes, "apps": apps}
        self.descriptor.write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture(scope="session")
def identities(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory, authority = tmp_path_factory.mktemp("app-ca"), Authority("test network")
    authority.write(directory / "ca.pem")
    authority.issue(directory, "node", "node", (), local=True)
    for name in ("alice", "bob"):
        authority.issue(directory, f"app-{name}", f"{name}-app1", (f"qkd://{name}/app",), local=False)
    return directory


@pytest.fixture
async def network(identities: Path) -> AsyncIterator[Network]:
    tls = TlsFiles(identities / "node.pem", identities / "node.key", identities / "ca.pem")
    table = Table()
    nodes = {name: Node(name, table) for name in ("alice", "bob")}
    servers = {name: Etsi004Server(ServiceConfig(Endpoint("127.0.0.1", 0), tls), service) for name, service in nodes.items()}
    for server in servers.values():
        await server.start()
    network = Network(identities, table, nodes, servers)
    network.write_descriptor()
    yield network
    async with asyncio.timeout(5):
        for server in servers.values():
            await server.stop()
