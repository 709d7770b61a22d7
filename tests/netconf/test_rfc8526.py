"""RFC 8526: any datastore read, edited, locked and validated by its identity."""

from collections.abc import Callable, Sequence

import pytest
from lxml import etree
from nacm import limited, rule
from netconf_front import Client, Front
from rfc import case, rfc
from wire import CAPABILITY, PREFIXES, C, c, capabilities, edit, expected, holds, lock, session_id, trees

Access = Callable[[str], None]
Behind = Callable[..., None]

NMDA = "urn:ietf:params:xml:ns:yang:ietf-netconf-nmda"
DS = "urn:ietf:params:xml:ns:yang:ietf-datastores"
ORIGIN = "urn:ietf:params:xml:ns:yang:ietf-origin"
LIBRARY = "urn:ietf:params:xml:ns:yang:ietf-yang-library"
XMLNS = f'xmlns="{NMDA}" xmlns:ds="{DS}" xmlns:or="{ORIGIN}" {PREFIXES}'

CONFIG = "<values><number>20</number><word>a</word></values><interfaces><interface><name>x</name></interface></interfaces>"
_COLOUR = "<colour>red</colour><fallback>here</fallback><fallback>there</fallback>"
# What is in use of it, and what of that nobody has configured: operational returns it all (RFC 8342 clause 5.3).
VALUES = f"<values><number>20</number><word>a</word>{_COLOUR}</values>"
DEFAULTS = f"<values>{_COLOUR}</values><interfaces><interface><name>x</name><mtu>1500</mtu></interface></interfaces>"
IN_USE = VALUES + DEFAULTS[DEFAULTS.index("<interfaces") :]
STATE = "<state><counter>5</counter></state>"
OURS = "".join(f"<{one}/>" for one in ("values", "interfaces", "state"))


def get_data(datastore: str, inside: str = "", filter_: str = OURS) -> str:
    """`filter_`: data of module `conformance`, or an element; "" for none."""
    if filter_ and not filter_.startswith("<xpath-filter"):
        filter_ = f"<subtree-filter>{c(filter_)}</subtree-filter>"
    return f"<get-data {XMLNS}><datastore>{datastore}</datastore>{filter_}{inside}</get-data>"


def edit_data(datastore: str, xml: str, options: str = "") -> str:
    return f"<edit-data {XMLNS}><datastore>{datastore}</datastore>{options}<config>{c(xml)}</config></edit-data>"


def by_identity(operation: str, place: str, datastore: str) -> str:
    element = f'<datastore xmlns="{NMDA}" xmlns:ds="{DS}">ds:{datastore}</datastore>'
    return f"<{operation}><{place}>{element}</{place}></{operation}>"


def shown(content: Sequence[etree._Element]) -> list[etree._Element]:
    """What stands in the `data` of a reply, of module `conformance`."""
    assert [one.tag for one in content] == [f"{{{NMDA}}}data"]
    return [one for one in content[0] if etree.QName(one).namespace == C]


def shows(content: Sequence[etree._Element], xml: str) -> None:
    assert trees(shown(content)) == expected(xml), etree.tostring(content[0], encoding="unicode")


@pytest.fixture
async def filled(client: Client, behind: Behind) -> Client:
    """Configuration in running, in effect, and state beside it."""
    await client.ok(edit(CONFIG))
    behind("state", c(STATE))
    return client


# What a server of NMDA is --------------------------------------------------------------------------------------------


@rfc("8526", "2", "the server has module ietf-netconf-nmda and datastore operational")
@rfc("8526", "2", "the server has a YANG library of revision 2019-01-04 or later, and says so in its hello")
async def test_the_server_knows_nmda(client: Client) -> None:
    [data] = await client.ok(f'<get><filter><yang-library xmlns="{LIBRARY}"/></filter></get>')
    assert "ietf-netconf-nmda" in [one.text for one in data.iter(f"{{{LIBRARY}}}name")]
    assert "operational" in [name(one.text) for one in data.iterfind(f".//{{{LIBRARY}}}datastore/{{{LIBRARY}}}name")]
    [offered] = [one for one in capabilities(client) if one.startswith(f"{CAPABILITY}yang-library:1.1?")]
    values = dict(part.split("=", 1) for part in offered.partition("?")[2].split("&"))
    assert values["revision"] >= "2019-01-04"
    assert values["content-id"] == data.findtext(f".//{{{LIBRARY}}}content-id")


