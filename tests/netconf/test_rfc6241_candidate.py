"""RFC 6241 clauses 8.3 and 8.4: candidate, commit, discard-changes, confirmed commit, cancel-commit."""

import asyncio
import os
import signal

import pytest
from netconf_front import Client, Front
from rfc import case, rfc, untestable
from wire import (
    Behind,
    becomes,
    by_the_book,
    copy,
    edit,
    holds,
    lock,
    offers,
    refused,
    session_id,
    stays,
    succeeds,
    unlock,
    validate,
)

A = "<values><word>a</word></values>"
B = "<values><word>b</word></values>"
INVALID = "<rules><low>9</low><high>1</high><needed>x</needed><road>r</road><pair>p</pair></rules>"
SET = "<test-option>set</test-option>"
COMMIT, DISCARD, CANCEL = "<commit/>", "<discard-changes/>", "<cancel-commit/>"


def candidate(xml: str, options: str = "") -> str:
    return edit(xml, options, "candidate")


def confirmed(timeout: int | None = None, persist: str = "", persist_id: str = "") -> str:
    return (
        "<commit><confirmed/>"
        + (f"<confirm-timeout>{timeout}</confirm-timeout>" if timeout is not None else "")
        + (f"<persist>{persist}</persist>" if persist else "")
        + (f"<persist-id>{persist_id}</persist-id>" if persist_id else "")
        + "</commit>"
    )


def confirm(persist_id: str) -> str:
    return f"<commit><persist-id>{persist_id}</persist-id></commit>"


def cancel(persist_id: str) -> str:
    return f"<cancel-commit><persist-id>{persist_id}</persist-id></cancel-commit>"


# Candidate -----------------------------------------------------------------------------------------------------------


@rfc("6241", "8.3", "a change of candidate does not touch running")
async def test_candidate_is_apart(client: Client) -> None:
    assert offers(client, "candidate:1.0")
    await client.ok(candidate(A))
    await holds(client, A, "candidate")
    await holds(client, "")


@rfc("6241", "8.3.4.1", "commit sets running to what candidate holds")
async def test_commit(client: Client) -> None:
    await client.ok(edit("<top><users><user><name>x</name></user></users></top>"))
    await client.ok(candidate(A + '<top nc:operation="remove"/>'))
    await client.ok(COMMIT)
    await holds(client, A)
    await holds(client, A, "candidate")


@rfc("6241", "8.3.4.1", "commit without a change is no error")
async def test_commit_of_nothing(client: Client) -> None:
    await client.ok(COMMIT)
    await holds(client, "")


@rfc("6241", "8.3.4.1", "a commit that the device cannot do leaves running as it is")
async def test_a_refused_commit(client: Client) -> None:
    await client.ok(edit(B))
    await client.ok(candidate("<values><refused>not today</refused></values>"))
    error = await refused(client, COMMIT)
    assert "not today" in error.message
    await holds(client, B)


@rfc("6241", "8.3.4.1", "a commit of what is not valid fails and leaves running as it is")
async def test_an_invalid_commit(client: Client) -> None:
    await client.ok(edit(B))
    await client.ok(candidate(INVALID, SET))
    await refused(client, COMMIT, "operation-failed")
    await holds(client, B)


@rfc("6241", "8.3.4.1", "a commit fails with in-use while another session has running locked")
async def test_a_commit_into_a_locked_running(front: Front, client: Client) -> None:
    await client.ok(candidate(A))
    async with front.connect() as other:
        await other.ok(lock("running"))
        await refused(client, COMMIT, "in-use")
    await holds(client, "")


@rfc("6241", "8.3.4.1", "a commit fails with in-use while another session has candidate locked")
async def test_a_commit_of_a_locked_candidate(front: Front, client: Client) -> None:
    async with front.connect() as other:
        await other.ok(lock("candidate"))
        await other.ok(candidate(A))
        await refused(client, COMMIT, "in-use")
    await holds(client, "")


@rfc("6241", "8.3", "a commit is not stopped by locks of its own session")
async def test_a_commit_under_own_locks(client: Client) -> None:
    await client.ok(lock("running"))
    await client.ok(lock("candidate"))
    await client.ok(candidate(A))
    await client.ok(COMMIT)
    await holds(client, A)


@rfc("6241", "8.3.4.2", "discard-changes sets candidate to what running holds")
async def test_discard_changes(client: Client) -> None:
    await client.ok(edit(B))
    await client.ok(candidate(A))
    await client.ok(DISCARD)
    await holds(client, B, "candidate")
    await holds(client, B)


@rfc("6241", "8.3.4.2", "discard-changes without a change is no error")
async def test_discard_of_nothing(client: Client) -> None:
    await client.ok(DISCARD)


