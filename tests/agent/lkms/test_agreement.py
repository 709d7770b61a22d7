"""Two ends of a link and a stream, whatever is lost and whoever crashes when: once, same, confirmed."""

import copy

import pytest
from hypothesis import settings
from two_ends import Agreement, End

from qswitch.agent.errors import PeerViolation
from qswitch.agent.lkms.stream_end import Attachment

TestAgreement = Agreement.TestCase
TestAgreement.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)


def test_a_fast_reader_gets_ahead_of_its_commits_and_a_jump_puts_back() -> None:
    machine = Agreement()
    machine.begin(())
    one = machine.both[0]
    one.stream.prefetch = 40
    machine.feed((0, 1), 20)
    machine.run()
    commits, commit = [], one.journal.commit
    one.journal.commit = lambda: (commits.append(one.stream.progress.released), commit())  # type: ignore[method-assign]
    for _ in range(15):
        machine.get(0, "", 0)
    assert commits == [0, 1, 3, 7], "the window doubles while the reader has to wait"
    commit()
    ahead = set(one.stream.ahead) - {14}
    assert ahead and not ahead & {number for kind, number in one.disk.rows if kind == "chunk"}
    machine.get(0, "", 3)
    commit()
    assert ahead - {18} <= {number for kind, number in one.disk.rows if kind == "chunk"} and not one.stream.ahead
    machine.teardown()


def test_a_follower_that_opens_again_waits_for_word_whether_the_leader_has_closed() -> None:
    """It may hold key of before, while the leader begins anew: an application must not have both under one number."""
    machine = Agreement()
    machine.begin(())
    machine.reads_on(0, 0, 4)
    machine.reads_on(1, 0, 2)
    for end, attachment in ((0, Attachment.CLOSED), (1, Attachment.CLOSED), (1, Attachment.CONNECTED)):
        machine.attach(end, attachment)
    machine.get(1, "", 0)
    assert not machine.numbered[1], "the leader has closed, and nobody here knows"
    machine.run()
    machine.attach(0, Attachment.CONNECTED)
    machine.feed((0, 1), 4)
    for end in (0, 1):
        machine.reads_on(end, 0, 8)
    assert len(machine.numbered[0]) == len(machine.numbered[1]) == 8 and min(machine.numbered[0]) == 0
    machine.teardown()


def test_a_follower_that_opens_again_beside_a_leader_that_is_there_goes_on() -> None:
    machine = Agreement()
    machine.begin(())
    machine.reads_on(1, 0, 2)
    machine.attach(1, Attachment.CLOSED)
    machine.attach(1, Attachment.CONNECTED)
    machine.get(1, "", 0)
    assert not machine.numbered[1]
    machine.reads_on(1, 0, 4)
    assert sorted(machine.numbered[1]) == [2, 3, 4, 5]
    machine.teardown()


def test_a_leader_put_back_from_a_copy_goes_on_where_the_follower_has_come_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has forgotten chunks that the follower holds: an alarm, once, and then other key under other numbers."""
    machine, alarms = Agreement(), list[PeerViolation]()
    machine.begin(())
    machine.reads_on(0, 0, 4)
    leader, follower = machine.both
    rows = copy.deepcopy(leader.disk.rows)
    machine.feed((0, 1), 4)
    for end in (0, 1):
        machine.reads_on(end, 0, 40)
    reached = follower.stream.progress.next_index
    machine.disconnect()
    leader.disk.rows = rows
    leader.boot()
    monkeypatch.setattr(End, "meddled", True)  # of blocks the same is noticed
    machine.feed((0, 1), 8)
    machine.connect()
    for _ in range(12):
        try:
            machine.run()
        except PeerViolation as violation:
            alarms.append(violation)
    assert len(alarms) == 1 and leader.stream.synced
    for one in machine.both:
        chunk = one.stream.read(one.stream.next_unread(), one.now)
        assert chunk is not None and chunk.index == reached


@pytest.mark.soak
def test_agreement_for_long() -> None:
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(Agreement, settings=settings(max_examples=2000, stateful_step_count=150, deadline=None))
