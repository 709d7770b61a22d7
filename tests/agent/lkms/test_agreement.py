"""Two ends of a link and a stream, whatever is lost and whoever crashes when: once, same, confirmed."""

import pytest
from hypothesis import settings
from two_ends import Agreement

TestAgreement = Agreement.TestCase
TestAgreement.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)


@pytest.mark.soak
def test_agreement_for_long() -> None:
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(Agreement, settings=settings(max_examples=2000, stateful_step_count=150, deadline=None))
