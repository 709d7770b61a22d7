"""A very short run of the benchmark of keys: its parts fit, its ratios follow from its rates."""

import json
import subprocess
import sys

import pytest


@pytest.fixture(scope="module")
def run() -> dict[str, object]:
    command = [sys.executable, "-m", "qswitch.integration.bench.keys", "--rounds", "1", "--calls", "100"]
    done = subprocess.run([*command, "--output", "json"], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_both_ways_are_measured_and_compared(run: dict) -> None:
    section = run["sections"]["etsi014"]
    rates = {(row["way"], row["clients"]): row["per_second"] for row in section["rows"]}
    assert len(rates) == 4 and all(row["calls"] >= 100 and row["p50_ms"] <= row["p99_ms"] for row in section["rows"])
    for one in section["ratios"]:
        slower, faster = rates[one["baseline"], one["clients"]], rates[one["subject"], one["clients"]]
        assert one["ratio"] == pytest.approx(slower / faster)
