"""RFC 6022: what a server says of itself, with counts that are true, and get-schema."""

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from lxml import etree
from netconf_front import Client, Front
from rfc import case, rfc, untestable
from subscribing import happened, subscribe, until
from wire import MONITORING, capabilities, is_over, lock, session_id, unlock

from qswitch.protocol import netconf
from qswitch.protocol.netconf import BASE

Behind = Callable[..., None]

_N = f"{{{MONITORING}}}"
COUNTS = ("in-rpcs", "in-bad-rpcs", "out-rpc-errors", "out-notifications")


async def state(client: Client, part: str) -> etree._Element:
    """One of the containers of `netconf-state`."""
    [data] = await client.ok(f'<get><filter><netconf-state xmlns="{MONITORING}"><{part}/></netconf-state></filter></get>')
    found = data.find(f"{_N}netconf-state/{_N}{part}")
    assert found is not None
    return found


def text(element: etree._Element, name: str) -> str:
    return element.findtext(f"{_N}{name}") or ""


def numbers(element: etree._Element, names: tuple[str, ...] = COUNTS) -> Counter[str]:
    return Counter({name: int(text(element, name)) for name in names})


async def session(client: Client, number: int) -> etree._Element:
    """A session's entry; AssertionError when there is none."""
    found = [one for one in await state(client, "sessions") if text(one, "session-id") == str(number)]
    assert len(found) == 1
    return found[0]


# Capabilities, datastores, schemas -----------------------------------------------------------------------------------


@rfc("6022", "2.1.1", "the capabilities are those of the hello")
async def test_capabilities(client: Client) -> None:
    found = [one.text for one in await state(client, "capabilities")]
    assert sorted(found) == sorted(capabilities(client))


@rfc("6022", "2.1.2", "every configuration datastore is listed, by its name")
async def test_datastores(client: Client) -> None:
    found = {text(one, "name"): one for one in await state(client, "datastores")}
    assert found.keys() == {"running", "candidate", "startup"}
    assert not [one for one in found.values() if one.find(f"{_N}locks") is not None]


@rfc("6022", "2.1.2", "a lock is shown at its datastore with its session and time, and only while it is held")
@pytest.mark.parametrize("name", ["running", "candidate", "startup"])
async def test_locks(front: Front, client: Client, name: str) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    async with front.connect() as other:
        await other.ok(lock(name))
        locked = [one for one in await state(client, "datastores") if one.find(f"{_N}locks") is not None]
        assert [text(one, "name") for one in locked] == [name]
        found = locked[0].find(f"{_N}locks/{_N}global-lock")
        assert found is not None
        assert text(found, "locked-by-session") == str(session_id(other))
        assert before <= datetime.fromisoformat(text(found, "locked-time")) <= datetime.now(UTC)
        await other.ok(unlock(name))
    assert not [one for one in await state(client, "datastores") if one.find(f"{_N}locks") is not None]


def get_schema(identifier: str, inside: str = "") -> str:
    return f'<get-schema xmlns="{MONITORING}"><identifier>{identifier}</identifier>{inside}</get-schema>'


@rfc("6022", "2.1.3", "every schema is listed with identifier, version, format, namespace and location")
@rfc("6022", "3.1", "every schema that is listed with location NETCONF can be had, by its version")
async def test_schemas(client: Client) -> None:
    schemas = list(await state(client, "schemas"))
    names = {text(one, "identifier") for one in schemas}
    assert {"conformance", "ietf-netconf", "ietf-netconf-monitoring", "etsi-qkd-sdn-node", "ietf-yang-types"} <= names
    assert len({(text(one, "identifier"), text(one, "version"), text(one, "format")) for one in schemas}) == len(schemas)
    for one in schemas:
        name, version = text(one, "identifier"), text(one, "version")
        assert text(one, "format").rpartition(":")[2] == "yang"
        assert "NETCONF" in [place.text for place in one.iterfind(f"{_N}location")]
        [data] = await client.ok(get_schema(name, f"<version>{version}</version><format>yang</format>"))
        assert data.tag == f"{_N}data"
        yang = data.text or ""
        assert f"module {name} {{" in yang
        assert text(one, "namespace") in yang
        assert version in yang


