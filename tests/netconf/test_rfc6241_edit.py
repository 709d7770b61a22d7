"""RFC 6241 clause 7.2 with 8.5, and what RFC 7950 clauses 7 and 15 add to it: edit-config."""

from functools import partial

import pytest
from netconf_front import Client
from rfc import case, rfc
from wire import by_the_book, c, copy, edit, get_config, holds, offers, refused, tree

WORD = "<values><word>a</word></values>"
W = "<values><word>w</word></values>"
USER = "<user{op}><name>{name}</name>{more}</user>"

edit_case = partial(case, "6241", "7.2")
order_case = partial(case, "7950", "7.8.6")
leaf_list_case = partial(case, "7950", "7.7.9")


def top(*users: str) -> str:
    return f"<top><users>{''.join(users)}</users></top>"


def user(name: str, more: str = "", op: str = "") -> str:
    return USER.format(name=name, more=more, op=f' nc:operation="{op}"' if op else "")


TYPE = "<type>super</type>"
FULL = "<full-name>Fred</full-name>"
DEPT = "<company-info><dept>1</dept></company-info>"
NONE = "<default-operation>none</default-operation>"
REPLACE = "<default-operation>replace</default-operation>"
MERGE = "<default-operation>merge</default-operation>"


# The operation attribute ---------------------------------------------------------------------------------------------

CHANGES = [
    edit_case("merge adds what is not there", "", top(user("a", TYPE, "merge")), top(user("a", TYPE))),
    edit_case(
        "merge keeps what it does not name",
        top(user("a", FULL)),
        top(user("a", TYPE, "merge")),
        top(user("a", TYPE + FULL)),
    ),
    edit_case(
        "merge gives a leaf its new value",
        top(user("a", TYPE)),
        top(user("a", "<type>x</type>", "merge")),
        top(user("a", "<type>x</type>")),
    ),
    edit_case("merge is what happens without an operation", top(user("b")), top(user("a")), top(user("a"), user("b"))),
    edit_case(
        "replace drops what the element holds and the edit does not",
        top(user("a", TYPE + DEPT), user("b")),
        top(user("a", FULL, "replace")),
        top(user("a", FULL), user("b")),
    ),
    edit_case("replace creates what is not there", "", top(user("a", TYPE, "replace")), top(user("a", TYPE))),
    edit_case(
        "replace reaches only what the edit names",
        top(user("a", TYPE), user("b", TYPE)),
        top(user("a", "", "replace")),
        top(user("a"), user("b", TYPE)),
    ),
    edit_case(
        "replace of a container replaces all of it",
        top(user("a"), user("b")) + W,
        f'<top><users nc:operation="replace">{user("c")}</users></top>',
        top(user("c")) + W,
    ),
    edit_case(
        "replace of a leaf replaces its value",
        "<values><word>a</word><text>t</text></values>",
        '<values><word nc:operation="replace">b</word></values>',
        "<values><word>b</word><text>t</text></values>",
    ),
    edit_case(
        "create adds what is not there", top(user("b")), top(user("a", TYPE, "create")), top(user("a", TYPE), user("b"))
    ),
    edit_case("create adds a leaf", "", '<values><word nc:operation="create">a</word></values>', WORD),
    edit_case(
        "delete removes what is there, with all below",
        top(user("a", TYPE + DEPT), user("b")),
        top(user("a", "", "delete")),
        top(user("b")),
    ),
    edit_case(
        "delete of a leaf needs no value",
        "<values><word>a</word><text>t</text></values>",
        '<values><word nc:operation="delete"/></values>',
        "<values><text>t</text></values>",
    ),
    edit_case("delete removes a container", top(user("a")) + W, '<top nc:operation="delete"/>', W),
    edit_case("remove removes what is there", top(user("a", TYPE), user("b")), top(user("a", "", "remove")), top(user("b"))),
    edit_case("remove of what is not there is no error", top(user("b")), top(user("a", "", "remove")), top(user("b"))),
    edit_case(
        "remove of a leaf that is not there is no error",
        top(user("a", FULL)),
        top(user("a", '<type nc:operation="remove"/>')),
        top(user("a", FULL)),
    ),
    edit_case(
        "operations may stand at any depth, the inner one counts",
        top(user("a", TYPE + DEPT), user("b")),
        top(
            user("a", '<type nc:operation="delete"/><full-name nc:operation="create">F</full-name>'),
            user("b", "", "delete"),
            user("c", "", "create"),
        ),
        top(user("a", "<full-name>F</full-name>" + DEPT), user("c")),
    ),
    edit_case("one edit may name several modules and subtrees", "", top(user("a")) + W, top(user("a")) + W),
    edit_case("an empty config changes nothing", top(user("a")), "", top(user("a"))),
]


