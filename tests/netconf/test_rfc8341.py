"""RFC 8341: how rules decide, seen by user `guest`, whom they limit."""

import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncssh
import pytest
from nacm import ACM, CONFORMANCE, limited, nacm, rule, rule_list
from netconf_front import Client, Front, server_data
from rfc import case, rfc

from qswitch.protocol import netconf

Access = Callable[[str], None]

VALUES = f'<values xmlns="{CONFORMANCE}"><number>20</number><word>word</word><text>text</text></values>'
GET = f'<get-config><source><running/></source><filter><values xmlns="{CONFORMANCE}"/></filter></get-config>'
GET_SCHEMA = f'<get-schema xmlns="{netconf.MONITORING}"><identifier>conformance</identifier></get-schema>'
ECHO = f'<echo xmlns="{CONFORMANCE}"><text>x</text></echo>'
READS = rule("permit", "read")


@pytest.fixture
async def guest(front: Front) -> AsyncIterator[Client]:
    async with front.connect("guest") as client:
        yield client


def leafs(reply: netconf.RpcReply) -> dict[str, str]:
    """The leafs of `values` in a reply."""
    assert not reply.errors, reply.errors
    found = reply.content[0].iterfind(f".//{{{CONFORMANCE}}}values/*")
    return {netconf.split_name(one)[1]: one.text or "" for one in found}


async def written(client: Client, inside: str) -> netconf.RpcReply:
    """An edit of `values`."""
    return await client.edit(f'<values xmlns="{CONFORMANCE}" xmlns:nc="{netconf.BASE}">{inside}</values>')


def admit(front: Front, user: str) -> None:
    """Adds a user to those that may log in."""
    front.keys.setdefault(user, front.keys["guest"])
    front.side("apply", server_data(front.port, front.host_key, {user: front.keys[user]}))


def denied(reply: netconf.RpcReply) -> bool:
    """Whether a reply is a refusal by access control, and a well-formed one."""
    if not reply.errors:
        return False
    error = reply.errors[0]
    assert (error.tag, error.severity) == ("access-denied", "error"), error
    assert error.type in ("application", "protocol")
    return True


# Which operations may be executed ------------------------------------------------------------------------------------

