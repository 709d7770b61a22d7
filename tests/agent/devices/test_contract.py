"""Every registered plugin that can be run without hardware keeps the promises, and the check sees who does not."""

import asyncio
from collections.abc import Awaitable, Callable
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from click.testing import CliRunner

from qswitch.agent.devices import contract
from qswitch.agent.devices.base import Deliver, DeviceLink, DeviceReport, QkdDevice, Report
from qswitch.agent.devices.contract import GROUP, Pace, Pair, PromiseBroken, load_plugin, makers
from qswitch.agent.devices.simulated import SimulatedDevice
from qswitch.agent.lkms.keys import Key

PACE = Pace(patience_seconds=10, quiet_seconds=0.2, blocks=8)
Promise = Callable[[Pair], Awaitable[None]]


@pytest.mark.parametrize("promise", contract.PROMISES, ids=lambda promise: promise.__name__)
@pytest.mark.parametrize("plugin", sorted(one.name for one in entry_points(group=GROUP)))
async def test_registered_plugins_keep_every_promise(plugin: str, promise: Promise, tmp_path: Path) -> None:
    device = load_plugin(plugin)
    options = device.example_pair(tmp_path)
    if options is None:
        pytest.skip(f"{plugin} needs hardware")
    async with contract.fresh_pair(*makers(device, options), PACE) as pair:
        await promise(pair)


class Relabelling(SimulatedDevice):
    """Its end b numbers blocks from another start."""

    async def start(self, link: DeviceLink, deliver: Deliver, report: Report) -> None:
        async def other(number: int, key: Key) -> None:
            await deliver(number + (self.device == "contract-b"), key)

        await super().start(link, other, report)


class Wiping(SimulatedDevice):
    """Wipes a block after it was handed over."""

    async def start(self, link: DeviceLink, deliver: Deliver, report: Report) -> None:
        async def other(number: int, key: Key) -> None:
            await deliver(number, key)
            key.wipe()

        await super().start(link, other, report)


class Repeating(SimulatedDevice):
    """Forgets its numbers, and what it was told of others."""

    async def start(self, link: DeviceLink, deliver: Deliver, report: Report) -> None:
        await self.stop()
        count = 0

        async def other(number: int, key: Key) -> None:
            nonlocal count
            count += 1
            await deliver(count, key)

        await super().start(link, other, report)


class Talkative(SimulatedDevice):
    """Says key in its reports."""

    async def start(self, link: DeviceLink, deliver: Deliver, report: Report) -> None:
        async def other(number: int, key: Key) -> None:
            report(DeviceReport(True, 1.0, problem=f"block {bytes(key.view()).hex()}"))
            await deliver(number, key)

        await super().start(link, other, report)


class Deaf(SimulatedDevice):
    """Does not wait for a full key store."""

    async def start(self, link: DeviceLink, deliver: Deliver, report: Report) -> None:
        tasks = []

        async def other(number: int, key: Key) -> None:
            tasks.append(asyncio.ensure_future(deliver(number, key)))

        await super().start(link, other, report)


@pytest.mark.parametrize(
    ("device", "promise", "problem"),
    [
        (Relabelling, contract.same_blocks, "differs"),
        (Wiping, contract.fresh_blocks, "two blocks are equal"),
        (Repeating, contract.first_block, "although one end asked for"),
        (Repeating, contract.far_end_returns, "do not rise"),
        (Talkative, contract.silence, "holds key"),
        (Deaf, contract.back_pressure, "keep coming"),
    ],
)
async def test_the_check_sees_a_broken_promise(
    device: type[QkdDevice], promise: Promise, problem: str, tmp_path: Path
) -> None:
    options = device.example_pair(tmp_path)
    assert options is not None
    pace = Pace(patience_seconds=1.5, quiet_seconds=0.1, blocks=8)
    with pytest.raises(PromiseBroken, match=problem):
        async with contract.fresh_pair(*makers(device, options), pace) as pair:
            await promise(pair)


def test_the_command_names_the_plugins_there_are() -> None:
    result = CliRunner().invoke(contract.main, ["nonsense"])
    assert result.exit_code == 1
    assert "there are: " in result.output and "simulated" in result.output


def test_the_command_says_whose_options_are_wrong(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('fibre = "nowhere.json"\nend = "c"\n')
    files = ["--a", str(tmp_path / "a.toml"), "--b", str(tmp_path / "a.toml")]
    result = CliRunner().invoke(contract.main, ["simulated", *files])
    assert result.exit_code == 1
    assert "'end' must be one of a, b" in result.output
