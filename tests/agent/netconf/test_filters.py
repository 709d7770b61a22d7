"""Filters without a datastore: the examples of RFC 6241 clause 6.4, XPath (clause 8.9), what sysrepo is asked, attacks."""

import time

import pytest
from hypothesis import given, strategies as st
from lxml import etree

from qswitch.agent.netconf.filters import Filter, parse, parse_xpath
from qswitch.agent.netconf.selection import select
from qswitch.agent.netconf.superset import Names, Node
from qswitch.protocol.netconf import BASE, RpcFailed

CONFIG = "http://example.com/schema/1.2/config"
STATS = "http://example.com/schema/1.2/stats"
ORIGIN = "urn:ietf:params:xml:ns:yang:ietf-origin"
MODULES = {CONFIG: "config", STATS: "stats"}


def inner(module: str, *keys: str, **children: Node | dict[str, Node]) -> Node:
    """A container or list; `_` in a name stands for `-`. A child of another module is given as {module: node}."""
    named = {name.replace("_", "-"): one if isinstance(one, dict) else {module: one} for name, one in children.items()}
    return Node(named, frozenset(keys))


LEAF = Node(leaf=True)
COMPANY = inner("config", dept=LEAF, id=LEAF)
USER = inner("config", "name", name=LEAF, type=LEAF, full_name=LEAF, company_info=COMPANY, load={"stats": LEAF})
INTERFACE = inner("stats", "ifName", ifName=LEAF, ifInOctets=LEAF, ifOutOctets=LEAF)
TOP = inner(
    "",
    top={
        "config": inner("config", users=inner("config", user=USER), tag=LEAF, any=Node(opaque=True)),
        "stats": inner("stats", interfaces=inner("stats", interface=INTERFACE)),
    },
    alone={"config": LEAF},
    happened={"config": Node({"user": {"config": Node({"name": {"config": Node(leaf=True, event=True)}}, event=True)}})},
)
NAMES = Names(MODULES, {name: uri for uri, name in MODULES.items()}, TOP)


def user(name: str, kind: str, full: str, dept: int, number: int) -> str:
    return (
        f"<user><name>{name}</name><type>{kind}</type><full-name>{full}</full-name>"
        f"<company-info><dept>{dept}</dept><id>{number}</id></company-info></user>"
    )


ROOT = user("root", "superuser", "Charlie Root", 1, 1)
FRED = user("fred", "admin", "Fred Flintstone", 2, 2)
BARNEY = user("barney", "admin", "Barney Rubble", 2, 3)
ETHERNET = [
    f"<interface><ifName>eth{one}</ifName><ifInOctets>{one}5</ifInOctets><ifOutOctets>{one}7</ifOutOctets></interface>"
    for one in (0, 1)
]


def config(inside: str) -> str:
    return f'<top xmlns="{CONFIG}">{inside}</top>'


def users(inside: str) -> str:
    return config(f"<users>{inside}</users>")


def stats(inside: str) -> str:
    return f'<top xmlns="{STATS}"><interfaces>{inside}</interfaces></top>'


DATA = (
    config(f"<users>{ROOT}{FRED}{BARNEY}</users><tag>a</tag><tag>b c</tag>")
    + stats("".join(ETHERNET))
    + f'<alone xmlns="{CONFIG}">1</alone>'
)
NAMED = "".join(f"<user><name>{one}</name></user>" for one in ("root", "fred", "barney"))


def subtree(inside: str) -> Filter:
    return parse(etree.fromstring(f'<filter xmlns="{BASE}" type="subtree">{inside}</filter>'), NAMES)


def xpath(select: str) -> Filter:
    element = etree.fromstring(f'<filter xmlns="{BASE}" type="xpath" xmlns:c="{CONFIG}" xmlns:s="{STATS}"/>')
    element.set("select", select)
    return parse(element, NAMES)


def narrowed(filter_: Filter, data: str = DATA) -> str:
    """What is left of the data, were sysrepo not to leave anything out."""
    if filter_.xpath is None:
        return plain("")
    wanted = Filter(filter_.xpath, False, filter_._query, filter_._names, filter_.costly)
    return plain(wanted.narrow(data.encode()).decode())


