"""What sysrepo and libyang refuse, as NETCONF errors.

Both libraries say what is wrong in words and, when it is about a node, where. Their words are recognised by the one table
below; what no row matches stays `operation-failed` with the words unchanged. What the agent's callback refused carries
the sysrepo code of its `EDGES` row, which leads back to the error-tag there.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import libyang
import sysrepo
from _sysrepo import ffi, lib
from sysrepo.session import SysrepoSession

from qswitch.protocol.netconf import RpcError, RpcFailed

from ..errors import EDGES
from . import nacm

# Words of libyang and sysrepo -> error-tag, error-app-tag, and the error-info element that their first quoted name fills
# (RFC 6241 appendix A, RFC 7950 clause 15).
_WORDS: tuple[tuple[str, str, str, str], ...] = (
    (r'^Node "([^"]+)" not found', "unknown-element", "", "bad-element"),
    (r'^No module with namespace "([^"]+)"', "unknown-namespace", "", "bad-namespace"),
    (r'^No \(implemented\) module with namespace "([^"]+)"', "unknown-namespace", "", "bad-namespace"),
    (r'is missing its key "([^"]+)"', "missing-element", "", "bad-element"),
    (r'^Mandatory node "([^"]+)" instance does not exist', "missing-element", "", "bad-element"),
    (r'^Mandatory choice "([^"]+)" data do not exist', "data-missing", "missing-choice", ""),
    (r"no target instance", "data-missing", "instance-required", ""),
    (r"^Must condition", "operation-failed", "must-violation", ""),
    (r'^When condition .* not satisfied|^Node "([^"]+)" .*when', "unknown-element", "", "bad-element"),
    (r"^Unique data", "operation-failed", "data-not-unique", ""),
    (r'^Too many "([^"]+)" instances', "operation-failed", "too-many-elements", ""),
    (r'^Too few "([^"]+)" instances', "operation-failed", "too-few-elements", ""),
    (r"to be created already exists", "data-exists", "", ""),
    (r"to be deleted does not exist", "data-missing", "", ""),
    (r'^Unexpected data state node "([^"]+)"', "unknown-element", "", "bad-element"),
    (r"^(Invalid|Unsatisfied|Unsupported|Value|List|Duplicate|Unexpected)\b", "invalid-value", "", ""),
)
_UNKNOWN = "operation-failed"
_PREDICATES = re.compile(r"""\[(?:[^\]'"]|'[^']*'|"[^"]*")*\]""")
_PATH = re.compile(r'\s*\((?:path|data path|node) "(.*)"\)$')

NamespaceOf = Callable[[str], str]  # module name -> namespace; "" when there is no such module


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


def from_sysrepo(error: sysrepo.SysrepoError, session: SysrepoSession, namespace_of: NamespaceOf) -> RpcFailed:
    """The failure that a session's last call reported."""
    found = _details(session) or [(error.rc, error.msg or str(error))]
    return _distinct(_from_code(code, text, namespace_of) for code, text in found)


def from_libyang(error: libyang.LibyangError, namespace_of: NamespaceOf) -> RpcFailed:
    """The failure of parsing or printing."""
    items = [(one.msg or str(error), one.data_path or "") for one in error.errors] or [(str(error), "")]
    return _distinct(_from_words(text, path, namespace_of) for text, path in items)


def _distinct(found: Iterable[RpcError]) -> RpcFailed:
    """One error of each tag: what follows only repeats it, for the children of the node in question or another time."""
    first: dict[str, RpcError] = {}
    for one in found:
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
    denied = re.sub(_PREDICATES, "", nacm.denied_at(error))
    return f'{text} (path "{denied}")' if denied else text


def _from_code(code: int, text: str, namespace_of: NamespaceOf) -> RpcError:
    found = _PATH.search(text)
    words, path = (text[: found.start()], found[1]) if found else (text, "")
    error = _from_words(words, path, namespace_of)
    # Libraries say where a value is wrong; a callback's text has no such end, and its code says what it means.
    tag = _TAGS.get(code, _UNKNOWN)
    if error.tag != _UNKNOWN or (path and tag != "access-denied"):
        return error
    return replace(error, tag=tag, type=_type(tag))


def _from_words(text: str, path: str, namespace_of: NamespaceOf) -> RpcError:
    qualified, namespaces = qualify(path, namespace_of)
    for pattern, tag, app_tag, info in _WORDS:
        if match := re.search(pattern, text):
            quoted = (match[1] or "") if match.re.groups else ""
            pairs = ((info, quoted),) if info and quoted else ()
            return RpcError(tag, text, app_tag=app_tag, path=qualified, info=pairs, namespaces=namespaces)
    return RpcError(_UNKNOWN, text, path=qualified, namespaces=namespaces)


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
