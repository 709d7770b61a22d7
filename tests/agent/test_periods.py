"""Periods of app_statistics: they join, and their sum is what was delivered."""

from datetime import UTC, datetime, timedelta

from hypothesis import given, strategies as st

from qswitch.agent.periods import PERIOD_SECONDS, PERIODS, Periods

START = datetime(2026, 11, 25, tzinfo=UTC)


@given(st.lists(st.tuples(st.integers(0, 10_000), st.floats(0, 25), st.booleans()), max_size=40))
def test_no_bit_is_counted_twice_or_left_out(steps: list[tuple[int, float, bool]]) -> None:
    periods, bits, now, told = Periods(START, 500), 500, START, dict[datetime, int]()
    for more, seconds, last in steps:
        bits, now = bits + more, now + timedelta(seconds=seconds)
        periods.count(bits, now, last)
        told |= {one.end: one.consumed_bits for one in periods.over}
        assert len(periods.over) <= PERIODS
        assert all(one.end == next_.start for one, next_ in zip(periods.over, list(periods.over)[1:], strict=False))
    assert sum(told.values()) == periods.before - 500 <= bits - 500
    assert (now - periods.start).total_seconds() < PERIOD_SECONDS


def test_who_leaves_is_counted_at_once() -> None:
    periods = Periods(START, 0)
    periods.count(256, START + timedelta(seconds=1))
    assert not periods.over
    for second in (2, 3):
        periods.count(256, START + timedelta(seconds=second), last=True)
    (only,) = periods.over
    assert (only.start, only.end, only.consumed_bits) == (START, START + timedelta(seconds=2), 256)


def test_a_total_that_starts_over_is_new_consumption() -> None:
    periods = Periods(START, 900)
    periods.count(100, START + timedelta(seconds=10))
    assert [one.consumed_bits for one in periods.over] == [100]
