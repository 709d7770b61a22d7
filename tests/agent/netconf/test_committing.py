"""Commits that nobody confirms: whatever becomes of session, lock or process, running is as it was."""

import asyncio
import os
import signal
import uuid
from collections.abc import AsyncIterator

import pytest
from netconf_front import NODE, QKD, Client, Front

from qswitch.protocol.netconf import BASE

TYPES = "urn:etsi:qkd:yang:etsi-qkd-node-types"
LINK = str(uuid.UUID(int=0xC1))
CONFIRMED = "<commit><confirmed/><confirm-timeout>{}</confirm-timeout></commit>"
PERSISTENT = "<commit><confirmed/><confirm-timeout>60</confirm-timeout><persist>token</persist></commit>"
LOCK = "<lock><target><{}/></target></lock>"
READ = f'<get-config><source><{{}}/></source><filter><qkd_node xmlns="{QKD}"/></filter></get-config>'


@pytest.fixture
async def client(front: Front) -> AsyncIterator[Client]:
    async with front.connect() as client:
        yield client
        await client.rpc("<unlock><target><running/></target></unlock>")
        await client.rpc("<discard-changes/>")
        await client.ok(edit("running", "remove"))


def edit(target: str, operation: str = "merge") -> str:
    link = f'<qkd_link nc:operation="{operation}"><qkdl_id>{LINK}</qkdl_id><qkdl_type>t:VIRT</qkdl_type></qkd_link>'
    node = f'<qkd_node xmlns="{QKD}" xmlns:nc="{BASE}" xmlns:t="{TYPES}"><qkdn_id>{NODE}</qkdn_id>'
    config = f"{node}<qkd_links>{link}</qkd_links></qkd_node>"
    return f"<edit-config><target><{target}/></target><config>{config}</config></edit-config>"


async def holds(client: Client, datastore: str = "running") -> bool:
    reply = await client.rpc(READ.format(datastore))
    assert not reply.errors
    return any(LINK in (one.text or "") for one in reply.content[0].iter())


async def until_gone(client: Client) -> None:
    async with asyncio.timeout(10):
        while await holds(client):
            await asyncio.sleep(0.02)


async def test_candidate_is_apart_until_it_is_committed(client: Client) -> None:
    await client.ok(edit("candidate"))
    assert await holds(client, "candidate") and not await holds(client)
    await client.ok("<commit/>")
    assert await holds(client)
    await client.ok(edit("candidate", "delete"))
    await client.ok("<discard-changes/>")
    assert await holds(client, "candidate")


async def test_what_is_not_confirmed_in_time_is_undone(client: Client) -> None:
    await client.ok(edit("candidate"))
    await client.ok(CONFIRMED.format(1))
    assert await holds(client)
    await until_gone(client)


async def test_it_is_undone_under_the_lock_of_its_session(front: Front, client: Client) -> None:
    for name in "running", "candidate":
        await client.ok(LOCK.format(name))
    await client.ok(edit("candidate"))
    await client.ok(CONFIRMED.format(1))
    await until_gone(client)
    async with front.connect() as other:  # the lock is still there
        assert (await other.refused(LOCK.format("running"))).tag == "lock-denied"
    # and so is access control
    await client.ok("<unlock><target><candidate/></target></unlock>")


async def test_a_confirmed_commit_stays(front: Front, client: Client) -> None:
    await client.ok(edit("candidate"))
    await client.ok(CONFIRMED.format(60))
    await client.ok("<commit/>")
    assert not (front.path / "sysrepo" / "confirmed-commit.xml").exists()
    assert (await client.refused("<cancel-commit/>")).tag == "operation-failed"
    assert await holds(client)


@pytest.mark.parametrize("way", ["close", "abort", "kill"])
async def test_the_end_of_its_session_undoes_it(front: Front, client: Client, way: str) -> None:
    async with front.connect() as other:
        await other.ok(LOCK.format("running"))
        await other.ok(edit("candidate"))
        await other.ok(CONFIRMED.format(60))
        assert await holds(client)
        assert other.hello is not None
        if way == "close":
            await other.ok("<close-session/>")
        elif way == "abort":
            other.connection.abort()
        else:
            await client.ok(f"<kill-session><session-id>{other.hello.session_id}</session-id></kill-session>")
    await until_gone(client)


async def test_it_is_undone_once_nobody_else_holds_running(front: Front, client: Client) -> None:
    async with front.connect() as other:
        await other.ok(edit("candidate"))
        await other.ok(CONFIRMED.format(4294967295))
        front.side("lock")
    async with asyncio.timeout(10):
        while (await client.refused("<commit/>")).tag != "in-use":
            await asyncio.sleep(0.02)
    assert await holds(client)
    front.side("unlock")
    await until_gone(client)
    await client.ok("<commit/>")


async def test_a_token_lets_it_outlive_its_session(front: Front, client: Client) -> None:
    async with front.connect() as other:
        await other.ok(edit("candidate"))
        await other.ok(PERSISTENT)
    assert (await client.refused("<commit/>")).tag == "in-use"
    assert (await client.refused("<commit><persist-id>no</persist-id></commit>")).tag == "invalid-value"
    assert await holds(client)
    await client.ok("<cancel-commit><persist-id>token</persist-id></cancel-commit>")
    assert not await holds(client)


@pytest.mark.parametrize("commit", [CONFIRMED.format(60), PERSISTENT])
async def test_a_killed_server_undoes_it_at_its_next_start(front: Front, commit: str) -> None:
    async with front.connect() as client:
        await client.ok(edit("candidate"))
        await client.ok(commit)
        assert await holds(client)
        assert front.process is not None
        os.kill(front.process.pid, signal.SIGKILL)
        front.process.wait()
    front.start()
    async with front.connect() as client:
        assert not await holds(client)
        assert not (front.path / "sysrepo" / "confirmed-commit.xml").exists()
        await client.ok(LOCK.format("running"))


async def test_a_server_starts_though_it_cannot_undo_it_yet(front: Front) -> None:
    async with front.connect() as client:
        await client.ok(edit("candidate"))
        await client.ok(CONFIRMED.format(60))
        assert front.process is not None
        os.kill(front.process.pid, signal.SIGKILL)
        front.process.wait()
    front.side("lock")
    front.start()
    async with front.connect() as client:
        assert await holds(client)
        front.side("unlock")
        await until_gone(client)
        await client.ok(edit("running", "remove"))


async def test_a_record_that_cannot_be_read_is_put_aside(front: Front) -> None:
    record = front.path / "sysrepo" / "confirmed-commit.xml"
    front.stop()
    record.write_text("<half")
    front.start()
    assert not record.exists()
    assert record.with_suffix(".broken").exists()


async def test_who_may_not_write_cannot_commit_what_others_prepared(front: Front, client: Client) -> None:
    await client.ok(edit("candidate"))
    async with front.connect("monitor") as monitor:
        error = await monitor.refused("<commit/>")
        assert error.tag == "access-denied"
    assert not await holds(client)
