"""Notifications as values, whichever prefix they come with; strangers' are none."""

import pytest
from lxml import etree
from network_facts import ksid, link

from qswitch.controller.model import InterfaceId, Qos
from qswitch.controller.southbound.nodedata import EXTENSIONS, NODE, TYPES
from qswitch.controller.southbound.notifications import (
    ApplicationDisconnected,
    ApplicationNew,
    ApplicationQosUpdate,
    Happening,
    InterfaceChanged,
    LinkChanged,
    Notification,
    parse_notification,
)

QOS = "<app_qos><max_bandwidth>100</max_bandwidth><min_bandwidth>0</min_bandwidth><ttl>60</ttl></app_qos>"
CASES: list[tuple[str, str, Notification | None]] = [
    (
        "sdqkdn_application_new",
        "<qkd_application><app_type>t:CLIENT</app_type><server_app_id>urn:a</server_app_id><client_app_id>urn:b</client_app_id>"
        f"<client_app_id>urn:c</client_app_id><app_priority>2</app_priority>{QOS}"
        f"<x:app_id>{ksid(1).upper()}</x:app_id><x:open_timeout>900</x:open_timeout></qkd_application>",
        ApplicationNew("urn:a", ("urn:b", "urn:c"), Qos(max_bandwidth_bps=100, ttl_seconds=60), ksid(1), 2, 900),
    ),
    (
        "sqdkdn_application_new",
        "<qkd_application><server_app_id>urn:a</server_app_id></qkd_application>",
        ApplicationNew("urn:a", (), Qos()),
    ),
    (
        "sdqkdn_application_qos_update",
        f"<qkd_application><app_id>{ksid(1)}</app_id>{QOS}</qkd_application>",
        ApplicationQosUpdate(ksid(1), Qos(max_bandwidth_bps=100, ttl_seconds=60)),
    ),
    (
        "sdqkdn_application_qos_update",
        f"<qkd_application><app_id>{ksid(1)}</app_id>{QOS}<x:unmet_min_bandwidth>9</x:unmet_min_bandwidth></qkd_application>",
        ApplicationQosUpdate(ksid(1), Qos(max_bandwidth_bps=100, ttl_seconds=60), unmet_min_bps=9),
    ),
    (
        "sdqkdn_application_disconnected",
        f"<qkd_application><app_id>{ksid(1)}</app_id></qkd_application>",
        ApplicationDisconnected(ksid(1)),
    ),
    ("sdqkdn_application_disconnected", "<qkd_application/>", None),
    ("sdqkdn_application_new", "", None),
    (
        "sdqkdn_interface_down",
        "<qkd_interface><qkdi_id>3</qkdi_id><reason>hot</reason></qkd_interface>",
        InterfaceChanged(InterfaceId(3), "down", "hot"),
    ),
    ("sdqkdn_interface_out", "<qkd_interface><qkdi_id>x</qkdi_id></qkd_interface>", None),
    (
        "sdqkdn_link_perf_update",
        f"<qkd_link><qkdl_id>{link(1)}</qkdl_id><performance><skr>1</skr></performance></qkd_link>",
        LinkChanged(link(1), "perf_update"),
    ),
    (
        "alarm",
        f"<link><qkdl_id>{link(1)}</qkdl_id><qkdl_status>t:OFF</qkdl_status><message>m</message>"
        "<severity>t:MAJOR</severity></link>",
        Happening(True, "m", "MAJOR", "OFF", link=link(1)),
    ),
    (
        "event",
        "<interface><qkdi_id>2</qkdi_id><message>m</message></interface>",
        Happening(False, "m", "", interface=InterfaceId(2)),
    ),
    (
        "event",
        f"<application><app_id>{ksid(2)}</app_id><app_status>t:ZOMBIE</app_status></application>",
        Happening(False, "", "", "ZOMBIE", ksid=ksid(2)),
    ),
    ("event", "", None),
    ("sdqkdn_of_the_next_edition", "<whatever/>", None),
]


@pytest.mark.parametrize("prefix", ["", "etsi-qkdn:", "n:"])
@pytest.mark.parametrize(("name", "body", "expected"), CASES)
def test_notifications(prefix: str, name: str, body: str, expected: Notification | None) -> None:
    declared = f'xmlns:{prefix.rstrip(":")}="{NODE}" ' if prefix else ""
    inner = body.replace("<", f"<{prefix}").replace(f"<{prefix}/", f"</{prefix}").replace(f"{prefix}x:", "x:")
    xml = f'<{prefix}{name} xmlns="{NODE}" {declared}xmlns:t="{TYPES}" xmlns:x="{EXTENSIONS}">{inner}</{prefix}{name}>'
    assert parse_notification(etree.fromstring(xml)) == expected


def test_a_notification_of_another_module_is_none() -> None:
    assert parse_notification(etree.fromstring('<alarm xmlns="urn:other"><link/></alarm>')) is None
