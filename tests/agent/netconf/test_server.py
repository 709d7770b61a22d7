"""What the server answers, seen by a client that knows the bytes; nothing between it and a real repository."""

import asyncio
import base64
import contextlib
import os
import signal
import uuid
from collections.abc import AsyncIterator

import asyncssh
import pytest
from lxml import etree
from netconf_front import NODE, PEER, QKD, Client, Front

from qswitch.protocol import netconf
from qswitch.protocol.netconf import BASE, BASE_1_0

TYPES = "urn:etsi:qkd:yang:etsi-qkd-node-types"
NS = f'xmlns="{QKD}" xmlns:nc="{BASE}" xmlns:types="{TYPES}"'
LINK = str(uuid.UUID(int=0x1))
LINK_DOWN = (
    f'<sdqkdn_link_down xmlns="{QKD}"><qkd_link><qkdl_id>{LINK}</qkdl_id><reason>cut</reason></qkd_link></sdqkdn_link_down>'
)
MONITORING = 'xmlns="urn:ietf:params:xml:ns:yang:ietf-netconf-monitoring"'
GET_SCHEMA = f"<get-schema {MONITORING}><identifier>{{}}</identifier></get-schema>"
SUBSCRIBE = '<create-subscription xmlns="urn:ietf:params:xml:ns:netconf:notification:1.0">{}</create-subscription>'


@pytest.fixture
async def client(front: Front) -> AsyncIterator[Client]:
    async with front.connect() as client:
        yield client


def hello(client: Client) -> netconf.Hello:
    assert client.hello is not None
    return client.hello


def link(operation: str = "merge", identifier: str = LINK, inside: str = "<qkdl_type>types:VIRT</qkdl_type>") -> str:
    entry = f'<qkd_link nc:operation="{operation}"><qkdl_id>{identifier}</qkdl_id>{inside}</qkd_link>'
    return f"<qkd_node {NS}><qkdn_id>{NODE}</qkdn_id><qkd_links>{entry}</qkd_links></qkd_node>"


def edit(config: str, options: str = "") -> str:
    return f"<edit-config><target><running/></target>{options}<config>{config}</config></edit-config>"


def subtree(of_link: str) -> str:
    return f'<filter><qkd_node xmlns="{QKD}"><qkd_links><qkd_link>{of_link}</qkd_link></qkd_links></qkd_node></filter>'


def text(reply: netconf.RpcReply | tuple[object, ...]) -> str:
    content = reply.content if isinstance(reply, netconf.RpcReply) else reply
    return "".join(etree.tostring(one, encoding="unicode") for one in content)  # type: ignore[call-overload]


async def running(client: Client) -> str:
    return text(
        await client.ok(f'<get-config><source><running/></source><filter><qkd_node xmlns="{QKD}"/></filter></get-config>')
    )


async def test_the_hello_offers_what_works(client: Client) -> None:
    offered = hello(client).capabilities
    assert hello(client).session_id
    assert "urn:ietf:params:netconf:capability:notification:1.0" in offered
    assert any(
        one.startswith("urn:ietf:params:netconf:capability:yang-library:1.1?revision=2019-01-04&content-id=")
        for one in offered
    )
    assert any(one.startswith(f"{QKD}?module=etsi-qkd-sdn-node&revision=") for one in offered)
    assert "urn:ietf:params:netconf:capability:candidate:1.0" in offered


async def test_a_link_is_created_read_and_deleted(client: Client) -> None:
    await client.ok(edit(link("create")))
    assert f"<qkdl_id>{LINK}</qkdl_id>" in await running(client)
    assert (await client.refused(edit(link("create")))).tag == "data-exists"
    await client.ok(edit(link("delete", inside="")))
    assert LINK not in await running(client)
    assert (await client.refused(edit(link("delete", inside="")))).tag == "data-missing"


async def test_a_leaf_is_deleted_without_its_value(client: Client) -> None:
    await client.ok(edit(link(inside="<qkdl_enable>true</qkdl_enable>")))
    await client.ok(edit(link(inside='<qkdl_enable nc:operation="remove"/>')))
    assert "qkdl_enable" not in await running(client)
    await client.ok(edit(link("remove", inside="")))


async def test_an_edit_is_all_or_nothing(client: Client) -> None:
    good, bad = link("create"), link("delete", str(uuid.UUID(int=2)), "")
    assert (await client.refused(edit(good + bad))).tag == "data-missing"
    assert LINK not in await running(client)