def name(identity: str | None) -> str:
    return (identity or "").rpartition(":")[2]


@rfc("8526", "3.1.1", "a datastore that the server does not support gives invalid-value")
@rfc("8526", "2", "the datastores of the YANG library are those that can be read")
async def test_the_datastores(client: Client) -> None:
    [data] = await client.ok(f'<get><filter><yang-library xmlns="{LIBRARY}"><datastore/></yang-library></filter></get>')
    listed = {name(one.text) for one in data.iterfind(f".//{{{LIBRARY}}}datastore/{{{LIBRARY}}}name")}
    for one in "running", "candidate", "startup", "intended", "operational", "factory-default":
        prefix = "fd" if one == "factory-default" else "ds"
        operation = get_data(f"{prefix}:{one}").replace(
            "<get-data", '<get-data xmlns:fd="urn:ietf:params:xml:ns:yang:ietf-factory-default"', 1
        )
        reply = await client.rpc(operation)
        if one in listed:
            assert not reply.errors, one
        else:
            assert [error.tag for error in reply.errors] == ["invalid-value"], one


# get-data ------------------------------------------------------------------------------------------------------------


@rfc("8526", "3.1.1", "get-data returns the content of the datastore it names")
@pytest.mark.parametrize("datastore", ["running", "candidate", "startup"])
async def test_reading_a_datastore(client: Client, datastore: str) -> None:
    await client.ok(edit_data(f"ds:{datastore}", CONFIG))
    shows(await client.ok(get_data(f"ds:{datastore}")), CONFIG)
    await client.ok("<discard-changes/>")


@rfc("8526", "3.1.1", "get-data of operational returns configuration in effect and state")
@rfc("8342", "5.3", "a request to operational returns every value in use, defaults among them")
async def test_reading_operational(filled: Client) -> None:
    shows(await filled.ok(get_data("ds:operational")), IN_USE + STATE)


@rfc("8526", "3.1.1", "without a filter everything is returned")
async def test_reading_everything(filled: Client) -> None:
    content = await filled.ok(get_data("ds:operational", filter_=""))
    shows(content, IN_USE + STATE)
    assert len(content[0]) > len(shown(content))  # the modules of others, too


@rfc("8526", "3.1.1", "a request without results returns an empty data element")
async def test_no_results(client: Client) -> None:
    content = await client.ok(get_data("ds:running"))
    assert [(one.tag, len(one)) for one in content] == [(f"{{{NMDA}}}data", 0)]


XPATH = '<xpath-filter xmlns:q="urn:quantum-switch:test:conformance">{}</xpath-filter>'
_NUMBER, _WORD = "<values><number>20</number></values>", "<values><word>a</word></values>"
_BOTH = "<values><number>20</number><word>a</word></values>"
_NAME = "<interfaces><interface><name>x</name></interface></interfaces>"
_DEPTH = "<max-depth>{}</max-depth>"
_CONFIGURED = "<config-filter>{}</config-filter>"
_SELECTING = [
    case("8526", "3.1.1", "a subtree-filter selects", "<values><number/></values>", "", _NUMBER),
    case("8526", "3.1.1", "an xpath-filter selects", XPATH.format("/q:values/q:number"), "", _NUMBER),
    case(
        "8526", "3.1.1", "an xpath-filter selects the nodes of a union", XPATH.format("/q:values/q:word|//q:number"), "",
        _BOTH,
    ),
    case(
        "8526", "3.1.1", "prefixes of an xpath-filter are those in scope",
        XPATH.replace("xmlns:q", "xmlns:zz").format("/zz:values/zz:number"), "", _NUMBER,
    ),
    case("8526", "3.1.1", "ancestors and list keys of what is selected are returned", XPATH.format("//q:name"), "", _NAME),
    case("8526", "3.1.1", "config-filter true leaves state out", OURS, _CONFIGURED.format("true"), IN_USE),
    case("8526", "3.1.1", "config-filter false leaves configuration out", OURS, _CONFIGURED.format("false"), STATE),
    case("8526", "3.1.1", "max-depth unbounded leaves nothing out", OURS, _DEPTH.format("unbounded"), IN_USE + STATE),
    case(
        "8526", "3.1.1", "max-depth 1 returns what is selected without children", "<values/>", _DEPTH.format(1), "<values/>"
    ),
    case("8526", "3.1.1", "max-depth 2 returns the children, too", "<values/>", _DEPTH.format(2), VALUES),
    case(
        "8526", "3.1.1", "the depth counts from what is selected", XPATH.format("/q:values/q:number"), _DEPTH.format(1),
        _NUMBER,
    ),
    case("8526", "3.1.1", "all filters must be satisfied", "<values/><state/>", _CONFIGURED.format("false"), STATE),
]  # fmt: skip


