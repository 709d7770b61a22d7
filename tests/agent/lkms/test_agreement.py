"""Two ends of a link and a stream, whatever is lost and whoever crashes when: once, same, confirmed."""

import pytest
from hypothesis import settings
from two_ends import Agreement

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


@pytest.mark.soak
def test_agreement_for_long() -> None:
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(Agreement, settings=settings(max_examples=2000, stateful_step_count=150, deadline=None))