@pytest.mark.parametrize("target", ["running", "candidate"])
@pytest.mark.parametrize(("before", "change", "after"), CHANGES)
async def test_operations(client: Client, target: str, before: str, change: str, after: str) -> None:
    await client.ok(edit(before, target=target))
    await client.ok(edit(change, target=target))
    await holds(client, after, target)


# Default-operation ---------------------------------------------------------------------------------------------------

DEFAULT_OPERATIONS = [
    edit_case(
        "default-operation merge merges", MERGE, top(user("a", TYPE)), top(user("a", FULL)), top(user("a", TYPE + FULL))
    ),
    edit_case(
        "default-operation is merge when it is not given",
        "",
        top(user("a", TYPE)),
        top(user("a", FULL)),
        top(user("a", TYPE + FULL)),
    ),
    edit_case(
        "default-operation none lets delete work without creating parents",
        NONE,
        top(user("a"), user("b")),
        top(user("a", "", "delete")),
        top(user("b")),
    ),
    edit_case(
        "default-operation none leaves alone what has no operation",
        NONE,
        top(user("a", TYPE)),
        top(user("a", "<type>other</type>" + '<full-name nc:operation="create">Fred</full-name>')),
        top(user("a", TYPE + FULL)),
    ),
    edit_case(
        "an operation attribute stands against the default-operation",
        REPLACE,
        top(user("a", TYPE), user("b", TYPE)),
        f'<top nc:operation="merge"><users>{user("a", FULL)}</users></top>',
        top(user("a", TYPE + FULL), user("b", TYPE)),
    ),
    edit_case(
        "default-operation merge with replace inside replaces that only",
        MERGE,
        top(user("a", TYPE), user("b", TYPE)),
        top(user("a", FULL, "replace")),
        top(user("a", FULL), user("b", TYPE)),
    ),
]


@pytest.mark.parametrize(("option", "before", "change", "after"), DEFAULT_OPERATIONS)
async def test_default_operations(client: Client, option: str, before: str, change: str, after: str) -> None:
    """In candidate, which may miss what other modules need."""
    await client.ok(edit(before, target="candidate"))
    await client.ok(edit(change, option, "candidate"))
    await holds(client, after, "candidate")


@rfc("6241", "7.2", "default-operation replace makes the configuration of the edit the whole configuration")
async def test_default_operation_replace(client: Client) -> None:
    entry = "<server><name>{}</name></server>".format
    await client.ok(edit(top(user("a", TYPE), user("b")) + W + entry("s") + entry("t"), target="candidate"))
    await client.ok(edit(top(user("c")) + entry("t"), REPLACE, "candidate"))
    await holds(client, top(user("c")) + entry("t"), "candidate")
    found = (await client.ok(get_config("candidate")))[0]
    assert {tree(one)[0] for one in found} == {"top", "server"}


@rfc("6241", "7.2", "a replacement that leaves no valid configuration is refused")
async def test_a_replacement_obeys_the_model(client: Client) -> None:
    await client.ok(edit(W))
    await refused(client, edit(top(user("c")), REPLACE))
    await holds(client, W)


# What fails ----------------------------------------------------------------------------------------------------------

