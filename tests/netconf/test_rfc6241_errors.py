"""RFC 6241 appendix A, with RFC 7950 clauses 8.3 and 15: which error is for what.

`refused` holds every error here against appendix A: its type, its severity, and what its error-info has to name.
"""

from collections.abc import Callable
from functools import partial

import pytest
from lxml import etree
from netconf_front import NACM, Client, Front
from rfc import case, rfc, untestable
from wire import APPENDIX_A, C, by_the_book, c, edit, get_config, holds, lock, refused

from qswitch.protocol.netconf import RpcError

RULES = "<low>1</low><high>9</high><needed>x</needed><road>r</road><pair>p</pair>"
SET = "<test-option>set</test-option>"


def rules(more: str = RULES) -> str:
    return f"<rules>{more}</rules>"


def members(*rows: tuple[str, str, int]) -> str:
    return "".join(f"<member><id>{one}</id><ip>{ip}</ip><port>{port}</port></member>" for one, ip, port in rows)


def echo(inside: str) -> str:
    return f'<echo xmlns="{C}">{inside}</echo>'


# Tags of appendix A --------------------------------------------------------------------------------------------------

tag = partial(case, "6241", "A")
value = partial(case, "7950", "8.3.1")

TAGS = [
    tag(
        "invalid-value: a value that is not of the leaf's type", edit("<values><number>x</number></values>"), "invalid-value"
    ),
    tag(
        "missing-attribute: an attribute that is expected",
        get_config("running", '<filter type="xpath"/>'),
        "missing-attribute",
    ),
    tag("bad-attribute: an attribute with a wrong value", edit('<values nc:operation="explode"/>'), "bad-attribute"),
    tag("unknown-attribute: an attribute that is not expected", edit('<values nc:nonsense="x"/>'), "unknown-attribute"),
    tag("unknown-attribute: an attribute of no namespace", edit('<values operation="delete"/>'), "unknown-attribute"),
    tag("missing-element: a parameter that is expected", "<lock/>", "missing-element"),
    tag(
        "missing-element: a list entry without its key",
        edit("<top><users><user><type>x</type></user></users></top>"),
        "missing-element",
    ),
    tag(
        "unknown-element: a parameter that is not expected",
        "<get-config><source><running/></source><nonsense/></get-config>",
        "unknown-element",
    ),
    tag("unknown-element: data of no model", edit("<values><nonsense/></values>"), "unknown-element"),
    tag("unknown-element: data of a feature that is off", edit("<values><secret>x</secret></values>"), "unknown-element"),
    tag("unknown-element: state in an edit", edit("<state><counter>1</counter></state>"), "unknown-element"),
    tag("unknown-namespace: data of an unknown namespace", edit('<x xmlns="urn:nowhere"/>'), "unknown-namespace"),
    tag(
        "unknown-namespace: data of an unknown namespace below known data",
        edit('<values><x xmlns="urn:nowhere"/></values>'),
        "unknown-namespace",
    ),
    tag("unknown-namespace: an operation of an unknown namespace", '<x xmlns="urn:nowhere"/>', "unknown-namespace"),
    tag(
        "data-missing: what is deleted is not there", edit('<values><word nc:operation="delete"/></values>'), "data-missing"
    ),
    tag("operation-not-supported: an operation that nobody serves", f'<unserved xmlns="{C}"/>', "operation-not-supported"),
    tag(
        "operation-failed: an operation that fails for a reason of its own",
        f'<fail xmlns="{C}"><text>no luck</text></fail>',
        "operation-failed",
    ),
]


@pytest.mark.parametrize(("operation", "expected"), TAGS)
async def test_tags(client: Client, operation: str, expected: str) -> None:
    await refused(client, operation, expected)


@rfc("6241", "A", "operation-not-supported or unknown-element: an operation of no name")
async def test_an_unknown_operation(client: Client) -> None:
    await refused(client, "<nonsense/>", "operation-not-supported", "unknown-element")
    await refused(client, f'<nonsense xmlns="{C}"/>', "operation-not-supported", "unknown-element")