@pytest.mark.parametrize(("filter_", "inside", "found"), _SELECTING)
async def test_selecting(filled: Client, filter_: str, inside: str, found: str) -> None:
    shows(await filled.ok(get_data("ds:operational", inside, filter_)), found)


_BAD = "invalid-value"
_REFUSED = [
    case("8526", "3.1.1", "a value that is no node-set fails", get_data("ds:running", "", XPATH.format("1 + 1")), ""),
    case("8526", "3.1.1", "an xpath-filter that is none fails", get_data("ds:running", "", XPATH.format("///[")), ""),
    case("8526", "3.1.1", "there is one filter at most", get_data("ds:running", XPATH.format("/q:values")), ""),
    case("8526", "3.1.1", "a datastore must be named", f"<get-data {XMLNS}/>", "missing-element"),
    case("8526", "3.1.1", "a datastore is an identity that there is", get_data("ds:nothing"), _BAD),
    case("8526", "3.1.1", "a datastore is an identity of a datastore", get_data("or:intended"), _BAD),
    case("8526", "3.1.1", "max-depth is at least 1", get_data("ds:running", _DEPTH.format(0)), _BAD),
    case("8526", "3.1.1", "max-depth is at most 65535", get_data("ds:running", _DEPTH.format(65536)), _BAD),
    case("8526", "3.1.1", "config-filter is true or false", get_data("ds:running", _CONFIGURED.format("x")), _BAD),
    case(
        "8526", "3.1.1", "with-origin on another datastore than operational gives invalid-value",
        get_data("ds:running", "<with-origin/>"), _BAD,
    ),
    case(
        "8526", "3.1.1", "an origin-filter is for operational only",
        get_data("ds:running", "<origin-filter>or:intended</origin-filter>"), "",
    ),
    case(
        "8526", "3.1.1", "origin-filter and negated-origin-filter exclude each other",
        get_data(
            "ds:operational",
            "<origin-filter>or:intended</origin-filter><negated-origin-filter>or:system</negated-origin-filter>",
        ), "",
    ),
    case(
        "8526", "3.1.1", "an origin is an identity that there is",
        get_data("ds:operational", "<origin-filter>or:nothing</origin-filter>"), _BAD,
    ),
    case("8526", "3.1.2", "edit-data of operational gives invalid-value", edit_data("ds:operational", CONFIG), _BAD),
    case(
        "8526", "3.1.2", "edit-data of a datastore that the server does not support gives invalid-value",
        edit_data("ds:dynamic", CONFIG), _BAD,
    ),
    case("8526", "3.1.2", "edit-data names a datastore", f"<edit-data {XMLNS}><config/></edit-data>", "missing-element"),
    case(
        "8526", "3.1.2", "edit-data has content", f"<edit-data {XMLNS}><datastore>ds:running</datastore></edit-data>",
        "missing-element",
    ),
    case(
        "8526", "3.1.2", "default-operation is merge, replace or none",
        edit_data("ds:running", CONFIG, "<default-operation>x</default-operation>"), _BAD,
    ),
    case(
        "8526", "3.2", "lock of a datastore that cannot be locked gives invalid-value",
        by_identity("lock", "target", "operational"), _BAD,
    ),
    case(
        "8526", "3.2", "unlock of a datastore that cannot be locked gives invalid-value",
        by_identity("unlock", "target", "operational"), _BAD,
    ),
    case(
        "8526", "3.2", "validate of a datastore that holds no configuration gives invalid-value",
        by_identity("validate", "source", "operational"), _BAD,
    ),
]  # fmt: skip


