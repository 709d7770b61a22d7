"""Sets of whole numbers that are mostly contiguous, as lists of (first, last): how key managers name blocks and chunks."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence


class TooMany(ValueError):
    """A peer names more numbers than it can have."""


def pack(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """The shortest list of ranges of these numbers."""
    packed: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if packed and number <= packed[-1][1] + 1:
            packed[-1] = (packed[-1][0], number)
        else:
            packed.append((number, number))
    return packed


def unpack(ranges: Sequence[tuple[int, int]], limit: int) -> list[int]:
    """All numbers of the ranges. TooMany when they are more than `limit`, so that a few octets never fill the memory."""
    if sum(last - first + 1 for first, last in ranges if last >= first) > limit:
        raise TooMany(f"more than {limit} numbers")
    return [number for first, last in ranges for number in range(first, last + 1)]


class Ranges:
    """The numbers of ranges that rise, as `pack` makes them; of others, some of them."""

    def __init__(self, ranges: Iterable[Sequence[int]]) -> None:
        self._ranges = [(first, last) for first, last in ranges]

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self._ranges, number, key=lambda one: one[0]) - 1
        return at >= 0 and number <= self._ranges[at][1]
