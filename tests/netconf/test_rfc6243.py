"""RFC 6243: what is told of default values, and what they do to edits. The data are those of its appendix A."""

from functools import partial

import pytest
from lxml import etree
from netconf_front import Client
from rfc import case, rfc, untestable
from wire import TAGGED, Behind, C, capabilities, copy, data, edit, get_config, holds, mode, refused, shows, subtree

MODES = ("report-all", "report-all-tagged", "trim", "explicit")
FILTER = subtree("<interfaces/>")


def interfaces(*entries: str) -> str:
    return f"<interfaces>{''.join(f'<interface>{one}</interface>' for one in entries)}</interfaces>"


ETH0 = "<name>eth0</name><mtu>8192</mtu>"
ETH1 = "<name>eth1</name>"
ETH2 = "<name>eth2</name><mtu>9000</mtu>"
ETH3 = "<name>eth3</name><mtu>1500</mtu>"
CONFIGURED = interfaces(ETH0, ETH1, ETH2, ETH3)
STATES = {"eth0": "ok", "eth1": "ok", "eth2": "not-feeling-so-good", "eth3": "waking-up"}
STATE = (
    f'<interfaces xmlns="{C}">'
    + "".join(f"<interface><name>{name}</name><status>{state}</status></interface>" for name, state in STATES.items())
    + "</interfaces>"
)
OK, BAD, WAKING = "<status>ok</status>", "<status>not-feeling-so-good</status>", "<status>waking-up</status>"

CONFIG = {
    "report-all": interfaces(ETH0, ETH1 + "<mtu>1500</mtu>", ETH2, ETH3),
    "trim": interfaces(ETH0, ETH1, ETH2, "<name>eth3</name>"),
    "explicit": CONFIGURED,
}
CONFIG["report-all-tagged"] = CONFIG["report-all"]
WITH_STATE = {
    "report-all": interfaces(ETH0 + OK, ETH1 + "<mtu>1500</mtu>" + OK, ETH2 + BAD, ETH3 + WAKING),
    "trim": interfaces(ETH0, ETH1, ETH2 + BAD, "<name>eth3</name>" + WAKING),
    "explicit": interfaces(ETH0 + OK, ETH1 + OK, ETH2 + BAD, ETH3 + WAKING),
}
WITH_STATE["report-all-tagged"] = WITH_STATE["report-all"]


def basic(client: Client) -> tuple[str, tuple[str, ...]]:
    """The basic mode, and the others that the capability names."""
    (found,) = (one for one in capabilities(client) if ":with-defaults:1.0" in one)
    parameters = dict(part.partition("=")[::2] for part in found.partition("?")[2].split("&"))
    return parameters["basic-mode"], tuple(filter(None, parameters.get("also-supported", "").split(",")))


# Capability ----------------------------------------------------------------------------------------------------------


@rfc("6243", "4.3", "the capability names the basic mode, one of three")
async def test_the_basic_mode(client: Client) -> None:
    assert basic(client)[0] in ("report-all", "trim", "explicit")


@rfc("6243", "4.3", "the capability names the other modes, and not the basic one again")
async def test_the_other_modes(client: Client) -> None:
    basic_mode, others = basic(client)
    assert set(others) <= set(MODES) - {basic_mode}
    assert len(set(others)) == len(others)


@rfc("6243", "4.3", "all four modes are offered by this server")
async def test_all_modes_are_offered(client: Client) -> None:
    basic_mode, others = basic(client)
    assert {basic_mode, *others} == set(MODES)


# Retrieval -----------------------------------------------------------------------------------------------------------

READ = [
    case("6243", "3.1", "report-all tells every node with its default", "report-all"),
    case("6243", "3.2", "trim leaves out every node with its default, set or not", "trim"),
    case("6243", "3.3", "explicit tells defaults that a client has set and leaves out the others", "explicit"),
    case("6243", "3.4", "report-all-tagged tells every node with its default", "report-all-tagged"),
]


@pytest.mark.parametrize("datastore", ["running", "candidate", "startup"])
@pytest.mark.parametrize("how", READ)
async def test_get_config(client: Client, datastore: str, how: str) -> None:
    await client.ok(edit(CONFIGURED))
    if datastore == "startup":
        await client.ok(copy("running", "startup"))
    shows(await client.ok(get_config(datastore, FILTER + mode(how))), CONFIG[how])


