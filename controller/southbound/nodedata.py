"""Reads the `qkd_node` tree of ETSI GS QKD 015 V2.1.1, with our extensions where a node has them, into values.

Tolerant as a reader must be: unknown elements are skipped, values it cannot read are unknown. Identities are taken by their
name, whichever prefix they came with.
"""

from collections.abc import Iterator
from enum import StrEnum
from types import MappingProxyType

from lxml import etree

from ..model import (
    Admission,
    ApplicationData,
    ApplicationStatus,
    InterfaceData,
    InterfaceId,
    InterfaceStatus,
    KeyStreamId,
    LinkData,
    LinkId,
    LinkStatus,
    LinkType,
    NodeData,
    NodeId,
    NodeStatus,
    Qos,
    Role,
    ServiceAddress,
)

NODE = "urn:etsi:qkd:yang:etsi-qkd-node"
TYPES = "urn:etsi:qkd:yang:etsi-qkd-node-types"
EXTENSIONS = "urn:quantum-switch:yang:qkd-node-extensions"
FILTER = f'<qkd_node xmlns="{NODE}"/>'


class Reader:
    """One element; members are named by local name, paths with '/'. Namespaces: 015's, or `x:` for our extensions."""

    def __init__(self, element: etree._Element) -> None:
        self.element = element

    def _path(self, path: str) -> str:
        parts = path.split("/")
        return "/".join(f"{{{EXTENSIONS}}}{one[2:]}" if one.startswith("x:") else f"{{{NODE}}}{one}" for one in parts)

    def text(self, path: str) -> str | None:
        found = self.element.findtext(self._path(path))
        return found.strip() if found is not None and found.strip() else None

    def texts(self, path: str) -> tuple[str, ...]:
        return tuple((one.text or "").strip() for one in self.element.iterfind(self._path(path)))

    def all(self, path: str) -> "Iterator[Reader]":
        return (Reader(one) for one in self.element.iterfind(self._path(path)))

    def identity(self, path: str) -> str | None:
        text = self.text(path)
        return text.rpartition(":")[2] if text else None

    def member[E: StrEnum](self, path: str, kind: type[E]) -> E | None:
        name = self.identity(path)
        return kind(name) if name is not None and name in kind else None

    def number(self, path: str) -> int | None:
        text = self.text(path)
        return int(text) if text and text.isdecimal() else None

    def count(self, path: str) -> int:
        return self.number(path) or 0

    def decimal(self, path: str) -> float | None:
        try:
            return float(self.text(path) or "")
        except ValueError:
            return None

    def flag(self, path: str, default: bool) -> bool:
        text = self.text(path)
        return text == "true" if text else default

    def uuid(self, path: str) -> str | None:
        text = self.text(path)
        return text.lower() if text else None

    def uuids(self, path: str) -> tuple[str, ...]:
        return tuple(one.lower() for one in self.texts(path) if one)

    def node(self, path: str) -> NodeId | None:
        text = self.uuid(path)
        return NodeId(text) if text else None

    def interface(self, path: str) -> InterfaceId | None:
        number = self.number(path)
        return InterfaceId(number) if number is not None else None

    def address(self, path: str) -> ServiceAddress | None:
        address, port = self.text(f"{path}/x:address"), self.number(f"{path}/x:port")
        return ServiceAddress(address, port) if address and port else None


def parse_node(data: etree._Element | None) -> NodeData | None:
    """The node in a `data` element, or None when there is none (an agent that does not run has no state)."""
    element = data.find(f"{{{NODE}}}qkd_node") if data is not None else None
    if element is None:
        return None
    node = Reader(element)
    qkdn_id = node.node("qkdn_id")
    if qkdn_id is None:
        return None
    interfaces = [_interface(one) for one in node.all("qkd_interfaces/qkd_interface")]
    links = [_link(one) for one in node.all("qkd_links/qkd_link")]
    applications = [_application(one) for one in node.all("qkd_applications/qkd_app")]
    return NodeData(
        node=qkdn_id,
        status=node.member("qkdn_status", NodeStatus),
        version=node.text("qkdn_version"),
        location=node.text("qkdn_location_id") or "",
        relay_mode=node.flag("qkdn_capabilities/key_relay_mode_enable", True),
        lkms=node.address("x:lkms"),
        etsi004=node.address("x:etsi004"),
        etsi014_url=node.text("x:etsi014/x:url"),
        interfaces=MappingProxyType({one.qkdi_id: one for one in interfaces}),
        links=MappingProxyType({one.link: one for one in links}),
        applications=MappingProxyType({one.ksid: one for one in applications}),
    )