async def test_a_test_only_edit_changes_nothing(client: Client) -> None:
    await client.ok(edit(link("create"), "<test-option>test-only</test-option>"))
    assert LINK not in await running(client)


async def test_a_test_only_edit_is_refused_where_the_edit_would_be(front: Front) -> None:
    tried = edit(link("create"), "<test-option>test-only</test-option>")
    async with front.connect("monitor") as monitor:
        assert (await monitor.refused(tried)).tag == "access-denied"
    async with front.connect() as controller:
        await controller.ok(tried)
        await controller.ok("<lock><target><candidate/></target></lock>")  # which the trial has left as it was


@pytest.mark.parametrize(
    ("config", "tag", "path", "info"),
    [
        (link(inside="<colour>red</colour>"), "unknown-element", "qkd_link", ("bad-element", "colour")),
        (link(identifier="no-uuid", inside=""), "invalid-value", "qkdl_id", None),
        (link(inside="<qkdl_enable>maybe</qkdl_enable>"), "invalid-value", "qkdl_enable", None),
        ('<x xmlns="urn:nowhere"/>', "unknown-namespace", "", ("bad-namespace", "urn:nowhere")),
        (f"<colour {NS}>red</colour>", "unknown-element", "", ("bad-element", "colour")),
        (f"<qkd_node {NS}><qkd_links><qkd_link/></qkd_links></qkd_node>", "missing-element", "", ("bad-element", "qkdl_id")),
        (
            f"<qkd_node {NS}><qkdn_status>types:NEW</qkdn_status></qkd_node>",
            "unknown-element",
            "",
            ("bad-element", "qkdn_status"),
        ),
        (link("explode"), "bad-attribute", "", ("bad-attribute", "operation")),
    ],
)
async def test_a_bad_edit_says_what_and_where(
    client: Client, config: str, tag: str, path: str, info: tuple[str, str] | None
) -> None:
    error = await client.refused(edit(config))
    assert error.tag == tag, error
    assert path in error.path
    if "/" in error.path:
        prefix = error.path[1:].partition(":")[0]
        assert error.namespaces[prefix] == QKD
    if info is not None:
        assert info in error.info


@pytest.mark.parametrize(
    ("filter_", "there", "gone"),
    [
        (f'<filter><qkd_node xmlns="{QKD}"><qkdn_id/></qkd_node></filter>', NODE, LINK),
        (subtree(f"<qkdl_id>{LINK}</qkdl_id>"), LINK, PEER),
        (subtree(f'<qkdl_type xmlns:q="{TYPES}">q:VIRT</qkdl_type><qkdl_id/>'), LINK, PEER),
        (f'<filter type="xpath" xmlns:q="{QKD}" select="//q:qkd_link[q:qkdl_id=\'{LINK}\']/q:qkdl_id"/>', LINK, "qkdl_type"),
        ('<filter type="xpath" select="/etsi-qkd-sdn-node:qkd_node/qkdn_id"/>', NODE, LINK),
        ('<filter xmlns=""><qkd_node><qkdn_id/></qkd_node></filter>', NODE, LINK),
        (f'<filter><qkd_node xmlns="{QKD}"><nothing/></qkd_node><x xmlns="urn:nowhere"/></filter>', "<data", NODE),
        ("<filter/>", "<data", NODE),
    ],
)
async def test_filters_select(client: Client, filter_: str, there: str, gone: str) -> None:
    await client.ok(edit(link() + link(identifier=PEER, inside="<qkdl_type>types:PHYS</qkdl_type>")))
    try:
        found = text(await client.ok(f"<get-config><source><running/></source>{filter_}</get-config>"))
        assert there in found
        assert gone not in found
    finally:
        await client.ok(edit(link("remove", inside="") + link("remove", PEER, "")))


