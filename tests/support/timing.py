"""Whether the time of an answer tells two questions apart, whatever else the machine does meanwhile.

The ways are asked in turns, in another order each time, so that load falls on all of them alike. What is found is the
chance that an answer of one way takes longer than one of another: a half when time tells nothing. Its spread is that of
ranks, 1/√(6n), and does not depend on how long answers take or how noisy they are.
"""

import random
import time
from bisect import bisect_left, bisect_right
from collections.abc import Awaitable, Callable, Mapping
from itertools import combinations
from statistics import median

ROUNDS = 400
NOISE = 0.1
"""Five times the spread for so many rounds. A way that takes half a standard deviation longer is off by more."""
JITTER_SECONDS = 5e-6
"""A smaller difference than this counts for none: on loopback, with nothing in between, ranks tell a microsecond."""

Times = dict[str, list[float]]


async def taken(ways: Mapping[str, Callable[[], Awaitable[object]]], rounds: int = ROUNDS) -> Times:
    """Seconds of each answer; the first few rounds, in which caches are filled, do not count."""
    found: Times = {name: [] for name in ways}
    order = list(ways)
    for turn in range(rounds + 20):
        random.shuffle(order)
        for name in order:
            start = time.perf_counter()
            await ways[name]()
            if turn >= 20:
                found[name].append(time.perf_counter() - start)
    return found


def longer(ones: list[float], others: list[float]) -> float:
    """The chance that one of the first is greater than one of the others; equal ones count half."""
    ranks = sorted(others)
    below = sum(bisect_left(ranks, one) + bisect_right(ranks, one) for one in ones)
    return below / (2 * len(ones) * len(others))


def told_apart(times: Times) -> dict[tuple[str, str], float]:
    """Pairs of ways between which time tells, with the chance."""
    chances = {(one, other): longer(times[one], times[other]) for one, other in combinations(times, 2)}
    medians = {name: median(one) for name, one in times.items()}
    return {
        (one, other): chance
        for (one, other), chance in chances.items()
        if abs(chance - 0.5) > NOISE and abs(medians[one] - medians[other]) > JITTER_SECONDS
    }
