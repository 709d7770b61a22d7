"""`qkd-agent keys` as an operator calls it: a process on a node's configuration, beside its key manager or without one."""

import asyncio
import json
import logging
import os
import subprocess
import sys
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from key_managers import Watcher, link_id, material, node_id, until

from qswitch.agent.config import Credential, Variable, load
from qswitch.agent.errors import ConfigurationError
from qswitch.agent.lkms.keys import Key
from qswitch.agent.lkms.manager import KeyManager
from qswitch.agent.lkms.master_key import fingerprint
from qswitch.agent.model import LinkConfig, LinkType
from qswitch.integration import configure
from qswitch.integration.layout import Layout

LINK = link_id(1)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The configuration of a node, as `qkd-network` writes it."""
    configure.write(Layout("one", "one", ("Alice",), (), ()), tmp_path / "net")
    return tmp_path / "net" / "alice" / "agent.toml"


@pytest.fixture
async def manager(file: Path) -> AsyncIterator[KeyManager]:
    """The node's key manager, with three blocks of a link."""
    config = load(file)
    one = KeyManager(config.node, config.lkms, Watcher())
    await one.start()
    await one.configure_link(LinkConfig(LINK, LinkType.PHYSICAL, remote_node=node_id("b")))
    for number in range(3):
        await one.deliver(LINK, number, material(LINK, number))
    await one._store.commit()
    yield one
    await one.stop()


def change(file: Path, member: str) -> None:
    """Sets a member of [lkms]."""
    file.write_text(file.read_text(encoding="utf-8").replace("[lkms]\n", f"[lkms]\n{member}\n"), encoding="utf-8")


def call(file: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "qswitch.agent.main", "keys", *arguments, "--config", str(file)]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=30, check=False)


