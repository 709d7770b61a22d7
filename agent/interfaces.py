"""Interfaces: which QKD devices the node has, and how each of them is.

A device plugin is a class in the entry-point group `qswitch.devices`. The register of plugins lives on an instance. A
name that two packages claim is an error naming both: which one runs must not depend on the order of installation.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import MappingProxyType

from .config import InterfaceConfig
from .devices.base import QkdDevice
from .errors import ConfigurationError
from .model import (
    Event,
    Interface,
    InterfaceDown,
    InterfaceId,
    InterfaceNew,
    InterfaceOut,
    InterfaceStatus,
    Notification,
    Severity,
)

log = logging.getLogger(__name__)
GROUP = "qswitch.devices"


class Plugins:
    """The device plugins by name. Raises ConfigurationError when two entry points claim one name."""

    def __init__(self, found: Iterable[EntryPoint], file: Path) -> None:
        self._file = file
        self._points: dict[str, EntryPoint] = {}
        for point in found:
            if (first := self._points.setdefault(point.name, point)).value != point.value:
                raise ConfigurationError(
                    str(file), f"device plugin '{point.name}' is claimed by {first.value} and by {point.value}"
                )

    @classmethod
    def installed(cls, file: Path) -> "Plugins":
        """Those of all installed packages; `file` is the configuration file to name in errors."""
        return cls(entry_points(group=GROUP), file)

    def create(self, config: InterfaceConfig) -> QkdDevice:
        """A new device. Raises ConfigurationError: an unknown plugin, one that does not load, options it refuses."""
        if (point := self._points.get(config.plugin)) is None:
            known = ", ".join(sorted(self._points)) or "none"
            raise self._problem(config, f"there is no device plugin '{config.plugin}' (installed: {known})")
        try:
            made = point.load()(InterfaceId(config.interface), config.device, config.port, dict(config.options))
        except ConfigurationError:
            raise
        except Exception as error:  # a vendor's code: whatever it raises is a plugin that cannot be used
            raise self._problem(config, f"plugin '{config.plugin}' cannot be used: {error!r}") from error
        if not isinstance(made, QkdDevice):
            raise self._problem(config, f"plugin '{config.plugin}' ({point.value}) is no QkdDevice")
        return made

    def _problem(self, config: InterfaceConfig, problem: str) -> ConfigurationError:
        return ConfigurationError(str(self._file), f"[interfaces] qkdi_id {config.interface}: {problem}")


class InterfaceTable:
    """The node's interfaces, their devices and their status (015: ENABLED, FAILED).

    `lock(i)` is held by the link that uses a device, from before its start until after its stop: when one edit moves an
    interface from one link to another, the second waits for the first.
    """

    def __init__(self, devices: Mapping[InterfaceId, QkdDevice], notify: Callable[[Notification], None]) -> None:
        self._devices = dict(devices)
        self._notify = notify
        self._failed: dict[InterfaceId, str] = {}
        self._locks = {number: asyncio.Lock() for number in devices}
        self.interfaces: Mapping[InterfaceId, Interface] = MappingProxyType(
            {number: device.describe() for number, device in sorted(devices.items())}
        )

    def announce(self, gone: Iterable[InterfaceId] = ()) -> None:
        """Tells the controllers what is here and what is `gone` since the last start.

        `interface_new` is sent for every interface at every start, not only for new ones: notifications have no replay,
        so nobody knows which controller heard the last one, and a device may have been exchanged behind the same number.
        """
        for interface in self.interfaces.values():
            self._notify(InterfaceNew(interface))
        for number in sorted(gone):
            self._notify(InterfaceOut(number))

    def device(self, number: InterfaceId) -> QkdDevice:
        return self._devices[number]

    def lock(self, number: InterfaceId) -> asyncio.Lock:
        return self._locks[number]

    def failed(self, number: InterfaceId, reason: str) -> None:
        """The device does not do what it is told. Said once, until `recovered`."""
        if number in self._failed:
            return
        self._failed[number] = reason
        log.error("device failed interface=%s reason=%s", number, reason)
        self._notify(InterfaceDown(number, reason))
        self._notify(self._event(number, reason, Severity.MAJOR, InterfaceStatus.FAILED, is_alarm=True))

    def recovered(self, number: InterfaceId) -> None:
        if self._failed.pop(number, None) is not None:
            log.info("device recovered interface=%s", number)
            self._notify(self._event(number, "device recovered", Severity.MINOR, InterfaceStatus.ENABLED))

    def statuses(self) -> Mapping[InterfaceId, InterfaceStatus]:
        return {
            number: InterfaceStatus.FAILED if number in self._failed else InterfaceStatus.ENABLED
            for number in self.interfaces
        }

    @staticmethod
    def _event(
        number: InterfaceId, message: str, severity: Severity, status: InterfaceStatus, is_alarm: bool = False
    ) -> Event:
        return Event(message, severity, is_alarm=is_alarm, interface=number, interface_status=status)
