"""RFC 6241 clause 6 (subtree filters) and 8.9 (XPath filters), on get-config, and what 7.1 and 7.7 say of filters."""

from collections.abc import AsyncIterator
from functools import partial

import pytest
from netconf_front import Client
from rfc import case, rfc
from wire import Behind, C, edit, get_config, offers, refused, shows, subtree, xpath

from qswitch.protocol.netconf import BASE


def user(name: str, kind: str, full: str, dept: int, number: int) -> str:
    return (
        f"<user><name>{name}</name><type>{kind}</type><full-name>{full}</full-name>"
        f"<company-info><dept>{dept}</dept><id>{number}</id></company-info></user>"
    )


ROOT = user("root", "superuser", "Charlie Root", 1, 1)
FRED = user("fred", "admin", "Fred Flintstone", 2, 2)
BARNEY = user("barney", "admin", "Barney Rubble", 2, 3)
USERS = f"<users>{ROOT}{FRED}{BARNEY}</users>"
GROUPS = "<groups><group><name>staff</name></group></groups>"
TOP = f"<top>{USERS}{GROUPS}</top>"
ALL = f"{TOP}<values><word>w</word><text>two words</text></values>"
NAMES = "".join(f"<user><name>{one}</name></user>" for one in ("root", "fred", "barney"))


def users(xml: str) -> str:
    return f"<top><users>{xml}</users></top>"


@pytest.fixture
async def filled(client: Client) -> AsyncIterator[Client]:
    await client.ok(edit(ALL))
    yield client


contents = partial(case, "6241", "6.2.5")
selects = partial(case, "6241", "6.2.4")
contains = partial(case, "6241", "6.2.3")
spaces = partial(case, "6241", "6.2.1")

