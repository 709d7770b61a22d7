"""RFC 5277: notifications and their filters; replay is in test_rfc5277_replay.py."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from lxml import etree
from netconf_front import Client, Front
from rfc import case, rfc
from subscribing import MANAGE, Notification, happened, link_down, name, names, notification, now, subscribe, until, words
from wire import MONITORING, C, capabilities, edit, get_config, session_id

from qswitch.protocol.netconf import BASE, NOTIFICATION

Behind = Callable[..., None]


# What is offered -----------------------------------------------------------------------------------------------------


@rfc("5277", "3.1.1", "the hello lists notification:1.0")
@rfc("5277", "6.3", "the hello lists interleave:1.0, which lets other operations run beside a subscription")
async def test_capabilities(client: Client) -> None:
    assert "urn:ietf:params:netconf:capability:notification:1.0" in capabilities(client)
    assert "urn:ietf:params:netconf:capability:interleave:1.0" in capabilities(client)


@rfc("5277", "3.2.5.1", "the streams can be read")
@rfc("5277", "3.2.3", "there is a stream NETCONF")
@rfc("5277", "3.4", "a stream says what it is, and whether it supports replay")
@rfc("5277", "3.4", "replayLogCreationTime is present when replay is supported")
async def test_the_streams(client: Client) -> None:
    content = await client.ok(f'<get><filter><netconf xmlns="{MANAGE}"><streams/></netconf></filter></get>')
    streams = {one.findtext(f"{{{MANAGE}}}name"): one for one in content[0].iter(f"{{{MANAGE}}}stream")}
    stream = streams["NETCONF"]
    assert stream.findtext(f"{{{MANAGE}}}description")
    replay = stream.findtext(f"{{{MANAGE}}}replaySupport")
    assert replay in ("true", "false")
    assert (stream.findtext(f"{{{MANAGE}}}replayLogCreationTime") is not None) is (replay == "true")


# Subscribing ---------------------------------------------------------------------------------------------------------

_STREAM = "<stream>NETCONF</stream>"
# Keeps out what the server says of sessions and edits of other cases.
HAPPENED = "<filter><c:happened/></filter>"


@rfc("5277", "2.1.1", "a subscription that can be had is answered with ok")
@rfc("5277", "2.1.1", "without a stream it is for stream NETCONF")
@rfc("5277", "3.2.3", "stream NETCONF carries all events that the server supports")
@pytest.mark.parametrize("stream", ["", _STREAM])
async def test_all_events_come(client: Client, behind: Behind, stream: str) -> None:
    content = await client.ok(subscribe(stream))
    assert [one.tag for one in content] == [f"{{{BASE}}}ok"]
    for event in happened("a"), link_down("b"), f'<secretly xmlns="{C}"><what>c</what></secretly>':
        behind("notify", event)
    assert words(await until(client, "secretly")) == ["a", "b", "c"]


_REFUSED = [
    case("5277", "2.1.1", "a stream that does not exist is refused", subscribe("<stream>none</stream>"), None, None),
    case(
        "5277", "2.1.1", "a filter of invalid syntax is refused", subscribe('<filter type="xpath" select="///["/>'), None,
        None,
    ),
    case(
        "5277", "2.1.1", "stopTime without startTime is refused as a missing element",
        subscribe(stop=now() + timedelta(hours=1)), "missing-element", "startTime",
    ),
    case(
        "5277", "2.1.1", "a stopTime before startTime is a bad element",
        subscribe(start=now() - timedelta(hours=1), stop=now() - timedelta(hours=2)), "bad-element", "stopTime",
    ),
    case(
        "5277", "2.1.1", "a stopTime must be later than startTime",
        subscribe(start=(instant := now() - timedelta(hours=1)), stop=instant), "bad-element", "stopTime",
    ),
    case(
        "5277", "2.1.1", "a startTime later than now is a bad element", subscribe(start=now() + timedelta(hours=1)),
        "bad-element", "startTime",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("operation", "tag", "element"), _REFUSED)
async def test_refused(client: Client, behind: Behind, operation: str, tag: str | None, element: str | None) -> None:
    error = await client.refused(operation)
    assert error.severity == "error"
    if tag is not None:
        assert (error.tag, error.type) == (tag, "protocol")
        assert ("bad-element", element) in error.info
    await client.ok(subscribe())  # nothing of it was left


@rfc("5277", "2.1.1", "a startTime that is no time is refused")
async def test_a_time_that_is_none(client: Client) -> None:
    await client.refused(subscribe(start="yesterday"))
    await client.refused(subscribe(start="2026-01-01"))


@rfc("5277", "6.5", "a second subscription of a session is refused with operation-failed")
async def test_one_subscription_at_a_time(client: Client, behind: Behind) -> None:
    await client.ok(subscribe(HAPPENED))
    error = await client.refused(subscribe())
    assert (error.tag, error.type, error.severity) == ("operation-failed", "protocol", "error")
    behind("notify", happened("a"))
    assert words(await until(client, "a")) == ["a"]  # the first goes on


# Notifications -------------------------------------------------------------------------------------------------------


@rfc("5277", "2.2.1", "a notification is an element of its own namespace, with eventTime and one event")
@rfc("5277", "4", "eventTime comes first")
@rfc("5277", "2.2.1", "eventTime is when the event happened, by RFC 3339, with a time zone")
@rfc("5277", "2.2.1", "the content of the event is as it was told")
async def test_the_form_of_a_notification(client: Client, behind: Behind) -> None:
    await client.ok(subscribe(HAPPENED))
    before = now()
    behind("notify", happened("a", "<level>3</level>"))
    root = etree.fromstring(await client.receive())
    assert root.tag == f"{{{NOTIFICATION}}}notification"
    assert not root.attrib
    time, event = root
    assert time.tag == f"{{{NOTIFICATION}}}eventTime"
    found = type(before).fromisoformat(time.text or "")
    assert found.tzinfo is not None
    assert before - timedelta(seconds=1) <= found <= now() + timedelta(seconds=1)
    assert [one.tag for one in event.iter()] == [f"{{{C}}}{one}" for one in ("happened", "what", "level")]


@rfc("5277", "2.3", "a subscription ends with its session")
@rfc("5277", "3.5", "a subscription lasts no longer than its session")
@pytest.mark.parametrize("end", ["close-session", "kill-session", "drop"])
async def test_the_end_of_a_session(front: Front, client: Client, behind: Behind, end: str) -> None:
    async with front.connect() as other:
        await other.ok(subscribe(f'<filter><happened xmlns="{C}"/></filter>'))  # and not what ends of sessions are told
        match end:
            case "close-session":
                await other.ok("<close-session/>")
            case "kill-session":
                await client.ok(f"<kill-session><session-id>{session_id(other)}</session-id></kill-session>")
            case _:
                other.connection.abort()
    behind("notify", happened("a"))  # which waits for every subscriber that sysrepo knows
    async with front.connect() as next_one:
        await next_one.ok(subscribe())
        behind("notify", happened("b"))
        assert words(await until(next_one, "b")) == ["b"]


@rfc("5277", "2.1.1", "two sessions have two subscriptions")
async def test_two_sessions(front: Front, client: Client, behind: Behind) -> None:
    async with front.connect() as other:
        await client.ok(subscribe())
        await other.ok(subscribe(f'<filter><secretly xmlns="{C}"/></filter>'))
        behind("notify", happened("a"))
        behind("notify", f'<secretly xmlns="{C}"><what>b</what></secretly>')
        assert words(await until(client, "b")) == ["a", "b"]
        assert words(await until(other, "b")) == ["b"]


# Beside other operations ---------------------------------------------------------------------------------------------


@rfc("5277", "6.1", "requests of a session with a subscription are served")
async def test_interleaving(client: Client, behind: Behind) -> None:
    await client.ok(subscribe(HAPPENED))
    for operation in (
        get_config(),
        "<get/>",
        edit("<values><word>a</word></values>"),
        "<lock><target><running/></target></lock>",
        "<unlock><target><running/></target></unlock>",
        f'<get-schema xmlns="{MONITORING}"><identifier>conformance</identifier></get-schema>',
    ):
        behind("notify", happened("a"))
        assert name(await notification(client)) == "happened"
        await client.ok(operation)


@rfc("5277", "6.1", "messages are whole: no notification comes within a reply")
async def test_messages_are_whole(client: Client, behind: Behind) -> None:
    await client.ok(subscribe(HAPPENED))
    for number in range(20):
        client.send(f'<rpc xmlns="{BASE}" message-id="{number}"><get/></rpc>'.encode())
        behind("notify", happened("a"))
    found = [etree.QName(etree.fromstring(await client.receive())).localname for _ in range(40)]
    assert sorted(found) == ["notification"] * 20 + ["rpc-reply"] * 20


# Filters -------------------------------------------------------------------------------------------------------------

_EVENTS = (
    happened("a", "<level>1</level>"),
    happened("b", "<level>2</level><detail><part>x</part></detail>"),
    happened("c"),
    f'<secretly xmlns="{C}"><what>d</what></secretly>',
    link_down("e"),
)
_FILTERS = [
    case("5277", "3.6", "without a filter every event is sent", "", "abcde"),
    case("5277", "3.6", "a subtree filter selects by the event", "<filter><c:secretly/></filter>", "d"),
    case("5277", "3.6", "several subtrees select either", "<filter><c:secretly/><c:happened/></filter>", "abcd"),
    case(
        "5277", "3.6", "a content match selects by value",
        "<filter><c:happened><c:level>2</c:level></c:happened></filter>", "b",
    ),
    case(
        "5277", "3.6", "an event without the element that a filter asks for is not sent",
        "<filter><c:happened><c:level/></c:happened></filter>", "ab",
    ),
    case(
        "5277", "3.6", "content matches side by side must all match",
        "<filter><c:happened><c:what>a</c:what><c:level>2</c:level></c:happened></filter>", "",
    ),
    case(
        "5277", "3.6", "one event in several subtrees is selected by either",
        "<filter><c:happened><c:what>a</c:what></c:happened><c:happened><c:level>2</c:level></c:happened></filter>", "ab",
    ),
    case(
        "5277", "3.6", "a filter looks into the depth of an event",
        "<filter><c:happened><c:detail><c:part>x</c:part></c:detail></c:happened></filter>", "b",
    ),
    case("5277", "3.6", "an XPath filter selects by the event", '<filter type="xpath" select="/c:secretly"/>', "d"),
    case(
        "5277", "3.6", "an XPath filter may have predicates",
        '<filter type="xpath" select="/c:happened[c:level=\'2\']"/>', "b",
    ),
    case(
        "5277", "3.6", "an XPath filter may join paths",
        '<filter type="xpath" select="/c:secretly | /c:happened[c:what=\'c\']"/>', "cd",
    ),
    case(
        "5277", "3.6", "an XPath filter selects by what an event lacks",
        '<filter type="xpath" select="/c:happened[not(c:level)]"/>', "c",
    ),
    case("5277", "3.6", "a filter that matches no event lets none through", "<filter><c:values/></filter>", ""),
    case("6241", "6.4.2", "an empty filter selects nothing", "<filter/>", ""),
]  # fmt: skip


@pytest.mark.parametrize(("filter_", "heard"), _FILTERS)
async def test_filters(front: Front, client: Client, behind: Behind, filter_: str, heard: str) -> None:
    """A second subscription, without a filter, says when all events have been sent."""
    async with front.connect() as other:
        await client.ok(subscribe(filter_))
        await other.ok(subscribe())
        for event in _EVENTS:
            behind("notify", event)
        await until(other, "e")
        found: list[Notification] = []
        while len(words(found)) < len(heard):
            found.append(await notification(client))
        assert "".join(words(found)) == heard
        if filter_:
            await client.ok("<get><filter/></get>")  # whose reply is the next message: no other event came


@rfc("5277", "3.6", "an event that a filter selects is sent whole")
async def test_an_event_is_sent_whole(client: Client, behind: Behind) -> None:
    await client.ok(subscribe("<filter><c:happened><c:level/></c:happened></filter>"))
    behind("notify", _EVENTS[1])
    [(_, event)] = await until(client, "happened")
    assert [etree.QName(one).localname for one in event.iter()] == ["happened", "what", "level", "detail", "part"]


@rfc("5277", "3.6", "an event that is tied to data is sent with the path to it")
async def test_an_event_of_a_data_node(client: Client, behind: Behind) -> None:
    await client.ok(edit("<server><name>s</name></server>"))
    await client.ok(subscribe("<filter><c:server/></filter>"))
    behind("notify", f'<server xmlns="{C}"><name>s</name><down><reason>a</reason></down></server>')
    found = await until(client, "a")
    assert names(found) == ["server"]
    assert [etree.QName(one).localname for one in found[0][1].iter()] == ["server", "name", "down", "reason"]
