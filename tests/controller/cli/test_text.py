"""Amounts and ids as people read them."""

import click
import pytest
from hypothesis import given, strategies as st

from qswitch.controller.cli.grid import Grid
from qswitch.controller.cli.text import Bandwidth, ShortIds, address, bits, rate


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0, "0 b/s"),
        (999, "999 b/s"),
        (1000, "1.00 kb/s"),
        (2_847_000, "2.85 Mb/s"),
        (84_200, "84.2 kb/s"),
        (999_999, "1.00 Mb/s"),
        (7_000_000_000, "7.00 Gb/s"),
    ],
)
def test_rates(value: int | None, text: str) -> None:
    assert rate(value) == text


@given(st.integers(0, 10**15))
def test_amounts_stay_short_and_close(value: int) -> None:
    number, unit = bits(value).split(" ")
    assert len(number) <= 4
    factor = {"b": 1, "kb": 10**3, "Mb": 10**6, "Gb": 10**9, "Tb": 10**12}[unit]
    assert float(number) * factor == pytest.approx(value, rel=0.006, abs=0.5)


@pytest.mark.parametrize("text", ["", "k", "-5", "10q", "1e3", "0", "0.1", "10 kk", "ten"])
def test_what_is_no_rate(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Bandwidth().convert(text, None, None)


@given(st.lists(st.uuids().map(str), min_size=1, max_size=30, unique=True))
def test_short_ids_tell_all_apart(ids: list[str]) -> None:
    short = ShortIds(ids)
    shortened = [short(one) for one in ids]
    assert len(set(shortened)) == len(ids)
    assert all(len(one) >= 8 and full.startswith(one) for one, full in zip(shortened, ids, strict=True))


@pytest.mark.parametrize(
    ("service", "text"),
    [(None, None), ({"host": "h", "port": 1}, "h:1"), ({"address": "::1", "port": 2}, "[::1]:2")],
)
def test_addresses(service: dict[str, object] | None, text: str | None) -> None:
    assert address(service) == text


def test_a_grid_is_aligned_without_trailing_blanks() -> None:
    grid = Grid(("NAME", ">N"), (("a", "1"), ("longer", "20")))
    assert grid.plain() == "NAME     N\na        1\nlonger  20\n"