FAILURES = [
    edit_case(
        "create of what is there gives data-exists", "", top(user("a", TYPE)), top(user("a", "", "create")), "data-exists"
    ),
    edit_case(
        "create of a leaf that is there gives data-exists",
        "",
        WORD,
        '<values><word nc:operation="create">b</word></values>',
        "data-exists",
    ),
    edit_case(
        "create of an equal leaf gives data-exists",
        "",
        WORD,
        '<values><word nc:operation="create">a</word></values>',
        "data-exists",
    ),
    edit_case(
        "delete of what is not there gives data-missing", "", top(user("a")), top(user("b", "", "delete")), "data-missing"
    ),
    edit_case(
        "delete of a leaf that is not there gives data-missing",
        "",
        "<values><text>a</text></values>",
        '<values><word nc:operation="delete"/></values>',
        "data-missing",
    ),
    edit_case(
        "delete below a parent that is not there gives data-missing",
        "",
        "",
        top(user("a", '<type nc:operation="delete"/>')),
        "data-missing",
    ),
    edit_case(
        "default-operation none gives data-missing where the datastore has no such level",
        NONE,
        top(user("a")),
        top(user("b", '<type nc:operation="merge">x</type>')),
        "data-missing",
    ),
    edit_case(
        "default-operation none gives data-missing for a node that is not there",
        NONE,
        top(user("a")),
        top(user("b", TYPE)),
        "data-missing",
    ),
]


@pytest.mark.parametrize("target", ["running", "candidate"])
@pytest.mark.parametrize(("option", "before", "change", "tag"), FAILURES)
async def test_failures(client: Client, target: str, option: str, before: str, change: str, tag: str) -> None:
    await client.ok(edit(before, target=target))
    await refused(client, edit(change, option, target), tag)
    await holds(client, before, target)


def config(xml: str) -> str:
    return f"<config>{xml}</config>"


PARAMETERS = [
    edit_case("an edit names its target", f"<edit-config>{config('')}</edit-config>", ("missing-element",)),
    edit_case("a target names a datastore", f"<edit-config><target/>{config('')}</edit-config>", ("missing-element",)),
    edit_case("an edit has a config", "<edit-config><target><running/></target></edit-config>", ("missing-element",)),
    edit_case(
        "a target is a datastore of the server",
        f"<edit-config><target><nowhere/></target>{config('')}</edit-config>",
        ("unknown-element", "bad-element", "operation-not-supported", "invalid-value"),
    ),
    edit_case(
        "default-operation is merge, replace or none",
        edit("", "<default-operation>create</default-operation>"),
        ("invalid-value", "bad-element"),
    ),
    edit_case("test-option is one of three", edit("", "<test-option>maybe</test-option>"), ("invalid-value", "bad-element")),
    edit_case(
        "error-option is one of three", edit("", "<error-option>maybe</error-option>"), ("invalid-value", "bad-element")
    ),
    edit_case("an operation attribute has one of five values", edit('<values nc:operation="explode"/>'), ("bad-attribute",)),
    case(
        "6241",
        "8.8",
        "a url is taken only with its capability",
        "<edit-config><target><running/></target><url>file://x.xml</url></edit-config>",
        ("operation-not-supported", "unknown-element", "invalid-value"),
    ),
    edit_case("data of no known namespace are refused", edit('<x xmlns="urn:nowhere"/>'), ("unknown-namespace",)),
    edit_case("data without a namespace are refused", edit('<x xmlns=""/>'), ("unknown-namespace", "unknown-element")),
    edit_case("data follow the data model", edit("<nonsense/>"), ("unknown-element",)),
    case(
        "6241",
        "C",
        "startup is no target of an edit",
        edit("", target="startup"),
        ("operation-not-supported", "unknown-element", "bad-element", "invalid-value"),
    ),
]


@pytest.mark.parametrize(("operation", "tags"), PARAMETERS)
async def test_parameters(client: Client, operation: str, tags: tuple[str, ...]) -> None:
    await refused(client, operation, *tags)


KEYLESS = [
    case(
        "7950",
        "7.8.6",
        "delete of a list entry names it by its keys",
        '<top><users><user nc:operation="delete"/></users></top>',
    ),
    case(
        "7950",
        "7.8.6",
        "remove of a list entry names it by its keys",
        '<top><users><user nc:operation="remove"/></users></top>',
    ),
    case(
        "7950", "8.3.1", "all keys of an entry are there", '<order><plain nc:operation="delete"><id>a</id></plain></order>'
    ),
]


@pytest.mark.parametrize("change", KEYLESS)
async def test_entries_without_keys(client: Client, change: str) -> None:
    before = top(user("a"), user("b")) + "<order><plain><id>a</id><part>1</part></plain></order>"
    await client.ok(edit(before))
    await refused(client, edit(change), "missing-element")
    await holds(client, before)