@rfc("6241", "7.5", "a lock on candidate keeps others from discarding")
async def test_discard_of_a_locked_candidate(front: Front, client: Client) -> None:
    async with front.connect() as other:
        await other.ok(lock("candidate"))
        await other.ok(candidate(A))
        await refused(client, DISCARD, "in-use")
        await holds(other, A, "candidate")


@rfc("6241", "8.3", "candidate is shared by all sessions")
async def test_candidate_is_shared(front: Front, client: Client) -> None:
    async with front.connect() as other:
        await client.ok(candidate(A))
        await holds(other, A, "candidate")
        await other.ok(COMMIT)
    await holds(client, A)


@rfc("6241", "8.3.5.2", "unlock of candidate discards what was not committed")
async def test_unlock_discards(client: Client) -> None:
    await client.ok(lock("candidate"))
    await client.ok(candidate(A))
    await client.ok(unlock("candidate"))
    await holds(client, "", "candidate")


@rfc("6241", "8.3.5.2", "a lock on candidate that ends with its session discards what was not committed")
@pytest.mark.parametrize("how", ["close-session", "dropped"])
async def test_a_lost_lock_discards(front: Front, client: Client, how: str) -> None:
    async with front.connect() as other:
        await other.ok(lock("candidate"))
        await other.ok(candidate(A))
        if how == "dropped":
            other.connection.abort()
        else:
            await other.ok("<close-session/>")
    await becomes(client, "", "candidate")


@rfc("6241", "8.3.5.1", "candidate may be source and target of copy-config, and be validated")
async def test_candidate_in_other_operations(client: Client) -> None:
    await client.ok(edit(A))
    await client.ok(copy("running", "startup"))
    await client.ok(edit('<values nc:operation="remove"/>'))
    await client.ok(copy("startup", "candidate"))
    await client.ok(validate("candidate"))
    await holds(client, A, "candidate")


@rfc("6241", "8.3", "candidate follows running while nobody has changed it")
async def test_an_unchanged_candidate_follows(client: Client) -> None:
    await client.ok(edit(A))
    await holds(client, A, "candidate")


# Confirmed commit ----------------------------------------------------------------------------------------------------


@rfc("6241", "8.4", "a confirmed commit takes effect at once")
async def test_a_confirmed_commit_is_a_commit(client: Client) -> None:
    assert offers(client, "confirmed-commit:1.1")
    await client.ok(candidate(A))
    await client.ok(confirmed(60))
    await holds(client, A)
    await client.ok(CANCEL)


@rfc("6241", "8.4", "a confirmed commit is reverted when nobody confirms in time")
async def test_time_runs_out(client: Client) -> None:
    await client.ok(edit(B))
    await client.ok(candidate(A))
    await client.ok(confirmed(1))
    await holds(client, A)
    await becomes(client, B)


@rfc("6241", "8.4", "a commit without confirmed confirms")
async def test_confirming(client: Client) -> None:
    await client.ok(candidate(A))
    await client.ok(confirmed(1))
    await client.ok(COMMIT)
    await stays(client, A, 1.3)


@rfc("6241", "8.4", "the confirming commit may bring further changes")
async def test_confirming_with_changes(client: Client) -> None:
    await client.ok(candidate(A))
    await client.ok(confirmed(60))
    await client.ok(candidate(B))
    await client.ok(COMMIT)
    await holds(client, B)
    await refused(client, CANCEL)
    await holds(client, B)


@rfc("6241", "8.4", "a follow-up confirmed commit starts the time anew")
async def test_the_time_starts_anew(client: Client) -> None:
    await client.ok(candidate(A))
    await client.ok(confirmed(1))
    await client.ok(confirmed(60))
    await stays(client, A, 1.3)
    await client.ok(CANCEL)
    await holds(client, "")


@rfc("6241", "8.4", "reverting restores the configuration of before, without what others changed meanwhile")
async def test_others_changes_are_reverted_too(front: Front, client: Client) -> None:
    await client.ok(candidate(A))
    await client.ok(confirmed(60))
    async with front.connect() as other:
        await other.ok(edit("<top><users><user><name>x</name></user></users></top>"))
    await client.ok(CANCEL)
    await holds(client, "")


@rfc("6241", "8.4", "what is reverted is everything since the first confirmed commit")
async def test_follow_ups_are_reverted_with_the_first(client: Client) -> None:
    await client.ok(edit(B))
    await client.ok(candidate(A))
    await client.ok(confirmed(60))
    await client.ok(candidate("<values><word>c</word></values>"))
    await client.ok(confirmed(1))
    await holds(client, "<values><word>c</word></values>")
    await becomes(client, B)