@pytest.mark.parametrize(
    "how",
    [
        case("6243", "3.1", "report-all tells state with its default", "report-all"),
        case("6243", "3.2", "trim leaves out state with its default", "trim"),
        case("6243", "3.3", "explicit tells state with its default", "explicit"),
        case("6243", "3.4", "report-all-tagged tells state with its default", "report-all-tagged"),
    ],
)
async def test_get(client: Client, behind: Behind, how: str) -> None:
    await client.ok(edit(CONFIGURED))
    behind("state", STATE)
    shows(await client.ok(f"<get>{FILTER}{mode(how)}</get>"), WITH_STATE[how])


@rfc("6243", "4.5.1", "without a mode the basic one is used")
async def test_without_a_mode(client: Client) -> None:
    await client.ok(edit(CONFIGURED))
    shows(await client.ok(get_config("running", FILTER)), CONFIG[basic(client)[0]])


@rfc("6243", "3.4", "the tag is attribute 'default' of the namespace netconf:default:1.0, with value true")
async def test_tags(client: Client) -> None:
    await client.ok(edit(CONFIGURED))
    found = data(await client.ok(get_config("running", FILTER + mode("report-all-tagged"))))
    tags = {one.getparent()[0].text: one.get(f"{{{TAGGED}}}default") for one in found[0].iter(f"{{{C}}}mtu")}  # type: ignore[index]
    assert tags["eth1"] in ("true", "1")
    assert (tags["eth0"], tags["eth2"]) == (None, None)


@rfc("6243", "3.4", "only nodes that are considered default data are tagged")
async def test_nothing_else_is_tagged(client: Client) -> None:
    await client.ok(edit(CONFIGURED))
    found = data(await client.ok(get_config("running", FILTER + mode("report-all-tagged"))))
    tagged = {etree.QName(one).localname for one in found[0].iter() if one.get(f"{{{TAGGED}}}default")}
    assert tagged <= {"mtu"}


@rfc("6243", "3", "the other modes tag nothing")
@pytest.mark.parametrize("how", ["report-all", "trim", "explicit"])
async def test_no_tags(client: Client, how: str) -> None:
    await client.ok(edit(CONFIGURED))
    found = data(await client.ok(get_config("running", FILTER + mode(how))))
    assert not any(one.get(f"{{{TAGGED}}}default") for one in found[0].iter())


@rfc("6243", "2.1.1", "report-all tells defaults in leafs of a container that holds nothing else")
async def test_defaults_of_a_container(client: Client) -> None:
    shows(
        await client.ok(get_config("running", subtree("<values/>") + mode("report-all"))),
        "<values><number>100</number><colour>red</colour><fallback>here</fallback><fallback>there</fallback></values>",
    )


@rfc("6243", "4.5.1", "defaults are told through a filter that selects them")
async def test_defaults_through_a_filter(client: Client) -> None:
    filter_ = subtree("<values><number/></values>")
    shows(await client.ok(get_config("running", filter_ + mode("report-all"))), "<values><number>100</number></values>")
    shows(await client.ok(get_config("running", filter_ + mode("explicit"))), "")


@rfc("6243", "4.5.1", "a mode that the server does not have gives invalid-value")
@pytest.mark.parametrize("operation", [get_config("running", mode("nonsense")), f"<get>{mode('nonsense')}</get>"])
async def test_an_unknown_mode(client: Client, operation: str) -> None:
    await refused(client, operation, "invalid-value", "bad-element")


# copy-config ---------------------------------------------------------------------------------------------------------


@rfc("6243", "4.5.1", "copy-config takes a mode")
@pytest.mark.parametrize("how", MODES)
async def test_copy_config_takes_a_mode(client: Client, how: str) -> None:
    await client.ok(edit(CONFIGURED))
    await client.ok(copy("running", "startup", mode(how)))
    shows(await client.ok(get_config("startup", FILTER + mode("report-all"))), CONFIG["report-all"])


