"""`qkdctl node check` on a whole network: all is well where it is, and what is not is said."""

import json
import subprocess
import sys

from qswitch.integration.emulation import Emulation


def _check(network: Emulation, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "qswitch.controller.cli.main", "--network", str(network.directory), "node", "check"]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=60, check=False)


def test_every_node_of_a_network_is_well(madrid: Emulation) -> None:
    done = _check(madrid, "--all", "-o", "json")
    reports = json.loads(done.stdout)
    assert [one["node"] for one in reports] == madrid.nodes()
    assert [(one["node"], one["findings"]) for one in reports if not one["well"]] == []
    assert done.returncode == 0
    for one in reports:
        assert {right["name"] for right in one["rights"] if right["allowed"]} == {"read", "edit", "lock", "subscribe"}
        assert [module["words"] for module in one["modules"]] == ["as the controller knows it"] * 3
        assert abs(one["clock"]["ahead"]) <= one["clock"]["uncertainty"]


async def test_a_node_without_its_agent_is_not_well(triangle: Emulation) -> None:
    await triangle.stop(["delta/agent"])
    try:
        done = _check(triangle, "Delta")
        assert done.returncode == 1
        assert "wrong: agent: its agent does not run" in done.stdout
        await triangle.stop(["delta/netconf"])
        done = _check(triangle, "Delta")
        assert done.returncode == 1
        assert "refuses the connection" in done.stdout and "do: nothing listens there" in done.stdout
    finally:
        await triangle.start_process("Delta", "agent")
        await triangle.start_process("Delta", "netconf")
