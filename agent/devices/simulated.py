"""A pair of simulated QKD devices: real random key, real pacing, a fibre that can be cut; only the physics is a formula.

Both ends look at the fibre's file five times a second. When no light comes through they part, and meet again when it does.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

from ..errors import ConfigurationError, NodeError
from ..model import Interface, InterfaceId, LinkId, Role, Technology
from .base import Deliver, DeviceLink, DeviceReport, QkdDevice, Report
from .channel import MAX_BLOCK, Channel, ChannelLost, End, Hello, agree, connect
from .exchange import Numbers, Receiver, Transmitter
from .fibre import Fibre
from .rates import RATE_MODELS, Performance, RateModel

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.2  # between two looks at the fibre's file
RETRY_SECONDS = {"a": 0.1, "b": 0.2}  # between two attempts to connect: a listens again before b dials again


@dataclass(frozen=True, slots=True)
class Options:
    """`fibre`: the file; `end`: "a" or "b"; the rest describes the device."""

    fibre: Path
    end: End
    model: str
    technology: Technology
    role_support: Role
    block_bytes: int
    rate_model: RateModel


class SimulatedDevice(QkdDevice):
    """One end of a simulated pair.

    Options: `fibre` (path of a `Fibre` file), `end` ("a" or "b"), `model`, `technology`, `role_support`, `block_bytes` and
    `rate_model` (a name of RATE_MODELS). A report says `running` also while a full key store holds the pair up.
    """

    def __init__(self, interface: InterfaceId, device: str, port: int, options: Mapping[str, Any]) -> None:
        super().__init__(interface, device, port, options)
        self._options = parse_options(interface, options)
        Fibre.load(self._options.fibre)  # a wrong path is worth an error now, not a report later
        self._numbers: dict[LinkId, Numbers] = {}
        self._task: asyncio.Task[None] | None = None

    @classmethod
    def example_pair(cls, folder: Path) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """A short fibre in `folder` and the options of its two ends."""
        fibre = folder / "fibre.json"
        Fibre("fibre", length_km=1.0, loss_db=1.0).save(fibre)
        shared = {"fibre": str(fibre), "block_bytes": 512}
        return {**shared, "end": "a"}, {**shared, "end": "b"}

    def describe(self) -> Interface:
        options = self._options
        return Interface(
            interface=self.interface,
            model=options.model,
            technology=options.technology,
            device=self.device,
            port=self.port,
            role_support=options.role_support,
            max_absorption_db=Decimal(str(options.rate_model.limit_db)),
        )

    async def start(self, link: DeviceLink, deliver: Deliver, report: Report) -> None:
        await self.stop()
        numbers = self._numbers.setdefault(link.link, Numbers(link.first_block))
        numbers.raise_to(link.first_block)
        pair = _Pair(self._options, link, numbers, deliver, report)
        self._task = asyncio.create_task(pair.run(), name=f"simulated device {self.interface}")

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])


class _Pair:
    """The life of one started link at one end: dark, connecting, generating, and over again."""

    def __init__(self, options: Options, link: DeviceLink, numbers: Numbers, deliver: Deliver, report: Report) -> None:
        self._options, self._link, self._numbers = options, link, numbers
        self._deliver, self._report = deliver, report
        self._watch = _Watch(options)
        self._told: DeviceReport | None = None
        self._connected = False

    async def run(self) -> None:
        while True:
            problem = await self._attempt()
            self._connected = False
            self._tell(DeviceReport(running=False, problem=problem))
            await asyncio.sleep(RETRY_SECONDS[self._options.end])

    async def _attempt(self) -> str:
        """One connection from its beginning to its end; answers why it ended."""
        problem = ""
        try:
            self._look()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._keep_looking())
                tasks.create_task(self._exchange())
        except* (ChannelLost, NodeError, OSError) as lost:
            problem = str(_first(lost))
        except* Exception as failure:
            log.exception("simulated device failed link=%s", self._link.link)
            problem = f"defect in the device: {type(_first(failure)).__name__}"
        return problem

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self._look()

    def _look(self) -> None:
        """Raises ChannelLost when no key can come through the fibre."""
        performance = self._watch.look()
        if performance.problem:
            raise ChannelLost(performance.problem)
        if self._connected:
            self._tell_running()

    async def _exchange(self) -> None:
        if self._told is None:
            self._tell(DeviceReport(running=False, problem="waiting for the far end"))
        with await connect(self._options.fibre, self._options.end) as channel:
            local = self._hello()
            agreement = agree(local, await channel.greet(local))
            self._numbers.raise_to(agreement.first_block)
            with self._end(channel, agreement.transmits) as end:
                self._connected = True
                log.info("devices connected link=%s first_block=%d", self._link.link, agreement.first_block)
                self._tell_running()
                await end.run()

    def _hello(self) -> Hello:
        link = self._link
        return Hello(
            end=self._options.end,
            link=link.link,
            role=link.role,
            local_node=link.local_node,
            remote_node=link.remote_node,
            wavelength=link.wavelength,
            next_block=self._numbers.following,
        )

    def _end(self, channel: Channel, transmits: bool) -> Transmitter | Receiver:
        if transmits:
            return Transmitter(channel, self._numbers, self._deliver, self._options.block_bytes, self._watch.rate)
        return Receiver(channel, self._numbers, self._deliver)

    def _tell_running(self) -> None:
        now = self._watch.performance
        self._tell(DeviceReport(True, now.skr_bps, now.qber, now.snr_db))

    def _tell(self, report: DeviceReport) -> None:
        if report != self._told:
            self._told = report
            self._report(report)


class _Watch:
    """What the fibre's file says, read again only when it was replaced or written."""

    def __init__(self, options: Options) -> None:
        self._file, self._model = options.fibre, options.rate_model
        self._stamp: tuple[int, int, int] | None = None
        self.performance = Performance(0.0, 0.0, 0.0, "the fibre was not looked at yet")

    def look(self) -> Performance:
        """Raises ConfigurationError when the file is unreadable or not there."""
        try:
            found = self._file.stat()
        except OSError as error:
            raise ConfigurationError(str(self._file), error.strerror or str(error)) from error
        stamp = (found.st_mtime_ns, found.st_ino, found.st_size)
        if stamp != self._stamp:
            self.performance = self._model.performance(Fibre.load(self._file))
            self._stamp = stamp
        return self.performance

    def rate(self) -> float:
        return self.performance.skr_bps


