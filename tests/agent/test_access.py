"""What each role may and may not do, as sysrepo enforces it for a NETCONF session of that user."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from qswitch import yang
from qswitch.agent import access, repository
from qswitch.agent.config import ROLES, AgentConfig, NetconfUser, load
from qswitch.agent.errors import ConfigurationError

ATTEMPTS = f"""
import json, sys, sysrepo
ROOT = "/{yang.NODE}:qkd_node"
LINK = ROOT + "/qkd_links/qkd_link[qkdl_id='11111111-0000-4000-8000-000000000001']"
KEY = "/ietf-keystore:keystore/asymmetric-keys/asymmetric-key[name='genkey']"

def write(path, value):
    session.switch_datastore("running")
    session.set_item(path, value)
    session.apply_changes()

def remove(path):
    session.switch_datastore("running")
    session.delete_item(path)
    session.apply_changes()

def read(path):
    session.switch_datastore("running")
    if not session.get_data(path):
        raise sysrepo.SysrepoUnauthorizedError("nothing")

def execute(path, **values):
    session.switch_datastore("operational")
    session.rpc_send(path, values)

def attempt(action, *arguments, **values):
    try:
        action(*arguments, **values)
    except (sysrepo.SysrepoUnauthorizedError, sysrepo.SysrepoNotFoundError):
        return False
    except sysrepo.SysrepoError:  # allowed, though it led nowhere: nobody serves these operations here
        if action is not execute:
            raise
    finally:
        session.discard_changes()
    return True

with sysrepo.SysrepoConnection() as connection, connection.start_session() as own, connection.start_session() as session:
    own.set_item(LINK + "/qkdl_type", "etsi-qkd-node-types:VIRT")
    own.apply_changes()
    session.init_nacm(sys.argv[1])
    print(json.dumps({{
        "read link": attempt(read, LINK),
        "edit link": attempt(write, LINK + "/virt_bandwidth", "5"),
        "edit extension": attempt(write, LINK + "/{yang.EXTENSIONS}:remote_lkms/address", "192.0.2.1"),
        "delete link": attempt(remove, LINK),
        "read private key": attempt(read, KEY + "/cleartext-private-key"),
        "read public key": attempt(read, KEY + "/public-key"),
        "read server": attempt(read, "/ietf-netconf-server:netconf-server/listen"),
        "edit server": attempt(write, "/ietf-netconf-server:netconf-server/listen/idle-timeout", "7"),
        "read rules": attempt(read, "/ietf-netconf-acm:nacm/enable-nacm"),
        "edit rules": attempt(write, "/ietf-netconf-acm:nacm/enable-nacm", "false"),
        "lock": attempt(execute, "/ietf-netconf:lock", target={{"running": None}}),
        "kill session": attempt(execute, "/ietf-netconf:kill-session", **{{"session-id": 9}}),
        "delete startup": attempt(execute, "/ietf-netconf:delete-config", target={{"startup": None}}),
    }}))
"""

MAY = {
    "controller": {
        "read link", "edit link", "edit extension", "delete link", "read public key", "read server", "read rules", "lock",
        "kill session",
    },
    "operator": {"read link", "read public key", "read server", "read rules"},
    "monitor": {"read link"},
}  # fmt: skip


@pytest.mark.parametrize("role", ROLES)
def test_role(agent_config: AgentConfig, prepared: AgentConfig, role: str) -> None:
    environment = os.environ | repository.environment(prepared.repository)
    users = (*prepared.netconf.users, NetconfUser("operator", "", "operator"))
    command = ["sysrepocfg", "-E", "-d", "running", "-f", "json"]
    subprocess.run(
        command, input=json.dumps(access.rules(users)).encode(), env=environment, check=True, cwd=Path("/dev/shm")
    )
    done = subprocess.run(
        [sys.executable, "-c", ATTEMPTS, role],
        env=environment,
        capture_output=True,
        encoding="utf-8",
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert {what for what, could in json.loads(done.stdout).items() if could} == MAY[role]


def test_no_user_is_above_access_control(agent_config: AgentConfig) -> None:
    """sysrepo applies no rule to its recovery user."""
    text = agent_config.file.read_text().replace('name = "controller"', 'name = "root"', 1)
    assert '"root"' in text
    agent_config.file.write_text(text)
    with pytest.raises(ConfigurationError, match="'root' is above all access control"):
        load(agent_config.file)
