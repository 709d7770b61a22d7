"""get-data and edit-data (RFC 8526 clause 3.1): any datastore, state told from configuration, and where values come from."""

from qswitch.protocol.netconf import NMDA

from ..datastore import NO_CONFIG, NO_STATE, WITH_DEFAULTS, WITH_ORIGIN, Reading
from ..errors import refused
from ..filters import Filter, parse, parse_xpath
from ..origins import Origins
from .call import DATASTORES, OK, Call, children, configuration, identified, number, parameter, text
from .configuration import rest

_READABLE = (*DATASTORES, "operational")
_DEEPEST = 65535
_FILTERS = ("origin-filter", "negated-origin-filter")


def get_data(call: Call) -> bytes:
    where = identified(parameter(call, "datastore"), _READABLE)
    only_config = text(call, "config-filter", "", ("", "true", "false"))
    by_origin = _asked(call, where)
    if where != "operational" and only_config == "false":
        return _data(b"")
    options = {"": 0, "true": NO_STATE, "false": NO_CONFIG}[only_config] | (WITH_ORIGIN if by_origin else 0)
    # Operational shows every value in use, whoever chose it (RFC 8342 clause 5.3).
    mode = text(call, "with-defaults", "report-all" if where == "operational" else "explicit", tuple(WITH_DEFAULTS))
    unlimited = text(call, "max-depth", "unbounded") == "unbounded"
    depth = 0 if unlimited else number(call, "max-depth", 1, 1, _DEEPEST)
    found = call.user.read(where, _selection(call), Reading(mode, depth, options))
    return _data(_by_origin(call, found) if by_origin else found)


def _data(content: bytes) -> bytes:
    return b'<data xmlns="%b">%b</data>' % (NMDA.encode(), content)


def _selection(call: Call) -> Filter:
    subtree, xpath = parameter(call, "subtree-filter"), parameter(call, "xpath-filter")
    if subtree is not None and xpath is not None:
        raise refused("bad-element", "there is one filter, by subtree or by xpath", ("bad-element", "xpath-filter"))
    if xpath is not None:
        return parse_xpath(xpath.text or "", xpath, call.user.names)
    return Filter.everything() if subtree is None else parse(subtree, call.user.names)


def _asked(call: Call, where: str) -> bool:
    """Whether origins matter. Raises RpcFailed where there are none."""
    asked = [name for name in ("with-origin", *_FILTERS) if parameter(call, name) is not None]
    if asked and where != "operational":
        raise refused("invalid-value", "only operational knows origins", ("bad-element", asked[0]))
    if asked[-2:] == list(_FILTERS):
        raise refused("bad-element", "origins are kept or left out, not both", ("bad-element", asked[-1]))
    return bool(asked)


def _by_origin(call: Call, found: bytes) -> bytes:
    """Of what was found with its origins, what is asked for."""
    named = [one for name in _FILTERS for one in call.operation.findall(f"{{{NMDA}}}{name}")]
    negated, shown = (parameter(call, name) is not None for name in (_FILTERS[1], "with-origin"))
    with call.user.session.get_ly_ctx() as context:
        origins = Origins(context, call.user.schema, negated=negated, shown=shown)
        if named:
            origins.name(named)
        return origins.keep(found)


def edit_data(call: Call) -> bytes:
    target = identified(parameter(call, "datastore"), DATASTORES)
    default = text(call, "default-operation", "merge", ("merge", "replace", "none"))
    config = [*configuration(call)]
    if default == "replace":
        config += rest(call, target, config)
    call.user.edit(target, children(config), default, test=False, change=True)
    return OK