NMDA = "urn:ietf:params:xml:ns:yang:ietf-netconf-nmda"
_IN_RUNNING = '<datastore xmlns:ds="urn:ietf:params:xml:ns:yang:ietf-datastores">ds:running</datastore>'
_EXECUTION: list[Any] = [
    case(
        "8341", "3.4.4", "without a rule, exec-default decides: permit", limited(), ECHO, False
    ),
    case(
        "8341", "3.3.4.4", "exec-default deny forbids what no rule permits", limited(exec_default="deny"), ECHO, True
    ),
    case(
        "8341", "3.4.4", "a rule for one operation matches by its name",
        limited(rule("deny", "exec", "conformance", rpc="echo")), ECHO, True,
    ),
    case(
        "8341", "3.4.4", "a rule for another operation does not match",
        limited(rule("deny", "exec", "conformance", rpc="nothing")), ECHO, False,
    ),
    case(
        "8341", "3.4.4", "a rule for another module does not match",
        limited(rule("deny", "exec", "ietf-netconf", rpc="echo")), ECHO, False,
    ),
    case(
        "8341", "3.4.4", "a rule without a target matches every operation of its module",
        limited(rule("deny", "exec", "conformance")), ECHO, True,
    ),
    case(
        "8341", "3.4.4", "rpc-name '*' matches every operation",
        limited(rule("deny", "exec", "conformance", rpc="*")), ECHO, True,
    ),
    case(
        "8341", "3.4.4", "a rule without the exec bit does not match an operation",
        limited(rule("deny", "create read update delete", "conformance")), ECHO, False,
    ),
    case(
        "8341", "3.4.4", "access-operations '*' has every bit", limited(rule("deny", "*", "conformance")), ECHO, True
    ),
    case(
        "8341", "3.4.4", "a rule for notifications does not match an operation",
        limited(rule("deny", "*", "conformance", notification="*")), ECHO, False,
    ),
    case(
        "8341", "3.4.4", "rules are processed in order until one matches",
        limited(rule("permit", "exec", "conformance", rpc="echo"), rule("deny", "exec")), ECHO, False,
    ),
    case(
        "8341", "3.4.4", "a rule behind a match is not looked at",
        limited(rule("deny", "exec"), rule("permit", "exec", "conformance", rpc="echo")), ECHO, True,
    ),
    case(
        "8341", "3.4.4", "rule-lists are processed in order",
        nacm(rule_list("a", ["limited"], rule("deny", "exec")), rule_list("b", ["limited"], rule("permit"))), ECHO, True,
    ),
    case(
        "8341", "3.4.4", "a rule-list without a match leaves it to the next",
        nacm(rule_list("a", ["limited"], rule("deny", "read")), rule_list("b", ["limited"], rule("deny", "exec"))), ECHO,
        True,
    ),
    case(
        "8341", "3.4.4", "a rule-list of other groups is passed over",
        nacm(rule_list("a", ["others"], rule("deny"))), ECHO, False,
    ),
    case(
        "8341", "3.4.4", "a rule-list may name several groups",
        nacm(rule_list("a", ["others", "limited"], rule("deny", "exec"))), ECHO, True,
    ),
    case(
        "8341", "3.3.2", "a user may be in several groups",
        nacm(rule_list("b", ["two"], rule("deny", "exec")), groups={"one": ["guest"], "two": ["operator", "guest"]}), ECHO,
        True,
    ),
    case(
        "8341", "3.5.2", "group '*' of a rule-list means all groups",
        nacm(rule_list("a", ["*"], rule("deny", "exec"))), ECHO, True,
    ),
    case(
        "8341", "3.4.4", "no rule-list matches a user without a group",
        nacm(rule_list("a", ["*"], rule("deny", "exec")), groups={}), ECHO, False,
    ),
    case(
        "8341", "3.3.4.1", "with enable-nacm false nothing is enforced", limited(rule("deny"), enable_nacm="false"), ECHO,
        False,
    ),
    case(
        "8341", "3.4.4", "default-deny-all on an operation stands against exec-default permit", limited(),
        '<factory-reset xmlns="urn:ietf:params:xml:ns:yang:ietf-factory-default"/>', True,
    ),
    case(
        "8341", "3.2.7", "delete-config is denied unless a rule permits it", limited(),
        "<delete-config><target><startup/></target></delete-config>", True,
    ),
    case(
        "8341", "3.2.10", "kill-session is denied unless a rule permits it", limited(),
        "<kill-session><session-id>4294967295</session-id></kill-session>", True,
    ),
    case(
        "8341", "3.4.4", "execution of get-config obeys the rules",
        limited(rule("deny", "exec", rpc="get-config")), GET, True,
    ),
    case(
        "8341", "3.4.4", "execution of get obeys the rules", limited(rule("deny", "exec", rpc="get")), "<get/>", True
    ),
    case(
        "8526", "3.1.1", "execution of get-data obeys the rules", limited(rule("deny", "exec", rpc="get-data")),
        f'<get-data xmlns="{NMDA}">{_IN_RUNNING}</get-data>', True,
    ),
    case(
        "8526", "3.1.2", "execution of edit-data obeys the rules", limited(rule("deny", "exec", rpc="edit-data")),
        f'<edit-data xmlns="{NMDA}">{_IN_RUNNING}<config/></edit-data>', True,
    ),
    case(
        "8341", "3.4.4", "execution of unlock obeys the rules", limited(rule("deny", "exec", rpc="unlock")),
        "<unlock><target><candidate/></target></unlock>", True,
    ),
    case(
        "8341", "3.4.4", "execution of cancel-commit obeys the rules", limited(rule("deny", "exec", rpc="cancel-commit")),
        "<cancel-commit/>", True,
    ),
    case(
        "8341", "3.4.4", "execution of get-schema obeys the rules",
        limited(rule("deny", "exec", "ietf-netconf-monitoring", rpc="get-schema")), GET_SCHEMA, True,
    ),
    case(
        "8341", "3.4.4", "execution of create-subscription obeys the rules", limited(rule("deny", "exec", "notifications")),
        f'<create-subscription xmlns="{netconf.NOTIFICATION}"/>', True,
    ),
    case(
        "8341", "3.4.4", "execution of lock obeys the rules", limited(rule("deny", "exec", "ietf-netconf", rpc="lock")),
        "<lock><target><candidate/></target></lock>", True,
    ),
    case(
        "8341", "3.4.4", "execution of validate obeys the rules", limited(rule("deny", "exec", rpc="validate")),
        "<validate><source><running/></source></validate>", True,
    ),
    case(
        "8341", "3.4.4", "execution of commit obeys the rules",
        limited(rule("deny", "exec", rpc="commit")), "<commit/>", True,
    ),
    case(
        "8341", "3.4.4", "execution of discard-changes obeys the rules",
        limited(rule("deny", "exec", rpc="discard-changes")), "<discard-changes/>", True,
    ),
    case(
        "8341", "3.4.4", "execution of edit-config obeys the rules", limited(rule("permit", "create"), exec_default="deny"),
        f"<edit-config><target><running/></target><config>{VALUES}</config></edit-config>", True,
    ),
    case(
        "8341", "3.4.4", "execution of copy-config obeys the rules", limited(rule("deny", "exec", rpc="copy-config")),
        "<copy-config><target><startup/></target><source><running/></source></copy-config>", True,
    ),
]  # fmt: skip


@pytest.mark.parametrize(("rules", "operation", "refused"), _EXECUTION)
async def test_execution(front: Front, access: Access, rules: str, operation: str, refused: bool) -> None:
    access(rules)
    async with front.connect("guest") as guest:
        assert denied(await guest.rpc(operation)) is refused


