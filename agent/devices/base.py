"""What a vendor implements to bring a QKD system into a node.

A plugin is a class derived from `QkdDevice`, named in the entry-point group `qswitch.devices` of its package's metadata.
`contract.py` runs the promises made here against any plugin.
"""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qswitch.protocol.loglines import printable

from ..lkms.keys import Key
from ..model import Interface, InterfaceId, LinkId, NodeId, Role


@dataclass(frozen=True, slots=True)
class DeviceLink:
    """What a device is told when a physical link is put on it."""

    link: LinkId
    role: Role
    local_node: NodeId
    remote_node: NodeId
    wavelength: str | None
    attenuation_db: float | None  # what the controller expects of the channel, in dB
    first_block: int  # block numbers delivered from now on are not below this


@dataclass(frozen=True, slots=True)
class DeviceReport:
    """What a device says of itself: `running` means that it generates key now.

    skr_bps is bit/s of secret key after all post-processing, qber a fraction of 1, snr_db in dB; None is "not measured".
    `problem` says in words why it does not run, or warns; it never holds key.
    """

    running: bool
    skr_bps: float = 0.0
    qber: float | None = None
    snr_db: float | None = None
    problem: str | None = None


_MOST = 1e12


def legible(report: DeviceReport) -> DeviceReport:
    """A report as the node may pass it on, whatever the vendor wrote into it: figures that are none are not measured, and
    what is said in words has no character that YANG does not know."""
    return DeviceReport(
        running=bool(report.running),
        skr_bps=max(0.0, _figure(report.skr_bps) or 0.0),
        qber=_figure(report.qber),
        snr_db=_figure(report.snr_db),
        problem=None if report.problem is None else printable(str(report.problem)),
    )


def _figure(value: Any) -> float | None:
    try:
        return float(value) if abs(float(value)) < _MOST else None  # false for NaN
    except (TypeError, ValueError, OverflowError):
        return None


Deliver = Callable[[int, Key], Awaitable[None]]
Report = Callable[[DeviceReport], None]


class QkdDevice(ABC):
    """One end of a QKD system, attached to one interface.

    Contract:

    - `start` returns once the device has accepted the link; connecting to the far end goes on in the background, for as
      long as it takes, and again after every loss. Progress is told through `report`.
    - Both ends deliver the same blocks under the same numbers: `await deliver(number, key)`. Numbers rise, never repeat
      for the life of a link, are not below the larger `first_block` of the two ends, and not above 2^62. A block may be
      missing at one end. Even numbers belong to one end and odd ones to the other, so both come, in blocks of at least 32
      octets and at most 1 MiB, better of 4 KiB: each end authenticates what it has to say of the link with key of its own,
      taken whole from one block. The key is handed over with the call, also when the call is cancelled; the device keeps
      no copy.
    - `deliver` waits while the key store is full: the device then stops generating, it does not pile up.
    - `report` is called on every change worth knowing: running or not, rate by more than a tenth, QBER.
    - `stop` ends generation, wipes what was not delivered and returns when nothing more will be delivered. It may be
      called at any time, also twice; `start` may follow.
    - Errors in options raise agent.errors.ConfigurationError from the constructor; a device that fails later says so in
      a report and tries on. Nothing in a log or report ever holds key.
    """

    def __init__(self, interface: InterfaceId, device: str, port: int, options: Mapping[str, Any]) -> None:
        self.interface, self.device, self.port, self.options = interface, device, port, options

    @classmethod
    def example_pair(cls, folder: Path) -> tuple[Mapping[str, Any], Mapping[str, Any]] | None:
        """Options of two ends that meet on one machine, by way of what is made in `folder`; None: hardware only."""
        del folder
        return None

    @abstractmethod
    def describe(self) -> Interface:
        """The interface as 015 shows it; may be called before `start`."""

    @abstractmethod
    async def start(self, link: DeviceLink, deliver: Deliver, report: Report) -> None: ...

    @abstractmethod
    async def stop(self) -> None: ...
