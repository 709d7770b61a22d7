"""The workflows of links: one on every fibre, virtual ones on demand, another route when one breaks, none unneeded."""

import asyncio
import logging
import time
import uuid
from dataclasses import replace
from itertools import pairwise

from .config import FibreConfig
from .control import Control
from .disjoint import Routes, find_routes, find_widest_routes
from .errors import Conflict, ControllerError, InvalidRequest, NoRoute
from .intents import Change
from .model import (
    InterfaceId,
    LinkId,
    LinkIntent,
    LinkStatus,
    LinkType,
    NodeId,
    NodeRecord,
    Purpose,
    Role,
)
from .paths import Blocked
from .plan import change_link
from .topology import demand

log = logging.getLogger(__name__)

NAMESPACE = uuid.UUID("0b1f6d52-5b0e-5ad4-9c56-4f0d54c1a9b7")
AT_ONCE = 16  # fibres brought up at the same time


def fibre_link(a: NodeId, on_a: InterfaceId, b: NodeId, on_b: InterfaceId) -> LinkId:
    """The id of the link on a fibre: always the same, so that a controller without memory finds its own links again."""
    ends = sorted((f"{a}/{on_a}", f"{b}/{on_b}"))
    return LinkId(str(uuid.uuid5(NAMESPACE, "|".join(ends))))


def can(support: Role | None, role: Role) -> bool:
    return support in (None, Role.TRANSCEIVER, role)


