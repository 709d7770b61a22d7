"""Consumption added up from periods that pass by."""

from dataclasses import replace

from network_facts import ksid, record

from qswitch.controller.consumption import Consumption
from qswitch.controller.model import ApplicationData, NodeRecord


def seen(number: int, *periods: tuple[str, int]) -> NodeRecord:
    base = record(number)
    assert base.state
    entry = ApplicationData(ksid(1), periods=periods)
    return replace(base, state=replace(base.state, applications={ksid(1): entry}))


def test_periods_are_counted_once() -> None:
    consumption = Consumption()
    consumption.read(seen(1, ("10:00:10Z", 100), ("10:00:20Z", 50)))
    consumption.read(seen(1, ("10:00:10Z", 100), ("10:00:20Z", 50)))
    consumption.read(seen(1, ("10:00:20Z", 50), ("10:00:30Z", 7)))
    consumption.read(seen(2, ("10:00:30Z", 3)))
    assert consumption.totals() == {ksid(1): 157}


def test_a_node_whose_clock_was_set_back_counts_on() -> None:
    consumption = Consumption()
    consumption.read(seen(1, ("10:00:10Z", 100), ("10:00:20Z", 50)))
    consumption.read(seen(1, ("10:00:20Z", 50), ("09:00:05Z", 7)))
    consumption.read(seen(1, ("09:00:05Z", 7), ("09:00:15Z", 3)))
    assert consumption.totals() == {ksid(1): 160}


def test_a_stream_that_ended_is_forgotten() -> None:
    consumption = Consumption()
    consumption.read(seen(1, ("10:00:10Z", 100)))
    consumption.read(replace(record(1), state=None))
    assert consumption.totals() == {ksid(1): 100}
    consumption.read(record(1))
    assert consumption.totals() == {}
