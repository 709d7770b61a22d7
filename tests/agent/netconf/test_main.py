"""`qkd-netconf` as a program: on a repository as the agent prepares it, and with what it refuses."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncssh
import pytest
from netconf_front import Client, free_port

from qswitch.agent import repository
from qswitch.agent.config import AgentConfig
from qswitch.agent.model import Endpoint
from qswitch.protocol import netconf


@contextmanager
def running(file: Path, *arguments: str, path: str = "") -> Iterator[subprocess.Popen[str]]:
    """The program, serving; killed at the end unless it has ended."""
    ready = file.with_name("ready")
    command = [sys.executable, "-m", "qswitch.agent.netconf.main", "--config", str(file), "--ready-file", str(ready)]
    environment = {**os.environ, "PATH": path or os.environ["PATH"]}
    process = subprocess.Popen([*command, *arguments], env=environment, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 15
        while not ready.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        yield process
    finally:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, errors = process.communicate(timeout=15)
    return process.returncode, errors


async def test_a_repository_as_the_agent_prepares_it_is_served(agent_config: AgentConfig) -> None:
    listen = Endpoint("127.0.0.1", free_port())
    config = dataclasses.replace(agent_config, netconf=dataclasses.replace(agent_config.netconf, listen=listen))
    repository.prepare(config)
    folder = config.file.parent
    with running(config.file, "--engine", "builtin") as process:
        host_key = (folder / "host_key.pub").read_bytes()
        async with asyncssh.connect(
            listen.address,
            listen.port,
            username="monitor",
            client_keys=[str(folder / "monitor")],
            known_hosts=([host_key], [], []),
            config=None,
        ) as connection:
            stdin, stdout, _ = await connection.open_session(subsystem="netconf", encoding=None)
            client = Client(connection, stdin, stdout)
            await client.greet(netconf.BASE_1_1)
            await client.ok("<get/>")
            assert (await client.refused("<lock><target><running/></target></lock>")).tag == "access-denied"
            process.send_signal(signal.SIGTERM)
            assert ended(process)[0] == 0
    assert not (folder / "ready").exists()


def minimal(folder: Path) -> Path:
    (folder / "sysrepo").mkdir()
    (folder / "sysrepo" / repository.MARKER).write_text("{}")
    file = folder / "agent.toml"
    file.write_text('[node]\nrepository = "sysrepo"\nshm_prefix = "qtmain"\n')
    return file


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[node", "is no TOML"),
        ("[node]\nrepository = 7\n", "must be of type str"),
        ('node = "x"\n', "must be a table"),
        (None, "No such file"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, content: str | None, words: str) -> None:
    file = tmp_path / "agent.toml"
    if content is not None:
        file.write_text(content)
    with running(file) as process:
        code, errors = ended(process)
    assert code == 1
    assert "agent.toml" in errors
    assert words in errors


def test_an_empty_repository_is_refused(tmp_path: Path) -> None:
    try:
        with running(minimal(tmp_path), "--engine", "builtin") as process:
            code, errors = ended(process)
        assert code == 1
        assert "no endpoint with ssh or tls is configured" in errors
        assert "Traceback" not in errors
    finally:
        for left in Path("/dev/shm").glob("qtmain*"):
            left.unlink()


def test_a_repository_that_is_not_set_up_is_left_alone(tmp_path: Path) -> None:
    file = minimal(tmp_path)
    (tmp_path / "sysrepo" / repository.MARKER).unlink()
    with running(file, "--engine", "builtin") as process:
        code, errors = ended(process)
    assert code == 1
    assert "is not set up; start qkd-agent first" in errors
    assert list((tmp_path / "sysrepo").iterdir()) == []


def test_netopeer2_is_missed_by_name(tmp_path: Path) -> None:
    with running(minimal(tmp_path), "--engine", "netopeer2", path=str(tmp_path)) as process:
        code, errors = ended(process)
    assert code == 1
    assert "'netopeer2-server' is not on PATH" in errors


def test_an_engine_that_does_not_exist_is_named(tmp_path: Path) -> None:
    file = minimal(tmp_path)
    with file.open("a") as more:
        more.write('[netconf]\nengine = "third"\n')
    with running(file) as process:
        code, errors = ended(process)
    assert code == 1
    assert "[netconf] engine: 'third' must be one of auto, netopeer2, builtin" in errors
