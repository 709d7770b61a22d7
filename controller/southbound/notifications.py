"""Notifications of ETSI GS QKD 015 as values. They wake the controller; what is so it reads.

Unknown ones are None: other modules of a node notify too, and the next edition of 015 will.
"""

from dataclasses import dataclass

from lxml import etree

from ..model import InterfaceId, KeyStreamId, LinkId, Qos
from .nodedata import EXTENSIONS, NODE, Reader, read_qos


@dataclass(frozen=True, slots=True)
class ApplicationNew:
    """`sdqkdn_application_new`; `ksid`, `open_timeout_ms` and `disjoint_paths` are extensions."""

    server_app_id: str
    client_app_ids: tuple[str, ...]
    qos: Qos
    ksid: KeyStreamId | None = None
    priority: int = 0
    open_timeout_ms: int | None = None
    disjoint_paths: int = 1


@dataclass(frozen=True, slots=True)
class ApplicationQosUpdate:
    """What an application asks for; with `unmet_min_bps` (extension), what it gets of the least rate it was promised."""

    ksid: KeyStreamId
    qos: Qos
    priority: int = 0
    unmet_min_bps: int | None = None


@dataclass(frozen=True, slots=True)
class ApplicationDisconnected:
    ksid: KeyStreamId


@dataclass(frozen=True, slots=True)
class InterfaceChanged:
    """`sdqkdn_interface_new`, `_down` or `_out`: `change` is the last word of its name."""

    interface: InterfaceId
    change: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class LinkChanged:
    """`sdqkdn_link_down`, `_perf_update` or `_overloaded`: `change` is what follows `sdqkdn_link_`."""

    link: LinkId
    change: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Happening:
    """`alarm`, or `event`: one thing it happened to, as far as the node says."""

    is_alarm: bool
    message: str
    severity: str
    status: str = ""
    link: LinkId | None = None
    interface: InterfaceId | None = None
    ksid: KeyStreamId | None = None


Notification = ApplicationNew | ApplicationQosUpdate | ApplicationDisconnected | InterfaceChanged | LinkChanged | Happening


def parse_notification(event: etree._Element) -> Notification | None:
    """The event element of a notification as a value; None when it is none of 015's or lacks what makes it one."""
    name = etree.QName(event)
    if name.namespace not in (NODE, EXTENSIONS):
        return None
    reader = Reader(event)
    kind = name.localname.removeprefix("sdqkdn_").removeprefix("sqdkdn_")  # the prose of 015 has both
    if kind.startswith("application_"):
        return _application(kind, reader)
    if kind.startswith("interface_"):
        return _interface(kind, reader)
    if kind.startswith("link_"):
        return _link(kind, reader)
    if kind in ("alarm", "event"):
        return _happening(kind, reader)
    return None


def _application(kind: str, reader: Reader) -> Notification | None:
    body = next(reader.all("qkd_application"), None)
    if body is None:
        return None
    ksid = KeyStreamId(body.uuid("x:app_id") or body.uuid("app_id") or "")
    if kind == "application_new":
        return ApplicationNew(
            server_app_id=body.text("server_app_id") or "",
            client_app_ids=body.texts("client_app_id"),
            qos=read_qos(body),
            ksid=ksid or None,
            priority=body.count("app_priority"),
            open_timeout_ms=body.number("x:open_timeout"),
            disjoint_paths=body.number("x:disjoint_paths") or 1,
        )
    if kind == "application_qos_update" and ksid:
        return ApplicationQosUpdate(ksid, read_qos(body), body.count("app_priority"), body.number("x:unmet_min_bandwidth"))
    if kind == "application_disconnected" and ksid:
        return ApplicationDisconnected(ksid)
    return None


def _interface(kind: str, reader: Reader) -> Notification | None:
    body = next(reader.all("qkd_interface"), None)
    number = body.interface("qkdi_id") if body else None
    if body is None or number is None:
        return None
    return InterfaceChanged(number, kind.removeprefix("interface_"), body.text("reason") or "")


def _link(kind: str, reader: Reader) -> Notification | None:
    body = next(reader.all("qkd_link"), None)
    link = body.uuid("qkdl_id") if body else None
    if body is None or link is None:
        return None
    return LinkChanged(LinkId(link), kind.removeprefix("link_"), body.text("reason") or "")


def _happening(kind: str, reader: Reader) -> Notification | None:
    for name, status in (("link", "qkdl_status"), ("interface", "qkdi_status"), ("application", "app_status")):
        body = next(reader.all(name), None)
        if body is None:
            continue
        link, ksid = body.uuid("qkdl_id"), body.uuid("app_id")
        return Happening(
            is_alarm=kind == "alarm",
            message=body.text("message") or "",
            severity=body.identity("severity") or "",
            status=body.identity(status) or "",
            link=LinkId(link) if link else None,
            interface=body.interface("qkdi_id"),
            ksid=KeyStreamId(ksid) if ksid else None,
        )
    return None