@pytest.mark.parametrize(("operation", "tag"), _REFUSED)
async def test_refused(client: Client, operation: str, tag: str) -> None:
    error = await client.refused(operation)
    assert error.severity == "error"
    assert tag in ("", error.tag)


@rfc("8526", "3.1.1", "data that the user may not read are left out")
async def test_access(front: Front, access: Access, filled: Client) -> None:
    access(limited(rule("deny", "read", "conformance", path="/c:values/c:word")))
    async with front.connect("guest") as guest:
        for datastore in "running", "operational":
            content = await guest.ok(get_data(f"ds:{datastore}", filter_="<values/>"))
            found = {etree.QName(one).localname for one in shown(content)[0]}
            assert "number" in found
            assert "word" not in found


# Where values come from ----------------------------------------------------------------------------------------------


def origins(content: Sequence[etree._Element]) -> dict[str, str]:
    """The origin of each node that shows one."""
    nodes = (node for one in shown(content) for node in one.iter())
    return {etree.QName(node).localname: name(text) for node in nodes if (text := node.get(f"{{{ORIGIN}}}origin"))}


@rfc("8526", "3.1.1", "with-origin has the origin of configuration shown")
@rfc("8342", "5.3.4", "what was configured and is in effect has origin intended")
async def test_with_origin(filled: Client) -> None:
    content = await filled.ok(get_data("ds:operational", "<with-origin/>"))
    found = origins(content)
    assert found["values"] == found["interfaces"] == "intended"
    assert "state" not in found
    assert "counter" not in found
    [prefixed] = {one.get(f"{{{ORIGIN}}}origin") for one in shown(content) if etree.QName(one).localname == "values"}
    assert shown(content)[0].nsmap[str(prefixed).partition(":")[0]] == ORIGIN


@rfc("8526", "3.1.1", "without with-origin no origin is shown")
async def test_without_origin(filled: Client) -> None:
    assert not origins(await filled.ok(get_data("ds:operational")))


@rfc("8342", "5.3.4", "a default value in use has origin default")
async def test_the_origin_of_a_default(filled: Client) -> None:
    found = await filled.ok(get_data("ds:operational", "<with-origin/><with-defaults>report-all</with-defaults>"))
    assert origins(found).get("colour") == "default"


_FROM, _NOT_FROM = "<origin-filter>or:{}</origin-filter>", "<negated-origin-filter>or:{}</negated-origin-filter>"
_INTENDED = _FROM.format("intended")
_FILTERING = [
    case("8526", "3.1.1", "an origin-filter keeps configuration of the origin, and all state", _INTENDED, CONFIG + STATE),
    case("8526", "3.1.1", "configuration of another origin is left out", _FROM.format("learned"), STATE),
    case(
        "8526", "3.1.1", "several origin-filters keep either origin", _INTENDED + _FROM.format("default"), IN_USE + STATE
    ),
    case("8526", "3.1.1", "what is kept keeps its list keys", _FROM.format("default"), DEFAULTS + STATE),
    case("8526", "3.1.1", "a negated-origin-filter leaves out the origin", _NOT_FROM.format("intended"), DEFAULTS + STATE),
    case(
        "8526", "3.1.1", "several negated-origin-filters leave out each origin",
        _NOT_FROM.format("intended") + _NOT_FROM.format("default"), STATE,
    ),
    case(
        "8526", "3.1.1", "a negated-origin-filter keeps other origins", _NOT_FROM.format("learned"), IN_USE + STATE
    ),
    case(
        "8526", "3.1.1", "state can be left out with config-filter", _INTENDED + "<config-filter>true</config-filter>",
        CONFIG,
    ),
]  # fmt: skip


@pytest.mark.parametrize(("inside", "found"), _FILTERING)
async def test_filtering_by_origin(filled: Client, inside: str, found: str) -> None:
    shows(await filled.ok(get_data("ds:operational", inside)), found)


@rfc("8526", "3.1.1", "a filter by origin shows no origin unless it is asked for")
async def test_filtering_shows_no_origin(filled: Client) -> None:
    assert not origins(await filled.ok(get_data("ds:operational", _INTENDED)))
    assert origins(await filled.ok(get_data("ds:operational", _INTENDED + "<with-origin/>")))


