"""Keys over node-disjoint paths in a whole network: made by qkdctl, asked for by applications, refused with the reason."""

import asyncio
import json
import subprocess
import sys
from typing import Any

import pytest
from applications import QOS, application, client, rest_client

from qswitch.app.errors import RestError, StatusError
from qswitch.integration.emulation import Emulation
from qswitch.protocol.etsi004 import Dialect, Status

TWO = "?disjoint-paths=2"


async def qkdctl(network: Emulation, *arguments: str) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "qswitch.controller.cli.main", "--network", str(network.directory), *arguments]
    run = asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=90, check=False)
    done: subprocess.CompletedProcess[str] = await run
    return done.returncode, done.stdout, done.stderr


async def names(network: Emulation, view: dict[str, Any]) -> set[tuple[str, ...]]:
    """The paths of a link, by the names of their nodes."""
    known = {network.node(one)["qkdn_id"]: one for one in network.nodes()}
    return {tuple(known[node] for node in path["route"]) for path in view["paths"]}


async def test_an_operator_makes_a_link_over_two_paths(triangle: Emulation) -> None:
    options = ("--disjoint-paths", "2", "--bandwidth", "5k", "--wait", "60", "-o", "json")
    code, out, err = await qkdctl(triangle, "link", "create", "Alpha", "Beta", *options)
    assert code == 0, err
    made = json.loads(out)
    assert await names(triangle, made) == {("Alpha", "Beta"), ("Alpha", "Gamma", "Beta")}
    code, out, _ = await qkdctl(triangle, "link", "show", made["link"])
    assert code == 0
    assert "Alpha → Gamma → Beta" in out and "its share of the key" in out
    shown = json.loads((await qkdctl(triangle, "link", "show", made["link"], "-o", "json"))[1])
    assert (shown["status"], shown["disjoint_paths"]) == ("ACTIVE", 2)
    assert min(end["usable_bits"] for end in shown["ends"]) > 0
    code, out, err = await qkdctl(triangle, *["link", "create", "Alpha", "Delta", "--disjoint-paths", "2"])
    assert (code, out) == (1, "")
    assert "only 1 node-disjoint route joins Alpha and Delta" in err and "all pass through Gamma" in err
    assert (await qkdctl(triangle, "link", "delete", made["link"], "--yes"))[0] == 0
    listed = json.loads((await qkdctl(triangle, "link", "list", "-o", "json"))[1])
    assert made["link"] not in {one["link"] for one in listed}


async def test_a_path_that_breaks_stops_the_link_with_the_reason_until_it_is_whole(triangle: Emulation) -> None:
    """A ring has two ways round: there is nothing to take instead, and one alone is never enough."""
    create = ("link", "create", "Alpha", "Beta", "--disjoint-paths", "2", "--wait", "60", "-o", "json")
    made = json.loads((await qkdctl(triangle, *create))[1])

    async def until(status: str) -> dict[str, Any]:
        async with triangle.api() as api, asyncio.timeout(60):
            while (view := (await api.get(f"/v1/links/{made['link']}")).json())["status"] != status:
                await asyncio.sleep(0.1)
        return dict(view)

    triangle.set_cut("beta-gamma", cut=True)
    try:
        await until("PASSIVE")
        async with triangle.api() as api, asyncio.timeout(30):
            while "problem" not in (broken := (await api.get(f"/v1/links/{made['link']}")).json()):
                await asyncio.sleep(0.1)
        assert "only 1 node-disjoint route joins Alpha and Beta over links that are ACTIVE" in broken["problem"]
        assert sorted(path["status"] for path in broken["paths"]) == ["ACTIVE", "OFF"]
        await asyncio.gather(*(triangle.kill(f"{name}/agent") for name in ("alpha", "gamma")))
        await asyncio.gather(*(triangle.start_process(name, "agent") for name in ("Alpha", "Gamma")))
    finally:
        triangle.set_cut("beta-gamma", cut=False)
    whole = await until("ACTIVE")
    assert "problem" not in whole and await names(triangle, whole) == await names(triangle, made)
    assert (await qkdctl(triangle, "link", "delete", made["link"], "--yes"))[0] == 0


@pytest.mark.parametrize("dialect", list(Dialect))
async def test_an_application_asks_by_004(triangle: Emulation, dialect: Dialect) -> None:
    alpha, beta = application(triangle, "alpha-1")["uri"], application(triangle, "beta-1")["uri"]
    async with client(triangle, "alpha-1", dialect) as a, client(triangle, "beta-1", dialect) as b:
        opened = await a.open_connect(alpha, beta + TWO, QOS)
        assert opened.ksid
        await b.open_connect(alpha, beta, QOS, opened.ksid)
        for index in range(20):
            assert (await a.get_key(opened.ksid, index)).key == (await b.get_key(opened.ksid, index)).key
        async with triangle.api() as api:
            app = (await api.get(f"/v1/apps/{opened.ksid}")).json()
            view = (await api.get(f"/v1/links/{app['links'][0]}")).json()
        assert app["disjoint_paths"] == 2
        assert await names(triangle, view) == {("Alpha", "Beta"), ("Alpha", "Gamma", "Beta")}
        for one in (a, b):
            await one.close(opened.ksid)
        with pytest.raises(StatusError) as refused:
            await a.open_connect(alpha, application(triangle, "delta-1")["uri"] + TWO, QOS)
        assert refused.value.status is Status.NO_CONNECTION
    assert "all pass through Gamma" in (triangle.directory / triangle.node("Alpha")["log"]).read_text()


async def test_an_application_asks_by_014(triangle: Emulation) -> None:
    uris = {name: application(triangle, name)["uri"] for name in ("alpha-2", "beta-2", "delta-2")}
    async with rest_client(triangle, "alpha-2") as a, rest_client(triangle, "beta-2") as b:
        keys = await a.enc_keys(uris["beta-2"], 2, disjoint_paths=2)
        assert await b.dec_keys(uris["alpha-2"], list(keys)) == keys
        with pytest.raises(RestError, match="all pass through Gamma"):
            await a.enc_keys(uris["delta-2"], 1, disjoint_paths=2)
