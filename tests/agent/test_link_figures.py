"""The figures of a link: to the bit what came and what was drawn; overload that begins, ends and does not flap."""

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import assume, given, strategies as st

from qswitch.agent.link_figures import (
    ARRIVALS,
    BAD_SAMPLES,
    ENOUGH_BITS,
    MEMORY_SECONDS,
    PERIOD_SECONDS,
    SAMPLES,
    SCARCE_BITS,
    TOLD_AGAIN_SECONDS,
    Figures,
    Load,
    Overload,
    Sample,
)

# What came and what was drawn -----------------------------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(
        st.floats(0.01, 4),  # seconds
        st.integers(0, 5) | st.just(0),  # blocks
        st.dictionaries(st.sampled_from(["a", "b", "tag", "relay"]), st.integers(0, 9999), max_size=4),
        st.sampled_from([False] * 12 + [True]),
    ),
    min_size=1,
    max_size=120,
)


@given(STEPS)
def test_a_rate_times_its_period_is_what_passed_to_the_bit(
    steps: list[tuple[float, int, dict[str, int], bool]],
) -> None:
    figures, now, generated = Figures(), 0.0, 0
    drawn: dict[str, int] = {}
    history: list[Sample] = []
    held = 0.0
    for seconds, blocks, more, full in steps:
        now, generated = now + seconds, generated + 32768 * blocks
        drawn = drawn | {name: drawn.get(name, 0) + bits for name, bits in more.items()}
        history.append(Sample(now, generated, dict(drawn)))
        figures.sample(history[-1], full)
        held = now if full else held
        assert figures.samples[-1].at - figures.samples[1].at < MEMORY_SECONDS if len(figures.samples) > 2 else True
        _check_drawn(figures, history)
        _check_made(figures, history, held)


def _check_drawn(figures: Figures, history: Sequence[Sample]) -> None:
    newest, found = history[-1], figures.drawn_bps()
    if len(history) < 2:
        assert not found
        return
    before = [one for one in history if one.at <= newest.at - PERIOD_SECONDS]
    oldest = before[-1] if before else history[0]
    for name, bits in newest.drawn_bits.items():
        passed = bits - oldest.drawn_bits.get(name, 0)
        assert found[name] * (newest.at - oldest.at) == pytest.approx(passed)
    assert figures.internal_bps() == found.get("tag", 0) + found.get("relay", 0)


def _check_made(figures: Figures, history: Sequence[Sample], held: float) -> None:
    """It is the rate between two samples, both since it was held up, not far apart from now."""
    made, newest = figures.made_bps(), history[-1]
    free = [one for one in history if one.at >= max(held, newest.at - MEMORY_SECONDS - 4)]
    if newest.at - free[0].at < PERIOD_SECONDS:
        assert made is None
    elif made is not None:
        pairs = [(a, b) for a in free for b in free if a.at < b.at]
        rates = [(b.generated_bits - a.generated_bits) / (b.at - a.at) for a, b in pairs]
        assert made in rates


