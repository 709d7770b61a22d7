"""NETCONF operations that are good XML and nothing else: real ones, changed here and there by seeded dice."""

import copy
import random

from lxml import etree

from qswitch.protocol.netconf import BASE, MONITORING, NMDA, NOTIFICATION, YANG

QKD = "urn:etsi:qkd:yang:etsi-qkd-node"
_LINK = "<qkd_link><qkdl_id>00000000-0000-0000-0000-000000000099</qkdl_id><qkdl_type>t:VIRT</qkdl_type></qkd_link>"
_NODE = (
    f'<qkd_node xmlns="{QKD}" xmlns:t="urn:etsi:qkd:yang:etsi-qkd-node-types">'
    f"<qkdn_id>00000000-0000-0000-0000-00000000000a</qkdn_id><qkd_links>{_LINK}</qkd_links></qkd_node>"
)
_XPATH = "/q:qkd_node/q:qkd_links/q:qkd_link[q:qkdl_id='00000000-0000-0000-0000-000000000099']/q:qkdl_type"
_DS = 'xmlns:ds="urn:ietf:params:xml:ns:yang:ietf-datastores"'
_WITH = "urn:ietf:params:xml:ns:yang:ietf-netconf-with-defaults"

OPERATIONS = [
    f"<get><filter>{_NODE}</filter></get>",
    f'<get><filter type="xpath" xmlns:q="{QKD}" select="{_XPATH}"/>'
    f'<with-defaults xmlns="{_WITH}">trim</with-defaults></get>',
    f"<get-config><source><candidate/></source><filter>{_NODE}</filter></get-config>",
    f"<edit-config><target><candidate/></target><default-operation>none</default-operation><test-option>set</test-option>"
    f"<error-option>stop-on-error</error-option><config>{_NODE}</config></edit-config>",
    f"<edit-config><target><running/></target><error-option>rollback-on-error</error-option><config>{_NODE}</config>"
    "</edit-config>",
    f"<copy-config><target><candidate/></target><source><config>{_NODE}</config></source></copy-config>",
    "<copy-config><target><candidate/></target><source><running/></source></copy-config>",
    "<lock><target><candidate/></target></lock>",
    "<unlock><target><candidate/></target></unlock>",
    f"<validate><source><config>{_NODE}</config></source></validate>",
    "<validate><source><candidate/></source></validate>",
    "<commit><confirmed/><confirm-timeout>1</confirm-timeout><persist>p</persist><persist-id>p</persist-id></commit>",
    "<commit/>",
    "<cancel-commit><persist-id>p</persist-id></cancel-commit>",
    "<discard-changes/>",
    "<kill-session><session-id>4000000000</session-id></kill-session>",
    f'<get-schema xmlns="{MONITORING}"><identifier>ietf-yang-types</identifier><version>2013-07-15</version>'
    "<format>yang</format></get-schema>",
    f'<create-subscription xmlns="{NOTIFICATION}"><stream>NETCONF</stream><filter>{_NODE}</filter>'
    "<startTime>2026-11-25T00:00:00Z</startTime><stopTime>2026-11-26T00:00:00+01:00</stopTime></create-subscription>",
    f'<get-data xmlns="{NMDA}" {_DS}><datastore>ds:operational</datastore><subtree-filter>{_NODE}</subtree-filter>'
    "<config-filter>true</config-filter><max-depth>3</max-depth><with-origin/></get-data>",
    f'<get-data xmlns="{NMDA}" {_DS} xmlns:q="{QKD}"><datastore>ds:running</datastore>'
    f"<xpath-filter>{_XPATH}</xpath-filter></get-data>",
    f'<edit-data xmlns="{NMDA}" {_DS}><datastore>ds:candidate</datastore><config>{_NODE}</config></edit-data>',
    f'<action xmlns="{YANG}">{_NODE}</action>',
    '<factory-reset xmlns="urn:ietf:params:xml:ns:yang:ietf-factory-default"/>',
]

_TEXTS = [
    *("", " ", "x", "-1", "0", "99999999999999999999", "\u2028\U0001d518", "'\"", "x" * 99999, "t:VIRT", "no:prefix"),
    *(
        "running",
        "ds:running",
        "ds:operational",
        "ds:factory-default",
        "replace",
        "none",
        "test-only",
        "test-then-set",
        "continue-on-error",
    ),
    *("rollback-on-error", "report-all-tagged", "false", "yin", "unbounded", "//q:qkdl_id | /q:x", "2027-01-01T00:00:00Z"),
]
_NAMES = [
    "config",
    "running",
    "startup",
    "qkd_node",
    "qkd_link",
    "qkdl_id",
    "filter",
    "target",
    "x",
    "sdqkdn_link_down",
    "confirmed",
]
_SPACES = ["", BASE, QKD, NMDA, YANG, "urn:none"]
_ATTRIBUTES = [
    *((f"{{{BASE}}}operation", one) for one in ("create", "delete", "remove", "replace", "merge", "", "x")),
    *((f"{{{YANG}}}insert", one) for one in ("first", "last", "before", "after", "x")),
    *((f"{{{YANG}}}{name}", "[qkdl_id='x']") for name in ("key", "value")),
    *(("type", one) for one in ("xpath", "subtree", "x")),
    *(("select", one) for one in ("/", "//*", "/qkd_node[", "1", "$x", "/a:b", "")),
    ("{urn:none}x", "x"),
]


def strange(dice: random.Random) -> bytes:
    """An operation that may be anything."""
    root = etree.fromstring(f'<rpc xmlns="{BASE}">{dice.choice(OPERATIONS)}</rpc>')
    for _ in range(dice.randrange(1, 5)):
        _change(dice, root)
    return b"".join(etree.tostring(one, with_tail=False) for one in root[:1])


def _change(dice: random.Random, root: etree._Element) -> None:
    nodes = list(root.iterdescendants())
    if not nodes:
        return
    node, other = dice.choice(nodes), dice.choice(nodes)
    parent = node.getparent()
    assert parent is not None
    match dice.randrange(8):
        case 0 if parent is not root:
            parent.remove(node)
        case 1:
            parent.insert(dice.randrange(len(parent) + 1), copy.deepcopy(node))
        case 2:
            node.text = dice.choice(_TEXTS)
        case 3:
            node.set(*dice.choice(_ATTRIBUTES))
        case 4:
            node.tag = f"{{{dice.choice(_SPACES)}}}{etree.QName(node).localname}".replace("{}", "")
        case 5:
            node.tag = f"{{{etree.QName(node).namespace or BASE}}}{dice.choice(_NAMES)}"
        case 6:
            node.append(copy.deepcopy(other))
        case _:
            other.text, node.text = node.text, other.text
