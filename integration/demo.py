"""`make demo`: the main job on the Madrid network, start to end, with what happened shown in tables.

Nothing in here is special to the demo: it uses the commands' own libraries, the controller's API and real applications.
"""

import asyncio
import hashlib
import itertools
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from qswitch.app.client import Client
from qswitch.app.errors import ClientError
from qswitch.protocol.etsi004 import Qos

from . import layout
from .emulation import Emulation
from .processes import StartFailed

console = Console(highlight=False, soft_wrap=True)
KEYS = 5
QOS = Qos(key_chunk_size=32, timeout=20_000)


class DemoFailed(Exception):
    """What was promised did not happen."""


@dataclass
class Demo:
    network: Emulation

    async def run(self) -> None:
        await self.show_links()
        await self.four_hops()
        await self.cut()

    # What is there -----------------------------------------------------------------------------------------------------

    async def show_links(self) -> None:
        table = Table("physical link", "status", "loss", "secret key rate", "QBER", title=self.network.descriptor["title"])
        for link in sorted(await self.network.links(), key=lambda one: -(one["skr_bps"] or 0)):
            table.add_row(
                _ends(link), link["status"], f"{link['attenuation_db']} dB", _rate(link["skr_bps"]), _percent(link["qber"])
            )
        console.print(table)

    # Four hops ---------------------------------------------------------------------------------------------------------

    async def four_hops(self) -> None:
        console.rule("Applications at Quiron and Quinto, four hops apart")
        async with self.pair("quiron-1", "quinto-1") as (quiron, quinto, ksid):
            mine = [await quiron.get_key(ksid, index) for index in range(KEYS)]
            theirs = [await quinto.get_key(ksid, index) for index in range(KEYS)]
            _show_keys(ksid, ("Quiron", mine), ("Quinto", theirs))
            app = await self.get(f"/v1/apps/{ksid}")
            link = await self.relay_at_rest(app["links"][0])
            self.show_route(link)

    async def relay_at_rest(self, link_id: str) -> dict[str, Any]:
        """The link once its relay has counted and passed on all it was given."""
        for _ in range(100):
            link: dict[str, Any] = await self.get(f"/v1/links/{link_id}")
            relay = link["relay"]
            if relay and all(one["held_bits"] == 0 for one in relay) and sum(one["pad_bits"] > 0 for one in relay) >= 4:
                return link
            await asyncio.sleep(0.2)
        raise DemoFailed(f"the relay nodes of link {link_id} still hold key, or counted no pads: {link['relay']}")

    def show_route(self, link: dict[str, Any]) -> None:
        names = {one["qkdn_id"]: one["name"] for one in self.network.descriptor["nodes"]}
        route = [names[node] for node in link["route"]]
        console.print(f"Route the controller chose: [bold]{' → '.join(route)}[/]")
        relay = {names[one["node"]]: one for one in link["relay"]}
        table = Table(
            "hop", "key relayed", "one-time pad and tag key consumed", "per bit of key", title="What each hop cost"
        )
        for here, there in itertools.pairwise(route):
            one = relay[here]
            table.add_row(
                f"{here} → {there}",
                _bits(one["relayed_bits"]),
                _bits(one["pad_bits"]),
                f"{one['pad_bits'] / one['relayed_bits']:.4f}",
            )
        console.print(table)
        table = Table("relay node", "holds of these keys now", "messages failed", title="What the nodes in between keep")
        for node in route[1:-1]:
            table.add_row(node, _bits(relay[node]["held_bits"]), str(relay[node]["failures"]))
        console.print(table)

    # A cut -------------------------------------------------------------------------------------------------------------

    async def cut(self) -> None:
        console.rule("Norte–Concepcion is cut while applications draw keys")
        async with self.pair("norte-1", "concepcion-1") as (norte, concepcion, ksid):
            before = (await self.get(f"/v1/apps/{ksid}"))["route"]
            drawing = Drawing(norte, concepcion, ksid)
            task = asyncio.create_task(drawing.run())
            try:
                await drawing.reach(20)
                self.network.set_cut("norte-concepcion", cut=True)
                at_cut = drawing.equal
                after = await self.rerouted(ksid, before)
                at_reroute = drawing.equal
                await drawing.reach(at_reroute + 200)
            finally:
                drawing.stop()
                await task
            self.show_cut(ksid, before, after, (at_cut, at_reroute, drawing))

    async def rerouted(self, ksid: str, before: list[str]) -> list[str]:
        for _ in range(150):
            app = await self.get(f"/v1/apps/{ksid}")
            if app["route"] and app["route"] != before:
                return list(app["route"])
            await asyncio.sleep(0.2)
        raise DemoFailed(f"key stream {ksid} was not moved off the link that was cut")

    def show_cut(self, ksid: str, before: list[str], after: list[str], counts: "tuple[int, int, Drawing]") -> None:
        names = {one["qkdn_id"]: one["name"] for one in self.network.descriptor["nodes"]}
        at_cut, at_reroute, drawing = counts
        table = Table("key stream", "route", "equal keys at both ends", title=f"Key stream {ksid}")
        table.add_row("before the cut", " → ".join(names[one] for one in before), str(at_cut))
        table.add_row("while the controller rerouted", "", str(at_reroute - at_cut))
        table.add_row("after it", " → ".join(names[one] for one in after), str(drawing.equal - at_reroute))
        console.print(table)
        console.print(
            f"Keys that differed: [bold]{drawing.different}[/]; calls that failed: [bold]{len(drawing.failures)}[/]"
        )
        if drawing.different or drawing.failures:
            raise DemoFailed("; ".join(drawing.failures) or "keys differed")

    # Applications --------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def pair(self, first: str, second: str) -> "AsyncIterator[tuple[Client, Client, str]]":
        """Two applications joined by one key stream; the first opens it, the second joins by its identifier."""
        a, b = self.client(first), self.client(second)
        uris = self.application(first)["uri"], self.application(second)["uri"]
        async with a, b:
            opened = await a.open_connect(*uris, QOS)
            if opened.ksid is None:
                raise DemoFailed(f"OPEN_CONNECT by {first}: {opened.status.name}")
            await b.open_connect(*uris, QOS, opened.ksid)
            yield a, b, opened.ksid
            await a.close(opened.ksid)
            await b.close(opened.ksid)

    def application(self, name: str) -> dict[str, Any]:
        return next(one for one in self.network.descriptor["apps"] if one["name"] == name)

    def client(self, name: str) -> Client:
        application, here = self.application(name), self.network.directory
        service = self.network.node(application["node"])["etsi004"]
        return Client(
            service["host"],
            service["port"],
            certificate=here / application["cert"],
            private_key=here / application["key"],
            ca=here / self.network.descriptor["ca"],
        )

    async def get(self, path: str) -> Any:
        async with self.network.api() as api:
            reply = await api.get(path)
            reply.raise_for_status()
            return reply.json()


