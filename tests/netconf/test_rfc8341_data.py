"""RFC 8341: what of the data a user may read and change, and which notifications reach whom."""

from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import pytest
from lxml import etree
from nacm import ACM, CONFORMANCE, limited, rule
from netconf_front import Client, Front
from rfc import case, rfc
from subscribing import link_down, name, now, subscribe, until

from qswitch.protocol.netconf import BASE, NOTIFICATION, RpcReply, split_name

Access = Callable[[str], None]
Behind = Callable[..., None]

XMLNS = f'xmlns="{CONFORMANCE}" xmlns:nc="{BASE}"'
VALUES = f"<values {XMLNS}><number>20</number><word>word</word><text>text</text></values>"
KEYSTORE = "urn:ietf:params:xml:ns:yang:ietf-keystore"
DENIES_READ = rule("deny", "read", "conformance", path="/c:values/c:word")
WRITES = rule("permit", "create update delete", "conformance")


@pytest.fixture
async def guest(front: Front) -> AsyncIterator[Client]:
    async with front.connect("guest") as client:
        yield client


def select(inside: str, name: str = "values") -> str:
    return f"<filter><{name} {XMLNS}>{inside}</{name}></filter>"


def get_config(filter_: str = select(""), source: str = "running") -> str:
    return f"<get-config><source><{source}/></source>{filter_}</get-config>"


def edit(config: str, options: str = "", target: str = "running") -> str:
    return f"<edit-config><target><{target}/></target>{options}<config>{config}</config></edit-config>"


def values(inside: str) -> str:
    return f"<values {XMLNS}>{inside}</values>"


def leafs(reply: RpcReply) -> set[str]:
    """The names of the leafs in a reply."""
    assert not reply.errors, reply.errors
    return {split_name(one)[1] for one in reply.content[0].iterdescendants() if len(one) == 0}


def denied(reply: RpcReply) -> bool:
    return bool(reply.errors) and reply.errors[0].tag == "access-denied"


# Reading -------------------------------------------------------------------------------------------------------------

_ALL = {"number", "word", "text"}
_READING = [
    case("8341", "3.2.4", "data nodes without read access are silently omitted", limited(DENIES_READ), "", _ALL - {"word"}),
    case(
        "8341", "3.2.4", "with a node all its descendants are omitted",
        limited(rule("deny", "read", "conformance", path="/c:values")), "", set[str](),
    ),
    case(
        "8341", "3.2.4", "a selection of a node without read access selects nothing", limited(DENIES_READ),
        select("<word/>"), set[str](),
    ),
    case(
        "8341", "3.2.4", "a content match on a node without read access matches nothing", limited(DENIES_READ),
        select("<word>word</word><text/>"), set[str](),
    ),
    case(
        "8341", "3.2.4", "an XPath predicate on a node without read access matches nothing", limited(DENIES_READ),
        f'<filter type="xpath" xmlns:c="{CONFORMANCE}" select="/c:values[c:word=\'word\']/c:text"/>', set[str](),
    ),
    case(
        "8341", "3.2.4", "an XPath filter sees no node without read access", limited(DENIES_READ),
        f'<filter type="xpath" xmlns:c="{CONFORMANCE}" select="/c:values/c:text[not(../c:word)]"/>', {"text"},
    ),
    case("8341", "3.3.4.2", "read-default permit opens what no rule denies", limited(read_default="permit"), "", _ALL),
    case(
        "8341", "3.3.4.2", "read-default deny hides what no rule permits", limited(read_default="deny"), select(""),
        set[str](),
    ),
    case(
        "8341", "3.4.5", "a rule that permits reading stands against read-default deny",
        limited(rule("permit", "read", "conformance"), read_default="deny"), "", _ALL,
    ),
    case(
        "8341", "3.4.5", "a rule's path permits the node with its descendants, and no other",
        limited(rule("permit", "read", "conformance", path="/c:values/c:word"), read_default="deny"), "", {"word"},
    ),
    case(
        "8341", "3.4.5", "a rule without the read bit says nothing of reading",
        limited(rule("deny", "create update delete exec", "conformance")), "", _ALL,
    ),
    case(
        "8341", "3.4.5", "a rule for an operation says nothing of data",
        limited(rule("deny", "*", "conformance", rpc="*")), "", _ALL,
    ),
    case(
        "8341", "3.4.5", "rules are processed in order until one matches",
        limited(rule("permit", "read", "conformance", path="/c:values/c:word"), rule("deny", "read", "conformance")), "",
        {"word"},
    ),
    case(
        "8341", "3.4.5", "the first of two matching rules counts",
        limited(rule("permit", "read", "conformance"), DENIES_READ), "", _ALL,
    ),
]  # fmt: skip


