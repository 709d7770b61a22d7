"""RFC 6241 clauses 2.1, 7.5, 7.6, 7.8 and 7.9: lock, unlock, close-session, kill-session."""

import asyncio

import asyncssh
import pytest
from netconf_front import Client, Front
from rfc import case, rfc, untestable
from wire import Behind, copy, delete_config, edit, get_config, holds, is_over, lock, refused, session_id, succeeds, unlock

from qswitch.protocol import netconf

A = "<values><word>a</word></values>"
COMMIT, DISCARD, CLOSE = "<commit/>", "<discard-changes/>", "<close-session/>"
DATASTORES = ("running", "startup", "candidate")


def kill(session: int | str) -> str:
    return f"<kill-session><session-id>{session}</session-id></kill-session>"


# Locks ---------------------------------------------------------------------------------------------------------------


@rfc("6241", "7.5", "lock answers ok when the lock is taken")
@rfc("6241", "7.6", "unlock answers ok when the lock is released")
@pytest.mark.parametrize("datastore", DATASTORES)
async def test_lock_and_unlock(client: Client, datastore: str) -> None:
    await client.ok(lock(datastore))
    await client.ok(unlock(datastore))


@rfc("6241", "7.5", "a lock that another session holds gives lock-denied with its session-id")
@pytest.mark.parametrize("datastore", DATASTORES)
async def test_a_held_lock_is_denied(front: Front, client: Client, datastore: str) -> None:
    async with front.connect() as other:
        await other.ok(lock(datastore))
        error = await refused(client, lock(datastore), "lock-denied")
        assert dict(error.info) == {"session-id": str(session_id(other))}


@rfc("6241", "7.5", "a lock is not granted to the session that holds it already")
@pytest.mark.parametrize("datastore", DATASTORES)
async def test_a_lock_is_not_taken_twice(client: Client, datastore: str) -> None:
    await client.ok(lock(datastore))
    error = await refused(client, lock(datastore), "lock-denied")
    assert dict(error.info) == {"session-id": str(session_id(client))}


@rfc("6241", "7.5", "a lock that no NETCONF session holds gives lock-denied with session-id 0")
async def test_a_lock_of_something_else_is_denied(behind: Behind, client: Client) -> None:
    behind("lock")
    try:
        error = await refused(client, lock(), "lock-denied")
        assert dict(error.info) == {"session-id": "0"}
    finally:
        behind("unlock")


@rfc("6241", "7.5", "each datastore has a lock of its own")
async def test_locks_are_per_datastore(front: Front, client: Client) -> None:
    async with front.connect() as other:
        await client.ok(lock("running"))
        await other.ok(lock("startup"))
        await other.ok(lock("candidate"))


@rfc("6241", "7.5", "a lock on one datastore leaves the others to everybody")
async def test_other_datastores_are_free(front: Front, client: Client) -> None:
    async with front.connect() as other:
        await other.ok(lock("candidate"))
        await client.ok(edit(A))
        await client.ok(copy("running", "startup"))
        await holds(client, A, "startup")


@rfc("6241", "7.5", "a lock keeps all other sessions from changing the datastore")
@pytest.mark.parametrize(
    ("datastore", "operation"),
    [
        ("running", edit(A)),
        ("running", copy("startup", "running")),
        ("candidate", edit(A, target="candidate")),
        ("candidate", copy("running", "candidate")),
        ("startup", copy("running", "startup")),
        ("startup", delete_config("startup")),
    ],
)
async def test_a_lock_keeps_others_out(front: Front, client: Client, datastore: str, operation: str) -> None:
    async with front.connect() as other:
        await other.ok(lock(datastore))
        await refused(client, operation, "in-use")
        await holds(client, "", datastore)


@rfc("6241", "7.5", "a lock lets its own session change the datastore")
async def test_a_lock_lets_its_session_in(client: Client) -> None:
    await client.ok(lock())
    await client.ok(edit(A))
    await holds(client, A)