@rfc("6241", "A", "data-exists: what is to be created is there")
async def test_data_exists(client: Client) -> None:
    await client.ok(edit("<values><word>a</word></values>"))
    await refused(client, edit('<values><word nc:operation="create">a</word></values>'), "data-exists")


@rfc("6241", "A", "lock-denied: the lock is held, and the error says by whom")
async def test_lock_denied(front: Front, client: Client) -> None:
    async with front.connect() as other:
        await other.ok(lock())
        await refused(client, lock(), "lock-denied")


@rfc("6241", "A", "in-use: another session has locked what is to be changed")
async def test_in_use(front: Front, client: Client) -> None:
    async with front.connect() as other:
        await other.ok(lock())
        await refused(client, edit("<values/>"), "in-use")


@rfc("6241", "A", "access-denied: the user may not do it")
async def test_access_denied(front: Front) -> None:
    async with front.connect("guest") as guest:
        await refused(guest, edit("<values><word>a</word></values>"), "access-denied")
        await refused(guest, "<kill-session><session-id>1</session-id></kill-session>", "access-denied")


NO_GUESTS = NACM.replace("</groups>", "<group><name>guests</name><user-name>guest</user-name></group></groups>").replace(
    "</nacm>",
    "<rule-list><name>guests</name><group>guests</group><rule><name>nothing</name><module-name>conformance</module-name>"
    "<access-operations>*</access-operations><action>deny</action></rule></rule-list></nacm>",
)


@rfc("6241", "4.3", "an error tells nothing of data that the user may not read")
async def test_an_error_keeps_secrets(front: Front, client: Client, access: Callable[[str], None]) -> None:
    access(NO_GUESTS)
    await client.ok(edit("<values><word>secretly</word></values>"))
    async with front.connect("guest") as guest:
        error = await refused(guest, edit('<values><word nc:operation="create">secretly</word></values>'), "access-denied")
        assert "secretly" not in error.message


@rfc("6241", "A", "unknown-element names the element")
async def test_what_unknown_element_names(client: Client) -> None:
    error = await refused(client, edit("<values><nonsense/></values>"), "unknown-element")
    assert ("bad-element", "nonsense") in error.info


@rfc("6241", "A", "unknown-namespace names element and namespace")
async def test_what_unknown_namespace_names(client: Client) -> None:
    error = await refused(client, edit('<values><x xmlns="urn:nowhere"/></values>'), "unknown-namespace")
    assert set(error.info) >= {("bad-element", "x"), ("bad-namespace", "urn:nowhere")}


@rfc("6241", "A", "bad-attribute names attribute and element")
async def test_what_bad_attribute_names(client: Client) -> None:
    error = await refused(client, edit('<values nc:operation="explode"/>'), "bad-attribute")
    assert set(error.info) >= {("bad-attribute", "operation"), ("bad-element", "values")}


@rfc("6241", "A", "unknown-attribute names attribute and element")
async def test_what_unknown_attribute_names(client: Client) -> None:
    error = await refused(client, edit('<values nc:nonsense="x"/>'), "unknown-attribute")
    assert set(error.info) >= {("bad-attribute", "nonsense"), ("bad-element", "values")}


@rfc("6241", "A", "missing-element names the element")
async def test_what_missing_element_names(client: Client) -> None:
    error = await refused(client, "<lock/>", "missing-element")
    assert ("bad-element", "target") in error.info
    error = await refused(client, edit("<top><users><user><type>x</type></user></users></top>"), "missing-element")
    assert ("bad-element", "name") in error.info


@rfc("6241", "A", "too-big: a request that is more than the server takes")
async def test_too_big(client: Client) -> None:
    """Or it is answered; the session goes on."""
    names = "".join(f'<x{number} xmlns="urn:{number}"/>' for number in range(20_000))
    reply = await client.rpc(get_config("running", f"<filter>{names}</filter>"))
    assert [by_the_book(one).tag for one in reply.errors] in ([], ["too-big"])
    await client.ok(get_config("running", "<filter/>"))


