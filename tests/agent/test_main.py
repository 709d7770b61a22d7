"""`qkd-agent` as a process: one that starts and ends, and two that share key over a fibre.

Edits are written by sysrepo's own tool, as a NETCONF server would: nothing here is inside the agent.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from qswitch.agent.config import AgentConfig, load
from qswitch.app.client import Client
from qswitch.integration import configure, processes
from qswitch.integration.layout import Application, Layout, Port, Span
from qswitch.protocol.etsi004 import Qos, Status

LINK = str(uuid.uuid4())
NAMES = ("Alice", "Bob")


@dataclass(frozen=True, slots=True)
class Agent:
    """One node of the pair: its files, and its process while it runs."""

    directory: Path
    description: dict[str, Any]
    application: dict[str, Any]

    @property
    def home(self) -> Path:
        return self.directory / str(self.description["state_dir"])

    @property
    def config(self) -> AgentConfig:
        return load(self.home / "agent.toml")

    @property
    def node(self) -> str:
        return str(self.description["qkdn_id"])

    @property
    def uri(self) -> str:
        return str(self.application["uri"])

    async def start(self) -> processes.Process:
        ready, log = self.home / "ready", self.home / "agent.log"
        ready.unlink(missing_ok=True)
        command = [
            sys.executable,
            "-m",
            "qswitch.agent.main",
            "run",
            "--config",
            "agent.toml",
            "--ready-file",
            str(ready),
        ]
        process = processes.start(command, log, {})
        await processes.ready(process, ready, log, self.home.name, 30)
        return process

    def sysrepo(self, *arguments: str, text: str = "") -> str:
        """Runs sysrepocfg on this node's repository; its output."""
        repository = self.config.repository
        environment = {"SYSREPO_REPOSITORY_PATH": str(repository.path), "SYSREPO_SHM_PREFIX": repository.shm_prefix}
        done = subprocess.run(
            ["sysrepocfg", *arguments],
            input=text,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    async def edit(self, change: dict[str, Any]) -> None:
        data = {"etsi-qkd-sdn-node:qkd_node": {"qkdn_id": self.node, **change}}
        await asyncio.to_thread(self.sysrepo, "--edit", "-f", "json", "-d", "running", text=json.dumps(data))

    async def state(self) -> dict[str, Any]:
        """qkd_node as <get> shows it."""
        text = await asyncio.to_thread(self.sysrepo, "-X", "-f", "json", "-d", "operational", "-m", "etsi-qkd-sdn-node")
        node: dict[str, Any] = json.loads(text)["etsi-qkd-sdn-node:qkd_node"]
        return node

    async def until(self, holds: Callable[[dict[str, Any]], bool], seconds: float = 20) -> dict[str, Any]:
        async with asyncio.timeout(seconds):
            while not holds(state := await self.state()):
                await asyncio.sleep(0.2)
        return state

    def client(self) -> Client:
        at = self.description["etsi004"]
        return Client(
            at["host"],
            at["port"],
            certificate=self.directory / self.application["cert"],
            private_key=self.directory / self.application["key"],
            ca=self.directory / "ca.pem",
        )


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Agent, Agent]]:
    bare = Layout("pair", "pair", NAMES, (), ())
    apps = tuple(Application(f"{n.lower()}-1", n, f"qkd://{bare.qkdn_id(n)}/{n.lower()}-1") for n in NAMES)
    layout = Layout("pair", "pair", NAMES, (Span(Port("Alice", 1), Port("Bob", 1), 10.0, 2.0),), apps)
    directory = tmp_path / "net"
    network = configure.write(layout, directory)
    agents = [Agent(directory, *one) for one in zip(network["nodes"], network["apps"], strict=True)]
    yield agents[0], agents[1]
    for agent in agents:
        for left in Path("/dev/shm").glob(agent.config.repository.shm_prefix + "*"):
            left.unlink()


@pytest.fixture
async def running(pair: tuple[Agent, Agent]) -> AsyncIterator[tuple[Agent, Agent]]:
    started = await asyncio.gather(*(agent.start() for agent in pair))
    yield pair
    assert await processes.stop(started) == []


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "qswitch.agent.main", *arguments], capture_output=True, text=True, timeout=30, check=False
    )


def identity(kind: str) -> str:
    return f"etsi-qkd-node-types:{kind}"


def fibre(here: Agent, there: Agent) -> dict[str, Any]:
    lkms = there.config.lkms.listen
    link = {
        "qkdl_id": LINK,
        "qkdl_type": identity("PHYS"),
        "qkdl_local": {"qkdn_id": here.node, "qkdi_id": 1},
        "qkdl_remote": {"qkdn_id": there.node, "qkdi_id": 1},
        "phys_qkd_role": identity("TRANSMITTER" if here.home.name == "alice" else "RECEIVER"),
        "phys_channel_att": "2.0",
        "qkd-node-extensions:remote_lkms": {"address": lkms.address, "port": lkms.port},
    }
    return {"qkd_links": {"qkd_link": [link]}}