@rfc("6241", "7.5", "a lock does not keep others from reading")
async def test_a_lock_lets_others_read(front: Front, client: Client) -> None:
    async with front.connect() as other:
        await other.ok(lock())
        await holds(client, "")
        await client.ok("<get/>")


@rfc("6241", "7.5", "a lock keeps other entities of the device from changing the datastore")
async def test_a_lock_keeps_other_programs_out(behind: Behind, client: Client) -> None:
    await client.ok(lock())
    with pytest.raises(AssertionError, match=r"(?i)lock"):
        behind("apply", '<values xmlns="urn:quantum-switch:test:conformance"><word>b</word></values>')
    await holds(client, "")


@rfc("6241", "7.5", "a candidate that was modified cannot be locked")
async def test_a_modified_candidate_is_not_locked(client: Client) -> None:
    await client.ok(edit(A, target="candidate"))
    reply = await client.rpc(lock("candidate"))
    assert [one.tag for one in reply.errors] in (["lock-denied"], ["operation-failed"], ["in-use"])
    await client.ok(DISCARD)
    await client.ok(lock("candidate"))


@rfc("6241", "7.5", "a candidate that was committed can be locked again")
async def test_a_committed_candidate_is_locked(client: Client) -> None:
    await client.ok(edit(A, target="candidate"))
    await client.ok(COMMIT)
    await client.ok(lock("candidate"))


@pytest.mark.parametrize(
    ("operation", "tags"),
    [
        case("6241", "7.5", "a lock has a target", "<lock/>", ("missing-element",)),
        case(
            "6241",
            "7.5",
            "a lock's target is a datastore",
            lock("nowhere"),
            ("operation-not-supported", "invalid-value", "unknown-element", "bad-element"),
        ),
        case("6241", "7.6", "an unlock has a target", "<unlock/>", ("missing-element",)),
        case("6241", "7.6", "a lock that is not active cannot be released", unlock(), ("operation-failed",)),
    ],
)
async def test_wrong_locks(client: Client, operation: str, tags: tuple[str, ...]) -> None:
    await refused(client, operation, *tags)


@rfc("6241", "7.6", "a session does not release another's lock")
@pytest.mark.parametrize("datastore", DATASTORES)
async def test_a_foreign_lock_is_not_released(front: Front, client: Client, datastore: str) -> None:
    async with front.connect() as other:
        await other.ok(lock(datastore))
        await refused(client, unlock(datastore), "operation-failed", "in-use", "lock-denied")
        await refused(client, lock(datastore), "lock-denied")


# The end of a session ------------------------------------------------------------------------------------------------


@rfc("6241", "7.5", "a lock ends with its session, which the client closed")
@rfc("6241", "7.8", "close-session releases locks")
async def test_close_session_releases_locks(front: Front, client: Client) -> None:
    async with front.connect() as other:
        for datastore in DATASTORES:
            await other.ok(lock(datastore))
        await other.ok(CLOSE)
        for datastore in DATASTORES:
            await succeeds(client, lock(datastore))


@rfc("6241", "2.1", "what a session holds is released when its connection ends")
@rfc("6241", "7.5", "a lock ends when the transport fails")
async def test_a_lost_connection_releases_locks(front: Front, client: Client) -> None:
    async with front.connect() as other:
        for datastore in DATASTORES:
            await other.ok(lock(datastore))
        other.connection.abort()
        for datastore in DATASTORES:
            await succeeds(client, lock(datastore))


@rfc("6241", "2.1", "what a session holds is released when the client closes the channel without a word")
async def test_a_closed_channel_releases_locks(front: Front, client: Client) -> None:
    async with front.connect() as other:
        await other.ok(lock())
        other.stdin.close()
        await succeeds(client, lock())


@rfc("6241", "7.8", "close-session answers ok and ends the session")
async def test_close_session(front: Front) -> None:
    async with front.connect() as other:
        await other.ok(CLOSE)
        with pytest.raises(EOFError):
            await other.receive()


