"""Values of the node: what ETSI GS QKD 015 says a node, a link, an application is.

Configuration (what the datastore holds) and run-time state (what is pushed to it) are different classes. All values are
frozen and are checked where they are built: in `datastore.py` from YANG data, in `config.py` from the agent's own file.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from types import MappingProxyType

from qswitch.protocol.etsi015 import (
    UNSPECIFIED,
    Admission as Admission,
    ApplicationStatus as ApplicationStatus,
    ApplicationType as ApplicationType,
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
    Severity as Severity,
    Technology as Technology,
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    address: str
    port: int


# Configuration -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LinkConfig:
    """One `qkd_link` as configured.

    A physical link has `local_interface`, `role` and `remote_node`. Of a virtual link, the source has only `next_hop`,
    the destination only `previous_hop`, a relay node both; on a relay node `local_node`/`remote_node` are the two ends
    of the link, elsewhere `local_node` is this node. A link over several node-disjoint paths (extension `components`) has
    no hops itself, but virtual links that bring the shares of its key (extension `component_of`).
    """

    link: LinkId
    type: LinkType
    enabled: bool = True
    status: LinkStatus | None = None  # `qkdl_status` as a controller wrote it; OFF keeps the link from starting
    local_node: NodeId | None = None
    local_interface: InterfaceId | None = None
    remote_node: NodeId | None = None
    remote_interface: InterfaceId | None = None
    applications: tuple[KeyStreamId, ...] = ()
    previous_hop: NodeId | None = None
    next_hops: tuple[NodeId, ...] = ()
    bandwidth_bps: int | None = None
    attenuation_db: Decimal | None = None
    wavelength: str | None = None
    role: Role | None = None
    remote_lkms: Endpoint | None = None
    components: tuple[LinkId, ...] = ()  # at the two ends: its key is the XOR of what these bring
    component_of: LinkId | None = None

    @property
    def next_hop(self) -> NodeId | None:
        """The next node of a unicast route, which has one entry. The datastore keeps no order: of several, any may come."""
        return self.next_hops[0] if self.next_hops else None


@dataclass(frozen=True, slots=True)
class ApplicationConfig:
    """One `qkd_app` as configured. Keys are served only once `remote_node` is set (015)."""

    ksid: KeyStreamId
    type: ApplicationType = ApplicationType.CLIENT
    server_app_id: str | None = None
    client_app_ids: tuple[str, ...] = ()
    priority: int = 0
    expiration_time: datetime | None = None
    qos: Qos = UNSPECIFIED
    backing_links: tuple[LinkId, ...] = ()
    local_node: NodeId | None = None
    remote_node: NodeId | None = None
    admission: Admission = Admission.ADMITTED
    admission_reason: str | None = None
    disjoint_paths: int = 1


@dataclass(frozen=True, slots=True)
class Interface:
    """One `qkd_interface`: what a device is and where it is attached."""

    interface: InterfaceId
    model: str
    technology: Technology
    device: str
    port: int
    role_support: Role
    wavelength_range: str | None = None
    max_absorption_db: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Configuration:
    """The whole of `qkd_node` that can be configured, as one snapshot of the running datastore."""

    node: NodeId
    version: str | None = None
    location: str = ""
    link_stats: bool = True
    application_stats: bool = True
    relay_mode: bool = True
    interfaces: Mapping[InterfaceId, Interface] = field(default_factory=lambda: MappingProxyType({}))
    links: Mapping[LinkId, LinkConfig] = field(default_factory=lambda: MappingProxyType({}))
    applications: Mapping[KeyStreamId, ApplicationConfig] = field(default_factory=lambda: MappingProxyType({}))


# State ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class KeyLevels:
    """Levels (now) and totals (since the link was created) of one end's key store for a link, in bits."""

    capacity_bits: int = 0
    stored_bits: int = 0
    usable_bits: int = 0
    generated_bits: int = 0
    consumed_bits: int = 0
    burnt_bits: int = 0
    full: bool = False  # no more is taken in


