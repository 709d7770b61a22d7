"""Filters on a real repository: what they select of it, what they must not tell, and what they must not cost."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator

import pytest
from lxml import etree
from netconf_front import NODE, QKD, Client, Front

from qswitch.protocol.netconf import NMDA

pytestmark = pytest.mark.engine("builtin", reason="the module tests the filters of qkd-netconf")

TYPES = "urn:etsi:qkd:yang:etsi-qkd-node-types"
KEYSTORE = "urn:ietf:params:xml:ns:yang:ietf-keystore"
LINKS = [str(uuid.UUID(int=0x100 + one)) for one in range(500)]

# The monitor may not read the type of links, nor one of the interfaces.
RULES = """
<nacm xmlns="urn:ietf:params:xml:ns:yang:ietf-netconf-acm"><rule-list><name>filtering</name><group>monitor</group>
  <rule><name>type</name><access-operations>read</access-operations><action>deny</action>
    <path xmlns:q="urn:etsi:qkd:yang:etsi-qkd-node">/q:qkd_node/q:qkd_links/q:qkd_link/q:qkdl_type</path></rule>
  <rule><name>entry</name><access-operations>read</access-operations><action>deny</action>
    <path xmlns:q="urn:etsi:qkd:yang:etsi-qkd-node">/q:qkd_node/q:qkd_interfaces/q:qkd_interface[q:qkdi_id='7']</path></rule>