@rfc("6241", "A", "partial-operation is obsolete and not sent")
async def test_no_partial_operation(client: Client) -> None:
    reply = await client.rpc(
        edit(
            '<values><word>a</word><text nc:operation="delete"/></values>', "<error-option>continue-on-error</error-option>"
        )
    )
    assert reply.errors
    assert all(one.tag in APPENDIX_A for one in reply.errors)


# Values (RFC 7950 clause 8.3.1) and their messages ---------------------------------------------------------------------

VALUES = [
    value("a number out of its range", "<number>7</number>", "number-out-of-range", "a number is between 10 and 1000"),
    value("a string that is too long", "<word>abcdefghi</word>", "word-length", ""),
    value("a string that does not match a pattern", "<word>ABC</word>", "word-letters", "a word is made of small letters"),
    value("an enumeration's value that is none", "<colour>blue</colour>", "", ""),
    value("an identity that is none", "<shape>square</shape>", "", ""),
    value("an empty leaf with a value", "<flag>x</flag>", "", ""),
    value("a binary value that is no base64", "<octets>?</octets>", "", ""),
]


@pytest.mark.parametrize("target", ["running", "candidate"])
@pytest.mark.parametrize(("inside", "app_tag", "message"), VALUES)
async def test_values(client: Client, target: str, inside: str, app_tag: str, message: str) -> None:
    error = await refused(client, edit(f"<values>{inside}</values>", target=target), "invalid-value")
    assert error.app_tag == app_tag
    assert message in error.message
    assert error.message
    await holds(client, "", target)


# Constraints (RFC 7950 clause 15) --------------------------------------------------------------------------------------

constraint = partial(case, "7950")

CONSTRAINTS = [
    constraint(
        "15.1",
        "data-not-unique",
        rules(RULES + members(("a", "i", 1), ("b", "i", 1))),
        ("operation-failed",),
        "data-not-unique",
    ),
    constraint(
        "15.2",
        "too-many-elements",
        rules(RULES + members(("a", "i", 1), ("b", "i", 2), ("c", "i", 3), ("d", "i", 4))),
        ("operation-failed",),
        "too-many-elements",
    ),
    constraint(
        "15.3", "too-few-elements", rules(RULES.replace("<pair>p</pair>", "")), ("operation-failed",), "too-few-elements"
    ),
    constraint(
        "15.4",
        "must-violation with the words of the model",
        rules("<bad/>" + RULES),
        ("operation-failed",),
        "must-violation",
    ),
    constraint(
        "7.5.4.2", "a must's own app-tag", rules(RULES.replace(">9<", ">0<")), ("operation-failed",), "low-above-high"
    ),
    constraint(
        "15.5", "instance-required for a leafref", rules(RULES + "<use>nobody</use>"), ("data-missing",), "instance-required"
    ),
    constraint(
        "15.6",
        "missing-choice for a mandatory choice",
        rules(RULES.replace("<road>r</road>", "")),
        ("data-missing",),
        "missing-choice",
    ),
    constraint(
        "8.3.3",
        "a mandatory leaf that is missing",
        rules(RULES.replace("<needed>x</needed>", "")),
        ("missing-element", "data-missing"),
        "",
    ),
    constraint(
        "8.3.1",
        "a when that is false",
        rules(RULES.replace("<low>1</low>", "<only-low>x</only-low>")),
        ("unknown-element",),
        "",
    ),
    constraint(
        "8.3.1",
        "two cases of a choice",
        rules(RULES + "<ship>s</ship>"),
        ("bad-element",),
        "",
    ),
    constraint("7.6", "a leaf stands once", "<values><word>a</word><word>b</word></values>", ("bad-element",), ""),
    constraint(
        "7.8.5",
        "a key stands once",
        "<top><users><user><name>a</name><name>b</name></user></users></top>",
        ("bad-element",),
        "",
    ),
    constraint("7.5", "a container has no text", "<values>text</values>", ("bad-element",), ""),
    constraint(
        "8.3.1",
        "a leaf with elements",
        "<values><text><x/></text></values>",
        ("unknown-element", "bad-element", "invalid-value"),
        "",
    ),
]