@rfc("6022", "3.1", "without a version or a format the schema comes in the one there is, in YANG")
async def test_get_schema_by_name(client: Client) -> None:
    [data] = await client.ok(get_schema("conformance"))
    assert data.text is not None
    assert data.text.startswith("module conformance {")
    assert not len(data)


_NO_SCHEMA = [
    case("6022", "3.1", "a schema that is not there gives invalid-value", get_schema("nothing"), "invalid-value"),
    case(
        "6022", "3.1", "a version that is not there gives invalid-value",
        get_schema("conformance", "<version>1999-01-01</version>"), "invalid-value",
    ),
    case(
        "6022", "3.1", "a format that is not offered gives invalid-value", get_schema("conformance", "<format>rng</format>"),
        "invalid-value",
    ),
    case("6022", "3.1", "a schema must be named", f'<get-schema xmlns="{MONITORING}"/>', "missing-element"),
]  # fmt: skip
untestable(
    "6022", "3.1", "several schemas that match give operation-failed with data-not-unique", "a node has one version of each"
)


@pytest.mark.parametrize(("operation", "tag"), _NO_SCHEMA)
async def test_no_schema(client: Client, operation: str, tag: str) -> None:
    assert (await client.refused(operation)).tag == tag


# Sessions ------------------------------------------------------------------------------------------------------------


@rfc("6022", "2.1.4", "every session is listed with transport, user, host and login time")
async def test_sessions(front: Front, client: Client) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    async with front.connect("guest") as other:
        found = await session(client, session_id(other))
        assert text(found, "transport").rpartition(":")[2] == "netconf-ssh"
        assert text(found, "username") == "guest"
        assert text(found, "source-host") == "127.0.0.1"
        assert before <= datetime.fromisoformat(text(found, "login-time")) <= datetime.now(UTC)
        await session(client, session_id(client))
        assert numbers(found) == Counter(dict.fromkeys(COUNTS, 0))


@rfc("6022", "2.1.4", "a session that has ended is not listed")
async def test_an_ended_session(front: Front, client: Client) -> None:
    async with front.connect() as other:
        await client.ok(f"<kill-session><session-id>{session_id(other)}</session-id></kill-session>")
        with pytest.raises(AssertionError):
            await session(client, session_id(other))


async def good(other: Client, _behind: Behind) -> None:
    for _ in range(3):
        await other.ok("<get><filter/></get>")


async def failing(other: Client, _behind: Behind) -> None:
    await other.refused("<nothing/>")
    await other.refused("<unlock><target><running/></target></unlock>")


async def nameless(other: Client, _behind: Behind) -> None:
    other.send(f'<rpc xmlns="{BASE}"><get/></rpc>'.encode())
    assert (await other.reply()).errors


async def notified(other: Client, behind: Behind) -> None:
    await other.ok(subscribe("<filter><c:happened/></filter>"))
    behind("notify", happened("a"))
    behind("notify", happened("b"))
    assert len(await until(other, "b")) == 2


_COUNTED = [
    case("6022", "2.1.4", "in-rpcs counts correct rpc messages", good, {"in-rpcs": 3}),
    case("6022", "2.1.4", "out-rpc-errors counts replies with an rpc-error", failing, {"in-rpcs": 2, "out-rpc-errors": 2}),
    case(
        "6022", "2.1.4", "in-bad-rpcs counts messages that are no correct rpc", nameless,
        {"in-bad-rpcs": 1, "out-rpc-errors": 1},
    ),
    case("6022", "2.1.4", "out-notifications counts notifications", notified, {"in-rpcs": 1, "out-notifications": 2}),
]  # fmt: skip


@pytest.mark.parametrize(("act", "counted"), _COUNTED)
async def test_counts_of_a_session(
    front: Front, client: Client, behind: Behind, act: Callable[[Client, Behind], object], counted: dict[str, int]
) -> None:
    async with front.connect() as other:
        total = numbers(await state(client, "statistics"))
        await act(other, behind)  # type: ignore[misc]
        assert numbers(await session(client, session_id(other))) == Counter({**dict.fromkeys(COUNTS, 0), **counted})
        added = numbers(await state(client, "statistics"))
        added.subtract(total)
        added["in-rpcs"] -= 2  # the reading of it
        assert added == Counter({**dict.fromkeys(COUNTS, 0), **counted})


