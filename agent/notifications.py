"""The node's notifications as YANG data (libyang's JSON, RFC 7951). Pure: one function per kind, in one table."""

from collections.abc import Callable, Mapping
from typing import Any

from qswitch import yang

from .model import (
    ApplicationDisconnected,
    ApplicationNew,
    ApplicationQosUpdate,
    Event,
    InterfaceDown,
    InterfaceNew,
    InterfaceOut,
    LinkDown,
    LinkOverloaded,
    LinkPerformanceUpdate,
    NodeId,
    Notification,
    Performance,
    Qos,
)
from .yangdata import X, decimal, identity, interface_data, number

Data = dict[str, Any]
_Builder = Callable[[Any, NodeId], tuple[str, Data]]


def build(notification: Notification, node: NodeId) -> Data:
    """The data tree of a notification that this node sends."""
    name, body = BUILDERS[type(notification)](notification, node)
    return {f"{yang.NODE}:{name}": body}


def _present(values: Data) -> Data:
    return {name: value for name, value in values.items() if value is not None}


def _qos(qos: Qos) -> Data:
    return _present(
        {
            "max_bandwidth": qos.max_bandwidth_bps,
            "min_bandwidth": qos.min_bandwidth_bps,
            "jitter": qos.jitter_ms,
            "ttl": qos.ttl_seconds,
            "clients_shared_path_enable": qos.clients_shared_path,
            "clients_shared_keys_required": qos.clients_shared_keys,
            f"{X}jitter_rate": qos.jitter_bps,
            f"{X}timeout": qos.timeout_ms,
        }
    )


def _rates(performance: Performance) -> Data:
    return {
        "expected_consumption": int(number(performance.expected_consumption_bps)),
        "skr": int(number(performance.skr_bps)),
        "eskr": int(number(performance.eskr_bps)),
    }


def _channel(performance: Performance) -> Data:
    values = (("QBER", performance.qber), ("SNR", performance.snr_db))
    measured = [{"perf_type": identity(name), "value": decimal(value)} for name, value in values if value is not None]
    return {"phys_perf": measured} if measured else {}


def _application_new(value: ApplicationNew, node: NodeId) -> tuple[str, Data]:
    body = {
        "app_type": identity(value.type),
        "server_app_id": value.server_app_id,
        "client_app_id": list(value.client_app_ids),
        "app_priority": value.priority,
        "local_qkdn_id": node,
        "app_qos": _qos(value.qos),
        f"{X}app_id": value.ksid,
        f"{X}open_timeout": value.open_timeout_ms,
        f"{X}disjoint_paths": value.disjoint_paths if value.disjoint_paths > 1 else None,
    }
    return "sdqkdn_application_new", {"qkd_application": _present(body)}


def _application_qos_update(value: ApplicationQosUpdate, _node: NodeId) -> tuple[str, Data]:
    body = {
        "app_id": value.ksid,
        "app_qos": _qos(value.qos),
        "app_priority": value.priority,
        f"{X}unmet_min_bandwidth": value.unmet_min_bps,
    }
    return "sdqkdn_application_qos_update", {"qkd_application": _present(body)}


def _application_disconnected(value: ApplicationDisconnected, _node: NodeId) -> tuple[str, Data]:
    return "sdqkdn_application_disconnected", {"qkd_application": {"app_id": value.ksid}}


def _interface_new(value: InterfaceNew, _node: NodeId) -> tuple[str, Data]:
    return "sdqkdn_interface_new", {"qkd_interface": interface_data(value.interface)}


def _interface_down(value: InterfaceDown, _node: NodeId) -> tuple[str, Data]:
    return "sdqkdn_interface_down", {"qkd_interface": {"qkdi_id": int(value.interface), "reason": value.reason}}


def _interface_out(value: InterfaceOut, _node: NodeId) -> tuple[str, Data]:
    return "sdqkdn_interface_out", {"qkd_interface": {"qkdi_id": int(value.interface)}}


def _link_down(value: LinkDown, _node: NodeId) -> tuple[str, Data]:
    return "sdqkdn_link_down", {"qkd_link": {"qkdl_id": value.link, "reason": value.reason}}


def _link_performance_update(value: LinkPerformanceUpdate, _node: NodeId) -> tuple[str, Data]:
    performance = _rates(value.performance) | _channel(value.performance)
    return "sdqkdn_link_perf_update", {"qkd_link": {"qkdl_id": value.link, "performance": performance}}


def _link_overloaded(value: LinkOverloaded, _node: NodeId) -> tuple[str, Data]:
    return "sdqkdn_link_overloaded", {"qkd_link": {"qkdl_id": value.link, "performance": _rates(value.performance)}}


def _event(value: Event, _node: NodeId) -> tuple[str, Data]:
    said = {"message": value.message, "severity": identity(value.severity)}
    body: Data = {}
    if value.link is not None:
        body["link"] = _present({"qkdl_id": value.link, "qkdl_status": _status(value.link_status)} | said)
    if value.interface is not None:
        body["interface"] = _present(
            {"qkdi_id": int(value.interface), "qkdi_status": _status(value.interface_status)} | said
        )
    if value.ksid is not None:
        body["application"] = _present({"app_id": value.ksid, "app_status": _status(value.application_status)} | said)
    return ("alarm" if value.is_alarm else "event"), body


def _status(value: str | None) -> str | None:
    return None if value is None else identity(value)


BUILDERS: Mapping[type[Notification], _Builder] = {
    ApplicationNew: _application_new,
    ApplicationQosUpdate: _application_qos_update,
    ApplicationDisconnected: _application_disconnected,
    InterfaceNew: _interface_new,
    InterfaceDown: _interface_down,
    InterfaceOut: _interface_out,
    LinkDown: _link_down,
    LinkPerformanceUpdate: _link_performance_update,
    LinkOverloaded: _link_overloaded,
    Event: _event,
}
