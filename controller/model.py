"""Values of the controller: what it knows of nodes, links, applications, and what its API says of them.

Three kinds. *Data* is what one node's datastore says, read by NETCONF. *Intents* are what the controller wants, kept in its
store. *Views* are what people and programs see of the network; the names of their fields are the members of the API's JSON.
All are frozen, built at the edges. Rates in bit/s, amounts in bits.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import datetime
from enum import Enum, StrEnum
from types import MappingProxyType
from typing import Any

from qswitch.protocol.etsi015 import (
    MAX_DISJOINT_PATHS as MAX_DISJOINT_PATHS,
    UNSPECIFIED as UNSPECIFIED,
    Admission as Admission,
    ApplicationStatus as ApplicationStatus,
    InterfaceId as InterfaceId,
    InterfaceStatus as InterfaceStatus,
    KeyStreamId as KeyStreamId,
    LinkId as LinkId,
    LinkStatus as LinkStatus,
    LinkType as LinkType,
    NodeId as NodeId,
    NodeStatus as NodeStatus,
    Qos as Qos,
    Role as Role,
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class ServiceAddress:
    """Where a node's service listens, as the API says it."""

    address: str
    port: int


COMPONENTS = uuid.UUID("5d1c4f0e-6f0b-5a55-9b0c-2f7a8f6f2c11")


def _nothing() -> Mapping[Any, Any]:
    return MappingProxyType({})


# Data: what a node's datastore says ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class InterfaceData:
    qkdi_id: InterfaceId
    model: str = ""
    type: str = ""
    status: InterfaceStatus | None = None
    role_support: Role | None = None
    device: str = ""
    port: int | None = None
    max_absorption_db: float | None = None


@dataclass(frozen=True, slots=True)
class LinkData:
    """One `qkd_link` of one node. Of a running datastore the state below `status` is as good as empty."""

    link: LinkId
    type: LinkType | None = None
    enabled: bool = True
    status: LinkStatus | None = None
    local_node: NodeId | None = None
    local_interface: InterfaceId | None = None
    remote_node: NodeId | None = None
    remote_interface: InterfaceId | None = None
    previous_hop: NodeId | None = None
    next_hops: tuple[NodeId, ...] = ()
    bandwidth_bps: int | None = None
    attenuation_db: float | None = None
    wavelength: str | None = None
    role: Role | None = None
    remote_lkms: ServiceAddress | None = None
    components: tuple[LinkId, ...] = ()  # links whose keys XORed are this link's key
    component_of: LinkId | None = None
    skr_bps: int = 0
    eskr_bps: int = 0
    expected_consumption_bps: int = 0
    qber: float | None = None
    stored_bits: int = 0
    usable_bits: int = 0
    capacity_bits: int = 0
    generated_bits: int = 0
    consumed_bits: int = 0
    burnt_bits: int = 0
    relayed_bits: int = 0
    pad_bits: int = 0
    held_bits: int = 0
    relay_failures: int = 0
    overloaded: bool = False


@dataclass(frozen=True, slots=True)
class ApplicationData:
    """One `qkd_app` of one node."""

    ksid: KeyStreamId
    status: ApplicationStatus | None = None
    server_app_id: str | None = None
    client_app_ids: tuple[str, ...] = ()
    priority: int = 0
    qos: Qos = UNSPECIFIED
    backing_links: tuple[LinkId, ...] = ()
    local_node: NodeId | None = None
    remote_node: NodeId | None = None
    admission: Admission = Admission.ADMITTED
    admission_reason: str | None = None
    disjoint_paths: int = 1
    periods: tuple[tuple[str, int], ...] = ()  # of app_statistics: end time as written, bits consumed


