"""`qkd-app` as a process, against two nodes' servers."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from qswitch.app.descriptor import Descriptor
from qswitch.app.errors import DescriptorError

PIPE = asyncio.subprocess.PIPE


async def start(*arguments: object, **environment: str) -> asyncio.subprocess.Process:
    command = (sys.executable, "-m", "qswitch.app.main", *map(str, arguments))
    return await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=PIPE, env={**os.environ, **environment})


async def run(*arguments: object, **environment: str) -> tuple[int | None, str, str]:
    process = await start(*arguments, **environment)
    async with asyncio.timeout(20):
        out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def result(*arguments: object) -> dict[str, Any]:
    status, out, err = await run(*arguments, "--output", "json")
    assert (status, err) == (0, "")
    value: dict[str, Any] = json.loads(out)
    return value


async def test_open_get_close(network: Any) -> None:
    alice, bob = (("--network", network.descriptor, "--as", name) for name in ("alice-1", "bob-1"))
    opened = await result(*alice, "open", "--peer", "bob-1", "--timeout", 3000)
    assert opened["qos"]["key_chunk_size"] == 32 and opened["qos"]["timeout"] == 3000
    ksid = opened["ksid"]
    joined = await result("open", *bob, "--peer", network.uri("alice"), "--ksid", ksid, "--dialect", "c")
    assert joined["status_name"] == "SUCCESS"
    mine, theirs = await asyncio.gather(
        result("get", ksid, *alice, "--count", 3), result("get", ksid, *bob, "--index", 0, "--count", 3, "--show")
    )
    assert [one["index"] for one in mine["keys"]] == [0, 1, 2]
    assert [one["fingerprint"] for one in mine["keys"]] == [one["fingerprint"] for one in theirs["keys"]]
    assert mine["keys"][0] | {"key": theirs["keys"][0]["key"]} == theirs["keys"][0]
    assert bytes.fromhex(theirs["keys"][1]["key"]) == network.table.chunk(ksid, 1)
    status, out, _ = await run("get", ksid, *alice)
    assert status == 0 and out.startswith("index=3 length=32 fingerprint=")
    assert (await result("close", ksid, *alice))["closed"]


async def test_who_calls_may_come_from_the_environment_or_one_by_one(network: Any) -> None:
    here, port = network.directory, network.servers["alice"].endpoint.port
    files = ("--cert", here / "app-alice.pem", "--key", here / "app-alice.key", "--ca", here / "ca.pem")
    explicit = ("--host", "127.0.0.1", "--port", port, *files, "--uri", network.uri("alice"))
    (status, _, _), (other, out, _) = await asyncio.gather(
        run("open", *explicit, "--peer", network.uri("bob")),
        run("open", "--peer", "bob-1", QKD_APP_NETWORK=str(here), QKD_APP_AS="alice-app1"),
    )
    assert status == other == 0
    assert "status_name: SUCCESS" in out


async def test_failures_are_told_on_standard_error(network: Any) -> None:
    alice = ("--network", network.descriptor, "--as", "alice-1")
    unknown = "00112233-4455-4677-8899-aabbccddeeff"
    answers = await asyncio.gather(
        run("get", unknown, *alice),
        run("get", unknown, *alice, "--output", "json"),
        run("open", *alice, "--peer", "bob-1", "--max-bps", 2_000_000),
        run("open", "--network", network.descriptor, "--as", "carol", "--peer", "bob-1"),
        run("open", "--network", network.descriptor, "--peer", "bob-1"),
        run("open", "--peer", "qkd://b/app"),
    )
    assert [status for status, _, _ in answers] == [1, 1, 1, 1, 2, 2]
    texts = [err for _, _, err in answers]
    assert "GET_KEY: status 3 PEER_NOT_CONNECTED; the peer has not opened" in texts[0]
    assert json.loads(texts[1])["status"] == 3
    assert "offered: key_chunk_size=32 max_bps=1000000" in texts[2]
    assert "has no application 'carol'; it has alice-1, bob-1" in texts[3]
    assert "--as is missing" in texts[4]
    assert "--network and --as, or else --host" in texts[5]


async def _address(receiver: asyncio.subprocess.Process) -> str:
    assert receiver.stderr is not None
    async with asyncio.timeout(10):
        line = (await receiver.stderr.readline()).decode()
    return line.rsplit(" ", 1)[1].strip()


async def test_send_and_receive(network: Any, tmp_path: Path) -> None:
    file = tmp_path / "plan.bin"
    file.write_bytes(os.urandom(3 << 20))
    bob = ("--network", network.descriptor, "--as", "bob-1")
    receiver = await start("receive", *bob, "--listen", "127.0.0.1:0", "--out", tmp_path / "in", "--output", "json")
    sent = await result(
        "send", file, "--network", network.descriptor, "--as", "alice-1", "--peer", "bob-1", "--to", await _address(receiver)
    )
    async with asyncio.timeout(10):
        out, err = await receiver.communicate()
    assert (receiver.returncode, err) == (0, b"")
    got = json.loads(out)
    assert got["ksid"] == sent["ksid"] and got["size"] == sent["size"] == 3 << 20
    assert Path(got["path"]).read_bytes() == file.read_bytes()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_a_signal_closes_the_stream_and_removes_what_is_unfinished(
    network: Any, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    network.table.shortages = {1: 1000}
    file = tmp_path / "plan.bin"
    file.write_bytes(os.urandom(3 << 20))
    bob = ("--network", network.descriptor, "--as", "bob-1")
    receiver = await start("receive", *bob, "--listen", "127.0.0.1:0", "--out", tmp_path / "in")
    alice = ("--network", network.descriptor, "--as", "alice-1")
    sender = await start("send", file, *alice, "--peer", "bob-1", "--to", await _address(receiver))
    async with asyncio.timeout(10):
        while network.table.shortages[1] == 1000:
            await asyncio.sleep(0.02)  # until the first record is through
    for process in (receiver, sender):
        process.send_signal(number)
    async with asyncio.timeout(10):
        for process in (receiver, sender):
            await process.communicate()
    assert (receiver.returncode, sender.returncode) == (status, status)
    assert list((tmp_path / "in").iterdir()) == []
    assert len(network.nodes["alice"].closed) == len(network.nodes["bob"].closed) == 1


async def test_tab_completion_knows_the_applications(network: Any) -> None:
    words = f"qkd-app open --network {network.descriptor} --peer "
    status, out, _ = await run(_QKD_APP_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD="5")
    assert status == 0 and out.split() == ["plain,alice-1", "plain,bob-1"]


@pytest.mark.parametrize("content", [None, "{", "[]", '{"apps": 1}'])
def test_descriptors_that_are_none(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "network.json").write_text(content)
    with pytest.raises(DescriptorError):
        Descriptor.load(str(tmp_path))


def test_descriptors_that_lack_something(tmp_path: Path) -> None:
    apps = [{"name": "a", "uri": "qkd://a/a", "node": "n"}, {"name": "b", "uri": "qkd://a/b", "node": "m"}]
    (tmp_path / "network.json").write_text(json.dumps({"apps": apps, "nodes": [{"name": "n"}]}))
    descriptor = Descriptor.load(str(tmp_path))
    assert descriptor.uri("a") == "qkd://a/a" and descriptor.uri("qkd://x/y") == "qkd://x/y"
    for name, problem in (("a", "lacks 'etsi004'"), ("b", "has no node 'm'"), ("c", "has no application 'c'")):
        with pytest.raises(DescriptorError, match=problem):
            descriptor.identity(name)
