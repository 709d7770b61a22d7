"""NETCONF capabilities in words: what each is good for, and what follows for this controller where a node lacks it. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from ..checks import CapabilityCheck, Finding, Level

BASE = "urn:ietf:params:netconf:base:"


@dataclass(frozen=True, slots=True)
class _Known:
    """`lack` says what follows; `level` is None where nothing does for the controller."""

    uri: str
    words: str
    lack: str
    level: Level | None = None
    advice: str = ""


def _netconf(name: str) -> str:
    return f"urn:ietf:params:netconf:capability:{name}"


_FEATURE = "switch it on in the node's NETCONF server"
_KNOWN = (
    _Known(f"{BASE}1.1", "messages in chunks (RFC 6242)", "messages end with a marker, as in RFC 4742", Level.NOTE),
    _Known(
        _netconf("writable-running:1.0"),
        "running can be edited directly: as the controller does it",
        "the controller edits running, and so cannot configure this node",
        Level.WRONG,
        _FEATURE,
    ),
    _Known(
        "urn:ietf:params:netconf:capability:notification:1.0",
        "the node tells what happens (RFC 5277)",
        "the controller hears neither of new applications nor of failures: it sees the latter at its next poll",
        Level.WRONG,
        _FEATURE,
    ),
    _Known(
        _netconf("interleave:1.0"),
        "operations and notifications share a session",
        "notifications take a second session, which a node that calls over TLS cannot have",
        Level.NOTE,
    ),
    _Known(
        _netconf("rollback-on-error:1.0"),
        "an edit is taken whole or not at all",
        "an edit that is refused half-way may leave its first half behind, until the controller reads and repairs",
        Level.NOTE,
        _FEATURE,
    ),
    _Known(
        _netconf("validate:1.1"),
        "edits can be tried without being made",
        "whether the user may edit cannot be tried out",
        Level.NOTE,
    ),
    _Known(_netconf("candidate:1.0"), "edits can be prepared aside", "nothing: the controller edits running"),
    _Known(
        _netconf("confirmed-commit:1.1"), "a commit can undo itself", "nothing: the controller undoes by edits of its own"
    ),
    _Known(_netconf("startup:1.0"), "startup is a datastore of its own", "the node itself keeps running over a restart"),
    _Known(_netconf("xpath:1.0"), "filters in XPath", "nothing: the controller filters by subtree"),
    _Known(_netconf("with-defaults:1.0"), "defaults are shown on demand (RFC 6243)", "nothing: the controller knows them"),
    _Known(_netconf("yang-library:1.1"), "modules are listed by RFC 8525", "nothing: other lists are read as well"),
)


def check(offered: Iterable[str]) -> tuple[tuple[CapabilityCheck, ...], tuple[str, ...], tuple[Finding, ...]]:
    """The known ones; the URIs of others, those of YANG modules left out; and what is missed."""
    names = {one.partition("?")[0]: one for one in offered}
    known = tuple(
        CapabilityCheck(_short(one.uri), one.uri in names, one.words if one.uri in names else f"without it: {one.lack}")
        for one in _KNOWN
    )
    others = [full for name, full in names.items() if name not in {one.uri for one in _KNOWN} and "module=" not in full]
    missed = tuple(
        Finding(one.level, "capabilities", f"{_short(one.uri)} is not offered: {one.lack}", one.advice)
        for one in _KNOWN
        if one.level is not None and one.uri not in names
    )
    return known, tuple(sorted(others)), missed


def version(offered: Iterable[str]) -> str:
    """The NETCONF version that both sides speak: the newer one that the node has."""
    return "1.1" if f"{BASE}1.1" in set(offered) else "1.0"


def _short(uri: str) -> str:
    return uri.removeprefix("urn:ietf:params:netconf:").removeprefix("capability")
