"""RFC 5277: events that happened before the subscription, and its end by time."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone

import pytest
from lxml import etree
from netconf_front import Client, Front
from rfc import rfc
from subscribing import MANAGE, Notification, happened, link_down, names, now, subscribe, until, words

Behind = Callable[..., None]

LONG_AGO = datetime(1999, 1, 1, tzinfo=UTC)
# Further apart than the clock's steps.
_STEP = timedelta(milliseconds=2)


async def told(behind: Behind, *reasons: str) -> datetime:
    """Has events happen; a time just before the first."""
    before = now()
    await _after(before)
    for one in reasons:
        behind("notify", link_down(one))
    await _after(now())
    return before


async def _after(time: datetime) -> None:
    while now() <= time + _STEP:
        await asyncio.sleep(0)


def complete(found: list[Notification]) -> list[str]:
    """The events that only RFC 5277 knows."""
    return [etree.QName(event).localname for _, event in found if etree.QName(event).namespace == MANAGE]


@rfc("5277", "3.3", "a startTime has stored events sent, the oldest first")
@rfc("5277", "3.3", "replayComplete follows the last stored event")
@rfc("5277", "2.1.1", "without a stopTime the subscription goes on after the replay")
async def test_replay(client: Client, behind: Behind) -> None:
    start = await told(behind, "a", "b", "c")
    await client.ok(subscribe(start=start))
    found = await until(client, "replayComplete")
    assert words(found) == ["a", "b", "c"]
    behind("notify", link_down("d"))
    assert words(await until(client, "d")) == ["d"]


@rfc("5277", "2.2.1", "a stored event keeps its time")
async def test_a_stored_event_keeps_its_time(front: Front, client: Client, behind: Behind) -> None:
    async with front.connect() as live:
        await live.ok(subscribe("<filter><sdqkdn_link_down xmlns='urn:etsi:qkd:yang:etsi-qkd-node'/></filter>"))
        start = await told(behind, "a")
        [(time, _)] = await until(live, "a")
    await client.ok(subscribe(start=start))
    found = await until(client, "replayComplete")
    assert [one for one, event in found if words([(one, event)]) == ["a"]] == [time]


@rfc("5277", "2.1.1", "without a startTime nothing stored is sent, and no replayComplete")
async def test_no_replay(client: Client, behind: Behind) -> None:
    await told(behind, "a")
    await client.ok(subscribe())
    behind("notify", link_down("b"))
    found = await until(client, "b")
    assert (words(found), complete(found)) == (["b"], [])


@rfc("5277", "3.3", "replayComplete is sent when nothing is stored, too")
async def test_nothing_to_replay(client: Client) -> None:
    await client.ok(subscribe(start=now()))
    assert "replayComplete" in names(await until(client, "replayComplete"))


@rfc("5277", "2.1.1", "events before startTime are not sent")
async def test_events_before_the_start(client: Client, behind: Behind) -> None:
    await told(behind, "early")
    start = await told(behind, "a")
    await client.ok(subscribe(start=start))
    assert words(await until(client, "replayComplete")) == ["a"]


@rfc("5277", "2.1.1", "a startTime before the log begins has it sent from its beginning")
async def test_a_start_before_the_log(client: Client, behind: Behind) -> None:
    await told(behind, "a")
    await client.ok(subscribe(start=LONG_AGO))
    assert words(await until(client, "replayComplete"))[-1] == "a"


@rfc("5277", "3.3", "with startTime and stopTime past the stored events between them are sent, and both ends told")
@rfc("5277", "3.3", "notificationComplete comes last")
async def test_a_period_of_the_past(client: Client, behind: Behind) -> None:
    start = await told(behind, "a", "b")
    stop = now()
    await told(behind, "late")
    await client.ok(subscribe(start=start, stop=stop))
    found = await until(client, "notificationComplete")
    assert words(found) == ["a", "b"]
    assert complete(found) == ["replayComplete", "notificationComplete"]
    assert names(found)[-2:] == ["replayComplete", "notificationComplete"]


@rfc("5277", "2.1.1", "a stopTime in the future ends the subscription then")
@rfc("5277", "2.3", "after its stopTime the session is one without a subscription")
async def test_a_stop_in_the_future(client: Client, behind: Behind) -> None:
    start = await told(behind, "a")
    stop = now() + timedelta(seconds=1.5)
    await client.ok(subscribe(start=start, stop=stop))
    found = await until(client, "replayComplete")
    behind("notify", link_down("b"))
    found += await until(client, "notificationComplete")
    assert now() >= stop
    assert words(found) == ["a", "b"]
    assert complete(found) == ["replayComplete", "notificationComplete"]
    behind("notify", link_down("late"))
    await client.ok("<get><filter/></get>")  # whose reply is the next message
    await client.ok(subscribe())
    behind("notify", link_down("c"))
    assert words(await until(client, "c")) == ["c"]


@rfc("5277", "3.3", "replayComplete and notificationComplete are not stored")
async def test_the_ends_are_not_stored(client: Client, behind: Behind) -> None:
    start = await told(behind, "a")
    stop = now()
    for _ in range(2):
        await client.ok(subscribe(start=start, stop=stop))
        found = await until(client, "notificationComplete")
        assert (words(found), complete(found)) == (["a"], ["replayComplete", "notificationComplete"])


@rfc("5277", "3.6", "a filter chooses among stored events")
@rfc("5277", "3.6", "no filter keeps back replayComplete and notificationComplete")
@pytest.mark.parametrize(
    ("filter_", "heard"),
    [
        ('<filter><e:sdqkdn_link_down xmlns:e="urn:etsi:qkd:yang:etsi-qkd-node"/></filter>', ["a"]),
        ("<filter><c:secretly/></filter>", []),
        (
            '<filter type="xpath" xmlns:e="urn:etsi:qkd:yang:etsi-qkd-node" '
            "select=\"/e:sdqkdn_link_down[e:qkd_link/e:reason='a']\"/>",
            ["a"],
        ),
    ],
)
async def test_a_filtered_replay(client: Client, behind: Behind, filter_: str, heard: list[str]) -> None:
    start = await told(behind, "a")
    stop = now()
    await client.ok(subscribe(filter_, start=start, stop=stop))
    found = await until(client, "notificationComplete")
    assert (words(found), complete(found)) == (heard, ["replayComplete", "notificationComplete"])


@rfc("5277", "2.1.1", "startTime and stopTime may have any time zone")
@pytest.mark.parametrize("zone", [timezone(timedelta(hours=9, minutes=30)), timezone(timedelta(hours=-5)), UTC])
async def test_time_zones(client: Client, behind: Behind, zone: timezone) -> None:
    start = await told(behind, "a")
    stop = now()
    await told(behind, "late")
    await client.ok(subscribe(start=start.astimezone(zone), stop=stop.astimezone(zone)))
    assert words(await until(client, "notificationComplete")) == ["a"]


@rfc("5277", "2.1.1", "a time may end in Z, with any number of digits behind the second")
@pytest.mark.parametrize("form", ["%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S.000000000Z", "%Y-%m-%dT%H:%M:%S.1Z"])
async def test_forms_of_a_time(client: Client, behind: Behind, form: str) -> None:
    await told(behind, "a")
    start = now() - timedelta(seconds=5)
    await client.ok(subscribe(start=start.strftime(form)))
    assert "a" in words(await until(client, "replayComplete"))


@rfc("5277", "3.3", "no event is lost or told twice where the replay ends and what happens now begins")
async def test_the_seam(client: Client, behind: Behind) -> None:
    reasons = [f"r{number}" for number in range(40)]
    start = await told(behind, *reasons[:10])
    sending = asyncio.get_running_loop().run_in_executor(
        None, lambda: [behind("notify", link_down(one)) for one in reasons[10:]]
    )
    await client.ok(subscribe(start=start))
    found = await until(client, reasons[-1])
    if "replayComplete" not in names(found):
        found += await until(client, "replayComplete")
    await sending
    assert words(found) == reasons


@rfc("5277", "3.3", "events that are not stored come live only")
async def test_what_is_not_stored(client: Client, behind: Behind) -> None:
    start = now()
    await client.ok(subscribe(start=start))
    await until(client, "replayComplete")
    behind("notify", happened("a"))
    assert words(await until(client, "a")) == ["a"]