def plain(xml: str) -> str:
    """With namespaces declared in one way."""
    return etree.tostring(etree.fromstring(f"<data>{xml}</data>"), method="c14n2", with_comments=False).decode()


SUBTREES = [
    # 6.4.2 to 6.4.8
    ("", ""),
    (config("<users/>"), users(ROOT + FRED + BARNEY)),
    (users("<user/>"), users(ROOT + FRED + BARNEY)),
    (users("<user><name/></user>"), users(NAMED)),
    (users("<user><name>fred</name></user>"), users(FRED)),
    (
        users("<user><name>fred</name><type/><full-name/></user>"),
        users("<user><name>fred</name><type>admin</type><full-name>Fred Flintstone</full-name></user>"),
    ),
    (
        users(
            "<user><name>root</name><company-info/></user>"
            "<user><name>fred</name><company-info><id/></company-info></user>"
            "<user><name>barney</name><type>superuser</type><company-info><dept/></company-info></user>"
        ),
        users(
            "<user><name>root</name><company-info><dept>1</dept><id>1</id></company-info></user>"
            "<user><name>fred</name><company-info><id>2</id></company-info></user>"
        ),
    ),
    (stats('<interface ifName="eth0"/>'), ""),
    # 6.2.1
    ("<top/>", ""),
    ('<top xmlns=""><interfaces><interface><ifName/></interface></interfaces></top>',
     stats("<interface><ifName>eth0</ifName></interface><interface><ifName>eth1</ifName></interface>")),
    (f'<top xmlns="{CONFIG}"><tag xmlns=""/></top>', config("<tag>a</tag><tag>b c</tag>")),
    (f'<top xmlns="{CONFIG}"><tag xmlns="{STATS}"/></top>', ""),
    (f'<z:top xmlns:z="{CONFIG}"><z:tag>a</z:tag><z:users/></z:top>',
     config(f"<users>{ROOT}{FRED}{BARNEY}</users><tag>a</tag>")),
    ('<top xmlns="urn:nowhere"/>', ""),
    # 6.2.4, 6.2.5
    (users("<user><name> </name></user>"), users(NAMED)),
    (users("<user><name>\n fred </name></user>"), users(FRED)),
    (users("<user><type>admin</type><name/></user>"),
     users("<user><name>fred</name><type>admin</type></user><user><name>barney</name><type>admin</type></user>")),
    (users("<user><type>admin</type><full-name>Fred Flintstone</full-name></user>"), users(FRED)),
    (users("<user><type>admin</type><full-name>Charlie Root</full-name></user>"), ""),
    (users("<user><name>fred</name><name>root</name></user>"), ""),
    (users("<user><company-info><dept>2</dept><id>3</id></company-info></user>"),
     users("<user><name>barney</name><company-info><dept>2</dept><id>3</id></company-info></user>")),
    (users("<user><company-info>x</company-info></user>"), ""),
    (users("<user><nothing>x</nothing></user>"), ""),
    (config("<tag>b c</tag><any/>"), config("<tag>b c</tag>")),
    (config("<tag>b  c</tag><any/>"), ""),
    (config("<tag>a</tag><tag>b c</tag>"), config(f"<users>{ROOT}{FRED}{BARNEY}</users><tag>a</tag><tag>b c</tag>")),
    # 6.3: the elements at the top are siblings within their namespace
    (f'<alone xmlns="{CONFIG}">1</alone>' + config("<tag/>"),
     config("<tag>a</tag><tag>b c</tag>") + f'<alone xmlns="{CONFIG}">1</alone>'),
    (f'<alone xmlns="{CONFIG}">2</alone>' + config("<tag/>") + stats("<interface><ifName>eth1</ifName></interface>"),
     stats(ETHERNET[1])),
    # several subtrees; what two of them select is told once
    (config("<tag/>") + stats("<interface><ifName/></interface>") + config("<tag/>"),
     config("<tag>a</tag><tag>b c</tag>")
     + stats("<interface><ifName>eth0</ifName></interface><interface><ifName>eth1</ifName></interface>")),
    (users("<user><name>root</name></user><user><name>root</name><type/></user>"), users(ROOT)),
]  # fmt: skip