@dataclass(frozen=True, slots=True)
class NodeData:
    """One datastore of one node: running, or operational."""

    node: NodeId
    status: NodeStatus | None = None
    version: str | None = None
    location: str = ""
    relay_mode: bool = True
    lkms: ServiceAddress | None = None
    etsi004: ServiceAddress | None = None
    etsi014_url: str | None = None
    interfaces: Mapping[InterfaceId, InterfaceData] = field(default_factory=_nothing)
    links: Mapping[LinkId, LinkData] = field(default_factory=_nothing)
    applications: Mapping[KeyStreamId, ApplicationData] = field(default_factory=_nothing)


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """What the controller holds of one node. `state` is None while the node's agent does not run or was never reached.

    `running` is the configuration, `state` the operational datastore, both of the last read. `problem` says in words why the
    node is not connected or not well. `netconf` is None while a node that calls has not.
    """

    name: str
    netconf: Endpoint | None
    qkdn_id: NodeId | None = None
    connected: bool = False
    problem: str | None = None
    running: NodeData | None = None
    state: NodeData | None = None


# Intents: what the controller wants ----------------------------------------------------------------------------------


class Purpose(StrEnum):
    """Who wanted a link: a fibre of the configuration, an operator, or applications (removed when none uses it)."""

    FIBRE = "fibre"
    OPERATOR = "operator"
    APPLICATIONS = "applications"


@dataclass(frozen=True, slots=True)
class LinkIntent:
    """A link that shall be. `route` lists all nodes of it, both ends included; of a physical link just the ends.

    With `others` its key is the XOR of as many keys as there are routes, no two of which share a node but the ends; each is
    relayed by a component, a link of its own with an id that stands for this route: another route is another component, so
    that what is on its way over the old one never meets what goes over the new.
    """

    link: LinkId
    type: LinkType
    route: tuple[NodeId, ...]
    purpose: Purpose
    interfaces: tuple[InterfaceId, InterfaceId] | None = None
    bandwidth_bps: int | None = None
    attenuation_db: float | None = None
    wavelength: str | None = None
    others: tuple[tuple[NodeId, ...], ...] = ()

    @property
    def source(self) -> NodeId:
        return self.route[0]

    @property
    def destination(self) -> NodeId:
        return self.route[-1]

    @property
    def routes(self) -> tuple[tuple[NodeId, ...], ...]:
        return (self.route, *self.others)

    @property
    def nodes(self) -> tuple[NodeId, ...]:
        """All nodes of all routes, each once."""
        return tuple(dict.fromkeys(node for route in self.routes for node in route))

    def components(self) -> "tuple[LinkIntent, ...]":
        """One link for each route; none when there is only one."""
        return tuple(self._component(route) for route in self.routes) if self.others else ()

    def _component(self, route: tuple[NodeId, ...]) -> "LinkIntent":
        link = LinkId(str(uuid.uuid5(COMPONENTS, "|".join((self.link, *route)))))
        return LinkIntent(link, self.type, route, self.purpose, bandwidth_bps=self.bandwidth_bps)


@dataclass(frozen=True, slots=True)
class ApplicationIntent:
    """A key stream that shall be served at its two nodes, backed by one link (None: no route at present)."""

    ksid: KeyStreamId
    server_app_id: str
    client_app_ids: tuple[str, ...]
    source: NodeId
    destination: NodeId
    link: LinkId | None
    qos: Qos = UNSPECIFIED
    priority: int = 0
    disconnected: tuple[NodeId, ...] = ()
    disjoint_paths: int = 1


# Views: what the API says --------------------------------------------------------------------------------------------

# A member with this metadata is left out of the JSON when it is None; every other member is always there, null if unknown.
OPTIONAL: Mapping[str, bool] = MappingProxyType({"optional": True})


@dataclass(frozen=True, slots=True)
class InterfaceView:
    qkdi_id: InterfaceId
    model: str
    type: str
    status: InterfaceStatus | None
    role_support: Role | None
    device: str
    port: int | None


@dataclass(frozen=True, slots=True)
class NodeView:
    qkdn_id: NodeId | None  # None while the node was never reached
    name: str
    connected: bool
    status: NodeStatus
    location: str
    version: str | None
    netconf: Endpoint | None  # None while a node that calls has not
    lkms: ServiceAddress | None
    etsi004: ServiceAddress | None
    etsi014_url: str | None
    interfaces: tuple[InterfaceView, ...] = ()
    links: tuple[LinkId, ...] = ()
    apps: tuple[KeyStreamId, ...] = ()
    problem: str | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True, slots=True)