@rfc("6241", "8.4.5.1", "confirm-timeout is 600 seconds when it is not given")
async def test_the_time_has_a_default(client: Client) -> None:
    """Ten minutes are not waited for; that the time does not run out at once is what is seen."""
    await client.ok(candidate(A))
    await client.ok(confirmed())
    await stays(client, A, 0.3)
    await client.ok(CANCEL)


@rfc("6241", "8.4", "a confirmed commit is reverted when its session ends")
@pytest.mark.parametrize("how", ["close-session", "dropped", "kill-session"])
async def test_the_session_ends(front: Front, client: Client, how: str) -> None:
    await client.ok(edit(B))
    async with front.connect() as other:
        await other.ok(candidate(A))
        await other.ok(confirmed(60))
        await holds(client, A)
        if how == "dropped":
            other.connection.abort()
        elif how == "kill-session":
            await client.ok(f"<kill-session><session-id>{session_id(other)}</session-id></kill-session>")
        else:
            await other.ok("<close-session/>")
        await becomes(client, B)


@rfc("6241", "7.9", "kill-session during a confirmed commit restores the configuration")
async def test_kill_session_restores(front: Front, client: Client) -> None:
    async with front.connect() as other:
        await other.ok(candidate(A))
        await other.ok(confirmed(60))
        await client.ok(f"<kill-session><session-id>{session_id(other)}</session-id></kill-session>")
        await becomes(client, "")


@rfc("6241", "8.4", "without persist only the session itself confirms")
async def test_another_session_does_not_confirm(front: Front, client: Client) -> None:
    async with front.connect() as other:
        await other.ok(candidate(A))
        await other.ok(confirmed(60))
        by_the_book((await client.rpc(COMMIT)).errors[0])
        await other.ok(CANCEL)
        await holds(client, "")


@rfc("6241", "8.4", "without persist only the session itself issues a follow-up")
async def test_another_session_does_not_follow_up(front: Front, client: Client) -> None:
    async with front.connect() as other:
        await other.ok(candidate(A))
        await other.ok(confirmed(60))
        assert (await client.rpc(confirmed(60))).errors
        await other.ok(CANCEL)


@rfc("6241", "8.4.4.1", "without persist-id only the session itself cancels")
async def test_another_session_does_not_cancel(front: Front, client: Client) -> None:
    async with front.connect() as other:
        await other.ok(candidate(A))
        await other.ok(confirmed(60))
        await refused(client, CANCEL)
        await holds(client, A)
        await other.ok(CANCEL)


@rfc("6241", "8.4.4.1", "cancel-commit reverts at once")
async def test_cancelling(client: Client) -> None:
    await client.ok(edit(B))
    await client.ok(candidate(A))
    await client.ok(confirmed(60))
    await client.ok(CANCEL)
    await holds(client, B)


@rfc("6241", "8.4.4.1", "cancel-commit without a confirmed commit fails")
async def test_nothing_to_cancel(client: Client) -> None:
    await refused(client, CANCEL)


@rfc("6241", "8.4", "after a roll-back candidate can be used again")
async def test_candidate_after_a_roll_back(client: Client) -> None:
    await client.ok(candidate(A))
    await client.ok(confirmed(60))
    await client.ok(CANCEL)
    await client.ok(DISCARD)
    await holds(client, "", "candidate")
    await client.ok(candidate(B))
    await client.ok(COMMIT)
    await holds(client, B)


@rfc("6241", "7.5", "running is not locked while another session's confirmed commit is open")
async def test_running_is_not_locked_meanwhile(front: Front, client: Client) -> None:
    async with front.connect() as other:
        await other.ok(candidate(A))
        await other.ok(confirmed(60))
        error = await refused(client, lock(), "lock-denied")
        assert dict(error.info)["session-id"] == str(session_id(other))
        await other.ok(CANCEL)
        await client.ok(lock())


@rfc("6241", "8.4", "the session of a confirmed commit may lock running")
async def test_its_own_session_locks_running(client: Client) -> None:
    await client.ok(candidate(A))
    await client.ok(confirmed(60))
    await client.ok(lock())
    await client.ok(unlock())
    await client.ok(CANCEL)


@rfc("6241", "8.4", "a roll-back is not stopped by the lock of the session that ends")
async def test_a_session_with_locks_ends(front: Front, client: Client) -> None:
    async with front.connect() as other:
        await other.ok(lock("running"))
        await other.ok(lock("candidate"))
        await other.ok(candidate(A))
        await other.ok(confirmed(60))
        other.connection.abort()
        await becomes(client, "")
        await succeeds(client, lock("running"))