async def keys(file: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(call, file, *arguments)


def answer(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


async def test_beside_a_key_manager_that_runs(file: Path, manager: KeyManager, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    master = load(file).lkms.master_key
    assert isinstance(master, Path)
    old = master.read_bytes()
    texts = [await keys(file, *words) for words in (["status"], ["verify"], ["rotate"], ["status", "-o", "json"])]
    status, verify, rotate, after = texts
    assert status.returncode == 0 and "which runs" in status.stdout and LINK in status.stdout
    assert verify.returncode == 0 and "in order: 3 rows of key opened" in verify.stdout
    assert rotate.returncode == 0 and master.read_bytes() != old
    shown = answer(after)
    assert shown["agent_runs"] and shown["links"][LINK]["octets"] == 3 * 4096 and shown["links"][LINK]["usable_octets"] == 0
    assert shown["master_key"]["fingerprint"] in rotate.stdout
    refused = await keys(file, "purge", "--all", "--yes")
    assert refused.returncode == 1 and "in use by another process" in refused.stderr and "Traceback" not in refused.stderr
    assert manager.levels(LINK).stored_bits == 3 * 8 * 4096
    said = caplog.text + "".join(one.stdout + one.stderr for one in texts)
    for key in (old, master.read_bytes(), bytes(material(LINK, 0).view()[:24])):
        assert key.hex() not in said and b64encode(key).decode().rstrip("=") not in said and repr(key) not in said


async def test_when_the_agent_does_not_run(file: Path, manager: KeyManager) -> None:
    await manager.stop()
    status = await keys(file, "status")
    assert status.returncode == 0 and "the agent does not run" in status.stdout
    assert answer(await keys(file, "rotate", "-o", "json"))["finished_earlier"] is False
    unasked = await keys(file, "purge", "--link", LINK)
    assert unasked.returncode == 1 and "Erase the key of" in unasked.stderr
    assert answer(await keys(file, "purge", "--link", LINK, "--yes", "-o", "json")) == {
        "blocks": 3,
        "octets": 3 * 4096,
        "other_rows": 0,
    }
    shown = answer(await keys(file, "verify", "-o", "json"))
    assert shown["in_order"] and shown["opened"] == 0
    load(file).lkms.store.chmod(0o644)
    verify = await keys(file, "verify")
    assert verify.returncode == 1 and "chmod 600" in verify.stdout


def test_wrong_use_and_wrong_files(file: Path) -> None:
    assert call(file, "purge", "--yes").returncode == 2
    assert call(file, "purge", "--all", "--link", LINK, "--yes").returncode == 2
    for word in ("status", "verify", "rotate"):
        done = call(file, word)
        assert done.returncode == 1 and "there is no key store" in done.stderr
    assert call(file.with_name("none.toml"), "status").returncode == 2
    for word in ("status", "verify", "rotate", "purge"):
        done = subprocess.run(
            [sys.executable, "-m", "qswitch.agent.main", "keys", word, "--help"], capture_output=True, text=True, check=True
        )
        assert len(done.stdout.splitlines()) > 10


async def test_a_master_key_of_the_environment(file: Path) -> None:
    """Sealed under a variable by the agent, rotated to the next one by the command."""
    change(file, 'master_key = "env:QKD_MASTER"')
    config = load(file)
    os.environ["QKD_MASTER"] = bytes(range(32)).hex()
    try:
        one = KeyManager(config.node, config.lkms, Watcher())
        await one.start()
        refused = await keys(file, "rotate")
        assert refused.returncode == 1 and "stop the agent" in refused.stderr
        await one.stop()
    finally:
        del os.environ["QKD_MASTER"]
    both = {"QKD_MASTER": bytes(range(32)).hex(), "QKD_MASTER_NEXT": b64encode(bytes(32)).decode()}
    done = await asyncio.to_thread(lambda: call(file, "rotate", **both))
    assert done.returncode == 0 and "now store the content of env:QKD_MASTER_NEXT as env:QKD_MASTER" in done.stdout
    assert call(file, "verify", QKD_MASTER=both["QKD_MASTER_NEXT"]).returncode == 0
    wrong = call(file, "verify", QKD_MASTER=both["QKD_MASTER"])
    assert wrong.returncode == 1 and "its own has fingerprint" in wrong.stdout
    assert both["QKD_MASTER"] not in wrong.stdout + wrong.stderr + done.stdout


async def test_an_agent_takes_its_master_key_out_of_the_environment(file: Path) -> None:
    """Before it starts anything: neither /proc nor a child process shows it."""
    change(file, 'master_key = "env:QKD_MASTER"')
    secret, ready, config = os.urandom(32).hex(), file.with_name("ready"), load(file)
    command = [sys.executable, "-m", "qswitch.agent.main", "run", "--config", str(file), "--ready-file", str(ready)]
    agent = await asyncio.create_subprocess_exec(*command, env=os.environ | {"QKD_MASTER": secret})
    try:
        await until(lambda: ready.exists() or agent.returncode is not None, 30)
        assert agent.returncode is None
        environment = Path(f"/proc/{agent.pid}/environ").read_bytes()
        assert b"PATH=" in environment and secret.encode() not in environment
        shown = answer(await keys(file, "status", "-o", "json"))
        assert shown["agent_runs"] and shown["master_key"]["fingerprint"] == fingerprint(Key(bytes.fromhex(secret)))
    finally:
        agent.terminate()
        await agent.wait()
        for left in Path("/dev/shm").glob(config.repository.shm_prefix + "*"):
            left.unlink()
    assert agent.returncode == 0


@pytest.mark.parametrize(
    ("member", "told"),
    [
        ('master_key = "env:not a name"', "cannot be the name of a variable"),
        ('master_key = "credential:../master"', "cannot be the name of a credential"),
        ("capacity_blocks = 0", "capacity_blocks: 0 must be within 1"),
        ("refill_percent = 101", "refill_percent: 101 must be within 1..100"),
    ],
)
def test_configurations_that_are_refused(file: Path, member: str, told: str) -> None:
    change(file, member)
    with pytest.raises(ConfigurationError, match=told):
        load(file)


@pytest.mark.parametrize(
    ("text", "source"),
    [("env:A_1", Variable("A_1")), ("credential:qkd.master-key", Credential("qkd.master-key")), ("./env:A", "env:A")],
)
def test_where_a_master_key_may_be(file: Path, text: str, source: object) -> None:
    change(file, f'master_key = "{text}"')
    assert load(file).lkms.master_key == (file.parent / source if isinstance(source, str) else source)
