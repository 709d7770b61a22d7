"""What each node must be told so that the network becomes what is wanted: edits per node, in stages. Pure.

An edit names whole list entries, to put in place or to drop, so that sending it twice does no harm and its inverse follows
from what the node had before. A stage is sent to its nodes at the same time; the next one when all of a required stage are
in.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

from .model import (
    UNSPECIFIED,
    Admission,
    ApplicationData,
    ApplicationIntent,
    InterfaceId,
    KeyStreamId,
    LinkData,
    LinkId,
    LinkIntent,
    LinkType,
    NodeData,
    NodeId,
    Qos,
    Role,
    ServiceAddress,
)

Addresses = Mapping[NodeId, ServiceAddress]


@dataclass(frozen=True, slots=True)
class NodeEdit:
    """What one node is told. All of it takes effect at once, or nothing."""

    node: NodeId
    put_links: tuple[LinkData, ...] = ()
    drop_links: tuple[LinkId, ...] = ()
    put_applications: tuple[ApplicationData, ...] = ()
    drop_applications: tuple[KeyStreamId, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.put_links or self.drop_links or self.put_applications or self.drop_applications)

    @property
    def links(self) -> tuple[LinkId, ...]:
        return (*(one.link for one in self.put_links), *self.drop_links)

    @property
    def applications(self) -> tuple[KeyStreamId, ...]:
        return (*(one.ksid for one in self.put_applications), *self.drop_applications)


@dataclass(frozen=True, slots=True)
class Stage:
    """Edits that go out together. What fails in one that is not required is made good when the node comes back."""

    edits: tuple[NodeEdit, ...]
    required: bool = True


@dataclass(frozen=True, slots=True)
class Plan:
    what: str
    stages: tuple[Stage, ...]

    def then(self, *others: "Plan") -> "Plan":
        return replace(self, stages=self.stages + tuple(stage for one in others for stage in one.stages))


def inverse(edit: NodeEdit, running: NodeData | None) -> NodeEdit:
    """The edit that brings a node back to what it had."""
    links = running.links if running else {}
    applications = running.applications if running else {}
    return NodeEdit(
        node=edit.node,
        put_links=tuple(links[one] for one in edit.links if one in links),
        drop_links=tuple(one for one in edit.links if one not in links),
        put_applications=tuple(applications[one] for one in edit.applications if one in applications),
        drop_applications=tuple(one for one in edit.applications if one not in applications),
    )


def applied(running: NodeData, edit: NodeEdit) -> NodeData:
    """What a node's configuration is once an edit is in."""
    links = {**running.links, **{one.link: one for one in edit.put_links}}
    applications = {**running.applications, **{one.ksid: one for one in edit.put_applications}}
    for link in edit.drop_links:
        links.pop(link, None)
    for ksid in edit.drop_applications:
        applications.pop(ksid, None)
    return replace(running, links=links, applications=applications)


# Entries -------------------------------------------------------------------------------------------------------------


Entries = dict[NodeId, dict[LinkId, LinkData]]


def all_entries(intent: LinkIntent, lkms: Addresses) -> Entries:
    """All `qkd_link` of every node that a link concerns: of its components as well."""
    found: Entries = {}
    for one in (intent, *intent.components()):
        owner = None if one is intent else intent.link
        for node, entry in link_entries(one, lkms).items():
            found.setdefault(node, {})[one.link] = replace(entry, component_of=owner)
    return found


def link_entries(intent: LinkIntent, lkms: Addresses) -> dict[NodeId, LinkData]:
    """The `qkd_link` of every node that has the link itself: with several routes the two ends."""
    if intent.type is LinkType.PHYSICAL:
        return _physical(intent, lkms)
    if not intent.others:
        return _virtual(intent, lkms)
    components = tuple(sorted(one.link for one in intent.components()))
    ends = _virtual(replace(intent, route=(intent.source, intent.destination), others=()), lkms)
    return {node: replace(one, previous_hop=None, next_hops=(), components=components) for node, one in ends.items()}


