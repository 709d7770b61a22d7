"""The clock's difference is bounded by what the node wrote and when: never wrong, as narrow as can be."""

from datetime import UTC, datetime

import pytest

from qswitch.controller.checks import ClockCheck
from qswitch.controller.southbound.clock import Sighting, estimate, finding

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("written", "low", "high"),
    [
        ("2026-11-25T12:00:05Z", 4.0, 6.0),  # somewhere within its second, seen within one second
        ("2026-11-25T12:00:05.5Z", 4.5, 5.6),
        ("2026-11-25T13:00:05.250000+01:00", 4.25, 5.250001),
        ("2026-11-25T11:59:00Z", -61.0, -59.0),
    ],
)
def test_bounds(written: str, low: float, high: float) -> None:
    bounds = Sighting(written, NOON, NOON + 1, "").bounds()
    assert bounds == pytest.approx((low, high))


def test_the_narrowest_sighting_counts() -> None:
    wide = Sighting("2026-11-25T12:00:05Z", NOON, NOON + 1, "wide")
    narrow = Sighting("2026-11-25T12:00:05.123456789Z", NOON, NOON + 0.01, "narrow")
    found = estimate([wide, narrow])
    assert found.how == "narrow"
    assert found.ahead == pytest.approx(5.118, abs=0.001)
    assert found.uncertainty == pytest.approx(0.005, abs=0.001)


@pytest.mark.parametrize("sightings", [[], [Sighting("yesterday", 0, 1, "")], [Sighting("2026-11-25T12:00:00", 0, 1, "")]])
def test_no_time_is_unknown(sightings: list[Sighting]) -> None:
    assert estimate(sightings) == ClockCheck(None, None, "unknown: the node gave no time")
    assert finding(estimate(sightings)) is None


@pytest.mark.parametrize(
    ("ahead", "uncertainty", "words"),
    [(4.9, 0.1, None), (5.5, 1.0, None), (7.0, 1.0, "7.0 s ahead of"), (-60.0, 0.5, "60.0 s behind")],
)
def test_only_what_is_beyond_doubt_is_wrong(ahead: float, uncertainty: float, words: str | None) -> None:
    found = finding(ClockCheck(ahead, uncertainty))
    assert (found is None) if words is None else (found is not None and words in found.text and "NTP" in found.advice)
