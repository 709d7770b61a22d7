"""Floors: an application that gets less than it was promised is told of, once, and once more when it gets that again."""

import itertools
from datetime import UTC, datetime

import pytest
from hypothesis import given, strategies as st

from qswitch.agent.floors import HELD, LEAST_SECONDS, NOT_HELD, RECENT, WAITING, Floor, watch
from qswitch.agent.model import ApplicationConfig, ApplicationQosUpdate, KeyStreamId, Qos

MIN = 100_000


@given(st.lists(st.tuples(st.integers(0, 200_000), st.booleans(), st.integers(1, 20)), max_size=30))
def test_it_turns_when_it_must_and_tells_the_rate_it_measured(runs: list[tuple[int, bool, int]]) -> None:
    """Seconds in which so many bits came while the application waited, or did not."""
    floor, bits, now = Floor(MIN), 0, 0
    waited, totals, turns = list[bool](), [(0, 0)], list[int]()
    floor.sample(0, False, 0.0)
    for came, waits, seconds in runs:
        for _ in range(seconds):
            now, bits = now + 1, bits + came
            waited.append(waits)
            totals.append((now, bits))
            before = floor.unmet
            told = floor.sample(bits, waits, float(now))
            assert (told is None) is (floor.unmet is before)
            if told is None:
                continue
            start = now - int(LEAST_SECONDS)
            assert told == (bits - dict(totals)[start]) // int(LEAST_SECONDS)
            if floor.unmet:
                assert told < NOT_HELD * MIN and sum(waited[-RECENT:]) >= WAITING
            else:
                assert told >= int(HELD * MIN) or not any(waited[-RECENT:])
            turns.append(now)
    assert all(later - earlier >= LEAST_SECONDS for earlier, later in itertools.pairwise(turns))


def test_who_does_not_ask_is_promised_nothing() -> None:
    floor = Floor(MIN)
    assert not any(floor.sample(0, False, float(second)) for second in range(100)) and not floor.unmet


@pytest.mark.parametrize("min_bps", [3_000, 12_000, 100_000])
@pytest.mark.parametrize(("share", "unmet"), [(60, True), (80, True), (100, False), (130, False)])
def test_blocks_that_come_seldom_are_no_shortage(min_bps: int, share: int, unmet: bool) -> None:
    """A link that makes so many percent of a minimum in blocks of 4 KiB, and an application that takes all there is."""
    floor, turns = Floor(min_bps), list[bool]()
    for second in range(600):
        blocks = second * min_bps * share // 100 // 32768
        if floor.sample(blocks * 32768, True, float(second)) is not None:
            turns.append(floor.unmet)
    assert turns == ([True] if unmet else [])


def test_a_floor_of_next_to_nothing_is_not_watched_for_ever() -> None:
    floor = Floor(1)
    for second in range(2000):
        floor.sample(second, True, float(second))
    assert len(floor.got) < 700


def test_what_is_told() -> None:
    entry = ApplicationConfig(KeyStreamId("a"), qos=Qos(5 * MIN, MIN, ttl_seconds=9), priority=4)
    floor: Floor | None = None
    told = list[ApplicationQosUpdate]()
    for second in range(60):
        bits = MIN // 2 * min(second, 30) + 2 * MIN * max(0, second - 30)
        floor, news = watch(floor, entry, bits, second < 30, float(second))
        told += [news] if news is not None else []
    unmet = Qos(5 * MIN, MIN // 2, ttl_seconds=9)
    assert told == [ApplicationQosUpdate(entry.ksid, unmet, 4, MIN), ApplicationQosUpdate(entry.ksid, entry.qos, 4)]


def test_who_has_no_floor_and_whose_floor_changes() -> None:
    plain = ApplicationConfig(KeyStreamId("a"), expiration_time=datetime.now(UTC))
    assert watch(Floor(MIN), plain, 5, True, 1.0) == (None, None)
    promised = ApplicationConfig(KeyStreamId("a"), qos=Qos(None, MIN))
    floor, _ = watch(Floor(2 * MIN, unmet=True), promised, 5, True, 1.0)
    assert floor is not None and (floor.min_bps, floor.unmet) == (MIN, False)