def _physical(intent: LinkIntent, lkms: Addresses) -> dict[NodeId, LinkData]:
    assert intent.interfaces is not None, "a physical link joins two interfaces"
    (a, b), (on_a, on_b) = intent.route, intent.interfaces

    def end(here: NodeId, there: NodeId, mine: InterfaceId, its: InterfaceId) -> LinkData:
        return LinkData(
            link=intent.link,
            type=LinkType.PHYSICAL,
            local_node=here,
            local_interface=mine,
            remote_node=there,
            remote_interface=its,
            attenuation_db=intent.attenuation_db,
            wavelength=intent.wavelength,
            # The route of a physical link starts at the end that transmits.
            role=Role.TRANSMITTER if here == intent.source else Role.RECEIVER,
            remote_lkms=lkms.get(there),
        )

    return {a: end(a, b, on_a, on_b), b: end(b, a, on_b, on_a)}


def _virtual(intent: LinkIntent, lkms: Addresses) -> dict[NodeId, LinkData]:
    source, destination, route = intent.source, intent.destination, intent.route
    common = LinkData(
        link=intent.link,
        type=LinkType.VIRTUAL,
        local_node=source,
        remote_node=destination,
        bandwidth_bps=intent.bandwidth_bps,
    )
    previous = {b: a for a, b in pairwise(route)}
    following = {a: (b,) for a, b in pairwise(route)}
    entries = {node: replace(common, previous_hop=previous.get(node), next_hops=following.get(node, ())) for node in route}
    entries[source] = replace(entries[source], remote_lkms=lkms.get(destination))
    entries[destination] = replace(
        entries[destination], local_node=destination, remote_node=source, remote_lkms=lkms.get(source)
    )
    return entries


def application_entries(intent: ApplicationIntent) -> dict[NodeId, ApplicationData]:
    """The `qkd_app` of both nodes."""
    ends = ((intent.source, intent.destination), (intent.destination, intent.source))
    return {
        here: ApplicationData(
            ksid=intent.ksid,
            server_app_id=intent.server_app_id,
            client_app_ids=intent.client_app_ids,
            priority=intent.priority,
            qos=intent.qos,
            backing_links=(intent.link,) if intent.link else (),
            local_node=here,
            remote_node=there,
            disjoint_paths=intent.disjoint_paths,
        )
        for here, there in ends
    }


def refusal(
    node: NodeId,
    ksid: KeyStreamId,
    server: str,
    clients: tuple[str, ...],
    admission: Admission,
    reason: str,
    offered: Qos = UNSPECIFIED,
    disjoint_paths: int = 1,
) -> NodeEdit:
    """The answer to a registration that is not admitted. Without a remote node the agent serves it no key."""
    entry = ApplicationData(
        ksid=ksid,
        server_app_id=server,
        client_app_ids=clients,
        local_node=node,
        admission=admission,
        admission_reason=reason,
        qos=offered,
        disjoint_paths=disjoint_paths,
    )
    return NodeEdit(node, put_applications=(entry,))


# Plans ---------------------------------------------------------------------------------------------------------------


def change_link(old: LinkIntent | None, new: LinkIntent | None, lkms: Addresses) -> Plan:
    """Creates, changes (as when rerouting) or deletes a link.

    Intermediate nodes first, then the source, then the destination (015, multi-hop workflow); nodes the link leaves last.
    """
    before = all_entries(old, lkms) if old else {}
    after = all_entries(new, lkms) if new else {}
    if new is None:
        assert old is not None
        first, rest = old.source, [node for node in reversed(old.nodes) if node != old.source]
        # The source first: it stops filling. Nobody who cannot be reached now holds up a deletion.
        gone = [
            Stage(tuple(NodeEdit(node, drop_links=_ids(before[node])) for node in nodes), False) for nodes in ([first], rest)
        ]
        return Plan(f"delete link {old.link}", tuple(gone))
    ends = (new.source, new.destination)
    order = ([node for node in new.nodes if node not in ends], [new.source], [new.destination])
    puts = (Stage(_full(_change(node, before, after, at_end=node in ends) for node in nodes)) for nodes in order)
    left = [NodeEdit(node, drop_links=_ids(before[node], after.get(node, {}))) for node in before if node not in ends]
    verb = "reroute" if old else "create"
    return Plan(f"{verb} link {new.link}", _sent((*puts, Stage(_full(left), required=False))))


def _change(node: NodeId, before: Entries, after: Entries, at_end: bool) -> NodeEdit:
    """What a node gets. An end changes all at once; between the ends the old stays until nobody sends over it."""
    had, has = before.get(node, {}), after[node]
    puts = tuple(entry for link, entry in has.items() if had.get(link) != entry)
    return NodeEdit(node, put_links=puts, drop_links=_ids(had, has) if at_end else ())