@pytest.mark.parametrize(("inside", "selected"), SUBTREES)
def test_subtrees(inside: str, selected: str) -> None:
    assert narrowed(subtree(inside)) == plain(selected)


@pytest.mark.parametrize(
    ("match", "there"),
    [
        ("o:origin='o:learned'", "fred"),
        ("o:origin='o:system'", "root"),
        ("o:origin='system'", ""),
        ("origin='o:system'", ""),
        ("o:origin='o:system' kind='x'", ""),
    ],
)
def test_attributes_match_metadata(match: str, there: str) -> None:
    """RFC 6241 clause 6.2.2; here the origins of RFC 7952 and 8342."""
    of = {"root": "or:system", "fred": "or:learned"}
    data = users(
        "".join(f'<user xmlns:or="{ORIGIN}" or:origin="{one}"><name>{name}</name></user>' for name, one in of.items())
    )
    names = Names({**MODULES, ORIGIN: "ietf-origin"}, NAMES.namespaces, TOP)
    element = etree.fromstring(f"<filter>{users(f"<user xmlns:o='{ORIGIN}' {match}><name/></user>")}</filter>")
    found = parse(element, names).narrow(data.encode()).decode()
    assert [name for name in of if name in found] == [name for name in of if name == there]


@pytest.mark.parametrize(
    ("wanted", "matched"),
    [("x:admin", True), ("admin", False), ("config:admin", False), ("stats:admin", True), ("z:admin", False)],
)
def test_a_content_match_knows_identities(wanted: str, matched: bool) -> None:
    data = users(f'<user><name>fred</name><type xmlns:other="{STATS}">other:admin</type></user>')
    names = Names({**MODULES, "stats": "stats"}, NAMES.namespaces, TOP)
    inside = users(f'<user><type xmlns:x="{STATS}" xmlns:stats="{STATS}">{wanted}</type></user>')
    assert bool(parse(etree.fromstring(f"<filter>{inside}</filter>"), names).narrow(data.encode())) is matched


XPATHS = [
    ("/", DATA),
    ("/*", DATA),
    (".", DATA),
    ("/c:top/c:tag", config("<tag>a</tag><tag>b c</tag>")),
    ("c:top/c:tag[2]", config("<tag>b c</tag>")),
    ("/config:top/config:tag[. = 'a']", config("<tag>a</tag>")),
    ("/c:top/tag", config("<tag>a</tag><tag>b c</tag>")),
    ("/nothing | /c:nothing", ""),
    ("//c:user[c:name='fred']/c:type", users("<user><name>fred</name><type>admin</type></user>")),
    ("/c:top/c:users/c:user[c:type = 'admin'][c:company-info/c:id > 2]", users(BARNEY)),
    ("/c:top/c:users/c:user[last()]", users(BARNEY)),
    ("//c:id[. = 2]/../../c:full-name", users("<user><name>fred</name><full-name>Fred Flintstone</full-name></user>")),
    ("//c:user[not(c:type = 'admin')]", users(ROOT)),
    ("//c:name/text()[contains(., 'red')]", users("<user><name>fred</name></user>")),
    ("//@*", ""),
    ("(//c:name | //s:ifName)[. = 'eth1' or . = 'root']",
     users("<user><name>root</name></user>") + stats("<interface><ifName>eth1</ifName></interface>")),
    ("/s:top//s:ifInOctets[count(/c:top/c:users/c:user) * 5 + 2 = ../s:ifOutOctets]",
     stats("<interface><ifName>eth1</ifName><ifInOctets>15</ifInOctets></interface>")),
    ("/c:top/following-sibling::*[1]", stats("".join(ETHERNET))),
    ("/s:top[preceding::c:name = 'fred']/s:interfaces/s:interface[1]/s:ifName",
     stats("<interface><ifName>eth0</ifName></interface>")),
    ("/s:top/ancestor-or-self::node()[count(ancestor::node()) = 1]", stats("".join(ETHERNET))),
    ("//c:user[count(ancestor::*) = 2 and local-name() = 'user' and namespace-uri(..) = namespace-uri()][1]", users(ROOT)),
    ("//c:user[number(c:company-info/c:dept) mod 2 = 1 and string-length(c:name) div 2 = 2]", users(ROOT)),
    ("id('fred')", ""),
    ("/..", ""),
]  # fmt: skip


