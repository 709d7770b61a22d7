"""Links: the table without gaps, the rules for configuration, and workers that neither hang nor hurry."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from itertools import product
from types import MappingProxyType

import pytest

from qswitch.agent.devices.base import Deliver, DeviceLink, DeviceReport, QkdDevice, Report
from qswitch.agent.errors import InvalidValue, StorageFailed
from qswitch.agent.interfaces import InterfaceTable
from qswitch.agent.link_rules import (
    STATUS,
    TRANSITIONS,
    Activity,
    LinkEvent,
    Rate,
    Refill,
    check,
    expected_consumption,
    is_news,
)
from qswitch.agent.links import LinkTable
from qswitch.agent.lkms.keys import Key
from qswitch.agent.model import (
    ApplicationConfig,
    Configuration,
    Event,
    Interface,
    InterfaceDown,
    InterfaceId,
    InterfaceStatus,
    KeyLevels,
    KeyStreamId,
    LinkConfig,
    LinkDown,
    LinkId,
    LinkOverloaded,
    LinkPerformanceUpdate,
    LinkStatus,
    LinkType,
    NodeId,
    Notification,
    Performance,
    Qos,
    RelayTotals,
    Role,
    Technology,
)
from qswitch.agent.tasks import Tasks

HERE, THERE, FAR = (NodeId(f"0000000{n}-0000-4000-8000-000000000000") for n in (1, 2, 3))
FIBRE, ROUTE = LinkId("aaaaaaaa-0000-4000-8000-000000000000"), LinkId("bbbbbbbb-0000-4000-8000-000000000000")
PORT = Interface(InterfaceId(1), "model", Technology.DV_QKD, "device", 1, Role.TRANSMITTER, None, Decimal("20"))
SPARE = replace(PORT, interface=InterfaceId(2), role_support=Role.TRANSCEIVER)
PHYSICAL = LinkConfig(
    FIBRE, LinkType.PHYSICAL, local_node=HERE, local_interface=InterfaceId(1), remote_node=THERE, role=Role.TRANSMITTER
)
VIRTUAL = LinkConfig(ROUTE, LinkType.VIRTUAL, local_node=HERE, remote_node=FAR, next_hops=(THERE,))


def configuration(*links: LinkConfig, **more: object) -> Configuration:
    return Configuration(HERE, links=MappingProxyType({one.link: one for one in links}), **more)  # type: ignore[arg-type]


# The table -----------------------------------------------------------------------------------------------------------


def test_every_activity_knows_every_event() -> None:
    assert set(TRANSITIONS) == set(product(Activity, LinkEvent))


@pytest.mark.parametrize("activity", Activity)
def test_a_disabled_link_is_held_and_stays_so_whatever_its_device_says(activity: Activity) -> None:
    held, _ = TRANSITIONS[activity, LinkEvent.DISABLED]
    assert held is Activity.HELD
    assert all(TRANSITIONS[held, event][0] is held for event in (LinkEvent.RUNS, LinkEvent.STOPS))


def test_statuses_are_those_of_015() -> None:
    generating = {status for (activity, _), status in STATUS.items() if activity is Activity.RUNNING}
    assert generating == {LinkStatus.ACTIVE}
    resting_with_key = {status for (activity, key), status in STATUS.items() if key and activity is not Activity.RUNNING}
    assert resting_with_key == {LinkStatus.PASSIVE}
    assert STATUS[Activity.WAITING, False] is LinkStatus.PENDING
    assert STATUS[Activity.HELD, False] is STATUS[Activity.BROKEN, False] is LinkStatus.OFF


# Rules ---------------------------------------------------------------------------------------------------------------

REFUSED = {
    "interface named": (replace(PHYSICAL, local_interface=None), "qkdl_local/qkdi_id"),
    "interface there": (replace(PHYSICAL, local_interface=InterfaceId(7)), "qkdl_local/qkdi_id"),
    "this node": (replace(PHYSICAL, local_node=THERE), "qkdl_local/qkdn_id"),
    "other node": (replace(PHYSICAL, remote_node=None), "qkdl_remote/qkdn_id"),
    "not itself": (replace(PHYSICAL, remote_node=HERE), "qkdl_remote/qkdn_id"),
    "role": (replace(PHYSICAL, role=Role.RECEIVER), "phys_qkd_role"),
    "absorption": (replace(PHYSICAL, attenuation_db=Decimal("20.001")), "phys_channel_att"),
    "hops": (replace(VIRTUAL, next_hops=()), "virt_next_hop"),
    "own hop": (replace(VIRTUAL, next_hops=(HERE,)), "virt_next_hop"),
}
ACCEPTED = {
    "plain": PHYSICAL,
    "any role on a transceiver": replace(PHYSICAL, local_interface=InterfaceId(2), role=Role.RECEIVER),
    "no role": replace(PHYSICAL, role=None),
    "absorption": replace(PHYSICAL, attenuation_db=Decimal("20")),
    "source": VIRTUAL,
    "destination": replace(VIRTUAL, next_hops=(), previous_hop=THERE),
    "relay": replace(VIRTUAL, previous_hop=FAR, local_node=FAR, remote_node=THERE),
}
INTERFACES = {PORT.interface: PORT, SPARE.interface: SPARE}


@pytest.mark.parametrize(("link", "leaf"), REFUSED.values(), ids=REFUSED)
def test_a_refusal_names_the_leaf(link: LinkConfig, leaf: str) -> None:
    with pytest.raises(InvalidValue, match="is refused") as refusal:
        check(configuration(link), INTERFACES)
    assert refusal.value.path.endswith(f"[qkdl_id='{link.link}']/{leaf}")


@pytest.mark.parametrize("link", ACCEPTED.values(), ids=ACCEPTED)
def test_what_a_node_can_do_is_accepted(link: LinkConfig) -> None:
    check(configuration(link), INTERFACES)


def test_an_interface_serves_one_link() -> None:
    with pytest.raises(InvalidValue, match=FIBRE):
        check(configuration(PHYSICAL, replace(PHYSICAL, link=ROUTE)), INTERFACES)


def test_a_node_that_does_not_relay_is_no_intermediate_but_may_be_an_end() -> None:
    check(configuration(VIRTUAL, relay_mode=False), INTERFACES)
    with pytest.raises(InvalidValue, match="key_relay_mode_enable"):
        check(configuration(ACCEPTED["relay"], relay_mode=False), INTERFACES)


WHOLE = LinkId("cccccccc-0000-4000-8000-000000000000")
PARTS = tuple(LinkId(f"dddddddd-0000-4000-8000-00000000000{n}") for n in (1, 2))
OTHER = NodeId("00000004-0000-4000-8000-000000000000")
OVER = tuple(replace(VIRTUAL, link=part, next_hops=(hop,), component_of=WHOLE) for part, hop in zip(PARTS, (THERE, OTHER)))  # noqa: B905
DOUBLE = LinkConfig(WHOLE, LinkType.VIRTUAL, local_node=HERE, remote_node=FAR, components=PARTS)


def test_a_link_over_two_paths_is_accepted_at_its_ends() -> None:
    check(configuration(DOUBLE, *OVER), INTERFACES)
    back = [replace(one, next_hops=(), previous_hop=one.next_hop) for one in OVER]
    check(configuration(DOUBLE, *back), INTERFACES)
    check(configuration(replace(OVER[0], previous_hop=FAR, local_node=FAR, remote_node=THERE)), INTERFACES)  # a relay node


@pytest.mark.parametrize(
    ("links", "leaf"),
    [
        ([replace(DOUBLE, components=PARTS[:1]), OVER[0]], "components"),
        ([replace(DOUBLE, next_hops=(THERE,)), *OVER], "components"),
        ([DOUBLE, OVER[0]], "components"),
        ([DOUBLE, OVER[0], replace(OVER[1], remote_node=THERE)], "components"),
        ([DOUBLE, OVER[0], replace(OVER[1], component_of=None)], "components"),
        ([DOUBLE, OVER[0], replace(OVER[1], previous_hop=FAR)], "components"),
        ([DOUBLE, OVER[0], replace(OVER[1], next_hops=(THERE,))], "components"),
        ([DOUBLE, OVER[0], replace(OVER[1], next_hops=(), previous_hop=OTHER)], "components"),
        ([OVER[0]], "component_of"),
        ([replace(DOUBLE, components=(PARTS[1],)), *OVER], "component"),
    ],
)
def test_what_is_no_link_over_several_paths_is_refused(links: list[LinkConfig], leaf: str) -> None:
    with pytest.raises(InvalidValue) as refusal:
        check(configuration(*links), INTERFACES)
    assert f"/qkd-node-extensions:{leaf}" in refusal.value.path


# Rates ---------------------------------------------------------------------------------------------------------------


def test_consumption_counts_applications_and_what_is_relayed_over_the_link() -> None:
    apps = [
        ApplicationConfig(KeyStreamId("a"), qos=Qos(5000, 100), backing_links=(FIBRE,), remote_node=THERE),
        ApplicationConfig(KeyStreamId("b"), qos=Qos(None, 100), backing_links=(FIBRE,), remote_node=THERE),
        ApplicationConfig(KeyStreamId("c"), qos=Qos(70), backing_links=(FIBRE,)),  # its peer is not known yet
        ApplicationConfig(KeyStreamId("d"), qos=Qos(70), backing_links=(ROUTE,), remote_node=FAR),
    ]
    through = replace(VIRTUAL, bandwidth_bps=1000)
    assert expected_consumption(PHYSICAL, [PHYSICAL, through], apps, {}) == 6100
    assert expected_consumption(VIRTUAL, [PHYSICAL, through], apps, {}) == 70


def test_who_named_no_rate_counts_with_what_it_drew() -> None:
    named = ApplicationConfig(KeyStreamId("a"), qos=Qos(None, 100), backing_links=(FIBRE,), remote_node=THERE)
    others = [replace(named, ksid=KeyStreamId(one), qos=Qos()) for one in "bc"]
    drawn = {"a": 900.0, "b": 250.6, "d": 7.0, "relay": 8.0, "tag": 9.0}
    assert expected_consumption(PHYSICAL, [PHYSICAL], [named, *others], drawn) == 100 + 251


def test_a_rate_follows_a_total_and_survives_one_that_starts_over() -> None:
    rate = Rate()
    rate.sample(1_000_000, 0.0)
    for second in range(1, 60):
        rate.sample(1_000_000 + 500 * second, second)
    assert rate.bps == pytest.approx(500, rel=0.01)
    assert rate.sample(0, 60.0) == 0.0


def test_a_full_pool_does_not_count_as_slow() -> None:
    refill = Refill(Rate())
    refill.sample(0, 0.0)
    assert refill.sample(8000, 1.0)
    assert not refill.sample(8000, 2.0)
    assert refill.bps == 8000


@pytest.mark.parametrize(
    ("old", "new", "news"),
    [
        (None, Performance(), True),
        (Performance(100), Performance(109), False),
        (Performance(100), Performance(120), True),
        (Performance(0), Performance(0), False),
        (Performance(100, qber=0.01), Performance(100, qber=0.02), True),
    ],
)
def test_a_tenth_is_news(old: Performance | None, new: Performance, news: bool) -> None:
    assert is_news(old, new) is news


# The workers ---------------------------------------------------------------------------------------------------------


class Device(QkdDevice):
    """Does at once what it is told, and says so; `refuses` makes it fail."""

    def __init__(self, log: list[str]) -> None:
        super().__init__(PORT.interface, PORT.device, PORT.port, {})
        self.log, self.refuses = log, ""
        self.link: DeviceLink | None = None
        self.deliver: Deliver | None = None
        self.report: Report | None = None

    def describe(self) -> Interface:
        return PORT

    async def start(self, link: DeviceLink, deliver: Deliver, report: Report) -> None:
        if self.refuses:
            raise OSError(self.refuses)
        assert self.link is None
        self.link, self.deliver, self.report = link, deliver, report
        self.log.append(f"start {link.link} {link.role} {link.attenuation_db}")

    async def stop(self) -> None:
        if self.link is not None:
            self.log.append(f"stop {self.link.link}")
        self.link = None


class Keys:
    """What a key manager says of its links, without one."""

    def __init__(self, log: list[str]) -> None:
        self.log = log
        self.refuses: Exception | None = None
        self.level: dict[LinkId, KeyLevels] = {}
        self.draws: dict[str, int] = {}
        self.waited = frozenset[LinkId]()

    async def configure_link(self, link: LinkConfig) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.level.setdefault(link.link, KeyLevels())

    async def remove_link(self, link: LinkId) -> None:
        self.log.append(f"remove {link}")
        del self.level[link]

    def first_block(self, _link: LinkId) -> int:
        return 40

    async def deliver(self, link: LinkId, _number: int, key: Key) -> None:
        self.level[link] = KeyLevels(stored_bits=8 * len(key), usable_bits=8 * len(key))

    def levels(self, link: LinkId) -> KeyLevels:
        return self.level[link]

    def relay_totals(self, _link: LinkId) -> RelayTotals:
        return RelayTotals()

    def drawn(self, _link: LinkId) -> dict[str, int]:
        return self.draws

    def waiting(self) -> frozenset[LinkId]:
        return self.waited


class Bench:
    """A link table, and everything it says in the order it is said."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.said: list[Notification] = []
        self.failures: list[BaseException] = []
        self._arrived = asyncio.Event()
        self.device, self.keys = Device(self.log), Keys(self.log)
        self.interfaces = InterfaceTable({PORT.interface: self.device}, self._say)
        self.tasks = Tasks(self.failures.append)
        self.table = LinkTable(HERE, self.interfaces, self.keys, self.tasks, self._say, self._arrived.set)

    def _say(self, notification: Notification) -> None:
        self.said.append(notification)
        self._arrived.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not holds():
                await asyncio.sleep(0.005)

    def report(self, **values: object) -> None:
        assert self.device.report is not None
        self.device.report(DeviceReport(**values))  # type: ignore[arg-type]

    def status(self, link: LinkId = FIBRE) -> LinkStatus:
        return self.table.states()[link].status

    def of(self, kind: type) -> list[Notification]:
        return [one for one in self.said if isinstance(one, kind)]


