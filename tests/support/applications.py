"""Applications of an emulated network, as its descriptor gives them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from qswitch.app.client import Client
from qswitch.integration.emulation import Emulation
from qswitch.protocol.etsi004 import Dialect, Qos

QOS = Qos(key_chunk_size=32, timeout=20_000)


def application(network: Emulation, name: str) -> dict[str, Any]:
    return next(one for one in network.descriptor["apps"] if one["name"] == name)


def client(network: Emulation, name: str, dialect: Dialect = Dialect.P, node: str | None = None) -> Client:
    """An application's client at its own node, or at another one."""
    identity = application(network, name)
    service = network.node(node or identity["node"])["etsi004"]
    here = network.directory
    return Client(
        service["host"],
        service["port"],
        certificate=here / identity["cert"],
        private_key=here / identity["key"],
        ca=here / network.descriptor["ca"],
        dialect=dialect,
    )


@asynccontextmanager
async def pair(
    network: Emulation, first: str, second: str, dialects: tuple[Dialect, Dialect] = (Dialect.P, Dialect.P)
) -> AsyncIterator[tuple[Client, Client, str]]:
    """Two applications joined by one key stream: the first opens it, the second joins by its identifier."""
    uris = application(network, first)["uri"], application(network, second)["uri"]
    async with client(network, first, dialects[0]) as a, client(network, second, dialects[1]) as b:
        opened = await a.open_connect(*uris, QOS)
        assert opened.ksid
        await b.open_connect(*uris, QOS, opened.ksid)
        yield a, b, opened.ksid
        await a.close(opened.ksid)
        await b.close(opened.ksid)
