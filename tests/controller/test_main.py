"""`qkd-controller` as a process: it starts, serves, is stopped, and says clearly what is wrong."""

import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncssh
import httpx
import pytest

from qswitch.integration.configure import free_ports
from qswitch.integration.identities import Authority

CONFIG = """
[controller]
state_dir = "state"
port = {port}
certificate = "controller.pem"
private_key = "controller.key"
token_file = "token"
connect_timeout = 1

[[nodes]]
name = "Away"
host = "127.0.0.1"
port = 1
username = "controller"
key = "user"
host_key = "user.pub"
"""
COMMAND = [sys.executable, "-m", "qswitch.controller.main"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    authority = Authority("tests")
    authority.write(tmp_path / "ca.pem")
    authority.issue(tmp_path, "controller", "controller", (), local=True)
    key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(tmp_path / "user")
    key.write_public_key(tmp_path / "user.pub")
    (tmp_path / "controller.toml").write_text(CONFIG.format(port=free_ports(1)[0]))
    return tmp_path


@contextmanager
def running(folder: Path) -> Iterator[subprocess.Popen[str]]:
    ready = folder / "ready"
    ready.unlink(missing_ok=True)
    command = [*COMMAND, "--config", str(folder / "controller.toml"), "--ready-file", str(ready)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 20
        while not ready.exists():
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert ready.read_text() == "ready\n"
        yield process
    finally:
        if process.poll() is None:
            process.kill()


def api(folder: Path) -> httpx.Client:
    port = (folder / "controller.toml").read_text().split("port = ")[1].split()[0]
    return httpx.Client(
        base_url=f"https://127.0.0.1:{port}",
        verify=ssl.create_default_context(cafile=str(folder / "ca.pem")),
        headers={"Authorization": f"Bearer {(folder / 'token').read_text().strip()}"},
    )


def test_it_serves_and_ends_when_told(folder: Path) -> None:
    with running(folder) as process:
        assert (folder / "token").stat().st_mode & 0o777 == 0o600
        with api(folder) as client:
            (node,) = client.get("/v1/nodes").json()
            assert (node["name"], node["connected"], node["qkdn_id"]) == ("Away", False, None)
            assert client.get("/v1/health").json()["status"] == "degraded"
        process.send_signal(signal.SIGTERM)
        log = process.communicate(timeout=10)[1]
        assert process.returncode == 0, log
        assert "Traceback" not in log
        assert (folder / "token").read_text().strip() not in log


def test_it_ends_though_somebody_follows_the_events(folder: Path) -> None:
    with (
        running(folder) as process,
        api(folder) as client,
        client.stream("GET", "/v1/events?follow=true") as reply,
    ):
        assert reply.status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_a_wrong_configuration_is_one_line_and_status_2(folder: Path) -> None:
    file = folder / "controller.toml"
    file.write_text(file.read_text().replace("token_file", "tokn_file"))
    done = subprocess.run([*COMMAND, "--config", str(file)], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 2
    assert "[controller] token_file: is missing" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_port_in_use_where_nodes_should_call_is_status_1(folder: Path) -> None:
    file = folder / "controller.toml"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        text = file.read_text().replace('host = "127.0.0.1"\nport = 1\n', 'connect = "call-home"\n')
        file.write_text(f'{text}\n[call_home]\nssh_address = "127.0.0.1"\nssh_port = {port}\n')
        done = subprocess.run([*COMMAND, "--config", str(file)], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 1
    assert f"nodes cannot call on 127.0.0.1 port {port}" in done.stderr
    assert "Traceback" not in done.stderr
    with running(folder), api(folder) as client:
        report = client.post("/v1/nodes/Away/check").json()
    assert (report["well"], report["connect"], report["findings"][0]["text"]) == (
        False,
        "call-home",
        "it has not called yet",
    )


def test_a_port_in_use_is_status_1(folder: Path) -> None:
    with running(folder):
        command = [*COMMAND, "--config", str(folder / "controller.toml")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 1
    assert "cannot be served" in done.stderr
    assert "Traceback" not in done.stderr
