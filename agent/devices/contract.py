"""The promises of `QkdDevice`, run against a pair of devices: a vendor's own, or ours.

    python -m qswitch.agent.devices.contract PLUGIN [--a FILE --b FILE]

FILE is a TOML file with the options of one end; without them the plugin's `example_pair` is used. In a test suite call
`check_device_pair` with two functions that make the two ends, and demand that no result has a `problem`.

Longer than other modules, so that a vendor reads every promise in one place.
"""

import asyncio
import logging
import sys
import tempfile
import time
import tomllib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Self

import click

from qswitch.protocol.lkms import MAX_MESSAGE as MAX_BLOCK

from ..errors import NodeError
from ..lkms.keys import Key
from ..lkms.otp import TAG_KEY as MIN_BLOCK
from ..model import InterfaceId, LinkId, NodeId, Role
from .base import DeviceLink, DeviceReport, QkdDevice

GROUP = "qswitch.devices"
Make = Callable[[], QkdDevice]


class PromiseBroken(Exception):
    """What a device did that it must not; the text says it."""


@dataclass(frozen=True, slots=True)
class Result:
    """One promise, whether it was kept (`problem` is None), and how long that took to see."""

    promise: str
    problem: str | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Pace:
    """How long to wait: `patience` for what must come, `quiet` to see that nothing comes; `blocks` is how many must."""

    patience_seconds: float = 60.0
    quiet_seconds: float = 0.5
    blocks: int = 12


class End:
    """One device with a key store that can be full, remembering all that the device did."""

    def __init__(self, device: QkdDevice, pace: Pace) -> None:
        self.device, self.pace = device, pace
        self.numbers: list[int] = []
        self.blocks: dict[int, Key] = {}
        self.reports: list[DeviceReport] = []
        self.waiting = 0  # deliveries that wait for room
        self._room = asyncio.Event()
        self._room.set()
        self._changed = asyncio.Condition()
        self._notices: set[asyncio.Task[None]] = set()

    def fill(self, full: bool) -> None:
        """A full store keeps every delivery waiting."""
        if full:
            self._room.clear()
        else:
            self._room.set()

    async def start(self, link: DeviceLink) -> None:
        await self._in_time(self.device.start(link, self._deliver, self._report), "start did not return")

    async def stop(self) -> None:
        await self._in_time(self.device.stop(), "stop did not return")

    async def until(self, reached: Callable[[], bool], problem: str) -> None:
        """Waits for something to be so. Raises PromiseBroken with `problem` and the last report."""
        try:
            async with asyncio.timeout(self.pace.patience_seconds), self._changed:
                await self._changed.wait_for(reached)
        except TimeoutError as error:
            last = self.reports[-1].problem if self.reports else "it never reported"
            raise PromiseBroken(f"{problem} (last problem reported: {last})") from error

    async def until_blocks(self, count: int) -> None:
        """Waits for that many more blocks."""
        wanted = len(self.numbers) + count
        await self.until(lambda: len(self.numbers) >= wanted, f"fewer than {count} blocks came")

    async def _deliver(self, number: int, key: Key) -> None:
        self.waiting += 1
        try:
            await self._room.wait()
        except asyncio.CancelledError:
            key.wipe()  # it was handed over with the call
            raise
        finally:
            self.waiting -= 1
        self.numbers.append(number)
        self.blocks[number] = key
        await self._tell()

    def _report(self, report: DeviceReport) -> None:
        self.reports.append(report)
        task = asyncio.ensure_future(self._tell())
        self._notices.add(task)
        task.add_done_callback(self._notices.discard)

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _in_time(self, call: Awaitable[None], problem: str) -> None:
        try:
            async with asyncio.timeout(self.pace.patience_seconds):
                await call
        except TimeoutError as error:
            raise PromiseBroken(problem) from error


