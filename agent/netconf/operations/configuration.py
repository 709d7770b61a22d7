"""edit-config, copy-config, delete-config, validate (RFC 6241 clauses 7.2 to 7.4 and 8.6).

Sysrepo applies an edit whole or not at all, which is what rollback-on-error promises and more than stop-on-error does;
continue-on-error, which would have to leave half an edit, is not offered.
"""

from lxml import etree

from qswitch.protocol.netconf import BASE, split_name

from ..errors import refused
from .call import OK, Call, children, datastore, parameter, place, text

_ERROR_OPTIONS = ("rollback-on-error", "stop-on-error")


def edit_config(call: Call) -> bytes:
    target = datastore(call, "target")
    default = text(call, "default-operation", "merge", ("merge", "replace", "none"))
    test = text(call, "test-option", "set", ("test-then-set", "set", "test-only"))
    if text(call, "error-option", "stop-on-error") not in _ERROR_OPTIONS:
        raise refused("operation-not-supported", f"error-option must be one of {', '.join(_ERROR_OPTIONS)}")
    config = parameter(call, "config")
    if config is None:
        if parameter(call, "url") is not None:
            raise refused("operation-not-supported", "configuration cannot be fetched from a url")
        raise refused("missing-element", "an edit-config needs a config", ("bad-element", "config"))
    _know(call, config)
    call.user.edit(target, children(config), default, test=test != "set", change=test != "test-only")
    return OK


def _know(call: Call, config: etree._Element) -> None:
    """Raises RpcFailed for data of no module: libyang would take them for opaque."""
    for child in config:
        namespace, name = split_name(child)
        element, module = ("bad-element", name), call.user.schema.module_of(namespace)
        if not module:
            where = element, ("bad-namespace", namespace)
            raise refused("unknown-namespace", f"no module has the namespace '{namespace}' of '{name}'", *where)
        if module not in call.user.names.modules_with(name):
            raise refused("unknown-element", f"module {module} has no '{name}' at the top", element)


def copy_config(call: Call) -> bytes:
    source, target = datastore(call, "source"), datastore(call, "target")
    if source == target:
        raise refused("invalid-value", f"source and target are both '{source}'")
    call.user.copy(source, target)
    return OK


def delete_config(call: Call) -> bytes:
    call.user.clear(datastore(call, "target", ("startup",)))
    return OK


def validate(call: Call) -> bytes:
    what = place(call, "source")
    if split_name(what) == (BASE, "config"):
        _know(call, what)
        call.user.validate_config(children(what))
    else:
        call.user.validate(datastore(call, "source"))
    return OK
