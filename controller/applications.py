"""The workflows of key streams: registrations become entries on both nodes, streams move when their link fails, and end.

A registration without a peer waits. One without a route waits too while links are coming up, for as long as its application
does, and is refused with the reason otherwise. What is refused is an entry of its node for a while, then gone.

Both applications may register before either is answered. The entries that answer the first answer the second as well, at
its own node; its registration is then recognised by its time, and no second stream is made for it.
"""

import logging
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace

from .assignment import (
    UNSPECIFIED,
    Join,
    MakeLink,
    Refuse,
    Registration,
    Rejoin,
    UseLink,
    Wait,
    admission_of,
    authority,
    choose,
    choose_another,
    counter_proposal,
    match,
)
from .control import Control
from .errors import Conflict, ControllerError, InvalidRequest
from .intents import Change
from .links import Links, new_virtual
from .model import (
    Admission,
    ApplicationIntent,
    ApplicationStatus,
    KeyStreamId,
    LinkId,
    LinkIntent,
    LinkStatus,
    LinkType,
    NodeId,
    Purpose,
    Qos,
)
from .paths import Blocked, Obstacle
from .plan import NodeEdit, Plan, change_application, change_link, refusal
from .topology import Topology, demand, room

log = logging.getLogger(__name__)

OPEN_TIMEOUT_SECONDS = 10.0  # of an application that does not say how long it waits
ANSWER_BEFORE = 0.8  # of that time, so that the answer arrives while somebody listens
REFUSAL_SECONDS = 30.0
CROSSING_SECONDS = 0.5  # a registration this much later than its answer was on its way when the answer came
FORGOTTEN_SECONDS = 30.0  # after one application left, for another that never came or never said that it left
ABANDONED_SECONDS = 3600.0  # for a stream that is open at neither end
SHUNNED_SECONDS = 600.0  # a stream that did not get what it was promised over the direct link stays away from it
GONE = (ApplicationStatus.DISCONNECTED, ApplicationStatus.OUT_OF_TIME, ApplicationStatus.ZOMBIE)


@dataclass(slots=True)
class _Waiting:
    registration: Registration
    received: float
    deadline: float