@rfc("6241", "8.4", "time runs out under the session's own lock of running, too")
async def test_time_runs_out_under_a_lock(client: Client) -> None:
    await client.ok(lock("running"))
    await client.ok(candidate(A))
    await client.ok(confirmed(1))
    await becomes(client, "")
    await client.ok(unlock("running"))


# Persist -------------------------------------------------------------------------------------------------------------


@rfc("6241", "8.4.5.1", "persist lets a confirmed commit outlive its session")
@rfc("6241", "8.4", "with persist the confirming commit may come from any session, with persist-id")
async def test_persist_outlives_the_session(front: Front, client: Client) -> None:
    async with front.connect() as other:
        await other.ok(candidate(A))
        await other.ok(confirmed(60, "token"))
        await other.ok("<close-session/>")
        with pytest.raises(EOFError):
            await other.receive()
    await holds(client, A)
    await client.ok(confirm("token"))
    await holds(client, A)
    await refused(client, cancel("token"))


@rfc("6241", "8.4", "with persist a confirming commit without persist-id is refused")
async def test_persist_needs_its_id(client: Client) -> None:
    await client.ok(candidate(A))
    await client.ok(confirmed(60, "token"))
    assert (await client.rpc(COMMIT)).errors
    await client.ok(cancel("token"))
    await holds(client, "")


@rfc("6241", "8.4.5.1", "a persist-id that is not the token gives invalid-value")
async def test_a_wrong_persist_id(client: Client) -> None:
    await client.ok(candidate(A))
    await client.ok(confirmed(60, "token"))
    await refused(client, confirm("other"), "invalid-value")
    await refused(client, confirmed(60, persist_id="other"), "invalid-value")
    await client.ok(cancel("token"))


@rfc("6241", "8.4.4.1", "cancel-commit with a persist-id that is not the token gives invalid-value")
async def test_a_wrong_persist_id_to_cancel(client: Client) -> None:
    await client.ok(candidate(A))
    await client.ok(confirmed(60, "token"))
    await refused(client, cancel("other"), "invalid-value")
    await client.ok(cancel("token"))


@rfc("6241", "8.4.4.1", "cancel-commit with persist-id works from any session")
async def test_cancelling_from_another_session(front: Front, client: Client) -> None:
    async with front.connect() as other:
        await other.ok(candidate(A))
        await other.ok(confirmed(60, "token"))
        await client.ok(cancel("token"))
        await holds(other, "")


@rfc("6241", "8.4", "a follow-up with persist-id from another session starts the time anew")
async def test_a_follow_up_from_another_session(front: Front, client: Client) -> None:
    async with front.connect() as other:
        await other.ok(candidate(A))
        await other.ok(confirmed(60, "token"))
        await client.ok(confirmed(1, "token", persist_id="token"))
        await becomes(other, "")


@rfc("6241", "8.4", "a persistent confirmed commit is reverted when time runs out")
async def test_persist_runs_out(front: Front, client: Client) -> None:
    async with front.connect() as other:
        await other.ok(candidate(A))
        await other.ok(confirmed(1, "token"))
    await becomes(client, "")
    await refused(client, confirm("token"), "invalid-value")


@rfc("6241", "8.4.5.1", "persist-id without an open confirmed commit gives invalid-value")
async def test_persist_id_of_nothing(client: Client) -> None:
    await refused(client, confirm("token"), "invalid-value")
    await refused(client, cancel("token"), "invalid-value")


SOON = "<commit><confirmed/><confirm-timeout>soon</confirm-timeout></commit>"


@pytest.mark.parametrize(
    "operation",
    [
        case("6241", "8.4.5.1", "confirm-timeout is a number", SOON),
        case("6241", "8.4.5.1", "confirm-timeout is at least one second", confirmed(0)),
    ],
)
async def test_wrong_times(client: Client, operation: str) -> None:
    await client.ok(candidate(A))
    await refused(client, operation, "invalid-value", "bad-element")
    await holds(client, "")


@rfc("6241", "8.4", "a device that restarts reverts a confirmed commit that nobody confirmed")
async def test_a_restart_reverts(front: Front, behind: Behind) -> None:
    async with front.connect() as client:
        await client.ok(edit(B))
        await client.ok(candidate(A))
        await client.ok(confirmed(60, "token"))
        await holds(client, A)
        assert front.process is not None
        os.kill(front.process.pid, signal.SIGKILL)
        await asyncio.to_thread(front.process.wait)
    await asyncio.to_thread(front.start)
    async with front.connect() as client:
        await becomes(client, B)
        await client.ok(candidate(A))
        await client.ok(COMMIT)
        await holds(client, A)


untestable("6241", "8.4", "the default time-out is 600 seconds", "no test waits that long; that it is not short is shown")
untestable("6241", "8.4", "configuration is locked while a confirmed commit is used", "binds the client")