@pytest.mark.parametrize(("config", "tags", "app_tag"), CONSTRAINTS)
async def test_constraints(client: Client, config: str, tags: tuple[str, ...], app_tag: str) -> None:
    error = await refused(client, edit(config), *tags)
    assert error.app_tag == app_tag
    await holds(client, "")


def written(error: RpcError) -> str:
    """The path of an error, with prefix c for module `conformance`."""
    prefixes = {uri: prefix for prefix, uri in error.namespaces.items()}
    return error.path.replace(f"{prefixes[C]}:", "c:")


PATHS = [
    case(
        "7950",
        "15.2",
        "too-many-elements: the path names the list",
        rules(RULES + members(*((x, "i", ord(x)) for x in "abcd"))),
        "/c:rules/c:member",
    ),
    case(
        "7950",
        "15.3",
        "too-few-elements: the path names the leaf-list",
        rules(RULES.replace("<pair>p</pair>", "")),
        "/c:rules/c:pair",
    ),
    case("7950", "15.4", "must-violation: the path names the node with the must", rules("<bad/>" + RULES), "/c:rules"),
    case("7950", "15.5", "instance-required: the path names the leaf", rules(RULES + "<use>nobody</use>"), "/c:rules/c:use"),
    case(
        "7950",
        "15.6",
        "missing-choice: the path names the choice's parent",
        rules(RULES.replace("<road>r</road>", "")),
        "/c:rules",
    ),
    case(
        "6241",
        "4.3",
        "the path of a wrong value names the leaf",
        "<values><number>7</number></values>",
        "/c:values/c:number",
    ),
    case(
        "6241",
        "4.3",
        "the path of a wrong value in a list has its keys",
        "<interfaces><interface><name>eth0</name><mtu>x</mtu></interface></interfaces>",
        "/c:interfaces/c:interface[c:name='eth0']/c:mtu",
    ),
]


@pytest.mark.parametrize(("config", "path"), PATHS)
async def test_paths(client: Client, config: str, path: str) -> None:
    error = (await client.rpc(edit(config))).errors[0]
    # An entry's predicate may stand in the last step, too.
    assert written(error).removesuffix("/") == path or written(error).startswith(f"{path}["), error


@pytest.mark.parametrize("target", ["running", "candidate"])
@pytest.mark.parametrize(
    ("operation", "name", "tag"),
    [
        case("6241", "4.3", "the path of data-exists names the entry, of all in the edit", "create", "b", "data-exists"),
        case("6241", "4.3", "the path of data-missing names the entry, of all in the edit", "delete", "c", "data-missing"),
    ],
)
async def test_paths_of_operations(client: Client, target: str, operation: str, name: str, tag: str) -> None:
    entry = "<user{}><name>{}</name></user>".format
    await client.ok(edit(f"<top><users>{entry('', 'a')}{entry('', 'b')}</users></top>", target=target))
    how = f' nc:operation="{operation}"'
    first = entry("", "a") if operation == "create" else entry(how, "a")
    change = f"<top><users>{first}{entry(how, 'c')}{entry(how, 'b')}{entry(how, 'd')}</users></top>"
    error = await refused(client, edit(change, target=target), tag)
    assert written(error).endswith(f"user[c:name='{name}']")


@rfc("7950", "15.6", "missing-choice names the choice")
async def test_missing_choice_names_the_choice(client: Client) -> None:
    client.send(
        f'<rpc xmlns="urn:ietf:params:xml:ns:netconf:base:1.0" message-id="1">'
        f"{edit(rules(RULES.replace('<road>r</road>', '')))}</rpc>".encode()
    )
    reply = etree.fromstring(await client.receive())
    assert [one.text for one in reply.iter("{urn:ietf:params:xml:ns:yang:1}missing-choice")] == ["way"]