@dataclass(frozen=True, slots=True)
class RelayTotals:
    """What relaying carried and cost (extension `relay`), in bits; `held_bits` is in this relay node's memory now."""

    relayed_bits: int = 0
    pad_bits: int = 0
    failures: int = 0
    held_bits: int = 0


@dataclass(frozen=True, slots=True)
class Performance:
    """`qkdl_performance`. Rates in bit/s; QBER as a fraction of 1, SNR in dB, both only on physical links."""

    skr_bps: int = 0
    eskr_bps: int = 0
    expected_consumption_bps: int = 0
    qber: float | None = None
    snr_db: float | None = None


@dataclass(frozen=True, slots=True)
class LinkState:
    link: LinkId
    type: LinkType
    status: LinkStatus
    performance: Performance = Performance()
    levels: KeyLevels = KeyLevels()
    relay: RelayTotals = RelayTotals()
    overloaded: bool = False


@dataclass(frozen=True, slots=True)
class Consumption:
    """One period of `app_statistics`."""

    start: datetime
    end: datetime
    consumed_bits: int


@dataclass(frozen=True, slots=True)
class ApplicationState:
    ksid: KeyStreamId
    status: ApplicationStatus
    creation_time: datetime
    statistics: tuple[Consumption, ...] = ()


@dataclass(frozen=True, slots=True)
class Qrng:
    name: str
    model: str
    healthy: bool


@dataclass(frozen=True, slots=True)
class NodeState:
    """Operational state of the whole node, as pushed to the operational datastore."""

    status: NodeStatus
    lkms: Endpoint | None = None
    etsi004: Endpoint | None = None
    etsi014_url: str | None = None
    qrngs: tuple[Qrng, ...] = ()
    interfaces: Mapping[InterfaceId, InterfaceStatus] = field(default_factory=lambda: MappingProxyType({}))
    links: Mapping[LinkId, LinkState] = field(default_factory=lambda: MappingProxyType({}))
    applications: Mapping[KeyStreamId, ApplicationState] = field(default_factory=lambda: MappingProxyType({}))


# Notifications -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ApplicationNew:
    """`sdqkdn_application_new`; `ksid` (extension) only when the application brought one."""

    server_app_id: str
    client_app_ids: tuple[str, ...]
    qos: Qos
    ksid: KeyStreamId | None = None
    type: ApplicationType = ApplicationType.CLIENT
    priority: int = 0
    open_timeout_ms: int | None = None
    disjoint_paths: int = 1


@dataclass(frozen=True, slots=True)
class ApplicationQosUpdate:
    """What an application asks for now; with `unmet_min_bps` (extension), what it gets of the least it was promised."""

    ksid: KeyStreamId
    qos: Qos
    priority: int = 0
    unmet_min_bps: int | None = None


@dataclass(frozen=True, slots=True)
class ApplicationDisconnected:
    ksid: KeyStreamId


@dataclass(frozen=True, slots=True)
class InterfaceNew:
    interface: Interface


@dataclass(frozen=True, slots=True)
class InterfaceDown:
    interface: InterfaceId
    reason: str


@dataclass(frozen=True, slots=True)
class InterfaceOut:
    interface: InterfaceId


@dataclass(frozen=True, slots=True)
class LinkDown:
    link: LinkId
    reason: str


@dataclass(frozen=True, slots=True)
class LinkPerformanceUpdate:
    link: LinkId
    performance: Performance


@dataclass(frozen=True, slots=True)
class LinkOverloaded:
    link: LinkId
    performance: Performance


@dataclass(frozen=True, slots=True)
class Event:
    """`event`, or `alarm` when `is_alarm`: exactly one of link, interface, application is what it happened to."""

    message: str
    severity: Severity
    is_alarm: bool = False
    link: LinkId | None = None
    link_status: LinkStatus | None = None
    interface: InterfaceId | None = None
    interface_status: InterfaceStatus | None = None
    ksid: KeyStreamId | None = None
    application_status: ApplicationStatus | None = None


Notification = (
    ApplicationNew
    | ApplicationQosUpdate
    | ApplicationDisconnected
    | InterfaceNew
    | InterfaceDown
    | InterfaceOut
    | LinkDown
    | LinkPerformanceUpdate
    | LinkOverloaded
    | Event
)