@pytest.mark.parametrize(("rules", "filter_", "seen"), _READING)
async def test_reading(access: Access, client: Client, guest: Client, rules: str, filter_: str, seen: set[str]) -> None:
    await client.ok(edit(VALUES))
    access(rules)
    for operation in get_config(filter_ or select("")), f"<get>{filter_ or select('')}</get>":
        assert leafs(await guest.rpc(operation)) == seen


@rfc("8341", "3.4.5", "keys in a rule's path choose list entries")
async def test_a_rule_for_one_list_entry(access: Access, client: Client, guest: Client) -> None:
    entry = "<interface><name>{}</name><mtu>9000</mtu></interface>"
    await client.ok(edit(f"<interfaces {XMLNS}>{entry.format('a')}{entry.format('b')}</interfaces>"))
    path = "/c:interfaces/c:interface[c:name='b']"
    access(limited(rule("deny", "read", "conformance", path=path)))
    reply = await guest.rpc(get_config(select("", "interfaces")))
    names = [one.text for one in reply.content[0].iter(f"{{{CONFORMANCE}}}name")]
    assert names == ["a"]


@rfc("8341", "3.4.5", "default-deny-all on a node stands against read-default permit")
async def test_default_deny_all(access: Access, guest: Client) -> None:
    access(limited())
    assert not leafs(await guest.rpc(get_config(f'<filter><nacm xmlns="{ACM}"/></filter>')))
    seen = leafs(await guest.rpc(get_config(f'<filter><keystore xmlns="{KEYSTORE}"/></filter>')))
    assert "public-key" in seen
    assert "cleartext-private-key" not in seen


@rfc("8341", "3.4.5", "a rule can open what default-deny-all closes")
async def test_a_rule_opens_what_is_denied_by_default(access: Access, guest: Client) -> None:
    access(limited(rule("permit", "read", "ietf-netconf-acm")))
    assert "rpc-name" not in leafs(await guest.rpc(get_config(f'<filter><nacm xmlns="{ACM}"><groups/></nacm></filter>')))
    assert "module-name" in leafs(await guest.rpc(get_config(f'<filter><nacm xmlns="{ACM}"/></filter>')))


# Writing -------------------------------------------------------------------------------------------------------------

_WRITE_NOTHING = limited()
_NUMBER = "/c:values/c:number"
_WRITING = [
    case(
        "8341", "3.3.4.3", "write-default deny forbids what no rule permits", _WRITE_NOTHING, values("<flag/>"), True
    ),
    case(
        "8341", "3.3.4.3", "write-default permit allows what no rule denies", limited(write_default="permit"),
        values("<flag/>"), False,
    ),
    case(
        "8341", "3.2.5", "creating a node needs create access", limited(rule("permit", "update delete", "conformance")),
        values("<flag/>"), True,
    ),
    case(
        "8341", "3.2.5", "create access is enough to create", limited(rule("permit", "create", "conformance")),
        values("<flag/>"), False,
    ),
    case(
        "8341", "3.2.5", "changing a value needs update access", limited(rule("permit", "create delete", "conformance")),
        values("<number>21</number>"), True,
    ),
    case(
        "8341", "3.2.5", "update access is enough to change a value", limited(rule("permit", "update", "conformance")),
        values("<number>21</number>"), False,
    ),
    case(
        "8341", "3.2.5", "deleting a node needs delete access", limited(rule("permit", "create update", "conformance")),
        values('<word nc:operation="delete"/>'), True,
    ),
    case(
        "8341", "3.2.5", "delete access is enough to delete", limited(rule("permit", "delete", "conformance")),
        values('<word nc:operation="delete"/>'), False,
    ),
    case(
        "8341", "3.2.5", "replace needs delete access for what it drops",
        limited(rule("permit", "create update", "conformance")),
        f'<values {XMLNS} nc:operation="replace"><number>20</number></values>', True,
    ),
    case(
        "8341", "3.2.5", "data that change nothing need no access", _WRITE_NOTHING, VALUES, False
    ),
    case(
        "8341", "3.2.5", "containers that only lead to a change need no access",
        limited(rule("permit", "update", "conformance", path=_NUMBER)), values("<number>21</number>"), False,
    ),
    case(
        "8341", "3.2.5", "a merge needs no access to data that it does not name",
        limited(rule("deny", "*", "conformance", path="/c:values/c:word"), WRITES), values("<number>21</number>"), False,
    ),
    case(
        "8341", "3.2.5", "one forbidden change forbids the whole edit",
        limited(rule("permit", "update", "conformance", path=_NUMBER)), values("<number>21</number><flag/>"), True,
    ),
    case(
        "8341", "3.4.5", "a path denies writing the node with its descendants",
        limited(rule("deny", "create update delete", "conformance", path="/c:values"), WRITES),
        values("<number>21</number>"), True,
    ),
    case(
        "8341", "3.4.5", "default-deny-all on a node stands against write-default permit", limited(write_default="permit"),
        f'<nacm xmlns="{ACM}"><enable-nacm>false</enable-nacm></nacm>', True,
    ),
    case(
        "8341", "3.4.5", "a rule for another module says nothing of a node",
        limited(rule("permit", "*", "ietf-keystore")), values("<flag/>"), True,
    ),
]  # fmt: skip