@pytest.mark.parametrize(("select", "selected"), XPATHS)
def test_xpaths(select: str, selected: str) -> None:
    assert narrowed(xpath(select)) == plain(selected)


@pytest.mark.parametrize(
    "select",
    [
        "///", "/c:top[", "/c:top]", "c:top c:top", "/c:top/c:tag[#]", "1", "-1", "'x'", "(1)[1]", "c:top = 'x'",
        "count(/c:top)", "c:top and c:top", "/c:top + 1", "boolean(/c:top)", "string()", "/q:top", "/c:top[q:tag]",
        "/c:top[$x]", "$x", "/c:top[nothing()]", "/c:top[current()]", "/c:top[c:f()]", "document('/etc/passwd')",
        "/c:top[document('/etc/passwd')]", "/c:top[count()]", "/c:top[sum('x')]", "*[" * 300 + "]" * 300, "(" * 2000,
        "/c:top" + "/c:users" * 1000,
    ],
)  # fmt: skip
def test_what_is_no_xpath_of_nodes(select: str) -> None:
    """RFC 6241 clause 8.9.5.1."""
    with pytest.raises(RpcFailed) as failed:
        narrowed(xpath(select))
    assert failed.value.errors[0].tag == "invalid-value"


@pytest.mark.parametrize(
    ("element", "tag"),
    [
        ('<filter type="xpath"/>', "missing-attribute"),
        ('<filter type="xpath" select=""/>', "missing-attribute"),
        ('<filter type="xpath" select="/"><top/></filter>', "unknown-element"),
        ('<filter type="other"/>', "bad-attribute"),
        (f"<filter>{'<x/>' * 10_000}</filter>", "too-big"),
    ],
)
def test_what_is_no_filter(element: str, tag: str) -> None:
    with pytest.raises(RpcFailed) as failed:
        parse(etree.fromstring(element), NAMES)
    assert failed.value.errors[0].tag == tag


SIGNS = ["/", "//", ".", "..", "*", "|", "@", "(", ")", "[", "]", ",", "::", "-", "+", "=", "!=", "<", "$", "!", "#", ":"]
WORDS = ["and", "or", "div", "c:top", "c:user", "c:name", "s:top", "name", "q:x", "child", "ancestor-or-self", "following"]
OTHER = ["1", "2.5", "'x'", '"y"', "text", "node", "count", "id", "not", "position", "last"]
PIECES = st.sampled_from(SIGNS + WORDS + OTHER)


@given(st.lists(PIECES, max_size=12).map(" ".join) | st.lists(PIECES, max_size=12).map("".join) | st.text(max_size=20))
def test_any_text_is_an_xpath_or_refused(text: str) -> None:
    """What is taken for an expression of nodes is one: nothing but its functions' arguments can be wrong with it."""
    element = etree.fromstring(f'<a xmlns:c="{CONFIG}" xmlns:s="{STATS}"/>')
    try:
        found = parse_xpath(text, element, NAMES)
    except RpcFailed as error:
        assert error.errors[0].tag == "invalid-value"
        return
    if found._query is not None:
        try:
            select(found._query, DATA.encode())
        except etree.XPathError as error:
            assert "argument" in str(error) or "type" in str(error), text


