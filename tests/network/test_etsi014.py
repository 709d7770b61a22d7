"""ETSI 014 on whole networks: the same keys at both nodes, beside key streams, over relays, through crashes, for several."""

import asyncio
import json
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
from applications import QOS, application, client, pair, rest_client

from qswitch.agent.lkms.contents import LedgerRow, ledger
from qswitch.app.errors import RestError, Unreachable
from qswitch.app.rest import RestClient
from qswitch.integration.emulation import Emulation
from qswitch.protocol.etsi004 import Status


async def test_two_applications_at_two_nodes(triangle: Emulation) -> None:
    alpha, beta = application(triangle, "alpha-1"), application(triangle, "beta-1")
    async with rest_client(triangle, "alpha-1") as a, rest_client(triangle, "beta-1") as b:
        status = await a.status("beta-1")
        assert status.source_KME_ID == triangle.node("Alpha")["qkdn_id"]
        assert status.target_KME_ID == triangle.node("Beta")["qkdn_id"]
        keys = await a.enc_keys(beta["uri"], 5, 512)
        async with rest_client(triangle, "beta-2") as stranger:
            with pytest.raises(RestError) as refused:
                await stranger.dec_keys("alpha-1", list(keys))
        assert refused.value.status == 401
        assert await b.dec_keys(alpha["uri"], list(keys)) == keys
        with pytest.raises(RestError) as gone:
            await b.dec_keys("alpha-1", list(keys))
        assert gone.value.status == 400 and "not found" in gone.value.message


async def test_a_pair_shows_at_the_controller_like_any_application(triangle: Emulation) -> None:
    async with rest_client(triangle, "gamma-1") as gamma, triangle.api() as api:
        await gamma.enc_keys("beta-1", 3)
        apps = (await api.get("/v1/apps")).json()
        nodes = (await api.get("/v1/nodes")).json()
    told = {one["qkdn_id"]: one["etsi014_url"] for one in nodes}
    assert told == {one["qkdn_id"]: one["etsi014"]["url"] for one in triangle.descriptor["nodes"]}
    uris = application(triangle, "gamma-1")["uri"], application(triangle, "beta-1")["uri"]
    assert [one for one in apps if uris[0] in json.dumps(one) and uris[1] in json.dumps(one)], apps


