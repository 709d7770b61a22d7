"""Origins of operational data (RFC 8342 clause 5.3.4, RFC 8526 clause 3.1.1): which nodes a get-data keeps by them.

State has no origin and is kept; sysrepo gives it one. A node without an origin of its own has its parent's. What is left
out takes nothing with it that is kept below it, and what is kept keeps the keys of the list entries it is in.
"""

from collections.abc import Iterable, Sequence
from functools import cache

import libyang
from libyang.schema import SList, SNode
from lxml import etree

from qswitch.protocol.netconf import split_name

from .errors import refused
from .schema import Schema

NAMESPACE = "urn:ietf:params:xml:ns:yang:ietf-origin"
_ORIGIN = f"{{{NAMESPACE}}}origin"
_UNKNOWN = ("ietf-origin", "unknown")

Identity = tuple[str, str]  # module, name


class Origins:
    """What one get-data asks of origins."""

    def __init__(self, context: libyang.Context, schema: Schema, *, negated: bool = False, shown: bool = False) -> None:
        """`shown`: whether what is kept shows its origin. Until origins are named, everything is kept."""
        self._named: set[Identity] | None = None
        self._negated, self._shown = negated, shown
        self._context, self._schema = context, schema
        self._node = cache(self._find)

    def name(self, elements: Sequence[etree._Element]) -> None:
        """Keeps configuration of these origins, and of those derived from them, or of no such one if negated.

        Raises RpcFailed `invalid-value`.
        """
        self._named = {found for one in elements for found in self._derived(one)}

    def keep(self, data: bytes) -> bytes:
        """Of top-level nodes with their origins, what qualifies."""
        root = etree.fromstring(b"<data>%b</data>" % data)
        for child in list(root):
            self._walk(child, "", _UNKNOWN)
        return b"".join(etree.tostring(child, encoding="UTF-8") for child in root)

    def _walk(self, node: etree._Element, above: str, inherited: Identity) -> bool:
        """Removes the node unless it, or something below it, is kept."""
        namespace, name = split_name(node)
        path = f"{above}/{self._schema.module_of(namespace)}:{name}"
        schema = self._node(path)
        if schema is None or schema.config_false():
            _hide(node.iter())
            return True
        origin = self._identity(node, node.get(_ORIGIN)) if _ORIGIN in node.attrib else inherited
        keys = set(map(SNode.name, schema.keys() if isinstance(schema, SList) else ()))
        below = [self._walk(child, path, origin) for child in list(node) if split_name(child)[1] not in keys]
        kept = any(below) or (_has_origin(schema) and self._suits(origin))
        if not kept and (parent := node.getparent()) is not None:
            parent.remove(node)
        if not self._shown:
            _hide([node, *(child for child in node if split_name(child)[1] in keys)])
        return kept

    def _suits(self, origin: Identity) -> bool:
        return self._named is None or (origin in self._named) is not self._negated

    def _identity(self, element: etree._Element, value: str | None) -> Identity:
        prefix, _, name = (value or "").strip().rpartition(":")
        return self._schema.module_of(element.nsmap.get(prefix or None) or "") or prefix, name

    def _derived(self, element: etree._Element) -> set[Identity]:
        module, name = self._identity(element, element.text)
        try:
            known = [one for one in self._context.get_module(module).identities() if one.name() == name]
        except libyang.LibyangError:
            known = []
        if not known or (module, name) not in _below(_root(self._context)):
            raise refused("invalid-value", f"'{element.text}' is no origin", ("bad-element", split_name(element)[1]))
        return _below(known[0])

    def _find(self, path: str) -> SNode | None:
        try:
            return next(self._context.find_path(path))
        except libyang.LibyangError:
            return None


def _root(context: libyang.Context) -> libyang.Identity:
    return next(one for one in context.get_module("ietf-origin").identities() if one.name() == "origin")


def _below(identity: libyang.Identity) -> set[Identity]:
    """An identity and all that are derived from it."""
    here = (identity.module().name(), identity.name())
    return {here}.union(*(_below(one) for one in identity.derived()))


def _has_origin(node: SNode) -> bool:
    """All configuration has one but containers that only hold together what is in them."""
    return node.nodetype() != SNode.CONTAINER or bool(node.presence())


def _hide(elements: Iterable[etree._Element]) -> None:
    for one in elements:
        one.attrib.pop(_ORIGIN, "")
