"""Amounts, rates and ids as people read and write them."""

import itertools
import re
from collections.abc import Iterable, Mapping
from typing import Any

import click

SHORT = 8
NONE = "-"
_UNITS = ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k"))
_FACTORS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
_BANDWIDTH = re.compile(r"(\d+(?:\.\d+)?)\s*([kmg]?)(?:b/s|bps|bit/s)?", re.IGNORECASE)

# Names, places and messages come from nodes: none of them may steer the operator's terminal.
_CONTROLS = dict.fromkeys((*range(32), *range(127, 160)), "�") | {
    ord("\n"): " ",
    ord("\t"): " ",
}


def printable(text: str) -> str:
    """The text on one line, without control characters."""
    return text.translate(_CONTROLS)


def amount(value: float | None, unit: str) -> str:
    """`2.85 Mb/s`: three digits that count, decimal prefixes."""
    if value is None:
        return NONE
    for factor, prefix in _UNITS:
        if value >= 0.9995 * factor:  # what would be written as 1000 belongs to the next prefix
            return f"{_three(value / factor)} {prefix}{unit}"
    return f"{value:.0f} {unit}"


def _three(value: float) -> str:
    digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{digits}f}"


def bits(value: float | None) -> str:
    return amount(value, "b")


def rate(value: float | None) -> str:
    return amount(value, "b/s")


def percent(fraction: float | None) -> str:
    return NONE if fraction is None else f"{fraction * 100:.2f} %"


def decibel(value: float | None) -> str:
    return NONE if value is None else f"{value:g} dB"


def address(service: Mapping[str, Any] | None) -> str | None:
    """`host:port` of a service, which says its host as `host` or as `address`."""
    if not service:
        return None
    host = str(service.get("host") or service.get("address"))
    return f"[{host}]:{service['port']}" if ":" in host else f"{host}:{service['port']}"


class ShortIds:
    """The shortest beginnings, of at least eight characters, that tell a set of ids apart, as git does with commits."""

    def __init__(self, ids: Iterable[str]) -> None:
        every = sorted(set(ids))
        self._length = SHORT
        for one, following in itertools.pairwise(every):
            self._length = max(self._length, _common(one, following) + 1)

    def __call__(self, one: str) -> str:
        return one[: self._length].rstrip("-")


def _common(one: str, other: str) -> int:
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


class Bandwidth(click.ParamType[int]):
    """A rate in bits per second, as 2500, 10k, 1.5M or 10kb/s."""

    name = "rate"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = _BANDWIDTH.fullmatch(str(value).strip())
        if match is None:
            self.fail(f"'{value}' is not a rate in bit/s, as 2500, 10k or 1.5M", parameter, context)
        bits_per_second = round(float(match[1]) * _FACTORS[match[2].lower()])
        if bits_per_second < 1:
            self.fail(f"'{value}' is less than one bit/s", parameter, context)
        return bits_per_second