@pytest.mark.parametrize("name", ["alpha-1", "delta-2"])
async def test_a_stranger_s_probe_finds_a_node_conformant(triangle: Emulation, name: str) -> None:
    """With the application as its own slave: the probe fetches with the certificate that it asked with."""
    identity, here = application(triangle, name), triangle.directory
    probe = await asyncio.create_subprocess_exec(
        *("qkdsec", "doctor", triangle.node(identity["node"])["etsi014"]["url"], "--format", "json"),
        *("--slave-sae-id", name, "--cert", here / identity["cert"], "--key", here / identity["key"]),
        *("--ca-cert", here / triangle.descriptor["ca"]),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await probe.communicate()
    assert probe.returncode == 0, output.decode()


async def test_keys_and_a_stream_on_one_link_share_no_bit(triangle: Emulation) -> None:
    async with (
        pair(triangle, "alpha-1", "beta-1") as (one, other, ksid),
        rest_client(triangle, "alpha-1") as a,
        rest_client(triangle, "beta-1") as b,
    ):

        async def stream() -> list[bytes]:
            return [bytes((await one.get_key(ksid, index)).key) for index in range(100)]

        async def keys(master: RestClient, slave: str) -> dict[str, bytearray]:
            return {key_id: key for _ in range(50) for key_id, key in (await master.enc_keys(slave)).items()}

        chunks, mine, theirs = await asyncio.gather(stream(), keys(a, "beta-1"), keys(b, "alpha-1"))
        assert chunks == [bytes((await other.get_key(ksid, index)).key) for index in range(100)]
        assert await b.dec_keys("alpha-1", list(mine)) == mine
        assert await a.dec_keys("beta-1", list(theirs)) == theirs
        assert len({*chunks, *map(bytes, mine.values()), *map(bytes, theirs.values())}) == 200
    _audit(triangle)


@pytest.mark.parametrize("crashing", [("Alpha",), ("Delta",), ("Alpha", "Delta")])
async def test_crashes_lose_nothing_that_was_delivered(triangle: Emulation, crashing: tuple[str, ...]) -> None:
    """Alpha–Gamma–Delta is one relay away."""
    async with rest_client(triangle, "alpha-2") as a:
        keys = await a.enc_keys("delta-2", 10)
    for node in crashing:
        await triangle.kill(f"{triangle.home(node).name}/agent")
    for node in crashing:
        await triangle.start_process(node, "agent")
    async with rest_client(triangle, "alpha-2") as a, rest_client(triangle, "delta-2") as d:
        assert await _until_answered(d, list(keys)) == keys
        more = await a.enc_keys("delta-2", 10)
        assert await d.dec_keys("alpha-2", list(more)) == more
        assert not {*map(bytes, more.values())} & {*map(bytes, keys.values())}
    _audit(triangle)


async def _until_answered(slave: RestClient, key_ids: list[str]) -> dict[str, bytearray]:
    """A node that has just come back takes up its configuration first."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await slave.dec_keys("alpha-2", key_ids)
            except RestError as error:
                assert error.status == 400
            await asyncio.sleep(0.1)


async def test_one_key_for_three_nodes_over_relays(madrid: Emulation) -> None:
    slaves = ["quinto-1", "norte-1", "quevedo-1"]
    async with rest_client(madrid, "quiron-1") as master:
        keys = await master.enc_keys(slaves[0], 4, 256, slaves[1:])
        for name in slaves:
            async with rest_client(madrid, name) as slave:
                assert await slave.dec_keys("quiron-1", list(keys)) == keys
    assert len(set(map(bytes, keys.values()))) == 4


async def test_a_key_stream_of_the_same_two_is_another_application(triangle: Emulation) -> None:
    """An OPEN_CONNECT without a KSID never gets hold of a pair of 014."""
    uris = application(triangle, "alpha-1")["uri"], application(triangle, "gamma-1")["uri"]
    async with rest_client(triangle, "alpha-1") as a, client(triangle, "gamma-1") as gamma:
        keys = await a.enc_keys(uris[1])
        opened = await gamma.open_connect(uris[1], uris[0], QOS)
        assert opened.status in (Status.PEER_ABSENT, Status.SUCCESS)
        await gamma.close(str(opened.ksid))
        async with rest_client(triangle, "gamma-1") as slave:
            assert await slave.dec_keys("alpha-1", list(keys)) == keys


async def _qkd_app(network: Emulation, name: str, *arguments: str) -> tuple[int | None, dict[str, Any]]:
    command = (
        "qkd-app",
        arguments[0],
        "--network",
        str(network.directory),
        "--as",
        name,
        "--output",
        "json",
        *arguments[1:],
    )
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    output, errors = await process.communicate()
    return process.returncode, json.loads(output or errors)


async def test_from_the_command_line(triangle: Emulation) -> None:
    _, status = await _qkd_app(triangle, "alpha-1", "key-status", "gamma-1")
    assert status["target_KME_ID"] == triangle.node("Gamma")["qkdn_id"]
    done, taken = await _qkd_app(triangle, "alpha-1", "enc-keys", "gamma-1", "--number", "2", "--also", "beta-1", "--show")
    assert done == 0 and [len(one["key"]) for one in taken["keys"]] == [64, 64]
    ids = [one["key_id"] for one in taken["keys"]]
    for name in ("gamma-1", "beta-1"):
        assert await _qkd_app(triangle, name, "dec-keys", "alpha-1", *ids, "--show") == (0, taken)
    failed, error = await _qkd_app(triangle, "gamma-1", "dec-keys", "alpha-1", *ids)
    assert failed == 1 and (error["error"], error["http_status"]) == ("RestError", 400)


async def test_the_client_checks_which_node_it_talks_to(triangle: Emulation) -> None:
    identity, here = application(triangle, "alpha-1"), triangle.directory
    files = here / identity["cert"], here / identity["key"], here / triangle.descriptor["ca"]
    url = triangle.node("Alpha")["etsi014"]["url"]
    wrong = triangle.node("Beta")["qkdn_id"]
    async with RestClient(url, certificate=files[0], private_key=files[1], ca=files[2], kme_id=wrong) as client_:
        with pytest.raises(Unreachable, match="does not name"):
            await client_.status("beta-1")


def _audit(network: Emulation) -> None:
    """Of every link, no octet goes to two consumers, at one end or at both."""
    used: dict[tuple[str, int], list[LedgerRow]] = {}
    for node in network.descriptor["nodes"]:
        rows = list(ledger(network.directory / node["state_dir"] / "keys.sqlite"))
        for block in _by_block(rows).values():
            assert all(one.offset + one.length <= next_.offset for one, next_ in pairwise(block)), "used twice at one end"
        for row in rows:
            if row.kind != "burnt":
                used.setdefault((row.link, row.block), []).append(row)
    for rows in used.values():
        rows.sort(key=lambda row: row.offset)
        for one, next_ in pairwise(rows):
            overlap = one.offset + one.length > next_.offset
            assert not overlap or (one.kind, one.consumer) == (next_.kind, next_.consumer), (one, next_)
    assert any(row.kind == "014" for rows in used.values() for row in rows)


def _by_block(rows: Iterable[LedgerRow]) -> dict[tuple[str, int], list[LedgerRow]]:
    blocks: dict[tuple[str, int], list[LedgerRow]] = {}
    for row in sorted(rows, key=lambda one: one.offset):
        blocks.setdefault((row.link, row.block), []).append(row)
    return blocks
