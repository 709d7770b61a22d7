"""NETCONF filters as XPath of libyang, so that sysrepo reads only what was asked for.

A subtree filter (RFC 6241 clause 6) becomes a union of paths: content-match leaves become predicates, selection nodes
paths. An XPath filter (clause 8.9) keeps its text, its prefixes changed to module names. YANG data has no attributes, so a
filter that asks for one selects nothing.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from lxml import etree

from qswitch.protocol.netconf import BASE, RpcError, RpcFailed, split_name

# A name with a prefix outside of quotes; an axis (`child::`) is none.
_TOKEN = re.compile(r"""("[^"]*"|'[^']*')|([A-Za-z_][\w.-]*):(?=[A-Za-z_*])""")


# What a client may select by: location paths with predicates that compare a child, or the node itself, to a literal.
# sysrepo applies access control to what is selected, not to what an expression looks at on the way: a predicate that
# reaches elsewhere would tell of nodes that its author may not read, and functions and axes can take it for ever.
_NAME = r"[A-Za-z_][\w.-]*(?::[A-Za-z_][\w.-]*)?"
_PREDICATE = rf"""\[\s*(?:{_NAME}(?:/{_NAME})*|\.)\s*=\s*(?:'[^']*'|"[^"]*")\s*\]"""
_STEP = rf"(?:{_NAME}|(?:[A-Za-z_][\w.-]*:)?\*)(?:{_PREDICATE})*"
_PATH = rf"\s*/{{1,2}}{_STEP}(?:/{_STEP})*\s*"
_PATHS = re.compile(rf"{_PATH}(?:\|{_PATH})*")
_LONGEST = 4096


@dataclass(frozen=True, slots=True)
class Names:
    """What a filter needs to know of the schema."""

    module_of: Callable[[str], str]  # namespace -> module name; "" when there is none
    modules_with: Callable[[str], tuple[str, ...]]  # name of a top-level node -> modules that have one
    is_module: Callable[[str], bool]


def to_xpath(element: etree._Element, names: Names) -> str | None:
    """The XPath of a `filter` element; None when it can select nothing. Raises RpcFailed for what is no filter."""
    kind = element.get("type") or element.get(f"{{{BASE}}}type") or "subtree"
    if kind == "xpath":
        return _xpath(element, names)
    if kind != "subtree":
        raise _bad_filter("bad-attribute", f"there is no filter type '{kind}'", "type")
    paths = [path for child in element for path in _top(child, names)]
    return " | ".join(paths) or None


def _bad_filter(tag: str, message: str, attribute: str) -> RpcFailed:
    return RpcFailed(RpcError(tag, message, "protocol", info=(("bad-attribute", attribute), ("bad-element", "filter"))))


def _xpath(element: etree._Element, names: Names) -> str:
    select = element.get("select") or element.get(f"{{{BASE}}}select")
    if not select:
        raise _bad_filter("missing-attribute", "an xpath filter needs 'select'", "select")
    if len(select) > _LONGEST or not _PATHS.fullmatch(select):
        rule = "only absolute paths are taken, with predicates like [name='value'], joined by |"
        raise RpcFailed(RpcError("invalid-value", f"xpath filter '{select[:200]}': {rule}"))
    return in_module_names(select, element, names)


def in_module_names(xpath: str, element: etree._Element, names: Names) -> str:
    """XPath with the prefixes in scope at an element changed to module names; a module name may stand as it is."""

    def change(match: re.Match[str]) -> str:
        if match[1]:
            return match[1]
        namespace = element.nsmap.get(match[2])
        module = names.module_of(namespace) if namespace else match[2]
        if not module or not names.is_module(module):
            raise RpcFailed(RpcError("invalid-value", f"prefix '{match[2]}' of '{xpath}' names no module"))
        return f"{module}:"

    return _TOKEN.sub(change, xpath)


def _top(element: etree._Element, names: Names) -> list[str]:
    namespace, name = split_name(element)
    # No namespace matches any; the base namespace is what a filter inherits that forgot to declare one (6.2.1).
    modules = names.modules_with(name) if namespace in ("", BASE) else (names.module_of(namespace),)
    return [path for module in modules if module for path in _paths(f"/{module}:{name}", element, names)]


def _paths(path: str, element: etree._Element, names: Names) -> list[str]:
    if element.attrib:
        return []
    matches = [child for child in element if _is_content_match(child)]
    others = [child for child in element if not _is_content_match(child)]
    path += "".join(f"[{_step(child, element, names)}={_literal(_value(child, names))}]" for child in matches)
    if not others:
        return [path]
    selected = [one for child in others for one in _paths(f"{path}/{_step(child, element, names)}", child, names)]
    return [*(f"{path}/{_step(child, element, names)}" for child in matches), *selected]


def _is_content_match(element: etree._Element) -> bool:
    return len(element) == 0 and bool((element.text or "").strip())


def _step(child: etree._Element, parent: etree._Element, names: Names) -> str:
    (namespace, name), (above, _) = split_name(child), split_name(parent)
    if namespace in ("", BASE) or namespace == above:
        return name
    return f"{names.module_of(namespace) or 'unknown'}:{name}"


def _value(element: etree._Element, names: Names) -> str:
    """The text of a content match; a prefix that is bound (an identity's) becomes the module name libyang compares."""
    text = (element.text or "").strip()
    prefix, colon, name = text.partition(":")
    module = names.module_of(element.nsmap.get(prefix) or "") if colon else ""
    return f"{module}:{name}" if module else text


def _literal(text: str) -> str:
    if "'" not in text:
        return f"'{text}'"
    if '"' not in text:
        return f'"{text}"'
    parts = ', "\'", '.join(f"'{part}'" for part in text.split("'"))
    return f"concat({parts})"


@dataclass(frozen=True, slots=True)
class Filter:
    """What a filter selects."""

    xpath: str | None

    @classmethod
    def everything(cls) -> "Filter":
        return cls("/*")

    def narrow(self, data: bytes) -> bytes:
        return data

    def matches(self, event: bytes) -> bool:  # noqa: ARG002
        return True


def parse(element: etree._Element, names: Names) -> Filter:
    return Filter(to_xpath(element, names))


def parse_xpath(text: str, element: etree._Element, names: Names) -> Filter:
    if len(text) > _LONGEST or not _PATHS.fullmatch(text):
        raise RpcFailed(RpcError("invalid-value", f"xpath filter '{text[:200]}' is not understood"))
    return Filter(in_module_names(text, element, names))
