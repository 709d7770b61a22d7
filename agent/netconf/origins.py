"""Origins of operational data (RFC 8342 clause 5.3.4, RFC 8526 clause 3.1.1): which nodes a get-data keeps by them.

A node without an origin of its own has its parent's. What is left out takes nothing with it that is kept below it.
"""

from collections.abc import Sequence

from lxml import etree

NAMESPACE = "urn:ietf:params:xml:ns:yang:ietf-origin"
_ORIGIN = f"{{{NAMESPACE}}}origin"


class Origins:
    """The identities of `origin-filter`, or of `negated-origin-filter`. No module of ours derives identities from them."""

    def __init__(self, elements: Sequence[etree._Element], *, negated: bool) -> None:
        self._named = frozenset((one.text or "").strip().rpartition(":")[2] for one in elements)
        self._negated = negated

    def keep(self, data: bytes, shown: bool) -> bytes:
        """The data that qualify, with their origins if they are to be shown."""
        root = etree.fromstring(b"<data>%b</data>" % data)
        for child in list(root):
            self._walk(child, "unknown", shown)
        return b"".join(etree.tostring(child) for child in root)

    def _walk(self, node: etree._Element, inherited: str, shown: bool) -> bool:
        """Removes the node unless it, or something below it, is kept."""
        origin = node.get(_ORIGIN, inherited).rpartition(":")[2]
        below = [self._walk(child, origin, shown) for child in list(node)]
        kept = any(below) if below else (origin in self._named) is not self._negated
        if not kept and (parent := node.getparent()) is not None:
            parent.remove(node)
        if not shown:
            node.attrib.pop(_ORIGIN, "")
        return kept
