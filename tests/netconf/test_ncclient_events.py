"""Notifications, schemas, access control and NMDA seen by a stock client, ncclient."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from lxml import etree
from nacm import limited, rule
from ncclient.operations import RPCError
from ncclient.xml_ import to_ele
from netconf_front import QKD, Front
from rfc import rfc
from subscribing import happened, link_down, now
from wire import C

Access = Callable[[str], None]
Behind = Callable[..., None]

NMDA = 'xmlns="urn:ietf:params:xml:ns:yang:ietf-netconf-nmda" xmlns:ds="urn:ietf:params:xml:ns:yang:ietf-datastores"'
FILTER = ("subtree", f'<happened xmlns="{C}"/>')


@pytest.fixture
def stock(front: Front) -> Iterator[Any]:
    with front.stock() as session:
        yield session


def names(stock: Any, last: str) -> list[str]:
    """The events up to one."""
    found: list[str] = []
    while last not in found:
        notification = stock.take_notification(timeout=10)
        assert notification is not None
        found.append(etree.QName(notification.notification_ele[-1]).localname)
    return found


@rfc("5277", "2.1.1", "a stock client subscribes with a filter")
@rfc("5277", "6.1", "and goes on asking")
def test_subscription(stock: Any, behind: Behind) -> None:
    assert stock.create_subscription(filter=FILTER).ok
    behind("notify", link_down("a"))
    behind("notify", happened("b"))
    assert names(stock, "happened") == ["happened"]
    assert stock.get_config("running").ok
    with pytest.raises(RPCError) as caught:
        stock.create_subscription()
    assert caught.value.tag == "operation-failed"


@rfc("5277", "3.3", "a stock client has a period of the past replayed")
def test_replay(stock: Any, behind: Behind) -> None:
    start = now()
    behind("notify", link_down("a"))
    stop = now() + timedelta(milliseconds=300)
    stock.create_subscription(start_time=start.isoformat(), stop_time=stop.isoformat())
    found = names(stock, "notificationComplete")
    assert found.index("sdqkdn_link_down") < found.index("replayComplete")


@rfc("6022", "3.1", "a stock client gets a schema")
def test_schema(stock: Any) -> None:
    assert "module etsi-qkd-sdn-node {" in stock.get_schema("etsi-qkd-sdn-node").data
    with pytest.raises(RPCError) as caught:
        stock.get_schema("nothing")
    assert caught.value.tag == "invalid-value"


@rfc("8341", "3.4.3", "a stock client is told that access is denied")
def test_access(front: Front, access: Access) -> None:
    access(limited(rule("deny", "exec", "ietf-netconf", rpc="lock")))
    with front.stock("guest") as guest:
        for refused in (
            lambda: guest.lock("running"),
            lambda: guest.edit_config(
                target="running", config=f'<config><values xmlns="{C}"><word>a</word></values></config>'
            ),
        ):
            with pytest.raises(RPCError) as caught:
                refused()
            assert caught.value.tag == "access-denied"


@rfc("8526", "3.1", "a stock client reads and edits by identity")
def test_nmda(stock: Any) -> None:
    values = f'<values xmlns="{C}"><word>a</word></values>'
    edit = f"<edit-data {NMDA}><datastore>ds:running</datastore><config>{values}</config></edit-data>"
    assert stock.dispatch(to_ele(edit)).ok
    filter_ = f'<subtree-filter><values xmlns="{C}"><word/></values></subtree-filter>'
    reply = stock.dispatch(to_ele(f"<get-data {NMDA}><datastore>ds:running</datastore>{filter_}</get-data>"))
    assert ">a</" in reply.xml
    assert QKD not in reply.xml
