"""Device plugins by name, and what the controllers hear of interfaces."""

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from qswitch.agent.config import InterfaceConfig
from qswitch.agent.devices.base import Deliver, DeviceLink, QkdDevice, Report
from qswitch.agent.errors import ConfigurationError
from qswitch.agent.interfaces import GROUP, InterfaceTable, Plugins
from qswitch.agent.model import (
    Interface,
    InterfaceDown,
    InterfaceId,
    InterfaceNew,
    InterfaceOut,
    InterfaceStatus,
    Notification,
    Role,
    Technology,
)

FILE = Path("agent.toml")


class Vendor(QkdDevice):
    def describe(self) -> Interface:
        return Interface(self.interface, "v", Technology.DV_QKD, self.device, self.port, Role.TRANSMITTER)

    async def start(self, link: DeviceLink, deliver: Deliver, report: Report) -> None: ...

    async def stop(self) -> None: ...


class Grumpy(Vendor):
    def __init__(self, *_: object) -> None:
        raise RuntimeError("no licence")


def config(plugin: str) -> InterfaceConfig:
    return InterfaceConfig(3, plugin, 9, "rack 1", {"x": 1})


def point(name: str, value: str) -> EntryPoint:
    return EntryPoint(name, value, GROUP)


def plugins(*names: str) -> Plugins:
    return Plugins([point(name.lower(), f"{__name__}:{name}") for name in names], FILE)


def test_the_register_makes_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EntryPoint, "load", lambda self: globals()[self.value.split(":")[1]])
    device = plugins("Vendor").create(config("vendor"))
    assert (device.interface, device.device, device.port, device.options) == (3, "rack 1", 9, {"x": 1})
    with pytest.raises(ConfigurationError, match="no licence"):
        plugins("Grumpy").create(config("grumpy"))
    monkeypatch.setattr(EntryPoint, "load", lambda _: lambda *_: object())
    with pytest.raises(ConfigurationError, match="no QkdDevice"):
        plugins("Vendor").create(config("vendor"))


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match=r"qkdi_id 3: .* plugin 'acme' \(installed: grumpy, vendor\)"):
        plugins("Vendor", "Grumpy").create(config("acme"))


def test_a_name_claimed_twice_names_both() -> None:
    with pytest.raises(ConfigurationError, match="one:A and by two:B"):
        Plugins([point("x", "one:A"), point("x", "two:B")], FILE)
    Plugins([point("x", "one:A"), point("x", "one:A")], FILE)  # installed twice


def test_the_simulated_device_is_installed() -> None:
    with pytest.raises(ConfigurationError, match="simulated"):
        Plugins.installed(FILE).create(config("acme"))


def test_interfaces_are_announced_and_failures_told_once() -> None:
    said: list[Notification] = []
    device = Vendor(InterfaceId(3), "rack 1", 9, {})
    table = InterfaceTable({device.interface: device}, said.append)
    table.announce([InterfaceId(4)])
    assert said == [InterfaceNew(device.describe()), InterfaceOut(InterfaceId(4))]
    said.clear()
    for _ in range(2):
        table.failed(InterfaceId(3), "smoke")
    assert said[0] == InterfaceDown(InterfaceId(3), "smoke") and len(said) == 2
    assert table.statuses() == {3: InterfaceStatus.FAILED}
    for _ in range(2):
        table.recovered(InterfaceId(3))
    assert table.statuses() == {3: InterfaceStatus.ENABLED} and len(said) == 3
