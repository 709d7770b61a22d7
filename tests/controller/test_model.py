"""Values as JSON: names, optional members, times."""

from datetime import UTC, datetime

from network_facts import link, node, record

from qswitch.controller.model import EndView, Event, InterfaceId, LinkStatus, to_json
from qswitch.controller.views import node_view


def test_an_event() -> None:
    event = Event(7, datetime(2026, 11, 23, 12, 0, tzinfo=UTC), "Norte", "link_down", "no light", link(1))
    assert to_json(event) == {
        "seq": 7,
        "time": "2026-11-23T12:00:00Z",
        "node": "Norte",
        "type": "link_down",
        "message": "no light",
        "link": link(1),
    }


def test_optional_members_are_left_out_and_others_are_null() -> None:
    assert to_json(EndView(node(1), "N1")) == {"node": node(1), "name": "N1"}
    assert to_json(EndView(node(1), "N1", InterfaceId(3)))["interface"] == 3
    view = to_json(node_view(record(1)))
    assert view["version"] is None
    assert "problem" not in view
    assert view["lkms"] == {"address": "127.0.0.1", "port": 4001}
    assert type(to_json(LinkStatus.ACTIVE)) is str