class Applications:
    def __init__(self, control: Control, links: Links) -> None:
        self._control, self._intents, self._links = control, control.intents, links
        self._waiting: list[_Waiting] = []
        self._refused: dict[tuple[NodeId, KeyStreamId], float] = {}
        self._direct_since: dict[KeyStreamId, float] = {}
        self._closed_since: dict[KeyStreamId, float] = {}
        self._unmet: set[KeyStreamId] = set()
        self._shuns: dict[KeyStreamId, float] = {}
        # Whose registration an answer to the other end has answered too: (node, URIs, KSID if brought) -> when.
        self._crossing: dict[tuple[NodeId, frozenset[str], KeyStreamId | None], float] = {}

    # What nodes say --------------------------------------------------------------------------------------------------

    def registered(self, registration: Registration, open_timeout_ms: int | None) -> None:
        """An application opened a stream at its node, and waits there for so long."""
        seconds = open_timeout_ms / 1000 if open_timeout_ms else OPEN_TIMEOUT_SECONDS
        now = time.monotonic()
        self._waiting.append(_Waiting(registration, now, now + seconds * ANSWER_BEFORE))
        name = self._control.name(registration.node)
        text = f"{registration.server} with {', '.join(registration.clients)}"
        self._control.events.add("application_new", text, node=name, ksid=registration.ksid)

    async def disconnected(self, node: NodeId, ksid: KeyStreamId) -> None:
        """An application left its node."""
        intent = self._intents.applications.get(ksid)
        if intent is not None and node not in intent.disconnected:
            await self._note(replace(intent, disconnected=tuple(sorted({*intent.disconnected, node}))))
            self._control.events.add("application_disconnected", "", node=self._control.name(node), ksid=ksid)

    async def qos_changed(self, ksid: KeyStreamId, qos: Qos, priority: int) -> None:
        """An application wants another quality of service: over its link if that has room, else over another one.

        When the network has no room at all, the stream goes on as it is.
        """
        old = self._intents.applications.get(ksid)
        if old is not None and ksid in self._unmet:
            self._unmet.discard(ksid)
            self._control.events.add("qos_met", "it gets what it was promised", link=old.link, ksid=ksid)
        if old is None or (old.qos, old.priority) == (qos, priority):
            return
        made, link = None, old.link
        if not self._fits(old, qos):
            chosen = self._choose(old.source, old.destination, qos, old.disjoint_paths, ksid)
            if isinstance(chosen, Blocked):
                self._control.events.add("qos_not_met", chosen.reason, ksid=ksid)
                return
            made, link = self._link(chosen)
        await self._change(old, replace(old, qos=qos, priority=priority, link=link), made)

    async def qos_unmet(self, ksid: KeyStreamId, gets_bps: int, promised_bps: int) -> None:
        """A stream gets less than the least rate it was promised: it moves where another way has room for that."""
        old = self._intents.applications.get(ksid)
        link = self._intents.links.get(old.link) if old is not None and old.link else None
        if old is None or link is None or ksid in self._unmet:  # the other end has said so, too
            return
        self._unmet.add(ksid)
        text = f"it gets {gets_bps} of the {promised_bps} bit/s it was promised"
        self._control.events.add("qos_unmet", text, link=link.link, ksid=ksid)
        others, config = [one for one in self._intents.applications.values() if one.ksid != ksid], self._control.config
        chosen = choose_another(
            self._control.topology(),
            link,
            self._intents.links,
            others,
            (old.source, old.destination),
            old.qos,
            config.application_bps,
            old.disjoint_paths,
        )
        if isinstance(chosen, Blocked):
            self._control.events.add("no_route", f"no other link: {chosen.reason}", ksid=ksid)
            return
        made, other = self._link(chosen)
        if await self._change(old, replace(old, link=other), made):
            self._shuns[ksid] = time.monotonic() + SHUNNED_SECONDS
            self._control.events.add("route_changed", f"moved to another link, from {link.link}", link=other, ksid=ksid)

    async def share(self, ksid: KeyStreamId, clients: Sequence[str]) -> None:
        """Names the clients to whom a stream's key is given, each key once to each; one alone is none of several.

        Raises InvalidRequest, Conflict, TransactionFailed, NodeUnreachable.
        """
        old = self._intents.applications.get(ksid)
        if old is None:
            raise Conflict(f"key stream {ksid}", "it was not made by this controller")
        home = self._control.name(old.destination)
        for one in clients:
            if authority(one) != old.destination or one == old.server_app_id:
                rule = f"clients live at {home}, as in qkd://{old.destination}/NAME"
                raise InvalidRequest("clients", one, rule)
        named = tuple(dict.fromkeys(clients))
        new = replace(old, client_app_ids=named, qos=replace(old.qos, clients_shared_keys=len(named) > 1))
        if new != old:
            await self._assign(old, new, None)
            self._control.events.add("application_shared", f"among {', '.join(named)}", ksid=ksid)

    def _fits(self, one: ApplicationIntent, qos: Qos) -> bool:
        """Whether a stream's link has room for it with another quality of service."""
        config, link = self._control.config, self._intents.links.get(one.link) if one.link else None
        needed = demand(qos, config.application_bps)
        if one.link in self._control.topology().overloaded and needed > demand(one.qos, config.application_bps):
            return False
        if link is not None and link.type is LinkType.VIRTUAL:
            others = [each for each in self._intents.applications.values() if each.ksid != one.ksid]
            return room(link, others, config.application_bps) >= needed
        span = self._control.topology().span(one.source, one.destination)
        return span is not None and span.free_bps + demand(one.qos, config.application_bps) >= needed

    async def _note(self, intent: ApplicationIntent) -> None:
        """Remembers what no node need be told."""
        await self._intents.settle("", Change(applications={intent.ksid: intent}))

    # Registrations ---------------------------------------------------------------------------------------------------

    async def admit(self) -> None:
        """Looks at every registration that waits, in the order they came."""
        for one in list(self._waiting):
            key = f"admit {id(one)}"
            if not self._control.retries.due(key):
                continue
            try:
                if await self._consider(one):
                    self._waiting.remove(one)
            except ControllerError as error:
                self._control.retries.failed(key)
                text = f"{one.registration.server}: {error}"
                self._control.events.add("application_failed", text, node=self._control.name(one.registration.node))
            if one in self._waiting and time.monotonic() >= one.deadline:
                self._waiting.remove(one)

    async def _consider(self, one: _Waiting) -> bool:
        """Returns whether the registration is answered."""
        new = one.registration
        answered = self._crossing.pop((new.node, new.uris, new.ksid), None)
        if answered is not None and one.received <= answered + CROSSING_SECONDS:
            return True
        nodes = {record.qkdn_id for record in self._control.inventory.records if record.qkdn_id}
        found = match(new, (other.registration for other in self._waiting), self._intents.applications, nodes)
        match found:
            case Wait.FOR_PEER:
                return False
            case Rejoin(ksid):
                return await self._renew(one, ksid)
            case Refuse(admission, reason):
                return await self._refuse(new, admission, reason)
            case Join(source, destination):
                return await self._join(one, source, destination)

    async def _renew(self, one: _Waiting, ksid: KeyStreamId) -> bool:
        """The stream is there, but its node has no entry of it that can be opened: it is over, and begins anew."""
        new = one.registration
        intent = self._intents.applications[ksid]
        running = self._control.running(new.node)
        if running is not None and ksid in running.applications:
            await self._control.transactions.run(change_application(intent, None), Change(applications={ksid: None}))
            return await self._consider(one)
        again = replace(intent, disconnected=())
        await self._control.transactions.run(change_application(None, again), Change(applications={ksid: again}))
        return True

    async def _join(self, one: _Waiting, source: NodeId, destination: NodeId) -> bool:
        new, paths = one.registration, self._paths(one.registration)
        chosen = self._choose(source, destination, new.qos, paths)
        if isinstance(chosen, Blocked):
            if self._may_come(chosen) and time.monotonic() < one.deadline:
                return False
            return await self._refuse(new, admission_of(chosen), chosen.reason, counter_proposal(new.qos, chosen.best_bps))
        made, link = self._link(chosen)
        intent = ApplicationIntent(
            ksid=new.ksid or KeyStreamId(str(uuid.uuid4())),
            server_app_id=new.server,
            client_app_ids=new.clients,
            source=source,
            destination=destination,
            link=link,
            qos=new.qos,
            priority=new.priority,
            disjoint_paths=paths,
        )
        await self._assign(None, intent, made)
        other = destination if new.node == source else source
        self._crossing[(other, new.uris, new.ksid)] = time.monotonic()
        text = f"{self._control.name(source)} - {self._control.name(destination)}"
        self._control.events.add("application_admitted", text, link=link, ksid=intent.ksid)
        return True

    def _paths(self, new: Registration) -> int:
        """What the operator wants for all, or either of the two applications, as far as both have registered."""
        least = self._control.config.disjoint_paths
        pairs = (one.registration for one in self._waiting if one.registration.uris == new.uris)
        return max(new.disjoint_paths, *(one.disjoint_paths for one in pairs if one.ksid == new.ksid), least)

    def _may_come(self, blocked: Blocked) -> bool:
        """Whether waiting can help: links are coming up, or a node is."""
        if blocked.obstacle is Obstacle.NOT_MANAGED:
            return True
        return any(one.status is LinkStatus.PENDING for one in self._control.facts().values())

    def _choose(
        self, source: NodeId, destination: NodeId, qos: Qos, disjoint_paths: int, without: KeyStreamId | None = None
    ) -> UseLink | MakeLink | Blocked:
        config = self._control.config
        others = [one for one in self._intents.applications.values() if one.ksid != without]
        return choose(
            self._control.topology(),
            self._intents.links,
            others,
            (source, destination),
            qos,
            config.application_bps,
            config.virtual_link_bps,
            disjoint_paths,
        )

    def _link(self, chosen: UseLink | MakeLink) -> tuple[LinkIntent | None, LinkId]:
        """The link to make first, if any, and the id of the link to use."""
        if isinstance(chosen, UseLink):
            return None, chosen.link
        made = new_virtual(chosen.routes, chosen.bandwidth_bps, Purpose.APPLICATIONS)
        return made, made.link

    async def _assign(self, old: ApplicationIntent | None, new: ApplicationIntent, made: LinkIntent | None) -> None:
        """The link and the entries in one transaction."""
        plan = change_application(old, new)
        links: dict[LinkId, LinkIntent | None] = {}
        if made is not None:
            links[made.link] = made
            plan = Plan(plan.what, ()).then(change_link(None, made, self._intents.lkms()), plan)
        await self._control.transactions.run(plan, Change(links=links, applications={new.ksid: new}))
        if made is not None:
            self._links.say_created(made)

    async def _refuse(self, new: Registration, admission: Admission, reason: str, offered: Qos = UNSPECIFIED) -> bool:
        """Answers with an entry that says why not; it is only lent, and a debt from the start."""
        ksid = new.ksid or KeyStreamId(str(uuid.uuid4()))
        intent = self._intents.applications.get(ksid)
        self._control.events.add("application_refused", reason, node=self._control.name(new.node), ksid=ksid)
        if intent is not None and new.node in (intent.source, intent.destination):
            return True  # the node has the entry of the rightful owners, and decides itself who is none of them
        told = offered if admission is Admission.QOS_NOT_MET else UNSPECIFIED
        edit = refusal(new.node, ksid, new.server, new.clients, admission, reason, told, new.disjoint_paths)
        await self._intents.owe([edit])
        await self._control.ship(edit)
        self._refused[(new.node, ksid)] = time.monotonic() + REFUSAL_SECONDS
        return True

    async def forget_refused(self) -> None:
        """Takes refusals away that have been there to be read for long enough."""
        for (node, ksid), until in list(self._refused.items()):
            if time.monotonic() < until:
                continue
            del self._refused[(node, ksid)]
            intent = self._intents.applications.get(ksid)
            if intent is None or node not in (intent.source, intent.destination):
                try:
                    await self._control.ship(NodeEdit(node, drop_applications=(ksid,)))
                except ControllerError as error:
                    log.info("refusal left for later node=%s ksid=%s problem=%s", self._control.name(node), ksid, error)

    # Streams ---------------------------------------------------------------------------------------------------------

    async def move(self) -> None:
        """Gives every stream whose link does not work another one; its id stays, and what is allocated stays valid."""
        topology = self._control.topology()
        for one in list(self._intents.applications.values()):
            link = self._intents.links.get(one.link) if one.link else None
            key = f"move {one.ksid}"
            works = link is not None and (link.type is LinkType.VIRTUAL or topology.carries(link.route))
            if works and not self._is_detour(one, link, topology):
                self._control.retries.done(key)
            elif self._control.retries.due(key):
                await self._move(one, key, works)

    def _is_detour(self, one: ApplicationIntent, link: LinkIntent | None, topology: Topology) -> bool:
        """Whether the stream could have gone back to the direct link for some time."""
        span = topology.span(one.source, one.destination)
        direct = span is not None and span.active and any(each in self._intents.links for each in span.links)
        direct = direct and one.disjoint_paths == 1 and time.monotonic() >= self._shuns.get(one.ksid, 0.0)
        if link is None or link.purpose is not Purpose.APPLICATIONS or not direct:
            self._direct_since.pop(one.ksid, None)
            return False
        since = self._direct_since.setdefault(one.ksid, time.monotonic())
        return time.monotonic() - since >= self._control.config.timeouts.idle_link

    async def _move(self, one: ApplicationIntent, key: str, works: bool) -> None:
        chosen = self._choose(one.source, one.destination, one.qos, one.disjoint_paths, one.ksid)
        if isinstance(chosen, Blocked):
            if self._control.retries.failed(key) and not works:
                self._control.events.add("no_route", f"no other link: {chosen.reason}", ksid=one.ksid)
            return
        made, link = self._link(chosen)
        if works and (made is not None or link == one.link):
            self._control.retries.failed(key)
            return
        if await self._change(one, replace(one, link=link), made, key):
            self._control.retries.done(key)
            self._control.events.add("route_changed", f"moved to another link, from {one.link}", link=link, ksid=one.ksid)

    async def _change(
        self, old: ApplicationIntent, new: ApplicationIntent, made: LinkIntent | None = None, key: str = ""
    ) -> bool:
        try:
            await self._assign(old, new, made)
        except ControllerError as error:
            self._control.retries.failed(key)
            self._control.events.add("application_failed", str(error), ksid=old.ksid)
            return False
        return True

    async def release(self) -> None:
        """Ends streams that both applications have left. Nodes say so; what they show now decides."""
        now = time.monotonic()
        for one in list(self._intents.applications.values()):
            if not all(self._is_closed(one, node) for node in (one.source, one.destination)):
                self._closed_since.pop(one.ksid, None)
                continue
            since = now - self._closed_since.setdefault(one.ksid, now)
            if since >= self._patience(one):
                self._closed_since.pop(one.ksid, None)
                change = Change(applications={one.ksid: None})
                await self._control.transactions.run(change_application(one, None), change)
                self._control.events.add("application_released", "both applications have left", ksid=one.ksid)
                self._shuns.pop(one.ksid, None)
                self._unmet.discard(one.ksid)

    def _is_closed(self, one: ApplicationIntent, node: NodeId) -> bool:
        record = self._control.record(node)
        state = record.state.applications.get(one.ksid) if record and record.connected and record.state else None
        return state is not None and state.status in GONE

    def _patience(self, one: ApplicationIntent) -> float:
        """How long a stream that is open at neither end is kept: an application may be on its way, or back soon."""
        left = len(one.disconnected)
        return (ABANDONED_SECONDS, FORGOTTEN_SECONDS, 0.0)[left]