@given(rate=st.integers(1, 40), phase=st.floats(0, 0.99), seconds=st.integers(12, 90))
def test_a_steady_device_is_measured_as_what_it_makes(rate: int, phase: float, seconds: int) -> None:
    """Blocks come at even times, `rate` in ten seconds; the store is looked at each second."""
    figures = Figures()
    for second in range(seconds + 1):
        figures.sample(Sample(float(second), 32768 * int((second + phase) * rate / 10), {}))
    if (made := figures.made_bps()) is None:
        assert seconds * rate < 20 + 2 * rate  # hardly two blocks came
    else:
        blocks = min(ARRIVALS, max(1, seconds * rate // 10 - 2))
        assert made == pytest.approx(3276.8 * rate, rel=max(0.11, 1.2 / (blocks * 10 / rate)))


def test_what_is_made_anew_begins_anew() -> None:
    figures = Figures()
    for second in range(20):
        figures.sample(Sample(float(second), 1000 * second, {"a": 10 * second}))
    assert figures.made_bps() == 1000 and figures.drawn_bps() == {"a": 10}
    figures.sample(Sample(20.0, 0, {}))
    assert figures.made_bps() is None and figures.drawn_bps() == {}


def test_silence_is_measured_too() -> None:
    figures = Figures()
    for second in range(100):
        figures.sample(Sample(float(second), 1000 * min(second, 30), {}))
    assert figures.made_bps() == 0.0


# Overload ------------------------------------------------------------------------------------------------------------

LOADS = st.builds(
    Load,
    waits=st.booleans(),
    usable_bits=st.integers(0, 2 * ENOUGH_BITS),
    capacity_bits=st.just(100 * ENOUGH_BITS),
    skr_bps=st.sampled_from([0.0, 1000.0, 100_000.0]),
    expected_bps=st.sampled_from([0.0, 890.0, 930.0, 960.0, 1000.0, 100_000.0]),
)
RUNS = st.lists(st.tuples(LOADS, st.integers(1, 15)), max_size=40)


@given(LOADS)
def test_no_load_is_bad_and_well(load: Load) -> None:
    assert not (load.bad and load.well)
    if load.expected_bps == 0 and not load.waits:
        assert load.well


@given(RUNS, st.floats(0.2, 2.0))
def test_it_begins_with_half_bad_ends_with_all_well_and_is_told_seldom(runs: list[tuple[Load, int]], pace: float) -> None:
    overload, loads, told, changes = Overload(), list[Load](), list[float](), list[int]()
    for load, count in runs:
        for _ in range(count):
            loads.append(load)
            before, now = overload.on, pace * len(loads)
            if overload.sample(load, now):
                assert overload.on
                told.append(now)
            if overload.on is not before:
                changes.append(len(loads))
            since = loads[changes[-1] if changes else 0 :][-SAMPLES:] if not overload.on else []
            assert sum(one.bad for one in since) < BAD_SAMPLES
            if overload.on and not before:
                assert sum(one.bad for one in loads[-SAMPLES:]) >= BAD_SAMPLES
            if before and not overload.on:
                assert all(one.well for one in loads[-SAMPLES:])
    # No two turns are closer than it takes to be sure of the second.
    gaps = [later - earlier for earlier, later in itertools.pairwise(changes)]
    assert all(gap >= (SAMPLES if at % 2 == 0 else BAD_SAMPLES) for at, gap in enumerate(gaps))
    assert all(later - earlier >= TOLD_AGAIN_SECONDS for earlier, later in itertools.pairwise(told))
    assert len(told) <= (len(changes) + 1) // 2  # at most once for each time that it began


@given(RUNS)
def test_one_that_lasts_is_told_in_the_end(runs: list[tuple[Load, int]]) -> None:
    overload, now = Overload(), 0.0
    for load, count in runs:
        for _ in range(count):
            now += 1
            overload.sample(load, now)
    assume(not overload.on)
    bad = Load(True, 0, 10**9, 1.0, 0.0)
    before = overload.told_at
    told = [now + second for second in range(1, 80) if overload.sample(bad, now + second)]
    assert told == [max(told[0], before + TOLD_AGAIN_SECONDS)] and told[0] <= max(now + 10, before + TOLD_AGAIN_SECONDS + 1)


@pytest.mark.parametrize(
    ("usable", "expected", "bad", "well"),
    [
        (SCARCE_BITS - 1, 960, True, False),  # drained, and as much is drawn as is made
        (SCARCE_BITS - 1, 940, False, False),
        (SCARCE_BITS - 1, 900, False, True),
        (SCARCE_BITS, 5000, False, False),  # there is some left
        (ENOUGH_BITS, 5000, False, True),
    ],
)
def test_marks(usable: int, expected: float, bad: bool, well: bool) -> None:
    load = Load(False, usable, 10**9, 1000.0, expected)
    assert (load.bad, load.well) == (bad, well)
    assert Load(True, usable, 10**9, 1000.0, expected).bad


def test_a_small_store_may_be_enough() -> None:
    assert Load(False, SCARCE_BITS, 2 * SCARCE_BITS, 1000.0, 5000).well