def _ids(entries: Iterable[LinkId], without: Iterable[LinkId] = ()) -> tuple[LinkId, ...]:
    return tuple(link for link in entries if link not in without)


def _full(edits: Iterable[NodeEdit]) -> tuple[NodeEdit, ...]:
    return tuple(one for one in edits if one)


def _sent(stages: Iterable[Stage]) -> tuple[Stage, ...]:
    return tuple(one for one in stages if one.edits)


def change_application(old: ApplicationIntent | None, new: ApplicationIntent | None) -> Plan:
    """Creates, moves or deletes the entries of a key stream, on both nodes at the same time."""
    before = application_entries(old) if old else {}
    after = application_entries(new) if new else {}
    puts = tuple(NodeEdit(node, put_applications=(entry,)) for node, entry in after.items() if before.get(node) != entry)
    ksid = (new or old).ksid  # type: ignore[union-attr]
    drops = tuple(NodeEdit(node, drop_applications=(ksid,)) for node in before if node not in after)
    return Plan(f"{'assign' if new else 'release'} key stream {ksid}", _sent((Stage(puts), Stage(drops, required=False))))


# What a node should have ---------------------------------------------------------------------------------------------


def correction(
    node: NodeId,
    running: NodeData,
    links: Iterable[LinkIntent],
    applications: Iterable[ApplicationIntent],
    lkms: Addresses,
    unwanted_links: Iterable[LinkId] = (),
    unwanted_applications: Iterable[KeyStreamId] = (),
) -> NodeEdit:
    """What brings a node's configuration to what the intents say.

    Entries of others stay as they are: only the unwanted ones, which were ours, go.
    """
    wanted_links = {
        link: entry for one in links if node in one.nodes for link, entry in all_entries(one, lkms).get(node, {}).items()
    }
    wanted = {one.ksid: application_entries(one)[node] for one in applications if node in (one.source, one.destination)}
    return NodeEdit(
        node=node,
        put_links=tuple(one for one in wanted_links.values() if not same_link(one, running.links.get(one.link))),
        drop_links=tuple(sorted(one for one in unwanted_links if one in running.links and one not in wanted_links)),
        put_applications=tuple(
            one for one in wanted.values() if not same_application(one, running.applications.get(one.ksid))
        ),
        drop_applications=tuple(
            sorted(one for one in unwanted_applications if one in running.applications and one not in wanted)
        ),
    )


def strangers(running: NodeData, links: Iterable[LinkIntent]) -> list[LinkId]:
    """Links of a node that are not of our making: reported, never touched."""
    ours = {each.link for one in links if running.node in one.nodes for each in (one, *one.components())}
    return sorted(link for link in running.links if link not in ours)


def same_link(wanted: LinkData, found: LinkData | None) -> bool:
    """Whether a configured entry says what is wanted. An address of ours that is unknown is no difference."""
    if found is None:
        return False
    address = wanted.remote_lkms or found.remote_lkms
    attenuation = found.attenuation_db if _near(wanted.attenuation_db, found.attenuation_db) else wanted.attenuation_db
    # What the node adds by itself (its status, its rates) is left out by copying only what is ours to say.
    ours = replace(wanted, remote_lkms=address, attenuation_db=attenuation)
    theirs = LinkData(
        link=found.link,
        type=found.type,
        enabled=found.enabled,
        local_node=found.local_node,
        local_interface=found.local_interface,
        remote_node=found.remote_node,
        remote_interface=found.remote_interface,
        previous_hop=found.previous_hop,
        next_hops=found.next_hops,
        bandwidth_bps=found.bandwidth_bps,
        attenuation_db=found.attenuation_db,
        wavelength=found.wavelength,
        role=found.role,
        remote_lkms=found.remote_lkms,
        components=found.components,
        component_of=found.component_of,
    )
    return ours == theirs


def _near(a: float | None, b: float | None) -> bool:
    """Equal to the three digits that a decimal64 of 015 has."""
    return a is not None and b is not None and abs(a - b) < 0.0006


def same_application(wanted: ApplicationData, found: ApplicationData | None) -> bool:
    """Whether a configured entry says what is wanted."""
    if found is None:
        return False
    theirs = replace(
        found, status=None, periods=(), client_app_ids=tuple(sorted(found.client_app_ids)), admission_reason=None
    )
    return replace(wanted, client_app_ids=tuple(sorted(wanted.client_app_ids))) == theirs
