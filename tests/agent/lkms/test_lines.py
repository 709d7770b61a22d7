"""How many blocks of a virtual link go on their way at once: as many as it needs, and no more than arrive soon."""

import pytest

from qswitch.agent.lkms.lines import WINDOW_BLOCKS, Line
from qswitch.agent.model import LinkConfig, LinkId, LinkType

SLOW_SECONDS = 10.0


@pytest.fixture
def line() -> Line:
    return Line(LinkConfig(LinkId("00000000-0000-4000-8000-000000000009"), LinkType.VIRTUAL))


def run(line: Line, needed: int, seconds: float) -> int:
    """A round of so many blocks, or as many as may go, that took so long; how many were on their way."""
    sent = min(needed, line.window)
    line.sends(sent, 0.0)
    line.turn_window(sent, seconds / 2, SLOW_SECONDS)
    line.turn_window(0, seconds, SLOW_SECONDS)
    return sent


def test_a_window_grows_while_all_of_it_is_needed_and_arrives_soon(line: Line) -> None:
    assert [run(line, 1000, 0.1) for _ in range(8)] == [1, 2, 4, 8, 16, 32, 64, 64] and line.window == WINDOW_BLOCKS


def test_a_window_is_no_larger_than_needed(line: Line) -> None:
    """What is on its way when a hop further on fails is lost with it."""
    for needed in (1000, 1000, 10, 10, 10, 10, 10, 10):
        run(line, needed, 0.1)
    assert line.window == 16
    for _ in range(8):
        run(line, 1000, 0.1)
    assert line.window == WINDOW_BLOCKS
    for _ in range(8):
        run(line, 10, 0.1)
    assert line.window == 16


def test_a_window_shrinks_when_a_round_is_slow_and_begins_anew_after_a_failure(line: Line) -> None:
    for _ in range(6):
        run(line, 1000, 0.1)
    run(line, 1000, 2.0)
    assert line.window == 64, "neither soon nor slow"
    run(line, 1000, 6.0)
    assert line.window == 32
    line.rests(7.0)
    assert line.window == 1 and line.paused_until == 7.0