SUBTREES = [
    case("6241", "6.4.2", "an empty filter selects nothing", "", ""),
    case("6241", "6.4.3", "a node without content selects its whole subtree", "<top><users/></top>", f"<top>{USERS}</top>"),
    case("6241", "6.4.4", "a selection node in every entry of a list", users("<user><name/></user>"), users(NAMES)),
    case("6241", "6.4.5", "a content match selects one entry", users("<user><name>fred</name></user>"), users(FRED)),
    case(
        "6241",
        "6.4.6",
        "elements of one entry",
        users("<user><name>fred</name><type/><full-name/></user>"),
        users("<user><name>fred</name><type>admin</type><full-name>Fred Flintstone</full-name></user>"),
    ),
    case(
        "6241",
        "6.4.7",
        "several subtrees of one list",
        users(
            "<user><name>root</name><company-info/></user>"
            "<user><name>fred</name><company-info><id/></company-info></user>"
            "<user><name>barney</name><type>admin</type><company-info><dept/></company-info></user>"
        ),
        users(
            "<user><name>root</name><company-info><dept>1</dept><id>1</id></company-info></user>"
            "<user><name>fred</name><company-info><id>2</id></company-info></user>"
            "<user><name>barney</name><type>admin</type><company-info><dept>2</dept></company-info></user>"
        ),
    ),
    case(
        "6241",
        "6.4.8",
        "an attribute that no data has matches nothing",
        '<top><users xmlns:x="urn:x" x:name="eth0"/></top>',
        "",
    ),
    case("6241", "6.2.2", "all attributes of a filter node have to match", '<top plain="x"><users/></top>', ""),
    case(
        "6241",
        "6.1",
        "a filter holds several subtrees",
        f"{users('<user><name>fred</name></user>')}<values/>",
        f"{users(FRED)}<values><word>w</word><text>two words</text></values>",
    ),
    case(
        "6241",
        "6.1",
        "what two subtrees select is not told twice",
        f"{users('<user><name>fred</name></user>')}{users('<user><name>fred</name></user>')}",
        users(FRED),
    ),
    case(
        "6241",
        "6.1",
        "selection criteria are part of the answer",
        users("<user><type>superuser</type><full-name/></user>"),
        users("<user><name>root</name><type>superuser</type><full-name>Charlie Root</full-name></user>"),
    ),
    case("6241", "6.1", "only what is selected is in the answer", "<top><groups/></top>", f"<top>{GROUPS}</top>"),
    contains(
        "a containment node selects by the elements inside", "<top><groups><group/></groups></top>", f"<top>{GROUPS}</top>"
    ),
    contains("an element that no data model has selects nothing", "<top><nonsense/></top>", ""),
    contains("the whole hierarchy has to match", "<users><user/></users>", ""),
    selects("a selection node suppresses its siblings", "<values><word/></values>", "<values><word>w</word></values>"),
    selects(
        "an empty element may hold white space", "<values><word>  \n </word></values>", "<values><word>w</word></values>"
    ),
    selects(
        "a start and an end tag are as good as an empty tag",
        "<values><word></word></values>",
        "<values><word>w</word></values>",
    ),
    selects("a selection node without an instance selects nothing", "<values><shape/></values>", ""),
    selects(
        "selection nodes of one parent add up",
        "<values><word/><text/></values>",
        "<values><word>w</word><text>two words</text></values>",
    ),
    contents("a content match that is false selects nothing of its siblings", users("<user><name>nobody</name></user>"), ""),
    contents(
        "a content match alone selects all siblings with their subtrees",
        users("<user><type>superuser</type></user>"),
        users(ROOT),
    ),
    contents("a content match may hold for several entries", users("<user><type>admin</type></user>"), users(FRED + BARNEY)),
    contents(
        "content matches of one parent all have to hold", users("<user><name>fred</name><type>superuser</type></user>"), ""
    ),
    contents(
        "content matches of one parent that all hold",
        users("<user><type>admin</type><name>barney</name></user>"),
        users(BARNEY),
    ),
    contents(
        "white space around a content match does not count", users("<user><name>\n  fred\t</name></user>"), users(FRED)
    ),
    contents("white space inside a content match counts", "<values><text>two  words</text></values>", ""),
    contents(
        "a content match with white space inside",
        "<values><text>two words</text></values>",
        "<values><word>w</word><text>two words</text></values>",
    ),
    contents(
        "a content match on a node that is no key",
        users("<user><full-name>Barney Rubble</full-name><type/></user>"),
        users("<user><name>barney</name><full-name>Barney Rubble</full-name><type>admin</type></user>"),
    ),
    contents(
        "a content match below selects only that subtree",
        users("<user><company-info><id>3</id></company-info></user>"),
        users("<user><name>barney</name><company-info><dept>2</dept><id>3</id></company-info></user>"),
    ),
    contents(
        "containment nodes are processed where the content match holds",
        users("<user><name>fred</name><company-info><dept/></company-info></user>"),
        users("<user><name>fred</name><company-info><dept>2</dept></company-info></user>"),
    ),
    contents(
        "a content match in a container without a list",
        "<values><word>w</word></values>",
        "<values><word>w</word><text>two words</text></values>",
    ),
    contents("a content match that is false in a container", "<values><word>x</word><text/></values>", ""),
    contents(
        "a false content match does not touch the other subtrees",
        "<values><word>x</word></values>" + users("<user><name>fred</name></user>"),
        users(FRED),
    ),
    contents("a quote in a content match is text", """<values><word>'"]</word></values>""", ""),
    spaces("a filter without a namespace looks into all", '<top xmlns=""><groups/></top>', f"<top>{GROUPS}</top>"),
    spaces("the namespace of a filter node has to match", '<top xmlns="urn:nowhere"/>', ""),
    spaces("a namespace below that does not match selects nothing", '<top><users xmlns="urn:nowhere"/></top>', ""),
    spaces("prefixes of a filter do not count", f'<z:top xmlns:z="{C}"><z:groups/></z:top>', f"<top>{GROUPS}</top>"),
]


