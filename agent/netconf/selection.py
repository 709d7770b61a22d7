"""What a filter selects in XML that access control has already let through, as the numbers of elements in document order.

A pure function of query and data. The file is also the program of the process that evaluates what a client may make
arbitrarily expensive (see evaluation.py), so it needs nothing but lxml: one query a line, one answer a line, each in a
child of its own with limits that the kernel enforces.
"""

import json
import os
import resource
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, cast

from lxml import etree

Answer = tuple[list[int], str, str]  # numbers; error-tag and message, if it failed
CPU_SECONDS, SECONDS, MEMORY = 3, 10, 512 * 1024 * 1024
EXHAUSTED: Answer = ([], "resource-denied", "the filter takes more time or memory than is given to one")

# A document may have one element at its top, data have many: XPath's root node is above them all (RFC 6241 clause 8.9.1).
_SPLIT = """<xsl:stylesheet version="1.0" xmlns:xsl="http://www.w3.org/1999/XSL/Transform">
<xsl:template match="/"><xsl:copy-of select="/*/*"/></xsl:template></xsl:stylesheet>"""


class Query(NamedTuple):
    """A filter as text."""

    text: str  # a filter element, or an XPath expression
    namespaces: Mapping[str, str] | None  # prefixes of the expression; None: a subtree filter
    modules: Mapping[str, str]  # namespace -> module name


def parse(data: bytes) -> etree._Element:
    """An element around all top-level nodes of data."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=True, remove_comments=True, remove_pis=True)
    return etree.fromstring(b"<data>%b</data>" % data, parser)


def select(query: Query, data: bytes) -> list[int]:
    """The numbers of the selected elements. Raises etree.XPathError, MemoryError."""
    top = list(parse(data))
    if not top:
        return []
    if query.namespaces is None:
        chosen = set(_roots(etree.fromstring(query.text), top, query.modules))
    else:
        document = _canonical_document(top, query.modules)
        top = [document.getroot(), *document.getroot().itersiblings()]
        chosen = set(_evaluate(document, query.text, query.namespaces))
    nodes = (node for one in top for node in one.iter(etree.Element))
    return [number for number, node in enumerate(nodes) if node in chosen]


def canonical(text: str, nsmap: Mapping[str | None, str], modules: Mapping[str, str]) -> str:
    """A value as libyang compares it: of an identity, the prefix becomes the module name."""
    prefix, colon, name = text.partition(":")
    module = modules.get(nsmap.get(prefix, "")) if colon else None
    return f"{module}:{name}" if module else text


# Subtrees (RFC 6241 clause 6) ------------------------------------------------------------------------------------------


def is_content_match(element: etree._Element) -> bool:
    return len(element) == 0 and bool((element.text or "").strip())


def by_namespace(filters: Iterable[etree._Element]) -> dict[str, list[etree._Element]]:
    """The sibling sets at the top (clause 6.3); "" is any namespace."""
    sets: dict[str, list[etree._Element]] = {}
    for one in filters:
        sets.setdefault(etree.QName(one).namespace or "", []).append(one)
    return sets


def _roots(
    filters: Iterable[etree._Element], data: list[etree._Element], modules: Mapping[str, str]
) -> list[etree._Element]:
    found: list[etree._Element] = []
    for namespace, siblings in by_namespace(filters).items():
        nodes = [node for node in data if namespace in ("", etree.QName(node).namespace)]
        found += _siblings(siblings, nodes, nodes, modules)
    return found


def _siblings(
    filters: list[etree._Element],
    data: list[etree._Element],
    whole: list[etree._Element],
    modules: Mapping[str, str],
) -> list[etree._Element]:
    """What one sibling set of a filter selects among the children of one node; `whole` when it is all of that node."""
    found: list[etree._Element] = []
    others = []
    for one in filters:
        if not is_content_match(one):
            others.append(one)
            continue
        equal = [node for node in data if _fits(one, node, modules) and _same_text(one, node, modules)]
        if not equal:
            return []
        found += equal
    if filters and not others:
        return whole
    for one in others:
        for node in data:
            if _fits(one, node, modules):
                found += _siblings(list(one), list(node), [node], modules) if len(one) else [node]
    return found


def _fits(one: etree._Element, node: etree._Element, modules: Mapping[str, str]) -> bool:
    """Name, namespace ("no namespace" is any, clause 6.2.1) and attributes (clause 6.2.2)."""
    if one.tag != node.tag and (one.tag[0] == "{" or one.tag != etree.QName(node).localname):
        return False
    return all(
        canonical(str(value), one.nsmap, modules) == canonical(str(node.get(name, "\0")), node.nsmap, modules)
        for name, value in one.items()
    )


def _same_text(one: etree._Element, node: etree._Element, modules: Mapping[str, str]) -> bool:
    wanted, found = (one.text or "").strip(), node.text or ""
    if len(node) or wanted == found or ":" not in wanted + found:
        return not len(node) and wanted == found
    return _qualified(wanted, one.nsmap, modules) == _qualified(found, node.nsmap, modules)


def _qualified(text: str, nsmap: Mapping[str | None, str], modules: Mapping[str, str]) -> str:
    """As `canonical`; an identity without a prefix is of the default namespace."""
    return canonical(text, nsmap, modules) if ":" in text else f"{modules.get(nsmap.get(None, ''))}:{text}"


# XPath (RFC 6241 clause 8.9) -------------------------------------------------------------------------------------------


def _canonical_document(top: list[etree._Element], modules: Mapping[str, str]) -> etree._ElementTree:
    """A copy of the data to which comparisons are as to libyang."""
    for node in (node for one in top for node in one.iter(etree.Element) if node.text and ":" in node.text):
        node.text = canonical(node.text or "", node.nsmap, modules)
    return etree.XSLT(etree.XML(_SPLIT))(top[0].getroottree())


def _evaluate(document: etree._ElementTree, text: str, namespaces: Mapping[str, str]) -> Iterator[etree._Element]:
    """The elements that are selected or that hold a selected text or attribute; those at the top for the root node."""
    evaluate = etree.XPathDocumentEvaluator(document, namespaces=dict(namespaces), regexp=False)
    for found in cast(list[Any], evaluate(text)):
        element = found if isinstance(found, etree._Element) else getattr(found, "getparent", lambda: None)()
        if element is not None:
            yield element
    if evaluate(f"boolean(({text})[not(parent::node())])"):
        yield from cast(list[etree._Element], evaluate("/*"))


# The process -----------------------------------------------------------------------------------------------------------


def _answer(query: Query, data: bytes) -> Answer:
    try:
        return select(query, data), "", ""
    except MemoryError:
        return EXHAUSTED
    except etree.XPathError as error:
        limit = "limit" in str(error) or "emory" in str(error)
        return EXHAUSTED if limit else ([], "invalid-value", f"the filter cannot be evaluated: {error}")


def _serve(line: bytes) -> None:
    """In a process of its own: it is killed when it takes too long."""
    os.nice(10)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    *query, data = json.loads(line)
    answer = _answer(Query(*query), data.encode())
    signal.setitimer(signal.ITIMER_REAL, 0)
    print(json.dumps(answer), flush=True)


def main() -> None:
    for line in sys.stdin.buffer:
        if not os.fork():
            try:
                _serve(line)
            except BaseException:
                os._exit(1)
            os._exit(0)
        if os.wait()[1]:
            print(json.dumps(EXHAUSTED), flush=True)


if __name__ == "__main__":
    main()
