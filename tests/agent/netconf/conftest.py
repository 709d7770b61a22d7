"""One prepared repository with one serving process for each test module."""

import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import asyncssh
import pytest
from netconf_front import NACM, Front, free_port, install, server_data


@pytest.fixture(scope="module")
def front(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """A prepared repository and a serving process, for each engine under test."""
    path = tmp_path_factory.mktemp("front")
    prefix = f"qt{uuid.uuid4().hex[:10]}"
    names = {"SYSREPO_REPOSITORY_PATH": str(path / "sysrepo"), "SYSREPO_SHM_PREFIX": prefix}
    (path / "sysrepo").mkdir()
    (path / "agent.toml").write_text(f'[node]\nrepository = "sysrepo"\nshm_prefix = "{prefix}"\n')
    keys = {user: asyncssh.generate_private_key("ssh-ed25519") for user in ("controller", "monitor")}
    front = Front(
        path, free_port(), asyncssh.generate_private_key("ssh-ed25519"), keys, {**os.environ, **names}, engine=engine
    )
    for user, key in keys.items():
        key.write_private_key(str(front.key_file(user)))
        front.key_file(user).chmod(0o600)
    try:
        install(front)
        front.side("apply", NACM + server_data(front.port, front.host_key, keys))
        front.start()
        yield front
        assert front.stop() == 0
    finally:
        if front.process is not None and front.process.poll() is None:
            front.process.kill()
        front.stop_side()
        for leftover in Path("/dev/shm").glob(f"{prefix}*"):
            leftover.unlink(missing_ok=True)
        shutil.rmtree(path / "sysrepo", ignore_errors=True)