@pytest.fixture
async def bench() -> "Bench":
    return Bench()


async def test_a_physical_link_lives_and_ends(bench: Bench) -> None:
    bench.table.apply(configuration(PHYSICAL))
    assert bench.status() is LinkStatus.PENDING
    await bench.until(lambda: bench.device.link is not None)
    assert bench.device.link and bench.device.link.first_block == 40
    bench.report(running=True, skr_bps=1000.0, qber=0.01)
    await bench.until(lambda: bench.status() is LinkStatus.ACTIVE)
    assert bench.of(LinkPerformanceUpdate) == [LinkPerformanceUpdate(FIBRE, Performance(1000, 1000, 0, 0.01))]
    assert bench.device.deliver
    await bench.device.deliver(40, Key(bytes(4096)))
    bench.report(running=False, problem="no light")
    await bench.until(lambda: bench.status() is LinkStatus.PASSIVE)
    assert bench.of(LinkDown) == [LinkDown(FIBRE, "no light")]
    bench.table.apply(configuration())
    await bench.until(lambda: not bench.keys.level)
    assert bench.log == [f"start {FIBRE} TRANSMITTER None", f"stop {FIBRE}", f"remove {FIBRE}"]
    assert not bench.table.states()


async def test_off_written_by_a_controller_keeps_it_off_until_active_is_written(bench: Bench) -> None:
    bench.table.apply(configuration(replace(PHYSICAL, status=LinkStatus.OFF)))
    await bench.until(lambda: FIBRE in bench.keys.level)
    assert bench.status() is LinkStatus.OFF and not bench.log
    lit = replace(PHYSICAL, status=LinkStatus.ACTIVE, attenuation_db=Decimal("5.00"))
    bench.table.apply(configuration(lit))
    await bench.until(lambda: bench.log == [f"start {FIBRE} TRANSMITTER 5.0"])
    bench.report(running=True)
    await bench.until(lambda: bench.status() is LinkStatus.ACTIVE)
    bench.table.apply(configuration(replace(lit, enabled=False)))
    assert bench.status() is LinkStatus.OFF
    await bench.until(lambda: bench.device.link is None)
    assert len(bench.of(LinkDown)) == 1


