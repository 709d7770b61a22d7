"""Applications of an emulated network, as its descriptor gives them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from qswitch.app.client import Client
from qswitch.app.errors import ConnectionLost, StatusError, Unreachable
from qswitch.app.rest import RestClient
from qswitch.integration.emulation import Emulation
from qswitch.protocol.etsi004 import Dialect, Qos, Status

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


def rest_client(network: Emulation, name: str, node: str | None = None) -> RestClient:
    """The same by ETSI 014."""
    identity = application(network, name)
    service, here = network.node(node or identity["node"])["etsi014"], network.directory
    certificate, key, ca = here / identity["cert"], here / identity["key"], here / network.descriptor["ca"]
    return RestClient(service["url"], certificate=certificate, private_key=key, ca=ca, kme_id=service["kme_id"])


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


# What a call may say while a node is down or has just come back (004 table 2); anything else is a failure.
BUSY = {
    Status.INSUFFICIENT_KEY,
    Status.PEER_NOT_CONNECTED,
    Status.NO_CONNECTION,
    Status.TIMEOUT,
}


class Reader:
    """One end of a stream: draws index by index, reconnecting as an application would, and remembers what it got."""

    def __init__(self, network: Emulation, name: str) -> None:
        self.network, self.name = network, name
        self.keys: dict[int, bytes] = {}
        self._client: Client | None = None

    async def draw(self, ksid: str, index: int, seconds: float = 60) -> None:
        """Gets the key of that index, trying again while the node is down or busy; any other refusal is raised."""
        async with asyncio.timeout(seconds):
            while True:
                try:
                    if self._client is None:
                        self._client = await client(self.network, self.name).__aenter__()
                    reply = await self._client.get_key(ksid, index)
                    assert reply.index == index
                    self.keys[index] = bytes(reply.key)
                    return
                except StatusError as error:
                    assert error.status in BUSY, error
                except (ConnectionLost, Unreachable):
                    await self.close()
                await asyncio.sleep(0.1)

    async def close(self) -> None:
        if self._client is not None:
            broken, self._client = self._client, None
            await broken.__aexit__(None, None, None)
