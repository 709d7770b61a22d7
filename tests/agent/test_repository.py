"""A node's repository: set up once, told apart from other things, done again when it was interrupted."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import asyncssh
import pytest

from qswitch import yang
from qswitch.agent import repository
from qswitch.agent.config import AgentConfig, RepositoryConfig
from qswitch.agent.errors import ConfigurationError, DatastoreFailed
from qswitch.agent.model import NodeId

Export = Callable[..., str]


def exported(export: Export, datastore: str, module: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(export("-X", "-d", datastore, "-m", module, "-f", "json"))
    return found


@pytest.mark.parametrize("datastore", ["startup", "running"])
def test_first_start(prepared: AgentConfig, export: Export, datastore: str) -> None:
    node = exported(export, datastore, yang.NODE)[f"{yang.NODE}:qkd_node"]
    assert node["qkdn_id"] == prepared.node and node["qkdn_location_id"] == "here"  # type: ignore[index]
    groups = exported(export, datastore, "ietf-netconf-acm")["ietf-netconf-acm:nacm"]["groups"]["group"]  # type: ignore[index]
    members = {one["name"]: one.get("user-name", []) for one in groups}
    assert members == {"controller": ["controller"], "operator": [], "monitor": ["monitor"]}


def test_netconf_server(prepared: AgentConfig, export: Export) -> None:
    server = exported(export, "running", "ietf-netconf-server")["ietf-netconf-server:netconf-server"]
    (endpoint,) = server["listen"]["endpoints"]["endpoint"]  # type: ignore[index]
    bind = {"local-address": "127.0.0.1", "local-port": prepared.netconf.listen.port}
    assert endpoint["ssh"]["tcp-server-parameters"]["local-bind"] == [bind]
    users = endpoint["ssh"]["ssh-server-parameters"]["client-authentication"]["users"]["user"]
    assert {one["name"] for one in users} == {"controller", "monitor"}


def test_host_key_is_made_once_for_its_owner_only(prepared: AgentConfig, export: Export) -> None:
    file = prepared.netconf.host_key
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    keys = exported(export, "running", "ietf-keystore")["ietf-keystore:keystore"]
    (key,) = keys["asymmetric-keys"]["asymmetric-key"]  # type: ignore[index]
    assert key["public-key"] == asyncssh.read_private_key(file).export_public_key().split()[1].decode()


def test_secrets_are_readable_by_the_owner_only(prepared: AgentConfig) -> None:
    files = [*prepared.repository.path.glob("data/ietf-keystore*")]
    files += Path("/dev/shm").glob(f"{prepared.repository.shm_prefix}_ietf-keystore*")
    assert files and all(stat.S_IMODE(file.stat().st_mode) & 0o077 == 0 for file in files)


def test_second_start_changes_nothing(prepared: AgentConfig, export: Export) -> None:
    edit = {f"{yang.NODE}:qkd_node": {"qkdn_location_id": "elsewhere"}}
    export("-E", "-d", "running", "-f", "json", text=json.dumps(edit))
    before = export("-X", "-d", "running", "-f", "json")
    repository.prepare(prepared)
    assert export("-X", "-d", "running", "-f", "json") == before


def test_running_comes_from_startup_after_a_reboot(prepared: AgentConfig, export: Export) -> None:
    before = export("-X", "-d", "running", "-f", "json")
    for file in Path("/dev/shm").glob(f"{prepared.repository.shm_prefix}*"):
        file.unlink()
    repository.prepare(prepared)
    assert export("-X", "-d", "running", "-f", "json") == before


def test_interrupted_setup_is_done_again(prepared: AgentConfig, export: Export) -> None:
    (prepared.repository.path / repository.MARKER).unlink()
    export("-E", "-d", "running", "-f", "json", text=json.dumps({f"{yang.NODE}:qkd_node": {"qkdn_location_id": "half"}}))
    repository.prepare(prepared)
    assert exported(export, "running", yang.NODE)[f"{yang.NODE}:qkd_node"]["qkdn_location_id"] == "here"  # type: ignore[index]


def test_repository_of_another_node_is_refused(prepared: AgentConfig) -> None:
    other = NodeId("00000000-0000-4000-8000-0000000000ff")
    with pytest.raises(ConfigurationError, match=f"belongs to node {prepared.node}, not {other}"):
        repository.prepare(replace(prepared, node=other))


def test_strange_folder_is_refused_and_kept(agent_config: AgentConfig) -> None:
    agent_config.repository.path.mkdir()
    (agent_config.repository.path / "thesis.txt").write_text("precious")
    with pytest.raises(ConfigurationError, match="holds something else"):
        repository.prepare(agent_config)
    assert (agent_config.repository.path / "thesis.txt").read_text() == "precious"


def test_prefix_in_use_is_refused(prepared: AgentConfig, tmp_path: Path) -> None:
    hold = "import sysrepo; c = sysrepo.SysrepoConnection(); print('open', flush=True); input()"
    environment = os.environ | repository.environment(prepared.repository)
    with subprocess.Popen(
        [sys.executable, "-c", hold], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
    ) as holder:
        assert holder.stdout is not None and holder.stdin is not None
        assert holder.stdout.readline() == "open\n"
        other = RepositoryConfig(tmp_path / "other", prepared.repository.shm_prefix)
        with pytest.raises(ConfigurationError, match=f"in use by another repository .process {holder.pid}"):
            repository.prepare(replace(prepared, repository=other))
        holder.stdin.write("\n")


def test_bad_address_says_why(agent_config: AgentConfig) -> None:
    listen = replace(agent_config.netconf.listen, address="no address")
    with pytest.raises(DatastoreFailed, match="no address"):
        repository.prepare(replace(agent_config, netconf=replace(agent_config.netconf, listen=listen)))


def test_bad_public_key_names_the_user(agent_config: AgentConfig) -> None:
    users = (replace(agent_config.netconf.users[0], public_key="ssh-rsa nonsense"),)
    with pytest.raises(ConfigurationError, match="'controller'"):
        repository.prepare(replace(agent_config, netconf=replace(agent_config.netconf, users=users)))


def test_changed_module_is_upgraded_in_place(prepared: AgentConfig, export: Export) -> None:
    marker = prepared.repository.path / repository.MARKER
    found = json.loads(marker.read_text())
    del found["modules"][yang.EXTENSIONS]
    marker.write_text(json.dumps(found))
    command = ["sysrepoctl", "-u", yang.EXTENSIONS]
    subprocess.run(command, env=os.environ | repository.environment(prepared.repository), check=True, cwd=yang.FOLDER)
    repository.prepare(prepared)
    assert json.loads(marker.read_text())["modules"].keys() == {module.name for module in (*yang.SERVER, *yang.QKD)}
    edit = {f"{yang.NODE}:qkd_node": {"qkd_applications": {"qkd_app": [{"app_id": prepared.node}]}}}
    edit[f"{yang.NODE}:qkd_node"]["qkd_applications"]["qkd_app"][0][f"{yang.EXTENSIONS}:admission_reason"] = "x"
    export("-E", "-d", "running", "-f", "json", text=json.dumps(edit))


def test_repository_of_an_earlier_version_gets_what_is_new(prepared: AgentConfig) -> None:
    """A module for the server, a feature, and the log of events."""
    marker = prepared.repository.path / repository.MARKER
    found = json.loads(marker.read_text())
    found["modules"] = {name: text for name, text in found["modules"].items() if name in (yang.NODE, yang.TYPES)}
    marker.write_text(json.dumps(found))
    environment = os.environ | repository.environment(prepared.repository)

    def ctl(*arguments: str) -> str:
        command = ["sysrepoctl", *arguments]
        return subprocess.run(
            command, env=environment, check=True, cwd=yang.FOLDER, stdout=subprocess.PIPE, text=True
        ).stdout

    ctl("-u", "nc-notifications")
    ctl("-c", "ietf-netconf", "-d", "xpath")
    ctl("-c", yang.NODE, "-r", "off")
    repository.prepare(prepared)
    rows = {row.split()[0]: row.split("|") for row in ctl("-l").splitlines() if "|" in row}
    assert "nc-notifications" in rows
    assert set(yang.NETCONF_FEATURES) <= set(rows["ietf-netconf"][-1].split())
    assert rows[yang.NODE][2].strip() == "IR"