@rfc("6241", "7.8", "what comes after close-session is ignored")
async def test_nothing_after_close_session_counts(front: Front, client: Client) -> None:
    async with front.connect() as other:
        closing, late = netconf.build_rpc("1", CLOSE.encode()), netconf.build_rpc("2", edit(A).encode())
        other.stdin.write(other.framing.frame(closing) + other.framing.frame(late))
        assert (await other.reply()).message_id == "1"
        with pytest.raises(EOFError):
            await other.receive()
    await holds(client, "")


@rfc("6241", "7.8", "close-session is graceful: what was asked before is answered")
async def test_close_session_comes_after_the_rest(front: Front) -> None:
    async with front.connect() as other:
        bodies = [edit(A), get_config(), CLOSE]
        other.stdin.write(
            b"".join(other.framing.frame(netconf.build_rpc(str(i), one.encode())) for i, one in enumerate(bodies))
        )
        assert [(await other.reply()).message_id for _ in bodies] == ["0", "1", "2"]


@rfc("6241", "7.9", "kill-session ends another session and answers ok")
async def test_kill_session(front: Front, client: Client) -> None:
    async with front.connect() as other:
        await client.ok(kill(session_id(other)))
        with pytest.raises((EOFError, ConnectionError, asyncssh.Error)):
            await other.receive()


@rfc("6241", "7.9", "kill-session releases the locks of the session")
async def test_kill_session_releases_locks(front: Front, client: Client) -> None:
    async with front.connect() as other:
        for datastore in DATASTORES:
            await other.ok(lock(datastore))
        await client.ok(kill(session_id(other)))
        for datastore in DATASTORES:
            await succeeds(client, lock(datastore))


@rfc("6241", "7.9", "kill-session does not roll back what the session changed")
async def test_kill_session_keeps_changes(front: Front, client: Client) -> None:
    async with front.connect() as other:
        await other.ok(edit(A))
        await client.ok(kill(session_id(other)))
    await holds(client, A)


@rfc("6241", "7.9", "kill-session ends a session that is in the middle of a request")
async def test_kill_session_in_the_middle(front: Front, client: Client) -> None:
    async with front.connect() as other:
        await other.ok(lock())
        other.stdin.write(b"\n#100\n<rpc")
        await client.ok(kill(session_id(other)))
        await succeeds(client, lock())


@rfc("6241", "7.9", "the session's own id gives invalid-value")
async def test_a_session_does_not_kill_itself(client: Client) -> None:
    await refused(client, kill(session_id(client)), "invalid-value")
    await client.ok(get_config())


@pytest.mark.parametrize(
    ("operation", "tags"),
    [
        case("6241", "7.9", "kill-session names a session", "<kill-session/>", ("missing-element",)),
        case("6241", "7.9", "a session that is not there gives an error", kill(4_000_000_000), ("invalid-value",)),
        case("6241", "7.9", "a session-id is a number from 1 on", kill(0), ("invalid-value",)),
        case("6241", "7.9", "a session-id is a number", kill("first"), ("invalid-value",)),
        case("6241", "7.9", "a session-id has 32 bits", kill(2**32), ("invalid-value",)),
    ],
)
async def test_who_cannot_be_killed(client: Client, operation: str, tags: tuple[str, ...]) -> None:
    await refused(client, operation, *tags)


async def test_two_sessions_may_kill_one(front: Front, client: Client) -> None:
    """Both get an answer, whoever comes first."""
    async with front.connect() as second, front.connect() as victim:
        replies = await asyncio.gather(client.rpc(kill(session_id(victim))), second.rpc(kill(session_id(victim))))
        assert any(not one.errors for one in replies)
        await is_over(victim)


untestable(
    "6241", "7.5", "a lock ends when the server drops the session for abuse", "tests/agent/netconf has each such drop"
)