def entry(here: Agent, there: Agent, ksid: str, source: Agent, destination: Agent) -> dict[str, Any]:
    application = {
        "app_id": ksid,
        "app_type": identity("CLIENT"),
        "server_app_id": source.uri,
        "client_app_id": [destination.uri],
        "local_qkdn_id": here.node,
        "remote_qkdn_id": there.node,
        "backing_qkdl_id": [LINK],
    }
    return {"qkd_applications": {"qkd_app": [application]}}


def status(state: dict[str, Any]) -> str:
    links = state.get("qkd_links", {}).get("qkd_link", [{}])
    return str(links[0].get("qkdl_status", "")).rpartition(":")[2] if links else ""


def test_a_wrong_configuration_is_told_without_a_trace(tmp_path: Path, pair: tuple[Agent, Agent]) -> None:
    assert "qkd-agent" in command("--version").stdout
    file = tmp_path / "agent.toml"
    done = command("run", "--config", str(file))
    assert done.returncode == 2 and str(file) in done.stderr and "Traceback" not in done.stderr
    text = (pair[0].home / "agent.toml").read_text()
    (pair[0].home / "agent.toml").write_text(text.replace('"simulated"', '"acme"'))
    done = command("run", "--config", str(pair[0].home / "agent.toml"))
    assert done.returncode == 2 and "acme" in done.stderr and "simulated" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_one_agent_starts_and_ends(pair: tuple[Agent, Agent], number: signal.Signals) -> None:
    ready = pair[0].home / "ready"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "qswitch.agent.main",
        "run",
        "--config",
        str(pair[0].home / "agent.toml"),
        "--ready-file",
        str(ready),
    )
    async with asyncio.timeout(30):
        while not ready.exists():
            assert process.returncode is None
            await asyncio.sleep(0.05)
        process.send_signal(number)
        assert await process.wait() == 0


async def test_two_agents_give_both_applications_the_same_key(running: tuple[Agent, Agent]) -> None:
    alice, bob = running
    await alice.edit(fibre(alice, bob))
    await bob.edit(fibre(bob, alice))
    await asyncio.gather(*(agent.until(lambda state: status(state) == "ACTIVE") for agent in running))
    async with alice.client() as first, bob.client() as second:
        ksid = str(uuid.uuid4())
        qos = Qos(key_chunk_size=32, timeout=15_000)
        opening = asyncio.gather(
            first.open_connect(alice.uri, bob.uri, qos, ksid), second.open_connect(alice.uri, bob.uri, qos, ksid)
        )
        await alice.edit(entry(alice, bob, ksid, alice, bob))
        await bob.edit(entry(bob, alice, ksid, alice, bob))
        assert [reply.status for reply in await opening] == [Status.SUCCESS] * 2
        seen = set()
        for index in range(20):
            a, b = await asyncio.gather(first.get_key(ksid, index), second.get_key(ksid, index))
            assert a.key == b.key and len(a.key) == 32 and a.metadata["hops"] == 0
            seen.add(bytes(a.key))
        assert len(seen) == 20
        state = await alice.until(
            lambda state: state["qkd_links"]["qkd_link"][0]["qkd-node-extensions:key_store"]["usable"] != "0"
        )
        assert state["qkd_applications"]["qkd_app"][0]["app_status"] == identity("ON")
        await first.close(ksid)
        assert (await second.get_key(ksid, 20)).key  # reserved before the peer closed
        await second.close(ksid)


async def test_an_agent_that_was_killed_goes_on(pair: tuple[Agent, Agent]) -> None:
    alice, bob = pair
    started = list(await asyncio.gather(*(agent.start() for agent in pair)))
    try:
        for here, there in ((alice, bob), (bob, alice)):
            await here.edit(fibre(here, there))
        ksid, qos = str(uuid.uuid4()), Qos(timeout=15_000)
        for here, there in ((alice, bob), (bob, alice)):
            await here.edit(entry(here, there, ksid, alice, bob))
        async with alice.client() as first, bob.client() as second:
            await asyncio.gather(
                first.open_connect(alice.uri, bob.uri, qos, ksid), second.open_connect(bob.uri, alice.uri, qos, ksid)
            )
            assert (await first.get_key(ksid, 0)).key == (await second.get_key(ksid, 0)).key
            await processes.kill(started[0])
            started[0] = await alice.start()
            first.disconnect()
            await alice.until(lambda state: status(state) == "ACTIVE")
            for index in range(1, 100):  # what was reserved before, and beyond
                a, b = await asyncio.gather(first.get_key(ksid, index), second.get_key(ksid, index))
                assert a.key == b.key
    finally:
        assert await processes.stop(started) == []
