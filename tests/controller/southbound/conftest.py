"""One node's NETCONF side for each test module: a real repository and a real `qkd-netconf`, without an agent."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import asyncssh
import pytest
from netconf_front import NACM, Front, free_port, install, server_data

from qswitch.controller.config import NodeConfig
from qswitch.controller.model import Endpoint

# One may do all of it; one may write nothing; one sees nothing of 015, and may not subscribe.
USERS = ("controller", "reader", "blind")
BLIND = """
<nacm xmlns="urn:ietf:params:xml:ns:yang:ietf-netconf-acm">
  <groups><group><name>blind</name><user-name>blind</user-name></group></groups>
  <rule-list><name>blind</name><group>blind</group>
    <rule><name>no-015</name><module-name>etsi-qkd-sdn-node</module-name><access-operations>read</access-operations>
      <action>deny</action></rule>
    <rule><name>no-ears</name><module-name>notifications</module-name><rpc-name>create-subscription</rpc-name>
      <access-operations>exec</access-operations><action>deny</action></rule>
  </rule-list>
</nacm>"""


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    path = tmp_path_factory.mktemp("node")
    prefix = f"qc{uuid.uuid4().hex[:10]}"
    names = {"SYSREPO_REPOSITORY_PATH": str(path / "sysrepo"), "SYSREPO_SHM_PREFIX": prefix}
    (path / "sysrepo").mkdir()
    (path / "agent.toml").write_text(f'[node]\nrepository = "sysrepo"\nshm_prefix = "{prefix}"\n')
    keys = {user: asyncssh.generate_private_key("ssh-ed25519") for user in USERS}
    front = Front(path, free_port(), asyncssh.generate_private_key("ssh-ed25519"), keys, {**os.environ, **names})
    for user, key in keys.items():
        key.write_private_key(str(front.key_file(user)))
    try:
        install(front)
        front.side("apply", NACM + BLIND + server_data(front.port, front.host_key, keys))
        front.start()
        yield front
        front.stop()
    finally:
        if front.process is not None and front.process.poll() is None:
            front.process.kill()
        front.stop_side()
        for leftover in Path("/dev/shm").glob(f"{prefix}*"):
            leftover.unlink(missing_ok=True)


@pytest.fixture
def node_config(front: Front) -> NodeConfig:
    return NodeConfig(
        "Norte",
        Endpoint("127.0.0.1", front.port),
        "controller",
        front.key_file("controller"),
        front.host_key.export_public_key().decode().strip(),
    )
