"""What the simulated pair does beyond the contract: the fibre, disagreements, killed processes, options."""

import asyncio
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from qswitch.agent.devices.base import DeviceLink, DeviceReport
from qswitch.agent.devices.fibre import Fibre
from qswitch.agent.devices.simulated import SimulatedDevice
from qswitch.agent.errors import ConfigurationError, StorageFailed
from qswitch.agent.lkms.keys import Key
from qswitch.agent.model import InterfaceId, LinkId, NodeId, Role, Technology

NODES = NodeId("n1"), NodeId("n2")


class End:
    """A started device; `until` awaits what it says or delivers."""

    def __init__(self, end: int, options: dict[str, Any], **link: Any) -> None:
        self.device = SimulatedDevice(InterfaceId(1), "device", 1, options)
        self.link = DeviceLink(
            **{
                "link": LinkId("l"),
                "role": Role.TRANSCEIVER,
                "local_node": NODES[end],
                "remote_node": NODES[1 - end],
                "wavelength": None,
                "attenuation_db": None,
                "first_block": 0,
                **link,
            }
        )
        self.reports = [DeviceReport(False, problem="not started")]
        self.blocks: dict[int, Key] = {}
        self.refuse: Exception | None = None
        self._event = asyncio.Event()

    async def __aenter__(self) -> "End":
        await self.device.start(self.link, self._deliver, self._report)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.device.stop()

    async def _deliver(self, number: int, key: Key) -> None:
        if self.refuse:
            raise self.refuse
        self.blocks[number] = key
        self._event.set()

    def _report(self, report: DeviceReport) -> None:
        self.reports.append(report)
        self._event.set()

    async def until(self, reached: Callable[["End"], bool]) -> None:
        async with asyncio.timeout(10):
            while not reached(self):
                self._event.clear()
                await self._event.wait()

    async def says(self, problem: str | None) -> None:
        await self.until(lambda end: end.reports[-1].problem == problem and end.reports[-1].running is (problem is None))

    async def makes(self, count: int = 5) -> None:
        wanted = len(self.blocks) + count
        await self.until(lambda end: len(end.blocks) >= wanted)


def pair(folder: Path, a: dict[str, Any] | None = None, b: dict[str, Any] | None = None) -> tuple[End, End, Path]:
    options = SimulatedDevice.example_pair(folder)
    ends = [End(number, dict(one), **(link or {})) for number, (one, link) in enumerate(zip(options, (a, b), strict=True))]
    return ends[0], ends[1], folder / "fibre.json"


async def test_a_cut_fibre_stops_both_ends_and_a_mended_one_starts_them(tmp_path: Path) -> None:
    one, other, fibre = pair(tmp_path)
    async with one, other:
        await other.makes()
        Fibre.load(fibre).with_cut(True).save(fibre)
        await one.says("no light")
        await other.says("no light")
        count = len(one.blocks)
        Fibre.load(fibre).with_cut(False).save(fibre)
        await one.makes()
        await other.makes()
        assert sorted(one.blocks) == list(one.blocks)
        assert len(one.blocks) > count
    for number in one.blocks.keys() & other.blocks.keys():
        assert one.blocks[number] == other.blocks[number]


async def test_loss_changes_rate_and_errors_without_a_break(tmp_path: Path) -> None:
    one, other, fibre = pair(tmp_path)
    async with one, other:
        await one.says(None)
        before = one.reports[-1]
        Fibre.load(fibre).with_loss(10.0).save(fibre)
        await one.until(lambda end: end.reports[-1].skr_bps < before.skr_bps)
        after = one.reports[-1]
        assert after.running and after.skr_bps == pytest.approx(700e3)
        assert before.qber is not None and after.qber is not None and after.qber > before.qber
        await other.until(lambda end: end.reports[-1] == after)


async def test_too_much_loss_is_said(tmp_path: Path) -> None:
    one, other, fibre = pair(tmp_path)
    async with one, other:
        Fibre.load(fibre).with_loss(30).save(fibre)
        await other.says("attenuation of 30 dB reaches the limit of 24 dB")


async def test_a_broken_fibre_file_is_a_problem_that_passes(tmp_path: Path) -> None:
    one, other, fibre = pair(tmp_path)
    good = fibre.read_text()
    async with one, other:
        fibre.write_text("{")
        await one.until(lambda end: "is no fibre" in (end.reports[-1].problem or ""))
        fibre.write_text(good)
        await one.makes()


@pytest.mark.parametrize(
    ("b", "problem"),
    [
        ({"link": LinkId("m")}, "link: this end has l, the far end m"),
        ({"remote_node": NodeId("n3")}, "node at this end: this end has n1, the far end n3"),
    ],
)
async def test_disagreement_is_reported_and_tried_again(b: dict[str, Any], problem: str, tmp_path: Path) -> None:
    one, other, _ = pair(tmp_path, b=b)
    async with one:
        async with other:
            await one.says(problem)
        right = pair(tmp_path)[1]
        async with right:
            await one.makes()


