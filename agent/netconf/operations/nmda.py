"""get-data and edit-data (RFC 8526 clause 3.1): any datastore, state told from configuration, and where values come from."""

from qswitch.protocol.netconf import NMDA

from ..datastore import NO_CONFIG, NO_STATE, WITH_DEFAULTS, WITH_ORIGIN, Reading
from ..errors import refused
from ..filters import Filter, parse, parse_xpath
from ..origins import Origins
from .call import DATASTORES, OK, Call, children, configuration, identified, number, parameter, text

_READABLE = (*DATASTORES, "operational", "factory-default")
_DEEPEST = 65535


def get_data(call: Call) -> bytes:
    where = identified(parameter(call, "datastore"), _READABLE)
    only_config = text(call, "config-filter", "", ("", "true", "false"))
    origins = _origins(call, where)
    shown = parameter(call, "with-origin") is not None
    if shown and where != "operational":
        raise refused("invalid-value", "only operational knows origins", ("bad-element", "with-origin"))
    if where != "operational" and only_config == "false":
        return _data(b"")
    options = {"": 0, "true": NO_STATE, "false": NO_CONFIG}[only_config] | (WITH_ORIGIN if shown or origins else 0)
    mode = text(call, "with-defaults", "explicit", tuple(WITH_DEFAULTS))
    unlimited = text(call, "max-depth", "unbounded") == "unbounded"
    depth = 0 if unlimited else number(call, "max-depth", 1, 1, _DEEPEST)
    found = call.user.read(where, _selection(call), Reading(mode, depth, options))
    return _data(origins.keep(found, shown) if origins else found)


def _data(content: bytes) -> bytes:
    return b'<data xmlns="%b">%b</data>' % (NMDA.encode(), content)


def _selection(call: Call) -> Filter:
    subtree, xpath = parameter(call, "subtree-filter"), parameter(call, "xpath-filter")
    if subtree is not None and xpath is not None:
        raise refused("bad-element", "there is one filter, by subtree or by xpath", ("bad-element", "xpath-filter"))
    if xpath is not None:
        return parse_xpath(xpath.text or "", xpath, call.user.names)
    return Filter.everything() if subtree is None else parse(subtree, call.user.names)


def _origins(call: Call, where: str) -> Origins | None:
    named = {name: call.operation.findall(f"{{{NMDA}}}{name}") for name in ("origin-filter", "negated-origin-filter")}
    asked = [(name, one) for name, found in named.items() for one in found]
    if not asked:
        return None
    if where != "operational":
        raise refused("invalid-value", "only operational knows origins", ("bad-element", asked[0][0]))
    if all(named.values()):
        raise refused("bad-element", "origins are kept or left out, not both", ("bad-element", "negated-origin-filter"))
    return Origins(tuple(one for _, one in asked), negated=bool(named["negated-origin-filter"]))


def edit_data(call: Call) -> bytes:
    target = identified(parameter(call, "datastore"), DATASTORES)
    default = text(call, "default-operation", "merge", ("merge", "replace", "none"))
    call.user.edit(target, children(configuration(call)), default, test=False, change=True)
    return OK
