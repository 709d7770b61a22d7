"""The node's links: what is configured is brought to devices and the key manager, and what they do is told.

`apply` only notes what is wanted. Each link has one worker that brings it about, in order, for as long as it takes, and
tries again after failures: a slow or broken device never holds up an edit or another link. Decisions are in `link_rules.py`.

A virtual link runs, at its ends, while usable key is there or some came in lately (a full pool takes none in, so both are
asked); at a relay node, while physical links to both neighbouring hops are ACTIVE. A link over several paths runs while all
of them do.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Protocol

from .devices.base import DeviceLink, DeviceReport, legible
from .errors import DeviceFailed, NodeError
from .interfaces import InterfaceTable
from .link_figures import Figures, Load, Overload, Sample
from .link_rules import (
    STATUS,
    TRANSITIONS,
    Activity,
    LinkAction,
    LinkEvent,
    Rate,
    Refill,
    check_link,
    expected_consumption,
    is_news,
    is_relay,
    wanted,
)
from .lkms.keys import Key
from .model import (
    Configuration,
    Event,
    InterfaceId,
    KeyLevels,
    LinkConfig,
    LinkDown,
    LinkId,
    LinkOverloaded,
    LinkPerformanceUpdate,
    LinkState,
    LinkStatus,
    LinkType,
    NodeId,
    Notification,
    Performance,
    RelayTotals,
    Role,
    Severity,
)
from .tasks import Tasks, foreign

log = logging.getLogger(__name__)

TELL_SECONDS = 10.0  # performance of one link is told at most this often
ALARM_SECONDS = 30.0  # the same alarm is raised at most this often
FRESH_SECONDS = 5.0  # a virtual link that took key in within this time is running
DEVICE_SECONDS = 30.0  # for a device to start or to stop
RETRY_SECONDS = (1.0, 30.0)  # first and last pause before a device or the key store is tried again


class LinkKeys(Protocol):
    """What links ask of the key manager."""

    async def configure_link(self, link: LinkConfig) -> None: ...
    async def remove_link(self, link: LinkId) -> None: ...
    def first_block(self, link: LinkId) -> int: ...
    async def deliver(self, link: LinkId, number: int, key: Key) -> None: ...
    def levels(self, link: LinkId) -> KeyLevels: ...
    def relay_totals(self, link: LinkId) -> RelayTotals: ...
    def drawn(self, link: LinkId) -> Mapping[str, int]: ...
    def waiting(self) -> frozenset[LinkId]: ...


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a device is told; when it changes, the device is stopped and started anew."""

    interface: InterfaceId
    role: Role
    remote_node: NodeId
    wavelength: str | None
    attenuation_db: float | None


_SILENT = DeviceReport(running=False)


@dataclass(slots=True, eq=False)
class _Link:
    config: LinkConfig
    wanted: LinkConfig | None  # None: to be removed
    activity: Activity = Activity.HELD
    status: LinkStatus = LinkStatus.OFF
    known: bool = False  # to the key manager
    problem: str | None = None  # why it is not as wanted
    plan: _Plan | None = None  # what the device runs with
    report: DeviceReport = _SILENT
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    figures: Figures = field(default_factory=Figures)
    overload: Overload = field(default_factory=Overload)
    refill: Refill = field(default_factory=lambda: Refill(Rate()))
    filled_at: float = float("-inf")
    told: Performance | None = None
    told_at: float = float("-inf")

    @property
    def link(self) -> LinkId:
        return self.config.link


