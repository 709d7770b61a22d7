"""RFC 6470: what a server announces of itself."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from lxml import etree
from netconf_front import Client, Front
from rfc import rfc
from subscribing import Notification, happened, name, names, notification, subscribe, until
from wire import C, copy, edit, session_id

from qswitch.protocol import netconf
from qswitch.protocol.netconf import BASE

Behind = Callable[..., None]

EVENTS = "urn:ietf:params:xml:ns:yang:ietf-netconf-notifications"
SERVER = "urn:ietf:params:xml:ns:yang:ietf-netconf-server"
CREATE = '<values nc:operation="create"><word>a</word></values>'


@pytest.fixture
async def ear(front: Front) -> AsyncIterator[Client]:
    """A session that hears everything."""
    async with front.connect() as client:
        await client.ok(subscribe())
        yield client


def leafs(event: etree._Element) -> dict[str, str]:
    """The leafs of an event, by name."""
    return {etree.QName(one).localname: one.text or "" for one in event.iter() if len(one) == 0}


async def told(ear: Client, kind: str, **values: object) -> dict[str, str]:
    """The leafs of the next event of a kind with these values."""
    wanted = {key.replace("_", "-"): str(value) for key, value in values.items()}
    while True:
        _, event = (await until(ear, kind))[-1]
        assert etree.QName(event).namespace == EVENTS
        found = leafs(event)
        if wanted.items() <= found.items():
            return found


def who(client: Client, user: str = "controller") -> dict[str, str]:
    return {"username": user, "session-id": str(session_id(client)), "source-host": "127.0.0.1"}


# Sessions ------------------------------------------------------------------------------------------------------------


@rfc("6470", "2.2", "the start of a session is told: netconf-session-start with user, session and host")
async def test_the_start_of_a_session(front: Front, ear: Client) -> None:
    async with front.connect("guest") as other:
        assert await told(ear, "netconf-session-start", session_id=session_id(other)) == who(other, "guest")


@rfc("6470", "2.2", "the end of a session is told: netconf-session-end with user, session, host and reason")
@pytest.mark.parametrize("reason", ["closed", "killed", "dropped"])
async def test_the_end_of_a_session(front: Front, client: Client, ear: Client, reason: str) -> None:
    async with front.connect("guest") as other:
        match reason:
            case "closed":
                await other.ok("<close-session/>")
            case "killed":
                await client.ok(f"<kill-session><session-id>{session_id(other)}</session-id></kill-session>")
            case _:
                other.connection.abort()
        found = await told(ear, "netconf-session-end", session_id=session_id(other))
    by = {"killed-by": str(session_id(client))} if reason == "killed" else {}
    assert found == {**who(other, "guest"), **by, "termination-reason": reason}


@rfc("6470", "2.2", "a session that a bad hello ended has ended for the reason bad-hello")
async def test_a_bad_hello(front: Front, ear: Client) -> None:
    async with front.connect("guest", greet=False) as other:
        offered = netconf.parse_hello(await other.receive())
        other.send(f'<hello xmlns="{BASE}"><capabilities><capability>nothing</capability></capabilities></hello>'.encode())
        found = await told(ear, "netconf-session-end", session_id=offered.session_id)
    assert found["termination-reason"] == "bad-hello"
    assert found["username"] == "guest"


@rfc("6470", "2.2", "a session that was idle for too long has ended for the reason timeout")
async def test_a_timeout(front: Front, ear: Client) -> None:
    timeout = '<netconf-server xmlns="{}"><listen><idle-timeout>{}</idle-timeout></listen></netconf-server>'
    try:
        front.side("apply", timeout.format(SERVER, 2))
        async with front.connect("guest") as other:
            found: Notification | None = None
            while found is None or leafs(found[1]).get("session-id") != str(session_id(other)):
                found = await _busily(ear, "netconf-session-end")
        assert leafs(found[1])["termination-reason"] == "timeout"
    finally:
        front.side("apply", timeout.format(SERVER, 0))


async def _busily(client: Client, kind: str) -> Notification:
    """The next notification of a kind; not idle meanwhile."""
    while True:
        try:
            async with asyncio.timeout(0.2):
                found = await notification(client)
        except TimeoutError:
            client.send(f'<rpc xmlns="{BASE}" message-id="busy"><get><filter/></get></rpc>'.encode())
        except netconf.MalformedMessage:
            continue  # the reply
        else:
            if name(found) == kind:
                return found


# Configuration -------------------------------------------------------------------------------------------------------


def changes(event: etree._Element) -> list[tuple[str, str]]:
    """Target and operation of each edit; targets with the names of modules for prefixes."""
    found = []
    for one in event.iterfind(f"{{{EVENTS}}}edit"):
        target = one.find(f"{{{EVENTS}}}target")
        assert target is not None
        path = target.text or ""
        for prefix, namespace in target.nsmap.items():
            path = path.replace(f"{prefix}:", "c:") if prefix and namespace == C else path
        found.append((path, one.findtext(f"{{{EVENTS}}}operation") or ""))
    return found


async def changed(ear: Client, place: str) -> etree._Element:
    """The next netconf-config-change that is about module `conformance`."""
    while True:
        _, event = (await until(ear, "netconf-config-change"))[-1]
        if any(path.startswith("/c:") for path, _ in changes(event)):
            assert (event.findtext(f"{{{EVENTS}}}datastore") or "running") == place
            return event


@rfc("6470", "2.2", "a change of running is told: who changed which datastore")
@rfc("6470", "2.2", "every edit is told with its target and its operation")
async def test_a_change_of_running(client: Client, ear: Client) -> None:
    await client.ok(edit(CREATE))
    event = await changed(ear, "running")
    found = leafs(event)
    assert {"source-host": "127.0.0.1", **found}.items() >= who(client).items()  # the host may be left out
    assert any(path.startswith("/c:values") and how in ("create", "merge") for path, how in changes(event))
    await client.ok(edit("<values><word>b</word></values>"))
    assert changes(await changed(ear, "running")) in ([("/c:values/c:word", how)] for how in ("merge", "replace"))
    await client.ok(edit('<values nc:operation="delete"/>'))
    assert all(how == "delete" for _, how in changes(await changed(ear, "running")))


@rfc("6470", "2.2", "a change of startup is told")
async def test_a_change_of_startup(client: Client, ear: Client) -> None:
    await client.ok(edit(CREATE))
    await client.ok(copy("running", "startup"))
    await changed(ear, "running")
    await changed(ear, "startup")


@rfc("6470", "2.2", "only running and startup are told of, and a commit is a change of running")
async def test_a_change_of_candidate(client: Client, behind: Behind, ear: Client) -> None:
    await client.ok(edit(CREATE, target="candidate"))
    behind("notify", happened("middle"))
    assert "netconf-config-change" not in names(await until(ear, "middle"))
    await client.ok("<commit/>")
    assert leafs(await changed(ear, "running"))["session-id"] == str(session_id(client))


@rfc("6470", "2.2", "an edit that changes nothing is no change")
async def test_no_change(client: Client, behind: Behind, ear: Client) -> None:
    await client.ok(edit(CREATE))
    await client.ok(edit("<values><word>a</word></values>"))
    await client.ok(edit("<values><word>b</word></values>"))
    await changed(ear, "running")
    assert len(changes(await changed(ear, "running"))) == 1
    behind("notify", happened("end"))
    assert "netconf-config-change" not in names(await until(ear, "end"))


@rfc("6470", "2.2", "a change that no session of NETCONF made was made by the server, or by session 0")
async def test_a_change_by_the_node(behind: Behind, ear: Client) -> None:
    behind("apply", f'<values xmlns="{C}"><word>a</word></values>')
    found = leafs(await changed(ear, "running"))
    assert ("server" in found) is not (found.get("session-id") == "0")


# Confirmed commits ---------------------------------------------------------------------------------------------------


def confirmed(seconds: int, rest: str = "") -> str:
    return f"<commit><confirmed/><confirm-timeout>{seconds}</confirm-timeout>{rest}</commit>"


@rfc("6470", "2.2", "a confirmed commit is told when it starts, is extended and is completed, with who did it")
@rfc("6470", "2.2", "start and extend say after how many seconds the commit would be undone")
async def test_a_confirmed_commit(client: Client, ear: Client) -> None:
    await client.ok(edit(CREATE, target="candidate"))
    await client.ok(confirmed(60))
    await client.ok(confirmed(50))
    await client.ok("<commit/>")
    for event, timeout in ("start", {"timeout": "60"}), ("extend", {"timeout": "50"}), ("complete", {}):
        found = await told(ear, "netconf-confirmed-commit")
        assert found == {**who(client), "confirm-event": event, **timeout}


@rfc("6470", "2.2", "the cancellation of a confirmed commit is told")
async def test_a_cancelled_commit(client: Client, ear: Client) -> None:
    await client.ok(edit(CREATE, target="candidate"))
    await client.ok(confirmed(60))
    await client.ok("<cancel-commit/>")
    await told(ear, "netconf-confirmed-commit", confirm_event="start")
    assert await told(ear, "netconf-confirmed-commit") == {**who(client), "confirm-event": "cancel"}


@rfc("6470", "2.2", "the time-out of a confirmed commit is told, and is nobody's doing")
async def test_a_commit_that_times_out(client: Client, ear: Client) -> None:
    await client.ok(edit(CREATE, target="candidate"))
    await client.ok(confirmed(1))
    await told(ear, "netconf-confirmed-commit", confirm_event="start")
    assert await told(ear, "netconf-confirmed-commit") == {"confirm-event": "timeout"}


@rfc("6470", "2.2", "the end of the session that a confirmed commit belongs to cancels it, and is told")
async def test_a_commit_whose_session_ends(front: Front, ear: Client) -> None:
    async with front.connect() as other:
        await other.ok(edit(CREATE, target="candidate"))
        await other.ok(confirmed(60))
        await told(ear, "netconf-confirmed-commit", confirm_event="start")
        other.connection.abort()
    assert (await told(ear, "netconf-confirmed-commit"))["confirm-event"] == "cancel"
