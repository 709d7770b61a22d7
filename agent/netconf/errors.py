"""What sysrepo and libyang refuse, as NETCONF errors.

Both libraries say what is wrong in words and, when it is about a node, where. Their words are recognised by the one table
below; what no row matches stays `operation-failed` with the words unchanged. What the agent's callback refused carries
the sysrepo code of its `EDGES` row, which leads back to the error-tag there.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import libyang
import sysrepo
from _libyang import ffi as ly_ffi, lib as ly
from _sysrepo import ffi, lib
from sysrepo.session import SysrepoSession

from qswitch.protocol.netconf import YANG, RpcError, RpcFailed

from ..errors import EDGES
from . import nacm

# Words of libyang and sysrepo -> error-tag, error-app-tag, and the error-info element that their first quoted name fills
# (RFC 6241 appendix A, RFC 7950 clause 15).
_WORDS: tuple[tuple[str, str, str, str], ...] = (
    (r'^Node "([^"]+)" not found', "unknown-element", "", "bad-element"),
    (r'^No module with namespace "([^"]*)"', "unknown-namespace", "", "bad-namespace"),
    (r'^No \(implemented\) module with namespace "([^"]+)"', "unknown-namespace", "", "bad-namespace"),
    (r'is missing its key "([^"]+)"', "missing-element", "", "bad-element"),
    (r'^Mandatory node "([^"]+)" instance does not exist', "missing-element", "", "bad-element"),
    (r'^Mandatory choice "([^"]+)" data do not exist', "data-missing", "missing-choice", f"{{{YANG}}}missing-choice"),
    (r"no target instance", "data-missing", "instance-required", ""),
    (r"^Must condition", "operation-failed", "must-violation", ""),
    (r'^When condition .* not satisfied|^Node "([^"]+)" .*when', "unknown-element", "", "bad-element"),
    (r"^Unique data", "operation-failed", "data-not-unique", ""),
    (r'^Too many "([^"]+)" instances', "operation-failed", "too-many-elements", ""),
    (r'^Too few "([^"]+)" instances', "operation-failed", "too-few-elements", ""),
    (r'^Annotation definition for attribute "(?:[^":]+:)?([^"]+)" not found', "unknown-attribute", "", "bad-attribute"),
    (r'^Unknown XML prefix "[^"]*" at attribute "([^"]+)"', "unknown-attribute", "", "bad-attribute"),
    (r'^Missing mandatory prefix for XML metadata "([^"]+)"', "unknown-attribute", "", "bad-attribute"),
    (r'^Node "([^"]+)" instance to insert next to not found', "bad-attribute", "missing-instance", "bad-element"),
    (r'^Data for both cases "', "bad-element", "", ""),
    (r'^Child element "([^"]+)" inside a terminal node', "unknown-element", "", "bad-element"),
    (r'^Text value "[^"]*" inside an \w+ node "([^"]+)"', "bad-element", "", "bad-element"),
    (r"to be created already exists", "data-exists", "", ""),
    (r"to be deleted does not exist", "data-missing", "", ""),
    (r'^Unexpected data state node "([^"]+)"', "unknown-element", "", "bad-element"),
    (r"^(Invalid|Unsatisfied|Unsupported|Value|List|Duplicate|Unexpected)\b", "invalid-value", "", ""),
)
_UNKNOWN = "operation-failed"
_PREDICATES = re.compile(r"""\[(?:[^\]'"]|'[^']*'|"[^"]*")*\]""")
_PATH = re.compile(r'\s*\((?:path|data path|node) "(.*)"\)$')
_ATTRIBUTE = re.compile(r"(.*)/@(?:[\w.-]+:)?([\w.-]+)")  # the path of a metadata instance
_UNIQUE = re.compile(r'^Unique data leaf\(s\) "([^"]+)" not satisfied in "(/.*)" and "(/.*)"\.$')

NamespaceOf = Callable[[str], str]  # module name -> namespace; "" when there is no such module
Musts = Mapping[str, str]  # what libyang says of a `must` that has words or an app-tag of its own -> the app-tag


def _tags() -> dict[int, str]:
    """Sysrepo code -> error-tag: the codes by which the agent refuses, where its rows agree, and those only sysrepo uses."""
    tags: dict[int, set[str]] = {}
    for row in EDGES.values():
        tags.setdefault(getattr(lib, row.sysrepo), set()).add(row.netconf)
    agreed = {code: next(iter(found)) for code, found in tags.items() if len(found) == 1}
    return {**agreed, lib.SR_ERR_LOCKED: "in-use", lib.SR_ERR_NO_MEMORY: "resource-denied"}


_TAGS = _tags()


def refused(tag: str, message: str, *info: tuple[str, str]) -> RpcFailed:
    """A failure of the protocol with one error."""
    return RpcFailed(RpcError(tag, message, "protocol", info=info))


def at(tag: str, message: str, path: str, namespace_of: NamespaceOf, attribute: str = "") -> RpcFailed:
    """A failure at a node, or at an attribute of it; `path` is libyang's."""
    qualified, namespaces = qualify(path, namespace_of)
    return RpcFailed(RpcError(tag, message, path=qualified, info=_info(tag, path, attribute), namespaces=namespaces))


def denied(error: RpcError) -> RpcFailed:
    """The refusal that stands in place of an error about a node."""
    path = re.sub(_PREDICATES, "", error.path)
    message = "access to the data is denied"
    return RpcFailed(RpcError("access-denied", message, "protocol", path=path, namespaces=error.namespaces))


def from_sysrepo(
    error: sysrepo.SysrepoError, session: SysrepoSession, namespace_of: NamespaceOf, musts: Musts = MappingProxyType({})
) -> RpcFailed:
    """The failure that a session's last call reported."""
    found = _details(session) or [(error.rc, error.msg or str(error))]
    return _distinct(_from_code(code, text, namespace_of, musts) for code, text in found)


def from_libyang(error: libyang.LibyangError, namespace_of: NamespaceOf, musts: Musts = MappingProxyType({})) -> RpcFailed:
    """The failure of parsing or printing."""
    items = [(one.msg or str(error), one.data_path or "") for one in error.errors] or [(str(error), "")]
    return _distinct(_from_words(text, path, namespace_of, musts) for text, path in items)


def from_context(context: libyang.Context, namespace_of: NamespaceOf, musts: Musts) -> RpcFailed:
    """The failure of libyang's last call, with what its binding leaves out."""
    found, item = [], ly.ly_err_first(context.cdata)
    while item:
        path = _text(item.data_path) or _text(item.schema_path)
        error = _from_words(_text(item.msg), path, namespace_of, musts)
        if error.tag == _UNKNOWN and not error.app_tag and item.vecode == ly.LYVE_DATA:
            error = replace(error, tag="invalid-value")  # in the words of a type
        found.append(replace(error, app_tag=_text(item.apptag) or error.app_tag))
        item = item.next
    ly.ly_err_clean(context.cdata, ly_ffi.NULL)
    return _distinct(found or [RpcError(_UNKNOWN, "the data cannot be read")])


def _text(pointer: Any) -> str:
    return str(ly_ffi.string(pointer).decode(errors="replace")) if pointer else ""


def named_node(error: RpcError) -> str:
    """The name of the node that an error without a path is about; "" when it does not say."""
    name = re.match(r'Node "([^"]+)"', error.message)
    return name[1] if name and not error.path else ""


def with_path(error: RpcError, path: str, namespace_of: NamespaceOf) -> RpcError:
    """The error, at libyang's path."""
    qualified, namespaces = qualify(path, namespace_of)
    return replace(error, path=qualified, namespaces=namespaces)


def without_predicates(path: str) -> str:
    return re.sub(_PREDICATES, "", path)


def _distinct(found: Iterable[RpcError]) -> RpcFailed:
    """One error of each tag: what follows only repeats it, for the children of the node in question or another time."""
    first: dict[str, RpcError] = {}
    for one in found:
        if not first or not one.message.endswith("validation failed."):
            first.setdefault(one.tag, one)
    return RpcFailed(*first.values())


def _details(session: SysrepoSession) -> list[tuple[int, str]]:
    """Code and text of every error that the session's last call left, with the path behind the text where there is one."""
    pointer = ffi.new("sr_error_info_t **")
    if session.cdata is None or lib.sr_session_get_error(session.cdata, pointer) != lib.SR_ERR_OK or not pointer[0]:
        return []
    entries = (pointer[0].err[i] for i in range(pointer[0].err_count))
    return [(int(one.err_code), _said(one)) for one in entries if one.message]


def _said(error: Any) -> str:
    text = str(ffi.string(error.message).decode(errors="replace"))
    # Keys in the path of what is denied may be what the user must not read (RFC 8341 clause 3.2.5).
    denied = without_predicates(nacm.denied_at(error))
    return f'{text} (path "{denied}")' if denied else text


def _from_code(code: int, text: str, namespace_of: NamespaceOf, musts: Musts) -> RpcError:
    found = _PATH.search(text)
    words, path = (text[: found.start()], found[1]) if found else (text, "")
    error = _from_words(words, path, namespace_of, musts)
    # Libraries say where a value is wrong; a callback's text has no such end, and its code says what it means.
    tag = _TAGS.get(code, _UNKNOWN)
    if error.tag != _UNKNOWN or error.app_tag or (path and tag != "access-denied"):
        return error
    return replace(error, tag=tag, type=_type(tag))


def _from_words(text: str, path: str, namespace_of: NamespaceOf, musts: Musts) -> RpcError:
    metadata = _ATTRIBUTE.fullmatch(path)
    path, attribute = (metadata[1], metadata[2]) if metadata else (path, "")
    tag, app_tag = _UNKNOWN, musts.get(text, "")
    quoted: tuple[tuple[str, str], ...] = ()
    for pattern, *meaning, info in () if text in musts else _WORDS:
        if match := re.search(pattern, text):
            tag, app_tag = meaning
            quoted = ((info, match[1]),) if info and match[1] else ()
            break
    if attribute and tag == "invalid-value":
        tag = "bad-attribute"
    qualified, namespaces = qualify(path, namespace_of)
    pairs = quoted + tuple(one for one in _info(tag, path, attribute) if one[0] not in dict(quoted))
    if unique := _UNIQUE.match(text):
        pairs = _not_unique(unique, namespace_of)
    return RpcError(tag, text, app_tag=app_tag, path=qualified, info=pairs, namespaces=namespaces)


def _info(tag: str, path: str, attribute: str) -> tuple[tuple[str, str], ...]:
    """What appendix A of RFC 6241 wants to have named, as far as a path tells."""
    found = (("bad-attribute", attribute or "insert"),) if tag.endswith("-attribute") else ()
    named = tag.endswith(("-attribute", "-element")) and path
    return (*found, ("bad-element", last_name(path))) if named else found


def _not_unique(words: re.Match[str], namespace_of: NamespaceOf) -> tuple[tuple[str, str], ...]:
    """RFC 7950 clause 15.1."""
    leafs = (f"{entry}/{leaf}" for entry in (words[2], words[3]) for leaf in words[1].split())
    return tuple((f"{{{YANG}}}non-unique", qualify(leaf, namespace_of)[0]) for leaf in leafs)


def last_name(path: str) -> str:
    """The name of the node at the end of a path."""
    return (list(split_path(path)) or [""])[-1].partition("[")[0].rpartition(":")[2]


def _type(tag: str) -> str:
    return "protocol" if tag in ("access-denied", "operation-not-supported", "in-use", "lock-denied") else "application"


def qualify(path: str, namespace_of: NamespaceOf) -> tuple[str, dict[str, str]]:
    """A libyang data path, where a module name stands only where it changes, as XPath with a prefix on every step."""
    module, steps, namespaces = "", [], {}
    for step in split_path(path):
        name, bracket, rest = step.partition("[")
        if ":" in name:
            module, name = name.rsplit(":", 1)
        namespaces[module] = namespace_of(module)
        predicates = re.sub(r"(?<=\[)([A-Za-z_][\w.-]*)(?==)", rf"{module}:\1", bracket + rest)
        steps.append(f"/{module}:{name}{predicates}")
    if not all(namespaces.values()):
        return "", {}
    return "".join(steps), namespaces


def split_path(path: str) -> Iterable[str]:
    """The steps of a path; a slash inside a predicate's quotes separates nothing."""
    return [step[1:] for step in re.findall(r"""/(?:[^/\[]|\[(?:[^\]'"]|'[^']*'|"[^"]*")*\])+""", path)]