@rfc("7950", "7.7.9", "delete of a leaf-list entry names its value")
async def test_leaf_list_entries_without_a_value(client: Client) -> None:
    await client.ok(edit("<values><tag>a</tag><tag>b</tag></values>"))
    await refused(client, edit('<values><tag nc:operation="delete"/></values>'), "data-missing", "invalid-value")
    await holds(client, "<values><tag>a</tag><tag>b</tag></values>")


# Test-option ---------------------------------------------------------------------------------------------------------

INVALID = "<rules><low>9</low><high>1</high><needed>x</needed><road>r</road><pair>p</pair></rules>"
VALID = "<rules><low>1</low><high>9</high><needed>x</needed><road>r</road><pair>p</pair></rules>"


@rfc("6241", "7.2", "test-then-set does not change the datastore when validation fails")
async def test_test_then_set_refuses(client: Client) -> None:
    await refused(client, edit(INVALID, "<test-option>test-then-set</test-option>"), "operation-failed")
    await holds(client, "")


@rfc("6241", "7.2", "test-then-set changes the datastore when validation succeeds")
async def test_test_then_set_sets(client: Client) -> None:
    await client.ok(edit(VALID, "<test-option>test-then-set</test-option>"))
    await holds(client, VALID)


@rfc("6241", "7.2", "test-then-set is the default test-option")
async def test_test_then_set_is_the_default(client: Client) -> None:
    await refused(client, edit(INVALID), "operation-failed")
    await holds(client, "")


@rfc("6241", "7.2", "set does not validate first")
async def test_set_sets(client: Client) -> None:
    await client.ok(edit(INVALID, "<test-option>set</test-option>", "candidate"))
    await holds(client, INVALID, "candidate")


@rfc("6241", "7.2", "test-only validates and leaves the datastore as it is")
async def test_test_only_changes_nothing(client: Client) -> None:
    await client.ok(edit(VALID, "<test-option>test-only</test-option>"))
    await holds(client, "")


@rfc("6241", "7.2", "test-only tells what validation finds")
async def test_test_only_tells(client: Client) -> None:
    error = await refused(client, edit(INVALID, "<test-option>test-only</test-option>"), "operation-failed")
    assert error.app_tag == "low-above-high"
    await holds(client, "")


@rfc("6241", "8.3", "a candidate may be incomplete while it is worked on")
async def test_a_candidate_may_be_incomplete(client: Client) -> None:
    await client.ok(edit("<rules><low>1</low></rules>", "<test-option>set</test-option>", "candidate"))
    await holds(client, "<rules><low>1</low></rules>", "candidate")


# Error-option --------------------------------------------------------------------------------------------------------

HALF_BAD = top(user("a", "", "create")) + '<values><word nc:operation="delete"/></values>'


@rfc("6241", "7.2", "stop-on-error is the default error-option and gives an error")
async def test_stop_on_error(client: Client) -> None:
    for option in "", "<error-option>stop-on-error</error-option>":
        await refused(client, edit(HALF_BAD, option), "data-missing")


@rfc("6241", "8.5", "rollback-on-error leaves the configuration as it was before the edit")
async def test_rollback_on_error(client: Client) -> None:
    assert offers(client, "rollback-on-error:1.0")
    await client.ok(edit(top(user("b"))))
    await refused(client, edit(HALF_BAD, "<error-option>rollback-on-error</error-option>"), "data-missing")
    await holds(client, top(user("b")))


@rfc("6241", "7.2", "continue-on-error is an error-option of every server")
async def test_continue_on_error_without_an_error(client: Client) -> None:
    await client.ok(edit(top(user("a")), "<error-option>continue-on-error</error-option>"))
    await holds(client, top(user("a")))


@rfc("6241", "7.2", "continue-on-error goes on after an error, records it and answers with it")
async def test_continue_on_error_with_an_error(client: Client) -> None:
    reply = await client.rpc(edit(HALF_BAD, "<error-option>continue-on-error</error-option>"))
    assert [by_the_book(one).tag for one in reply.errors] == ["data-missing"]
    await holds(client, top(user("a")))