@pytest.mark.parametrize(
    ("operation", "tag"),
    [
        ('<get><filter type="xpath" select="///"/></get>', "invalid-value"),
        ('<get><filter type="xpath" select="/q:x"/></get>', "invalid-value"),
        ('<get><filter type="xpath"/></get>', "missing-attribute"),
        ('<get><filter type="regexp"/></get>', "bad-attribute"),
        ("<get-config/>", "missing-element"),
        ("<edit-config><target><running/></target></edit-config>", "missing-element"),
        (edit("", "<default-operation>x</default-operation>"), "invalid-value"),
        ("<nonsense/>", "operation-not-supported"),
        ('<nonsense xmlns="urn:nowhere"/>', "unknown-namespace"),
        ("<unlock><target><running/></target></unlock>", "operation-failed"),
        ("<kill-session><session-id>0</session-id></kill-session>", "invalid-value"),
        ("<kill-session><session-id>99999</session-id></kill-session>", "invalid-value"),
        ("<delete-config><target><running/></target></delete-config>", "operation-not-supported"),
    ],
)  # fmt: skip
async def test_what_is_not_offered_is_said(client: Client, operation: str, tag: str) -> None:
    assert (await client.refused(operation)).tag == tag


async def test_with_defaults(client: Client) -> None:
    where = '<filter><nacm xmlns="urn:ietf:params:xml:ns:yang:ietf-netconf-acm"><enable-nacm/></nacm></filter>'
    mode = '<with-defaults xmlns="urn:ietf:params:xml:ns:yang:ietf-netconf-with-defaults">{}</with-defaults>'
    for name, there in ("report-all", True), ("explicit", False), ("trim", False):
        found = text(await client.ok(f"<get-config><source><running/></source>{where}{mode.format(name)}</get-config>"))
        assert ("enable-nacm" in found) is there


async def test_startup_follows_a_copy(client: Client) -> None:
    copy = "<copy-config><target><{}/></target><source><{}/></source></copy-config>"
    read = f'<get-config><source><startup/></source><filter><qkd_node xmlns="{QKD}"/></filter></get-config>'
    await client.ok(edit(link("create")))
    await client.ok(copy.format("startup", "running"))
    assert LINK in text(await client.ok(read))
    await client.ok(edit(link("delete", inside="")))
    await client.ok(copy.format("running", "startup"))
    assert LINK in await running(client)
    await client.ok(edit(link("delete", inside="")))
    # A node without its id would not be valid, so this node's startup cannot be emptied.
    error = await client.refused("<delete-config><target><startup/></target></delete-config>")
    assert (error.tag, error.info) == ("missing-element", (("bad-element", "qkdn_id"),))
    await client.ok(copy.format("startup", "running"))
    assert LINK not in text(await client.ok(read))


async def test_validate(client: Client) -> None:
    await client.ok("<validate><source><running/></source></validate>")
    wrong = link(inside="<qkdl_enable>maybe</qkdl_enable>")
    assert (await client.refused(f"<validate><source><config>{wrong}</config></source></validate>")).tag == "invalid-value"


async def test_get_schema(client: Client) -> None:
    content = await client.ok(GET_SCHEMA.format("etsi-qkd-sdn-node"))
    assert (content[0].text or "").startswith("module etsi-qkd-sdn-node {")
    assert (await client.refused(GET_SCHEMA.format("nonsense"))).tag == "invalid-value"


async def test_monitoring_names_sessions_and_schemas(client: Client) -> None:
    state = text(await client.ok(f"<get><filter><netconf-state {MONITORING}/></filter></get>"))
    assert f"<session-id>{hello(client).session_id}</session-id>" in state
    assert "<identifier>etsi-qkd-sdn-node</identifier>" in state


async def test_get_shows_the_configuration_in_effect(client: Client) -> None:
    server = '<netconf-server xmlns="urn:ietf:params:xml:ns:yang:ietf-netconf-server"/>'
    assert "<local-port>" in text(await client.ok(f"<get><filter>{server}</filter></get>"))


# Access ------------------------------------------------------------------------------------------------------------


async def test_a_wrong_key_and_an_unknown_user_are_refused(front: Front) -> None:
    stranger = asyncssh.generate_private_key("ssh-ed25519")
    for user in "controller", "nobody", "o'brien":
        with pytest.raises(asyncssh.PermissionDenied):
            async with front.connect(user, key=stranger):
                pass
    with pytest.raises(asyncssh.PermissionDenied):
        async with front.connect("controller", key=front.keys["monitor"]):
            pass


async def test_only_the_subsystem_is_offered(front: Front) -> None:
    async with asyncssh.connect(
        "127.0.0.1", front.port, username="controller", client_keys=[front.keys["controller"]], known_hosts=None, config=None
    ) as connection:
        done = await connection.run("id", check=False, timeout=10)
        assert "only the subsystem" in str(done.stderr)
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.open_connection("127.0.0.1", 22)


