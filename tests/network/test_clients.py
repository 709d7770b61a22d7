"""Clients from PyPI, unchanged and over their own transports, work on a node with the descriptor's data."""

import base64
import shutil
import subprocess
import uuid
from pathlib import Path

import pytest
from ncclient import manager
from stock_client import QKDN, ncclient

from qswitch.integration.emulation import Emulation

TYPES = "urn:etsi:qkd:yang:etsi-qkd-node-types"
CONFIG = '<config xmlns="urn:ietf:params:xml:ns:netconf:base:1.0">{}</config>'
EDIT = """<qkd_node xmlns="{qkdn}"><qkd_links>
  <qkd_link xmlns:nc="urn:ietf:params:xml:ns:netconf:base:1.0" nc:operation="{operation}">
    <qkdl_id>{link}</qkdl_id>{leaves}
  </qkd_link>
</qkd_links></qkd_node>"""
LEAVES = """<qkdl_type xmlns:t="{types}">t:VIRT</qkdl_type><qkdl_enable>true</qkdl_enable>
<qkdl_remote><qkdn_id>{remote}</qkdn_id></qkdl_remote><virt_next_hop>{remote}</virt_next_hop>"""


def _edit(operation: str, link: str, remote: str = "") -> str:
    leaves = LEAVES.format(types=TYPES, remote=remote) if remote else ""
    return EDIT.format(qkdn=QKDN, operation=operation, link=link, leaves=leaves)


def test_ncclient_reads_edits_and_hears(madrid: Emulation) -> None:
    node, remote, link = madrid.node("Quintin"), madrid.node("Quijote"), str(uuid.uuid4())
    with ncclient(madrid, "Quintin") as session:
        tree = session.get(filter=("subtree", f'<qkd_node xmlns="{QKDN}"/>')).data_xml
        assert f"<qkdn_id>{node['qkdn_id']}</qkdn_id>" in tree
        session.create_subscription()
        session.edit_config(CONFIG.format(_edit("create", link, remote["qkdn_id"])), target="running")
        try:
            assert link in session.get_config("running").data_xml
            for _ in range(20):
                notification = session.take_notification(timeout=20)
                assert notification is not None, "no notification of the link that was created"
                if link in notification.notification_xml:
                    break
        finally:
            session.edit_config(CONFIG.format(_edit("delete", link)), target="running")
        assert link not in session.get_config("running").data_xml


def _console(network: Emulation, node: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    netconf = network.node(node)["netconf"]
    command = [
        shutil.which("netconf-console2") or "netconf-console2",
        f"--host={netconf['host']}",
        f"--port={netconf['port']}",
        f"--user={netconf['username']}",
        f"--privKeyFile={network.directory / netconf['key']}",
        # An empty one: without it the client offers a password of its own before the key.
        "--ssh-config=/dev/null",
        *arguments,
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_netconf_console2_reads_and_edits(madrid: Emulation, tmp_path: Path) -> None:
    node, remote, link = madrid.node("Quintin"), madrid.node("Quijote"), str(uuid.uuid4())
    create, delete = tmp_path / "create.xml", tmp_path / "delete.xml"
    create.write_text(_edit("create", link, remote["qkdn_id"]))
    delete.write_text(_edit("delete", link))
    read = _console(madrid, "Quintin", "--get", "--ns", f"q={QKDN}", "-x", "/q:qkd_node/q:qkdn_id")
    assert node["qkdn_id"] in read.stdout, read.stderr
    try:
        created = _console(madrid, "Quintin", f"--edit-config={create}")
        assert created.returncode == 0, created.stdout + created.stderr
        assert link in _console(madrid, "Quintin", "--get-config").stdout
    finally:
        _console(madrid, "Quintin", f"--edit-config={delete}")
    assert link not in _console(madrid, "Quintin", "--get-config").stdout


def test_a_wrong_host_key_is_the_clients_to_refuse(madrid: Emulation) -> None:
    """The descriptor's host key is the node's own: another node's is not accepted in its place."""
    wrong = madrid.node("Norte")["netconf"]["host_key"].split()[1]
    assert base64.b64decode(wrong)
    netconf = madrid.node("Quintin")["netconf"]
    with pytest.raises(Exception, match=r"(?i)host ?key"):
        manager.connect(
            host=netconf["host"],
            port=netconf["port"],
            username=netconf["username"],
            key_filename=str(madrid.directory / netconf["key"]),
            hostkey_b64=wrong,
            allow_agent=False,
            look_for_keys=False,
        )