# Defaults ------------------------------------------------------------------------------------------------------------


@rfc("8526", "3.1.1.2", "with-defaults works for datastores of configuration as for get-config")
@pytest.mark.parametrize(
    ("mode", "there"), [("report-all", {"number", "colour"}), ("trim", set()), ("explicit", {"number"})]
)
async def test_defaults(client: Client, mode: str, there: set[str]) -> None:
    await client.ok(edit("<values><number>100</number><word>a</word></values>"))
    content = await client.ok(get_data("ds:running", f"<with-defaults>{mode}</with-defaults>", "<values/>"))
    assert {etree.QName(one).localname for one in shown(content)[0]} & {"number", "colour"} == there


@rfc(
    "8526",
    "3.1.1.2",
    "with-defaults for operational is refused as invalid-value unless with-operational-defaults is offered",
)
async def test_operational_defaults(filled: Client) -> None:
    reply = await filled.rpc(get_data("ds:operational", "<with-defaults>report-all</with-defaults>"))
    if any(one.startswith(f"{CAPABILITY}with-operational-defaults:1.0") for one in capabilities(filled)):
        assert not reply.errors
    else:
        assert [error.tag for error in reply.errors] == ["invalid-value"]


# edit-data -----------------------------------------------------------------------------------------------------------


@rfc("8526", "3.1.2", "edit-data changes the datastore it names, and answers ok")
@pytest.mark.parametrize("datastore", ["running", "candidate", "startup"])
async def test_editing(client: Client, datastore: str) -> None:
    await client.ok(edit_data(f"ds:{datastore}", CONFIG))
    await holds(client, CONFIG, datastore)
    await client.ok(edit_data(f"ds:{datastore}", '<values nc:operation="delete"/>'))
    await holds(client, CONFIG[CONFIG.index("<interfaces") :], datastore)
    await client.ok("<discard-changes/>")


@rfc("8526", "3.1.2", "default-operation says what happens to data without an operation")
@pytest.mark.parametrize(
    ("operation", "after"),
    [
        ("", _BOTH),
        ("merge", _BOTH),
        ("none", _NUMBER),
    ],
)
async def test_default_operation(client: Client, operation: str, after: str) -> None:
    await client.ok(edit(_NUMBER))
    options = f"<default-operation>{operation}</default-operation>" if operation else ""
    await client.rpc(edit_data("ds:running", _WORD, options))
    await holds(client, after)


@rfc("8526", "3.1.2", "default-operation replace replaces")
async def test_replacing(client: Client) -> None:
    await client.ok(edit(CONFIG, target="candidate"))
    await client.ok(edit_data("ds:candidate", f"{_WORD}", "<default-operation>replace</default-operation>"))
    await holds(client, _WORD, "candidate")
    await client.ok("<discard-changes/>")


@rfc("8526", "3.1.2", "an edit-data that fails leaves the datastore as it was")
@pytest.mark.parametrize(
    "bad",
    ["<values><number>5000</number></values>", '<values><word nc:operation="delete"/></values>', "<values><x/></values>"],
)
async def test_a_failed_edit(client: Client, bad: str) -> None:
    await client.ok(edit(_NUMBER))
    await client.refused(edit_data("ds:running", _NAME + bad))
    await holds(client, _NUMBER)


# Other operations ----------------------------------------------------------------------------------------------------


@rfc("8526", "3.2", "lock and unlock take a datastore by its identity, and mean the same as by name")
@pytest.mark.parametrize("datastore", ["running", "candidate", "startup"])
async def test_locking(front: Front, client: Client, datastore: str) -> None:
    await client.ok(by_identity("lock", "target", datastore))
    async with front.connect() as other:
        error = await other.refused(lock(datastore))
    assert (error.tag, dict(error.info)["session-id"]) == ("lock-denied", str(session_id(client)))
    await client.ok(by_identity("unlock", "target", datastore))
    await client.ok(lock(datastore))
    await client.ok(f"<unlock><target><{datastore}/></target></unlock>")


@rfc("8526", "3.2", "validate takes a datastore by its identity")
async def test_validating(client: Client) -> None:
    await client.ok(by_identity("validate", "source", "running"))
    await client.ok(by_identity("validate", "source", "candidate"))
