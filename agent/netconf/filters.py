"""NETCONF filters (RFC 6241 clauses 6 and 8.9) that look only at data which access control has let through.

Sysrepo applies NACM to what an XPath selects, not to what its predicates look at. So it is asked for a superset, `xpath`,
whose predicates are on list keys alone (which are in all that it shows of an entry) or on the selected leaf itself. Most
filters are no more than that. For the others, the filter is evaluated on the XML that sysrepo printed.
"""

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import inf

from lxml import etree

from qswitch.protocol.netconf import BASE, RpcError, RpcFailed, split_name

from . import selection
from .evaluation import Evaluators
from .selection import Query, canonical, is_content_match
from .xpath import Expression

log = logging.getLogger(__name__)

_MOST_PATHS = 256  # in what sysrepo is asked for; beyond, that is whole top-level nodes
_MOST_HERE = 128  # elements of a subtree filter that is evaluated in this process
_MOST_ELEMENTS = 10_000  # of any subtree filter

# The location paths that most clients send, `/a/b[c='d']/e` or `//b[c='d']`, several joined by `|`: fast wherever they run.
_NAME = r"(?:[A-Za-z_][\w.-]*:)?(?:[A-Za-z_][\w.-]*|\*)"
_PREDICATE = re.compile(rf"""\[\s*({_NAME}|\.)\s*=\s*("[^"]*"|'[^']*')\s*\]""")
_STEP = re.compile(rf"({_NAME})((?:{_PREDICATE.pattern})*)")
_PATH = re.compile(rf"\s*(//?)({_STEP.pattern}(?:/{_STEP.pattern})*)\s*(?:\||$)")
_PATHS = re.compile(rf"(?:{_PATH.pattern})+")

_evaluators = Evaluators()


@dataclass(frozen=True, slots=True)
class Node:
    """A schema node as data show it: choices and cases are not there."""

    children: Mapping[str, Mapping[str, "Node"]] = field(default_factory=dict)  # name -> module -> node
    keys: frozenset[str] = frozenset()
    leaf: bool = False  # or leaf-list
    opaque: bool = False  # anydata, anyxml
    event: bool = False  # a notification, or in one

    def find(self, module: str, name: str) -> Iterator[tuple[str, str, "Node"]]:
        """Children, with module and name; "" is any module, "*" any name."""
        named = self.children if name == "*" else (name,)
        found = ((owner, one, node) for one in named for owner, node in self.children.get(one, {}).items())
        return (one for one in found if module in ("", one[0]))


@dataclass(frozen=True, slots=True)
class Names:
    """What a filter needs to know of the schema."""

    modules: Mapping[str, str]  # namespace -> name, of implemented modules
    namespaces: Mapping[str, str]  # name -> namespace
    top: Node  # above all top-level nodes

    def modules_with(self, name: str) -> tuple[str, ...]:
        """Modules that have a top-level node of the name."""
        return tuple(self.top.children.get(name, ()))

    def module(self, namespace: str) -> str:
        """Of what a filter names: "" for any, and a name that no module has where there is no such module."""
        return self.modules.get(namespace, "?") if namespace else ""


@dataclass(frozen=True, slots=True)
class Filter:
    """What a filter selects."""

    xpath: str | None  # for sysrepo: a superset; None: nothing
    exact: bool = True  # whether it is no more than what is selected
    _query: Query | None = None  # None: selects everything
    _names: Names | None = None
    _costly: bool = False  # what it takes to evaluate is for the client to decide

    @classmethod
    def everything(cls) -> "Filter":
        return cls("/*")

    def narrow(self, data: bytes, depth: int = 0) -> bytes:
        """Of top-level nodes as XML, what is selected, with its ancestors and their list keys. Blocks; raises RpcFailed.

        `depth`: levels of what is selected (RFC 8526 clause 3.1.1), 0 for all; of no account where the filter is exact.
        """
        if self.exact or self._names is None or not data:
            return data
        return _keep(data, self._select(data), self._names, depth or inf)

    def matches(self, event: bytes) -> bool:
        """Whether anything is selected in a notification (RFC 5277 clause 2.1.1). Blocks; never raises."""
        if self.xpath is None or self._query is None:
            return self.xpath is not None
        try:
            return bool(self._select(event))
        except RpcFailed as error:
            log.warning("a notification is withheld, its filter cannot be evaluated", extra={"error": str(error)})
            return False

    def _select(self, data: bytes) -> list[int]:
        assert self._query is not None
        return _evaluators.select(self._query, data) if self._costly else selection.select(self._query, data)


def parse(element: etree._Element, names: Names) -> Filter:
    """The filter of a `filter` or `subtree-filter` element. Raises RpcFailed for what is none."""
    kind = element.get("type") or element.get(f"{{{BASE}}}type") or "subtree"
    if kind == "xpath":
        select = element.get("select") or element.get(f"{{{BASE}}}select")
        if not select:
            raise _bad("missing-attribute", "an xpath filter needs 'select'", ("bad-attribute", "select"))
        if len(element):
            raise _bad("unknown-element", "an xpath filter is empty", ("bad-element", split_name(element[0])[1]))
        return parse_xpath(select, element, names)
    if kind != "subtree":
        raise _bad("bad-attribute", f"there is no filter type '{kind}'", ("bad-attribute", "type"))
    size = sum(1 for _ in element.iter())
    if size > _MOST_ELEMENTS:
        raise _bad("too-big", f"a filter has at most {_MOST_ELEMENTS} elements")
    superset = _Superset(names)
    superset.add_subtrees(element)
    query = Query(etree.tostring(element, encoding="unicode", with_tail=False), None, names.modules)
    return superset.filter(query, costly=size > _MOST_HERE)