@dataclass
class Pair:
    """Two ends of one fresh link. `renew` is what a restart of both processes does to them."""

    make_a: Make
    make_b: Make
    pace: Pace
    link: LinkId = field(default_factory=lambda: LinkId(str(uuid.uuid4())))

    def __post_init__(self) -> None:
        self.nodes = NodeId(str(uuid.uuid4())), NodeId(str(uuid.uuid4()))
        self.a, self.b = End(self.make_a(), self.pace), End(self.make_b(), self.pace)

    async def renew(self) -> None:
        await self.stop()
        self.a.device, self.b.device = self.make_a(), self.make_b()

    async def start(self, first_a: int = 0, first_b: int = 0) -> None:
        await self.start_a(first_a)
        await self.start_b(first_b)

    async def start_a(self, first_block: int = 0) -> None:
        await self.a.start(self._link(Role.TRANSMITTER, 0, first_block))

    async def start_b(self, first_block: int = 0) -> None:
        await self.b.start(self._link(Role.RECEIVER, 1, first_block))

    async def stop(self) -> None:
        await asyncio.gather(self.a.stop(), self.b.stop())

    async def until_blocks(self) -> None:
        await asyncio.gather(*(end.until_blocks(self.pace.blocks) for end in (self.a, self.b)))

    async def run_once(self, first_a: int = 0, first_b: int = 0) -> None:
        await self.start(first_a, first_b)
        await self.until_blocks()
        await self.stop()

    def highest(self) -> int:
        return max(self.a.numbers + self.b.numbers)

    def _link(self, role: Role, end: int, first_block: int) -> DeviceLink:
        return DeviceLink(self.link, role, self.nodes[end], self.nodes[1 - end], None, None, first_block)


def demand(kept: bool, problem: str) -> None:
    """Raises PromiseBroken unless the promise is kept."""
    if not kept:
        raise PromiseBroken(problem)


def demand_rising(end: End) -> None:
    pairs = zip(end.numbers, end.numbers[1:], strict=False)
    demand(all(one < other for one, other in pairs), f"block numbers do not rise: {end.numbers[:20]}…")


# The promises --------------------------------------------------------------------------------------------------------


