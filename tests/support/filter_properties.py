"""What holds of every filter that the server takes: what sysrepo gives when asked for its `xpath`, narrowed, is what the
filter selects of all data. The schemas are a node's, in a libyang context without a repository.
"""

import dataclasses
import uuid
from collections.abc import Iterator

import libyang
from lxml import etree

from qswitch import yang
from qswitch.agent.netconf import filters
from qswitch.agent.netconf.schema import Schema
from qswitch.protocol.netconf import NetconfError, RpcFailed, parse_xml

QKD = yang.NAMESPACES[yang.NODE]
MODULES = (*yang.QKD, *map(yang.Module, ("ietf-netconf-acm", "ietf-netconf", "ietf-netconf-with-defaults")))
_LINK = (
    "<qkd_link><qkdl_id>{}</qkdl_id><qkdl_enable>{}</qkdl_enable><qkdl_local><qkdn_id>{}</qkdn_id></qkdl_local>"
    "<qkdl_type xmlns:t='urn:etsi:qkd:yang:etsi-qkd-node-types'>t:VIRT</qkdl_type></qkd_link>"
)


def _context() -> libyang.Context:
    context = libyang.Context(":".join(map(str, yang.SEARCH)))
    for module in MODULES:
        context.load_module(module.name).feature_enable_all()
    return context


CONTEXT = _context()
SCHEMA = Schema(CONTEXT, "1")
NAMES = SCHEMA.names
ID = uuid.UUID(int=0xA)
DATA = (
    f'<qkd_node xmlns="{QKD}"><qkdn_id>{ID}</qkdn_id><qkdn_location_id>a\'b</qkdn_location_id><qkd_links>'
    + "".join(_LINK.format(uuid.UUID(int=0x11 + i), ("true", "false")[i % 2], ID) for i in range(3))
    + '</qkd_links></qkd_node><nacm xmlns="urn:ietf:params:xml:ns:yang:ietf-netconf-acm"><groups>'
    "<group><name>a</name><user-name>x</user-name><user-name>y</user-name></group></groups></nacm>"
).encode()
TREE = CONTEXT.parse_data_mem(DATA.decode(), "xml", parse_only=True)
_ALL = [node.path() for top in TREE.siblings() for node in top.iter_tree()]  # in document order


def check_filter(message: bytes) -> None:
    """Reads a `filter` element and, if it is taken, uses it."""
    try:
        found = filters.parse(parse_xml(message), NAMES)
    except NetconfError:
        return
    given = _given(found.xpath)
    try:
        narrowed, selected = found.narrow(given), dataclasses.replace(found, exact=False).narrow(DATA)
    except RpcFailed:
        return
    assert _same(narrowed) == _same(selected), (found.xpath, narrowed, selected)
    assert found.matches(DATA) == bool(selected)


def _given(xpath: str | None) -> bytes:
    """What sysrepo gives when it is asked: what is found, with what is below, its ancestors and their keys."""
    if xpath is None:
        return b""
    paths = set(_paths(xpath))
    root = etree.fromstring(b"<data>%b</data>" % DATA)
    for element, path in zip(list(root.iterdescendants()), _ALL, strict=True):
        parent = element.getparent()
        if path not in paths and parent is not None:
            parent.remove(element)
    return b"".join(etree.tostring(one) for one in root)


def _paths(xpath: str) -> Iterator[str]:
    for node in TREE.find_all(xpath):
        yield from (one.path() for one in node.iter_tree())
        above = node.parent()
        while above is not None:
            yield above.path()
            yield from (one.path() for one in above if _is_key(one))
            above = above.parent()


def _is_key(node: libyang.DNode) -> bool:
    schema = node.schema()
    return isinstance(schema, libyang.SLeaf) and schema.is_key()


def _same(data: bytes) -> bytes:
    return etree.tostring(etree.fromstring(b"<data>%b</data>" % data), method="c14n", exclusive=True)
