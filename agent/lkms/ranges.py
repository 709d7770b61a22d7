"""Sets of whole numbers that are mostly contiguous, as lists of (first, last): how key managers name blocks and chunks."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence


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
    """A set that stays small as long as its members are contiguous."""

    def __init__(self, ranges: Iterable[Sequence[int]] = ()) -> None:
        self._ranges = [(first, last) for first, last in ranges]

    def as_list(self) -> list[tuple[int, int]]:
        return list(self._ranges)

    def __bool__(self) -> bool:
        return bool(self._ranges)

    def __iter__(self) -> Iterator[int]:
        return (number for first, last in self._ranges for number in range(first, last + 1))

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self._ranges, number, key=lambda one: one[0]) - 1
        return at >= 0 and number <= self._ranges[at][1]

    def add(self, first: int, last: int) -> None:
        kept = []
        for one in self._ranges:
            if one[1] + 1 < first or last + 1 < one[0]:
                kept.append(one)
            else:
                first, last = min(first, one[0]), max(last, one[1])
        self._ranges = sorted([*kept, (first, last)])

    def discard(self, first: int, last: int) -> None:
        kept = []
        for one in self._ranges:
            if one[1] < first or last < one[0]:
                kept.append(one)
                continue
            if one[0] < first:
                kept.append((one[0], first - 1))
            if last < one[1]:
                kept.append((last + 1, one[1]))
        self._ranges = kept
