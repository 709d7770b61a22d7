"""What a server says of itself (RFC 6470), heard by a second client."""

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from lxml import etree
from netconf_front import NODE, QKD, Client, Front

from qswitch.protocol import netconf
from qswitch.protocol.netconf import BASE

NOTIFICATIONS = "urn:ietf:params:xml:ns:yang:ietf-netconf-notifications"
SUBSCRIBE = f'<create-subscription xmlns="{netconf.NOTIFICATION}">{{}}</create-subscription>'
LINK = "00000000-0000-0000-0000-000000000001"
SERVER = "urn:ietf:params:xml:ns:yang:ietf-netconf-server"
LIMIT = f'<netconf-server xmlns="{SERVER}"><listen><idle-timeout>{{}}</idle-timeout></listen></netconf-server>'
KEY = """
<keystore xmlns="urn:ietf:params:xml:ns:yang:ietf-keystore" xmlns:ct="urn:ietf:params:xml:ns:yang:ietf-crypto-types"
          xmlns:ln="urn:cesnet:libnetconf2-netconf-server">
  <asymmetric-keys><asymmetric-key><name>another</name>
    <public-key-format>ct:ssh-public-key-format</public-key-format><public-key>AAAA</public-key>
    <private-key-format>ln:private-key-info-format</private-key-format>
    <cleartext-private-key>AAAA</cleartext-private-key></asymmetric-key></asymmetric-keys>
</keystore>"""


@pytest.fixture
async def ear(front: Front) -> AsyncIterator[Client]:
    """A client with a subscription to everything."""
    async with front.connect() as client:
        await client.ok(SUBSCRIBE.format(""))
        yield client


def session_id(client: Client) -> str:
    assert client.hello is not None
    return str(client.hello.session_id)


async def heard(ear: Client, name: str, **values: str | None) -> dict[str, str | None]:
    """The next event of the name whose leaves have these values; all of its leaves."""
    while True:
        _, event = netconf.parse_notification(await ear.receive())
        leaves = {netconf.split_name(one)[1]: one.text for one in event.iter() if not len(one)}
        if event.tag == f"{{{NOTIFICATIONS}}}{name}" and values.items() <= leaves.items():
            return leaves


def config(name: str, operation: str) -> str:
    entry = f'<qkd_link xmlns:nc="{BASE}" nc:operation="{operation}"><qkdl_id>{LINK}</qkdl_id>{name}</qkd_link>'
    return f'<qkd_node xmlns="{QKD}"><qkdn_id>{NODE}</qkdn_id><qkd_links>{entry}</qkd_links></qkd_node>'


CREATE = config("<qkdl_enable>true</qkdl_enable>", "merge")
DELETE = config("", "remove")


# Sessions ----------------------------------------------------------------------------------------------------------


async def test_a_session_starts_and_is_closed(front: Front, ear: Client) -> None:
    async with front.connect("monitor") as client:
        who = {"username": "monitor", "session-id": session_id(client), "source-host": "127.0.0.1"}
        assert await heard(ear, "netconf-session-start", **{"session-id": session_id(client)}) == who
        await client.ok("<close-session/>")
    end = await heard(ear, "netconf-session-end", **{"session-id": session_id(client)})
    assert end == {**who, "termination-reason": "closed"}


async def test_a_killed_session_names_who_killed_it(front: Front, ear: Client) -> None:
    async with front.connect() as victim, front.connect() as killer:
        await killer.ok(f"<kill-session><session-id>{session_id(victim)}</session-id></kill-session>")
        end = await heard(ear, "netconf-session-end", **{"session-id": session_id(victim)})
    assert (end["termination-reason"], end["killed-by"]) == ("killed", session_id(killer))


async def test_a_lost_connection_is_a_drop(front: Front, ear: Client) -> None:
    async with front.connect() as client:
        client.connection.abort()
    end = await heard(ear, "netconf-session-end", **{"session-id": session_id(client)})
    assert end["termination-reason"] == "dropped" and "killed-by" not in end


async def test_a_bad_hello_and_bad_framing_are_told_apart(front: Front, ear: Client) -> None:
    async with front.connect(greet=False) as client:
        hello = netconf.parse_hello(await client.receive())
        client.send(b"<hello>never mind</hello>")
        end = await heard(ear, "netconf-session-end", **{"session-id": str(hello.session_id)})
        assert end["termination-reason"] == "bad-hello"
    async with front.connect() as client:
        client.stdin.write(b"this is no chunk")
        end = await heard(ear, "netconf-session-end", **{"session-id": session_id(client)})
        assert end["termination-reason"] == "other"