async def test_a_changed_channel_starts_the_device_anew_and_other_changes_do_not(bench: Bench) -> None:
    bench.table.apply(configuration(PHYSICAL))
    await bench.until(lambda: len(bench.log) == 1)
    bench.table.apply(configuration(replace(PHYSICAL, applications=(KeyStreamId("x"),))))
    bench.table.apply(configuration(replace(PHYSICAL, wavelength="33")))
    await bench.until(lambda: len(bench.log) == 3)
    assert [line.split()[0] for line in bench.log] == ["start", "stop", "start"]


async def test_an_interface_moves_to_another_link_in_one_edit(bench: Bench) -> None:
    bench.table.apply(configuration(PHYSICAL))
    await bench.until(lambda: len(bench.log) == 1)
    bench.table.apply(configuration(replace(PHYSICAL, link=ROUTE)))
    await bench.until(lambda: len(bench.log) == 4)
    assert bench.log.index(f"stop {FIBRE}") < bench.log.index(f"start {ROUTE} TRANSMITTER None")


async def test_a_device_that_fails_is_told_once_and_tried_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qswitch.agent.links.RETRY_SECONDS", (0.01, 0.02))
    bench.device.refuses = "no such laser"
    bench.table.apply(configuration(PHYSICAL))
    await bench.until(lambda: bool(bench.of(InterfaceDown)))
    assert bench.interfaces.statuses() == {PORT.interface: InterfaceStatus.FAILED}
    bench.device.refuses = ""
    await bench.until(lambda: bench.device.link is not None)
    assert bench.of(InterfaceDown) == [InterfaceDown(PORT.interface, "no such laser")]
    assert bench.interfaces.statuses() == {PORT.interface: InterfaceStatus.ENABLED}


