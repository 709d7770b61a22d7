"""edit-config, copy-config, delete-config, validate (RFC 6241 clauses 7.2 to 7.4 and 8.6).

Sysrepo applies an edit whole or not at all, which is what rollback-on-error promises and more than stop-on-error does.
continue-on-error goes on after a failure with the next of the edit's top-level elements.
"""

from qswitch.protocol.netconf import BASE, RpcError, RpcFailed, split_name

from ..errors import refused
from .call import DATASTORES, OK, Call, children, configuration, datastore, know, parameter, place, text


def edit_config(call: Call) -> bytes:
    target = datastore(call, "target", ("running", "candidate"))
    default = text(call, "default-operation", "merge", ("merge", "replace", "none"))
    test = text(call, "test-option", "test-then-set", ("test-then-set", "set", "test-only"))
    option = text(call, "error-option", "stop-on-error", ("rollback-on-error", "stop-on-error", "continue-on-error"))
    config = configuration(call)
    try:
        # Sysrepo validates running in any case; candidate may be incomplete while it is worked on.
        checked = test == "test-only" or (test == "test-then-set" and target != "candidate")
        call.user.edit(target, children(config), default, test=checked, change=test != "test-only")
    except RpcFailed:
        if option != "continue-on-error" or test == "test-only" or len(config) < 2:
            raise
        _continue(call, target, [children([child]) for child in config], default)
    return OK


def _continue(call: Call, target: str, parts: list[bytes], default: str) -> None:
    failures: list[RpcError] = []
    for part in parts:
        try:
            call.user.edit(target, part, default, test=False, change=True)
        except RpcFailed as failed:
            failures += failed.errors
    if failures:
        raise RpcFailed(*failures)


def copy_config(call: Call) -> bytes:
    target, element = datastore(call, "target"), place(call, "source")
    if parameter(call, "url") is not None:
        raise refused("operation-not-supported", "urls are not offered", ("bad-element", "url"))
    if split_name(element) == (BASE, "config"):
        know(call, element)
        call.user.replace(target, children(element))
        return OK
    source = datastore(call, "source")
    if source == target:
        raise refused("invalid-value", f"source and target are both '{source}'", ("bad-element", "source"))
    # Who may execute it may make startup what is running (RFC 8341 clause 3.2.6).
    call.user.copy(source, target, unrestricted=(source, target) == ("running", "startup"))
    return OK


def delete_config(call: Call) -> bytes:
    call.user.replace(datastore(call, "target", ("startup",)), b"")
    return OK


def validate(call: Call) -> bytes:
    element = place(call, "source")
    if split_name(element) == (BASE, "config"):
        know(call, element)
        call.user.validate_config(children(element))
    else:
        call.user.validate(datastore(call, "source", DATASTORES))
    return OK