def parse_xpath(text: str, element: etree._Element, names: Names) -> Filter:
    """The filter of an XPath 1.0 expression; the element has its prefixes in scope. Raises RpcFailed `invalid-value`."""

    def namespace_of(prefix: str) -> str:
        return element.nsmap.get(prefix) or names.namespaces.get(prefix, "")

    def literal(value: str) -> str:
        return canonical(value, element.nsmap, names.modules)

    if text.strip() in ("/", "/*", "//*"):
        return Filter.everything()
    expression = Expression(text, namespace_of, literal)
    superset, plain = _Superset(names), _PATHS.fullmatch(text) is not None
    if not plain or not all(superset.add_path(path, expression) for path in _PATH.finditer(text)):
        superset.add_roots(expression)
    return superset.filter(Query(expression.text, expression.namespaces, names.modules), costly=not plain)


def _bad(tag: str, message: str, *info: tuple[str, str]) -> RpcFailed:
    return RpcFailed(
        RpcError(tag, message, "protocol", info=(*info, *((("bad-element", "filter"),) if "attr" in tag else ())))
    )


@dataclass(slots=True)
class _Superset:
    """Paths of libyang that hold all that a filter can select or look at."""

    names: Names
    paths: list[str] = field(default_factory=list)
    exact: bool = True

    def filter(self, query: Query, *, costly: bool) -> Filter:
        if len(self.paths) > _MOST_PATHS:
            self.paths, self.exact = [f"/{path.split('/')[1].split('[')[0]}" for path in self.paths], False
        xpath = " | ".join(dict.fromkeys(self.paths)) or None
        return Filter(xpath, self.exact, query, self.names, costly)

    def _whole(self, *paths: str) -> None:
        """What is below tells, not the path."""
        self.paths += paths
        self.exact = False

    def add_subtrees(self, filters: Iterable[etree._Element]) -> None:
        for namespace, siblings in selection.by_namespace(filters).items():
            module = self.names.module(namespace)
            if any(map(is_content_match, siblings)):
                self._whole(*(f"/{owner}:{name}" for owner, name, _ in self.names.top.find(module, "*")))
                continue
            for one in siblings:
                for owner, name, node in self.names.top.find(module, split_name(one)[1]):
                    self._add_subtree(one, f"/{owner}:{name}", owner, node)

    def _add_subtree(self, one: etree._Element, path: str, module: str, node: Node) -> None:
        if one.attrib or (node.opaque and len(one)):
            return self._whole(path)
        found = [(child, list(node.find(self.names.module(of), name))) for child in one for of, name in [split_name(child)]]
        keys = [name for child, places in found if is_content_match(child) for _, name, _ in places]
        for child, places in found:
            if is_content_match(child):
                text = canonical((child.text or "").strip(), child.nsmap, self.names.modules)
                quote = '"' if "'" in text else "'"
                if child.attrib or quote in text or len(places) != 1 or places[0][1] not in node.keys:
                    return self._whole(path)
                path += f"[{places[0][1]}={quote}{text}{quote}]"
        others = [(child, places) for child, places in found if not is_content_match(child)]
        self.paths += [f"{path}/{key}" for key in keys] if others else [path]
        for child, places in others:
            for owner, name, below in places:
                self._add_subtree(child, f"{path}/{_step(owner, name, module)}", owner, below)
        return None

    def add_roots(self, expression: Expression) -> None:
        """Everything that an expression may look at."""
        self.paths, roots = [], expression.roots
        if roots is None:
            return self._whole("/*")
        for root in sorted(roots):
            module, name = self._test(root, expression)
            self._whole(*(f"/{owner}:{name}" for owner, _, _ in self.names.top.find(module, name)))
        return None

    def add_path(self, path: re.Match[str], expression: Expression) -> bool:
        """Of one location path, unless that is too many."""
        states = [("", "", self.names.top)]
        if path[1] == "//":
            states = list(_below(*states[0]))
        for step in _STEP.finditer(path[2]):
            module, name = self._test(step[1], expression)
            states = [
                (f"{above}/{_step(owner, found, over)}", owner, node)
                for above, over, parent in states
                for owner, found, node in parent.find(module, name)
            ]
            if len(states) > _MOST_PATHS:
                return False
            for child, value in _PREDICATE.findall(step[2]):
                where = child.rpartition(":")[2]
                if not all(node.event or (node.leaf if child == "." else where in node.keys) for _, _, node in states):
                    self._whole(*(place for place, _, _ in states))
                    return True
                literal = value[0] + expression.canonical(value[1:-1]) + value[0]
                states = [(f"{place}[{where}={literal}]", owner, node) for place, owner, node in states]
        self.paths += [place for place, _, _ in states]
        return True

    def _test(self, test: str, expression: Expression) -> tuple[str, str]:
        """Module and name; a name without a prefix is of any module."""
        prefix, _, name = test.rpartition(":")
        return self.names.module(expression.namespaces[prefix]) if prefix else "", name


def _below(path: str, module: str, node: Node) -> Iterator[tuple[str, str, Node]]:
    yield path, module, node
    for owner, name, child in node.find("", "*"):
        yield from _below(f"{path}/{_step(owner, name, module)}", owner, child)


def _step(module: str, name: str, above: str) -> str:
    return name if module == above else f"{module}:{name}"


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
                found = node.find(names.module(namespace), name)
                prune(child, next((one for _, _, one in found), Node()), below)

    prune(root, names.top, 0)
    return b"".join(etree.tostring(child, encoding="UTF-8") for child in root)
