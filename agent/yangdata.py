"""Between YANG data and the node's values: what is configured is read, what is so is written. Pure.

Everything goes by tables, one per list of the model, whose keys are schema paths below the list; a test walks the schema
and finds a row for every leaf, and a leaf for every row. YANG data here are libyang's JSON (RFC 7951) as Python values;
libyang hands ids over in their canonical form, in lower case, whatever a controller wrote.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from types import MappingProxyType
from typing import Any

from qswitch import yang

from .errors import InvalidValue
from .model import (
    Admission,
    ApplicationConfig,
    ApplicationState,
    ApplicationType,
    Configuration,
    Endpoint,
    Interface,
    InterfaceId,
    LinkConfig,
    LinkState,
    LinkStatus,
    LinkType,
    NodeState,
    Qos,
    Qrng,
    Role,
    Technology,
)

X = f"{yang.EXTENSIONS}:"
ROOT = f"/{yang.NODE}:qkd_node"
INTERFACE = "qkd_interfaces/qkd_interface"
LINK = "qkd_links/qkd_link"
APPLICATION = "qkd_applications/qkd_app"

Data = dict[str, Any]
Reader = Callable[[Any], Any]
Row = tuple[str, Reader]  # name of the value, and how it is read


# Configuration: YANG data to values ----------------------------------------------------------------------------------


def _identity[E](kind: Callable[[str], E]) -> Callable[[str], E]:
    return lambda text: kind(text.rpartition(":")[2])


def _sorted(names: Iterable[str]) -> tuple[str, ...]:
    """The datastore keeps no order."""
    return tuple(sorted(names))


CONFIGURATION: Mapping[str, Mapping[str, Row]] = {
    "": {
        "qkdn_id": ("node", str),
        "qkdn_version": ("version", str),
        "qkdn_location_id": ("location", str),
        "qkdn_capabilities/link_stats_support": ("link_stats", bool),
        "qkdn_capabilities/application_stats_support": ("application_stats", bool),
        "qkdn_capabilities/key_relay_mode_enable": ("relay_mode", bool),
    },
    INTERFACE: {
        "qkdi_id": ("interface", InterfaceId),
        "qkdi_model": ("model", str),
        "qkdi_type": ("technology", _identity(Technology)),
        "qkdi_att_point/device": ("device", str),
        "qkdi_att_point/port": ("port", int),
        "qkdi_capabilities/role_support": ("role_support", _identity(Role)),
        "qkdi_capabilities/wavelength_range": ("wavelength_range", str),
        "qkdi_capabilities/max_absorption": ("max_absorption_db", Decimal),
    },
    LINK: {
        "qkdl_id": ("link", str),
        "qkdl_status": ("status", _identity(LinkStatus)),
        "qkdl_enable": ("enabled", bool),
        "qkdl_local/qkdn_id": ("local_node", str),
        "qkdl_local/qkdi_id": ("local_interface", InterfaceId),
        "qkdl_remote/qkdn_id": ("remote_node", str),
        "qkdl_remote/qkdi_id": ("remote_interface", InterfaceId),
        "qkdl_type": ("type", _identity(LinkType)),
        "qkdl_applications": ("applications", tuple),
        "virt_prev_hop": ("previous_hop", str),
        "virt_next_hop": ("next_hops", tuple),
        "virt_bandwidth": ("bandwidth_bps", int),
        "phys_channel_att": ("attenuation_db", Decimal),
        "phys_wavelength": ("wavelength", str),
        "phys_qkd_role": ("role", _identity(Role)),
        f"{X}remote_lkms/address": ("address", str),
        f"{X}remote_lkms/port": ("port", int),
        f"{X}components": ("components", _sorted),
        f"{X}component_of": ("component_of", str),
    },
    APPLICATION: {
        "app_id": ("ksid", str),
        "app_type": ("type", _identity(ApplicationType)),
        "server_app_id": ("server_app_id", str),
        "client_app_id": ("client_app_ids", tuple),
        "app_priority": ("priority", int),
        "expiration_time": ("expiration_time", datetime.fromisoformat),
        "app_qos/max_bandwidth": ("max_bandwidth_bps", int),
        "app_qos/min_bandwidth": ("min_bandwidth_bps", int),
        "app_qos/jitter": ("jitter_ms", int),
        "app_qos/ttl": ("ttl_seconds", int),
        "app_qos/clients_shared_path_enable": ("clients_shared_path", bool),
        "app_qos/clients_shared_keys_required": ("clients_shared_keys", bool),
        f"app_qos/{X}jitter_rate": ("jitter_bps", int),
        f"app_qos/{X}timeout": ("timeout_ms", int),
        "backing_qkdl_id": ("backing_links", tuple),
        "local_qkdn_id": ("local_node", str),
        "remote_qkdn_id": ("remote_node", str),
        f"{X}admission": ("admission", Admission),
        f"{X}admission_reason": ("admission_reason", str),
        f"{X}disjoint_paths": ("disjoint_paths", int),
    },
}
_QOS = frozenset(Qos.__dataclass_fields__)


def configuration(data: Data) -> Configuration:
    """The whole configuration, from the members of `qkd_node`. Raises InvalidValue for what the model does not forbid."""
    return Configuration(
        **_values("", data),
        interfaces=_mapping(interfaces(data), lambda one: one.interface),
        links=_mapping(map(_link, _entries(data, LINK)), lambda one: one.link),
        applications=_mapping(map(_application, _entries(data, APPLICATION)), lambda one: one.ksid),
    )


def drop_untyped(data: Data) -> list[str]:
    """Takes out links that were stored without a type while no agent ran to refuse them; returns their ids."""
    links = _entries(data, LINK)
    untyped = [link["qkdl_id"] for link in links if "qkdl_type" not in link]
    links[:] = [link for link in links if "qkdl_type" in link]
    return untyped


def interfaces(data: Data) -> Iterator[Interface]:
    return map(_interface, _entries(data, INTERFACE))


def _mapping[K, V](values: Iterator[V], key: Callable[[V], K]) -> Mapping[K, V]:
    return MappingProxyType({key(value): value for value in values})


def _entries(data: Data, path: str) -> list[Data]:
    return _get(data, path) or []


def _get(data: Data, path: str) -> Any:
    value: Any = data
    for name in path.split("/"):
        value = value.get(name)
        if value is None:
            return None
    return value


def _values(entry: str, data: Data) -> Data:
    """The values that are there, by name; absence is left to the defaults of the dataclass."""
    found = ((name, read, _get(data, path)) for path, (name, read) in CONFIGURATION[entry].items())
    return {name: read(value) for name, read, value in found if value is not None}


def _interface(data: Data) -> Interface:
    """An interface as stored; what a stranger left out of it is made up, for it is compared only."""
    missing: Data = {"model": "", "technology": Technology.DV_QKD, "device": "", "port": 0, "role_support": Role.TRANSCEIVER}
    return Interface(**(missing | _values(INTERFACE, data)))


def _link(data: Data) -> LinkConfig:
    values = _values(LINK, data)
    if "type" not in values:
        raise InvalidValue(f"{ROOT}/{LINK}[qkdl_id='{data['qkdl_id']}']/qkdl_type", "", "must be PHYS or VIRT")
    address, port = values.pop("address", None), values.pop("port", None)
    if address is not None and port is not None:
        values["remote_lkms"] = Endpoint(address, port)
    return LinkConfig(**values)


def _application(data: Data) -> ApplicationConfig:
    values = _values(APPLICATION, data)
    qos = Qos(**{name: values.pop(name) for name in _QOS & values.keys()})
    return ApplicationConfig(**values, qos=qos)


# State: values to YANG data ------------------------------------------------------------------------------------------

UINT32_MAX = 2**32 - 1


def identity(value: str) -> str:
    return f"{yang.TYPES}:{value}"


def number(value: float) -> str:
    """A uint32; what does not fit stands at the end of the range (clause 3: 4.29 Gbit/s, 4.29 Gbit)."""
    return str(min(max(round(value), 0), UINT32_MAX))


def decimal(value: float | Decimal | None) -> str | None:
    """A decimal64 with 3 fraction digits."""
    return None if value is None else f"{value:.3f}"


def boolean(value: bool) -> str:
    return "true" if value else "false"


def moment(value: datetime) -> str:
    """RFC 3339; what has no time zone is UTC."""
    return (value if value.tzinfo else value.replace(tzinfo=UTC)).isoformat()


def _whole(value: int) -> str:
    return str(max(value, 0))


def _endpoint(get: Callable[[NodeState], Endpoint | None], name: str) -> Callable[[NodeState], str | None]:
    def read(state: NodeState) -> str | None:
        endpoint = get(state)
        return None if endpoint is None else str(getattr(endpoint, name))

    return read


Entry = Mapping[str, str]  # leaf below a list entry -> value
_Getters = Mapping[str, Callable[[Any], str | None]]

NODE_STATE: _Getters = {
    "qkdn_status": lambda state: identity(state.status),
    f"{X}lkms/address": _endpoint(lambda state: state.lkms, "address"),
    f"{X}lkms/port": _endpoint(lambda state: state.lkms, "port"),
    f"{X}etsi004/address": _endpoint(lambda state: state.etsi004, "address"),
    f"{X}etsi004/port": _endpoint(lambda state: state.etsi004, "port"),
    f"{X}etsi014/url": lambda state: state.etsi014_url,
}
QRNG_STATE: _Getters = {
    "model": lambda qrng: qrng.model,
    "healthy": lambda qrng: boolean(qrng.healthy),
}
INTERFACE_STATE: _Getters = {"qkdi_status": lambda status: identity(status)}
LINK_STATE: _Getters = {
    "qkdl_status": lambda link: identity(link.status),
    "qkdl_performance/expected_consumption": lambda link: number(link.performance.expected_consumption_bps),
    "qkdl_performance/skr": lambda link: number(link.performance.skr_bps),
    "qkdl_performance/eskr": lambda link: number(link.performance.eskr_bps),
    f"{X}key_store/capacity": lambda link: _whole(link.levels.capacity_bits),
    f"{X}key_store/stored": lambda link: _whole(link.levels.stored_bits),
    f"{X}key_store/usable": lambda link: _whole(link.levels.usable_bits),
    f"{X}key_store/generated": lambda link: _whole(link.levels.generated_bits),
    f"{X}key_store/consumed": lambda link: _whole(link.levels.consumed_bits),
    f"{X}key_store/burnt": lambda link: _whole(link.levels.burnt_bits),
    f"{X}overloaded": lambda link: boolean(link.overloaded),
    f"{X}relay/relayed": lambda link: _whole(link.relay.relayed_bits),
    f"{X}relay/pads": lambda link: _whole(link.relay.pad_bits),
    f"{X}relay/failures": lambda link: _whole(link.relay.failures),
    f"{X}relay/held": lambda link: _whole(link.relay.held_bits),
}
PERFORMANCE_STATE: _Getters = {"value": lambda value: decimal(value)}
APPLICATION_STATE: _Getters = {
    "app_status": lambda application: identity(application.status),
    "creation_time": lambda application: moment(application.creation_time),
}
STATISTICS_STATE: _Getters = {
    "start_time": lambda period: moment(period.start),
    "consumed_bits": lambda period: number(period.consumed_bits),
}
_QRNGS = f"{X}qrngs/qrng"
_PERFORMANCE = "qkdl_performance/phys_perf"
_STATISTICS = "app_statistics/statistics"
# Every list of the state and its table, as the test of the schema finds them.
STATE: Mapping[str, tuple[str, _Getters]] = {
    "": ("", NODE_STATE),
    _QRNGS: ("name", QRNG_STATE),
    INTERFACE: ("qkdi_id", INTERFACE_STATE),
    LINK: ("qkdl_id", LINK_STATE),
    f"{LINK}/{_PERFORMANCE}": ("perf_type", PERFORMANCE_STATE),
    APPLICATION: ("app_id", APPLICATION_STATE),
    f"{APPLICATION}/{_STATISTICS}": ("end_time", STATISTICS_STATE),
}


def state(node: NodeState) -> dict[str, Entry]:
    """What the operational datastore is to hold: for each list entry (by path), its leaves."""
    found = {ROOT: _entry(NODE_STATE, node)}
    for qrng in node.qrngs:
        found[_path(ROOT, _QRNGS, qrng.name)] = _qrng(qrng)
    for interface, status in node.interfaces.items():
        found[_path(ROOT, INTERFACE, str(interface))] = _entry(INTERFACE_STATE, status)
    for link in node.links.values():
        found |= _link_state(link)
    for application in node.applications.values():
        found |= _application_state(application)
    return found


def _qrng(qrng: Qrng) -> Entry:
    return _entry(QRNG_STATE, qrng)


def _link_state(link: LinkState) -> dict[str, Entry]:
    path = _path(ROOT, LINK, link.link)
    found = {path: _entry(LINK_STATE, link)}
    if link.type is LinkType.PHYSICAL:
        for name, value in (("QBER", link.performance.qber), ("SNR", link.performance.snr_db)):
            if value is not None:
                found[_path(path, _PERFORMANCE, identity(name), f"{LINK}/")] = _entry(PERFORMANCE_STATE, value)
    return found


def _application_state(application: ApplicationState) -> dict[str, Entry]:
    path = _path(ROOT, APPLICATION, application.ksid)
    found = {path: _entry(APPLICATION_STATE, application)}
    for period in application.statistics:
        found[_path(path, _STATISTICS, moment(period.end), f"{APPLICATION}/")] = _entry(STATISTICS_STATE, period)
    return found


def _entry(table: _Getters, value: object) -> Entry:
    return {leaf: text for leaf, get in table.items() if (text := get(value)) is not None}


def _path(parent: str, entry: str, key: str, within: str = "") -> str:
    quote = '"' if "'" in key else "'"
    return f"{parent}/{entry}[{STATE[within + entry][0]}={quote}{key}{quote}]"


def changes(old: Mapping[str, Entry], new: Mapping[str, Entry]) -> tuple[list[str], dict[str, str]]:
    """What leads from one state to another: paths to delete (an entry once, not each leaf of it), and leaves to set."""
    gone = [path for path in old if path not in new]
    entries = set(gone)
    deletions = [path for path in gone if not any(outer in entries for outer in _outer(path))]
    settings: dict[str, str] = {}
    for path, entry in new.items():
        before = old.get(path, {})
        deletions += [f"{path}/{leaf}" for leaf in before if leaf not in entry]
        settings |= {f"{path}/{leaf}": value for leaf, value in entry.items() if before.get(leaf) != value}
    return deletions, settings


def _outer(path: str) -> Iterator[str]:
    """The entries that an entry of an inner list stands in."""
    for inner in (f"/{_PERFORMANCE}[", f"/{_STATISTICS}["):
        if inner in path:
            yield path.partition(inner)[0]


# What the node itself configures: its devices ------------------------------------------------------------------------


def interface_data(interface: Interface) -> Data:
    """An entry of `qkd_interface`."""
    capabilities = {
        "role_support": identity(interface.role_support),
        "wavelength_range": interface.wavelength_range,
        "max_absorption": decimal(interface.max_absorption_db),
    }
    return {
        "qkdi_id": int(interface.interface),
        "qkdi_model": interface.model,
        "qkdi_type": identity(interface.technology),
        "qkdi_att_point": {"device": interface.device, "port": interface.port},
        "qkdi_capabilities": {name: value for name, value in capabilities.items() if value is not None},
    }