def _interface(one: Reader) -> InterfaceData:
    return InterfaceData(
        qkdi_id=InterfaceId(one.count("qkdi_id")),
        model=one.text("qkdi_model") or "",
        type=one.identity("qkdi_type") or "",
        status=one.member("qkdi_status", InterfaceStatus),
        role_support=one.member("qkdi_capabilities/role_support", Role),
        device=one.text("qkdi_att_point/device") or "",
        port=one.number("qkdi_att_point/port"),
        max_absorption_db=one.decimal("qkdi_capabilities/max_absorption"),
    )


def _link(one: Reader) -> LinkData:
    performance = {perf.identity("perf_type"): perf.decimal("value") for perf in one.all("qkdl_performance/phys_perf")}
    return LinkData(
        link=LinkId(one.uuid("qkdl_id") or ""),
        type=one.member("qkdl_type", LinkType),
        enabled=one.flag("qkdl_enable", True),
        status=one.member("qkdl_status", LinkStatus),
        local_node=one.node("qkdl_local/qkdn_id"),
        local_interface=one.interface("qkdl_local/qkdi_id"),
        remote_node=one.node("qkdl_remote/qkdn_id"),
        remote_interface=one.interface("qkdl_remote/qkdi_id"),
        previous_hop=one.node("virt_prev_hop"),
        next_hops=tuple(NodeId(hop) for hop in one.uuids("virt_next_hop")),
        bandwidth_bps=one.number("virt_bandwidth"),
        attenuation_db=one.decimal("phys_channel_att"),
        wavelength=one.text("phys_wavelength"),
        role=one.member("phys_qkd_role", Role),
        remote_lkms=one.address("x:remote_lkms"),
        components=tuple(sorted(LinkId(each) for each in one.uuids("x:components"))),
        component_of=LinkId(owner) if (owner := one.uuid("x:component_of")) else None,
        skr_bps=one.count("qkdl_performance/skr"),
        eskr_bps=one.count("qkdl_performance/eskr"),
        expected_consumption_bps=one.count("qkdl_performance/expected_consumption"),
        qber=performance.get("QBER"),
        stored_bits=one.count("x:key_store/x:stored"),
        usable_bits=one.count("x:key_store/x:usable"),
        capacity_bits=one.count("x:key_store/x:capacity"),
        generated_bits=one.count("x:key_store/x:generated"),
        consumed_bits=one.count("x:key_store/x:consumed"),
        burnt_bits=one.count("x:key_store/x:burnt"),
        relayed_bits=one.count("x:relay/x:relayed"),
        pad_bits=one.count("x:relay/x:pads"),
        held_bits=one.count("x:relay/x:held"),
        relay_failures=one.count("x:relay/x:failures"),
        overloaded=one.flag("x:overloaded", False),
    )


def _application(one: Reader) -> ApplicationData:
    return ApplicationData(
        ksid=KeyStreamId(one.uuid("app_id") or ""),
        status=one.member("app_status", ApplicationStatus),
        server_app_id=one.text("server_app_id"),
        client_app_ids=one.texts("client_app_id"),
        priority=one.count("app_priority"),
        qos=read_qos(one),
        backing_links=tuple(LinkId(link) for link in one.uuids("backing_qkdl_id")),
        local_node=one.node("local_qkdn_id"),
        remote_node=one.node("remote_qkdn_id"),
        admission=_admission(one.text("x:admission")),
        admission_reason=one.text("x:admission_reason"),
        disjoint_paths=one.number("x:disjoint_paths") or 1,
        periods=tuple(
            sorted((end.text("end_time") or "", end.count("consumed_bits")) for end in one.all("app_statistics/statistics"))
        ),
    )


def _admission(text: str | None) -> Admission:
    return Admission(text) if text is not None and text in Admission else Admission.ADMITTED


def read_qos(one: Reader) -> Qos:
    """`app_qos` of an application or a notification about one; 0 is unspecified, as in 004."""
    return Qos(
        max_bandwidth_bps=one.number("app_qos/max_bandwidth") or None,
        min_bandwidth_bps=one.number("app_qos/min_bandwidth") or None,
        jitter_ms=one.number("app_qos/jitter") or None,
        ttl_seconds=one.number("app_qos/ttl") or None,
        clients_shared_path=one.flag("app_qos/clients_shared_path_enable", False),
        clients_shared_keys=one.flag("app_qos/clients_shared_keys_required", False),
        jitter_bps=one.number("app_qos/x:jitter_rate") or None,
        timeout_ms=one.number("app_qos/x:timeout") or None,
    )
