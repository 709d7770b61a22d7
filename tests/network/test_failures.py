"""One story of failures: three pairs of applications draw keys while fibres, agents and the controller come and go.

After every blow, every pair must get on: the same keys at both ends, none twice, under the same key stream ids.
"""

import asyncio
from collections.abc import Awaitable
from contextlib import AsyncExitStack

from applications import QOS, Reader, application, client, pair
from leaks import in_logs

from qswitch.integration.emulation import Emulation

PAIRS = [("alpha-1", "delta-1"), ("alpha-2", "beta-1"), ("beta-2", "delta-2")]
MORE = 60  # keys that every pair must get after a blow
SECONDS = 60


class Drawing:
    """One pair, drawing index by index at both ends until it is told to stop."""

    def __init__(self, network: Emulation, names: tuple[str, str], ksid: str) -> None:
        self.ends = Reader(network, names[0]), Reader(network, names[1])
        self.ksid, self.count, self.stopped = ksid, 0, False

    async def run(self) -> None:
        while not self.stopped:
            await asyncio.gather(*(end.draw(self.ksid, self.count, SECONDS) for end in self.ends))
            self.count += 1
        for end in self.ends:
            await end.close()

    def check(self) -> None:
        first, second = (end.keys for end in self.ends)
        assert first == second
        assert len(set(first.values())) == self.count


async def _get_on(drawings: list[Drawing], tasks: list[asyncio.Task[None]], blow: Awaitable[object] | None = None) -> None:
    if blow is not None:
        await blow
    goals = [one.count + MORE for one in drawings]
    async with asyncio.timeout(SECONDS):
        while any(one.count < goal for one, goal in zip(drawings, goals, strict=True)):
            assert not any(task.done() for task in tasks), "drawing has failed"
            await asyncio.sleep(0.05)


async def _restart(network: Emulation, *nodes: str) -> None:
    await asyncio.gather(*(network.kill(f"{node.lower()}/agent") for node in nodes))
    await asyncio.gather(*(network.start_process(node, "agent") for node in nodes))


async def _route(network: Emulation, ksid: str, length: int) -> None:
    """Until the key stream goes over so many nodes."""
    async with network.api() as api, asyncio.timeout(SECONDS):
        while len((await api.get(f"/v1/apps/{ksid}")).json().get("route", ())) != length:
            await asyncio.sleep(0.1)


async def test_a_story_of_failures(triangle: Emulation) -> None:
    async with AsyncExitStack() as stack:
        ksids = [(await stack.enter_async_context(pair(triangle, *names)))[2] for names in PAIRS]
        drawings = [Drawing(triangle, names, ksid) for names, ksid in zip(PAIRS, ksids, strict=True)]
        tasks = [asyncio.create_task(one.run()) for one in drawings]
        try:
            await _get_on(drawings, tasks)
            triangle.set_cut("alpha-gamma", cut=True)
            await _get_on(drawings, tasks, _route(triangle, ksids[0], 4))  # Alpha – Beta – Gamma – Delta
            await _get_on(drawings, tasks, triangle.kill("controller/controller"))
            triangle.set_cut("alpha-gamma", cut=False)
            triangle.set_cut("alpha-beta", cut=True)
            await _get_on(drawings, tasks)
            await triangle.start_controller()
            await _get_on(drawings, tasks, _route(triangle, ksids[1], 3))  # Alpha – Gamma – Beta
            triangle.set_cut("alpha-beta", cut=False)
            await _get_on(drawings, tasks, _restart(triangle, "Alpha", "Delta"))
            await _get_on(drawings, tasks, _restart(triangle, "Gamma"))
            await _get_on(drawings, tasks, _restart(triangle, *triangle.nodes()))
        finally:
            for one in drawings:
                one.stopped = True
            await asyncio.gather(*tasks, return_exceptions=True)
    for one in drawings:
        one.check()
    logs = [path.read_bytes() for path in triangle.directory.rglob("*.log")]
    assert any(b" DEBUG " in log for log in logs)
    assert not in_logs(logs, {key for one in drawings for key in one.ends[0].keys.values()})


async def test_a_registration_that_nobody_hears_is_answered_once_the_controller_is_back(triangle: Emulation) -> None:
    names = PAIRS[0]
    uris = [application(triangle, name)["uri"] for name in names]
    await triangle._links_active(lambda _progress: None)  # as they were before all the nodes had gone
    async with pair(triangle, *names):  # the controller has heard the node
        pass

    def stored() -> int:
        files = triangle.home("Alpha").rglob("*.notif.*")
        return sum(file.read_bytes().count(uris[0].encode()) for file in files)

    before = stored()
    assert before
    await triangle.kill("alpha/netconf")
    async with client(triangle, names[0]) as a:
        opening = asyncio.create_task(a.open_connect(*uris, QOS))
        try:
            async with asyncio.timeout(5):
                while stored() == before:
                    await asyncio.sleep(0.01)
        finally:
            await triangle.start_process("Alpha", "netconf")
        opened = await opening
        assert opened.ksid
        await a.close(opened.ksid)
