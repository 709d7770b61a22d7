"""edit-config, copy-config, delete-config, validate (RFC 6241 clauses 7.2 to 7.4 and 8.6).

Sysrepo applies an edit whole or not at all, which is what rollback-on-error promises and more than stop-on-error does.
continue-on-error goes on after a failure with the next of the edit's top-level elements.
"""

from collections.abc import Iterator, Sequence

from lxml import etree

from qswitch.protocol.netconf import BASE, RpcError, RpcFailed, split_name

from ..errors import refused
from ..filters import Filter
from .call import DATASTORES, OK, Call, children, configuration, datastore, know, parameter, place, text, with_defaults


def edit_config(call: Call) -> bytes:
    target = datastore(call, "target", ("running", "candidate"))
    default = text(call, "default-operation", "merge", ("merge", "replace", "none"))
    test = text(call, "test-option", "test-then-set", ("test-then-set", "set", "test-only"))
    option = text(call, "error-option", "stop-on-error", ("rollback-on-error", "stop-on-error", "continue-on-error"))
    config = [*configuration(call)]
    if default == "replace":
        config += rest(call, target, config)
    if test == "test-only":
        call.user.edit(target, children(config), default, test=True, change=False)
        call.user.may_edit(children(config), default)
        return OK
    try:
        # Sysrepo validates running before it changes it; candidate may be incomplete while it is worked on.
        call.user.edit(target, children(config), default, test=False, change=True)
    except RpcFailed:
        if option != "continue-on-error" or len(config) < 2:
            raise
        _continue(call, target, [children([child]) for child in config], default)
    return OK


def rest(call: Call, target: str, config: Sequence[etree._Element]) -> Iterator[etree._Element]:
    """What makes an edit with default-operation replace the whole configuration: removals of all that it does not name.

    Sysrepo replaces only what an edit names.
    """
    named = {_identity(call, one) for one in config}
    found = etree.fromstring(b"<config>%b</config>" % call.user.read(target, Filter.everything()))
    for element in found:
        name, keys = _identity(call, element)
        if (name, keys) not in named:
            removal = etree.Element(name, {f"{{{BASE}}}operation": "remove"})
            removal.extend(one for one in list(element) if (one.tag, one.text) in keys)
            yield removal


def _identity(call: Call, element: etree._Element) -> tuple[str, frozenset[tuple[str, str | None]]]:
    """Of a top-level node: its name, and its keys where it is a list's entry."""
    namespace, name = split_name(element)
    keys = call.user.names.top.children[name][call.user.schema.module_of(namespace)].keys
    return str(element.tag), frozenset((str(one.tag), one.text) for one in element if split_name(one)[1] in keys)


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
    with_defaults(call)  # for what a url is written to; datastores tell defaults from values by themselves
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