class LinkTable:
    """All links of the node. `apply`, `refresh`, `alarm` and `states` are called on the loop and return at once.

    `changed` is called when a status changed, for the state to be pushed soon.
    """

    def __init__(
        self,
        node: NodeId,
        interfaces: InterfaceTable,
        keys: LinkKeys,
        tasks: Tasks,
        notify: Callable[[Notification], None],
        changed: Callable[[], None],
    ) -> None:
        self._node, self._interfaces, self._keys, self._tasks = node, interfaces, keys, tasks
        self._notify, self._changed = notify, changed
        self._links: dict[LinkId, _Link] = {}
        self._configuration = Configuration(node)
        self._alarmed: dict[tuple[LinkId | None, str], float] = {}

    # What is wanted --------------------------------------------------------------------------------------------------

    def apply(self, configuration: Configuration) -> None:
        """Notes the whole configuration; workers bring it about."""
        self._configuration = configuration
        for link, config in configuration.links.items():
            if (have := self._links.get(link)) is None:
                self._add(config)
            elif have.wanted != config:
                have.config = have.wanted = config
                self._step(have, wanted(config), "configured")
                have.changed.set()
        for link, have in self._links.items():
            if link not in configuration.links and have.wanted is not None:
                have.wanted = None
                have.changed.set()

    def _add(self, config: LinkConfig) -> None:
        have = self._links[config.link] = _Link(config, config)
        log.info("link configured link=%s type=%s", config.link, config.type)
        self._step(have, wanted(config), "configured")
        self._tasks.spawn(self._work(have), f"link {config.link}")

    # What is brought about -------------------------------------------------------------------------------------------

    async def _work(self, have: _Link) -> None:
        """The worker of one link, until it is removed. A link that comes back while it is being removed goes on with it."""
        pause = RETRY_SECONDS[0]
        while True:
            have.changed.clear()
            settled = await self._attempt(have)
            if settled and have.wanted is None:
                del self._links[have.link]
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(have.changed.wait(), None if settled else pause)
            pause = RETRY_SECONDS[0] if settled else min(2 * pause, RETRY_SECONDS[1])

    async def _attempt(self, have: _Link) -> bool:
        """Whether all is as wanted now; if not, it is to be tried again."""
        try:
            if have.wanted is None:
                await self._remove(have)
            else:
                await self._bring_about(have, have.wanted)
        except NodeError as error:
            if have.problem != (problem := str(error)):
                have.problem = problem
                if not isinstance(error, DeviceFailed):  # the interface has said that itself
                    self.alarm(have.link, problem)
            return False
        have.problem = None
        return True

    async def _bring_about(self, have: _Link, config: LinkConfig) -> None:
        await self._keys.configure_link(config)
        if not have.known:
            have.known = True
            self._sample(have, self._now())  # a pool may be filled before the first `refresh`
        plan = self._plan(have) if have.activity is not Activity.HELD else None
        if have.plan != plan:
            await self._stop_device(have)
            if plan is not None:
                await self._start_device(have, plan)

    async def _remove(self, have: _Link) -> None:
        self._step(have, LinkEvent.DISABLED, "removed")
        await self._stop_device(have)
        have.known = False
        await self._keys.remove_link(have.link)
        log.info("link removed link=%s", have.link)

    def _plan(self, have: _Link) -> _Plan | None:
        """What the device is to run with; None for a virtual link.

        Raises InvalidValue for a link that was configured against the rules while no agent was there to refuse it.
        """
        config = have.config
        if config.type is not LinkType.PHYSICAL:
            return None
        check_link(config, self._configuration, self._interfaces.interfaces)
        assert config.local_interface is not None and config.remote_node is not None  # by the rules
        role = config.role or self._interfaces.interfaces[config.local_interface].role_support
        attenuation = None if config.attenuation_db is None else float(config.attenuation_db)
        return _Plan(config.local_interface, role, config.remote_node, config.wavelength, attenuation)

    async def _start_device(self, have: _Link, plan: _Plan) -> None:
        """Raises DeviceFailed when the device does not take the link."""
        await self._interfaces.lock(plan.interface).acquire()
        have.plan = plan
        told = DeviceLink(
            link=have.link,
            role=plan.role,
            local_node=self._node,
            remote_node=plan.remote_node,
            wavelength=plan.wavelength,
            attenuation_db=plan.attenuation_db,
            first_block=self._keys.first_block(have.link),
        )
        loop = asyncio.get_running_loop()

        def report(what: DeviceReport) -> None:  # a vendor's device may call it from a thread of its own
            loop.call_soon_threadsafe(self._reported, have, plan, legible(what))

        try:
            async with asyncio.timeout(DEVICE_SECONDS):
                device, deliver = self._interfaces.device(plan.interface), partial(self._keys.deliver, have.link)
                await foreign(device.start(told, deliver, report))
        except Exception as error:  # a vendor's code
            log.debug("device did not start interface=%s", plan.interface, exc_info=error)
            problem = "took too long to start" if isinstance(error, TimeoutError) else str(error) or repr(error)
            self._interfaces.failed(plan.interface, problem)
            await self._stop_device(have)
            raise DeviceFailed(plan.interface, problem) from error
        except asyncio.CancelledError:
            await self._stop_device(have)
            raise
        self._interfaces.recovered(plan.interface)

    async def _stop_device(self, have: _Link) -> None:
        if (plan := have.plan) is None:
            return
        try:
            async with asyncio.timeout(DEVICE_SECONDS):
                await foreign(self._interfaces.device(plan.interface).stop())
        except Exception as error:  # a vendor's code; nothing is known of what it does now
            log.exception("device did not stop interface=%s", plan.interface)
            self._interfaces.failed(plan.interface, f"did not stop: {error!r}")
        finally:
            have.plan, have.report = None, _SILENT
            self._interfaces.lock(plan.interface).release()

    async def stop(self) -> None:
        """Stops all devices; the links' workers must have ended."""
        await asyncio.gather(*(self._stop_device(have) for have in self._links.values()))

    # What happens ------------------------------------------------------------------------------------------------------

    def _reported(self, have: _Link, plan: _Plan, report: DeviceReport) -> None:
        if have.plan is not plan:
            return  # of a run that has ended
        if report.problem != have.report.problem:
            log.info("device reports link=%s running=%s problem=%s", have.link, report.running, report.problem)
        if is_news(Performance(round(have.report.skr_bps)), Performance(round(report.skr_bps))):
            have.figures.since = self._now()  # what came before says nothing of what comes now
        have.report = report
        event = LinkEvent.RUNS if report.running else LinkEvent.STOPS
        self._step(have, event, report.problem or ("key is generated" if report.running else "the device stopped"))

    def _step(self, have: _Link, event: LinkEvent, reason: str) -> None:
        have.activity, actions = TRANSITIONS[have.activity, event]
        self._settle(have, reason)
        for action in actions:
            if action is LinkAction.WORK:
                have.changed.set()
            elif action is LinkAction.SAY_DOWN:
                self._notify(LinkDown(have.link, reason))
            elif action is LinkAction.SAY_UP:
                self._tell_performance(have, self._now())

    def _settle(self, have: _Link, reason: str) -> None:
        """Works the status out anew and tells when it is another."""
        stored = have.known and self._keys.levels(have.link).stored_bits > 0
        status = STATUS[have.activity, stored]
        if status is have.status:
            return
        have.status = status
        log.info("link status link=%s status=%s reason=%s", have.link, status, reason)
        self._notify(Event(f"{status}: {reason}", Severity.MINOR, link=have.link, link_status=status))
        self._changed()

    def levels_changed(self, link: LinkId) -> None:
        """The key manager: the store became empty, non-empty, full or no longer full."""
        if have := self._links.get(link):
            if have.known and self._keys.levels(link).full:
                have.figures.since = self._now()
            self._look(have, self._now())

    def alarm(self, link: LinkId | None, message: str) -> None:
        """Something that an operator must see; without a link it concerns all of them. Not said again for some time."""
        now = self._now()
        self._alarmed = {said: at for said, at in self._alarmed.items() if now - at < ALARM_SECONDS}
        if (link, message) in self._alarmed:
            return
        self._alarmed[link, message] = now
        log.error("alarm link=%s message=%s", link, message)
        for each in [link] if link is not None else list(self._links):
            status = self._links[each].status if each in self._links else None
            self._notify(Event(message, Severity.MAJOR, is_alarm=True, link=each, link_status=status))

    # What is measured --------------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """To be called about once a second: samples the rates, looks at virtual links, tells performance."""
        now, waiting = self._now(), self._keys.waiting()
        for have in self._links.values():
            if have.known:
                self._sample(have, now)
                self._look(have, now)
                self._tell_news(have, now)
                self._weigh(have, have.link in waiting, now)

    def _sample(self, have: _Link, now: float) -> None:
        levels = self._keys.levels(have.link)
        held_up = levels.full or have.activity is not Activity.RUNNING
        have.figures.sample(Sample(now, levels.generated_bits, self._keys.drawn(have.link)), held_up)
        passes_on = is_relay(have.config) or have.config.component_of is not None
        came = self._keys.relay_totals(have.link).relayed_bits if passes_on else levels.generated_bits
        if have.config.type is LinkType.VIRTUAL and have.refill.sample(came, now):
            have.filled_at = now

    def _look(self, have: _Link, now: float) -> None:
        if have.config.type is not LinkType.VIRTUAL:
            self._settle(have, "key store")
        elif is_relay(have.config):
            up = self._hop_is_up(have.config.previous_hop) and self._hop_is_up(have.config.next_hop)
            self._step(have, LinkEvent.RUNS if up else LinkEvent.STOPS, "both hops are up" if up else "a hop is down")
        else:
            runs, reason = self._end_runs(have, now)
            self._step(have, LinkEvent.RUNS if runs else LinkEvent.STOPS, reason)

    def _end_runs(self, have: _Link, now: float) -> tuple[bool, str]:
        """Whether a virtual link runs at an end of it, and why. One over several paths does while all of them do."""
        if have.config.component_of is not None and not self._hop_is_up(have.config.next_hop or have.config.previous_hop):
            return False, "a hop is down"
        parts = [self._links.get(one) for one in have.config.components]
        if not all(one is not None and one.activity is Activity.RUNNING for one in parts):
            return False, "not all paths bring key"
        link = have.config.component_of or have.link  # a full store takes in no more shares
        usable = self._keys.levels(link).usable_bits if have.known else 0
        runs = usable > 0 or now - have.filled_at < FRESH_SECONDS
        return runs, "key arrives" if runs else "no key arrives"

    def _hop_is_up(self, hop: NodeId | None) -> bool:
        return any(
            one.status is LinkStatus.ACTIVE
            for one in self._links.values()
            if one.config.type is LinkType.PHYSICAL and one.config.remote_node == hop
        )

    def _tell_news(self, have: _Link, now: float) -> None:
        if have.activity is not Activity.RUNNING:
            return
        performance = self._performance(have)
        if now - have.told_at >= TELL_SECONDS and is_news(have.told, performance):
            self._tell_performance(have, now)

    def _weigh(self, have: _Link, waits: bool, now: float) -> None:
        """Whether more is asked of the link than it has. Not said of one that has no key of its own, or does not run."""
        if have.activity is not Activity.RUNNING or is_relay(have.config) or have.config.component_of is not None:
            have.overload.reset()
            return
        performance, levels, before = self._performance(have), self._keys.levels(have.link), have.overload.on
        expected = performance.expected_consumption_bps
        load = Load(waits, levels.usable_bits, levels.capacity_bits, performance.skr_bps, expected)
        if have.overload.sample(load, now):
            self._notify(LinkOverloaded(have.link, performance))
        if have.overload.on is not before:
            log.info("link overloaded=%s link=%s skr=%d expected=%d", not before, have.link, load.skr_bps, expected)
            if before:
                self._tell_performance(have, now)
            self._changed()

    def _tell_performance(self, have: _Link, now: float) -> None:
        have.told, have.told_at = self._performance(have), now
        self._notify(LinkPerformanceUpdate(have.link, have.told))

    def _performance(self, have: _Link) -> Performance:
        configuration, runs = self._configuration, have.activity is Activity.RUNNING
        consumption = expected_consumption(
            have.config, configuration.links.values(), configuration.applications.values(), have.figures.drawn_bps()
        )
        skr = self._skr(have) if runs else 0.0
        eskr = max(0.0, skr - have.figures.internal_bps())
        return Performance(round(skr), round(eskr), consumption, have.report.qber, have.report.snr_db)

    def _skr(self, have: _Link) -> float:
        """What came in, as far as that can be measured; else what the device says, or what a virtual link took in last.

        That is no more than the link to the next hop makes: for a while it takes what that one has in store.
        """
        passes_on = is_relay(have.config) or have.config.component_of is not None
        if not passes_on and (made := have.figures.made_bps()) is not None:
            return made
        if have.config.type is LinkType.PHYSICAL:
            return have.report.skr_bps
        parts = [one.config for part in have.config.components if (one := self._links.get(part)) is not None]
        hops = {hop for one in parts or [have.config] for hop in (one.previous_hop, one.next_hop) if hop is not None}
        return min([have.refill.bps, *map(self._hop_bps, hops)])

    def _hop_bps(self, hop: NodeId) -> float:
        return sum(
            self._skr(one)
            for one in self._links.values()
            if one.config.type is LinkType.PHYSICAL and one.config.remote_node == hop and one.activity is Activity.RUNNING
        )

    def states(self) -> Mapping[LinkId, LinkState]:
        return MappingProxyType({link: self._state(have) for link, have in self._links.items() if have.wanted})

    def _state(self, have: _Link) -> LinkState:
        performance = self._performance(have) if self._configuration.link_stats else Performance()
        levels = self._keys.levels(have.link) if have.known else KeyLevels()
        relay = self._keys.relay_totals(have.link) if have.known else RelayTotals()
        return LinkState(have.link, have.config.type, have.status, performance, levels, relay, have.overload.on)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