class Links:
    def __init__(self, control: Control) -> None:
        self._control, self._intents = control, control.intents
        self.reasons: dict[LinkId, str] = {}  # what nodes said of links that went down
        self.problems: dict[LinkId, str] = {}  # why links whose route is broken have no other
        self._statuses: dict[LinkId, LinkStatus] = {}
        self._overloaded: frozenset[LinkId] = frozenset()
        self._unused_since: dict[LinkId, float] = {}

    # Physical links --------------------------------------------------------------------------------------------------

    async def light_fibres(self) -> None:
        """Makes a link on every fibre whose two ends are known, unless somebody took it away."""
        if not self._control.config.auto_links:
            return
        taken = self._taken()
        fibres = self._control.config.fibres
        wanted = [intent for one in fibres if (intent := self._on_fibre(one, Purpose.FIBRE, taken))]
        limit = asyncio.Semaphore(AT_ONCE)

        async def make(intent: LinkIntent) -> None:
            async with limit:
                await self._try(intent)

        await asyncio.gather(*(make(one) for one in wanted if one.link not in self._intents.declined))

    async def _try(self, intent: LinkIntent) -> None:
        if not self._control.retries.due(intent.link):
            return
        try:
            await self._make(intent)
        except ControllerError as error:
            self._control.retries.failed(intent.link)
            self._control.events.add("link_failed", str(error), link=intent.link)

    def _on_fibre(self, fibre: FibreConfig, purpose: Purpose, taken: set[tuple[NodeId, InterfaceId]]) -> LinkIntent | None:
        """The link that a fibre should carry; None when its ends are not there yet or are taken."""
        a, b = (self._control.inventory.nodes[end.node].record for end in (fibre.a, fibre.b))
        if not (self._ready(a, fibre.a.interface) and self._ready(b, fibre.b.interface)):
            return None
        assert a.qkdn_id is not None and b.qkdn_id is not None
        ends = [(a.qkdn_id, fibre.a.interface), (b.qkdn_id, fibre.b.interface)]
        if not taken.isdisjoint(ends):
            return None
        link = self._found(a, fibre.a.interface, b, fibre.b.interface) or fibre_link(*ends[0], *ends[1])
        if link in self._intents.links:
            return None
        source, destination = self._roles(ends, a, b, fibre)
        return LinkIntent(
            link=link,
            type=LinkType.PHYSICAL,
            route=(source[0], destination[0]),
            purpose=purpose,
            interfaces=(source[1], destination[1]),
            attenuation_db=fibre.attenuation_db,
            wavelength=fibre.wavelength,
        )

    def _ready(self, record: NodeRecord, interface: InterfaceId) -> bool:
        return record.connected and record.running is not None and interface in record.running.interfaces

    def _taken(self) -> set[tuple[NodeId, InterfaceId]]:
        """The interfaces where our links end."""
        links = self._intents.links.values()
        return {end for one in links if one.interfaces for end in zip(one.route, one.interfaces, strict=True)}

    def _found(self, a: NodeRecord, on_a: InterfaceId, b: NodeRecord, on_b: InterfaceId) -> LinkId | None:
        """A link that both ends already have on these interfaces: it is taken over rather than doubled."""

        def on(record: NodeRecord, interface: InterfaceId) -> set[LinkId]:
            links = record.running.links.values() if record.running else ()
            return {one.link for one in links if one.type is LinkType.PHYSICAL and one.local_interface == interface}

        return min(on(a, on_a) & on(b, on_b), default=None)

    def _roles(
        self, ends: list[tuple[NodeId, InterfaceId]], a: NodeRecord, b: NodeRecord, fibre: FibreConfig
    ) -> list[tuple[NodeId, InterfaceId]]:
        """The transmitting end first: the one with the lower id, unless the devices can only do it the other way round."""
        assert a.running is not None and b.running is not None
        support = {
            ends[0]: a.running.interfaces[fibre.a.interface].role_support,
            ends[1]: b.running.interfaces[fibre.b.interface].role_support,
        }
        first, second = sorted(ends)
        if can(support[first], Role.TRANSMITTER) and can(support[second], Role.RECEIVER):
            return [first, second]
        return [second, first]

    # Operators -------------------------------------------------------------------------------------------------------

    async def create(
        self,
        kind: LinkType,
        source: NodeId,
        destination: NodeId,
        bandwidth_bps: int | None,
        link: LinkId | None,
        disjoint_paths: int = 1,
    ) -> LinkIntent:
        """Makes a link that an operator asked for. Raises Conflict, InvalidRequest, NoRoute, TransactionFailed."""
        if source == destination:
            raise InvalidRequest("destination", self._control.name(destination), "must be another node than the source")
        if link is not None and (link in self._intents.links or link in self._control.facts()):
            raise Conflict(f"link {link}", "there is a link with this id")
        if kind is LinkType.PHYSICAL:
            if disjoint_paths > 1:
                raise InvalidRequest("disjoint_paths", str(disjoint_paths), "a physical link has one path")
            intent = self._free_fibre(source, destination)
            await self._intents.decline(intent.link, False)
            intent = replace(intent, link=link or intent.link)
        else:
            intent = self._routed(source, destination, bandwidth_bps, link, disjoint_paths)
        await self._make(intent)
        return intent

    def _free_fibre(self, source: NodeId, destination: NodeId) -> LinkIntent:
        taken = self._taken()
        for fibre in self._control.config.fibres:
            intent = self._on_fibre(fibre, Purpose.OPERATOR, taken)
            if intent is not None and {intent.source, intent.destination} == {source, destination}:
                return intent
        names = f"{self._control.name(source)} and {self._control.name(destination)}"
        raise Conflict("physical link", f"no fibre with free interfaces joins {names}")

    def _routed(
        self,
        source: NodeId,
        destination: NodeId,
        bandwidth_bps: int | None,
        link: LinkId | None,
        disjoint_paths: int,
    ) -> LinkIntent:
        bandwidth = self._control.config.virtual_link_bps if bandwidth_bps is None else bandwidth_bps
        routes = find_routes(self._control.topology(), source, destination, bandwidth, disjoint_paths)
        if isinstance(routes, Blocked):
            raise NoRoute(self._control.name(source), self._control.name(destination), routes.reason)
        return new_virtual(routes, bandwidth, Purpose.OPERATOR, link)

    async def delete(self, link: LinkId) -> None:
        """Takes a link away. Raises Conflict while key streams use it."""
        intent = self._intents.links.get(link)
        if intent is None:
            raise Conflict(f"link {link}", "it was not made by this controller")
        if users := [one.ksid for one in self._intents.applications.values() if one.link == link]:
            raise Conflict(f"link {link}", f"key streams use it: {', '.join(users)}")
        crossing = intent.type is LinkType.PHYSICAL and [
            one.link
            for one in self._intents.links.values()
            if one.type is LinkType.VIRTUAL and one.purpose is Purpose.OPERATOR and _crosses(one, intent)
        ]
        if crossing:
            raise Conflict(f"link {link}", f"virtual links cross it: {', '.join(crossing)}")
        if intent.type is LinkType.PHYSICAL:
            await self._intents.decline(link)
        await self._drop(intent)

    # What keeps links well -------------------------------------------------------------------------------------------

    async def reroute_broken(self) -> None:
        """Gives every virtual link of which a route is broken others, if there are as many; its id and its key stay."""
        topology = self._control.topology()
        for link in list(self._intents.links.values()):
            key = f"reroute {link.link}"
            if link.type is not LinkType.VIRTUAL or topology.carries_all(link):
                self._control.retries.done(key)
                self.problems.pop(link.link, None)
            elif self._control.retries.due(key):
                await self._reroute(link, key)
        self.problems = {link: text for link, text in self.problems.items() if link in self._intents.links}

    async def _reroute(self, link: LinkIntent, key: str) -> None:
        topology = self._control.topology(without=frozenset((link.link,)))
        found = find_widest_routes(topology, link.source, link.destination, self._acceptable(link), len(link.routes))
        if isinstance(found, Blocked):
            self.problems[link.link] = found.reason
            if self._control.retries.failed(key):
                self._control.events.add("no_route", f"no other route: {found.reason}", link=link.link)
            return
        routes, bandwidth = found
        new = replace(link, route=routes[0].nodes, others=tuple(one.nodes for one in routes[1:]), bandwidth_bps=bandwidth)
        try:
            await self._control.transactions.run(
                change_link(link, new, self._intents.lkms()), Change(links={link.link: new})
            )
        except ControllerError as error:
            self._control.retries.failed(key)
            self._control.events.add("link_failed", str(error), link=link.link)
            return
        self._control.retries.done(key)
        self._say_rerouted(link, new)

    def _acceptable(self, link: LinkIntent) -> set[int]:
        """The rates a link may be given: one made for applications may shrink to what they need."""
        rates = {link.bandwidth_bps or 0}
        if link.purpose is Purpose.APPLICATIONS:
            users = [one for one in self._intents.applications.values() if one.link == link.link]
            rates.add(sum(demand(one.qos, self._control.config.application_bps) for one in users))
        return rates

    def _say_rerouted(self, old: LinkIntent, new: LinkIntent) -> None:
        message = f"{self._routes(old)} became {self._routes(new)}"
        self._control.events.add("route_changed", message, link=new.link)
        for application in self._intents.applications.values():
            if application.link == new.link:
                self._control.events.add("route_changed", message, link=new.link, ksid=application.ksid)

    def _routes(self, link: LinkIntent) -> str:
        return " with ".join(map(self._control.route_names, link.routes))

    async def drop_idle(self) -> None:
        """Takes away virtual links made for applications that none has used for a while."""
        used = {one.link for one in self._intents.applications.values()}
        now = time.monotonic()
        for link in list(self._intents.links.values()):
            if link.purpose is not Purpose.APPLICATIONS or link.link in used:
                self._unused_since.pop(link.link, None)
            elif now - self._unused_since.setdefault(link.link, now) >= self._control.config.timeouts.idle_link:
                self._unused_since.pop(link.link)
                await self._drop(link)

    def watch(self) -> None:
        """Tells of links that became ACTIVE or ceased to be."""
        facts = self._control.facts()
        for link, one in facts.items():
            before, now = self._statuses.get(link), one.status
            if before is not now and LinkStatus.ACTIVE in (before, now):
                up = now is LinkStatus.ACTIVE
                intent = self._intents.links.get(link)
                ends = self._control.route_names((intent.source, intent.destination) if intent else one.ends)
                reason = self.reasons.pop(link, "")
                text = f"{one.type} link {ends} is {now}" + (f" ({reason})" if reason and not up else "")
                self._control.events.add("link_up" if up else "link_down", text, link=link)
                self._control.retries.clear()  # another topology: what had no route may have one now
            self._statuses[link] = now
        self._statuses = {link: status for link, status in self._statuses.items() if link in facts}
        overloaded = frozenset(link for link, one in facts.items() if one.overloaded)
        for link in sorted(self._overloaded - overloaded):
            self._control.events.add("link_relieved", "there is key enough again", link=link)
        self._overloaded = overloaded

    # Doing -----------------------------------------------------------------------------------------------------------

    async def _make(self, intent: LinkIntent) -> None:
        plan = change_link(None, intent, self._intents.lkms())
        await self._control.transactions.run(plan, Change(links={intent.link: intent}))
        self.say_created(intent)

    def say_created(self, intent: LinkIntent) -> None:
        text = f"{intent.type} link {self._routes(intent)}"
        self._control.events.add("link_created", text, link=intent.link)

    async def _drop(self, intent: LinkIntent) -> None:
        plan = change_link(intent, None, self._intents.lkms())
        await self._control.transactions.run(plan, Change(links={intent.link: None}))
        text = f"{intent.type} link {self._routes(intent)}"
        self._control.events.add("link_deleted", text, link=intent.link)


def new_virtual(routes: Routes, bandwidth_bps: int, purpose: Purpose, link: LinkId | None = None) -> LinkIntent:
    """A virtual link over a route, or over several that share no node between the ends."""
    return LinkIntent(
        link=link or LinkId(str(uuid.uuid4())),
        type=LinkType.VIRTUAL,
        route=routes[0].nodes,
        purpose=purpose,
        bandwidth_bps=bandwidth_bps,
        others=tuple(one.nodes for one in routes[1:]),
    )


def _crosses(virtual: LinkIntent, physical: LinkIntent) -> bool:
    ends = {physical.source, physical.destination}
    return any({a, b} == ends for route in virtual.routes for a, b in pairwise(route))