async def test_two_transmitters_say_so(tmp_path: Path) -> None:
    one, other, _ = pair(tmp_path, {"role": Role.TRANSMITTER}, {"role": Role.TRANSMITTER})
    async with one, other:
        await one.says("role: both ends are TRANSMITTER")
        await other.says("role: both ends are TRANSMITTER")
    assert not one.blocks and not other.blocks


async def test_end_b_may_transmit(tmp_path: Path) -> None:
    one, other, _ = pair(tmp_path, {"role": Role.RECEIVER}, {"role": Role.TRANSMITTER})
    async with one, other:
        await one.makes()
        await other.makes()


async def test_a_key_store_that_refuses_is_reported_and_tried_again(tmp_path: Path) -> None:
    one, other, _ = pair(tmp_path)
    other.refuse = StorageFailed("the disk is full")
    async with one, other:
        await other.says("key store: the disk is full")
        other.refuse = None
        await other.makes()
        await one.makes()


async def test_the_rate_is_kept(tmp_path: Path) -> None:
    one, other, fibre = pair(tmp_path)
    Fibre.load(fibre).with_loss(8.0).save(fibre)
    async with one, other:
        await other.says(None)
        begun = asyncio.get_running_loop().time()
        await other.makes(250)
        seconds = asyncio.get_running_loop().time() - begun
    assert 250 * 512 * 8 / seconds == pytest.approx(7e6 * 10**-0.8, rel=0.35)


async def test_the_rate_is_kept_on_a_loop_that_is_busy(tmp_path: Path) -> None:
    """A block that comes late is none the less made of the light of all the time."""

    async def work() -> None:
        while True:
            await asyncio.sleep(0.01)
            end = time.perf_counter() + 0.15
            while time.perf_counter() < end:
                pass

    shared = [{**one, "block_bytes": 4096} for one in SimulatedDevice.example_pair(tmp_path)]
    one, other = (End(number, options) for number, options in enumerate(shared))
    Fibre.load(tmp_path / "fibre.json").with_loss(18.0).save(tmp_path / "fibre.json")
    async with one, other:
        await other.makes(1)
        busy, begun = asyncio.create_task(work()), asyncio.get_running_loop().time()
        await other.makes(16)
        seconds = asyncio.get_running_loop().time() - begun
        busy.cancel()
    assert 16 * 4096 * 8 / seconds == pytest.approx(7e6 * 10**-1.8, rel=0.05)


FAR_END = """
import asyncio, sys
from qswitch.agent.devices.base import DeviceLink
from qswitch.agent.devices.simulated import SimulatedDevice
from qswitch.agent.model import Role

async def deliver(number, key):
    print(number, flush=True)

async def main():
    device = SimulatedDevice(1, "far", 1, {"fibre": sys.argv[1], "end": sys.argv[2], "block_bytes": 512})
    nodes = ("n1", "n2") if sys.argv[2] == "a" else ("n2", "n1")
    await device.start(DeviceLink("l", Role.TRANSCEIVER, *nodes, None, None, int(sys.argv[3])), deliver, lambda report: None)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.parametrize("killed", ["a", "b"])
async def test_a_killed_far_end_comes_back(killed: str, tmp_path: Path) -> None:
    one, other, fibre = pair(tmp_path)
    near = other if killed == "a" else one
    async with near:
        for first_block in (0, 0):  # even when its key store forgot everything
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", FAR_END, str(fibre), killed, str(first_block), stdout=asyncio.subprocess.PIPE
            )
            try:
                await near.makes(20)
            finally:
                with suppress(ProcessLookupError):
                    process.send_signal(signal.SIGKILL)
                await process.wait()
            await near.says("the far end does not answer")
    assert list(near.blocks) == sorted(near.blocks)
    assert process.returncode == -signal.SIGKILL


def test_description(tmp_path: Path) -> None:
    options = {**SimulatedDevice.example_pair(tmp_path)[0], "model": "M", "technology": "CV-QKD", "rate_model": "low"}
    shown = SimulatedDevice(InterfaceId(3), "rack-1", 2, options).describe()
    assert (shown.interface, shown.model, shown.device, shown.port) == (3, "M", "rack-1", 2)
    assert shown.technology is Technology.CV_QKD
    assert shown.role_support is Role.TRANSCEIVER
    assert str(shown.max_absorption_db) == "19.0"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"fibre": None}, "'fibre' must be a text"),
        ({"fibre": "/nowhere/fibre.json"}, "/nowhere/fibre.json: No such file"),
        ({"end": "c"}, "'end' must be one of a, b"),
        ({"technology": "magic"}, "'technology' must be one of CV-QKD, DV-QKD"),
        ({"role_support": "BOTH"}, "'role_support' must be one of"),
        ({"block_bytes": 8}, "'block_bytes' must be a number within"),
        ({"rate_model": "warp"}, "'rate_model' must be one of high, low"),
        ({"colour": "blue"}, "unknown: colour"),
    ],
)
def test_wrong_options_are_named(change: dict[str, Any], problem: str, tmp_path: Path) -> None:
    options = {**SimulatedDevice.example_pair(tmp_path)[0], **change}
    with pytest.raises(ConfigurationError, match=problem):
        SimulatedDevice(InterfaceId(1), "device", 1, options)