@st.composite
def subtrees(draw: st.DrawFn, depth: int = 5) -> str:
    """Filters that name what the data have, and some of what they have not."""
    name = draw(st.sampled_from(["top", "users", "user", "name", "type", "company-info", "id", "tag", "alone", "nothing"]))
    namespace = draw(st.sampled_from(["", "", "", ' xmlns=""', f' xmlns="{STATS}"', ' kind="x"']))
    text = draw(st.sampled_from(["", "", "fred", "admin", "2", "a"]))
    inside = "".join(draw(st.lists(subtrees(depth - 1), max_size=3))) if depth else ""
    return f"<{name}{namespace}>{inside or text}</{name}>"


@given(st.lists(subtrees(), max_size=2).map("".join))
def test_what_a_subtree_selects_it_selects_again(inside: str) -> None:
    filter_ = subtree(f'<top xmlns="{CONFIG}"><users>{inside}</users>{inside}</top>')
    once = narrowed(filter_)
    assert narrowed(filter_, once.removeprefix("<data>").removesuffix("</data>")) == once


def test_an_xpath_of_nmda_is_text() -> None:
    """RFC 8526 clause 3.1.1: `xpath-filter` holds the expression, its prefixes are in scope there."""
    element = etree.fromstring(f'<xpath-filter xmlns:q="{CONFIG}">/q:top/q:tag[. != "a"]</xpath-filter>')
    assert narrowed(parse_xpath(element.text or "", element, NAMES)) == plain(config("<tag>b c</tag>"))


# What sysrepo is asked ------------------------------------------------------------------------------------------------

USERS = "/config:top/users/user"
ASKED = [
    (config(""), "/config:top", True),
    (config("<users/>") + stats("<interface><ifName/></interface>"),
     "/config:top/users | /stats:top/interfaces/interface/ifName", True),
    (users("<user><name>fred</name></user>"), f"{USERS}[name='fred']", True),
    (users("<user><name>it's</name><type/></user>"), f'{USERS}[name="it\'s"]/name | {USERS}[name="it\'s"]/type', True),
    (users("<user><name>\"'</name></user>"), USERS, False),
    (users(f'<user><load xmlns="{STATS}"/></user>'), f"{USERS}/stats:load", True),
    (users("<user><name>fred</name><type>admin</type><full-name/></user>"), f"{USERS}[name='fred']", False),
    (users("<user><name>fred</name><company-info><id>1</id></company-info></user>"),
     f"{USERS}[name='fred']/name | {USERS}[name='fred']/company-info", False),
    (config("<any><x/></any>"), "/config:top/any", False),
    (users('<user kind="x"/>'), USERS, False),
    (f'<alone xmlns="{CONFIG}">1</alone>', "/config:top | /config:alone | /config:happened", False),
    ("", None, True),
    ("<x/>", None, True),
]  # fmt: skip


@pytest.mark.parametrize(("inside", "asked", "exact"), ASKED)
def test_a_subtree_asks_sysrepo_by_keys_alone(inside: str, asked: str | None, exact: bool) -> None:
    found = subtree(inside)
    assert (found.xpath, found.exact) == (asked, exact)


@pytest.mark.parametrize(
    ("select", "asked", "exact"),
    [
        ("/*", "/*", True),
        ("//*", "/*", True),
        ("/c:top/c:users", "/config:top/users", True),
        ("//c:name", f"{USERS}/name | /config:happened/user/name", True),
        ("//c:user[c:name='fred']/c:name", f"{USERS}[name='fred']/name | /config:happened/user[name='fred']/name", True),
        ("//s:interface[s:ifName = 'eth0']", "/stats:top/interfaces/interface[ifName='eth0']", True),
        ("//c:user[c:name='fred']/c:type", f"{USERS}[name='fred']/type", True),
        ("/c:top/c:tag[.='a'] | /s:top", "/config:top/tag[.='a'] | /stats:top", True),
        ("/c:top[.='a']", "/config:top", False),
        ("/c:top/c:users/c:user[s:name='fred']", USERS, False),
        ("/c:top/c:users/c:user[name='fred'][config:name='fred']", f"{USERS}[name='fred'][name='fred']", True),
        (f"{USERS}[c:type='admin']/c:name", USERS, False),
        ("/c:top/c:users/c:user[c:name='fred' or c:type='admin']", "/config:top", False),
        ("/c:top/c:users/c:user[/s:top/s:interfaces]", "/config:top | /stats:top", False),
        ("/c:top/c:users/c:user[../../c:tag]", "/*", False),
        ("/c:top/c:users/c:user[//s:ifName]", "/*", False),
        ("/nothing[1]", None, False),
    ],
)
def test_an_xpath_asks_sysrepo_by_keys_alone(select: str, asked: str | None, exact: bool) -> None:
    found = xpath(select.replace("/users/user", "/c:users/c:user") if select.startswith(USERS) else select)
    assert (found.xpath, found.exact) == (asked, exact)


