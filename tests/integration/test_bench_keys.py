"""A very short run of the benchmark of keys: its parts fit, its ratios follow from its rows."""

import json
import subprocess
import sys

import pytest

EFFORT = ("--rounds", "1", "--calls", "100", "--hops", "1", "--hops", "2", "--seconds", "2")


@pytest.fixture(scope="module")
def run() -> dict[str, object]:
    command = [sys.executable, "-m", "qswitch.integration.bench.keys", *EFFORT]
    done = subprocess.run([*command, "--output", "json"], capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(("name", "ways"), [("etsi014", 2), ("etsi004", 3)])
def test_all_ways_are_measured_and_compared(run: dict, name: str, ways: int) -> None:
    section = run["sections"][name]
    rates = {(row["way"], row["clients"]): row["per_second"] for row in section["rows"]}
    assert len(rates) == 2 * ways and all(row["calls"] >= 100 for row in section["rows"])
    assert all(row["p50_ms"] <= row["p99_ms"] for row in section["rows"])
    assert len(section["ratios"]) == 2 * (ways - 1)
    for one in section["ratios"]:
        slower, faster = rates[one["baseline"], one["clients"]], rates[one["subject"], one["clients"]]
        assert one["ratio"] == pytest.approx(slower / faster)


def test_relay_is_measured_over_each_number_of_hops(run: dict) -> None:
    section = run["sections"]["relay"]
    rows = {(row["way"], row["hops"]): row for row in section["rows"]}
    assert len(rows) == 6 and all(row["mbit_per_second"] > 0 and row["p50_ms"] <= row["p99_ms"] for row in rows.values())
    for one in section["ratios"]:
        if one["figure"] in ("mbit_per_second", "p50_ms"):
            hops, figure = one["hops"], one["figure"]
            expected = rows[one["subject"], hops][figure] / rows[one["baseline"], hops][figure]
            assert one["ratio"] == pytest.approx(expected)


def test_relay_spends_a_pad_bit_for_each_bit_and_hop_and_its_tags(run: dict) -> None:
    """What was on its way when counting began and ended makes the figure of so short a run a rough one."""
    spent = {one["hops"]: one["ratio"] for one in run["sections"]["relay"]["ratios"] if one["figure"] == "spent_bits"}
    assert spent.keys() == {1, 2} and all(0.8 < ratio < 1.3 for ratio in spent.values())