@rfc("6241", "8.5", "a refusal of the device rolls back, too")
async def test_what_the_device_refuses_is_rolled_back(client: Client) -> None:
    change = edit(
        top(user("a")) + "<values><refused>not today</refused></values>", "<error-option>rollback-on-error</error-option>"
    )
    error = await refused(client, change)
    assert "not today" in error.message
    await holds(client, "")


# What the user orders (RFC 7950 clauses 7.7.9 and 7.8.6) ---------------------------------------------------------------


def rules(*ids: str) -> str:
    return f"<order>{''.join(f'<rule><id>{one}</id></rule>' for one in ids)}</order>"


def steps(*values: str) -> str:
    return f"<order>{''.join(f'<step>{one}</step>' for one in values)}</order>"


def rule(name: str, attributes: str) -> str:
    return f"<order><rule {attributes}><id>{name}</id></rule></order>"


def step(value: str, attributes: str) -> str:
    return f"<order><step {attributes}>{value}</step></order>"


AFTER_A = """yang:insert="after" yang:key="[c:id='a']\""""
BEFORE_B = """yang:insert="before" yang:key="[c:id='b']\""""

ORDERS = [
    order_case("an entry is put last when nothing is said", rules("a", "b"), rule("c", ""), rules("a", "b", "c")),
    order_case("insert first puts an entry first", rules("a", "b"), rule("c", 'yang:insert="first"'), rules("c", "a", "b")),
    order_case("insert last puts an entry last", rules("a", "b"), rule("c", 'yang:insert="last"'), rules("a", "b", "c")),
    order_case(
        "insert after puts an entry after the one of the key", rules("a", "b"), rule("c", AFTER_A), rules("a", "c", "b")
    ),
    order_case(
        "insert before puts an entry before the one of the key", rules("a", "b"), rule("c", BEFORE_B), rules("a", "c", "b")
    ),
    order_case(
        "insert moves an entry that is there", rules("a", "b", "c"), rule("c", 'yang:insert="first"'), rules("c", "a", "b")
    ),
    order_case(
        "insert works with create",
        rules("a", "b"),
        rule("c", 'nc:operation="create" yang:insert="first"'),
        rules("c", "a", "b"),
    ),
    order_case(
        "an entry that is there keeps its place without insert",
        rules("a", "b"),
        rule("a", 'nc:operation="merge"'),
        rules("a", "b"),
    ),
    order_case("entries of one edit keep their order", "", rules("z", "a", "m"), rules("z", "a", "m")),
    leaf_list_case(
        "a leaf-list entry is put last when nothing is said", steps("a", "b"), step("c", ""), steps("a", "b", "c")
    ),
    leaf_list_case(
        "insert first puts a leaf-list entry first", steps("a", "b"), step("c", 'yang:insert="first"'), steps("c", "a", "b")
    ),
    leaf_list_case(
        "insert before puts a leaf-list entry before the value",
        steps("a", "b"),
        step("c", 'yang:insert="before" yang:value="b"'),
        steps("a", "c", "b"),
    ),
    leaf_list_case(
        "insert after moves a leaf-list entry",
        steps("a", "b", "c"),
        step("c", 'yang:insert="after" yang:value="a"'),
        steps("a", "c", "b"),
    ),
    leaf_list_case(
        "delete removes one entry of a leaf-list", steps("a", "b"), step("a", 'nc:operation="delete"'), steps("b")
    ),
]


@pytest.mark.parametrize(("before", "change", "after"), ORDERS)
async def test_orders(client: Client, before: str, change: str, after: str) -> None:
    await client.ok(edit(before))
    await client.ok(edit(change))
    await holds(client, after)


@pytest.mark.parametrize(
    ("before", "change"),
    [
        case(
            "7950",
            "15.7",
            "insert beside an entry that is not there",
            rules("a"),
            rule("c", """yang:insert="after" yang:key="[c:id='x']\""""),
        ),
        case(
            "7950",
            "15.7",
            "insert beside a value that is not there",
            steps("a"),
            step("c", 'yang:insert="before" yang:value="x"'),
        ),
    ],
)
async def test_inserting_beside_nothing(client: Client, before: str, change: str) -> None:
    await client.ok(edit(before))
    error = await refused(client, edit(change), "bad-attribute")
    assert error.app_tag == "missing-instance"
    await holds(client, before)


