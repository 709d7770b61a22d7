"""What consumers of scarce key were promised: who is served next, and how much. Arithmetic: no pools and no clock.

Every consumer with a min_bandwidth has a credit, which its minimum earns and all key that it gets repays. Who has credit is
served first, up to its credit, the more important before the others; so every minimum is held as long as the links make as
much as all of them together. What is left goes by priority (015: the larger number is the more important), and among equals
to each in turn: what is waited for first, and only then what is put by for later.

The other end of a link has consumers, too. What it was promised for those, and has not had, comes after the minima here;
what they wait for, before what is less important here (lacks.py).
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from itertools import groupby
from typing import Protocol

BURST_SECONDS = 1.0
"""Credit gathers for so long, and up to `LEAST_UNITS` of what is taken at once, and `LEAST_OCTETS`: on a slow link a block
comes rarely."""
LEAST_UNITS = 2
LEAST_OCTETS = 8192


@dataclass(frozen=True, slots=True)
class Terms:
    """What a consumer is promised: a rate in bit/s (0: none), and its rank when key is scarce."""

    min_bps: int = 0
    priority: int = 0


UNPROMISED = Terms()


class Consumer(Protocol):
    """A key stream, an association or a next hop of relay, as the end that allocates for it sees it."""

    @property
    def allocated(self) -> int:
        """Octets, ever."""

    @property
    def name(self) -> str: ...
    @property
    def terms(self) -> Terms: ...
    @property
    def unit(self) -> int:
        """Octets that it takes at once, at least; 0 while that is not known."""

    def short(self) -> int:
        """The octets of what it would take next and for which there is not enough; 0 when nothing is wanted."""

    def waits(self) -> int:
        """The octets that somebody waits for, of all that it would take."""


class Rival(Protocol):
    """The other end of a link."""

    def give_owed(self) -> None:
        """Gives it what it was promised."""

    def give_before(self, priority: int) -> None:
        """Gives it what is to be had there before consumers of this importance here have anything."""


class Allocate[C: Consumer](Protocol):
    def __call__(self, one: C, most: int | None, ahead: bool) -> None:
        """Has a consumer take what is waited for, or with `ahead` all that it wants: no more than `most` octets."""


@dataclass(slots=True)
class _Account:
    """In octets and seconds."""

    at: float
    credit: float = 0.0

    def earn(self, terms: Terms, unit: int, now: float) -> None:
        rate, passed = terms.min_bps / 8, max(0.0, now - self.at)
        self.at = now
        self.credit = min(self.credit + rate * passed, max(rate * BURST_SECONDS, LEAST_UNITS * unit, LEAST_OCTETS))


@dataclass(slots=True)
class Promises:
    """The accounts of all consumers of a node, by name."""

    accounts: dict[str, _Account] = field(default_factory=dict)
    first: int = 0  # of equals, when key is shared out next

    def serve[C: Consumer](
        self,
        consumers: Iterable[C],
        rivals: Collection[Rival],
        now: float,
        allocate: Allocate[C],
        keep: Callable[[C, int], None],
    ) -> None:
        """Has `allocate` called for each consumer when it is its turn, and `keep` for who has credit for what does not
        reach yet: the others are not to take that, or large units would never come to theirs beside small ones."""
        ordered = sorted(consumers, key=lambda one: one.name)
        self.first = (self.first + 1) % max(1, len(ordered))
        turn = sorted((*ordered[self.first :], *ordered[: self.first]), key=lambda one: -one.terms.priority)
        self._forget({one.name for one in ordered if one.terms.min_bps})
        for one in turn:
            if one.terms.min_bps and (credit := self._credit(one, now)) > 0:
                self._serve(one, credit, allocate)
                if 0 < (short := one.short()) <= self.accounts[one.name].credit:
                    keep(one, short)
        for rival in rivals:
            rival.give_owed()
        for priority, equals in groupby(turn, key=lambda one: one.terms.priority):
            for rival in rivals:
                rival.give_before(priority)
            for one in equals:
                self._serve(one, None, allocate, ahead=False)
        for rival in rivals:
            rival.give_before(-1)
        for one in turn:
            self._serve(one, None, allocate)

    def credit(self, one: Consumer) -> int:
        """Octets that it was promised and has not had."""
        return int(account.credit) if (account := self.accounts.get(one.name)) is not None else 0

    def _credit(self, one: Consumer, now: float) -> int:
        account = self.accounts.setdefault(one.name, _Account(now))
        account.earn(one.terms, one.unit, now)
        return int(account.credit)

    def _serve[C: Consumer](self, one: C, most: int | None, allocate: Allocate[C], ahead: bool = True) -> None:
        before = one.allocated
        allocate(one, most, ahead)
        if (account := self.accounts.get(one.name)) is not None:
            account.credit = max(0.0, account.credit - (one.allocated - before))

    def _forget(self, names: Iterable[str]) -> None:
        for name in self.accounts.keys() - set(names):
            del self.accounts[name]
