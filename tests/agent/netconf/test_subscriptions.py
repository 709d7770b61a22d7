"""Events of the stream NETCONF (RFC 5277) as a client gets them: live, replayed, filtered, until they are not wanted."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from lxml import etree
from netconf_front import QKD, Client, Front

from qswitch import yang
from qswitch.agent.netconf.eventlog import KEPT_BYTES, KEPT_SECONDS, EventLog
from qswitch.protocol import netconf

SUBSCRIBE = '<create-subscription xmlns="urn:ietf:params:xml:ns:netconf:notification:1.0">{}</create-subscription>'
MANAGE = "urn:ietf:params:xml:ns:netmod:notification"
LINK_DOWN = f"{{{QKD}}}sdqkdn_link_down"
INTERFACE_DOWN = f"{{{QKD}}}sdqkdn_interface_down"
REPLAYED, COMPLETE = f"{{{MANAGE}}}replayComplete", f"{{{MANAGE}}}notificationComplete"
FILTERS = (
    f'<filter><sdqkdn_link_down xmlns="{QKD}"><qkd_link><reason>{{}}</reason></qkd_link></sdqkdn_link_down></filter>',
    f'<filter type="xpath" xmlns:q="{QKD}" select="/q:sdqkdn_link_down[q:qkd_link/q:reason=\'{{}}\']"/>',
)


@pytest.fixture
async def client(front: Front) -> AsyncIterator[Client]:
    async with front.connect() as client:
        yield client


def now() -> str:
    return datetime.now(UTC).isoformat()


def after(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def replay(start: str, stop: str = "", filter_: str = "") -> str:
    return SUBSCRIBE.format(filter_ + f"<startTime>{start}</startTime>" + (f"<stopTime>{stop}</stopTime>" if stop else ""))


async def notify(front: Front, *reasons: object) -> None:
    for reason in reasons:
        await asyncio.to_thread(front.side, "notify", link_down(reason))


async def notify_big(front: Front, reason: str) -> None:
    """sysrepo stores no more than 1 MiB of a module within one second."""
    while True:
        try:
            return await notify(front, reason)
        except AssertionError as error:
            assert "exceeded the maximum size" in str(error)


def link_down(reason: object) -> str:
    link = "00000000-0000-0000-0000-000000000001"
    inside = f"<qkd_link><qkdl_id>{link}</qkdl_id><reason>{reason}</reason></qkd_link>"
    return f'<sdqkdn_link_down xmlns="{QKD}">{inside}</sdqkdn_link_down>'


def interface_down(number: int) -> str:
    inside = f"<qkd_interface><qkdi_id>{number}</qkdi_id></qkd_interface>"
    return f'<sdqkdn_interface_down xmlns="{QKD}">{inside}</sdqkdn_interface_down>'


async def event(client: Client) -> tuple[str, etree._Element]:
    """The next event that is the node's own or an end of the subscription, not one of the server's sessions."""
    while True:
        time, found = netconf.parse_notification(await client.receive())
        if str(found.tag).startswith((f"{{{QKD}}}", f"{{{MANAGE}}}")):
            return time, found


async def told(client: Client, last: str = COMPLETE) -> list[str]:
    """What comes until an event of this name or reason: names of the marks, reasons of the link events."""
    found: list[str] = []
    while last not in found:
        _, one = await event(client)
        found.append(one.findtext(f".//{{{QKD}}}reason") or str(one.tag))
    return found


# Replay ------------------------------------------------------------------------------------------------------------


async def test_stored_events_come_first_then_one_mark_then_live_ones(front: Front, client: Client) -> None:
    start = now()
    await notify(front, "a", "b")
    await client.ok(replay(start))
    assert await told(client, REPLAYED) == ["a", "b", REPLAYED]
    await notify(front, "c", "d")
    assert await told(client, "d") == ["c", "d"]


async def test_no_event_is_lost_or_doubled_between_log_and_life(front: Front) -> None:
    start, sent, done = now(), 0, False

    async def send() -> None:
        nonlocal sent
        while not done:
            await notify(front, f"n{sent}")
            sent += 1

    sender = asyncio.create_task(send())
    try:
        for round_ in range(8):
            async with front.connect() as client:
                await client.ok(replay(start))
                found = await told(client, REPLAYED)
                found += await told(client, f"n{len(found) + 20}")
                found.remove(REPLAYED)
                assert found == [f"n{number}" for number in range(len(found))], round_
    finally:
        done = True
        await sender


async def test_times_of_a_replay_ascend(front: Front, client: Client) -> None:
    start = now()
    for number in range(5):
        await notify(front, f"at {number}")
        await asyncio.to_thread(front.side, "notify", interface_down(number))
    await client.ok(replay(start))
    events = [await event(client) for _ in range(11)]
    assert [one.tag for _, one in events] == [LINK_DOWN, INTERFACE_DOWN] * 5 + [REPLAYED]
    times = [time for time, _ in events]
    assert times == sorted(times) and times[0] > start.replace("+00:00", "Z")


async def test_a_stop_in_the_past_ends_with_the_log_and_the_session_may_subscribe_anew(front: Front, client: Client) -> None:
    start = now()
    await notify(front, "before")
    stop = now()
    await notify(front, "behind")
    await client.ok(replay(start, stop))
    assert await told(client) == ["before", REPLAYED, COMPLETE]
    await client.ok("<get-config><source><running/></source></get-config>")
    await client.ok(replay(start))
    assert await told(client, REPLAYED) == ["before", "behind", REPLAYED]


async def test_a_stop_in_the_future_ends_live_events(front: Front, client: Client) -> None:
    start, stop = now(), after(1)
    await notify(front, "stored")
    await client.ok(replay(start, stop))
    assert await told(client, REPLAYED) == ["stored", REPLAYED]
    await notify(front, "live")
    assert await told(client) == ["live", COMPLETE]
    assert stop <= now() <= after(1)
    await notify(front, "late")
    await client.ok(SUBSCRIBE.format(""))
    await notify(front, "new")
    assert await told(client, "new") == ["new"]


async def test_a_log_without_events_and_a_far_stop_are_fine(client: Client) -> None:
    await client.ok(replay(now(), "9999-12-31T23:59:59.999999999Z"))
    assert await told(client, REPLAYED) == [REPLAYED]


@pytest.mark.parametrize("start", ["1970-01-01T00:00:00Z", "0001-01-01T00:00:00+00:00", "2000-02-29T12:00:00.5-23:59"])
async def test_a_start_before_the_log_is_its_beginning(front: Front, client: Client, start: str) -> None:
    await notify(front, f"since {start}")
    await client.ok(replay(start))
    assert (await told(client, REPLAYED))[-2:] == [f"since {start}", REPLAYED]


async def test_time_zones_count(front: Front, client: Client) -> None:
    await notify(front, "earlier")
    start = datetime.now(UTC).astimezone(tz=None).isoformat()
    await notify(front, "in zone")
    await client.ok(replay(start))
    assert await told(client, REPLAYED) == ["in zone", REPLAYED]


@pytest.mark.parametrize(
    ("period", "tag", "element"),
    [
        ("<stopTime>2026-01-01T00:00:00Z</stopTime>", "missing-element", "startTime"),
        ("<startTime>2999-01-01T00:00:00Z</startTime>", "bad-element", "startTime"),
        ("<startTime>yesterday</startTime>", "bad-element", "startTime"),
        ("<startTime>2026-13-01T00:00:00Z</startTime>", "bad-element", "startTime"),
        ("<startTime>2026-01-01T00:00:00</startTime>", "bad-element", "startTime"),
        ("<startTime/>", "bad-element", "startTime"),
        (
            "<startTime>2026-01-02T00:00:00Z</startTime><stopTime>2026-01-01T00:00:00Z</stopTime>",
            "bad-element",
            "stopTime",
        ),
        (
            "<startTime>2026-01-01T00:00:00Z</startTime><stopTime>2026-01-01T01:00:00+01:00</stopTime>",
            "bad-element",
            "stopTime",
        ),
        ("<stream>OTHER</stream>", "invalid-value", "stream"),
    ],
)
async def test_what_rfc_5277_forbids_is_refused(client: Client, period: str, tag: str, element: str) -> None:
    error = await client.refused(SUBSCRIBE.format(period))
    assert (error.tag, error.type, dict(error.info)["bad-element"]) == (tag, "protocol", element)
    await client.ok(SUBSCRIBE.format(""))  # nothing was left of the attempt


# Filters and access control ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("filter_", FILTERS, ids=["subtree", "xpath"])
async def test_a_filter_holds_for_the_log_and_for_life_but_not_for_marks(front: Front, client: Client, filter_: str) -> None:
    start = now()
    await notify(front, "ice", "cut")
    await client.ok(replay(start, after(1), filter_.format("cut")))
    assert await told(client, REPLAYED) == ["cut", REPLAYED]
    await notify(front, "ice", "cut", "ice")
    assert await told(client) == ["cut", COMPLETE]


async def test_an_empty_filter_selects_nothing_but_marks(front: Front, client: Client) -> None:
    start = now()
    await notify(front, "any")
    await client.ok(replay(start, now(), "<filter/>"))
    assert await told(client) == [REPLAYED, COMPLETE]


async def test_access_control_holds_for_each_event_of_the_log_and_of_life_but_not_for_marks(front: Front) -> None:
    """RFC 8341 clause 3.4.6: a user who may not hear of links hears of interfaces, and the ends of all subscriptions."""
    start = now()
    await notify(front, "hidden")
    await asyncio.to_thread(front.side, "notify", interface_down(1))
    async with front.connect("monitor") as monitor:
        await monitor.ok(replay(start, after(1)))
        assert [(await event(monitor))[1].tag for _ in range(2)] == [INTERFACE_DOWN, REPLAYED]
        await notify(front, "hidden")
        await asyncio.to_thread(front.side, "notify", interface_down(2))
        assert [(await event(monitor))[1].tag for _ in range(2)] == [INTERFACE_DOWN, COMPLETE]


# Slow and dead clients, restarts -----------------------------------------------------------------------------------


async def test_a_client_that_reads_nothing_of_a_replay_delays_nobody(front: Front, client: Client) -> None:
    start = now()
    async with asyncio.timeout(20):
        for number in range(30):
            await notify_big(front, f"{number} " + "x" * 100_000)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(3):
            lazy = await stack.enter_async_context(front.connect())
            lazy.send(netconf.build_rpc("1", replay(start).encode()))
        await client.ok(SUBSCRIBE.format(""))
        loop, slowest = asyncio.get_running_loop(), 0.0
        for number in range(50):
            begun = loop.time()
            await notify(front, f"live {number}")
            await told(client, f"live {number}")
            slowest = max(slowest, loop.time() - begun)
        assert slowest < 1.0


async def test_filters_that_never_end_cost_their_authors_alone(front: Front, client: Client) -> None:
    endless = "//*[" + "count(//*[" * 16 + "count(//*)>0" + "])>0" * 16 + "]"
    start = now()
    await notify(front, *range(20))
    await client.ok(SUBSCRIBE.format(FILTERS[1].format("heard")))
    async with contextlib.AsyncExitStack() as stack:
        costly = [await stack.enter_async_context(front.connect("monitor")) for _ in range(8)]
        for one in costly:
            await one.ok(replay(start, filter_=f'<filter type="xpath" select="{endless}"/>'))
        await notify(front, "heard")
        async with front.connect() as other:  # a log-in, too, has its threads
            await other.ok("<get><filter/></get>")
        assert await told(client, "heard") == ["heard"]
        for one in costly:  # it misses events, so it is ended, four at a time
            with pytest.raises(EOFError):
                await _until_the_end(one)


async def _until_the_end(client: Client) -> None:
    async with asyncio.timeout(40):
        while True:
            with contextlib.suppress(TimeoutError):
                await client.receive()


async def test_events_outlive_a_killed_server(front: Front) -> None:
    start = now()
    async with front.connect() as client:
        await client.ok(replay(start))
        await notify(front, "heard")
        assert await told(client, "heard") == [REPLAYED, "heard"]
        assert front.process is not None
        os.kill(front.process.pid, signal.SIGKILL)
        await asyncio.to_thread(front.process.wait)
    await notify(front, "missed")
    await asyncio.to_thread(front.start)
    async with front.connect() as client:
        await client.ok(replay(start))
        assert await told(client, REPLAYED) == ["heard", "missed", REPLAYED]
        await notify(front, "back")
        assert await told(client, "back") == ["back"]


# The stream and its log --------------------------------------------------------------------------------------------


async def test_the_stream_is_described(front: Front, client: Client) -> None:
    (data,) = await client.ok(f'<get><filter><netconf xmlns="{MANAGE}"><streams/></netconf></filter></get>')
    (stream,) = data.iter(f"{{{MANAGE}}}stream")
    said = {netconf.split_name(leaf)[1]: leaf.text for leaf in stream}
    assert (said["name"], said["replaySupport"]) == ("NETCONF", "true")
    assert said["description"] and "replayLogAgedTime" not in said
    assert datetime.fromisoformat(said["replayLogCreationTime"] or "") < datetime.now(UTC)


async def test_commands_are_served_beside_a_subscription_and_that_is_said(front: Front, client: Client) -> None:
    """RFC 5277 clause 6."""
    assert client.hello is not None
    assert "urn:ietf:params:netconf:capability:interleave:1.0" in client.hello.capabilities
    await client.ok(SUBSCRIBE.format(f'<filter><sdqkdn_link_down xmlns="{QKD}"/></filter>'))
    for number in range(3):
        await client.ok("<get-config><source><running/></source></get-config>")
        await notify(front, f"between {number}")
        assert await told(client, f"between {number}") == [f"between {number}"]
    assert (await client.refused(SUBSCRIBE.format(""))).tag == "operation-failed"


def test_the_log_is_kept_to_a_size_and_an_age(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "notif"
    folder.mkdir(parents=True)
    names = [f"{yang.NODE}.notif.{start}-{start + 9}" for start in (100, 1000, 1010, 1020, 1030, 1040, 1050)]
    for name in names:
        (folder / name).write_bytes(bytes(KEPT_BYTES // 4))
    (folder / f"other.notif.{100}-{200}").touch()
    log = EventLog(tmp_path)
    assert log.created_ns is None
    (folder / f"{yang.NODE}.replay").touch()
    assert log.created_ns and log.aged_ns is None
    log.trim(1060)
    assert {file.name for file in folder.iterdir()} >= {*names[3:], "other.notif.100-200"}
    assert not any((folder / name).exists() for name in names[:3])
    assert log.aged_ns == 1019 * 1_000_000_000
    log.trim(1055 + KEPT_SECONDS)
    assert [file.name for file in folder.glob(f"{yang.NODE}.notif.*")] == names[-1:]
    log.trim(1055 + 2 * KEPT_SECONDS)  # the newest stays: sysrepo may be writing it
    assert (folder / names[-1]).exists()