@pytest.mark.parametrize(
    "change",
    [
        order_case("insert has one of four values", rule("c", 'yang:insert="middle"')),
        order_case("insert before needs a key", rule("c", 'yang:insert="before"')),
        leaf_list_case("insert after needs a value", step("c", 'yang:insert="after"')),
    ],
)
async def test_wrong_inserts(client: Client, change: str) -> None:
    await refused(client, edit(change), "bad-attribute", "missing-attribute")


@pytest.mark.parametrize(
    ("change", "tag"),
    [
        case(
            "7950",
            "8.3.1",
            "insert stands only where the user orders",
            '<order><plain yang:insert="first"><id>c</id><part>1</part></plain></order>',
            "unknown-attribute",
        ),
        case(
            "7950",
            "8.3.1",
            "insert does not stand at a leaf",
            '<values><word yang:insert="first">c</word></values>',
            "unknown-attribute",
        ),
        case(
            "7950",
            "8.3.1",
            "the key to insert at is one of the list",
            rule("c", """yang:insert="after" yang:key="[c:id=]\""""),
            "bad-attribute",
        ),
    ],
)
async def test_inserts_in_the_wrong_place(client: Client, change: str, tag: str) -> None:
    await refused(client, edit(change), tag)


@rfc("7950", "7.7.9", "a replaced list has the order of the edit")
async def test_replace_reorders(client: Client) -> None:
    await client.ok(edit(rules("a", "b", "c")))
    await client.ok(edit(rules("c", "a").replace("<order>", '<order nc:operation="replace">')))
    await holds(client, rules("c", "a"))


# Choices, anydata, kinds of nodes ------------------------------------------------------------------------------------


@rfc("7950", "7.9", "a node of one case takes the place of the other cases' nodes")
async def test_a_case_replaces_the_other(client: Client) -> None:
    await client.ok(edit(VALID.replace("<road>r</road>", "<road>r</road><rail>l</rail>")))
    await client.ok(edit("<rules><ship>s</ship></rules>"))
    await holds(client, VALID.replace("<road>r</road>", "<ship>s</ship>"))


@rfc("7950", "7.10", "anydata keeps what it is given")
async def test_anydata_is_kept(client: Client) -> None:
    values = '<values><any><x xmlns="urn:any"><y>1</y></x></any></values>'
    await client.ok(edit(values))
    await holds(client, values)


@rfc("7950", "7.8.6", "a list entry is named by all of its keys")
async def test_lists_with_two_keys(client: Client) -> None:
    entry = "<plain{}><id>a</id><part>{}</part></plain>"
    await client.ok(edit(f"<order>{entry.format('', 1)}{entry.format('', 2)}</order>"))
    operation = ' nc:operation="delete"'
    await client.ok(edit(f"<order>{entry.format(operation, 1)}</order>"))
    await holds(client, f"<order>{entry.format('', 2)}</order>")


@rfc("7950", "7.5.8", "a presence container can be created and deleted")
async def test_a_presence_container(client: Client) -> None:
    await client.ok(edit(VALID))
    await client.ok(edit('<rules nc:operation="delete"/>'))
    await holds(client, "")
    await refused(client, edit('<rules nc:operation="delete"/>'), "data-missing")


@rfc("7950", "9.10.3", "an identity's prefix is the one in scope")
async def test_identities_have_prefixes(client: Client) -> None:
    await client.ok(edit('<values><shape xmlns:any="urn:quantum-switch:test:conformance">any:round</shape></values>'))
    found = (await client.ok(get_config("running", f"<filter>{c('<values/>')}</filter>")))[0]
    (shape,) = found.iter("{urn:quantum-switch:test:conformance}shape")
    prefix, _, name = (shape.text or "").rpartition(":")
    assert (shape.nsmap[prefix or None], name) == ("urn:quantum-switch:test:conformance", "round")


@rfc("6241", "8.7", "a change of running does not change startup")
async def test_startup_does_not_follow(client: Client) -> None:
    await client.ok(edit(top(user("a"))))
    await holds(client, "", "startup")
    await client.ok(copy("running", "startup"))
    await holds(client, top(user("a")), "startup")
