"""XPath 1.0 of clients (RFC 6241 clause 8.9) as text: what it means here, and below which top-level nodes it may look.

Nothing is evaluated. The context is the root node, so relative paths become absolute. A prefix that is not bound may be a
module name, and a name without a prefix, which by the letter selects nothing in YANG data, is of any module.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from lxml import etree

from qswitch.protocol.netconf import RpcFailed

from .errors import refused

_LONGEST = 4096
_NC = r"[^\W\d][\w.-]*"
_TOKEN = re.compile(
    rf"""(?P<literal>"[^"]*"|'[^']*'|\d+(?:\.\d*)?|\.\d+)|(?P<name>{_NC}(?::(?:{_NC}|\*))?)"""
    r"|(?P<sign>::|//|\.\.|[!<>]=|[][().@,/|+=<>*$-])|(?P<space>\s+)|(?P<wrong>.)"
)
_FUNCTION = re.compile(
    "last|position|count|id|(local-)?name|namespace-uri|string(-length)?|concat|starts-with|contains|substring(-before|-after)?"
    "|normalize-space|translate|boolean|not|true|false|lang|number|sum|floor|ceiling|round"
)
_NODE_TYPES = ("node", "text", "comment", "processing-instruction")
# These lead from one top-level node to another.
_LEAVING = re.compile(r"\.\.|parent|ancestor(-or-self)?|(following|preceding)(-sibling)?")
_SIGNS = {"::": "::", "@": "@", ",": ",", "[": "[", "]": "]", ")": ")", ".": "dot", "..": "dot", "|": "union"}
_ENDS = ("literal", "test", "dot", ")", "]")  # no operand can follow them
_STEPS = ("test", "axis", "type", "dot", "@")
_INSIDE = ("slash", "root", "::", "@")  # a step after one of these goes on with a path

Token = tuple[str, str]  # role, text


@dataclass(slots=True)
class Expression:
    """An expression that selects nodes, for an evaluator with any context node."""

    source: str
    namespace_of: Callable[[str], str]  # of a prefix; "" when there is none
    canonical: Callable[[str], str]  # of a literal that may be the value of an identity
    roots: set[str] | None = field(default_factory=set)  # top-level names that it may look at and below; None: any
    namespaces: dict[str, str] = field(default_factory=dict)
    text: str = ""

    def __post_init__(self) -> None:
        """Raises RpcFailed `invalid-value` for what is no XPath, or selects no nodes."""
        if len(self.source) > _LONGEST:
            raise self._invalid(f"longer than {_LONGEST} characters")
        self.text = " ".join(self._parts())
        try:
            etree.XPath(self.text, namespaces=self.namespaces, regexp=False)
        except etree.XPathError as error:
            raise self._invalid("malformed") from error

    def _parts(self) -> Iterator[str]:
        opened: list[str] = []
        before = "end"
        for role, text in (*self._tokens(), ("end", "")):
            if role in _STEPS and before not in _INSIDE and "[" not in opened:
                yield "/"
                before = "root"
            if before == "root":
                self._look(text if role == "test" and text[-1] != "*" else None)
            if role in ("literal", "operator", "function") and text != "id" and all(one == "group" for one in opened):
                raise self._invalid("its value is no set of nodes")
            if role in ("[", "call", "group"):
                opened.append(role)
            elif role in ("]", ")") and opened:
                opened.pop()
            yield self._part(role, text, before)
            before = "@" if role == "::" and before in ("attribute", "namespace") else text if role == "axis" else role

    def _part(self, role: str, text: str, before: str) -> str:
        if (role, text) == ("root", "//") or (role in ("dot", "axis") and _LEAVING.fullmatch(text)):
            self._look(None)
        if role == "literal":
            return f"{text[0]}{self.canonical(text[1:-1])}{text[0]}" if text[0] in "'\"" else text
        if role == "function" and not _FUNCTION.fullmatch(text):
            raise self._invalid(f"there is no function '{text}'")
        if role != "test" or text == "*":
            return text
        prefix, colon, _ = text.partition(":")
        if not colon:
            return text if before == "@" else f"*[local-name()='{text}']"
        self.namespaces[prefix] = self.namespace_of(prefix)
        if not self.namespaces[prefix]:
            raise self._invalid(f"prefix '{prefix}' is bound to no namespace and is no module")
        return text

    def _invalid(self, why: str) -> RpcFailed:
        return refused("invalid-value", f"xpath filter '{self.source[:200]}': {why}", ("bad-element", "filter"))

    def _look(self, name: str | None) -> None:
        self.roots = None if name is None or self.roots is None else self.roots | {name}

    def _tokens(self) -> Iterator[Token]:
        """The tokens with the part they play (XPath 1.0 clause 3.7)."""
        role, found = "end", [one for one in _TOKEN.finditer(self.source) if one.lastgroup != "space"]
        for one, after in zip(found, [*(one[0] for one in found[1:]), ""], strict=False):
            role = self._role(str(one.lastgroup), one[0], role, after)
            yield role, one[0]

    def _role(self, kind: str, text: str, before: str, after: str) -> str:
        operand = before not in _ENDS
        if kind == "literal":
            return "literal"
        if kind == "wrong" or text == "$" or (kind == "name" and not operand and text not in ("and", "or", "mod", "div")):
            raise self._invalid(f"'{text}' cannot stand there")
        if kind == "name" and operand:
            return "axis" if after == "::" else "test" if after != "(" else "type" if text in _NODE_TYPES else "function"
        if text == "*" and operand:
            return "test"
        if text in ("/", "//"):
            return "root" if operand else "slash"
        if text == "(":
            return "call" if before in ("type", "function") else "group"
        return _SIGNS.get(text, "operator")