async def test_nacm_denies_writes_keys_and_operations(front: Front) -> None:
    async with front.connect("monitor") as client:
        error = await client.refused(edit(link("create")))
        assert (error.tag, error.type) == ("access-denied", "protocol")
        assert "asymmetric-key" not in text(await client.ok("<get-config><source><running/></source></get-config>"))
        assert NODE in text(await client.ok("<get-config><source><running/></source></get-config>"))
        assert (await client.refused(GET_SCHEMA.format("yang"))).tag == "access-denied"
        # Denied to all by the model itself, unless a rule permits.
        assert (await client.refused("<kill-session><session-id>1</session-id></kill-session>")).tag == "access-denied"
        assert (await client.refused("<delete-config><target><startup/></target></delete-config>")).tag == "access-denied"


async def test_a_new_user_may_come_at_once(front: Front, client: Client) -> None:
    key = asyncssh.generate_private_key("ssh-ed25519")
    ssh, ct = "urn:ietf:params:xml:ns:yang:ietf-netconf-server", "urn:ietf:params:xml:ns:yang:ietf-crypto-types"
    user = (
        f'<netconf-server xmlns="{ssh}" xmlns:nc="{BASE}"><listen><endpoints><endpoint><name>default-ssh</name>'
        '<ssh><ssh-server-parameters><client-authentication><users><user nc:operation="{}"><name>late</name>{}</user>'
        "</users></client-authentication></ssh-server-parameters></ssh></endpoint></endpoints></listen></netconf-server>"
    )
    entry = (
        f'<public-keys><inline-definition><public-key xmlns:ct="{ct}"><name>k</name>'
        f"<public-key-format>ct:ssh-public-key-format</public-key-format><public-key>{base64.b64encode(key.public_data).decode()}</public-key></public-key></inline-definition>"
        "</public-keys>"
    )
    await client.ok(edit(user.format("create", entry)))
    async with front.connect("late", key=key) as late:
        assert hello(late).session_id
    await client.ok(edit(user.format("delete", "")))
    with pytest.raises(asyncssh.PermissionDenied):
        async with front.connect("late", key=key):
            pass


# Locks and sessions ------------------------------------------------------------------------------------------------

LOCK = "<lock><target><running/></target></lock>"
UNLOCK = "<unlock><target><running/></target></unlock>"


async def test_a_lock_keeps_others_out_and_names_its_holder(front: Front, client: Client) -> None:
    async with front.connect() as other:
        await client.ok(LOCK)
        error = await other.refused(LOCK)
        assert (error.tag, error.info) == ("lock-denied", (("session-id", str(hello(client).session_id)),))
        assert (await client.refused(LOCK)).tag == "lock-denied"
        assert (await other.refused(edit(link("create")))).tag == "in-use"
        assert (await other.refused(UNLOCK)).tag == "operation-failed"
        await client.ok(edit(link("create")))
        await client.ok(edit(link("delete", inside="")))
        await client.ok(UNLOCK)
        await other.ok(LOCK)


async def test_a_lock_of_another_program_is_told_apart(front: Front, client: Client) -> None:
    front.side("lock")
    error = await client.refused(LOCK)
    assert (error.tag, error.info) == ("lock-denied", (("session-id", "0"),))
    front.side("unlock")
    await client.ok(LOCK)
    await client.ok(UNLOCK)


async def test_a_lock_ends_with_its_session(front: Front, client: Client) -> None:
    async with front.connect() as other:
        await other.ok(LOCK)
        await other.ok("<close-session/>")
        with pytest.raises(EOFError):
            await other.receive()
    for _ in range(100):  # the channel closes a moment before or after the lock is free
        if not (await client.rpc(LOCK)).errors:
            break
        await asyncio.sleep(0.02)
    await client.ok(UNLOCK)


async def test_a_killed_session_leaves_no_lock(front: Front, client: Client) -> None:
    async with front.connect() as other:
        await other.ok(LOCK)
        await client.ok(f"<kill-session><session-id>{hello(other).session_id}</session-id></kill-session>")
        await client.ok(LOCK)
        await client.ok(UNLOCK)
        with pytest.raises((EOFError, asyncssh.Error)):
            await other.receive()