@pytest.mark.parametrize(("filter_", "found"), SUBTREES)
async def test_subtrees(filled: Client, filter_: str, found: str) -> None:
    """Keys of a list entry may come without being asked for (6.2.5), and do here."""
    shows(await filled.ok(get_config("running", subtree(filter_))), found)


@rfc("6241", "6.4.1", "without a filter everything is selected")
async def test_no_filter(filled: Client) -> None:
    shows(await filled.ok(get_config()), ALL)


@rfc("6241", "7.1", "the type of a filter is subtree unless it is given")
async def test_the_type_is_subtree(filled: Client) -> None:
    typed = subtree("<top><groups/></top>").replace("<filter>", '<filter type="subtree">')
    shows(await filled.ok(get_config("running", typed)), f"<top>{GROUPS}</top>")


@rfc("6241", "7.1", "the type of a filter may be qualified, as its example has it")
async def test_a_qualified_type(filled: Client) -> None:
    typed = subtree("<top><groups/></top>").replace("<filter>", f'<filter xmlns:n="{BASE}" n:type="subtree">')
    shows(await filled.ok(get_config("running", typed)), f"<top>{GROUPS}</top>")


@rfc("6241", "7.1", "a filter of an unknown type is refused")
async def test_an_unknown_type(client: Client) -> None:
    await refused(client, get_config("running", '<filter type="regexp"/>'), "bad-attribute", "invalid-value")


@rfc("6241", "7.7", "a filter works on get as on get-config")
async def test_get_takes_filters(filled: Client) -> None:
    filter_ = subtree(users("<user><name>fred</name><type/></user>"))
    shows(await filled.ok(f"<get>{filter_}</get>"), users("<user><name>fred</name><type>admin</type></user>"))


@rfc("6241", "7.7", "get shows the running configuration and the state of the device")
async def test_get_shows_state(filled: Client, behind: Behind) -> None:
    behind("state", f'<state xmlns="{C}"><counter>7</counter></state>')
    shows(await filled.ok(f"<get>{subtree('<top/><state/>')}</get>"), f"{TOP}<state><counter>7</counter></state>")


@rfc("6241", "7.1", "get-config shows configuration only")
async def test_get_config_shows_no_state(filled: Client, behind: Behind) -> None:
    behind("state", f'<state xmlns="{C}"><counter>7</counter></state>')
    shows(await filled.ok(get_config("running", subtree("<state/><top/>"))), TOP)


@rfc("6241", "6.2.5", "a filter matches state as it does configuration")
async def test_filters_match_state(filled: Client, behind: Behind) -> None:
    behind("state", f'<state xmlns="{C}"><counter>7</counter></state>')
    shows(
        await filled.ok(f"<get>{subtree('<state><counter>7</counter></state>')}</get>"),
        "<state><counter>7</counter></state>",
    )
    shows(await filled.ok(f"<get>{subtree('<state><counter>8</counter></state>')}</get>"), "")


@rfc("6241", "6.2.5", "the identity of a content match has the prefix in scope")
async def test_a_content_match_of_an_identity(client: Client) -> None:
    values = '<values><shape xmlns:any="urn:quantum-switch:test:conformance">any:round</shape><word>w</word></values>'
    await client.ok(edit(values))
    reply = await client.ok(get_config("running", subtree(values.replace("<word>w</word>", "<word/>"))))
    (word,) = reply[0].iter(f"{{{C}}}word")
    assert word.text == "w"


# XPath ---------------------------------------------------------------------------------------------------------------

path = partial(case, "6241", "8.9.5.2")