@rfc("6243", "4.5.1", "a mode that the server does not have gives invalid-value in copy-config, too")
async def test_copy_config_with_an_unknown_mode(client: Client) -> None:
    await refused(client, copy("running", "startup", mode("nonsense")), "invalid-value", "bad-element")


# Edits ---------------------------------------------------------------------------------------------------------------

MTU = "<interfaces><interface><name>eth0</name><mtu{}>{}</mtu></interface></interfaces>"
CREATE, DELETE = ' nc:operation="create"', ' nc:operation="delete"'
BARE, SET = interfaces("<name>eth0</name>"), interfaces(ETH3.replace("eth3", "eth0"))

rules = partial(case, "6243")

EDITS = [
    rules(
        "2.3.2",
        "create of a default that a client has set",
        SET,
        MTU.format(CREATE, 1500),
        {"explicit": "data-exists", "report-all": "data-exists", "trim": ""},
    ),
    rules(
        "2.3.2",
        "create of a default that the server has set",
        BARE,
        MTU.format(CREATE, 1500),
        {"explicit": "", "report-all": "data-exists", "trim": ""},
    ),
    rules(
        "2.3.3",
        "delete of a default that a client has set",
        SET,
        MTU.format(DELETE, ""),
        {"explicit": "", "report-all": "", "trim": "data-missing"},
    ),
    rules(
        "2.3.3",
        "delete of a default that the server has set",
        BARE,
        MTU.format(DELETE, ""),
        {"explicit": "data-missing", "report-all": "", "trim": "data-missing"},
    ),
]


@pytest.mark.parametrize(("before", "change", "expected"), EDITS)
async def test_edits(client: Client, before: str, change: str, expected: dict[str, str]) -> None:
    """Clauses 2.1.2 to 2.3.3: by the basic mode that the server has."""
    await client.ok(edit(before))
    if tag := expected[basic(client)[0]]:
        await refused(client, edit(change), tag)
    else:
        await client.ok(edit(change))


@rfc("6243", "2.3.1", "a default that a client has set is told, one that it has removed is not")
async def test_a_default_comes_and_goes(client: Client) -> None:
    await client.ok(edit(MTU.format("", 1500)))
    shows(await client.ok(get_config("running", FILTER + mode("explicit"))), SET)
    await client.ok(edit(MTU.format(' nc:operation="remove"', "")))
    shows(await client.ok(get_config("running", FILTER + mode("explicit"))), BARE)


TAG = ' wd:default="{}"'


@rfc("6243", "4.5.2", "an edit may hold tagged defaults: they stay defaults")
@pytest.mark.parametrize("true", ["true", "1"])
async def test_tagged_defaults_in_an_edit(client: Client, true: str) -> None:
    await client.ok(edit(MTU.format(TAG.format(true), 1500)))
    await holds(client, BARE)


@rfc("6243", "4.5.2", "a tagged default takes the place of a value that was set")
async def test_a_tagged_default_resets(client: Client) -> None:
    await client.ok(edit(interfaces(ETH0)))
    await client.ok(edit(MTU.format(TAG.format("true"), 1500)))
    await holds(client, BARE)


@rfc("6243", "4.5.2", "a value with tag false is a value")
async def test_a_false_tag(client: Client) -> None:
    await client.ok(edit(MTU.format(TAG.format("false"), 1500)))
    await holds(client, SET)


@rfc("6243", "4.5.2", "a tagged value that is not the default gives invalid-value")
async def test_a_wrong_tagged_default(client: Client) -> None:
    await refused(client, edit(MTU.format(TAG.format("true"), 1400)), "invalid-value")
    await holds(client, "")


@rfc("6243", "4.5.2", "copy-config with a config may hold tagged defaults")
async def test_tagged_defaults_in_a_copy(client: Client) -> None:
    await client.ok(edit(interfaces(ETH0)))
    (found,) = await client.ok(get_config("running", mode("report-all-tagged")))
    whole = "".join(etree.tostring(one, encoding="unicode") for one in found)
    await client.ok(copy(f"<config>{whole}</config>", "candidate"))
    shows(await client.ok(get_config("candidate", FILTER + mode("explicit"))), interfaces(ETH0))


untestable("6243", "2.1.3", "in a report-all server a deleted default comes back", "the server's basic mode is another")