@rfc("6022", "2.1.5", "in-bad-rpcs counts what is no XML")
@pytest.mark.parametrize("message", ["<rpc", "no xml", f'<hello xmlns="{BASE}"/>'])
async def test_bad_messages(front: Front, client: Client, message: str) -> None:
    before = numbers(await state(client, "statistics"))
    async with front.connect() as other:
        other.send(message.encode())
        await other.receive()  # an error, after which the server may end the session
    assert numbers(await state(client, "statistics"))["in-bad-rpcs"] == before["in-bad-rpcs"] + 1


# Statistics ----------------------------------------------------------------------------------------------------------

SESSIONS = ("in-sessions", "in-bad-hellos", "dropped-sessions")


async def gone(client: Client, number: int) -> None:
    """Waits until a session has ended."""
    while str(number) in [text(one, "session-id") for one in await state(client, "sessions")]:
        pass


@rfc("6022", "2.1.5", "netconf-start-time is when the server started")
async def test_the_start(client: Client) -> None:
    found = {text(await state(client, "statistics"), "netconf-start-time") for _ in range(2)}
    assert len(found) == 1
    assert datetime.fromisoformat(found.pop()) <= datetime.now(UTC)


@rfc("6022", "2.1.5", "in-sessions counts sessions that were started")
@rfc("6022", "2.1.5", "dropped-sessions counts sessions that ended abnormally, and neither closed nor killed ones")
@pytest.mark.parametrize(("end", "dropped"), [("close", 0), ("kill", 0), ("drop", 1)])
async def test_dropped_sessions(front: Front, client: Client, end: str, dropped: int) -> None:
    before = numbers(await state(client, "statistics"), SESSIONS)
    async with front.connect() as other:
        match end:
            case "close":
                await other.ok("<close-session/>")
            case "kill":
                await client.ok(f"<kill-session><session-id>{session_id(other)}</session-id></kill-session>")
            case _:
                other.connection.abort()
        await gone(client, session_id(other))
    after = numbers(await state(client, "statistics"), SESSIONS)
    after.subtract(before)
    assert after == Counter({"in-sessions": 1, "in-bad-hellos": 0, "dropped-sessions": dropped})


@rfc("6022", "2.1.5", "in-bad-hellos counts sessions that an invalid hello ended")
@pytest.mark.parametrize(
    "hello",
    [
        f'<hello xmlns="{BASE}"><capabilities><capability>{netconf.BASE_1_0}</capability></capabilities>'
        "<session-id>1</session-id></hello>",
        f'<hello xmlns="urn:other"><capabilities><capability>{netconf.BASE_1_0}</capability></capabilities></hello>',
        f'<hello xmlns="{BASE}"><capabilities><capability>urn:nothing</capability></capabilities></hello>',
    ],
    ids=["session-id", "namespace", "capability"],
)
async def test_bad_hellos(front: Front, client: Client, hello: str) -> None:
    before = numbers(await state(client, "statistics"), SESSIONS)
    async with front.connect(greet=False) as other:
        number = netconf.parse_hello(await other.receive()).session_id
        other.send(hello.encode())
        await is_over(other)
    await gone(client, number or 0)
    after = numbers(await state(client, "statistics"), SESSIONS)
    after.subtract(before)
    assert (after["in-sessions"], after["in-bad-hellos"]) == (1, 1)


@rfc("6022", "2.1.5", "the counts of a session that has ended stay in the statistics")
async def test_counts_outlive_a_session(front: Front, client: Client) -> None:
    before = numbers(await state(client, "statistics"))
    async with front.connect() as other:
        await other.refused("<nothing/>")
        await other.ok("<close-session/>")
        await gone(client, session_id(other))
    after = numbers(await state(client, "statistics"))
    assert after["out-rpc-errors"] == before["out-rpc-errors"] + 1
    assert after["in-rpcs"] >= before["in-rpcs"] + 2
