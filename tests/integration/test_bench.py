"""A very short run of the benchmark: its parts fit, its ratios follow from its medians."""

import json
import subprocess
import sys

import pytest

READS = {f"{name}, {links} links" for links in (1, 100) for name in ("get-config", "get", "edit-config of 1")}
LARGE = {"edit-config of 100, 100 links"}


@pytest.fixture(scope="module")
def run() -> dict[str, object]:
    module = "qswitch.integration.bench.netconf"
    effort = ["--rounds", "1", "--calls", "3", "--ncclient-calls", "1", "--sessions", "3", "--links", "1", "--links", "100"]
    command = [sys.executable, "-m", module, *effort, "--output", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_way_does_every_operation(run: dict) -> None:
    medians = run["medians_ms"]
    assert set(medians["sysrepo, in process"]) == READS | LARGE | {"notification"}
    assert set(medians["our client -> qkd-netconf"]) == READS | LARGE | {"notification", "connect"}
    assert set(medians["ncclient -> qkd-netconf"]) == READS | {"connect"}
    assert medians["our client -> qkd-netconf"]["get, 1 links"]["calls"] == 3


def test_ratios_name_their_baseline_of_the_same_run(run: dict) -> None:
    medians, held = run["medians_ms"], run["held_sessions"]
    assert len(run["ratios"]) >= 14
    for one in run["ratios"]:
        of = one["operation"]
        if one["subject"] in held:
            expected = held[one["subject"]][of] / held[one["baseline"]][of]
        else:
            expected = medians[one["subject"]][of]["median"] / medians[one["baseline"]][of]["median"]
        assert one["ratio"] == pytest.approx(expected)


def test_sessions_are_held_by_the_server_and_by_a_bare_one(run: dict) -> None:
    assert {"qkd-netconf", "bare SSH server"} <= set(run["held_sessions"])


def test_our_client_does_not_wait_for_a_tick(run: dict) -> None:
    medians, read = run["medians_ms"], "get, 1 links"
    assert medians["our client -> qkd-netconf"][read]["median"] < medians["ncclient -> qkd-netconf"][read]["median"]