@pytest.mark.parametrize(("rules", "config", "refused"), _WRITING)
@pytest.mark.parametrize("target", ["running", "candidate"])
async def test_writing(
    access: Access, client: Client, guest: Client, target: str, rules: str, config: str, refused: bool
) -> None:
    await client.ok(edit(VALUES))
    await client.ok("<discard-changes/>")
    access(rules)
    before = await client.rpc(get_config(source=target))
    assert denied(await guest.rpc(edit(config, target=target))) is refused
    after = await client.rpc(get_config(source=target))
    if refused:
        assert text(before) == text(after)
    await client.ok("<discard-changes/>")


@rfc("8341", "3.2.5", "nodes that an allowed edit removes implicitly need no access")
async def test_implicit_deletion(access: Access, client: Client, guest: Client) -> None:
    rest = "<needed>x</needed><pair>1</pair>"
    await client.ok(edit(f"<rules {XMLNS}>{rest}<road>r</road></rules>"))
    access(limited(rule("permit", "create", "conformance", path="/c:rules/c:ship")))
    assert not denied(await guest.rpc(edit(f"<rules {XMLNS}><ship>s</ship></rules>")))


@rfc("8341", "3.2.4", "an error shows nothing of data that the user may not read")
@rfc("8341", "3.4.3", "an access-denied error holds no information that the user may not read")
async def test_errors_are_discreet(access: Access, client: Client, guest: Client) -> None:
    await client.ok(edit(values("<text>hush-hush</text>")))
    access(limited(rule("deny", "*", "conformance", path="/c:values/c:text")))
    reply = await guest.rpc(edit(values('<text nc:operation="delete"/>')))
    assert denied(reply)
    reply_text = " ".join((reply.errors[0].message, reply.errors[0].path, str(reply.errors[0].info)))
    assert "hush-hush" not in reply_text


_INSIDE = "/c:interfaces/c:interface[c:name='a']"
_TELLING = [
    case("8341", "3.2.5", "create on what is there is denied before it is found there", limited(), "create", "word", True),
    case("8341", "3.2.5", "delete of what is not there is denied before it is missed", limited(), "delete", "flag", True),
    case(
        "8341", "3.2.5", "who may create is told that it is there", limited(rule("permit", "create", "conformance")),
        "create", "word", False,
    ),
    case(
        "8341", "3.2.5", "who may delete is told that it is not there", limited(rule("permit", "delete", "conformance")),
        "delete", "flag", False,
    ),
    case(
        "8341", "3.4.5", "a rule for a path holds for what is not there, too",
        limited(rule("deny", "delete", "conformance", path="/c:values/c:flag"), WRITES), "delete", "flag", True,
    ),
    case(
        "8341", "3.4.5", "a rule for another path does not",
        limited(rule("deny", "*", "conformance", path="/c:values/c:text"), WRITES), "delete", "flag", False,
    ),
    case(
        "8341", "3.4.5", "a rule for another list entry does not",
        limited(rule("deny", "*", "conformance", path=_INSIDE), WRITES), "delete", "b", False,
    ),
    case(
        "8341", "3.4.5", "a rule for the list entry does", limited(rule("deny", "*", "conformance", path=_INSIDE), WRITES),
        "delete", "a", True,
    ),
]  # fmt: skip


@pytest.mark.parametrize(("rules", "how", "what", "refused"), _TELLING)
async def test_what_is_there_is_told_to_whom_may_change_it(
    access: Access, client: Client, guest: Client, rules: str, how: str, what: str, refused: bool
) -> None:
    await client.ok(edit(VALUES))
    access(rules)
    value = "<word>word</word>" if what == "word" else f"<{what}/>"
    config = values(value.replace(what, f'{what} nc:operation="{how}"', 1))
    if what in "ab":
        entry = f'<interface nc:operation="{how}"><name>{what}</name></interface>'
        config = f"<interfaces {XMLNS}>{entry}</interfaces>"
    error = await guest.refused(edit(config))
    assert error.tag == ("access-denied" if refused else {"create": "data-exists", "delete": "data-missing"}[how])


