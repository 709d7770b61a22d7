"""Whole networks whose nodes call the controller (RFC 8071): they come up, are looked over, and survive a controller."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest
from networks import up

from qswitch.integration import layout
from qswitch.integration.emulation import Emulation


@pytest.fixture(params=["ssh", "tls"])
def calling(engine: str, request: pytest.FixtureRequest) -> Iterator[Emulation]:
    yield from up(replace(layout.load("triangle"), call_home=request.param), engine)


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
