"""A node's own configuration and repository, made for each test and gone with it.

Sysrepo learns where the repository is once in the life of a process, so all tests of a run use one place, anew each time.
"""

import os
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncssh
import pytest

from qswitch.agent import config, repository
from qswitch.integration.configure import free_ports
from qswitch.integration.identities import Authority

AGENT = """
[node]
qkdn_id = "{node}"
name = "Alpha"
location = "here"
repository = "{repository}"
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


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[config.RepositoryConfig]:
    """Where this process's repository is; nothing stands there yet."""
    place = config.RepositoryConfig(tmp_path_factory.mktemp("repository") / "sysrepo", f"qst{uuid.uuid4().hex[:10]}")
    environment = {name: os.environ.get(name) for name in repository.environment(place)}
    repository.enter(place)
    yield place
    for name, value in environment.items():
        os.environ.pop(name)
        if value is not None:
            os.environ[name] = value


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory, place: config.RepositoryConfig) -> Path:
    """A minimal `agent.toml` with throw-away keys beside it."""
    folder = tmp_path_factory.mktemp("template")
    authority = Authority("tests")
    authority.write(folder / "ca.pem")
    authority.issue(folder, "node", "Alpha", (f"urn:uuid:{NODE}",), local=True)
    ports = dict(zip(("netconf", "lkms", "etsi004"), free_ports(3), strict=True))
    users = {name: _user(folder, name) for name in ("controller", "monitor")}
    text = AGENT.format(node=NODE, repository=place.path, prefix=place.shm_prefix, **ports, **users)
    (folder / "agent.toml").write_text(text)
    return folder


@pytest.fixture(scope="session")
def prepared_template(tmp_path_factory: pytest.TempPathFactory, template: Path, place: config.RepositoryConfig) -> Path:
    """The same after its first start, which is made once: its repository is copied from here for each test."""
    folder = tmp_path_factory.mktemp("prepared") / "node"
    shutil.copytree(template, folder)
    repository.prepare(config.load(folder / "agent.toml"))
    shutil.move(place.path, folder / "sysrepo")
    _clear(place)
    return folder


def _clear(place: config.RepositoryConfig) -> None:
    shutil.rmtree(place.path, ignore_errors=True)
    for left in Path("/dev/shm").glob(f"{place.shm_prefix}*"):
        left.unlink()


@pytest.fixture
def agent_config(tmp_path: Path, template: Path, place: config.RepositoryConfig) -> Iterator[config.AgentConfig]:
    """A minimal `agent.toml`, loaded; users' private keys are files of their names. There is no repository yet."""
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    yield config.load(tmp_path / "agent.toml")
    _clear(place)


@pytest.fixture
def prepared(agent_config: config.AgentConfig, prepared_template: Path, tmp_path: Path) -> config.AgentConfig:
    """The same with its repository set up and entered."""
    shutil.copytree(prepared_template, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("sysrepo"))
    shutil.copytree(prepared_template / "sysrepo", agent_config.repository.path)
    repository.prepare(agent_config)
    return agent_config


@pytest.fixture
def export(prepared: config.AgentConfig) -> Callable[..., str]:
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
