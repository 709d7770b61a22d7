"""What a benchmark of keys measures, as rows, and what it compares, as ratios of one run."""

import statistics
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Row:
    """One way of asking for keys, with so many clients at once, over all rounds."""

    way: str
    clients: int
    rates: list[float] = field(default_factory=list)  # answers a second, one a round
    seconds: list[float] = field(default_factory=list)  # one an answer

    def figures(self) -> dict[str, Any]:
        percentiles = statistics.quantiles(self.seconds, n=100)
        return {
            "way": self.way,
            "clients": self.clients,
            "calls": len(self.seconds),
            "per_second": statistics.median(self.rates),
            "p50_ms": 1000 * percentiles[49],
            "p99_ms": 1000 * percentiles[98],
        }


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times longer `subject` takes than `baseline`, by answers a second."""

    subject: str
    baseline: str
    clients: int
    ratio: float


@dataclass(frozen=True, slots=True)
class Section:
    """One part of a report as JSON values: rows of figures, and ratios of them that name their baseline."""

    rows: list[dict[str, Any]]
    ratios: list[dict[str, Any]]


def median_rate(row: Row) -> float:
    return statistics.median(row.rates)


def slower(subject: Row, baseline: Row) -> Ratio:
    return Ratio(subject.way, baseline.way, subject.clients, median_rate(baseline) / median_rate(subject))
