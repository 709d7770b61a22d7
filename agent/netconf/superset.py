"""What sysrepo is asked for in place of a filter: paths that hold all it can select or look at, by list keys alone.

The names in a filter are looked up in the schema, so that sysrepo reads no module in vain.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from lxml import etree

from qswitch.protocol.netconf import split_name

from .selection import by_namespace, canonical, is_content_match
from .xpath import Expression

_MOST_PATHS = 2048  # beyond, sysrepo is asked for whole top-level nodes

# The location paths that most clients send, `/a/b[c='d']/e` or `//b[c='d']`, several joined by `|`: fast wherever they run.
_NAME = r"(?:[A-Za-z_][\w.-]*:)?(?:[A-Za-z_][\w.-]*|\*)"
_PREDICATE = re.compile(rf"""\[\s*({_NAME}|\.)\s*=\s*("[^"]*"|'[^']*')\s*\]""")
_STEP = re.compile(rf"({_NAME})((?:{_PREDICATE.pattern})*)")
_PATH = re.compile(rf"\s*(//?)({_STEP.pattern}(?:/{_STEP.pattern})*)\s*(?:\||$)")
_PATHS = re.compile(rf"(?:{_PATH.pattern})+")


@dataclass(frozen=True, slots=True)
class Node:
    """A schema node as data show it: choices and cases are not there."""

    children: Mapping[str, Mapping[str, "Node"]] = field(default_factory=dict)  # name -> module -> node
    keys: frozenset[str] = frozenset()
    leaf: bool = False  # or leaf-list
    opaque: bool = False  # anydata, anyxml
    event: bool = False  # a notification, or in one


@dataclass(frozen=True, slots=True)
class _Place:
    """A schema node, and the path of libyang to its instances."""

    node: Node
    path: str = ""
    module: str = ""
    name: str = ""

    def find(self, module: str, name: str) -> "list[_Place]":
        """Children; "" is any module, "*" any name."""
        return [
            _Place(node, f"{self.path}/{one if owner == self.module else f'{owner}:{one}'}", owner, one)
            for one in (self.node.children if name == "*" else (name,))
            for owner, node in self.node.children.get(one, {}).items()
            if module in ("", owner)
        ]

    def told_by(self, module: str, child: str) -> bool:
        """Whether to compare a child, or `.`, tells no more than what is shown of the node anyway."""
        return self.node.leaf if child == "." else child in self.node.keys and module in ("", self.module)

    def where(self, child: str, literal: str) -> "_Place":
        return replace(self, path=f"{self.path}[{child}={literal}]")

    def below(self) -> "Iterator[_Place]":
        for child in self.find("", "*"):
            yield child
            yield from child.below()


@dataclass(frozen=True)
class Names:
    """What a filter needs to know of the schema."""

    modules: Mapping[str, str]  # namespace -> name, of implemented modules
    namespaces: Mapping[str, str]  # name -> namespace
    top: Node  # above all top-level nodes

    def modules_with(self, name: str) -> tuple[str, ...]:
        """Modules that have a top-level node of the name."""
        return tuple(self.top.children.get(name, ()))

    @cached_property
    def everywhere(self) -> tuple[_Place, ...]:
        """Every node but the top."""
        return tuple(_Place(self.top).below())

    def module(self, namespace: str) -> str:
        """Of what a filter names: "" for any, and a name that no module has where there is no such module."""
        return self.modules.get(namespace, "?") if namespace else ""


@dataclass(slots=True)
class Superset:
    """Paths of libyang that hold all that a filter can select or look at."""

    names: Names
    paths: list[str] = field(default_factory=list)
    exact: bool = True

    @property
    def xpath(self) -> str | None:
        return " | ".join(dict.fromkeys(self.paths)) or None

    def add_subtrees(self, filters: Iterable[etree._Element]) -> None:
        """Those of a subtree filter."""
        for namespace, siblings in by_namespace(filters).items():
            module = self.names.module(namespace)
            if any(map(is_content_match, siblings)):
                self._whole(_Place(self.names.top).find(module, "*"))
                continue
            for one in siblings:
                for place in _Place(self.names.top).find(module, split_name(one)[1]):
                    self._add_subtree(one, place)
        if len(self.paths) > _MOST_PATHS:
            self.paths, self.exact = [f"/{path.split('/')[1].split('[')[0]}" for path in self.paths], False

    def _add_subtree(self, one: etree._Element, place: _Place) -> None:
        if one.attrib or (place.node.opaque and len(one)):
            return self._whole([place])
        found = [(child, place.find(self.names.module(of), name)) for child in one for of, name in [split_name(child)]]
        matches = [(child, places) for child, places in found if is_content_match(child)]
        for child, places in matches:
            text = canonical((child.text or "").strip(), child.nsmap, self.names.modules)
            quote = '"' if "'" in text else "'"
            if child.attrib or quote in text or len(places) != 1 or places[0].name not in place.node.keys:
                return self._whole([place])
            place = place.where(places[0].name, quote + text + quote)
        if len(matches) == len(found):
            self.paths.append(place.path)
            return None
        self.paths += [f"{place.path}/{places[0].name}" for _, places in matches]
        for child, _ in found:
            if not is_content_match(child):
                namespace, name = split_name(child)
                for below in place.find(self.names.module(namespace), name):
                    self._add_subtree(child, below)
        return None

    def add_xpath(self, text: str, expression: Expression) -> bool:
        """That of an XPath filter; whether it is one that is fast wherever it runs."""
        plain = _PATHS.fullmatch(text) is not None
        if not plain or not all(self._add_path(path, expression) for path in _PATH.finditer(text)):
            self._add_roots(expression)
        return plain

    def _add_roots(self, expression: Expression) -> None:
        """Everything that an expression may look at."""
        self.paths, self.exact = ["/*"] if expression.roots is None else [], False
        for root in sorted(expression.roots or ()):
            self._whole(_Place(self.names.top).find(*self._test(root, expression)))

    def _add_path(self, path: re.Match[str], expression: Expression) -> bool:
        """Of one location path, unless that is too many."""
        places, deep = [_Place(self.names.top)], path[1] == "//"
        for step in _STEP.finditer(path[2]):
            module, name = self._test(step[1], expression)
            if deep:
                places = [one for one in self.names.everywhere if name in ("*", one.name) and module in ("", one.module)]
            else:
                places = [below for one in places for below in one.find(module, name)]
            deep = False
            if len(places) + len(self.paths) > _MOST_PATHS:
                return False
            for test, value in _PREDICATE.findall(step[2]):
                module, child = self._test(test, expression)
                if not all(one.node.event or one.told_by(module, child) for one in places):
                    self._whole(places)
                    return True
                literal = value[0] + expression.canonical(value[1:-1]) + value[0]
                places = [one.where(child, literal) for one in places]
        self.paths += [one.path for one in places]
        return True

    def _test(self, test: str, expression: Expression) -> tuple[str, str]:
        """Module and name; a name without a prefix is of any module."""
        prefix, _, name = test.rpartition(":")
        return self.names.module(expression.namespaces[prefix]) if prefix else "", name

    def _whole(self, places: Iterable[_Place]) -> None:
        """What is below tells, not the path."""
        self.paths += [one.path for one in places]
        self.exact = False
