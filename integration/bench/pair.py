"""What keys are served by: two real nodes and their controller, and the bare servers beside them on the same disk."""

import asyncio
import ssl
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from qswitch.app.client import Client

from .. import layout
from ..configure import free_ports
from ..emulation import Emulation
from ..identities import Authority
from ..processes import StartFailed

PAIR = """
name = "bench"
title = "Two nodes side by side"
nodes = ["One", "Two"]
[[spans]]
ends = ["One", "Two"]
length_km = 1.0
loss_db = 0.2
"""
MASTER, SLAVE = "one-1", "two-1"
BARE_SERVERS = ("bare", "bare_streams")  # modules beside this one


@dataclass(frozen=True, slots=True)
class Bed:
    """What is measured: a network, and the bare servers beside it on the same disk, by name, with one context for all."""

    network: Emulation
    home: Path
    bare: dict[str, tuple[str, int]]
    bare_context: ssl.SSLContext

    def service(self, application: str) -> tuple[str, int]:
        """The ETSI 014 interface of the node that the application lives at."""
        url = urlsplit(self._node(application)["etsi014"]["url"])
        return url.hostname or "", url.port or 443

    def client(self, application: str) -> Client:
        """For ETSI 004, as the application would have it."""
        one, here = self._application(application), self.network.directory
        where, ca = self._node(application)["etsi004"], here / self.network.descriptor["ca"]
        return Client(where["host"], where["port"], certificate=here / one["cert"], private_key=here / one["key"], ca=ca)

    def bare_client(self, name: str) -> Client:
        here = self.home
        certificate, private_key = here / "client.pem", here / "client.key"
        return Client(*self.bare[name], certificate=certificate, private_key=private_key, ca=here / "ca.pem")

    def uri(self, application: str) -> str:
        return str(self._application(application)["uri"])

    def identity(self, application: str) -> ssl.SSLContext:
        one, here = self._application(application), self.network.directory
        return _context(here / self.network.descriptor["ca"], here / one["cert"], here / one["key"])

    def _node(self, application: str) -> dict[str, Any]:
        return self.network.node(self._application(application)["node"])

    def _application(self, name: str) -> dict[str, Any]:
        return next(one for one in self.network.descriptor["apps"] if one["name"] == name)


def _context(ca: Path, certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca)
    context.load_cert_chain(certificate, key)
    return context


@asynccontextmanager
async def prepared(release_ahead: int = 0) -> AsyncIterator[Bed]:
    """Both nodes with this `release_ahead` in their configuration. Raises StartFailed when something does not start."""
    with tempfile.TemporaryDirectory(prefix="qswitch-bench-") as folder:
        home = Path(folder)
        (home / "bench.toml").write_text(PAIR, encoding="utf-8")
        network = Emulation.create(layout.load(str(home / "bench.toml")), home / "bench")
        for node in network.descriptor["nodes"]:
            file = network.directory / node["name"].lower() / "agent.toml"
            text = file.read_text(encoding="utf-8")
            file.write_text(text.replace("[lkms]\n", f"[lkms]\nrelease_ahead = {release_ahead}\n"), encoding="utf-8")
        try:
            await network.start(lambda _text: None)
            async with _bare_servers(home) as (addresses, context):
                yield Bed(network, home, addresses, context)
        finally:
            await network.down()


@asynccontextmanager
async def _bare_servers(home: Path) -> AsyncIterator[tuple[dict[str, tuple[str, int]], ssl.SSLContext]]:
    authority = Authority("bench")
    authority.write(home / "ca.pem")
    authority.issue(home, "bare", "bare", (), local=True)
    authority.issue(home, "client", "client", (), local=False)
    context = _context(home / "ca.pem", home / "client.pem", home / "client.key")
    async with AsyncExitStack() as stack:
        addresses = {}
        for name in BARE_SERVERS:
            addresses[name] = await stack.enter_async_context(_bare(name, home, context))
        yield addresses, context


@asynccontextmanager
async def _bare(name: str, home: Path, context: ssl.SSLContext) -> AsyncIterator[tuple[str, int]]:
    where, module = ("127.0.0.1", free_ports(1)[0]), f"qswitch.integration.bench.{name}"
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", module, str(home), str(where[1]))
    try:
        await _listening(where, context)
        yield where
    finally:
        process.terminate()
        await process.wait()


async def _listening(where: tuple[str, int], context: ssl.SSLContext) -> None:
    try:
        async with asyncio.timeout(20):
            while True:
                try:
                    _, writer = await asyncio.open_connection(*where, ssl=context)
                except OSError:
                    await asyncio.sleep(0.05)
                else:
                    writer.transport.abort()
                    return
    except TimeoutError as error:
        raise StartFailed("a bare server does not listen") from error