def test_what_is_exact_is_not_parsed_again() -> None:
    assert Filter.everything().narrow(b"no XML") == b"no XML"
    assert subtree(config("<users/>")).narrow(b"no XML") == b"no XML"


@pytest.mark.parametrize(
    ("depth", "selected"),
    [
        (1, "<user><name>fred</name></user>"),
        (2, "<user><name>fred</name><type>admin</type><full-name>Fred Flintstone</full-name><company-info/></user>"),
        (3, FRED),
    ],
)
def test_depth_counts_from_what_is_selected(depth: int, selected: str) -> None:
    """RFC 8526 clause 3.1.1: the keys of a list entry come in any case."""
    found = xpath("/c:top/c:users/c:user[c:full-name='Fred Flintstone'] | //c:user[c:name='fred']/c:name")
    assert plain(found.narrow(DATA.encode(), depth).decode()) == plain(users(selected))


def test_many_paths_become_one() -> None:
    found = subtree(
        users("".join(f"<user><name>{one}</name></user>" for one in range(2100)) + "<user><name>fred</name></user>")
    )
    assert (found.xpath, found.exact) == ("/config:top", False)
    assert found.narrow(DATA.encode()).decode() == users(FRED)


# Notifications --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("filter_", "matches"),
    [
        (subtree(f'<happened xmlns="{CONFIG}"/>'), True),
        (subtree(f'<happened xmlns="{CONFIG}"><user><name>fred</name></user></happened>'), True),
        (subtree(f'<happened xmlns="{CONFIG}"><user><name>barney</name></user></happened>'), False),
        (subtree(config("")), False),
        (subtree(""), False),
        (xpath("/c:happened"), True),
        (xpath("//c:name[. = 'fred']"), True),
        (xpath("//c:name[. = 'barney']"), False),
        (xpath("/c:happened[starts-with(c:user/c:name, 'fr')]"), True),
        (xpath("/c:happened[starts-with(c:user/c:name, 'ba')]"), False),
        (Filter.everything(), True),
    ],
)
def test_events_match(filter_: Filter, matches: bool) -> None:
    event = f'<happened xmlns="{CONFIG}"><user><name>fred</name></user></happened>'
    assert filter_.matches(event.encode()) is matches


def test_events_of_a_filter_that_cannot_be_evaluated_match_neither_way() -> None:
    with pytest.raises(RpcFailed, match="cannot be evaluated"):
        xpath("/c:happened[count()]").matches(f'<happened xmlns="{CONFIG}"/>'.encode())


# Attacks --------------------------------------------------------------------------------------------------------------

LARGE = users("".join(user(f"user{one}", "admin", "A User", 1, 1) for one in range(500)))


@pytest.mark.parametrize(
    "select",
    [
        "//*[//*[//*[//*[//*]/x]/x]/x]",
        "/c:top[" + " or ".join(f"count(//*[. = //*[. = '{one}']]) = {one}" for one in range(1, 60)) + "]",
    ],
)
def test_what_takes_too_long_is_ended(select: str) -> None:
    begun = time.monotonic()
    with pytest.raises(RpcFailed) as failed:
        narrowed(xpath(select), LARGE)
    assert failed.value.errors[0].tag == "resource-denied"
    assert time.monotonic() - begun < 15
    assert narrowed(xpath("/c:top/c:users[count(c:user) = 2]/c:user[1]"), users(ROOT + FRED)) == plain(users(ROOT))