@rfc("7950", "15.1", "data-not-unique points to the entries")
async def test_data_not_unique_points(client: Client) -> None:
    client.send(
        f'<rpc xmlns="urn:ietf:params:xml:ns:netconf:base:1.0" message-id="1">'
        f"{edit(rules(RULES + members(('a', 'i', 1), ('b', 'i', 1))))}</rpc>".encode()
    )
    reply = etree.fromstring(await client.receive())
    assert [one.text for one in reply.iter("{urn:ietf:params:xml:ns:yang:1}non-unique")]


# Operations of other modules (RFC 7950 clauses 7.14 and 7.15) ----------------------------------------------------------


@rfc("7950", "7.14.4", "an rpc answers with its output")
async def test_an_rpc_with_output(client: Client) -> None:
    reply = await client.ok(echo("<text>hallo</text><times>2</times>"))
    assert [(one.tag, one.text) for one in reply] == [(f"{{{C}}}text", "hallo")] * 2


@rfc("7950", "7.14.4", "an rpc without output answers ok")
async def test_an_rpc_without_output(client: Client) -> None:
    (reply,) = await client.ok(f'<nothing xmlns="{C}"/>')
    assert etree.QName(reply).localname == "ok"


@rfc("7950", "7.14.2", "a default in the input is in use when nothing is given")
async def test_a_default_of_input(client: Client) -> None:
    assert len(await client.ok(echo("<text>a</text>"))) == 1


@rfc("7950", "7.15.2", "an action answers with its output")
async def test_an_action(client: Client) -> None:
    await client.ok(edit("<server><name>s</name></server>"))
    restart = f'<server xmlns="{C}"><name>s</name><restart><delay>3</delay></restart></server>'
    (reply,) = await client.ok(f'<action xmlns="urn:ietf:params:xml:ns:yang:1">{restart}</action>')
    assert (reply.tag, reply.text) == (f"{{{C}}}done", "after 3")


@rfc("7950", "7.15.2", "an action without output answers ok")
async def test_an_action_without_output(client: Client) -> None:
    await client.ok(edit("<server><name>s</name></server>"))
    ping = f'<server xmlns="{C}"><name>s</name><ping/></server>'
    (reply,) = await client.ok(f'<action xmlns="urn:ietf:params:xml:ns:yang:1">{ping}</action>')
    assert etree.QName(reply).localname == "ok"


RESTART = f'<action xmlns="urn:ietf:params:xml:ns:yang:1">{c("<server><name>s</name><restart/></server>")}</action>'
INPUTS = [
    case("7950", "8.3.1", "an input that misses what is mandatory", echo(""), ("missing-element",)),
    case("7950", "8.3.1", "an input with a wrong value", echo("<text>a</text><times>10</times>"), ("invalid-value",)),
    case("7950", "8.3.1", "an input with an unknown parameter", echo("<text>a</text><nonsense/>"), ("unknown-element",)),
    case("7950", "8.3.1", "an action's input that misses what is mandatory", RESTART, ("missing-element",)),
    case(
        "7950",
        "7.15",
        "an action of an entry that is not there",
        f'<action xmlns="urn:ietf:params:xml:ns:yang:1">{c("<server><name>x</name><ping/></server>")}</action>',
        ("data-missing", "operation-failed", "unknown-element", "invalid-value"),
    ),
    case(
        "7950",
        "7.15.2",
        "an action that names none",
        f'<action xmlns="urn:ietf:params:xml:ns:yang:1">{c("<server/>")}</action>',
        ("missing-element", "unknown-element", "operation-failed", "operation-not-supported", "invalid-value"),
    ),
]


@pytest.mark.parametrize(("operation", "tags"), INPUTS)
async def test_inputs(client: Client, operation: str, tags: tuple[str, ...]) -> None:
    await client.ok(edit("<server><name>s</name></server>"))
    await refused(client, operation, *tags)


@rfc("6241", "A", "operation-failed keeps the words of who failed")
async def test_the_words_of_a_failure(client: Client) -> None:
    error = await refused(client, f'<fail xmlns="{C}"><text>no luck today</text></fail>', "operation-failed")
    assert "no luck today" in error.message


untestable("6241", "A", "resource-denied", "needs a node without memory")
untestable("6241", "A", "rollback-failed", "the datastore changes in one step: there is no roll-back that could fail")