def _first(error: BaseException) -> BaseException:
    """The first error that is no group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


# Options -------------------------------------------------------------------------------------------------------------


def parse_options(interface: InterfaceId, options: Mapping[str, Any]) -> Options:
    """Checks the options of one device. Raises ConfigurationError naming the option and the rule."""
    where = f"options of interface {interface}"
    known = {"fibre", "end", "model", "technology", "role_support", "block_bytes", "rate_model"}
    if unknown := sorted(set(options) - known):
        raise ConfigurationError(where, f"unknown: {', '.join(unknown)}")
    return Options(
        fibre=Path(_text(where, options, "fibre")),
        end=cast(End, _one_of(where, options, "end", ("a", "b"))),
        model=_text(where, options, "model", "Simulated DV-QKD"),
        technology=Technology(_one_of(where, options, "technology", Technology, Technology.DV_QKD)),
        role_support=Role(_one_of(where, options, "role_support", Role, Role.TRANSCEIVER)),
        block_bytes=_block_bytes(where, options.get("block_bytes", 4096)),
        rate_model=RATE_MODELS[_one_of(where, options, "rate_model", RATE_MODELS, "high")],
    )


def _text(where: str, options: Mapping[str, Any], name: str, default: str | None = None) -> str:
    value = options.get(name, default)
    if not isinstance(value, str) or not value:
        raise ConfigurationError(where, f"'{name}' must be a text")
    return value


def _one_of(where: str, options: Mapping[str, Any], name: str, values: Iterable[str], default: str | None = None) -> str:
    value = options.get(name, default)
    if value not in (choices := [str(one) for one in values]):
        raise ConfigurationError(where, f"'{name}' must be one of {', '.join(choices)}")
    return str(value)


def _block_bytes(where: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 32 <= value <= MAX_BLOCK:
        raise ConfigurationError(where, f"'block_bytes' must be a number within 32..{MAX_BLOCK}")
    return value