@rfc("8341", "3.4.5", "default-deny-all stands against write-default permit for what is not there, too")
async def test_what_is_not_there_and_guarded(access: Access, guest: Client) -> None:
    access(limited(write_default="permit"))
    group = '<groups><group nc:operation="delete"><name>nobody</name></group></groups>'
    assert denied(await guest.rpc(edit(f'<nacm xmlns="{ACM}" xmlns:nc="{BASE}">{group}</nacm>')))


@rfc("8341", "3.4.3", "access denied to data says where")
async def test_the_path_of_a_refusal(access: Access, guest: Client) -> None:
    access(limited())
    error = await guest.refused(edit(values("<number>21</number>")))
    assert (error.tag, error.severity) == ("access-denied", "error")
    assert error.path.endswith(("values", "number"))


# Whole datastores ----------------------------------------------------------------------------------------------------


@rfc("8341", "3.2.6", "copying running to startup needs nothing but permission to execute copy-config")
async def test_copy_running_to_startup(access: Access, client: Client, guest: Client) -> None:
    await client.ok(edit(VALUES))
    access(limited(rule("deny", "read create update delete", "conformance")))
    await guest.ok("<copy-config><target><startup/></target><source><running/></source></copy-config>")
    assert leafs(await client.rpc(get_config(source="startup"))) == _ALL


@rfc("8341", "3.2.6", "a copy needs access to every node that it changes in its target")
@pytest.mark.parametrize(
    ("rules", "refused"),
    [(_WRITE_NOTHING, True), (limited(WRITES), False), (limited(rule("permit", "create update", "conformance")), True)],
)
async def test_copy_startup_to_running(access: Access, client: Client, guest: Client, rules: str, refused: bool) -> None:
    access(rules)
    await client.ok("<copy-config><target><startup/></target><source><running/></source></copy-config>")
    await client.ok(edit(VALUES))  # the copy drops it
    copy = "<copy-config><target><running/></target><source><startup/></source></copy-config>"
    assert denied(await guest.rpc(copy)) is refused
    assert bool(leafs(await client.rpc(get_config()))) is refused


@rfc("8341", "3.2.8", "a commit needs access to every node that it changes in running")
async def test_commit_of_what_another_prepared(access: Access, client: Client, guest: Client) -> None:
    await client.ok(edit(VALUES, target="candidate"))
    access(limited())
    assert denied(await guest.rpc("<commit/>"))
    assert not leafs(await client.rpc(get_config()))
    await client.ok("<commit/>")


@rfc("8341", "3.2.8", "a commit needs no access to nodes that it does not change")
async def test_commit_of_what_is_so_already(access: Access, client: Client, guest: Client) -> None:
    await client.ok(edit(VALUES))
    await client.ok("<discard-changes/>")
    access(limited(rule("permit", "create", "conformance", path="/c:values/c:flag")))
    await guest.ok(edit(values("<flag/>"), target="candidate"))
    await guest.ok("<commit/>")
    assert leafs(await client.rpc(get_config())) == {*_ALL, "flag"}


@rfc("8341", "3.2.9", "discard-changes needs nothing but permission to execute it")
async def test_discarding_what_another_prepared(access: Access, client: Client, guest: Client) -> None:
    await client.ok(edit(VALUES, target="candidate"))
    access(limited(rule("deny", "read create update delete")))
    await guest.ok("<discard-changes/>")
    assert not leafs(await client.rpc(get_config(source="candidate")))


# Notifications -------------------------------------------------------------------------------------------------------