XPATHS = [
    path("an expression selects subtrees", "/c:top/c:groups", f"<top>{GROUPS}</top>"),
    path("a predicate on a key", "/c:top/c:users/c:user[c:name='fred']", users(FRED)),
    path("a predicate on another leaf", "/c:top/c:users/c:user[c:type='admin']", users(FRED + BARNEY)),
    path(
        "the answer holds what identifies the subtree",
        "/c:top/c:users/c:user[c:name='fred']/c:company-info/c:id",
        users("<user><name>fred</name><company-info><id>2</id></company-info></user>"),
    ),
    path("a union of paths", "/c:top/c:groups | /c:values/c:word", f"<top>{GROUPS}</top><values><word>w</word></values>"),
    path("what two paths select is not told twice", "/c:top/c:groups | /c:top/c:groups/c:group", f"<top>{GROUPS}</top>"),
    path(
        "descendants",
        "//c:company-info/c:id[. = 3]",
        users("<user><name>barney</name><company-info><id>3</id></company-info></user>"),
    ),
    path("and, or, not in a predicate", "/c:top/c:users/c:user[c:type='admin' and not(c:name='fred')]", users(BARNEY)),
    path("numbers are compared as numbers", "/c:top/c:users/c:user[c:company-info/c:id &gt; 2]", users(BARNEY)),
    path("functions of the core library", "/c:top/c:users/c:user[starts-with(c:name, 'fr')]", users(FRED)),
    path(
        "string-length and concat",
        "/c:top/c:users/c:user[string-length(c:name) = 4 and concat(c:name, 'x') = 'rootx']",
        users(ROOT),
    ),
    path("a wildcard", "/c:top/*/c:group", f"<top>{GROUPS}</top>"),
    path("a position", "/c:top/c:users/c:user[2]/c:name", users("<user><name>fred</name></user>")),
    path(
        "an axis",
        "/c:top/c:users/c:user/c:name[. = 'fred']/following-sibling::c:type",
        users("<user><name>fred</name><type>admin</type></user>"),
    ),
    path(
        "a parent",
        "/c:top/c:users/c:user/c:company-info[c:id = 3]/../c:type",
        users("<user><name>barney</name><type>admin</type></user>"),
    ),
    path("nothing is selected", "/c:top/c:users/c:user[c:name='nobody']", ""),
    path("a relative path starts at the root", "c:top/c:groups", f"<top>{GROUPS}</top>"),
]


@pytest.mark.parametrize(("select", "found"), XPATHS)
async def test_xpaths(filled: Client, select: str, found: str) -> None:
    assert offers(filled, "xpath:1.0")
    shows(await filled.ok(get_config("running", xpath(select))), found)


@rfc("6241", "8.9.5.1", "an XPath filter works on get, on state too")
async def test_get_takes_xpath(filled: Client, behind: Behind) -> None:
    behind("state", f'<state xmlns="{C}"><counter>7</counter></state>')
    shows(await filled.ok(f"<get>{xpath('/c:state[c:counter = 7]')}</get>"), "<state><counter>7</counter></state>")


@rfc("6241", "8.9.5.2", "prefixes are those in scope at the filter")
async def test_prefixes_in_scope(filled: Client) -> None:
    operation = get_config("running", '<filter type="xpath" select="/q:top/q:groups"/>')
    reply = await filled.ok(operation.replace("<get-config>", f'<get-config xmlns:q="{C}">'))
    shows(reply, f"<top>{GROUPS}</top>")


@pytest.mark.parametrize(
    ("filter_", "tags"),
    [
        path("an expression that is no XPath is refused", xpath("///"), ("invalid-value",)),
        path("a number is no node-set", xpath("1 + 1"), ("invalid-value",)),
        path("a string is no node-set", xpath("'x'"), ("invalid-value",)),
        path("a truth is no node-set", xpath("count(/c:top) = 1"), ("invalid-value",)),
        path("a prefix that is not bound is refused", '<filter type="xpath" select="/q:top"/>', ("invalid-value",)),
        path("there are no variables", xpath("/c:top[c:users/c:user/c:name = $x]"), ("invalid-value",)),
        path("a function that is not in the library is refused", xpath("/c:top[nonsense()]"), ("invalid-value",)),
        path("an XPath filter has a select attribute", '<filter type="xpath"/>', ("missing-attribute",)),
    ],
)
async def test_what_is_no_filter(client: Client, filter_: str, tags: tuple[str, ...]) -> None:
    await refused(client, get_config("running", filter_), *tags)