async def same_blocks(pair: Pair) -> None:
    """both ends deliver the same blocks under the same rising numbers"""
    await pair.run_once()
    common = pair.a.blocks.keys() & pair.b.blocks.keys()
    demand(len(common) >= pair.pace.blocks // 2, f"of {len(pair.a.blocks)} blocks only {len(common)} came at both ends")
    for number in common:
        demand(len(pair.a.blocks[number]) >= MIN_BLOCK, f"block {number} is shorter than {MIN_BLOCK} octets")
        demand(len(pair.a.blocks[number]) <= MAX_BLOCK, f"block {number} is longer than {MAX_BLOCK} octets")
        demand(pair.a.blocks[number] == pair.b.blocks[number], f"block {number} differs")
    demand(len({number % 2 for number in common}) == 2, "blocks have even numbers only, or odd ones only")
    demand_rising(pair.a)
    demand_rising(pair.b)


async def fresh_blocks(pair: Pair) -> None:
    """no two blocks hold the same key"""
    await pair.run_once()
    blocks = list(pair.a.blocks.values())
    same = any(one == other for place, one in enumerate(blocks) for other in blocks[:place])
    demand(not same, "two blocks are equal")
    zero = any(not any(key.view()) for key in blocks)
    demand(not zero, "a block is all zeros: it was wiped after it was handed over, or never drawn")


async def first_block(pair: Pair) -> None:
    """numbers are not below the larger first_block of the two ends"""
    await pair.run_once(7, 1_000_000)
    lowest = min(pair.a.numbers + pair.b.numbers)
    demand(lowest >= 1_000_000, f"block {lowest} came although one end asked for 1000000 on")


async def start_alone(pair: Pair) -> None:
    """start returns before the far end is there, and key flows once it is"""
    await pair.start_a()
    await asyncio.sleep(pair.pace.quiet_seconds)
    demand(not pair.a.numbers, "blocks came before the far end was started")
    await pair.start_b()
    await pair.until_blocks()


async def reports(pair: Pair) -> None:
    """reports say when key flows, how fast, and in words why it does not"""
    await pair.start()
    for end in (pair.a, pair.b):
        await end.until(lambda end=end: any(one.running for one in end.reports), "no report says running")  # type: ignore[misc]
        running = next(one for one in end.reports if one.running)
        demand(running.skr_bps > 0, "a report says running at no rate")
        demand(running.qber is None or 0 <= running.qber <= 0.5, f"QBER {running.qber} is no fraction of 1")
    await pair.b.stop()
    await pair.a.until(lambda: not pair.a.reports[-1].running, "the far end has gone and the report still says running")
    demand(bool(pair.a.reports[-1].problem), "the report does not say why the device does not run")


async def back_pressure(pair: Pair) -> None:
    """a full key store at either end stops the generation and does not end it"""
    await pair.start()
    await pair.until_blocks()
    for full, free in ((pair.a, pair.b), (pair.b, pair.a)):
        full.fill(True)
        await _quiet(free, pair.pace)
        demand(full.waiting <= 1, f"{full.waiting} deliveries wait at once: blocks pile up or lose their order")
        full.fill(False)
        await pair.until_blocks()
    demand_rising(pair.a)
    demand_rising(pair.b)


async def _quiet(end: End, pace: Pace) -> None:
    """Waits until nothing more comes at this end. Raises PromiseBroken when it never ends."""
    deadline = time.monotonic() + pace.patience_seconds
    while time.monotonic() < deadline:
        before = len(end.numbers)
        await asyncio.sleep(pace.quiet_seconds)
        if len(end.numbers) == before:
            return
    raise PromiseBroken("blocks keep coming at one end while the key store of the other is full")


async def stop_means_stop(pair: Pair) -> None:
    """nothing is delivered once stop has returned, also when it came while the key store was full"""
    await pair.start()
    await pair.until_blocks()
    pair.a.fill(True)
    await _quiet(pair.b, pair.pace)
    await pair.stop()
    before = len(pair.a.numbers), len(pair.b.numbers)
    pair.a.fill(False)
    await asyncio.sleep(pair.pace.quiet_seconds)
    after = len(pair.a.numbers), len(pair.b.numbers)
    demand(before == after, f"after stop {sum(after) - sum(before)} blocks were delivered")


async def stop_at_any_time(pair: Pair) -> None:
    """stop may come before start, right after it, and twice"""
    await pair.stop()
    await pair.start()
    await pair.stop()
    await pair.stop()
    await pair.start()
    await pair.until_blocks()


async def far_end_returns(pair: Pair) -> None:
    """when one end is stopped and started, key flows again under new numbers"""
    await pair.start()
    await pair.until_blocks()
    for stop, start in ((pair.a.stop, pair.start_a), (pair.b.stop, pair.start_b)):
        await stop()
        await start()
        await pair.until_blocks()
    demand_rising(pair.a)
    demand_rising(pair.b)


async def both_return(pair: Pair) -> None:
    """after a restart of the process numbers go on above those that the key store knows"""
    await pair.run_once()
    highest = pair.highest()
    await pair.renew()
    await pair.run_once(highest + 1, 0)
    demand_rising(pair.a)
    demand_rising(pair.b)
    later = [number for end in (pair.a, pair.b) for number in end.numbers[-pair.pace.blocks :]]
    demand(min(later) > highest, "a number was used twice")


async def silence(pair: Pair) -> None:
    """neither logs nor reports hold key"""
    with _Ear() as ear:
        await pair.run_once()
        await pair.start()
        await pair.b.stop()
        await pair.a.stop()
    said = ear.said + [repr(report) for report in pair.a.reports + pair.b.reports]
    for key in [*pair.a.blocks.values(), *pair.b.blocks.values()]:
        start = bytes(key.view()[:8])
        shapes = (repr(start)[2:-1], start.hex(), repr(start.hex(" "))[1:-1])
        demand(not any(shape in text for shape in shapes for text in said), "a log line or report holds key")


class _Ear(logging.Handler):
    """Everything that is logged while it listens, at any level."""

    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(self.format(record))

    def __enter__(self) -> Self:
        root = logging.getLogger()
        self._level = root.level
        root.setLevel(logging.DEBUG)
        root.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        root = logging.getLogger()
        root.removeHandler(self)
        root.setLevel(self._level)


PROMISES: tuple[Callable[[Pair], Awaitable[None]], ...] = (
    same_blocks,
    fresh_blocks,
    first_block,
    start_alone,
    reports,
    back_pressure,
    stop_means_stop,
    stop_at_any_time,
    far_end_returns,
    both_return,
    silence,
)


# Running them --------------------------------------------------------------------------------------------------------


async def check_device_pair(make_a: Make, make_b: Make, pace: Pace | None = None) -> list[Result]:
    """Runs every promise on a fresh pair; one that is broken does not keep the rest from being looked at."""
    return [result async for result in results(make_a, make_b, pace or Pace())]


async def results(make_a: Make, make_b: Make, pace: Pace) -> AsyncIterator[Result]:
    """The same, each result as soon as it is known."""
    for promise in PROMISES:
        begun, problem = time.monotonic(), None
        try:
            async with fresh_pair(make_a, make_b, pace) as pair:
                await promise(pair)
        except PromiseBroken as broken:
            problem = str(broken)
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
        yield Result(promise.__doc__ or promise.__name__, problem, time.monotonic() - begun)


@asynccontextmanager
async def fresh_pair(make_a: Make, make_b: Make, pace: Pace) -> AsyncIterator[Pair]:
    """A pair on a link of its own; afterwards both ends are stopped and what they delivered is wiped."""
    pair = Pair(make_a, make_b, pace)
    try:
        yield pair
    finally:
        await pair.stop()
        for end in (pair.a, pair.b):
            for key in end.blocks.values():
                key.wipe()


def load_plugin(name: str) -> type[QkdDevice]:
    """The class that an installed package registered under the name. Raises click.ClickException naming those there are."""
    found = {one.name: one for one in entry_points(group=GROUP)}
    if name not in found:
        raise click.ClickException(f"no plugin '{name}' in {GROUP}; there are: {', '.join(sorted(found)) or 'none'}")
    plugin = found[name].load()
    if not (isinstance(plugin, type) and issubclass(plugin, QkdDevice)):
        raise click.ClickException(f"plugin '{name}' ({found[name].value}) is no class derived from QkdDevice")
    return plugin


@click.command()
@click.argument("plugin")
@click.option("--a", type=click.Path(exists=True, path_type=Path), help="TOML file: options of one end.")
@click.option("--b", type=click.Path(exists=True, path_type=Path), help="TOML file: options of the other end.")
@click.option("--patience", type=float, default=60.0, show_default=True, help="Seconds to wait for what must come.")
def main(plugin: str, a: Path | None, b: Path | None, patience: float) -> None:
    """Check that PLUGIN keeps the promises of a QKD device, on a pair of it. Exit status 1 when one is broken."""
    device = load_plugin(plugin)
    with tempfile.TemporaryDirectory(prefix="qkd-contract-") as folder:
        try:
            broken = asyncio.run(_print_results(device, _options(device, Path(folder), a, b), Pace(patience)))
        except NodeError as error:
            raise click.ClickException(str(error)) from error
    click.echo(f"{plugin}: {'keeps every promise' if not broken else f'{broken} promises broken'}")
    sys.exit(1 if broken else 0)


def _options(
    device: type[QkdDevice], folder: Path, a: Path | None, b: Path | None
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    if a is not None and b is not None:
        return tomllib.loads(a.read_text(encoding="utf-8")), tomllib.loads(b.read_text(encoding="utf-8"))
    example = device.example_pair(folder)
    if example is None or a is not None or b is not None:
        raise click.UsageError("give the options of both ends with --a FILE --b FILE")
    return example


async def _print_results(device: type[QkdDevice], options: tuple[Mapping[str, Any], Mapping[str, Any]], pace: Pace) -> int:
    make_a, make_b = makers(device, options)
    make_a(), make_b()  # wrong options are an error of the caller, not a broken promise
    broken = 0
    async for result in results(make_a, make_b, pace):
        broken += result.problem is not None
        click.echo(f"{'broken' if result.problem else 'kept  '} {result.seconds:6.1f} s  {result.promise}")
        if result.problem:
            click.echo(f"{'':17}{result.problem}")
    return broken


def makers(device: type[QkdDevice], options: tuple[Mapping[str, Any], Mapping[str, Any]]) -> tuple[Make, Make]:
    """Functions that make the two ends of a pair."""
    a, b = options
    return (
        lambda: device(InterfaceId(1), "contract-a", 1, a),
        lambda: device(InterfaceId(1), "contract-b", 1, b),
    )


if __name__ == "__main__":
    main()