HAPPENED = f"<happened {XMLNS}><what>x</what></happened>"
SECRETLY = f"<secretly {XMLNS}><what>x</what></secretly>"
LAST = '<sdqkdn_link_overloaded xmlns="urn:etsi:qkd:yang:etsi-qkd-node"/>'
_HEARS_THE_LAST = rule("permit", "read", "etsi-qkd-sdn-node", notification="sdqkdn_link_overloaded")
_NOTIFYING = [
    case("8341", "3.4.6", "read-default permit lets every event through", (), "permit", ["secretly", "happened"]),
    case("8341", "3.4.6", "read-default deny drops what no rule permits", (), "deny", []),
    case(
        "8341", "3.4.6", "a rule for a notification matches by its name",
        (rule("deny", "read", "conformance", notification="secretly"),), "permit", ["happened"],
    ),
    case(
        "8341", "3.4.6", "a rule that permits an event stands against read-default deny",
        (rule("permit", "read", "conformance", notification="secretly"),), "deny", ["secretly"],
    ),
    case(
        "8341", "3.4.6", "a rule without a target matches every event of its module",
        (rule("deny", "read", "conformance"),), "permit", [],
    ),
    case(
        "8341", "3.4.6", "a rule for operations does not match an event",
        (rule("deny", "*", "conformance", rpc="*"),), "permit", ["secretly", "happened"],
    ),
    case(
        "8341", "3.4.6", "a rule without the read bit does not match an event",
        (rule("deny", "create update delete exec", "conformance"),), "permit", ["secretly", "happened"],
    ),
]  # fmt: skip


async def events(client: Client, last: str) -> list[str]:
    """The names of the events before one, without what the server says of sessions and edits of other cases."""
    found = await until(client, last)
    return [name(one) for one in found[:-1] if not name(one).startswith("netconf-")]


@pytest.mark.parametrize(("rules", "default", "heard"), _NOTIFYING)
async def test_notifications(
    access: Access, behind: Behind, guest: Client, rules: tuple[str, ...], default: str, heard: list[str]
) -> None:
    access(limited(_HEARS_THE_LAST, *rules, read_default=default))
    await guest.ok(f'<create-subscription xmlns="{NOTIFICATION}"/>')
    for event in SECRETLY, HAPPENED, LAST:
        behind("notify", event)
    assert await events(guest, "sdqkdn_link_overloaded") == heard


@rfc("8341", "3.4.6", "a stored event that is denied is not sent")
@pytest.mark.parametrize(("action", "heard"), [("permit", ["sdqkdn_link_down"]), ("deny", [])])
async def test_replayed_notifications(access: Access, behind: Behind, guest: Client, action: str, heard: list[str]) -> None:
    access(limited(rule(action, "read", "etsi-qkd-sdn-node", notification="sdqkdn_link_down")))
    start = now()
    behind("notify", link_down("a"))
    await guest.ok(subscribe(start=start))
    assert [one for one in await events(guest, "replayComplete") if one.startswith("sdqkdn")] == heard


@rfc("8341", "3.4.6", "replayComplete and notificationComplete are always permitted")
async def test_the_end_of_a_replay_is_always_told(access: Access, guest: Client) -> None:
    access(limited(rule("deny", "read"), read_default="deny"))
    await guest.ok(subscribe(start=now() - timedelta(seconds=20), stop=now() - timedelta(seconds=10)))
    assert await events(guest, "notificationComplete") == ["replayComplete"]


# Counting ------------------------------------------------------------------------------------------------------------


async def counted(client: Client, leaf: str) -> int:
    reply = await client.rpc(f'<get><filter><nacm xmlns="{ACM}"><{leaf}/></nacm></filter></get>')
    assert not reply.errors, reply.errors
    return int(reply.content[0].findtext(f".//{{{ACM}}}{leaf}") or "")


@rfc("8341", "3.5.2", "denied-operations counts the operations that were denied")
async def test_denied_operations_are_counted(access: Access, client: Client, guest: Client) -> None:
    access(limited(rule("deny", "exec", "conformance")))
    before = await counted(client, "denied-operations")
    assert denied(await guest.rpc(f"<nothing {XMLNS}/>"))
    assert await counted(client, "denied-operations") == before + 1


@rfc("8341", "3.5.2", "denied-data-writes counts the operations that were denied a change")
async def test_denied_writes_are_counted(access: Access, client: Client, guest: Client) -> None:
    access(limited())
    before = await counted(client, "denied-data-writes")
    assert denied(await guest.rpc(edit(VALUES)))
    assert await counted(client, "denied-data-writes") == before + 1


@rfc("8341", "3.5.2", "denied-notifications counts the events that were dropped")
async def test_denied_notifications_are_counted(access: Access, behind: Behind, client: Client, guest: Client) -> None:
    access(limited(rule("deny", "read", "conformance", notification="secretly")))
    before = await counted(client, "denied-notifications")
    await guest.ok(f'<create-subscription xmlns="{NOTIFICATION}"/>')
    for event in SECRETLY, HAPPENED:
        behind("notify", event)
    assert await events(guest, "happened") == []
    assert await counted(client, "denied-notifications") == before + 1


def text(reply: RpcReply) -> str:
    return etree.tostring(reply.content[0], method="c14n").decode()