@dataclass
class Drawing:
    """Draws the same chunks at both ends, one after the other, and counts."""

    a: Client
    b: Client
    ksid: str
    equal: int = 0
    different: int = 0
    failures: list[str] = field(default_factory=list)
    _stopping: bool = False
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        index = 0
        while not self._stopping and not self.failures:
            try:
                mine, theirs = await asyncio.gather(self.a.get_key(self.ksid, index), self.b.get_key(self.ksid, index))
                same = mine.key == theirs.key
                self.equal, self.different = self.equal + same, self.different + (not same)
            except Exception as error:  # shown in the table, and ends the demo with a failure
                self.failures.append(f"GET_KEY {index}: {error}")
            index += 1
            self._changed.set()
            await asyncio.sleep(0.01)

    async def reach(self, count: int) -> None:
        """Waits until that many equal keys were drawn, or drawing has failed."""
        async with asyncio.timeout(60):
            while self.equal < count and not self.failures:
                self._changed.clear()
                await self._changed.wait()

    def stop(self) -> None:
        self._stopping = True


def _show_keys(ksid: str, *sides: tuple[str, list[Any]]) -> None:
    table = Table("index", *(f"fingerprint at {name}" for name, _ in sides), "equal", title=f"Key stream {ksid}")
    for index, keys in enumerate(zip(*(keys for _, keys in sides), strict=True)):
        prints = [hashlib.sha256(one.key).hexdigest()[:16] for one in keys]
        table.add_row(str(index), *prints, "yes" if len(set(prints)) == 1 else "NO")
        if len(set(prints)) != 1:
            raise DemoFailed(f"key {index} of stream {ksid} differs")
    console.print(table)


def _ends(link: dict[str, Any]) -> str:
    return f"{link['source']['name']} – {link['destination']['name']}"


def _rate(bps: float | None) -> str:
    return "-" if bps is None else f"{bps / 1e6:.2f} Mb/s"


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.1f} %"


def _bits(count: int) -> str:
    return f"{count:,} bit"


async def _demo(directory: Path) -> None:
    network = Emulation.create(layout.load("madrid"), directory)
    try:
        console.rule("The Madrid quantum network comes up")
        await network.start(lambda text: console.print(f"  {text}"))
        await Demo(network).run()
    finally:
        console.rule("Everything is taken down")
        killed = await network.down()
        console.print("All processes ended." if not killed else f"Had to be killed: {', '.join(killed)}")
    shutil.rmtree(directory)


def main() -> None:
    try:
        asyncio.run(_demo(Path("run/demo")))
    except (DemoFailed, StartFailed, ClientError) as error:
        sys.exit(f"demo: {error}\nThe daemons' logs are in run/demo.")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
