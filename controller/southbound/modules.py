"""The YANG modules of a node, from whichever list it has of them, compared with those that the controller needs."""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple
from urllib.parse import parse_qs

from lxml import etree

from qswitch import yang

from ..checks import Finding, Level, ModuleCheck

_LIBRARY = "urn:ietf:params:xml:ns:yang:ietf-yang-library"
_MONITORING = "urn:ietf:params:xml:ns:yang:ietf-netconf-monitoring"

# RFC 8525, RFC 7895 and RFC 6022 at once: of what a node does not know it selects nothing.
FILTERS = (
    f'<yang-library xmlns="{_LIBRARY}"><module-set><name/><module><name/><revision/></module></module-set></yang-library>',
    f'<modules-state xmlns="{_LIBRARY}"><module><name/><revision/></module></modules-state>',
    f'<netconf-state xmlns="{_MONITORING}"><schemas><schema/></schemas></netconf-state>',
)
_LISTS = (
    (f"{{{_LIBRARY}}}yang-library/{{*}}module-set/{{*}}module", "name", "revision"),
    (f"{{{_LIBRARY}}}modules-state/{{*}}module", "name", "revision"),
    (f"{{{_MONITORING}}}netconf-state/{{*}}schemas/{{*}}schema", "identifier", "version"),
)


class _Need(NamedTuple):
    level: Level
    lack: str


_NEEDED = {
    yang.NODE: _Need(Level.WRONG, "the node does not speak ETSI GS QKD 015: there is nothing to read or to configure"),
    yang.TYPES: _Need(Level.WRONG, "types, roles and states have no values: every edit is refused"),
    yang.EXTENSIONS: _Need(
        Level.NOTE,
        "addresses of key managers, levels of key stores and the identifiers that applications bring stay unknown: "
        "the node falls back on its own configuration",
    ),
}
_INSTALL = "install it in the node's datastore, as implemented (sysrepoctl -i)"
_PUBLISHED = "2022-01-30"


def parse(data: etree._Element | None, capabilities: Iterable[str] = ()) -> dict[str, str]:
    """Revisions ("" where a module has none) by name, out of the reply to `FILTERS` or else of the capabilities."""
    for path, name, revision in _LISTS:
        listed = data.iterfind(path) if data is not None else ()
        found = {_text(one, name): _text(one, revision) for one in listed}
        if found:
            return found
    queries = [parse_qs(one.partition("?")[2]) for one in capabilities]
    return {one["module"][0]: one.get("revision", [""])[0] for one in queries if "module" in one}


def _text(element: etree._Element, name: str) -> str:
    return (element.findtext(f"{{*}}{name}") or "").strip()


def needed() -> Mapping[str, str]:
    """The newest revision that the controller knows of each module it needs."""
    revision = re.compile(r"^\s*revision\s+\"?(\d{4}-\d\d-\d\d)", re.MULTILINE)
    return {name: max(revision.findall(yang.Module(name).file.read_text(encoding="utf-8"))) for name in _NEEDED}


def check(found: Mapping[str, str]) -> tuple[tuple[ModuleCheck, ...], tuple[Finding, ...]]:
    checks, findings = [], []
    for name, wanted in needed().items():
        revision = found.get(name)
        words = _words(name, wanted, revision)
        checks.append(ModuleCheck(name, wanted, revision, words))
        if revision is None:
            findings.append(Finding(_NEEDED[name].level, "modules", f"{name} is missing: {_NEEDED[name].lack}", _INSTALL))
        elif revision != wanted:
            findings.append(Finding(Level.NOTE, "modules", f"{name}: {words}"))
    return tuple(checks), tuple(findings)


def _words(name: str, wanted: str, revision: str | None) -> str:
    if revision is None:
        return "missing"
    if revision == wanted:
        return "as the controller knows it"
    if revision == _PUBLISHED and name == yang.NODE:
        return f"{revision} is as ETSI published it: by its conditions, which never hold, it may refuse the data of links"
    if revision > wanted:
        return f"{revision} is newer than {wanted}: what it adds the controller does not see"
    return f"{revision or 'no revision'} is older than {wanted}: what was added since, the node refuses or lacks"