async def test_a_silent_session_times_out(front: Front, ear: Client) -> None:
    async with front.connect() as client:
        await asyncio.to_thread(front.side, "apply", LIMIT.format(1))
        end = await heard(ear, "netconf-session-end", **{"session-id": session_id(client)})
    assert end["termination-reason"] == "timeout"
    await asyncio.to_thread(front.side, "apply", LIMIT.format(3600))


async def test_a_killed_server_leaves_nothing_that_holds_up_its_successor(front: Front) -> None:
    assert front.process is not None
    async with front.connect() as client:
        await client.ok(SUBSCRIBE.format(""))
        os.kill(front.process.pid, signal.SIGKILL)
        await asyncio.to_thread(front.process.wait)
    await asyncio.to_thread(front.start)
    async with front.connect() as ear:
        await ear.ok(SUBSCRIBE.format(""))
        async with front.connect("monitor") as client:
            await heard(ear, "netconf-session-start", **{"session-id": session_id(client)})


# Configuration and commits -----------------------------------------------------------------------------------------


async def test_a_change_tells_who_and_what(front: Front, ear: Client) -> None:
    """Every plain subscriber hears of it; what is changed is the topmost node first."""
    async with front.connect() as client:
        assert not (await client.edit(CREATE)).errors
        found = await heard(ear, "netconf-config-change", operation="create")
        assert not (await client.edit(DELETE)).errors
        await heard(ear, "netconf-config-change", operation="delete")
        await client.ok("<copy-config><target><startup/></target><source><running/></source></copy-config>")
        copied = await heard(ear, "netconf-config-change", datastore="startup")
    assert (found["username"], found["session-id"], found["datastore"]) == ("controller", session_id(client), "running")
    assert LINK in (found["target"] or "")
    assert copied["session-id"] == session_id(client)


async def test_a_change_hides_what_a_user_may_not_read(front: Front, ear: Client) -> None:
    """RFC 8341: of a change that is partly secret, the rest is told."""
    async with front.connect("monitor") as monitor:
        await monitor.ok(SUBSCRIBE.format(""))
        await asyncio.to_thread(front.side, "apply", KEY + LIMIT.format(3601))
        all_of_it, readable = await told(ear), await told(monitor)
    assert "another" in all_of_it and "idle-timeout" in all_of_it
    assert "another" not in readable and "idle-timeout" in readable


async def told(client: Client) -> str:
    while True:
        _, event = netconf.parse_notification(await client.receive())
        if event.tag == f"{{{NOTIFICATIONS}}}netconf-config-change":
            return etree.tostring(event, encoding="unicode")


async def test_a_confirmed_commit_is_told_step_by_step(front: Front, ear: Client) -> None:
    edit = "<edit-config><target><candidate/></target><config>{}</config></edit-config>"
    confirmed = "<commit><confirmed/><confirm-timeout>{}</confirm-timeout>{}</commit>"
    async with front.connect() as client:
        who = {"username": "controller", "session-id": session_id(client), "source-host": "127.0.0.1"}

        async def event(name: str) -> dict[str, str | None]:
            return await heard(ear, "netconf-confirmed-commit", **{"confirm-event": name})

        await client.ok(edit.format(CREATE))
        await client.ok(confirmed.format(30, ""))
        assert await event("start") == {**who, "confirm-event": "start", "timeout": "30"}
        await client.ok(confirmed.format(40, ""))
        assert await event("extend") == {**who, "confirm-event": "extend", "timeout": "40"}
        await client.ok("<cancel-commit/>")
        assert await event("cancel") == {**who, "confirm-event": "cancel"}
        await client.ok(edit.format(CREATE))
        await client.ok(confirmed.format(1, "<persist>x</persist>"))
        assert await event("timeout") == {"confirm-event": "timeout"}
        await client.ok(edit.format(CREATE))
        await client.ok(confirmed.format(30, ""))
        await client.ok("<commit/>")
        assert await event("complete") == {**who, "confirm-event": "complete"}
        await client.ok(edit.format(DELETE))
        await client.ok("<commit/>")


# Capabilities ------------------------------------------------------------------------------------------------------


async def test_a_new_module_is_a_capability_that_was_added(front: Front, ear: Client, tmp_path: Path) -> None:
    module = tmp_path / "an-extra.yang"
    module.write_text('module an-extra { namespace "urn:an-extra"; prefix x; revision 2026-01-01; }')
    command = ["sysrepoctl", "-i", str(module)]
    await asyncio.to_thread(subprocess.run, command, check=True, env=front.environment, timeout=60, cwd=tmp_path)
    found = await heard(ear, "netconf-capability-change")
    assert found["added-capability"] == "urn:an-extra?module=an-extra&revision=2026-01-01"
    assert (found["modified-capability"] or "").startswith("urn:ietf:params:netconf:capability:yang-library:1.1?")
    assert "server" in found and "deleted-capability" not in found