async def test_a_change_the_agent_refuses_keeps_its_words(front: Front, client: Client) -> None:
    front.side("refuse", "/qkdl_id: 'x' is refused: this link has a twin")
    try:
        error = await client.refused(edit(link("create")))
        assert (error.tag, error.message) == ("invalid-value", "/qkdl_id: 'x' is refused: this link has a twin")
    finally:
        front.stop_side()
    await client.ok(edit(link("create") + link("delete", inside="")))


# Bad clients -------------------------------------------------------------------------------------------------------


async def test_malformed_xml_is_answered_and_the_session_goes_on(client: Client) -> None:
    client.send(b"<rpc")
    reply = await client.reply()
    assert (reply.errors[0].tag, reply.errors[0].type, reply.message_id) == ("malformed-message", "rpc", None)
    client.send(
        b'<!DOCTYPE rpc [<!ENTITY x SYSTEM "file:///etc/passwd">]><rpc xmlns="%b" message-id="1"><get/></rpc>'
        % BASE.encode()
    )
    assert (await client.reply()).errors[0].tag == "malformed-message"
    client.send(b'<rpc xmlns="%b"><get/></rpc>' % BASE.encode())
    assert (await client.reply()).errors[0].tag == "missing-attribute"
    await client.ok("<get-config><source><running/></source></get-config>")


async def test_a_client_of_the_old_version_is_served_with_markers(front: Front) -> None:
    async with front.connect("controller", BASE_1_0) as client:
        assert NODE in await running(client)
        client.send(b"<rpc")
        with pytest.raises(EOFError):  # malformed-message is unknown to it
            await client.receive()


async def test_bad_framing_ends_the_session(client: Client) -> None:
    client.stdin.write(b"\n#no chunk\n")
    assert (await client.reply()).errors[0].tag == "malformed-message"
    with pytest.raises(EOFError):
        await client.receive()


async def test_an_endless_message_ends_the_session_before_it_fills_memory(client: Client) -> None:
    client.stdin.write(b"\n#4294967295\n<rpc>")
    assert "longer than" in (await client.reply()).errors[0].message
    with pytest.raises(EOFError):
        await client.receive()


@pytest.mark.parametrize(
    "greeting", [b"<hello/>", b"", b'<hello xmlns="%b"><session-id>4</session-id></hello>' % BASE.encode()]
)
async def test_a_bad_hello_ends_the_session(front: Front, greeting: bytes) -> None:
    async with front.connect(greet=False) as client:
        netconf.parse_hello(await client.receive())
        client.send(greeting)
        with pytest.raises(EOFError):
            await client.receive()


async def test_a_client_that_vanishes_hurts_nobody(front: Front, client: Client) -> None:
    for _ in range(5):
        async with front.connect(greet=False) as other:
            other.stdin.write(b"\n#100\n<rpc")
            other.connection.abort()
    await client.ok("<get-config><source><running/></source></get-config>")


# Notifications -----------------------------------------------------------------------------------------------------


async def event(client: Client) -> bytes:
    """The next message that tells nothing of sessions (RFC 6470)."""
    while b"<netconf-session-" in (message := await client.receive()):
        pass
    return message


async def test_notifications_arrive_with_their_time(front: Front, client: Client) -> None:
    # Sessions of other tests may still be ending, which is told, too.
    await client.ok(SUBSCRIBE.format(f'<filter><sdqkdn_link_down xmlns="{QKD}"/></filter>'))
    assert (await client.refused(SUBSCRIBE.format(""))).tag == "operation-failed"
    await asyncio.to_thread(front.side, "notify", LINK_DOWN)
    time, found = netconf.parse_notification(await event(client))
    assert time.endswith("Z")
    assert found.tag == f"{{{QKD}}}sdqkdn_link_down"
    assert found.findtext(f".//{{{QKD}}}reason") == "cut"
    # Operations go on in between.
    await client.ok("<get-config><source><running/></source></get-config>")


