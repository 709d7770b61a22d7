"""A node's own configuration and repository, made in the test's folder and gone with it."""

import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import asyncssh
import pytest

from qswitch.agent import config, repository
from qswitch.integration.identities import Authority

AGENT = """
[node]
qkdn_id = "{node}"
name = "Alpha"
location = "here"
repository = "sysrepo"
shm_prefix = "{prefix}"

[netconf]
address = "127.0.0.1"
port = {netconf}
host_key = "host_key"

[[netconf.users]]
name = "controller"
public_key = "{controller}"
role = "controller"

[[netconf.users]]
name = "monitor"
public_key = "{monitor}"
role = "monitor"

[lkms]
address = "127.0.0.1"
port = {lkms}
certificate = "node.pem"
private_key = "node.key"
ca = "ca.pem"

[etsi004]
address = "127.0.0.1"
port = {etsi004}
certificate = "node.pem"
private_key = "node.key"
ca = "ca.pem"
"""
NODE = "00000000-0000-4000-8000-00000000000a"


def _user(folder: Path, name: str) -> str:
    key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(folder / name)
    return key.export_public_key("openssh").decode().strip()


@pytest.fixture
def agent_config(tmp_path: Path) -> Iterator[config.AgentConfig]:
    """A minimal `agent.toml`, loaded, with throw-away keys beside it; users' private keys are files of their names."""
    authority = Authority("tests")
    authority.write(tmp_path / "ca.pem")
    authority.issue(tmp_path, "node", "Alpha", (f"urn:uuid:{NODE}",), local=True)
    prefix = f"qst{uuid.uuid4().hex[:10]}"
    ports = {"netconf": 18300, "lkms": 18301, "etsi004": 18302}
    users = {name: _user(tmp_path, name) for name in ("controller", "monitor")}
    file = tmp_path / "agent.toml"
    file.write_text(AGENT.format(node=NODE, prefix=prefix, **ports, **users))
    environment = dict(os.environ)
    yield config.load(file)
    for name in ("SYSREPO_REPOSITORY_PATH", "SYSREPO_SHM_PREFIX"):
        if name in environment:
            os.environ[name] = environment[name]
        else:
            os.environ.pop(name, None)
    for left in Path("/dev/shm").glob(f"{prefix}*"):
        left.unlink()


@pytest.fixture
def prepared(agent_config: config.AgentConfig) -> config.AgentConfig:
    """The same, with its repository set up and entered."""
    repository.prepare(agent_config)
    return agent_config


@pytest.fixture
def export(prepared: config.AgentConfig):  # type: ignore[no-untyped-def]
    """Calls sysrepocfg on the repository, as a stranger would."""

    def call(*arguments: str, text: str | None = None) -> str:
        environment = os.environ | repository.environment(prepared.repository)
        command = ["sysrepocfg", *arguments]
        done = subprocess.run(
            command,
            env=environment,
            cwd="/dev/shm",
            input=text,
            capture_output=True,
            encoding="utf-8",
            timeout=20,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return call
