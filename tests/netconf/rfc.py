"""The sentences that bind a server: each case names the one it shows, and this module keeps the list.

    @rfc("6241", "7.5", "a lock is refused while another session holds it")
    async def test_…

    @pytest.mark.parametrize("operation", [case("6241", "7.2", "create fails with data-exists", "…")])

Sentences are given in the suite's own words. What no test can show is listed by `untestable`, with the reason.
`pytest tests/netconf --rfc-report` prints the numbers, `--rfc-list FILE` writes the whole list.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pytest


@dataclass(frozen=True, slots=True)
class Sentence:
    """One binding sentence; `reason` says why nothing can show it, "" when something does."""

    number: str
    section: str
    text: str
    reason: str = ""

    @property
    def order(self) -> tuple[int, tuple[str, ...], str]:
        """Sorts by RFC, then by section as people count."""
        parts = tuple(part.zfill(4) if part.isdigit() else part for part in self.section.split("."))
        return int(self.number), parts, self.text


UNTESTABLE: list[Sentence] = []


def rfc(number: str, section: str, sentence: str) -> pytest.MarkDecorator:
    """Marks a test as showing a sentence of an RFC."""
    return pytest.mark.rfc(number, section, sentence)


def case(number: str, section: str, sentence: str, *values: object) -> object:
    """One row of a parametrised test, for one sentence."""
    name = re.sub(r"[^a-z0-9]+", "-", sentence.lower()).strip("-")[:60]
    return pytest.param(*values, id=f"{section}-{name}", marks=rfc(number, section, sentence))


def untestable(number: str, section: str, sentence: str, reason: str) -> None:
    """Lists a sentence that no case can show."""
    UNTESTABLE.append(Sentence(number, section, sentence, reason))


def of_item(item: pytest.Item) -> list[Sentence]:
    """The sentences that a test shows."""
    return [Sentence(*mark.args) for mark in item.iter_markers("rfc")]


def report(results: Iterable[tuple[Sentence, str, str]]) -> list[str]:
    """Lines of Markdown: (sentence, test, outcome) of everything that ran, by RFC, then what no case can show."""
    rows = sorted(results, key=lambda row: (row[0].order, row[1]))
    lines: list[str] = []
    for number in sorted({row[0].number for row in rows} | {one.number for one in UNTESTABLE}, key=int):
        lines += ["", f"## RFC {number}", "", "| section | sentence | case | outcome |", "|---|---|---|---|"]
        lines += [f"| {one.section} | {one.text} | `{test}` | {how} |" for one, test, how in rows if one.number == number]
        missing = sorted((one for one in UNTESTABLE if one.number == number), key=lambda one: one.order)
        lines += [f"| {one.section} | {one.text} | none | {one.reason} |" for one in missing]
    return lines


def totals(results: Sequence[tuple[Sentence, str, str]]) -> list[str]:
    """One line per RFC: how many sentences were shown, how many of their cases did not pass, how many have no case."""
    lines = []
    for number in sorted({row[0].number for row in results} | {one.number for one in UNTESTABLE}, key=int):
        of_this = [row for row in results if row[0].number == number]
        sentences = {(one.section, one.text) for one, _, _ in of_this}
        others = [how for _, _, how in of_this if how != "passed"]
        counted = ", ".join(f"{others.count(how)} {how}" for how in sorted(set(others)))
        without = len({one for one in UNTESTABLE if one.number == number})
        lines.append(
            f"RFC {number}: {len(sentences)} sentences{f' ({counted})' if counted else ''}, {without} without a case"
        )
    return lines
