"""Subscriptions as the suite asks for them (RFC 5277), and what comes of them."""

from collections.abc import Sequence
from datetime import UTC, datetime

from lxml import etree
from netconf_front import QKD, Client
from wire import PREFIXES, C

from qswitch.protocol import netconf
from qswitch.protocol.netconf import NOTIFICATION

MANAGE = "urn:ietf:params:xml:ns:netmod:notification"
Notification = tuple[datetime, etree._Element]


def subscribe(inside: str = "", *, start: datetime | str = "", stop: datetime | str = "") -> str:
    """create-subscription; `inside` holds its stream and filter."""
    times = "".join(f"<{name}>{_text(one)}</{name}>" for name, one in (("startTime", start), ("stopTime", stop)) if one)
    return f'<create-subscription xmlns="{NOTIFICATION}" {PREFIXES}>{inside}{times}</create-subscription>'


def _text(time: datetime | str) -> str:
    return time if isinstance(time, str) else time.isoformat()


def happened(what: str, rest: str = "") -> str:
    """An event of module `conformance`, which is not stored."""
    return f'<happened xmlns="{C}"><what>{what}</what>{rest}</happened>'


def link_down(reason: str) -> str:
    """An event of a node, which is stored."""
    link = "<qkdl_id>11111111-0000-4000-8000-000000000001</qkdl_id>"
    return f'<sdqkdn_link_down xmlns="{QKD}"><qkd_link>{link}<reason>{reason}</reason></qkd_link></sdqkdn_link_down>'


def now() -> datetime:
    return datetime.now(UTC)


async def notification(client: Client) -> Notification:
    """The next message, which is a notification."""
    time, event = netconf.parse_notification(await client.receive())
    return datetime.fromisoformat(time), event


async def until(client: Client, last: str) -> list[Notification]:
    """Notifications up to the first that is `last`: the name of its event, or what one of its leafs holds."""
    found: list[Notification] = []
    while not found or last not in (name(found[-1]), *words(found[-1:])):
        found.append(await notification(client))
    return found


def name(one: Notification) -> str:
    return etree.QName(one[1]).localname


def names(found: Sequence[Notification]) -> list[str]:
    return [name(one) for one in found]


def words(found: Sequence[Notification]) -> list[str]:
    """What the leafs `what` and `reason` hold."""
    leafs = (leaf for _, event in found for leaf in event.iter())
    return [leaf.text or "" for leaf in leafs if etree.QName(leaf).localname in ("what", "reason")]
