"""Whole networks whose nodes call the controller (RFC 8071): they come up, are looked over, and survive a controller."""

import asyncio
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from qswitch.integration import layout
from qswitch.integration.emulation import Emulation


@pytest.fixture(params=["ssh", "tls"])
def calling(engine: str, request: pytest.FixtureRequest) -> Iterator[Emulation]:
    with tempfile.TemporaryDirectory(prefix="qswitch-calling-") as directory:
        network = replace(layout.load("triangle"), call_home=request.param)
        emulation = Emulation.create(network, Path(directory) / "calling", engine)
        try:
            asyncio.run(emulation.start(print))
            yield emulation
        finally:
            killed = asyncio.run(emulation.down())
        assert not killed, f"did not end when asked: {killed}"


async def test_a_network_whose_nodes_call(calling: Emulation) -> None:
    async with calling.api() as api:
        nodes = (await api.get("/v1/nodes")).json()
        assert [node["connected"] for node in nodes] == [True] * 4
        for node in nodes:
            report = (await api.post(f"/v1/nodes/{node['name']}/check")).json()
            assert report["well"], report["findings"]
            assert report["connect"] == "call-home"
            assert {one["name"] for one in report["rights"] if one["allowed"]} == {"read", "edit", "lock", "subscribe"}
    await calling.kill("controller/controller")
    await calling.start_controller()
    async with calling.api() as api, asyncio.timeout(60):
        while not all(node["connected"] for node in (await api.get("/v1/nodes")).json()):  # they call by themselves
            await asyncio.sleep(0.1)