_AS_FOR_GET = {"<module-name>conformance<": "<module-name>ietf-netconf<", ">echo<": ">get<", ECHO: "<get/>"}
_AS_FOR_GET["<module-name>ietf-netconf<"] = "<module-name>conformance<"


def _about_get(refused: bool) -> list[Any]:
    """The rules about `echo`, made rules about `get`."""
    rows = [one for one in _EXECUTION if one.values[1:] == (ECHO, refused)]
    swapped = [re.sub("|".join(_AS_FOR_GET), lambda found: _AS_FOR_GET[found[0]], one.values[0]) for one in rows]
    return [pytest.param(rules, id=one.id, marks=one.marks) for rules, one in zip(swapped, rows, strict=True)]


@pytest.mark.parametrize("rules", _about_get(refused=False))
async def test_get_is_executed(front: Front, access: Access, rules: str) -> None:
    access(rules)
    async with front.connect("guest") as guest:
        assert not denied(await guest.rpc("<get><filter/></get>"))


@pytest.mark.parametrize("rules", _about_get(refused=True))
async def test_get_is_refused(front: Front, access: Access, rules: str) -> None:
    access(rules)
    async with front.connect("guest") as guest:
        assert denied(await guest.rpc("<get><filter/></get>"))


@rfc("8341", "3.4.4", "close-session is always permitted")
async def test_close_session_is_always_permitted(access: Access, guest: Client) -> None:
    access(limited(rule("deny"), exec_default="deny"))
    await guest.ok("<close-session/>")


@rfc("8341", "3.2.7", "a rule can permit delete-config")
@rfc("8341", "3.2.10", "a rule can permit kill-session")
async def test_what_is_denied_by_default_can_be_permitted(front: Front, access: Access, guest: Client) -> None:
    access(limited(rule("permit", "exec", "ietf-netconf", rpc="*")))
    async with front.connect("monitor") as other:
        assert other.hello is not None
        await guest.ok(f"<kill-session><session-id>{other.hello.session_id}</session-id></kill-session>")
    reply = await guest.rpc("<delete-config><target><startup/></target></delete-config>")
    assert all(error.tag != "access-denied" or error.path for error in reply.errors)  # data, if anything, forbid it


@rfc("8341", "3.4.4", "an operation that is tied to data is executed only by whom rules on its path let")
async def test_an_action_obeys_the_rules(access: Access, client: Client, guest: Client) -> None:
    assert not (await client.edit(f'<server xmlns="{CONFORMANCE}"><name>a</name></server>')).errors
    action = (
        '<action xmlns="urn:ietf:params:xml:ns:yang:1">'
        f'<server xmlns="{CONFORMANCE}"><name>a</name><restart><delay>1</delay></restart></server></action>'
    )
    access(limited(rule("deny", "exec", "conformance", path="/c:server/c:restart")))
    assert denied(await guest.rpc(action))
    access(limited(rule("deny", "exec", "conformance", path="/c:server/c:ping")))
    assert not (await guest.rpc(action)).errors


# Who is meant --------------------------------------------------------------------------------------------------------


@rfc("8341", "3.4.1", "before there are any rules everything can be read, and nothing written")
async def test_the_first_rules(access: Access, guest: Client, client: Client) -> None:
    assert not (await client.edit(VALUES)).errors
    access(f'<nacm xmlns="{ACM}"><enable-nacm>true</enable-nacm></nacm>')
    assert leafs(await guest.rpc(GET))["word"] == "word"
    assert denied(await written(guest, "<text>new</text>"))


@rfc("8341", "3.3.3", "a recovery session, where the server has one, is above all rules")
async def test_the_recovery_session(front: Front, access: Access) -> None:
    """The datastore's own is that of `root`; an engine may let nobody of that name in."""
    admit(front, "root")
    access(limited(rule("deny"), read_default="deny", write_default="deny", exec_default="deny"))
    try:
        async with front.connect("root") as root:
            assert not (await written(root, "<text>mine</text>")).errors
            assert leafs(await root.rpc(GET)) == {"text": "mine"}
    except asyncssh.Error:
        assert front.engine == "builtin"


@rfc("8341", "3.3.4.5", "enable-external-groups decides whether groups of the transport count")
@pytest.mark.parametrize(("external", "refused"), [("true", True), ("false", False)])
async def test_external_groups(front: Front, access: Access, external: str, refused: bool) -> None:
    admit(front, "daemon")  # a user, and a group of it, that every Unix has
    access(nacm(rule_list("a", ["daemon"], rule("deny", "exec")), enable_external_groups=external))
    async with front.connect("daemon") as client:
        assert denied(await client.rpc(ECHO)) is refused


@rfc("8341", "3.1.3", "a change of the rules holds for sessions that are open")
async def test_rules_change_under_a_session(access: Access, guest: Client) -> None:
    access(limited())
    assert not denied(await guest.rpc(ECHO))
    access(limited(rule("deny", "exec")))
    assert denied(await guest.rpc(ECHO))
    access(limited())
    assert not denied(await guest.rpc(ECHO))
