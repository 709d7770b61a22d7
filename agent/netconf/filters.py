"""NETCONF filters (RFC 6241 clauses 6 and 8.9) that look only at data which access control has let through.

Sysrepo applies NACM to what an XPath selects, not to what its predicates look at. So it is asked for a superset, `xpath`,
whose predicates are on list keys alone (which are in all that it shows of an entry) or on the selected leaf itself. Most
filters are no more than that. For the others, the filter is evaluated on the XML that sysrepo printed.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from math import inf

from lxml import etree

from qswitch.protocol.netconf import BASE, split_name

from . import selection
from .errors import refused
from .evaluation import Evaluators
from .selection import Query, canonical
from .superset import Names, Node, Superset
from .xpath import Expression

log = logging.getLogger(__name__)

_MOST_HERE = 128  # elements of a subtree filter that is evaluated in this process
_MOST_ELEMENTS = 10_000  # of any subtree filter

_FILTER = ("bad-element", "filter")

evaluators = Evaluators()
subscribers = Evaluators()  # their own: who is busy with operations must end nobody's subscription


@dataclass(frozen=True, slots=True)
class Filter:
    """What a filter selects."""

    xpath: str | None  # for sysrepo: a superset; None: nothing
    exact: bool = True  # whether it is no more than what is selected
    _query: Query | None = None  # None: selects everything
    _names: Names | None = None
    costly: bool = False  # what it takes to evaluate is for the client to decide

    @classmethod
    def everything(cls) -> "Filter":
        return cls("/*")

    def narrow(self, data: bytes, depth: int = 0) -> bytes:
        """Of top-level nodes as XML, what is selected, with its ancestors and their list keys. Blocks; raises RpcFailed.

        `depth`: levels of what is selected (RFC 8526 clause 3.1.1), 0 for all; of no account where the filter is exact.
        """
        if self.exact or self._names is None or not data:
            return data
        return _keep(data, self._select(data, evaluators), self._names, depth or inf)

    def matches(self, event: bytes) -> bool:
        """Whether anything is selected in a notification (RFC 5277 clause 2.1.1). Blocks; raises RpcFailed."""
        if self.xpath is None or self._query is None:
            return self.xpath is not None
        return bool(self._select(event, subscribers))

    def _select(self, data: bytes, where: Evaluators) -> list[int]:
        assert self._query is not None
        return where.select(self._query, data) if self.costly else selection.select(self._query, data)


def parse(element: etree._Element, names: Names) -> Filter:
    """The filter of a `filter` or `subtree-filter` element. Raises RpcFailed for what is none."""
    kind = element.get("type") or element.get(f"{{{BASE}}}type") or "subtree"
    if kind == "xpath":
        select = element.get("select") or element.get(f"{{{BASE}}}select")
        if not select:
            raise refused("missing-attribute", "an xpath filter needs 'select'", ("bad-attribute", "select"), _FILTER)
        if len(element):
            raise refused("unknown-element", "an xpath filter is empty", ("bad-element", split_name(element[0])[1]))
        return parse_xpath(select, element, names)
    if kind != "subtree":
        raise refused("bad-attribute", f"there is no filter type '{kind}'", ("bad-attribute", "type"), _FILTER)
    size = sum(1 for _ in element.iter())
    if size > _MOST_ELEMENTS:
        raise refused("too-big", f"a filter has at most {_MOST_ELEMENTS} elements")
    superset = Superset(names)
    superset.add_subtrees(element)
    query = Query(etree.tostring(element, encoding="unicode", with_tail=False), None, names.modules)
    return Filter(superset.xpath, superset.exact, query, names, size > _MOST_HERE)


def parse_xpath(text: str, element: etree._Element, names: Names) -> Filter:
    """The filter of an XPath 1.0 expression; the element has its prefixes in scope. Raises RpcFailed `invalid-value`."""

    def namespace_of(prefix: str) -> str:
        return element.nsmap.get(prefix) or names.namespaces.get(prefix, "")

    def literal(value: str) -> str:
        return canonical(value, element.nsmap, names.modules)

    if text.strip() in ("/", "/*", "//*"):
        return Filter.everything()
    expression = Expression(text, namespace_of, literal)
    superset = Superset(names)
    plain = superset.add_xpath(text, expression)
    query = Query(expression.text, expression.namespaces, names.modules)
    return Filter(superset.xpath, superset.exact, query, names, not plain)


def _keep(data: bytes, numbers: Iterable[int], names: Names, depth: float) -> bytes:
    """Of what is selected `depth` levels, with its ancestors and the keys of list entries."""
    root = selection.parse(data)
    elements = list(root.iterdescendants(etree.Element))
    chosen = {elements[number] for number in numbers}
    above = {one for element in chosen for one in element.iterancestors()}

    def prune(parent: etree._Element, node: Node, levels: float) -> None:
        for child in list(parent):
            namespace, name = split_name(child)
            below = depth - 1 if child in chosen else levels - 1
            if levels < 1 and child not in chosen and child not in above:
                if name not in node.keys:
                    parent.remove(child)
            elif below < inf:
                prune(child, node.children.get(name, {}).get(names.module(namespace), Node()), below)

    prune(root, names.top, 0)
    return b"".join(etree.tostring(child, encoding="UTF-8") for child in root)
