"""What is read again and again leaves nothing behind: libyang, lxml and their bindings have memory of their own to lose."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from edit_properties import check_edit
from filter_properties import check_filter
from netconf_properties import check_message

CORPUS = Path(__file__).with_name("corpus")
CHECKS = {"edit": check_edit, "filter": check_filter, "message": check_message}
TIMES = 1000
KEPT = 300_000  # octets, of so many times


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def growth(check: Callable[[bytes], None], data: bytes) -> int:
    for _ in range(TIMES // 2):
        check(data)
    before = resident()
    for _ in range(TIMES):
        check(data)
    return resident() - before


@pytest.mark.parametrize("kind", CHECKS)
def test_seeds_read_a_thousand_times_lose_no_memory(kind: str) -> None:
    seeds = sorted((CORPUS / kind).iterdir())
    # Expressions that a process of its own evaluates take too long for so many times, and their memory ends with it.
    found = {seed.name: growth(CHECKS[kind], seed.read_bytes()) for seed in seeds if not seed.name.startswith("xpath-")}
    assert {name: octets for name, octets in found.items() if octets > KEPT} == {}