</rule-list></nacm>"""


def node(inside: str) -> str:
    return f'<qkd_node xmlns="{QKD}" xmlns:types="{TYPES}">{inside}</qkd_node>'


def links(inside: str) -> str:
    return node(f"<qkd_links>{inside}</qkd_links>")


def data() -> str:
    entries = "".join(
        f"<qkd_link><qkdl_id>{one}</qkdl_id><qkdl_enable>{'true' if number % 2 else 'false'}</qkdl_enable>"
        f"<qkdl_type>types:{'VIRT' if number == 7 else 'PHYS'}</qkdl_type></qkd_link>"
        for number, one in enumerate(LINKS)
    )
    interfaces = "".join(
        f"<qkd_interface><qkdi_id>{one}</qkdi_id><qkdi_model>model {one}</qkdi_model></qkd_interface>" for one in (7, 8)
    )
    inside = f"<qkdn_id>{NODE}</qkdn_id><qkd_links>{entries}</qkd_links><qkd_interfaces>{interfaces}</qkd_interfaces>"
    return node(inside)


@pytest.fixture(scope="module")
def filled(front: Front) -> Front:
    front.side("apply", RULES)
    front.side("apply", data())
    return front


@pytest.fixture
async def client(filled: Front) -> AsyncIterator[Client]:
    async with filled.connect() as client:
        yield client


@pytest.fixture
async def monitor(filled: Front) -> AsyncIterator[Client]:
    async with filled.connect("monitor") as client:
        yield client


def xpath(select: str) -> str:
    prefixes = f'xmlns:q="{QKD}" xmlns:t="{TYPES}" xmlns:k="{KEYSTORE}"'
    return f'<filter type="xpath" {prefixes} select="{select}"/>'


def subtree(inside: str) -> str:
    return f"<filter>{inside}</filter>"


async def get(client: Client, filter_: str) -> etree._Element:
    (found,) = await client.ok(f"<get-config><source><running/></source>{filter_}</get-config>")
    return found


def ids(found: etree._Element) -> list[str]:
    return [one.text or "" for one in found.iter(f"{{{QKD}}}qkdl_id")]


VIRTUAL = [
    xpath("/q:qkd_node/q:qkd_links/q:qkd_link[q:qkdl_type='t:VIRT']"),
    xpath("//q:qkd_link[q:qkdl_type = 'etsi-qkd-node-types:VIRT' and true()]"),
    xpath("//q:qkd_link[contains(q:qkdl_type, 'VIRT')]/q:qkdl_enable"),
    xpath("//q:qkdl_type[contains(., 'VIRT')]/.."),
    subtree(links("<qkd_link><qkdl_type>types:VIRT</qkdl_type></qkd_link>")),
    subtree(
        links('<qkd_link><qkdl_type xmlns:x="urn:etsi:qkd:yang:etsi-qkd-node-types">x:VIRT</qkdl_type><qkdl_id/></qkd_link>')
    ),
]


@pytest.mark.parametrize("filter_", VIRTUAL)
async def test_what_is_no_key_selects_what_its_reader_may_see(client: Client, monitor: Client, filter_: str) -> None:
    assert ids(await get(client, filter_)) == [LINKS[7]]
    assert len(await get(monitor, filter_)) == 0


@pytest.mark.parametrize(
    "select",
    [
        "/q:qkd_node[starts-with(//k:cleartext-private-key, 'M')]/q:qkdn_id",
        "/q:qkd_node[/k:keystore//k:cleartext-private-key]/q:qkdn_id",
        "/q:qkd_node[string-length(/ietf-keystore:keystore) > 0]/q:qkdn_id",
        "//q:qkdn_id[preceding::k:cleartext-private-key or following::k:cleartext-private-key]",
        "/q:qkd_node[../k:keystore]/q:qkdn_id",
        "(/q:qkd_node[//k:cleartext-private-key] | /q:nothing)/q:qkdn_id",
        f"//q:qkd_link[q:qkdl_id='{LINKS[7]}'][q:qkdl_type='t:VIRT']/q:qkdl_id",
        f"//q:qkd_link[q:qkdl_id='{LINKS[7]}']/q:qkdl_type[.='t:VIRT']",
        "//q:qkd_interface[q:qkdi_id='7']/q:qkdi_model",
        "//q:qkd_interface[q:qkdi_id='7']",
        "//q:qkdi_model[../q:qkdi_id = 7]",
    ],
)
async def test_a_predicate_tells_nothing_of_what_is_hidden(client: Client, monitor: Client, select: str) -> None:
    assert len(await get(client, xpath(select))) == 1
    assert len(await get(monitor, xpath(select))) == 0


@pytest.mark.parametrize(
    "inside",
    [
        node("<qkd_interfaces><qkd_interface><qkdi_id>7</qkdi_id><qkdi_model/></qkd_interface></qkd_interfaces>"),
        node("<qkd_interfaces><qkd_interface><qkdi_model>model 7</qkdi_model></qkd_interface></qkd_interfaces>"),
    ],
)
async def test_a_hidden_entry_is_hidden_from_content_match(client: Client, monitor: Client, inside: str) -> None:
    assert len(await get(client, subtree(inside))) == 1
    assert len(await get(monitor, subtree(inside))) == 0


async def test_get_data_takes_both_filters(client: Client) -> None:
    """RFC 8526 clause 3.1.1; the depth counts from what is selected."""
    names = f'xmlns="{NMDA}" xmlns:ds="urn:ietf:params:xml:ns:yang:ietf-datastores"'
    of = f"<get-data {names}><datastore>ds:running</datastore>{{}}</get-data>"
    selected = f"/q:qkd_node/q:qkd_links[count(q:qkd_link) = {len(LINKS)}]/q:qkd_link[contains(q:qkdl_type, 'VIRT')]"
    path = f'<xpath-filter xmlns:q="{QKD}">{selected}</xpath-filter>'
    (found,) = await client.ok(of.format(path))
    assert ids(found) == [LINKS[7]]
    assert found.find(f".//{{{QKD}}}qkdl_type") is not None
    (found,) = await client.ok(of.format(path + "<max-depth>1</max-depth>"))
    assert ids(found) == [LINKS[7]]
    assert found.find(f".//{{{QKD}}}qkdl_type") is None
    match = links("<qkd_link><qkdl_type>types:VIRT</qkdl_type><qkdl_id/></qkd_link>")
    (found,) = await client.ok(of.format(f"<subtree-filter>{match}</subtree-filter>"))
    assert ids(found) == [LINKS[7]]


async def test_an_attribute_matches_what_is_tagged(client: Client) -> None:
    """RFC 6241 clause 6.2.2, RFC 6243 clause 4.5.2."""
    acm = "urn:ietf:params:xml:ns:yang:ietf-netconf-acm"
    default = "urn:ietf:params:xml:ns:netconf:default:1.0"
    filter_ = f'<filter><nacm xmlns="{acm}"><enable-nacm xmlns:d="{default}" d:default="true"/></nacm></filter>'
    mode = '<with-defaults xmlns="urn:ietf:params:xml:ns:yang:ietf-netconf-with-defaults">report-all-tagged</with-defaults>'
    for wanted, there in (filter_, 1), (filter_.replace('"true"', '"false"'), 0):
        (found,) = await client.ok(f"<get-config><source><running/></source>{wanted}{mode}</get-config>")
        assert len(found.findall(f".//{{{acm}}}enable-nacm")) == there
        assert len(found.findall(f".//{{{acm}}}rule")) == 0


async def test_what_runs_for_ever_is_ended_and_delays_nobody(filled: Front) -> None:
    hostile = xpath("//*[//*[//*[//*[//*[//*]/x]/x]/x]/x]")
    async with filled.connect() as attacker, filled.connect() as other:
        begun = time.monotonic()
        attack = asyncio.create_task(attacker.refused(f"<get-config><source><running/></source>{hostile}</get-config>"))
        answered = 0
        while not attack.done():
            asked = time.monotonic()
            assert len(ids(await get(other, subtree(links("<qkd_link><qkdl_id/></qkd_link>"))))) == len(LINKS)
            assert ids(await get(other, VIRTUAL[2])) == [LINKS[7]]
            assert time.monotonic() - asked < 2
            answered += 1
        assert (await attack).tag == "resource-denied"
        assert time.monotonic() - begun < 10
        assert answered > 3
        assert ids(await get(attacker, VIRTUAL[1])) == [LINKS[7]]


async def test_events_are_filtered_by_any_expression(filled: Front, client: Client) -> None:
    link = "<qkd_link><qkdl_id>{}</qkdl_id><reason>{}</reason></qkd_link>"
    event = f'<sdqkdn_link_down xmlns="{QKD}">{link}</sdqkdn_link_down>'
    select = xpath("/q:sdqkdn_link_down[starts-with(q:qkd_link/q:reason, 'fire')]")
    await client.ok(
        f'<create-subscription xmlns="urn:ietf:params:xml:ns:netconf:notification:1.0">{select}</create-subscription>'
    )
    for identifier, reason in zip(LINKS, ("flood", "fire", "storm", "fire brigade"), strict=False):
        filled.side("notify", event.format(identifier, reason))
    assert [b"fire<" in await client.receive(), b"fire brigade<" in await client.receive()] == [True, True]


@pytest.mark.parametrize(
    "select",
    [
        "/q:qkd_node/q:qkdn_id",
        f"/q:qkd_node/q:qkd_links/q:qkd_link[q:qkdl_id='{LINKS[3]}']",
        f"//q:qkd_link[q:qkdl_id='{LINKS[3]}']/q:qkdl_enable",
        "//q:qkd_link/q:qkdl_enable | //q:qkd_interface",
        "/q:qkd_node/*/q:qkd_interface[q:qkdi_id='8']/q:qkdi_model[.='model 8']",
        "/q:qkd_node/q:nothing",
        "//q:*",
    ],
)
async def test_sysrepo_selects_what_an_evaluated_filter_does(client: Client, select: str) -> None:
    plain, evaluated = await get(client, xpath(select)), await get(client, xpath(f"({select})[true()]"))
    assert etree.tostring(plain, method="c14n") == etree.tostring(evaluated, method="c14n")