@pytest.mark.parametrize(
    ("filter_", "passes"),
    [
        (f'<filter><sdqkdn_link_down xmlns="{QKD}"/></filter>', True),
        (f'<filter><sdqkdn_interface_down xmlns="{QKD}"/></filter>', False),
        (
            f'<filter><sdqkdn_link_down xmlns="{QKD}"><qkd_link><reason>cut</reason></qkd_link></sdqkdn_link_down></filter>',
            True,
        ),
        (
            f'<filter><sdqkdn_link_down xmlns="{QKD}"><qkd_link><reason>ice</reason></qkd_link></sdqkdn_link_down></filter>',
            False,
        ),
        (f'<filter type="xpath" xmlns:q="{QKD}" select="/q:sdqkdn_link_down[q:qkd_link/q:reason=\'cut\']"/>', True),
        (f'<filter type="xpath" xmlns:q="{QKD}" select="/q:sdqkdn_link_down[q:qkd_link/q:reason=\'ice\']"/>', False),
    ],
)
async def test_a_subscription_can_be_filtered(front: Front, client: Client, filter_: str, passes: bool) -> None:
    await client.ok(SUBSCRIBE.format(filter_))
    await asyncio.to_thread(front.side, "notify", LINK_DOWN)
    # The next thing to arrive is either the event or the answer to something asked after it.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.3 if not passes else 5):
            message = await event(client)
            assert passes
            assert b"sdqkdn_link_down" in message


async def test_nacm_drops_notifications_a_user_may_not_read(front: Front, client: Client) -> None:
    down = (
        f'<sdqkdn_interface_down xmlns="{QKD}"><qkd_interface><qkdi_id>1</qkdi_id></qkd_interface></sdqkdn_interface_down>'
    )
    async with front.connect("monitor") as monitor:
        await monitor.ok(SUBSCRIBE.format(""))
        await asyncio.to_thread(front.side, "notify", LINK_DOWN)
        await asyncio.to_thread(front.side, "notify", down)
        _, found = netconf.parse_notification(await event(monitor))
        assert found.tag == f"{{{QKD}}}sdqkdn_interface_down"


async def test_changes_of_configuration_are_told_to_those_who_ask_for_them(client: Client) -> None:
    names = "urn:ietf:params:xml:ns:yang:ietf-netconf-notifications"
    await client.ok(SUBSCRIBE.format(f'<filter><netconf-config-change xmlns="{names}"/></filter>'))
    client.send(netconf.build_rpc("change", edit(link("create")).encode()))
    messages = [await client.receive(), await client.receive()]
    events = [netconf.parse_notification(one)[1] for one in messages if b"<notification" in one]
    assert [one.tag for one in events] == [f"{{{names}}}netconf-config-change"]
    client.send(netconf.build_rpc("change", edit(link("delete", inside="")).encode()))
    assert b"rpc-error" not in await client.receive() + await client.receive()


async def test_a_client_that_does_not_read_loses_its_session_and_holds_up_nobody(front: Front, client: Client) -> None:
    # Of a module whose events are not stored: of others sysrepo takes less than this within a second.
    names = 'xmlns="urn:ietf:params:xml:ns:yang:ietf-netconf-notifications"'
    said = f"<changed-by><server/></changed-by><added-capability>urn:{'x' * 1_000_000}</added-capability>"
    flood = f"<netconf-capability-change {names}>{said}</netconf-capability-change>"
    async with front.connect() as lazy:
        await lazy.ok(SUBSCRIBE.format(""))
        await client.ok(SUBSCRIBE.format(""))
        for _ in range(30):
            await asyncio.to_thread(front.side, "notify", flood)
            assert b"netconf-capability-change" in await event(client)
        with pytest.raises((EOFError, asyncssh.Error, OSError)):
            for _ in range(40):
                await lazy.receive()


async def test_other_streams_are_refused(client: Client) -> None:
    assert (await client.refused(SUBSCRIBE.format("<stream>OTHER</stream>"))).tag == "invalid-value"


# Death and return --------------------------------------------------------------------------------------------------


async def test_a_killed_server_leaves_no_lock_and_comes_back(front: Front) -> None:
    assert front.process is not None
    async with front.connect() as client:
        await client.ok(LOCK)
        await client.ok(SUBSCRIBE.format(""))
        os.kill(front.process.pid, signal.SIGKILL)
        await asyncio.to_thread(front.process.wait)
    await asyncio.to_thread(front.side, "notify", LINK_DOWN)  # nobody's subscription holds the sender up
    await asyncio.to_thread(front.start)
    async with front.connect() as client:
        await client.ok(LOCK)
        await client.ok(edit(link("create")))
        await client.ok(edit(link("delete", inside="")))
        await client.ok(SUBSCRIBE.format(""))
        await asyncio.to_thread(front.side, "notify", LINK_DOWN)
        assert b"sdqkdn_link_down" in await event(client)
