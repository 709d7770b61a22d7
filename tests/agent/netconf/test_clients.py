"""Stock clients, unchanged: ncclient and netconf-console2."""

import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from ncclient.operations import RPCError
from ncclient.transport import AuthenticationError
from netconf_front import NODE, QKD, Front

from qswitch.protocol.netconf import BASE

LINK = str(uuid.UUID(int=0x11))
TYPES = "urn:etsi:qkd:yang:etsi-qkd-node-types"
FILTER = ("subtree", f'<qkd_node xmlns="{QKD}"/>')


def data(operation: str) -> str:
    link = f'<qkdl_id>{LINK}</qkdl_id><qkdl_type xmlns:t="{TYPES}">t:VIRT</qkdl_type>'
    return (
        f'<qkd_node xmlns="{QKD}" xmlns:nc="{BASE}"><qkdn_id>{NODE}</qkdn_id>'
        f'<qkd_links><qkd_link nc:operation="{operation}">{link}</qkd_link></qkd_links></qkd_node>'
    )


def config(operation: str) -> str:
    return f'<config xmlns="{BASE}">{data(operation)}</config>'


@pytest.fixture
def client(front: Front) -> Iterator[Any]:
    with front.stock() as client:
        yield client


def test_ncclient_edits_and_reads(client: Any) -> None:
    client.edit_config(target="running", config=config("create"))
    assert LINK in client.get_config("running", filter=FILTER).data_xml
    client.edit_config(target="running", config=config("delete"), default_operation="merge")
    assert LINK not in client.get_config("running", filter=FILTER).data_xml
    xpath = ("xpath", ({"q": QKD}, "/q:qkd_node/q:qkdn_id"))
    assert NODE in client.get_config("running", filter=xpath).data_xml


def test_ncclient_takes_a_config_without_namespace(client: Any) -> None:
    bare = config("merge").replace(f'<config xmlns="{BASE}"', "<config")
    before = client.get_config("running").data_xml
    client.edit_config(target="running", config=bare)
    assert client.get_config("running").data_xml != before
    client.edit_config(target="running", config=config("delete"))
    assert client.get_config("running").data_xml == before


def test_ncclient_understands_a_refusal(client: Any) -> None:
    with pytest.raises(RPCError) as caught:
        client.edit_config(target="running", config=config("delete"))
    assert caught.value.tag == "data-missing"


def test_ncclient_locks_and_fetches_schemas(client: Any) -> None:
    with client.locked("running"):
        client.validate("running")
    assert client.get_schema("etsi-qkd-sdn-node").data.startswith("module etsi-qkd-sdn-node")


def test_ncclient_hears_notifications(front: Front, client: Any) -> None:
    client.create_subscription()
    front.side(
        "notify",
        f'<sdqkdn_interface_out xmlns="{QKD}"><qkd_interface><qkdi_id>7</qkdi_id></qkd_interface></sdqkdn_interface_out>',
    )
    heard = client.take_notification(timeout=5)
    assert heard is not None
    assert "<qkdi_id>7</qkdi_id>" in heard.notification_xml


def test_ncclient_with_a_strange_key_is_refused(front: Front) -> None:
    shutil.copy(front.key_file("monitor"), front.key_file("nobody"))
    with pytest.raises(AuthenticationError):
        front.stock("nobody")


def console(front: Front, *arguments: str) -> str:
    program = shutil.which("netconf-console2")
    assert program is not None
    # Without an SSH configuration it adds a password of its own, and then cannot read a key that has none.
    (front.path / "ssh_config").touch()
    command = [
        program,
        "--ssh-config",
        str(front.path / "ssh_config"),
        "--host",
        "127.0.0.1",
        "--port",
        str(front.port),
        "--user",
        "controller",
    ]
    command += ["--privKeyFile", str(front.key_file("controller")), *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_netconf_console(front: Front) -> None:
    assert f"{QKD}?module=etsi-qkd-sdn-node" in console(front, "--hello")
    edit = front.path / "edit.xml"
    for operation, there in ("create", True), ("delete", False):
        edit.write_text(data(operation))
        console(front, "--db", "running", f"--edit-config={edit}")
        found = console(front, "--db", "running", "--ns", f"q={QKD}", "--get-config", "-x", "/q:qkd_node/q:qkd_links")
        assert (LINK in found) is there
    assert NODE in console(front, "--ns", f"q={QKD}", "--get-config", "-x", "/q:qkd_node")


def test_five_hundred_links_are_read_quickly(front: Front) -> None:
    links = "".join(
        f'<qkd_link><qkdl_id>{uuid.UUID(int=0x1000 + i)}</qkdl_id><qkdl_type xmlns:t="{TYPES}">t:VIRT</qkdl_type>'
        f"<qkdl_local><qkdn_id>{NODE}</qkdn_id></qkdl_local><qkdl_enable>true</qkdl_enable></qkd_link>"
        for i in range(500)
    )
    front.side("apply", f'<qkd_node xmlns="{QKD}"><qkd_links>{links}</qkd_links></qkd_node>')
    with front.stock() as client:
        started = time.perf_counter()
        reply = client.get_config("running", filter=FILTER)
        seconds = time.perf_counter() - started
        assert reply.data_xml.count("<qkd_link>") == 500
        # ncclient itself takes a tenth of a second.
        assert seconds < 0.5
        wipe = f'<qkd_node xmlns="{QKD}"><qkd_links xmlns:nc="{BASE}" nc:operation="remove"/></qkd_node>'
        client.edit_config(target="running", config=f'<config xmlns="{BASE}">{wipe}</config>')
