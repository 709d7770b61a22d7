"""Edits as the `config` element of edit-config: whole list entries, replaced or removed.

`remove` rather than `delete`, so that an edit sent twice does no harm. Identities carry a prefix bound to the types module.
"""

from typing import Any

from lxml import etree

from ..model import Admission, ApplicationData, LinkData, LinkType, Qos
from ..plan import NodeEdit
from .nodedata import EXTENSIONS, NODE, TYPES

BASE = "urn:ietf:params:xml:ns:netconf:base:1.0"
OPERATION = f"{{{BASE}}}operation"
PREFIX = "etsi-qkdn-types"
_NAMES: Any = {None: NODE, PREFIX: TYPES, "qkdx": EXTENSIONS, "nc": BASE}


def build_config(edit: NodeEdit) -> etree._Element:
    """The `config` element of one node's edit."""
    config = etree.Element(f"{{{BASE}}}config", nsmap={"nc": BASE})
    node = etree.SubElement(config, f"{{{NODE}}}qkd_node", nsmap=_NAMES)
    if edit.put_applications or edit.drop_applications:
        applications = _sub(node, "qkd_applications")
        for application in edit.put_applications:
            _application(_entry(applications, "qkd_app", "replace"), application)
        for ksid in edit.drop_applications:
            _leaf(_entry(applications, "qkd_app", "remove"), "app_id", ksid)
    if edit.put_links or edit.drop_links:
        links = _sub(node, "qkd_links")
        for link in edit.put_links:
            _link(_entry(links, "qkd_link", "replace"), link)
        for one in edit.drop_links:
            _leaf(_entry(links, "qkd_link", "remove"), "qkdl_id", one)
    return config


def _entry(parent: etree._Element, name: str, operation: str) -> etree._Element:
    entry = _sub(parent, name)
    entry.set(OPERATION, operation)
    return entry


def _sub(parent: etree._Element, name: str, namespace: str = NODE) -> etree._Element:
    return etree.SubElement(parent, f"{{{namespace}}}{name}")


def _leaf(parent: etree._Element, name: str, value: Any, namespace: str = NODE) -> None:
    """A leaf, unless there is no value."""
    if value is not None:
        _sub(parent, name, namespace).text = ("true" if value else "false") if isinstance(value, bool) else str(value)


def _identity(parent: etree._Element, name: str, value: Any) -> None:
    if value is not None:
        _leaf(parent, name, f"{PREFIX}:{value}")


def _decimal(value: float | None) -> str | None:
    return None if value is None else f"{value:.3f}"


def _link(entry: etree._Element, link: LinkData) -> None:
    _leaf(entry, "qkdl_id", link.link)
    if not link.enabled:
        _leaf(entry, "qkdl_enable", False)
    for name, node, interface in (
        ("qkdl_local", link.local_node, link.local_interface),
        ("qkdl_remote", link.remote_node, link.remote_interface),
    ):
        end = _sub(entry, name)
        _leaf(end, "qkdn_id", node)
        _leaf(end, "qkdi_id", interface)
    _identity(entry, "qkdl_type", link.type)
    if link.type is LinkType.VIRTUAL:
        _leaf(entry, "virt_prev_hop", link.previous_hop)
        for hop in link.next_hops:
            _leaf(entry, "virt_next_hop", hop)
        _leaf(entry, "virt_bandwidth", link.bandwidth_bps)
    else:
        _leaf(entry, "phys_channel_att", _decimal(link.attenuation_db))
        _leaf(entry, "phys_wavelength", link.wavelength)
        _identity(entry, "phys_qkd_role", link.role)
    for component in link.components:
        _leaf(entry, "components", component, EXTENSIONS)
    _leaf(entry, "component_of", link.component_of, EXTENSIONS)
    if link.remote_lkms is not None:
        remote = _sub(entry, "remote_lkms", EXTENSIONS)
        _leaf(remote, "address", link.remote_lkms.address, EXTENSIONS)
        _leaf(remote, "port", link.remote_lkms.port, EXTENSIONS)


def _application(entry: etree._Element, application: ApplicationData) -> None:
    _leaf(entry, "app_id", application.ksid)
    _identity(entry, "app_type", "CLIENT")
    _leaf(entry, "server_app_id", application.server_app_id)
    for client in application.client_app_ids:
        _leaf(entry, "client_app_id", client)
    _leaf(entry, "app_priority", application.priority)
    _qos(_sub(entry, "app_qos"), application.qos)
    for link in application.backing_links:
        _leaf(entry, "backing_qkdl_id", link)
    _leaf(entry, "local_qkdn_id", application.local_node)
    _leaf(entry, "remote_qkdn_id", application.remote_node)
    if application.disjoint_paths > 1:
        _leaf(entry, "disjoint_paths", application.disjoint_paths, EXTENSIONS)
    if application.admission is not Admission.ADMITTED:
        _leaf(entry, "admission", application.admission, EXTENSIONS)
        _leaf(entry, "admission_reason", application.admission_reason, EXTENSIONS)


def _qos(parent: etree._Element, qos: Qos) -> None:
    _leaf(parent, "max_bandwidth", qos.max_bandwidth_bps)
    _leaf(parent, "min_bandwidth", qos.min_bandwidth_bps)
    _leaf(parent, "jitter", qos.jitter_ms)
    _leaf(parent, "ttl", qos.ttl_seconds)
    if qos.clients_shared_path:
        _leaf(parent, "clients_shared_path_enable", True)
    if qos.clients_shared_keys:
        _leaf(parent, "clients_shared_keys_required", True)
    _leaf(parent, "jitter_rate", qos.jitter_bps, EXTENSIONS)
    _leaf(parent, "timeout", qos.timeout_ms, EXTENSIONS)