async def test_a_device_that_waits_for_a_task_that_it_has_cancelled_does_not_end_its_link(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes out of its call is a CancelledError, of which the link's worker ended as if the node had ended it."""

    async def careless() -> None:
        own = asyncio.ensure_future(asyncio.sleep(60))
        own.cancel()
        await own

    async def start(_link: DeviceLink, _deliver: Deliver, _report: Report) -> None:
        await careless()

    def times(kind: str) -> int:
        return sum(one.startswith(kind) for one in bench.log)

    with monkeypatch.context() as patched:
        patched.setattr(bench.device, "start", start)
        bench.table.apply(configuration(PHYSICAL))
        await bench.until(lambda: bool(bench.of(InterfaceDown)))
    await bench.until(lambda: times("start") == 1)
    with monkeypatch.context() as patched:
        patched.setattr(bench.device, "stop", careless)
        bench.table.apply(configuration(replace(PHYSICAL, enabled=False)))
        await bench.until(lambda: len(bench.of(InterfaceDown)) == 2)
    await bench.device.stop()
    bench.table.apply(configuration(PHYSICAL))
    await bench.until(lambda: times("start") == 2)
    monkeypatch.setattr(bench.device, "stop", careless)
    async with asyncio.timeout(5):
        await bench.tasks.cancel()
        await bench.table.stop()
    assert not bench.failures


@pytest.mark.parametrize("nonsense", [float("nan"), float("inf"), "much", None], ids=repr)
async def test_figures_of_a_device_that_are_none_hide_neither_that_it_runs_nor_that_it_stops(
    bench: Bench, nonsense: object
) -> None:
    """A report that raised was dropped, and one that is no number kept the state of the whole node from being pushed."""
    bench.table.apply(configuration(PHYSICAL))
    await bench.until(lambda: bench.device.report is not None)
    bench.report(running=True, skr_bps=nonsense, qber=nonsense, snr_db=nonsense)
    await bench.until(lambda: bench.status() is LinkStatus.ACTIVE)
    bench.table.refresh()
    state = bench.table.states()[FIBRE].performance
    assert (state.skr_bps, state.qber, state.snr_db) == (0, None, None)
    bench.report(running=False, skr_bps=nonsense, problem=f"no light\n{nonsense}\0")
    await bench.until(lambda: bench.status() is not LinkStatus.ACTIVE)
    (down,) = bench.of(LinkDown)
    assert down == LinkDown(FIBRE, f"no light\\n{nonsense}\\x00")  # YANG has no such characters
    assert not bench.failures


async def test_a_failing_key_store_is_an_alarm_and_tried_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qswitch.agent.links.RETRY_SECONDS", (0.01, 0.02))
    bench.keys.refuses = StorageFailed("disk full")
    bench.table.apply(configuration(PHYSICAL))
    await bench.until(lambda: any(isinstance(one, Event) and one.is_alarm for one in bench.said))
    bench.keys.refuses = None
    await bench.until(lambda: bench.device.link is not None)
    assert sum(isinstance(one, Event) and one.is_alarm for one in bench.said) == 1


async def test_a_link_configured_against_the_rules_is_an_alarm_and_harms_no_other(bench: Bench) -> None:
    double = replace(PHYSICAL, link=ROUTE)  # edited while no agent was there to refuse it
    bench.table.apply(configuration(PHYSICAL, double))
    await bench.until(lambda: bench.device.link is not None)
    alarms = [one for one in bench.said if isinstance(one, Event) and one.is_alarm]
    assert [(one.link, "uses this interface" in one.message) for one in alarms] == [(ROUTE, True)]
    bench.table.apply(configuration(double))
    await bench.until(lambda: f"start {ROUTE} TRANSMITTER None" in bench.log)


async def test_a_virtual_end_runs_with_usable_key(bench: Bench) -> None:
    bench.table.apply(configuration(VIRTUAL))
    await bench.until(lambda: ROUTE in bench.keys.level)
    bench.table.refresh()
    assert bench.status(ROUTE) is LinkStatus.PENDING
    bench.keys.level[ROUTE] = KeyLevels(stored_bits=8, usable_bits=8)
    bench.table.levels_changed(ROUTE)
    assert bench.status(ROUTE) is LinkStatus.ACTIVE
    bench.keys.level[ROUTE] = KeyLevels()
    bench.table.levels_changed(ROUTE)
    assert bench.status(ROUTE) is LinkStatus.OFF
    assert bench.of(LinkDown) == [LinkDown(ROUTE, "no key arrives")]


async def test_a_link_over_two_paths_runs_while_both_do(bench: Bench) -> None:
    direct = replace(OVER[0], next_hops=(THERE,))
    further = replace(PHYSICAL, link=ROUTE, local_interface=InterfaceId(2), remote_node=OTHER)
    bench.table.apply(configuration(PHYSICAL, further, DOUBLE, direct, OVER[1]))
    await bench.until(lambda: bench.device.link is not None and WHOLE in bench.keys.level)
    bench.keys.level[WHOLE] = KeyLevels(stored_bits=8, usable_bits=8)
    bench.report(running=True)
    await bench.until(lambda: bench.status() is LinkStatus.ACTIVE)
    for _ in range(2):
        bench.table.refresh()
    statuses = {one: bench.status(one) for one in (PARTS[0], PARTS[1], WHOLE)}
    assert statuses == {PARTS[0]: LinkStatus.ACTIVE, PARTS[1]: LinkStatus.PENDING, WHOLE: LinkStatus.PASSIVE}


async def test_a_relay_runs_while_both_hops_do(bench: Bench) -> None:
    relay = replace(VIRTUAL, previous_hop=THERE, next_hops=(THERE,), local_node=FAR)
    bench.table.apply(configuration(PHYSICAL, relay))
    await bench.until(lambda: bench.device.link is not None)
    bench.table.refresh()
    assert bench.status(ROUTE) is LinkStatus.PENDING
    bench.report(running=True)
    await bench.until(lambda: bench.status() is LinkStatus.ACTIVE)
    bench.table.refresh()
    assert bench.status(ROUTE) is LinkStatus.ACTIVE


async def test_stopping_stops_devices_and_keeps_the_key(bench: Bench) -> None:
    bench.table.apply(configuration(PHYSICAL))
    await bench.until(lambda: bench.device.link is not None)
    await bench.tasks.cancel()
    await bench.table.stop()
    assert bench.device.link is None and FIBRE in bench.keys.level and not bench.failures


async def test_a_link_that_consumers_wait_for_is_overloaded_until_they_have_not_waited_for_as_long(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(LinkTable, "_now", staticmethod(lambda: now))
    bench.table.apply(configuration(PHYSICAL))
    await bench.until(lambda: bench.device.link is not None)
    bench.report(running=True, skr_bps=1000.0)
    await bench.until(lambda: bench.status() is LinkStatus.ACTIVE)
    told: list[bool] = []
    for waited in [False] * 5 + [True] * 20 + [False] * 12:
        bench.keys.waited = frozenset((FIBRE,)) if waited else frozenset()
        now += 1
        bench.table.refresh()
        told.append(bench.table.states()[FIBRE].overloaded)
    assert told == [False] * 9 + [True] * 25 + [False] * 3
    (one,) = bench.of(LinkOverloaded)
    assert isinstance(one, LinkOverloaded) and one.performance.skr_bps == 1000
    bench.keys.waited = frozenset((FIBRE,))
    for _ in range(5):
        now += 1
        bench.table.refresh()
    assert bench.table.states()[FIBRE].overloaded
    bench.report(running=False, problem="no light")  # of a link that is down nothing else is said
    await bench.until(lambda: bench.status() is not LinkStatus.ACTIVE)
    bench.table.refresh()
    assert not bench.table.states()[FIBRE].overloaded


async def test_the_rate_is_what_came_and_what_the_device_says_while_that_cannot_be_measured(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, bits = 0.0, 0

    def pass_seconds(count: int, bps: int, full: bool = False) -> Performance:
        nonlocal now, bits
        for _ in range(count):
            now, bits = now + 1, bits + bps
            bench.keys.level[FIBRE] = KeyLevels(8 * bits, bits, bits, generated_bits=bits, full=full)
            bench.keys.draws = {"tag": bits // 100, "relay": bits // 10, "a": bits // 2}
            bench.table.refresh()
        return bench.table.states()[FIBRE].performance

    monkeypatch.setattr(LinkTable, "_now", staticmethod(lambda: now))
    bench.table.apply(configuration(PHYSICAL))
    await bench.until(lambda: bench.device.link is not None)
    bench.report(running=True, skr_bps=1000.0)
    await bench.until(lambda: bench.status() is LinkStatus.ACTIVE)
    assert pass_seconds(5, 800).skr_bps == 1000
    measured = pass_seconds(15, 800)
    assert (measured.skr_bps, measured.eskr_bps) == (800, 800 - 8 - 80)
    assert pass_seconds(30, 0, full=True).skr_bps == 1000
    bench.report(running=True, skr_bps=500.0)
    await asyncio.sleep(0)
    assert pass_seconds(5, 400).skr_bps == 500
    assert pass_seconds(15, 400).skr_bps == 400


async def test_a_virtual_link_makes_no_more_than_the_link_to_its_next_hop(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it takes of that one's store comes faster, for a while."""
    now = 0.0
    monkeypatch.setattr(LinkTable, "_now", staticmethod(lambda: now))
    bench.table.apply(configuration(PHYSICAL, VIRTUAL))
    await bench.until(lambda: bench.device.link is not None and ROUTE in bench.keys.level)
    bench.report(running=True, skr_bps=1000.0)
    await bench.until(lambda: bench.status() is LinkStatus.ACTIVE)
    for bits in (9000, 18000, 18400, 18800):
        now += 1
        bench.keys.level[ROUTE] = KeyLevels(9000, bits, bits, generated_bits=bits, full=bits > 18000)
        bench.table.refresh()
    assert bench.table.states()[ROUTE].performance.skr_bps == 1000
    bench.report(running=True, skr_bps=50_000.0)
    await asyncio.sleep(0)
    assert bench.table.states()[ROUTE].performance.skr_bps > 1000
