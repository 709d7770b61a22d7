"""What is known of the network as the values of the API. Pure."""

from collections.abc import Iterable, Mapping
from itertools import pairwise
from types import MappingProxyType

from .model import (
    ApplicationData,
    ApplicationIntent,
    AppView,
    EndView,
    InterfaceView,
    KeyStreamId,
    LevelsView,
    LinkData,
    LinkId,
    LinkIntent,
    LinkStatus,
    LinkType,
    LinkView,
    NodeId,
    NodeRecord,
    NodeStatus,
    NodeView,
    PathStateView,
    PathView,
    RelayView,
)
from .paths import Route
from .topology import LinkFacts, Topology, link_facts


def node_view(record: NodeRecord) -> NodeView:
    """One node. A node that is not reached is shown as last read, its status DOWN."""
    data = record.state or record.running
    alive = record.connected and record.state is not None
    return NodeView(
        qkdn_id=record.qkdn_id,
        name=record.name,
        connected=record.connected,
        status=(record.state and record.state.status if alive else None) or NodeStatus.DOWN,
        location=data.location if data else "",
        version=data.version if data else None,
        netconf=record.netconf,
        lkms=data.lkms if data else None,
        etsi004=data.etsi004 if data else None,
        etsi014_url=data.etsi014_url if data else None,
        interfaces=tuple(
            InterfaceView(one.qkdi_id, one.model, one.type, one.status, one.role_support, one.device, one.port)
            for _, one in sorted(data.interfaces.items() if data else ())
        ),
        links=tuple(sorted(data.links)) if data else (),
        apps=tuple(sorted(data.applications)) if data else (),
        problem=record.problem,
    )


def path_view(topology: Topology, route: Route) -> PathView:
    """A route that could be taken now."""
    spans = [topology.span(a, b) for a, b in pairwise(route.nodes)]
    return PathView(
        source=route.nodes[0],
        destination=route.nodes[-1],
        route=route.nodes,
        names=tuple(topology.name(one) for one in route.nodes),
        links=tuple(min(span.links) for span in spans if span),
        free_bps=route.free_bps,
    )