class EndView:
    node: NodeId
    name: str
    interface: InterfaceId | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True, slots=True)
class LevelsView:
    """One end's key store for a link."""

    node: NodeId
    name: str
    status: LinkStatus | None
    stored_bits: int = 0
    usable_bits: int = 0
    generated_bits: int = 0
    consumed_bits: int = 0
    burnt_bits: int = 0


@dataclass(frozen=True, slots=True)
class RelayView:
    """What relaying cost at one node; of a virtual link, `link` is the physical link to the next hop."""

    node: NodeId
    name: str
    relayed_bits: int = 0
    pad_bits: int = 0
    held_bits: int = 0
    failures: int = 0
    link: LinkId | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True, slots=True)
class PathStateView:
    """One of several node-disjoint routes of a link: the component that relays over it, and what that costs."""

    link: LinkId
    route: tuple[NodeId, ...]
    status: LinkStatus
    relay: tuple[RelayView, ...] = ()


@dataclass(frozen=True, slots=True)
class LinkView:
    """`route` is the first of the `paths` where there are several; `problem` why it is not as wanted, if it is not."""

    link: LinkId
    type: LinkType
    status: LinkStatus
    source: EndView
    destination: EndView
    route: tuple[NodeId, ...]
    bandwidth_bps: int | None
    skr_bps: int
    eskr_bps: int
    expected_consumption_bps: int
    qber: float | None
    attenuation_db: float | None
    wavelength: str | None
    purpose: Purpose | None  # None: configured by somebody else, only shown
    ends: tuple[LevelsView, ...] = ()
    relay: tuple[RelayView, ...] = ()
    apps: tuple[KeyStreamId, ...] = ()
    disjoint_paths: int = 1
    paths: tuple[PathStateView, ...] = ()
    overloaded: bool = False  # an end says so
    problem: str | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True, slots=True)
class AppView:
    ksid: KeyStreamId
    status: ApplicationStatus | None
    server_app_id: str | None
    client_app_ids: tuple[str, ...]
    source: EndView
    destination: EndView | None
    links: tuple[LinkId, ...]
    route: tuple[NodeId, ...]
    qos: Qos
    priority: int
    consumed_bits: int
    disjoint_paths: int = 1  # as asked for


@dataclass(frozen=True, slots=True)
class PathView:
    """A route the controller would take now, with the physical links it crosses and the rate that is free on all of them."""

    source: NodeId
    destination: NodeId
    route: tuple[NodeId, ...]
    names: tuple[str, ...]
    links: tuple[LinkId, ...]
    free_bps: int
    others: "tuple[PathView, ...]" = ()  # with several node-disjoint routes, all but this one


@dataclass(frozen=True, slots=True)
class TopologyView:
    nodes: tuple[NodeView, ...]
    links: tuple[LinkView, ...]
    apps: tuple[AppView, ...]


@dataclass(frozen=True, slots=True)
class HealthView:
    status: str  # "ok", or "degraded" while a node is not connected
    version: str
    nodes: int
    connected: int
    links: int
    active_links: int
    apps: int


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in the network; `seq` rises by one for each."""

    seq: int
    time: datetime
    node: str | None  # name of the node
    type: str
    message: str
    link: LinkId | None = field(default=None, metadata=OPTIONAL)
    ksid: KeyStreamId | None = field(default=None, metadata=OPTIONAL)


def to_json(value: Any) -> Any:
    """A value of this module as JSON's own types: member names are field names, times are RFC 3339 in UTC."""
    if is_dataclass(value) and not isinstance(value, type):
        return {
            one.name: to_json(content)
            for one in fields(value)
            if (content := getattr(value, one.name)) is not None or not one.metadata.get("optional")
        }
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, Mapping):
        return {str(key): to_json(content) for key, content in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_json(one) for one in value]
    return value
