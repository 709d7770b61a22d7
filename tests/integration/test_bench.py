"""A very short run of the benchmark: its parts fit, its ratios follow from its medians."""

import json
import subprocess
import sys

import pytest


@pytest.fixture(scope="module")
def run() -> dict[str, object]:
    module = "qswitch.integration.bench.netconf"
    effort = ["--links", "2", "--rounds", "1", "--calls", "3", "--ncclient-calls", "1"]
    command = [sys.executable, "-m", module, *effort, "--output", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_way_does_every_operation(run: dict) -> None:
    medians = run["medians_ms"]
    reads = {"get-config", "get", "edit-config"}
    assert set(medians["sysrepo, in process"]) == reads
    assert set(medians["our client -> qkd-netconf"]) == set(medians["ncclient -> qkd-netconf"]) == reads | {"connect"}
    assert medians["our client -> qkd-netconf"]["get"]["calls"] == 3


def test_ratios_name_their_baseline_of_the_same_run(run: dict) -> None:
    medians = run["medians_ms"]
    assert len(run["ratios"]) >= 7
    for one in run["ratios"]:
        of = one["operation"]
        expected = medians[one["subject"]][of]["median"] / medians[one["baseline"]][of]["median"]
        assert one["ratio"] == pytest.approx(expected)


def test_our_client_does_not_wait_for_a_tick(run: dict) -> None:
    medians = run["medians_ms"]
    assert medians["our client -> qkd-netconf"]["get"]["median"] < medians["ncclient -> qkd-netconf"]["get"]["median"]