class Views:
    """All views of one moment."""

    def __init__(
        self,
        records: Iterable[NodeRecord],
        links: Mapping[LinkId, LinkIntent],
        applications: Mapping[KeyStreamId, ApplicationIntent],
        topology: Topology,
        consumption: Mapping[KeyStreamId, int] = MappingProxyType({}),
        problems: Mapping[LinkId, str] = MappingProxyType({}),
    ) -> None:
        self._records = {one.qkdn_id: one for one in records if one.qkdn_id is not None}
        self._links, self._applications, self._topology = links, applications, topology
        self._consumption, self._problems = consumption, problems
        self._facts = link_facts(self._records.values())

    # Links -----------------------------------------------------------------------------------------------------------

    def links(self) -> list[LinkView]:
        return [self.link(one) for one in self.link_ids()]

    def link_ids(self) -> list[LinkId]:
        """Without components: they are shown as the paths of the link that they are for."""
        every = self._facts.keys() | self._links.keys()
        return sorted(one for one in every if self._owner(one) not in every)

    def _owner(self, link: LinkId) -> LinkId | None:
        facts = self._facts.get(link)
        return next((one.component_of for one in facts.entries.values() if one.component_of), None) if facts else None

    def link(self, link: LinkId) -> LinkView:
        """Raises KeyError for a link that nobody wants and no node has."""
        intent, facts = self._links.get(link), self._facts.get(link)
        if intent is None and facts is None:
            raise KeyError(link)
        facts = facts or LinkFacts(link, intent.type if intent else LinkType.PHYSICAL, {})
        paths = self._paths(facts, intent)
        route = intent.route if intent else paths[0].route if paths else self._walk(facts)
        source, destination = self._entry(facts, route[0]), self._entry(facts, route[-1])
        kind = intent.type if intent else facts.type
        physical = kind is LinkType.PHYSICAL
        rates = [one for one in (source, destination) if one.skr_bps or one.eskr_bps] or [source]
        return LinkView(
            link=link,
            type=kind,
            status=self._status(facts, intent),
            source=self._end(route[0], source),
            destination=self._end(route[-1], destination),
            route=route,
            bandwidth_bps=intent.bandwidth_bps if intent else source.bandwidth_bps,
            skr_bps=min(one.skr_bps for one in rates),
            eskr_bps=min(one.eskr_bps for one in rates),
            expected_consumption_bps=max(one.expected_consumption_bps for one in (source, destination)),
            qber=next((one.qber for one in (source, destination) if one.qber is not None), None),
            attenuation_db=source.attenuation_db,
            wavelength=source.wavelength,
            purpose=intent.purpose if intent else None,
            ends=tuple(self._levels(node, facts) for node in dict.fromkeys((route[0], route[-1]))),
            relay=() if paths else self._relay_physical(facts, route) if physical else self._relay_virtual(facts, route),
            apps=tuple(sorted(one.ksid for one in self._applications.values() if one.link == link)),
            disjoint_paths=max(1, len(paths)),
            paths=paths,
            overloaded=facts.overloaded,
            problem=self._problems.get(link),
        )

    def _status(self, facts: LinkFacts, intent: LinkIntent | None) -> LinkStatus:
        """What the ends say. They see that a path has broken further on only once their key is used up; here it is known."""
        whole = intent is None or not intent.others or self._topology.carries_all(intent)
        return LinkStatus.PASSIVE if facts.status is LinkStatus.ACTIVE and not whole else facts.status

    def _paths(self, facts: LinkFacts, intent: LinkIntent | None) -> tuple[PathStateView, ...]:
        if intent is not None:
            return tuple(self._path(one.link, one.route) for one in intent.components())
        names = sorted({name for one in facts.entries.values() for name in one.components})
        return tuple(self._path(one, self._walk(self._facts[one])) for one in names if one in self._facts)

    def _path(self, link: LinkId, route: tuple[NodeId, ...]) -> PathStateView:
        facts = self._facts.get(link) or LinkFacts(link, LinkType.VIRTUAL, {})
        status = facts.status if self._topology.carries(route) else LinkStatus.OFF
        return PathStateView(link, route, status, self._relay_virtual(facts, route))

    def _entry(self, facts: LinkFacts, node: NodeId) -> LinkData:
        return facts.entries.get(node) or LinkData(facts.link)

    def _walk(self, facts: LinkFacts) -> tuple[NodeId, ...]:
        """The route of a link that somebody else configured, from hop to hop as far as the entries tell."""
        start = next((node for node, one in facts.entries.items() if one.next_hops and not one.previous_hop), None)
        if facts.type is LinkType.PHYSICAL or start is None:
            return facts.ends or tuple(sorted(facts.entries))
        route = [start]
        while (entry := facts.entries.get(route[-1])) and entry.next_hops and entry.next_hops[0] not in route:
            route.append(entry.next_hops[0])
        return tuple(route)

    def _end(self, node: NodeId, entry: LinkData | None) -> EndView:
        interface = entry.local_interface if entry else None
        return EndView(node, self._topology.name(node), interface)

    def _levels(self, node: NodeId, facts: LinkFacts) -> LevelsView:
        one = self._entry(facts, node)
        return LevelsView(
            node=node,
            name=self._topology.name(node),
            status=one.status if node in facts.fresh else None,
            stored_bits=one.stored_bits,
            usable_bits=one.usable_bits,
            generated_bits=one.generated_bits,
            consumed_bits=one.consumed_bits,
            burnt_bits=one.burnt_bits,
        )

    def _relay_physical(self, facts: LinkFacts, route: tuple[NodeId, ...]) -> tuple[RelayView, ...]:
        return tuple(self._relay(node, self._entry(facts, node), None) for node in dict.fromkeys(route))

    def _relay_virtual(self, facts: LinkFacts, route: tuple[NodeId, ...]) -> tuple[RelayView, ...]:
        hops = {a: self._topology.span(a, b) for a, b in pairwise(route)}
        result = []
        for node in route:
            span = hops.get(node)
            below = min(span.links or span.others, default=None) if span else None
            result.append(self._relay(node, self._entry(facts, node), below))
        return tuple(result)

    def _relay(self, node: NodeId, one: LinkData, link: LinkId | None) -> RelayView:
        return RelayView(
            node=node,
            name=self._topology.name(node),
            relayed_bits=one.relayed_bits,
            pad_bits=one.pad_bits,
            held_bits=one.held_bits,
            failures=one.relay_failures,
            link=link,
        )

    # Applications ----------------------------------------------------------------------------------------------------

    def app_ids(self) -> list[KeyStreamId]:
        return sorted(self._applications.keys() | self._strangers().keys())

    def apps(self) -> list[AppView]:
        return [self.app(one) for one in self.app_ids()]

    def app(self, ksid: KeyStreamId) -> AppView:
        """Raises KeyError for a key stream that nobody wants and no node has."""
        intent = self._applications.get(ksid)
        return self._wanted(intent) if intent else self._strange(self._strangers()[ksid])

    def _wanted(self, intent: ApplicationIntent) -> AppView:
        ends = [self._application(node, intent.ksid) for node in (intent.source, intent.destination)]
        link = self._links.get(intent.link) if intent.link else None
        route = link.route if link else ()
        return AppView(
            ksid=intent.ksid,
            status=next((one.status for one in ends if one and one.status), None),
            server_app_id=intent.server_app_id,
            client_app_ids=intent.client_app_ids,
            source=self._end(intent.source, None),
            destination=self._end(intent.destination, None),
            links=(intent.link,) if intent.link else (),
            # From the stream's source to its destination, whichever way the link was made.
            route=route if not route or route[0] == intent.source else tuple(reversed(route)),
            qos=intent.qos,
            priority=intent.priority,
            consumed_bits=self._consumption.get(intent.ksid, 0),
            disjoint_paths=intent.disjoint_paths,
        )

    def _application(self, node: NodeId, ksid: KeyStreamId) -> ApplicationData | None:
        record = self._records.get(node)
        return record.state.applications.get(ksid) if record and record.state else None

    def _strangers(self) -> dict[KeyStreamId, ApplicationData]:
        """Key streams that others assigned: entries with both ends that are no intents of ours."""
        found: dict[KeyStreamId, ApplicationData] = {}
        for record in self._records.values():
            state = record.state.applications if record.state else {}
            for ksid, configured in (record.running.applications if record.running else state).items():
                one = state.get(ksid, configured)
                if ksid not in self._applications and one.local_node and one.remote_node:
                    found.setdefault(ksid, one)
        return found

    def _strange(self, one: ApplicationData) -> AppView:
        assert one.local_node is not None
        return AppView(
            ksid=one.ksid,
            status=one.status,
            server_app_id=one.server_app_id,
            client_app_ids=one.client_app_ids,
            source=self._end(one.local_node, None),
            destination=self._end(one.remote_node, None) if one.remote_node else None,
            links=one.backing_links,
            route=(),
            qos=one.qos,
            priority=one.priority,
            consumed_bits=self._consumption.get(one.ksid, 0),
            disjoint_paths=one.disjoint_paths,
        )
